//! Defaults of a pod's spec, shared by Pod and every kind that holds a pod template.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Probe, Volume};

pub fn default_template(template: &mut PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        default_spec(spec);
    }
}

pub fn default_spec(spec: &mut PodSpec) {
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".into());
    spec.security_context.get_or_insert_default();
    // Less than nothing was once allowed, and means at once.
    if *spec.termination_grace_period_seconds.get_or_insert(30) < 0 {
        spec.termination_grace_period_seconds = Some(1);
    }
    // `serviceAccount` is the old name of `serviceAccountName`; both are served.
    match (&spec.service_account_name, &spec.service_account) {
        (Some(name), _) => spec.service_account = Some(name.clone()),
        (None, Some(name)) => spec.service_account_name = Some(name.clone()),
        (None, None) => {}
    }
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        default_container(container, host_network);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        container.termination_message_policy.get_or_insert_with(|| "File".into());
        container.resources.get_or_insert_default();
        let policy = default_pull_policy(container.image.as_deref());
        container.image_pull_policy.get_or_insert_with(|| policy.into());
    }
    spec.volumes.iter_mut().flatten().for_each(default_volume);
}

fn default_container(container: &mut Container, host_network: bool) {
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
    container.termination_message_policy.get_or_insert_with(|| "File".into());
    container.resources.get_or_insert_default();
    container.image_pull_policy.get_or_insert_with(|| default_pull_policy(container.image.as_deref()).into());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(default_probe);
    let lifecycle = container.lifecycle.as_mut();
    if let Some(lifecycle) = lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            if let Some(get) = &mut handler.http_get {
                get.path.get_or_insert_with(|| "/".into());
                get.scheme.get_or_insert_with(|| "HTTP".into());
            }
        }
    }
    for variable in container.env.iter_mut().flatten() {
        if let Some(field) = variable.value_from.as_mut().and_then(|v| v.field_ref.as_mut()) {
            field.api_version.get_or_insert_with(|| "v1".into());
        }
    }
}

/// A limit without a request asks for the limit: of pods, not of what they are made from.
pub fn default_requests(spec: &mut PodSpec) {
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(resources) = &mut container.resources
            && let Some(limits) = &resources.limits
        {
            let requests = resources.requests.get_or_insert_default();
            for (name, quantity) in limits {
                requests.entry(name.clone()).or_insert_with(|| quantity.clone());
            }
        }
    }
}

/// `Always` for `latest` and for no tag at all.
fn default_pull_policy(image: Option<&str>) -> &'static str {
    let image = image.unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once('@').is_some() || last.split_once(':').is_some_and(|(_, tag)| tag != "latest") {
        true => "IfNotPresent",
        false => "Always",
    }
}

fn default_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(get) = &mut probe.http_get {
        get.path.get_or_insert_with(|| "/".into());
        get.scheme.get_or_insert_with(|| "HTTP".into());
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_volume(volume: &mut Volume) {
    const MODE: i32 = 0o644;
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(MODE);
        for field in source.items.iter_mut().flatten().filter_map(|i| i.field_ref.as_mut()) {
            field.api_version.get_or_insert_with(|| "v1".into());
        }
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(MODE);
        for token in source.sources.iter_mut().flatten().filter_map(|s| s.service_account_token.as_mut()) {
            token.expiration_seconds.get_or_insert(3600);
        }
        let items = source.sources.iter_mut().flatten().filter_map(|s| s.downward_api.as_mut());
        for field in items.flat_map(|d| d.items.iter_mut().flatten()).filter_map(|i| i.field_ref.as_mut()) {
            field.api_version.get_or_insert_with(|| "v1".into());
        }
    }
    let named = |v: &Volume| {
        serde_json::to_value(v).ok().and_then(|v| v.as_object().map(|o| o.len() > 1)).unwrap_or(true)
    };
    if !named(volume) {
        volume.empty_dir = Some(Default::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1", "IfNotPresent"),
            ("localhost:5000/app", "Always"),
            ("localhost:5000/app:v1", "IfNotPresent"),
            ("app@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(default_pull_policy(Some(image)), policy, "{image}");
        }
    }

    #[test]
    fn limits_become_requests() {
        let spec = serde_json::json!({"containers": [{"name": "a", "image": "b",
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}],
            "volumes": [{"name": "v"}]});
        let mut spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
        default_spec(&mut spec);
        let template = spec.containers[0].resources.clone().and_then(|r| r.requests).expect("requests");
        assert_eq!(template.keys().collect::<Vec<_>>(), ["cpu"], "a template stays as it is");
        default_requests(&mut spec);
        let requests = spec.containers[0].resources.clone().and_then(|r| r.requests).expect("requests");
        assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("500m", "1Gi"));
        assert!(spec.volumes.expect("volumes")[0].empty_dir.is_some());
    }
}
