//! What a cache leaves out. An object in memory is several times as large as its text, most of it what containers are
//! given to run with; that is for the node, which has its own way to its pods. Nobody may write back what was cached:
//! changes are patches.

use std::any::Any;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::cache::Object;

/// The object without the fields that nobody who reads caches looks at.
pub fn slim<T: Object>(mut object: T) -> T {
    object.meta_mut().managed_fields = None;
    if let Some(pod) = (&mut object as &mut dyn Any).downcast_mut::<Pod>() {
        slim_pod(pod);
    }
    object
}

fn slim_pod(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(slim_container);
    spec.containers.shrink_to_fit();
    spec.host_aliases = None;
    spec.image_pull_secrets = None;
}

/// Names, images, ports, resources and restart policies stay.
fn slim_container(container: &mut Container) {
    container.args = None;
    container.command = None;
    container.env = None;
    container.env_from = None;
    container.lifecycle = None;
    container.liveness_probe = None;
    container.readiness_probe = None;
    container.startup_probe = None;
    container.security_context = None;
    container.termination_message_path = None;
    container.termination_message_policy = None;
    container.volume_devices = None;
    container.volume_mounts = None;
    container.working_dir = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controllers_and_the_scheduler_read_stays() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":"b"},"managedFields":[{}]},
            "spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":1}],"env":[{"name":"A"}],
            "resources":{"requests":{"cpu":"1"}},"volumeMounts":[{"name":"v","mountPath":"/"}]}],
            "volumes":[{"name":"v","emptyDir":{}}],"nodeName":"n"},"status":{"phase":"Running"}}"#;
        let pod: Pod = serde_json::from_str(text).expect("a pod");
        let shown = serde_json::to_string(&slim(pod)).expect("prints");
        let kept = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"b"},"name":"a"},"spec":{"containers":[{"image":"i","name":"c","ports":[{"containerPort":1}],"resources":{"requests":{"cpu":"1"}}}],"nodeName":"n","volumes":[{"emptyDir":{},"name":"v"}]},"status":{"phase":"Running"}}"#;
        assert_eq!(shown, kept);
    }
}
