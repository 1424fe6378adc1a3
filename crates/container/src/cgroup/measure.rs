//! What a group has used: the figures behind container and pod statistics, and whether memory ran out.

use std::fs;
use std::path::Path;

use super::group::{Cgroup, CgroupError};
use super::layout::Layout;
use crate::runtime::ContainerStats;

impl Cgroup {
    /// Figures a controller of this machine does not offer stay zero.
    pub fn stats(&self) -> Result<ContainerStats, CgroupError> {
        let directory = |controller| self.layout.controller_directory(controller, &self.path);
        let mut stats = ContainerStats {
            timestamp_ns: crate::clock::now_ns(),
            process_count: self.pids().len() as u64,
            ..Default::default()
        };
        let memory = directory("memory");
        let v2 = matches!(self.layout, Layout::V2 { .. });
        if v2 {
            let cpu = directory("cpu").map(|d| read(&d.join("cpu.stat"))).unwrap_or_default();
            stats.cpu_usage_ns = keyed(&cpu, "usage_usec") * 1000;
        } else if let Some(cpu) = directory("cpuacct") {
            stats.cpu_usage_ns = number(&cpu.join("cpuacct.usage"));
        }
        if let Some(memory) = memory {
            let detail = read(&memory.join("memory.stat"));
            let (usage, inactive, rss, faults, major) = match v2 {
                true => ("memory.current", "inactive_file", "anon", "pgfault", "pgmajfault"),
                false => (
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                    "total_rss",
                    "total_pgfault",
                    "total_pgmajfault",
                ),
            };
            stats.memory_usage_bytes = number(&memory.join(usage));
            stats.memory_working_set_bytes =
                stats.memory_usage_bytes.saturating_sub(keyed(&detail, inactive));
            stats.memory_rss_bytes = keyed(&detail, rss);
            stats.page_faults = keyed(&detail, faults);
            stats.major_page_faults = keyed(&detail, major);
        }
        Ok(stats)
    }

    /// How many of its processes were killed because memory ran out.
    pub fn oom_kills(&self) -> u64 {
        let file = match self.layout {
            Layout::V1 { .. } => "memory.oom_control",
            Layout::V2 { .. } => "memory.events",
        };
        let directory = self.layout.controller_directory("memory", &self.path);
        directory.map_or(0, |directory| keyed(&read(&directory.join(file)), "oom_kill"))
    }
}

/// A file that is not there (no such controller, or the group is gone) reads as nothing.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> u64 {
    read(path).trim().parse().unwrap_or(0)
}

/// The value after `key` in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
