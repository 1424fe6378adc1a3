//! Custom resources: an entry of the kinds table made from a CustomResourceDefinition at run time.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value;

use super::{ALL_VERBS, Behaviour, Kind, READ_WRITE, Rejection, Rules, Storage, Subresource, names};
use crate::columns::{self, Column};
use crate::jsonpath::{self, JsonPath};
use crate::schema::expressions::{self, Place};
use crate::schema::pattern::Patterns;
use crate::schema::{self, Schema};
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
    let (columns, cells) = printer_columns(version.additional_printer_columns.as_deref());
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
        verbs: ALL_VERBS,
        storage: Storage::Stored(format!("/registry/{}/{}", spec.group, given.plural).into()),
        has_status,
        has_generation: true,
        name_rule: names::Rule::Subdomain,
        scale,
        subresources: served,
        columns,
        behaviour: Arc::new(Custom { schema: schema.clone(), rules, cells, fields }),
        selectable,
        ttl_seconds: None,
        rules: Rules { update_needs_version: true, status_keeps: &["metadata"], ..Rules::default() },
        on_read: std::convert::identity,
        conversion: None,
        deprecated: None,
        custom: Some(Arc::new(CustomResource { schema, document, storage_version: storage_version.into() })),
    })
}

enum Cell {
    Name,
    Path(JsonPath),
    Since(JsonPath),
}

fn printer_columns(given: Option<&[CustomResourceColumnDefinition]>) -> (Vec<Column>, Vec<Cell>) {
    let mut columns = vec![columns::name()];
    let mut cells = vec![Cell::Name];
    let age = CustomResourceColumnDefinition {
        name: "Age".into(),
        type_: "date".into(),
        json_path: ".metadata.creationTimestamp".into(),
        ..Default::default()
    };
    for column in given.unwrap_or(&[age]) {
        let Ok(path) = JsonPath::parse(&column.json_path) else { continue };
        let mut shown = columns::text("");
        shown.name = column.name.clone().into();
        shown.kind = column.type_.clone().into();
        shown.description = column.description.clone().unwrap_or_default().into();
        shown.priority = column.priority.unwrap_or(0);
        columns.push(shown);
        cells.push(if column.type_ == "date" { Cell::Since(path) } else { Cell::Path(path) });
    }
    (columns, cells)
}

struct Custom {
    schema: Schema,
    rules: Option<Place>,
    cells: Vec<Cell>,
    fields: Vec<(String, JsonPath)>,
}

/// Rules are not evaluated over values that are not even of their types.
const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                           complete validation";

impl Custom {
    fn settle(&self, mut object: Value, old: Option<&Value>) -> Result<Value, Rejection> {
        self.schema.prune(&mut object);
        self.schema.apply_defaults(&mut object);
        let found = match old {
            Some(old) => self.schema.validate_update(&object, old),
            None => self.schema.validate(&object),
        };
        let blocking = found.iter().any(|fault| fault.reason.is_of_form());
        let mut faults: Vec<FieldError> = found.into_iter().map(field_error).collect();
        match &self.rules {
            Some(_) if blocking => faults.push(FieldError::invalid("<nil>", Value::Null, NOT_CHECKED)),
            Some(rules) => faults.extend(expressions::evaluate(rules, &object, old)),
            None => {}
        }
        if faults.is_empty() { Ok(object) } else { Err(Rejection::Fields(faults)) }
    }
}

fn field_error(fault: schema::Invalid) -> FieldError {
    let problem = Problem::Worded(fault.reason.as_str(), fault.message);
    FieldError { field: fault.path, problem }
}

impl Behaviour for Custom {
    fn defaulted(&self, mut object: Value) -> Value {
        self.schema.prune(&mut object);
        self.schema.apply_defaults(&mut object);
        object
    }

    fn create(&self, object: Value, _warned: &mut Vec<String>) -> Result<Value, Rejection> {
        self.settle(object, None)
    }

    fn update(&self, object: Value, old: &Value, _warned: &mut Vec<String>) -> Result<Value, Rejection> {
        self.settle(object, Some(old))
    }

    fn update_status(&self, object: Value, old: &Value) -> Result<Value, Rejection> {
        self.settle(object, Some(old))
    }

    fn row(&self, object: &Value) -> Vec<Value> {
        let cell = |cell: &Cell| match cell {
            Cell::Name => crate::meta::name(object).into(),
            Cell::Path(path) => path.first(object).map_or(Value::Null, |v| match v {
                Value::Object(_) | Value::Array(_) => v.to_string().into(),
                scalar => scalar.clone(),
            }),
            Cell::Since(path) => {
                let time = path
                    .first(object)
                    .and_then(Value::as_str)
                    .and_then(|t| t.parse::<jiff::Timestamp>().ok());
                columns::since_cell(time.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time).as_ref())
            }
        };
        self.cells.iter().map(cell).collect()
    }

    fn fields(&self, object: &Value) -> Vec<(String, String)> {
        let value = |path: &JsonPath| path.first(object).map(jsonpath::text).unwrap_or_default();
        self.fields.iter().map(|(name, path)| (name.clone(), value(path))).collect()
    }
}
