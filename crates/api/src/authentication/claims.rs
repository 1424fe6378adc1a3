//! From the claims of a verified token to a user, or to why there is none. Expressions are bounded: a token that takes
//! more than its share is refused.

use std::collections::BTreeMap;

use cel::{CALL_LIMIT, Decl, Program, Value};
use serde_json::{Value as Json, json};

use super::{ClaimRule, Expressed, Issuer, Mapping, User};

/// What all expressions over one token may cost together.
const BUDGET: u64 = 10 * CALL_LIMIT;

struct Meter(u64);

impl Meter {
    fn run<'a>(&mut self, program: &Program, name: &'a str, value: &'a Json) -> Result<Value<'a>, String> {
        let read = Decl::any().read(value).map_err(|fault| fault.to_string())?;
        let variables: BTreeMap<&str, Value<'a>> = [(name, read)].into();
        let evaluation = program.evaluate(&variables, CALL_LIMIT);
        self.0 = self.0.checked_sub(evaluation.spent).ok_or("the expressions over a token cost too much")?;
        evaluation.result.map_err(|fault| fault.to_string())
    }

    fn ensure(&mut self, rule: &Expressed, name: &str, value: &Json) -> Result<(), String> {
        match self.run(&rule.program, name, value)? {
            Value::Bool(true) => Ok(()),
            _ => Err(rule.message.clone()),
        }
    }
}

impl Issuer {
    /// Whether one of the token's audiences is one of ours. Every other check comes after.
    pub fn has_audience(&self, claims: &Json) -> bool {
        let ours = |a: &Json| a.as_str().is_some_and(|a| self.audiences.iter().any(|own| own == a));
        match &claims["aud"] {
            Json::Array(all) => all.iter().any(ours),
            one => ours(one),
        }
    }

    /// Whom the claims are of.
    pub fn user(&self, claims: &Json) -> Result<User, String> {
        let mut meter = Meter(BUDGET);
        for rule in &self.rules {
            match rule {
                ClaimRule::Claim { name, required } if claims[name] != *required.as_str() => {
                    return Err(format!("oidc: claim {name} is not {required:?}"));
                }
                ClaimRule::Claim { .. } => {}
                ClaimRule::Expressed(rule) => meter.ensure(rule, "claims", claims)?,
            }
        }
        let username = self.one(&mut meter, &self.username, claims)?;
        if username.is_empty() {
            return Err("oidc: the username is empty".into());
        }
        if let Mapping::Claim { name, .. } = &self.username
            && name == "email"
            && claims.get("email_verified").is_some_and(|verified| *verified != true)
        {
            return Err("oidc: email not verified".into());
        }
        let groups = match &self.groups {
            None => Vec::new(),
            Some(Mapping::Claim { name, prefix }) => {
                let found = strings_of_json(&claims[name]).ok_or_else(|| {
                    format!("oidc: parse groups claim {name:?}: neither text nor a list of it")
                })?;
                found.into_iter().map(|group| format!("{prefix}{group}")).collect()
            }
            Some(Mapping::Expression(program)) => strings(meter.run(program, "claims", claims)?)?,
        };
        let uid = match &self.uid {
            None => String::new(),
            Some(mapping) => self.one(&mut meter, mapping, claims)?,
        };
        let mut extra = BTreeMap::new();
        for (key, program) in &self.extra {
            let values = strings(meter.run(program, "claims", claims)?)?;
            let values: Vec<String> = values.into_iter().filter(|v| !v.is_empty()).collect();
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        let user = User { username, uid, groups, extra };
        let shown =
            json!({"username": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        for rule in &self.user_rules {
            meter.ensure(rule, "user", &shown)?;
        }
        Ok(user)
    }

    fn one(&self, meter: &mut Meter, mapping: &Mapping, claims: &Json) -> Result<String, String> {
        match mapping {
            Mapping::Claim { name, prefix } => match claims.get(name) {
                Some(Json::String(text)) => Ok(format!("{prefix}{text}")),
                Some(_) => Err(format!("oidc: claim {name:?} is no text")),
                None => Err(format!("oidc: claim {name:?} is not present")),
            },
            Mapping::Expression(program) => match meter.run(program, "claims", claims)? {
                Value::String(text) => Ok(text.to_string()),
                other => {
                    Err(format!("oidc: an expression came to {} instead of a string", other.type_name()))
                }
            },
        }
    }
}

fn strings_of_json(value: &Json) -> Option<Vec<String>> {
    match value {
        Json::Null => Some(Vec::new()),
        Json::String(one) => Some(vec![one.clone()]),
        Json::Array(all) => all.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn strings(value: Value<'_>) -> Result<Vec<String>, String> {
    let text = |value: Value<'_>| match value {
        Value::String(text) => Ok(text.to_string()),
        other => Err(format!("oidc: an expression came to {} instead of a string", other.type_name())),
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::List(list) => {
            let items = (0..list.len()).filter_map(|i| list.get(i));
            items.map(|item| text(item.map_err(|fault| fault.to_string())?)).collect()
        }
        one => text(one).map(|one| vec![one]),
    }
}
