//! A built-in kind from its `k8s-openapi` type: one decode, then the kind's own functions, then one encode.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::conversion::{Conversion, Convert, Converted};
use super::metadata::Pass;
use super::{
    ALL_VERBS, Behaviour, FINALIZE, Kind, Part, READ_WRITE, Rejection, Rules, ScalePaths, Storage,
    Subresource, names, printed,
};
use crate::columns;
use crate::status::FieldError;

/// Collects the faults of an object.
#[derive(Default)]
pub struct Errors(pub Vec<FieldError>);

impl Errors {
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub fn required(&mut self, field: impl Into<String>, missing: bool) {
        if missing {
            self.0.push(FieldError::required(field, ""));
        }
    }

    /// `value` must be one of `supported`.
    pub fn one_of(&mut self, field: impl Into<String>, value: Option<&str>, supported: &[&str]) {
        match value {
            Some(value) if !supported.contains(&value) => {
                self.0.push(FieldError::not_supported(field, value, supported));
            }
            _ => {}
        }
    }

    pub fn not_negative(&mut self, field: impl Into<String>, value: Option<i64>) {
        if let Some(value) = value.filter(|v| *v < 0) {
            self.0.push(FieldError::invalid(field, value, "must be greater than or equal to 0"));
        }
    }

    /// A field that may not change after creation.
    pub fn immutable<V: PartialEq + Serialize>(&mut self, field: impl Into<String>, new: &V, old: &V) {
        if new != old {
            let shown = serde_json::to_value(new).unwrap_or_default();
            self.0.push(FieldError::immutable(field, shown));
        }
    }
}

/// What the types of the table have in common.
pub trait Object:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}
impl<T> Object for T where
    T: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Prepares and validates a part of an object: the new, the old.
type Settle<T> = fn(&mut T, &T, &mut Errors);

