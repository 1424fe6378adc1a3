//! `HorizontalPodAutoscaler`: replicas that follow what is measured.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
    HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricSource,
};
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::names::Rule;
use crate::kinds::validate::{amount, named};
use crate::kinds::{Build, Errors, Kind};
use crate::quantity::Quantity;
use crate::status::FieldError;

/// How many targets the table shows before it says that there are more.
const TARGETS_SHOWN: usize = 2;
const MAX_STABILIZATION_SECONDS: i32 = 3600;
const MAX_PERIOD_SECONDS: i32 = 1800;

pub fn kind() -> Kind {
    Build::<HorizontalPodAutoscaler>::new("horizontalpodautoscalers", true)
        .short(&["hpa"])
        .in_all()
        .status()
        .default(|h| default(&mut h.spec))
        .validate(|h, errors| {
            validate(&h.spec, errors);
        })
        .validate_create(|h, errors| check_group("spec.scaleTargetRef", &h.spec.scale_target_ref, errors))
        .validate_update(|new, old, errors| {
            // What is there already may stay.
            if group_fault(&old.spec.scale_target_ref).is_none() {
                check_group("spec.scaleTargetRef", &new.spec.scale_target_ref, errors);
            }
        })
        .validate_status(|new, _, errors| {
            let status = new.status.clone().unwrap_or_default();
            errors.not_negative("status.currentReplicas", status.current_replicas.map(i64::from));
            errors.not_negative("status.desiredReplicas", Some(i64::from(status.desired_replicas)));
        })
        .row(row)
        .done()
}

fn default(spec: &mut HorizontalPodAutoscalerSpec) {
    spec.min_replicas.get_or_insert(1);
    if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
        let target =
            MetricTarget { type_: "Utilization".into(), average_utilization: Some(80), ..Default::default() };
        let resource = Some(ResourceMetricSource { name: "cpu".into(), target });
        spec.metrics = Some(vec![MetricSpec { type_: "Resource".into(), resource, ..Default::default() }]);
    }
    if let Some(behavior) = &mut spec.behavior {
        default_behavior(behavior);
    }
}

fn default_behavior(behavior: &mut HorizontalPodAutoscalerBehavior) {
    let fill =
        |rules: &mut Option<HPAScalingRules>, stabilization: Option<i32>, policies: &[(&str, i32, i32)]| {
            let rules = rules.get_or_insert_default();
            rules.select_policy.get_or_insert_with(|| "Max".into());
            if rules.stabilization_window_seconds.is_none() {
                rules.stabilization_window_seconds = stabilization;
            }
            if rules.policies.is_none() {
                let policy = |(kind, value, period): &(&str, i32, i32)| {
                    k8s_openapi::api::autoscaling::v2::HPAScalingPolicy {
                        type_: (*kind).to_owned(),
                        value: *value,
                        period_seconds: *period,
                    }
                };
                rules.policies = Some(policies.iter().map(policy).collect());
            }
        };
    fill(&mut behavior.scale_up, Some(0), &[("Pods", 4, 15), ("Percent", 100, 15)]);
    fill(&mut behavior.scale_down, None, &[("Percent", 100, 15)]);
}

fn validate(spec: &HorizontalPodAutoscalerSpec, errors: &mut Errors) {
    if let Some(min) = spec.min_replicas.filter(|m| *m < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.minReplicas", min, detail));
    }
    let scales_to_zero =
        spec.metrics.iter().flatten().any(|m| matches!(m.type_.as_str(), "Object" | "External"));
    if spec.min_replicas == Some(0) && !scales_to_zero {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden("spec.metrics", detail));
    }
    let max = spec.max_replicas;
    match max {
        0 => errors.push(FieldError::required("spec.maxReplicas", "must be set and greater than 0")),
        ..0 => {
            let detail = "must be greater than or equal to 1";
            errors.push(FieldError::invalid("spec.maxReplicas", max, detail));
        }
        _ => {}
    }
    if spec.min_replicas.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", max, detail));
    }
    check_reference("spec.scaleTargetRef", &spec.scale_target_ref, errors);
    for (i, metric) in spec.metrics.iter().flatten().enumerate() {
        check_metric(&format!("spec.metrics[{i}]"), metric, errors);
    }
    if let Some(behavior) = &spec.behavior {
        for (part, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                check_rules(&format!("spec.behavior.{part}"), rules, errors);
            }
        }
    }
}

fn check_reference(field: &str, reference: &CrossVersionObjectReference, errors: &mut Errors) {
    named(format!("{field}.kind"), &reference.kind, Rule::PathSegment, errors);
    named(format!("{field}.name"), &reference.name, Rule::PathSegment, errors);
}

/// What can be scaled is of some group.
fn group_fault(reference: &CrossVersionObjectReference) -> Option<String> {
    let given = reference.api_version.as_deref().unwrap_or_default();
    match given.split('/').count() {
        _ if given.starts_with('/') => Some("apiVersion must specify API group".into()),
        1 => Some("apiVersion must specify API group".into()),
        2 => None,
        _ => Some(format!("unexpected GroupVersion string: {given}")),
    }
}

