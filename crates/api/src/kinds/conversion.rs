//! Kinds that are served in several versions and stored in one. The verbs work in the served version throughout; only
//! what goes to the store and what comes from it is converted. Entries of field ownership keep the version that
//! their manager wrote in.

use std::sync::Arc;

use serde_json::Value;

use super::{Behaviour, Kind, Rejection, Text};

/// Between a served version and the stored one. Both directions keep what the other form cannot say, where the original
/// has a place for it.
pub trait Convert: Send + Sync {
    fn to_stored(&self, object: Value) -> Value;
    fn to_served(&self, object: Value) -> Value;
}

/// Where and how the objects of an entry are stored.
#[derive(Clone)]
pub struct Conversion {
    pub group: Text,
    pub version: Text,
    stored_api_version: String,
    served_api_version: String,
    convert: Arc<dyn Convert>,
}

impl Conversion {
    pub fn new(stored: &Kind, served: &Kind, convert: impl Convert + 'static) -> Self {
        Self {
            group: stored.group.clone(),
            version: stored.version.clone(),
            stored_api_version: stored.api_version(),
            served_api_version: served.api_version(),
            convert: Arc::new(convert),
        }
    }

    pub fn to_stored(&self, object: Value) -> Value {
        self.convert_to(&self.stored_api_version, object, |object| self.convert.to_stored(object))
    }

    pub fn to_served(&self, object: Value) -> Value {
        self.convert_to(&self.served_api_version, object, |object| self.convert.to_served(object))
    }

    fn convert_to(&self, api_version: &str, object: Value, convert: impl FnOnce(Value) -> Value) -> Value {
        if object.get("apiVersion").and_then(Value::as_str) == Some(api_version) {
            return object;
        }
        let mut object = convert(object);
        if let Value::Object(map) = &mut object {
            map.insert("apiVersion".into(), api_version.into());
        }
        // What the one always writes, the other may not have.
        if let Some(schema) = crate::schema::of_object(&object) {
            schema.canonicalize(&mut object);
        }
        object
    }
}

/// A served version whose objects are defaulted and validated as the stored one's are. Cells and fields are taken from
/// either form.
pub struct Converted {
    /// What the served version alone knows: its defaults, its cells, its fields.
    pub own: Arc<dyn Behaviour>,
    pub stored: Arc<dyn Behaviour>,
    pub conversion: Conversion,
}

impl Converted {
    fn served(&self, object: Result<Value, Rejection>) -> Result<Value, Rejection> {
        object.map(|object| self.conversion.to_served(object))
    }
}

impl Behaviour for Converted {
    fn defaulted(&self, object: Value) -> Value {
        let stored = self.stored.defaulted(self.conversion.to_stored(self.own.defaulted(object)));
        self.conversion.to_served(stored)
    }

    fn create(&self, object: Value, warned: &mut Vec<String>) -> Result<Value, Rejection> {
        let object = self.own.create(object, &mut Vec::new())?;
        self.served(self.stored.create(self.conversion.to_stored(object), warned))
    }

    fn update(&self, object: Value, old: &Value, warned: &mut Vec<String>) -> Result<Value, Rejection> {
        let object = self.own.update(object, old, &mut Vec::new())?;
        let old = self.conversion.to_stored(old.clone());
        self.served(self.stored.update(self.conversion.to_stored(object), &old, warned))
    }

    fn update_status(&self, object: Value, old: &Value) -> Result<Value, Rejection> {
        let object = self.own.update_status(object, old)?;
        let old = self.conversion.to_stored(old.clone());
        self.served(self.stored.update_status(self.conversion.to_stored(object), &old))
    }

    fn row(&self, object: &Value) -> Vec<Value> {
        self.stored.row(&self.conversion.to_stored(object.clone()))
    }

    fn fields(&self, object: &Value) -> Vec<(String, String)> {
        self.own.fields(&self.conversion.to_served(object.clone()))
    }
}
