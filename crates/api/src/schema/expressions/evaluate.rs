//! Evaluates rules over an object and, where there is one, its older self. Values that have not changed are not
//! refused for what is wrong with them already.

use std::collections::{BTreeMap, HashMap};

use cel::{CALL_LIMIT, Fault, OBJECT_BUDGET, Value as Cel};
use serde_json::Value;

use super::{Place, Rule};
use crate::status::{FieldError, Problem};

/// The longest message that an expression may give.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// How the original calls the whole object.
const ROOT: &str = "<nil>";

/// What the rules say against `value`.
pub fn evaluate(place: &Place, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut run = Run { budget: OBJECT_BUDGET, path: String::new(), errors: Vec::new() };
    // Running out ends the walk; what was found until then is told.
    run.visit(place, value, Older { own: old, parent: None }).ok();
    run.errors
}

/// What a value was before.
#[derive(Clone, Copy)]
struct Older<'a> {
    own: Option<&'a Value>,
    /// The nearest value above that can be told from its older self, with that older self.
    parent: Option<(&'a Value, &'a Value)>,
}

impl<'a> Older<'a> {
    fn unchanged(self, value: &Value) -> bool {
        match (self.own, self.parent) {
            (Some(old), _) => value == old,
            (None, Some((new, old))) => new == old,
            (None, None) => false,
        }
    }

    fn below(self, value: &'a Value, own: Option<&'a Value>) -> Self {
        Self { own, parent: self.own.map(|old| (value, old)).or(self.parent) }
    }
}

/// The budget is used up: nothing more is evaluated.
struct Exhausted;

struct Run {
    budget: i64,
    path: String,
    errors: Vec<FieldError>,
}

fn worded(field: &str, reason: &'static str, message: String) -> FieldError {
    FieldError { field: field.to_owned(), problem: Problem::Worded(reason, message) }
}