/// The functions of one kind. Each has a default that does nothing.
struct Typed<T> {
    default: fn(&mut T),
    prepare_create: fn(&mut T),
    prepare_update: fn(&mut T, &T),
    validate: fn(&T, &mut Errors),
    validate_create: fn(&T, &mut Errors),
    validate_update: fn(&T, &T, &mut Errors),
    prepare_status: fn(&mut T, &T),
    validate_status: fn(&T, &T, &mut Errors),
    parts: Vec<(&'static str, Settle<T>)>,
    /// Whether of an update what changed is told of first.
    changes_first: bool,
    warnings: Option<fn(&T) -> Vec<String>>,
    warnings_of_change: Option<Warnings<T>>,
    status_warnings: fn(&T) -> Vec<String>,
    row: fn(&T) -> Vec<Value>,
    fields: Fields<T>,
}

/// What whoever writes an object is warned of: of the new, beside the old.
type Warnings<T> = fn(&T, Option<&T>) -> Vec<String>;

/// How the selectable fields of an object are found.
enum Fields<T> {
    Typed(fn(&T) -> Vec<(&'static str, String)>),
    /// Without reading all of it: for kinds of which there are many, and many who select.
    Bare(fn(&Value) -> Vec<(&'static str, String)>),
}

impl<T> Typed<T> {
    /// What is refused is not warned of as well.
    fn warn(&self, object: &T, old: Option<&T>, errors: &Errors, warned: &mut Vec<String>) {
        if !errors.0.is_empty() {
            return;
        }
        warned.extend(self.warnings.map(|warnings| warnings(object)).unwrap_or_default());
        warned.extend(self.warnings_of_change.map(|warnings| warnings(object, old)).unwrap_or_default());
    }
}

impl<T: Object> Behaviour for Typed<T> {
    fn defaulted(&self, object: Value) -> Value {
        let Ok(mut decoded) = T::deserialize(&object) else { return object };
        (self.default)(&mut decoded);
        encode(decoded, Errors::default()).unwrap_or(object)
    }

    fn create(&self, object: Value, warned: &mut Vec<String>) -> Result<Value, Rejection> {
        let mut object: T = decode(object)?;
        (self.default)(&mut object);
        (self.prepare_create)(&mut object);
        let mut errors = Errors::default();
        (self.validate)(&object, &mut errors);
        (self.validate_create)(&object, &mut errors);
        self.warn(&object, None, &errors, warned);
        encode(object, errors)
    }

    fn update(&self, object: Value, old: &Value, warned: &mut Vec<String>) -> Result<Value, Rejection> {
        let mut object: T = decode(object)?;
        let old = read::<T>(old)?;
        (self.default)(&mut object);
        (self.prepare_update)(&mut object, &old);
        let mut errors = Errors::default();
        if self.changes_first {
            (self.validate_update)(&object, &old, &mut errors);
            (self.validate)(&object, &mut errors);
        } else {
            (self.validate)(&object, &mut errors);
            (self.validate_update)(&object, &old, &mut errors);
        }
        self.warn(&object, Some(&old), &errors, warned);
        encode(object, errors)
    }

    fn update_status(&self, object: Value, old: &Value) -> Result<Value, Rejection> {
        let mut object: T = decode(object)?;
        let old = read::<T>(old)?;
        (self.default)(&mut object);
        (self.prepare_status)(&mut object, &old);
        let mut errors = Errors::default();
        (self.validate_status)(&object, &old, &mut errors);
        encode(object, errors)
    }

    fn update_part(&self, part: &Part, object: Value, old: &Value) -> Result<Value, Rejection> {
        let Some((_, settle)) = self.parts.iter().find(|(name, _)| *name == part.name) else {
            return Ok(object);
        };
        let mut object: T = decode(object)?;
        let old = read::<T>(old)?;
        (self.default)(&mut object);
        let mut errors = Errors::default();
        settle(&mut object, &old, &mut errors);
        encode(object, errors)
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        T::deserialize(object).map(|object| (self.status_warnings)(&object)).unwrap_or_default()
    }

    fn row(&self, object: &Value) -> Vec<Value> {
        match T::deserialize(object) {
            Ok(object) => (self.row)(&object),
            Err(_) => vec![crate::meta::name(object).into()],
        }
    }

    fn fields(&self, object: &Value) -> Vec<(String, String)> {
        let found = match self.fields {
            Fields::Typed(fields) => T::deserialize(object).map(|object| fields(&object)).unwrap_or_default(),
            Fields::Bare(fields) => fields(object),
        };
        found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn decode<T: DeserializeOwned>(object: Value) -> Result<T, Rejection> {
    serde_json::from_value(object).map_err(|e| Rejection::Decode(e.to_string()))
}

/// As [`decode`], of what is needed still.
fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Rejection> {
    T::deserialize(object).map_err(|e| Rejection::Decode(e.to_string()))
}

fn encode<T: Serialize>(object: T, errors: Errors) -> Result<Value, Rejection> {
    match errors.0.is_empty() {
        true => serde_json::to_value(object).map_err(|e| Rejection::Decode(e.to_string())),
        false => Err(Rejection::Fields(errors.0)),
    }
}

/// Builds an entry of the table.
pub struct Build<T> {
    kind: Kind,
    typed: Typed<T>,
    /// The stored version's behaviour, when this is another version.
    stored: Option<(Arc<dyn Behaviour>, Conversion)>,
}

impl<T: Object> Build<T> {
    /// `plural` as in URLs; the rest follows from the type.
    pub fn new(plural: &'static str, namespaced: bool) -> Self {
        let kind = Kind {
            group: T::GROUP.into(),
            version: T::VERSION.into(),
            kind: T::KIND.into(),
            list_kind: format!("{}List", T::KIND).into(),
            plural: plural.into(),
            singular: T::KIND.to_lowercase().into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            verbs: ALL_VERBS,
            storage: Storage::Stored(format!("/registry/{plural}").into()),
            has_status: false,
            has_generation: false,
            name_rule: names::Rule::Subdomain,
            scale: None,
            subresources: Vec::new(),
            columns: printed::columns(T::GROUP, T::KIND),
            behaviour: Arc::new(Untouched),
            selectable: Vec::new(),
            ttl_seconds: None,
            rules: Rules::default(),
            on_read: std::convert::identity,
            conversion: None,
            deprecated: None,
            custom: None,
        };
        let typed = Typed {
            default: |_| (),
            prepare_create: |_| (),
            prepare_update: |_, _| (),
            validate: |_, _| (),
            validate_create: |_, _| (),
            validate_update: |_, _, _| (),
            prepare_status: |_, _| (),
            validate_status: |_, _, _| (),
            parts: Vec::new(),
            changes_first: false,
            warnings: None,
            warnings_of_change: None,
            status_warnings: |_| Vec::new(),
            row: |object: &T| {
                vec![columns::name_cell(object.metadata()), columns::created_cell(object.metadata())]
            },
            fields: Fields::Bare(|_| Vec::new()),
        };
        Self { kind, typed, stored: None }
    }

    pub fn short(mut self, names: &[&'static str]) -> Self {
        self.kind.short_names = names.iter().map(|n| Cow::Borrowed(*n)).collect();
        self
    }

    /// Part of `kubectl get all`.
    pub fn in_all(self) -> Self {
        self.category("all")
    }

    pub fn category(mut self, category: &'static str) -> Self {
        self.kind.categories.push(category.into());
        self
    }

    /// Every answer warns of its age.
    pub fn deprecated(mut self, warning: &'static str) -> Self {
        self.kind.deprecated = Some(warning);
        self
    }

    pub fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.kind.verbs = verbs;
        self
    }

    /// What objects that other servers have stored get when they are read.
    pub fn on_read(mut self, convert: fn(Value) -> Value) -> Self {
        self.kind.on_read = convert;
        self
    }

    /// Says how the verbs treat its objects.
    pub fn rules(mut self, set: fn(&mut Rules)) -> Self {
        set(&mut self.kind.rules);
        self
    }

    /// How often the kind itself looks at the metadata of an object that is replaced.
    pub fn metadata_on_update(mut self, passes: &'static [Pass]) -> Self {
        self.kind.rules.metadata.update = passes;
        self
    }

    /// The same of one that gets another status.
    pub fn metadata_on_status(mut self, passes: &'static [Pass]) -> Self {
        self.kind.rules.metadata.status = passes;
        self
    }

    /// Its objects live with those of `stored`, in that version, which also defaults and validates them.
    pub fn stored_as(mut self, stored: &Kind, convert: impl Convert + 'static) -> Self {
        let conversion = Conversion::new(stored, &self.kind, convert);
        self.kind.storage = stored.storage.clone();
        self.stored = Some((Arc::clone(&stored.behaviour), conversion));
        self
    }

    pub fn prefix(mut self, prefix: &'static str) -> Self {
        self.kind.storage = Storage::Stored(prefix.into());
        self
    }

    pub fn names(mut self, rule: names::Rule) -> Self {
        self.kind.name_rule = rule;
        self
    }

    pub fn status(mut self) -> Self {
        self.kind.has_status = true;
        self.subresource("status", (T::GROUP, T::VERSION, T::KIND), READ_WRITE)
    }

    pub fn generation(mut self) -> Self {
        self.kind.has_generation = true;
        self
    }

    /// A `scale` subresource over `spec.replicas`, `status.replicas` and `spec.selector`.
    pub fn scale(mut self) -> Self {
        self.kind.scale = Some(ScalePaths::standard());
        self.subresource("scale", ("autoscaling", "v1", "Scale"), READ_WRITE)
    }

    pub fn subresource(
        mut self,
        name: &'static str,
        gvk: (&'static str, &'static str, &'static str),
        verbs: &'static [&'static str],
    ) -> Self {
        self.kind.subresources.push(Subresource { name, gvk, verbs, part: None });
        self
    }

    /// A subresource over a part of the object, with what holds of it.
    pub fn part(mut self, part: &'static Part, settle: fn(&mut T, &T, &mut Errors)) -> Self {
        let gvk = (T::GROUP, T::VERSION, T::KIND);
        self.kind.subresources.push(Subresource {
            name: part.name,
            gvk,
            verbs: READ_WRITE,
            part: Some(part),
        });
        self.typed.parts.push((part.name, settle));
        self
    }

    /// What holds of the finalizers in its spec, which its subresource `finalize` writes.
    pub fn finalizes(mut self, settle: fn(&mut T, &T, &mut Errors)) -> Self {
        self.typed.parts.push((FINALIZE.name, settle));
        self
    }

    pub fn ttl_seconds(mut self, seconds: u64) -> Self {
        self.kind.ttl_seconds = Some(seconds);
        self
    }

    pub fn default(mut self, default: fn(&mut T)) -> Self {
        self.typed.default = default;
        self
    }

    pub fn prepare_create(mut self, prepare: fn(&mut T)) -> Self {
        self.typed.prepare_create = prepare;
        self
    }

    pub fn prepare_update(mut self, prepare: fn(&mut T, &T)) -> Self {
        self.typed.prepare_update = prepare;
        self
    }

    pub fn validate(mut self, validate: fn(&T, &mut Errors)) -> Self {
        self.typed.validate = validate;
        self
    }

    /// What holds at birth only.
    pub fn validate_create(mut self, validate: fn(&T, &mut Errors)) -> Self {
        self.typed.validate_create = validate;
        self
    }

    pub fn validate_update(mut self, validate: fn(&T, &T, &mut Errors)) -> Self {
        self.typed.validate_update = validate;
        self
    }

    /// Of an update, what may not change is told of before what no object may be.
    pub fn changes_first(mut self) -> Self {
        self.typed.changes_first = true;
        self
    }

    /// What a status may become.
    pub fn validate_status(mut self, validate: fn(&T, &T, &mut Errors)) -> Self {
        self.typed.validate_status = validate;
        self
    }

    pub fn prepare_status(mut self, prepare: fn(&mut T, &T)) -> Self {
        self.typed.prepare_status = prepare;
        self
    }

    pub fn warnings(mut self, warnings: fn(&T) -> Vec<String>) -> Self {
        self.typed.warnings = Some(warnings);
        self
    }

    /// Those that depend on what there was before.
    pub fn warnings_of_change(mut self, warnings: Warnings<T>) -> Self {
        self.typed.warnings_of_change = Some(warnings);
        self
    }

    /// What is said of a status that is taken.
    pub fn status_warnings(mut self, warnings: fn(&T) -> Vec<String>) -> Self {
        self.typed.status_warnings = warnings;
        self
    }

    /// The cells, in the order of the columns that `columns.tsv` lists.
    pub fn row(mut self, row: fn(&T) -> Vec<Value>) -> Self {
        self.typed.row = row;
        self
    }

    pub fn fields(mut self, names: &[&'static str], fields: fn(&T) -> Vec<(&'static str, String)>) -> Self {
        self.kind.selectable = names.iter().map(|n| Cow::Borrowed(*n)).collect();
        self.typed.fields = Fields::Typed(fields);
        self
    }

    /// As [`Build::fields`], of an object that is not decoded.
    pub fn bare_fields(
        mut self,
        names: &[&'static str],
        fields: fn(&Value) -> Vec<(&'static str, String)>,
    ) -> Self {
        self.kind.selectable = names.iter().map(|n| Cow::Borrowed(*n)).collect();
        self.typed.fields = Fields::Bare(fields);
        self
    }

    pub fn done(mut self) -> Kind {
        let own: Arc<dyn Behaviour> = Arc::new(self.typed);
        self.kind.behaviour = match self.stored {
            Some((stored, conversion)) => {
                self.kind.conversion = Some(conversion.clone());
                Arc::new(Converted { own, stored, conversion })
            }
            None => own,
        };
        self.kind
    }
}

/// A kind that is answered and never stored: its body is what its handler makes of it.
pub fn review(group: &'static str, kind: &'static str, plural: &'static str, namespaced: bool) -> Kind {
    Kind {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        plural: plural.into(),
        singular: kind.to_lowercase().into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        verbs: super::CREATE_ONLY,
        storage: Storage::Virtual,
        has_status: false,
        has_generation: false,
        name_rule: names::Rule::Subdomain,
        scale: None,
        subresources: Vec::new(),
        columns: Vec::new(),
        behaviour: Arc::new(Untouched),
        selectable: Vec::new(),
        ttl_seconds: None,
        rules: Rules::default(),
        on_read: std::convert::identity,
        conversion: None,
        deprecated: None,
        custom: None,
    }
}

/// Takes objects as they are.
struct Untouched;

impl Behaviour for Untouched {
    fn create(&self, object: Value, _warned: &mut Vec<String>) -> Result<Value, Rejection> {
        Ok(object)
    }

    fn update(&self, object: Value, _old: &Value, _warned: &mut Vec<String>) -> Result<Value, Rejection> {
        Ok(object)
    }

    fn update_status(&self, object: Value, _old: &Value) -> Result<Value, Rejection> {
        Ok(object)
    }

    fn row(&self, _object: &Value) -> Vec<Value> {
        Vec::new()
    }

    fn fields(&self, _object: &Value) -> Vec<(String, String)> {
        Vec::new()
    }
}
