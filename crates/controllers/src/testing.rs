//! Objects for table tests, spelled in one line.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// So many seconds after a fixed moment.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("in range")
}

pub struct PodBuilder(pub Pod);

pub fn pod_named(name: &str) -> PodBuilder {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.into());
    pod.metadata.namespace = Some("ns".into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.metadata.creation_timestamp = Some(Time(at(0)));
    PodBuilder(pod).phase("Pending")
}

impl PodBuilder {
    pub fn phase(mut self, phase: &str) -> Self {
        self.0.status.get_or_insert_default().phase = Some(phase.into());
        self
    }

    pub fn on(mut self, node: &str) -> Self {
        self.0.spec.get_or_insert_default().node_name = Some(node.into());
        self
    }

    pub fn ready(self, since: Timestamp) -> Self {
        let mut this = self.phase("Running");
        let condition = PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(since)),
            ..Default::default()
        };
        this.0.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        this
    }

    pub fn deleting(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at(0)));
        self
    }

    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    pub fn ip(mut self, ip: &str) -> Self {
        self.0.status.get_or_insert_default().pod_ip = Some(ip.into());
        self
    }

    pub fn arc(self) -> Arc<Pod> {
        Arc::new(self.0)
    }
}