impl Run {
    fn visit<'a>(&mut self, place: &Place, value: &'a Value, older: Older<'a>) -> Result<(), Exhausted> {
        if value.is_null() {
            return Ok(());
        }
        self.rules(place, value, older)?;
        for part in &place.all_of {
            self.rules(part, value, Older { own: older.own, parent: older.parent })?;
        }
        match value {
            Value::Array(items) => self.items(place, value, items, older),
            Value::Object(members) => {
                for (name, member) in members {
                    let (inner, step) = match (place.properties.get(name.as_str()), &place.values) {
                        (Some(inner), _) if self.path.is_empty() => (inner, name.clone()),
                        (Some(inner), _) => (inner, format!(".{name}")),
                        (None, Some(values)) => (&**values, format!("[{name}]")),
                        _ => continue,
                    };
                    let own = older.own.and_then(|old| old.get(name));
                    self.step(&step, inner, member, older.below(value, own))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn items<'a>(
        &mut self,
        place: &Place,
        list: &'a Value,
        items: &'a [Value],
        older: Older<'a>,
    ) -> Result<(), Exhausted> {
        let Some(inner) = &place.items else { return Ok(()) };
        let key = |item: &Value| {
            let fields: Vec<String> = place
                .list_keys
                .iter()
                .map(|key| item.get(&**key).unwrap_or(&Value::Null).to_string())
                .collect();
            fields.join(",")
        };
        let keyed = !place.list_keys.is_empty();
        let old = older.own.and_then(Value::as_array).filter(|_| keyed).into_iter().flatten();
        let old: HashMap<String, &'a Value> = old.map(|item| (key(item), item)).collect();
        for (index, item) in items.iter().enumerate() {
            let own = if old.is_empty() { None } else { old.get(&key(item)).copied() };
            self.step(&format!("[{index}]"), inner, item, older.below(list, own))?;
        }
        Ok(())
    }

    fn step<'a>(
        &mut self,
        step: &str,
        place: &Place,
        value: &'a Value,
        older: Older<'a>,
    ) -> Result<(), Exhausted> {
        let before = self.path.len();
        self.path.push_str(step);
        let result = self.visit(place, value, older);
        self.path.truncate(before);
        result
    }

    fn rules(&mut self, place: &Place, value: &Value, older: Older<'_>) -> Result<(), Exhausted> {
        let Some(decl) = place.decl.as_deref().filter(|_| !place.rules.is_empty()) else { return Ok(()) };
        for rule in &place.rules {
            if self.budget <= 0 {
                return self.out_of_budget(place);
            }
            if rule.uses_old_self && older.own.is_none() && !rule.optional_old_self {
                continue;
            }
            let variables = decl.read(value).and_then(|own| {
                let old = older.own.map(|old| decl.read(old)).transpose()?;
                let old = match (rule.optional_old_self, old) {
                    (true, Some(old)) => Some(Cel::some(old)),
                    (true, None) => Some(Cel::Optional(None)),
                    (false, old) => old,
                };
                Ok(BTreeMap::from_iter([("self", own)].into_iter().chain(old.map(|old| ("oldSelf", old)))))
            });
            let variables = match variables {
                Ok(variables) => variables,
                Err(fault) => {
                    self.failed(place, rule, &fault);
                    continue;
                }
            };
            let evaluation = rule.program.evaluate(&variables, CALL_LIMIT);
            self.spend(place, evaluation.spent)?;
            match evaluation.result {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => self.refuse(place, rule, value, &variables, older.unchanged(value))?,
                Err(Fault::CostLimit) => {
                    let fault = Fault::CostLimit;
                    let detail = format!(
                        "'{fault}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        shown(rule)
                    );
                    self.about_type(place, detail);
                    return Err(Exhausted);
                }
                Err(fault) => self.failed(place, rule, &fault),
            }
        }
        Ok(())
    }

    fn spend(&mut self, place: &Place, cost: u64) -> Result<(), Exhausted> {
        match i64::try_from(cost) {
            Ok(cost) if cost <= self.budget => {
                self.budget -= cost;
                Ok(())
            }
            _ => self.out_of_budget(place),
        }
    }

    fn out_of_budget(&mut self, place: &Place) -> Result<(), Exhausted> {
        let detail =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        self.about_type(place, detail.to_owned());
        Err(Exhausted)
    }

    /// An error whose value is the type's name.
    fn about_type(&mut self, place: &Place, detail: String) {
        let field = if self.path.is_empty() { ROOT } else { &self.path };
        self.errors.push(FieldError::invalid(field, &*place.json_type, detail));
    }

    fn failed(&mut self, place: &Place, rule: &Rule, fault: &Fault) {
        let text = fault.to_string();
        let rule = shown(rule);
        let detail = match text.starts_with("no such overload") {
            true => format!(
                "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
            ),
            false => format!("{text} evaluating rule: {rule}"),
        };
        self.about_type(place, detail);
    }

    /// The rule does not hold.
    fn refuse(
        &mut self,
        place: &Place,
        rule: &Rule,
        value: &Value,
        variables: &BTreeMap<&str, Cel<'_>>,
        unchanged: bool,
    ) -> Result<(), Exhausted> {
        let message = match &rule.message_expression {
            Some((source, program)) => {
                let evaluation = program.evaluate(variables, CALL_LIMIT);
                if matches!(evaluation.result, Err(Fault::CostLimit)) {
                    return self.no_message(place, rule, unchanged, format!(
                        "no further validation rules will be run due to call cost exceeds limit for messageExpression: {source:?}"
                    ));
                }
                let cost = i64::try_from(evaluation.spent).unwrap_or(i64::MAX);
                if cost > self.budget {
                    let detail = "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
                    return self.no_message(place, rule, unchanged, detail.to_owned());
                }
                self.budget -= cost;
                evaluation.result.ok().as_ref().and_then(usable)
            }
            None => None,
        };
        // A rule over what has changed is about the change.
        if unchanged && !rule.uses_old_self {
            return Ok(());
        }
        let detail = message.unwrap_or_else(|| match rule.message.trim() {
            "" => format!("failed rule: {}", rule.source.trim()),
            message => message.to_owned(),
        });
        let field = self.field(rule);
        let omitted = matches!(&*place.json_type, "object" | "array");
        let of_value = |what: &str| if omitted { what.to_owned() } else { format!("{what}: {value}") };
        self.errors.push(match rule.reason.as_deref() {
            Some("FieldValueForbidden") => FieldError::forbidden(field, detail),
            Some("FieldValueRequired") => FieldError::required(field, detail),
            Some("FieldValueDuplicate") => worded(&field, "FieldValueDuplicate", of_value("Duplicate value")),
            _ => {
                let message = format!("{}: {detail}", of_value("Invalid value"));
                worded(&field, "FieldValueInvalid", message)
            }
        });
        Ok(())
    }

    fn no_message(
        &mut self,
        place: &Place,
        rule: &Rule,
        unchanged: bool,
        detail: String,
    ) -> Result<(), Exhausted> {
        if !unchanged || rule.uses_old_self {
            let field = self.field(rule);
            self.errors.push(FieldError::invalid(field, &*place.json_type, detail));
        }
        Err(Exhausted)
    }

    fn field(&self, rule: &Rule) -> String {
        match (self.path.as_str(), rule.field_path.as_str()) {
            ("", "") => ROOT.to_owned(),
            (path, "") => path.to_owned(),
            ("", below) => below.to_owned(),
            (path, below) => format!("{path}.{below}"),
        }
    }
}

fn shown(rule: &Rule) -> &str {
    if rule.message.is_empty() { rule.source.trim() } else { rule.message.trim() }
}

/// A message that is neither empty nor too long, and of one line.
fn usable(value: &Cel<'_>) -> Option<String> {
    let Cel::String(text) = value else { return None };
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')).then(|| text.to_owned())
}