fn check_group(field: &str, reference: &CrossVersionObjectReference, errors: &mut Errors) {
    if let Some(fault) = group_fault(reference) {
        let given = reference.api_version.clone().unwrap_or_default();
        errors.push(FieldError::invalid(format!("{field}.apiVersion"), given, fault));
    }
}

fn check_metric(field: &str, metric: &MetricSpec, errors: &mut Errors) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    if metric.type_.is_empty() {
        errors.push(FieldError::required(format!("{field}.type"), "must specify a metric source type"));
    }
    errors.one_of(format!("{field}.type"), Some(&metric.type_), TYPES);
    let sources = [
        ("object", "Object", metric.object.is_some()),
        ("external", "External", metric.external.is_some()),
        ("pods", "Pods", metric.pods.is_some()),
        ("resource", "Resource", metric.resource.is_some()),
        ("containerResource", "ContainerResource", metric.container_resource.is_some()),
    ];
    // As the original does, a type that is none is told of twice.
    errors.one_of(format!("{field}.type"), Some(&metric.type_), TYPES);
    for (part, kind, given) in sources {
        if kind == metric.type_ && !given {
            let detail = "must populate information for the given metric source";
            errors.push(FieldError::required(format!("{field}.{part}"), detail));
        }
        if kind != metric.type_ && given {
            let detail = "must populate the given metric source only";
            errors.push(FieldError::forbidden(format!("{field}.{part}"), detail));
        }
    }
    if let Some(object) = &metric.object {
        let at = format!("{field}.object");
        check_reference(&format!("{at}.describedObject"), &object.described_object, errors);
        check_identifier(&format!("{at}.metric"), &object.metric, errors);
        check_target(&format!("{at}.target"), &object.target, errors);
        check_either(&format!("{at}.target"), &object.target, errors);
    }
    if let Some(pods) = &metric.pods {
        check_identifier(&format!("{field}.pods.metric"), &pods.metric, errors);
        check_target(&format!("{field}.pods.target"), &pods.target, errors);
        if pods.target.average_value.is_none() {
            let detail = "must specify a positive target averageValue";
            errors.push(FieldError::required(format!("{field}.pods.target.averageValue"), detail));
        }
    }
    if let Some(external) = &metric.external {
        check_identifier(&format!("{field}.external.metric"), &external.metric, errors);
        check_target(&format!("{field}.external.target"), &external.target, errors);
        let (at, target) = (format!("{field}.external.target"), &external.target);
        match (target.value.is_some(), target.average_value.is_some()) {
            (false, false) => {
                let detail = "must set either a target value for metric or a per-pod target";
                errors.push(FieldError::required(format!("{at}.averageValue"), detail));
            }
            (true, true) => {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.push(FieldError::forbidden(format!("{at}.value"), detail));
            }
            _ => {}
        }
    }
    if let Some(resource) = &metric.resource {
        check_resource(&format!("{field}.resource"), &resource.name, &resource.target, errors);
    }
    if let Some(resource) = &metric.container_resource {
        let at = format!("{field}.containerResource");
        if resource.container.is_empty() {
            errors.push(FieldError::required(format!("{at}.container"), "must specify a container"));
        }
        check_resource(&at, &resource.name, &resource.target, errors);
    }
}

fn check_resource(field: &str, name: &str, target: &MetricTarget, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(FieldError::required(format!("{field}.name"), "must specify a resource name"));
    }
    check_target(&format!("{field}.target"), target, errors);
    if target.average_utilization.is_none() && target.average_value.is_none() {
        let detail = "must set either a target raw value or a target utilization";
        errors.push(FieldError::required(format!("{field}.target.averageUtilization"), detail));
    }
    if target.average_utilization.is_some() && target.average_value.is_some() {
        let detail = "may not set both a target raw value and a target utilization";
        errors.push(FieldError::forbidden(format!("{field}.target.averageValue"), detail));
    }
}

fn check_identifier(field: &str, metric: &MetricIdentifier, errors: &mut Errors) {
    match metric.name.as_str() {
        "" => errors.push(FieldError::required(format!("{field}.name"), "must specify a metric name")),
        name => named(format!("{field}.name"), name, Rule::PathSegment, errors),
    }
}

fn check_target(field: &str, target: &MetricTarget, errors: &mut Errors) {
    if target.type_.is_empty() {
        errors.push(FieldError::required(format!("{field}.type"), "must specify a metric target type"));
    } else if !matches!(target.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(format!("{field}.type"), target.type_.as_str(), detail));
    }
    if let Some(utilization) = target.average_utilization.filter(|u| *u < 1) {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(format!("{field}.averageUtilization"), utilization, detail));
    }
    for (part, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        let unfit = |q: &Quantity| q.is_negative() || q.is_zero();
        if let Some(value) = value
            && Quantity::parse(&value.0).is_ok_and(|q| unfit(&q))
        {
            errors.push(FieldError::invalid(format!("{field}.{part}"), value.0.as_str(), "must be positive"));
        }
    }
}

