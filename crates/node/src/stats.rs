//! `/stats/summary`: what each container uses, from the runtime.

use base::time::rfc3339_seconds;
use container::runtime::ContainerStats;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::pods::{Context, PodEntry};

pub async fn summary(context: &Context) -> Value {
    let mut pods = Vec::new();
    for pod in context.directory.list() {
        pods.push(pod_summary(context, &pod).await);
    }
    let now = rfc3339_seconds(Timestamp::now());
    let sum =
        |part: &str, field: &str| -> u64 { pods.iter().filter_map(|pod| pod[part][field].as_u64()).sum() };
    json!({
        "node": {
            "nodeName": context.config.name,
            "startTime": now,
            "cpu": {"time": now, "usageCoreNanoSeconds": sum("cpu", "usageCoreNanoSeconds")},
            "memory": {
                "time": now,
                "availableBytes": context.capacity.memory_bytes,
                "usageBytes": sum("memory", "usageBytes"),
                "workingSetBytes": sum("memory", "workingSetBytes"),
            },
        },
        "pods": pods,
    })
}

async fn pod_summary(context: &Context, pod: &PodEntry) -> Value {
    let mut containers = Vec::new();
    let mut total = ContainerStats::default();
    for container in pod.containers.iter().filter(|container| container.running) {
        let Some(id) = &container.id else { continue };
        // A container that just ended has nothing to show.
        let Ok(stats) = context.runtime.container_stats(id).await else { continue };
        total.cpu_usage_ns += stats.cpu_usage_ns;
        total.memory_usage_bytes += stats.memory_usage_bytes;
        total.memory_working_set_bytes += stats.memory_working_set_bytes;
        total.memory_rss_bytes += stats.memory_rss_bytes;
        let mut shown = usage(&stats);
        shown["name"] = json!(container.name);
        containers.push(shown);
    }
    let meta = &pod.pod.metadata;
    let mut shown = usage(&total);
    shown["podRef"] = json!({"name": meta.name, "namespace": meta.namespace, "uid": meta.uid});
    shown["startTime"] = json!(pod.pod.status.as_ref().and_then(|status| status.start_time.clone()));
    shown["containers"] = json!(containers);
    shown
}

fn usage(stats: &ContainerStats) -> Value {
    let time = rfc3339_seconds(Timestamp::now());
    json!({
        "cpu": {"time": time, "usageCoreNanoSeconds": stats.cpu_usage_ns},
        "memory": {
            "time": time,
            "usageBytes": stats.memory_usage_bytes,
            "workingSetBytes": stats.memory_working_set_bytes,
            "rssBytes": stats.memory_rss_bytes,
            "pageFaults": stats.page_faults,
            "majorPageFaults": stats.major_page_faults,
        },
    })
}
