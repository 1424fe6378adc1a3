//! Compiles a schema's rules, and says what is wrong with them in the API server's words.

use std::sync::Arc;

use cel::{Decl, Env, MAX_REQUEST_BYTES, Program, Type};
use serde_json::Value;

use super::costs::Costs;
use super::declare::{declare, number};
use super::{Faults, Place, Rule, field_path};
use crate::expressions::library;
use crate::schema::crd::{flag, text};
use crate::status::{FieldError, Problem};

/// As deep as a schema may be.
const MAX_DEPTH: usize = 64;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

pub fn compile(schema: &Value, path: &str) -> (Option<Place>, Faults) {
    let mut compiler = Compiler::default();
    let here = Here { cardinality: Some(1), ..Here::default() };
    let decl = declare(schema, "selfType", true);
    let place = compiler.place(schema, path, &here, decl.as_ref());
    let Compiler { shape, mut found, costs } = compiler;
    found.extend(costs.total(path));
    ((!place.is_empty()).then_some(place), Faults { form: shape, meaning: found })
}

#[derive(Default)]
struct Compiler {
    /// Faults in the rules' form.
    shape: Vec<FieldError>,
    found: Vec<FieldError>,
    costs: Costs,
}

/// Where in the schema the walk is.
#[derive(Default, Clone)]
struct Here {
    depth: usize,
    /// How many such values an object can hold; `None` is without bound.
    cardinality: Option<u64>,
    /// The highest place above whose values cannot be told from their older selves.
    uncorrelatable: Option<String>,
}

impl Here {
    fn below(&self, factor: Option<u64>, uncorrelatable: Option<&str>) -> Self {
        Self {
            depth: self.depth + 1,
            cardinality: self.cardinality.zip(factor).map(|(a, b)| a.saturating_mul(b)),
            uncorrelatable: self.uncorrelatable.clone().or_else(|| uncorrelatable.map(str::to_owned)),
        }
    }
}

/// A rule as it was written.
struct Written<'a> {
    value: &'a Value,
    field: String,
}

impl<'a> Written<'a> {
    fn text(&self, key: &str) -> &'a str {
        text(self.value, key)
    }

    fn field(&self, key: &str) -> String {
        format!("{}.{key}", self.field)
    }

    /// The whole rule as the value of an error.
    fn invalid(&self, key: &str, detail: &str) -> FieldError {
        let quoted = |key: &str| Value::from(self.text(key)).to_string();
        let optional = |key: &str| self.value.get(key).unwrap_or(&Value::Null).to_string();
        let shown = format!(
            "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
            quoted("rule"),
            quoted("message"),
            quoted("messageExpression"),
            optional("reason"),
            quoted("fieldPath"),
            optional("optionalOldSelf"),
        );
        let shown = shown.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        let message = format!("Invalid value: {shown}: {detail}");
        FieldError { field: self.field(key), problem: Problem::Worded("FieldValueInvalid", message) }
    }
}