/// A value for all, or one for each.
fn check_either(field: &str, target: &MetricTarget, errors: &mut Errors) {
    if target.value.is_none() && target.average_value.is_none() {
        let detail = "must set either a target value or averageValue";
        errors.push(FieldError::required(format!("{field}.averageValue"), detail));
    }
}

fn check_rules(field: &str, rules: &HPAScalingRules, errors: &mut Errors) {
    let window = rules.stabilization_window_seconds;
    if let Some(window) = window.filter(|window| *window < 0) {
        let detail = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(format!("{field}.stabilizationWindowSeconds"), window, detail));
    }
    if let Some(window) = window.filter(|w| *w > MAX_STABILIZATION_SECONDS) {
        let detail = format!("must be less than or equal to {MAX_STABILIZATION_SECONDS}");
        errors.push(FieldError::invalid(format!("{field}.stabilizationWindowSeconds"), window, detail));
    }
    let select = rules.select_policy.as_deref();
    errors.one_of(format!("{field}.selectPolicy"), select, &["Disabled", "Max", "Min"]);
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errors.push(FieldError::required(format!("{field}.policies"), "must specify at least one Policy"));
    }
    if let Some(tolerance) = &rules.tolerance {
        amount(format!("{field}.tolerance"), tolerance, errors);
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = format!("{field}.policies[{i}]");
        errors.one_of(format!("{at}.type"), Some(&policy.type_), &["Percent", "Pods"]);
        if policy.value <= 0 {
            errors.push(FieldError::invalid(
                format!("{at}.value"),
                policy.value,
                "must be greater than zero",
            ));
        }
        let period = policy.period_seconds;
        if period <= 0 {
            errors.push(FieldError::invalid(
                format!("{at}.periodSeconds"),
                period,
                "must be greater than zero",
            ));
        }
        if period > MAX_PERIOD_SECONDS {
            let detail = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
            errors.push(FieldError::invalid(format!("{at}.periodSeconds"), period, detail));
        }
    }
}

fn row(autoscaler: &HorizontalPodAutoscaler) -> Vec<Value> {
    let spec = &autoscaler.spec;
    let status = autoscaler.status.clone().unwrap_or_default();
    let reference = format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name);
    let min = spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |min| min.to_string());
    let current = status.current_metrics.unwrap_or_default();
    vec![
        name_cell(&autoscaler.metadata),
        reference.into(),
        targets(spec.metrics.as_deref().unwrap_or_default(), &current).into(),
        min.into(),
        spec.max_replicas.into(),
        status.current_replicas.unwrap_or(0).into(),
        age_cell(&autoscaler.metadata),
    ]
}

/// `cpu: 10%/80%` for each metric.
fn targets(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let shown = specs.iter().enumerate().take(TARGETS_SHOWN).map(|(i, spec)| target(spec, statuses.get(i)));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if specs.len() > TARGETS_SHOWN {
        text.push_str(&format!(" + {} more...", specs.len() - TARGETS_SHOWN));
    }
    text
}

fn target(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match spec.type_.as_str() {
        "External" => {
            let Some(source) = &spec.external else { return "<unknown type>".into() };
            let current = status.and_then(|s| s.external.as_ref()).map(|s| &s.current);
            match &source.target.average_value {
                Some(_) => format!("{} (avg)", pair(&source.target, current)),
                None => pair(&source.target, current),
            }
        }
        "Pods" => {
            let Some(source) = &spec.pods else { return "<unknown type>".into() };
            pair(&source.target, status.and_then(|s| s.pods.as_ref()).map(|s| &s.current))
        }
        "Object" => {
            let Some(source) = &spec.object else { return "<unknown type>".into() };
            let current = status.and_then(|s| s.object.as_ref()).map(|s| &s.current);
            match &source.target.average_value {
                Some(_) => format!("{} (avg)", pair(&source.target, current)),
                None => pair(&source.target, current),
            }
        }
        "Resource" => {
            let Some(source) = &spec.resource else { return "<unknown type>".into() };
            let current = status.and_then(|s| s.resource.as_ref()).map(|s| &s.current);
            format!("{}: {}", source.name, pair(&source.target, current))
        }
        "ContainerResource" => {
            let Some(source) = &spec.container_resource else { return "<unknown type>".into() };
            let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
            format!("{}: {}", source.name, pair(&source.target, current))
        }
        _ => "<unknown type>".into(),
    }
}

/// What is, and what is wanted.
fn pair(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    let unknown = || "<unknown>".to_owned();
    if let Some(wanted) = &target.average_value {
        let now = current.and_then(|c| c.average_value.as_ref()).map_or_else(unknown, |q| q.0.clone());
        return format!("{now}/{}", wanted.0);
    }
    if let Some(wanted) = &target.value {
        let now = current.and_then(|c| c.value.as_ref()).map_or_else(unknown, |q| q.0.clone());
        return format!("{now}/{}", wanted.0);
    }
    let now = current.and_then(|c| c.average_utilization).map_or_else(unknown, |u| format!("{u}%"));
    let wanted = target.average_utilization.map_or_else(|| "<auto>".to_owned(), |u| format!("{u}%"));
    format!("{now}/{wanted}")
}
