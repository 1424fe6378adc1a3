//! `PriorityLevelConfiguration`: how many requests of a level run at once, and which wait.

use k8s_openapi::api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration,
    PriorityLevelConfigurationSpec, QueuingConfiguration,
};
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::validate::json;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

const SHARES: i32 = 30;
const QUEUES: i32 = 64;
const HAND_SIZE: i32 = 8;
const QUEUE_LENGTH: i32 = 50;
const MOST_QUEUES: i64 = 10_000_000;
const HASH_BITS: i32 = 60;
/// The one level that is as it is: what finds nothing else has few seats and no queue.
const CATCH_ALL: &str = "catch-all";

pub fn kind() -> Kind {
    Build::<PriorityLevelConfiguration>::new("prioritylevelconfigurations", false)
        .metadata_on_update(&[Whole])
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .generation()
        .default(|level| level.spec.iter_mut().for_each(default))
        .validate(|level, errors| {
            let default = PriorityLevelConfigurationSpec::default();
            let name = level.metadata.name.as_deref().unwrap_or_default();
            let spec = level.spec.as_ref().unwrap_or(&default);
            validate(spec, name, errors);
            if name == CATCH_ALL && *spec != catch_all() {
                let detail = format!("spec of '{name}' must equal the fixed value");
                errors.push(FieldError::invalid("spec", json(spec), detail));
            }
        })
        .validate_status(|level, _, errors| {
            let conditions = level.status.iter().flat_map(|s| s.conditions.iter().flatten());
            super::check_conditions(conditions.map(|c| c.type_.as_deref().unwrap_or_default()), errors);
        })
        .row(row)
        .done()
}

fn catch_all() -> PriorityLevelConfigurationSpec {
    PriorityLevelConfigurationSpec {
        type_: "Limited".into(),
        limited: Some(LimitedPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(5),
            lendable_percent: Some(0),
            limit_response: Some(LimitResponse { type_: "Reject".into(), queuing: None }),
            borrowing_limit_percent: None,
        }),
        exempt: None,
    }
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
        "Exempt" => {
            if let Some(exempt) = &spec.exempt {
                check_shares("spec.exempt", exempt.nominal_concurrency_shares, errors);
                check_lendable("spec.exempt", exempt.lendable_percent, errors);
            }
        }
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

fn check_shares(field: &str, shares: Option<i32>, errors: &mut Errors) {
    if let Some(shares) = shares.filter(|s| *s < 0) {
        let detail = "must be a non-negative integer";
        errors.push(FieldError::invalid(format!("{field}.nominalConcurrencyShares"), shares, detail));
    }
}

fn check_lendable(field: &str, percent: Option<i32>, errors: &mut Errors) {
    if let Some(percent) = percent.filter(|p| !(0..=100).contains(p)) {
        let detail = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid(format!("{field}.lendablePercent"), percent, detail));
    }
}

fn check_limited(limited: &LimitedPriorityLevelConfiguration, errors: &mut Errors) {
    check_shares("spec.limited", limited.nominal_concurrency_shares, errors);
    check_response(limited, errors);
    check_lendable("spec.limited", limited.lendable_percent, errors);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|p| *p < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid("spec.limited.borrowingLimitPercent", percent, detail));
    }
}

fn check_response(limited: &LimitedPriorityLevelConfiguration, errors: &mut Errors) {
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
    } else if queues > 0 && hand > 0 {
        // A hand is dealt by a hash of so many bits.
        let entropy = (f64::from(queues).log2() * f64::from(hand)).ceil();
        if entropy > f64::from(HASH_BITS) {
            let detail = format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
            );
            errors.push(FieldError::invalid(format!("{field}.handSize"), hand, detail));
        }
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
