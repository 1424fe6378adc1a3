//! Custom resources: an entry of the kinds table made from a CustomResourceDefinition at run time.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value;

mod cells;
mod finalizers;
mod scale;

use super::{Behaviour, CUSTOM_VERBS, Kind, READ_WRITE, Rejection, Rules, Storage, Subresource, names};
use crate::jsonpath::{self, JsonPath};
use crate::schema::expressions::{self, Place};
use crate::schema::pattern::Patterns;
use crate::schema::{self, Schema, embedded, unique};
use crate::status::{FieldError, Problem};

/// Where the scale subresource reads and writes.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    pub selector: Option<Vec<String>>,
}

impl ScalePaths {
    pub fn standard() -> Self {
        let path = |text: &str| text.split('.').map(str::to_owned).collect();
        Self {
            spec_replicas: path("spec.replicas"),
            status_replicas: path("status.replicas"),
            selector: Some(path("spec.selector")),
        }
    }
}

/// What the server needs of a custom kind beside its entry.
pub struct CustomResource {
    pub schema: Schema,
    /// The `openAPIV3Schema` as it was given, for OpenAPI.
    pub document: Value,
    /// The version that objects are stored in.
    pub storage_version: String,
}

/// An entry for each served version.
pub fn from_definition(definition: &CustomResourceDefinition) -> Result<Vec<Kind>, String> {
    let storage =
        definition.spec.versions.iter().find(|v| v.storage).map(|v| v.name.clone()).unwrap_or_default();
    let served = definition.spec.versions.iter().filter(|v| v.served);
    let mut patterns = Patterns::default();
    served.map(|version| entry(definition, version, &storage, &mut patterns)).collect()
}

fn entry(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
    storage_version: &str,
    patterns: &mut Patterns,
) -> Result<Kind, String> {
    let spec = &definition.spec;
    let given = &spec.names;
    let document = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let document = serde_json::to_value(document).map_err(|e| e.to_string())?;
    let schema = schema::from_version(&document, patterns).map_err(|faults| faults.join("; "))?;
    // What is wrong with the rules was said when the definition was taken.
    let (rules, _) = schema::expressions::compile(&document, "");
    let subresources = version.subresources.clone().unwrap_or_default();
    let scaled = subresources.scale.as_ref().map(scale::Paths::of);
    let has_status = subresources.status.is_some();
    let scale = subresources.scale.map(|s| {
        let path = |text: &str| text.split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        ScalePaths {
            spec_replicas: path(&s.spec_replicas_path),
            status_replicas: path(&s.status_replicas_path),
            selector: s.label_selector_path.as_deref().map(path),
        }
    });
    let mut served = Vec::new();
    if has_status {
        // The body's kind is the resource's own, which discovery fills in.
        served.push(Subresource { name: "status", gvk: ("", "", ""), verbs: READ_WRITE, part: None });
    }
    if scale.is_some() {
        let gvk = ("autoscaling", "v1", "Scale");
        served.push(Subresource { name: "scale", gvk, verbs: READ_WRITE, part: None });
    }
    let (columns, cells) = cells::of(version.additional_printer_columns.as_deref());
    let fields = version.selectable_fields.iter().flatten();
    let fields: Vec<(String, JsonPath)> = fields
        .map(|f| Ok((f.json_path.trim_start_matches('.').to_owned(), JsonPath::parse(&f.json_path)?)))
        .collect::<Result<_, String>>()?;
    let selectable = fields.iter().map(|(name, _)| name.clone().into()).collect();
    Ok(Kind {
        group: spec.group.clone().into(),
        version: version.name.clone().into(),
        kind: given.kind.clone().into(),
        list_kind: given.list_kind.clone().unwrap_or_else(|| format!("{}List", given.kind)).into(),
        plural: given.plural.clone().into(),
        singular: given.singular.clone().unwrap_or_else(|| given.kind.to_lowercase()).into(),
        short_names: given.short_names.iter().flatten().cloned().map(Into::into).collect(),
        categories: given.categories.iter().flatten().cloned().map(Into::into).collect(),
        namespaced: spec.scope == "Namespaced",
        verbs: CUSTOM_VERBS,
        storage: Storage::Stored(format!("/registry/{}/{}", spec.group, given.plural).into()),
        has_status,
        has_generation: true,
        name_rule: names::Rule::Subdomain,
        scale,
        subresources: served,
        columns,
        behaviour: Arc::new(Custom { schema: schema.clone(), rules, cells, fields, scale: scaled }),
        selectable,
        ttl_seconds: None,
        rules: Rules { update_needs_version: true, status_keeps: &["metadata"], ..Rules::default() },
        on_read: std::convert::identity,
        conversion: None,
        deprecated: None,
        custom: Some(Arc::new(CustomResource { schema, document, storage_version: storage_version.into() })),
    })
}

