//! The judgement on what rules may cost, in the API server's words.

use crate::status::FieldError;

/// What one rule may cost by its estimate, with all its repetitions.
const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may cost together.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// So many of the most expensive rules are named.
const NAMED: usize = 4;

/// Adds up estimates.
#[derive(Default)]
pub struct Costs {
    total: u64,
    expensive: Vec<(u64, String)>,
}

impl Costs {
    /// Takes note of an estimate, and says if it is too much by itself.
    pub fn observe(&mut self, field: String, what: &str, cost: u64) -> Option<FieldError> {
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((cost, field.clone()));
            self.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            self.expensive.truncate(NAMED);
        }
        (cost > RULE_LIMIT).then(|| FieldError::forbidden(field, exceeds(what, cost, RULE_LIMIT)))
    }

    /// What is to be said of the whole schema.
    pub fn total(self, schema: &str) -> Vec<FieldError> {
        if self.total <= SCHEMA_LIMIT {
            return Vec::new();
        }
        let part =
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let mut errors: Vec<FieldError> =
            self.expensive.into_iter().map(|(_, field)| FieldError::forbidden(field, part)).collect();
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(schema, exceeds(what, self.total, SCHEMA_LIMIT)));
        errors
    }
}

fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        _ if factor > 100.0 => "more than 100x".to_owned(),
        // One digit would say 1.0.
        _ if factor < 1.5 => format!("{factor:.6}x"),
        _ => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength \
         where arrays, maps, and strings are declared)"
    )
}