impl Compiler {
    fn place(&mut self, schema: &Value, path: &str, here: &Here, decl: Option<&Arc<Decl>>) -> Place {
        let mut place =
            Place { decl: decl.cloned(), json_type: text(schema, "type").into(), ..Place::default() };
        if here.depth > MAX_DEPTH {
            return place;
        }
        let child = |schema: &Value, decl: Option<&Arc<Decl>>| match decl {
            Some(decl) => Some(Arc::clone(decl)),
            None => declare(schema, "selfType", flag(schema, "x-kubernetes-embedded-resource")),
        };
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            let below = here.below(number(schema, "maxProperties"), None);
            let decl = child(values, decl.and_then(|decl| element(decl)));
            let inner = self.place(values, &format!("{path}.additionalProperties"), &below, decl.as_ref());
            place.values = (!inner.is_empty()).then(|| Box::new(inner));
        }
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, property) in properties {
            let known = cel::escape(name).and_then(|name| decl.and_then(|decl| decl.field(&name)));
            let decl = child(property, known);
            let path = format!("{path}.properties[{name}]");
            let inner = self.place(property, &path, &here.below(Some(1), None), decl.as_ref());
            if !inner.is_empty() {
                place.properties.insert(name.as_str().into(), inner);
            }
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            let keyed = text(schema, "x-kubernetes-list-type") == "map";
            let below = here.below(number(schema, "maxItems"), (!keyed).then_some(path));
            let decl = child(items, decl.and_then(|decl| element(decl)));
            let inner = self.place(items, &format!("{path}.items"), &below, decl.as_ref());
            place.items = (!inner.is_empty()).then(|| Box::new(inner));
            if keyed {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                place.list_keys =
                    keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect();
            }
        }
        for (at, part) in schema.get("allOf").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let mut inner =
                Place { decl: decl.cloned(), json_type: place.json_type.clone(), ..Place::default() };
            inner.rules = self.rules(part, schema, &format!("{path}.allOf[{at}]"), here, decl);
            if !inner.is_empty() {
                place.all_of.push(inner);
            }
        }
        place.rules = self.rules(schema, schema, path, here, decl);
        place
    }

    fn rules(
        &mut self,
        schema: &Value,
        node: &Value,
        path: &str,
        here: &Here,
        decl: Option<&Arc<Decl>>,
    ) -> Vec<Rule> {
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        let rules = rules.map(Vec::as_slice).unwrap_or_default();
        let Some(decl) = decl.filter(|_| !rules.is_empty()) else { return Vec::new() };
        // A resource's own fields are known whatever its schema says of them.
        let envs = [false, true].map(|optional| {
            let env = Env::new(library().clone()).declare("self", decl);
            if optional { env.declare_optional("oldSelf", decl) } else { env.declare("oldSelf", decl) }
        });
        let mut out = Vec::new();
        for (at, value) in rules.iter().enumerate() {
            let rule = Written { value, field: format!("{path}.x-kubernetes-validations[{at}]") };
            self.check_form(&rule, node);
            let env = &envs[usize::from(flag(value, "optionalOldSelf"))];
            out.extend(self.rule(&rule, env, node, here, decl));
        }
        out
    }

    fn check_form(&mut self, rule: &Written<'_>, node: &Value) {
        let lines = |text: &str| text.contains(['\n', '\r']);
        let (source, message) = (rule.text("rule").trim(), rule.text("message").trim());
        let invalid = |key: &str, detail: &str| FieldError::invalid(rule.field(key), rule.text(key), detail);
        if source.is_empty() {
            self.shape.push(FieldError::required(rule.field("rule"), "rule is not specified"));
        } else if !rule.text("message").is_empty() && message.is_empty() {
            self.shape.push(invalid("message", "must be non-empty if specified"));
        } else if lines(message) {
            self.shape.push(invalid("message", "must not contain line breaks"));
        } else if lines(source) && message.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            self.shape.push(FieldError::required(rule.field("message"), detail));
        }
        let expression = rule.text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            self.shape.push(FieldError::required(rule.field("messageExpression"), detail));
        }
        if let Some(reason) =
            rule.value.get("reason").and_then(Value::as_str).filter(|r| !REASONS.contains(r))
        {
            self.shape.push(FieldError::not_supported(rule.field("reason"), reason, &REASONS));
        }
        let path = rule.text("fieldPath");
        if !path.is_empty() {
            if path.trim().is_empty() {
                self.shape.push(invalid("fieldPath", "must be non-empty if specified"));
            }
            if lines(path) {
                self.shape.push(invalid("fieldPath", "must not contain line breaks"));
            }
            if field_path::parse(path, node).is_none() {
                self.shape.push(invalid("fieldPath", "must be a valid path"));
            }
        }
    }

    fn rule(
        &mut self,
        rule: &Written<'_>,
        env: &Env,
        node: &Value,
        here: &Here,
        decl: &Arc<Decl>,
    ) -> Option<Rule> {
        let source = rule.text("rule");
        if source.trim().is_empty() {
            return None;
        }
        let program = match Program::compile(env, source) {
            Ok(program) if *program.output() == Type::Bool => program,
            Ok(_) => {
                self.found.push(rule.invalid("rule", "cel expression must evaluate to a bool"));
                return None;
            }
            Err(issues) => {
                self.found.push(rule.invalid("rule", &format!("compilation failed: {issues}")));
                return None;
            }
        };
        let times = here.cardinality.unwrap_or(MAX_REQUEST_BYTES / (decl.min_size + 1));
        let cost = program.bounds().max.saturating_mul(times);
        self.found.extend(self.costs.observe(rule.field("rule"), "estimated rule cost", cost));
        let message_expression = self.message(rule, env);
        let uses_old_self = program.uses("oldSelf");
        if let (true, Some(place)) = (uses_old_self, &here.uncorrelatable) {
            let detail =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
            self.found.push(FieldError::invalid(rule.field("rule"), source, detail));
        }
        let optional_old_self = rule.value.get("optionalOldSelf").and_then(Value::as_bool);
        if let (false, Some(given)) = (uses_old_self, optional_old_self) {
            let detail = "may not be set if oldSelf is not used in rule";
            self.found.push(FieldError::invalid(rule.field("optionalOldSelf"), given, detail));
        }
        Some(Rule {
            source: source.to_owned(),
            program,
            message: rule.text("message").to_owned(),
            message_expression,
            reason: rule.value.get("reason").and_then(Value::as_str).map(Into::into),
            field_path: field_path::parse(rule.text("fieldPath"), node).unwrap_or_default(),
            optional_old_self: optional_old_self.unwrap_or(false),
            uses_old_self,
        })
    }

    fn message(&mut self, rule: &Written<'_>, env: &Env) -> Option<(String, Program)> {
        let source = rule.text("messageExpression");
        if source.trim().is_empty() {
            return None;
        }
        let fault = match Program::compile(env, source) {
            Ok(program) if *program.output() == Type::String => {
                let (field, cost) = (rule.field("messageExpression"), program.bounds().max);
                self.found.extend(self.costs.observe(field, "estimated messageExpression cost", cost));
                return Some((source.to_owned(), program));
            }
            Ok(_) => "messageExpression must evaluate to a string".to_owned(),
            Err(issues) => format!("messageExpression compilation failed: {issues}"),
        };
        self.found.push(rule.invalid("messageExpression", &fault));
        None
    }
}

fn element(decl: &Decl) -> Option<&Arc<Decl>> {
    match &decl.kind {
        cel::DeclKind::List { item, .. } => Some(item),
        cel::DeclKind::Map(value) => Some(value),
        _ => None,
    }
}