struct Custom {
    schema: Schema,
    rules: Option<Place>,
    cells: Vec<cells::Cell>,
    fields: Vec<(String, JsonPath)>,
    scale: Option<scale::Paths>,
}

/// Rules are not evaluated over values that are not even of their types.
const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                           complete validation";

impl Custom {
    /// `part` tells what is written of what the scale is made of.
    fn settle(&self, mut object: Value, old: Option<&Value>, part: scale::Part) -> Result<Value, Rejection> {
        self.schema.prune(&mut object);
        self.schema.apply_defaults(&mut object);
        let found = match old {
            Some(old) => self.schema.validate_update(&object, old),
            None => self.schema.validate(&object),
        };
        let within = if part == scale::Part::Status { "status." } else { "" };
        let mut faults: Vec<FieldError> =
            found.into_iter().map(|fault| field_error(seen_from(fault, within))).collect();
        faults.extend(self.scale.iter().flat_map(|scale| scale.faults(&object, part)));
        faults.extend(embedded::faults(&self.schema, &object));
        faults.extend(unique::faults(&self.schema, &object, old));
        self.judge(object, old, faults)
    }

    /// What the rules say, where there is anything for them to look at.
    fn judge(
        &self,
        mut object: Value,
        old: Option<&Value>,
        mut faults: Vec<FieldError>,
    ) -> Result<Value, Rejection> {
        match &self.rules {
            Some(_) if faults.iter().any(FieldError::is_of_form) => {
                faults.push(FieldError::invalid("<nil>", Value::Null, NOT_CHECKED));
            }
            Some(rules) => faults.extend(expressions::evaluate(rules, &object, old)),
            None => {}
        }
        if !faults.is_empty() {
            return Err(Rejection::Fields(faults));
        }
        whole_numbers(&mut object);
        Ok(object)
    }
}

/// A status that is written alone is told of as the original looks at it: for itself, but for the field.
fn seen_from(mut fault: schema::Invalid, within: &str) -> schema::Invalid {
    if let Some(rest) = fault.path.strip_prefix(within).filter(|_| !within.is_empty()) {
        fault.message =
            fault.message.replacen(&format!("{} in body", fault.path), &format!("{rest} in body"), 1);
    }
    fault
}

/// Floats that are whole are written as whole numbers, as the original writes them.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            // Beyond that not every whole number is a float.
            const EXACT: f64 = 9_007_199_254_740_992.0;
            if let Some(float) = float.filter(|float| float.abs() <= EXACT) {
                *value = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

pub(super) fn field_error(fault: schema::Invalid) -> FieldError {
    let field = if fault.path.is_empty() { "<nil>".to_owned() } else { fault.path };
    FieldError { field, problem: Problem::Worded(fault.reason.as_str(), fault.message) }
}

impl Behaviour for Custom {
    fn defaulted(&self, mut object: Value) -> Value {
        self.schema.prune(&mut object);
        self.schema.apply_defaults(&mut object);
        object
    }

    fn create(&self, object: Value, warned: &mut Vec<String>) -> Result<Value, Rejection> {
        warned.extend(finalizers::warnings(&object, None));
        self.settle(object, None, scale::Part::Whole)
    }

    fn update(&self, object: Value, old: &Value, warned: &mut Vec<String>) -> Result<Value, Rejection> {
        warned.extend(finalizers::warnings(&object, Some(old)));
        self.settle(object, Some(old), scale::Part::Whole)
    }

    fn update_status(&self, object: Value, old: &Value) -> Result<Value, Rejection> {
        self.settle(object, Some(old), scale::Part::Status)
    }

    fn row(&self, object: &Value) -> Vec<Value> {
        self.cells.iter().map(|cell| cell.of(object)).collect()
    }

    fn fields(&self, object: &Value) -> Vec<(String, String)> {
        let value = |path: &JsonPath| path.first(object).map(jsonpath::text).unwrap_or_default();
        self.fields.iter().map(|(name, path)| (name.clone(), value(path))).collect()
    }
}
