//! `PriorityLevelConfiguration`: how many requests of a level run at once, and which wait.

use k8s_openapi::api::flowcontrol::v1::{
    LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    QueuingConfiguration,
};
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::validate::{json, range};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

const SHARES: i32 = 30;
const QUEUES: i32 = 64;
const HAND_SIZE: i32 = 8;
const QUEUE_LENGTH: i32 = 50;
const MOST_QUEUES: i64 = 10_000_000;

pub fn kind() -> Kind {
    Build::<PriorityLevelConfiguration>::new("prioritylevelconfigurations", false)
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .generation()
        .default(|level| level.spec.iter_mut().for_each(default))
        .validate(|level, errors| {
            let default = PriorityLevelConfigurationSpec::default();
            let name = level.metadata.name.as_deref().unwrap_or_default();
            validate(level.spec.as_ref().unwrap_or(&default), name, errors);
        })
        .row(row)
        .done()
}

fn default(spec: &mut PriorityLevelConfigurationSpec) {
    if let Some(exempt) = &mut spec.exempt {
        exempt.nominal_concurrency_shares.get_or_insert(0);
        exempt.lendable_percent.get_or_insert(0);
    }
    if let Some(limited) = &mut spec.limited {
        limited.nominal_concurrency_shares.get_or_insert(SHARES);
        limited.lendable_percent.get_or_insert(0);
        if let Some(queuing) = limited.limit_response.as_mut().and_then(|r| r.queuing.as_mut()) {
            for (field, value) in [
                (&mut queuing.hand_size, HAND_SIZE),
                (&mut queuing.queues, QUEUES),
                (&mut queuing.queue_length_limit, QUEUE_LENGTH),
            ] {
                if field.unwrap_or(0) == 0 {
                    *field = Some(value);
                }
            }
        }
    }
}

fn validate(spec: &PriorityLevelConfigurationSpec, name: &str, errors: &mut Errors) {
    if (name == "exempt") != (spec.type_ == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid("spec.type", spec.type_.as_str(), detail));
    }
    match spec.type_.as_str() {
        "Exempt" if spec.limited.is_some() => {
            let detail = "must be nil if the type is not Limited";
            errors.push(FieldError::forbidden("spec.limited", detail));
        }
        "Exempt" => {}
        "Limited" => {
            if spec.exempt.is_some() {
                let detail = "must be nil if the type is Limited";
                errors.push(FieldError::forbidden("spec.exempt", detail));
            }
            match &spec.limited {
                None => {
                    let detail = "must not be empty when type is Limited";
                    errors.push(FieldError::required("spec.limited", detail));
                }
                Some(limited) => check_limited(limited, errors),
            }
        }
        other => errors.push(FieldError::not_supported("spec.type", other, &["Exempt", "Limited"])),
    }
}

fn check_limited(limited: &LimitedPriorityLevelConfiguration, errors: &mut Errors) {
    if let Some(shares) = limited.nominal_concurrency_shares.filter(|s| *s < 0) {
        let detail = "must be a non-negative integer";
        errors.push(FieldError::invalid("spec.limited.nominalConcurrencyShares", shares, detail));
    }
    if let Some(percent) = limited.lendable_percent {
        range("spec.limited.lendablePercent", i64::from(percent), 0, 100, errors);
    }
    let response = limited.limit_response.clone().unwrap_or_default();
    let at = "spec.limited.limitResponse";
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(format!("{at}.queuing"), detail));
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(format!("{at}.queuing"), detail));
        }
        ("Queue", Some(queuing)) => check_queuing(&format!("{at}.queuing"), queuing, errors),
        (other, _) => {
            errors.push(FieldError::not_supported(format!("{at}.type"), other, &["Queue", "Reject"]))
        }
    }
}

fn check_queuing(field: &str, queuing: &QueuingConfiguration, errors: &mut Errors) {
    let (queues, hand) = (queuing.queues.unwrap_or(0), queuing.hand_size.unwrap_or(0));
    let length = queuing.queue_length_limit.unwrap_or(0);
    for (part, value) in [("queueLengthLimit", length), ("queues", queues), ("handSize", hand)] {
        if value <= 0 {
            errors.push(FieldError::invalid(format!("{field}.{part}"), value, "must be positive"));
        }
    }
    if i64::from(queues) > MOST_QUEUES {
        let detail = format!("must not be greater than {MOST_QUEUES}");
        errors.push(FieldError::invalid(format!("{field}.queues"), queues, detail));
    }
    if queues > 0 && hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(format!("{field}.handSize"), json(&hand), detail));
    }
}

fn row(level: &PriorityLevelConfiguration) -> Vec<Value> {
    let spec = level.spec.clone().unwrap_or_default();
    let none = || Value::from("<none>");
    let queuing = spec.limited.as_ref().and_then(|l| l.limit_response.as_ref()?.queuing.clone());
    let shares = match (&spec.limited, &spec.exempt) {
        (Some(limited), _) => limited.nominal_concurrency_shares,
        (None, Some(exempt)) => exempt.nominal_concurrency_shares,
        (None, None) => None,
    };
    let number = |n: Option<i32>| n.map_or_else(none, Value::from);
    vec![
        name_cell(&level.metadata),
        spec.type_.into(),
        number(shares),
        number(queuing.as_ref().and_then(|q| q.queues)),
        number(queuing.as_ref().and_then(|q| q.hand_size)),
        number(queuing.as_ref().and_then(|q| q.queue_length_limit)),
        age_cell(&level.metadata),
    ]
}
