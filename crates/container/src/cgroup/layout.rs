//! Which files a group and its limits are, on cgroup v1 and v2. Pure, so that both are tested anywhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::runtime::Resources;

/// What is mounted on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    V1 {
        /// Controller (`memory`) to mount point; co-mounted ones share theirs.
        controllers: BTreeMap<String, PathBuf>,
        /// A hierarchy that only groups processes: `name=systemd`, the controllerless v2 tree, or any other.
        tracking: PathBuf,
    },
    V2 {
        root: PathBuf,
    },
}

/// One value for one file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitWrite {
    pub file: PathBuf,
    pub value: String,
    /// Leave it out where the kernel has no such file (swap accounting).
    pub optional: bool,
}

/// What v2 must delegate at every level for our limits to have files.
pub const V2_CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "cpuset", "io"];

impl Layout {
    /// Reads the text of `/proc/self/mountinfo`. `None`: no cgroup file system is mounted.
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let mut controllers = BTreeMap::new();
        let (mut systemd, mut unified) = (None, None);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut fields = right.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup2"), _) => unified = unified.or(Some(mount_point)),
                (Some("cgroup"), Some(options)) => {
                    for option in options.split(',') {
                        match option {
                            "name=systemd" => systemd = Some(mount_point.clone()),
                            "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "release_agent" => {}
                            _ if option.contains('=') => {}
                            controller => {
                                controllers.entry(controller.to_owned()).or_insert(mount_point.clone());
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        if controllers.is_empty() {
            return unified.map(|root| Self::V2 { root });
        }
        let tracking = systemd
            .or(unified)
            .or_else(|| controllers.get("pids").or(controllers.values().next()).cloned())?;
        Some(Self::V1 { controllers, tracking })
    }

    /// What the hierarchies of v1 are called where they are mounted, those too that only group; none on v2, which is one.
    pub fn hierarchies(&self) -> Vec<String> {
        let Self::V1 { controllers, tracking } = self else { return Vec::new() };
        let mounted = controllers.values().chain([tracking]).filter_map(|point| point.file_name()?.to_str());
        let mut names: Vec<String> = mounted.chain(["systemd", "unified"]).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The group's directories, one of each hierarchy.
    pub fn directories(&self, path: &str) -> Vec<PathBuf> {
        let path = path.trim_matches('/');
        let mut roots: Vec<&Path> = match self {
            Self::V1 { controllers, tracking } => {
                controllers.values().chain([tracking]).map(PathBuf::as_path).collect()
            }
            Self::V2 { root } => vec![root],
        };
        roots.sort_unstable();
        roots.dedup();
        roots.into_iter().map(|root| root.join(path)).collect()
    }

    /// Whether a process whose `/proc/<pid>/cgroup` reads so is in this group, in every hierarchy that is mounted.
    pub fn is_in(&self, text: &str, path: &str) -> bool {
        let path = path.trim_matches('/');
        // Each line: a number, controllers or a name, the group.
        let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let is_ours = |group: &str| group.trim_matches('/') == path;
        let Self::V1 { controllers, tracking } = self else {
            return lines().any(|(names, group)| names.is_empty() && is_ours(group));
        };
        let is_there = |name: &str| {
            lines().any(|(names, group)| names.split(',').any(|own| own == name) && is_ours(group))
        };
        let is_tracked = controllers.values().any(|root| root == tracking)
            || is_there("name=systemd")
            || lines().any(|(names, group)| names.is_empty() && is_ours(group));
        is_tracked && controllers.keys().all(|controller| is_there(controller))
    }

    /// Where a process is to be put only to be found again, without any accounting.
    pub fn tracking_directory(&self, path: &str) -> PathBuf {
        match self {
            Self::V1 { tracking: root, .. } | Self::V2 { root } => root.join(path.trim_matches('/')),
        }
    }

    /// The directory that holds a controller's files; `None` where this machine has no such controller.
    pub fn controller_directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Self::V1 { controllers, .. } => {
                controllers.get(controller).map(|root| root.join(path.trim_matches('/')))
            }
            Self::V2 { root } => Some(root.join(path.trim_matches('/'))),
        }
    }

    /// What lets a frozen group go on.
    pub fn thaw(&self, path: &str) -> Option<LimitWrite> {
        let (file, value) = match self {
            Self::V1 { .. } => ("freezer.state", "THAWED"),
            Self::V2 { .. } => ("cgroup.freeze", "0"),
        };
        let directory = self.controller_directory("freezer", path)?;
        Some(LimitWrite { file: directory.join(file), value: value.into(), optional: true })
    }

    /// What must be written, in order, for the group to have these limits. Unset ones are left alone.
    pub fn limits(&self, path: &str, resources: &Resources) -> Vec<LimitWrite> {
        let mut plan = Plan { layout: self, path, writes: Vec::new() };
        match self {
            Self::V1 { .. } => plan.v1(resources),
            Self::V2 { .. } => plan.v2(resources),
        }
        plan.writes
    }
}

struct Plan<'a> {
    layout: &'a Layout,
    path: &'a str,
    writes: Vec<LimitWrite>,
}

impl Plan<'_> {
    fn write(&mut self, controller: &str, file: &str, value: impl ToString, optional: bool) {
        if let Some(directory) = self.layout.controller_directory(controller, self.path) {
            self.writes.push(LimitWrite { file: directory.join(file), value: value.to_string(), optional });
        }
    }

    fn v1(&mut self, r: &Resources) {
        if let Some(shares) = r.cpu_shares {
            self.write("cpu", "cpu.shares", shares.max(2), false);
        }
        if let Some(period) = r.cpu_period {
            self.write("cpu", "cpu.cfs_period_us", period, false);
        }
        if let Some(quota) = r.cpu_quota {
            self.write("cpu", "cpu.cfs_quota_us", if quota <= 0 { -1 } else { quota }, false);
        }
        if let Some(limit) = r.memory_limit_bytes {
            let limit = if limit <= 0 { -1 } else { limit };
            // Memory plus swap may never be below memory alone: lift the first before the second moves.
            self.write("memory", "memory.memsw.limit_in_bytes", -1, true);
            self.write("memory", "memory.limit_in_bytes", limit, false);
            self.write("memory", "memory.memsw.limit_in_bytes", limit, true);
        }
        if let Some(limit) = r.pids_limit {
            self.write("pids", "pids.max", max_or(limit), false);
        }
        self.cpuset(r);
    }

    fn v2(&mut self, r: &Resources) {
        if let Some(shares) = r.cpu_shares {
            self.write("cpu", "cpu.weight", weight_of_shares(shares), false);
        }
        if r.cpu_quota.is_some() || r.cpu_period.is_some() {
            let quota = r.cpu_quota.unwrap_or(-1);
            let value = format!("{} {}", max_or(quota), r.cpu_period.unwrap_or(100_000));
            self.write("cpu", "cpu.max", value, false);
        }
        if let Some(request) = r.memory_request_bytes {
            self.write("memory", "memory.min", request.max(0), false);
        }
        if let Some(limit) = r.memory_limit_bytes {
            self.write("memory", "memory.max", max_or(limit), false);
            self.write("memory", "memory.swap.max", if limit <= 0 { "max" } else { "0" }, true);
        }
        if let Some(limit) = r.pids_limit {
            self.write("pids", "pids.max", max_or(limit), false);
        }
        self.cpuset(r);
    }

    fn cpuset(&mut self, r: &Resources) {
        if let Some(cpus) = r.cpuset_cpus.as_deref().filter(|cpus| !cpus.is_empty()) {
            self.write("cpuset", "cpuset.cpus", cpus, false);
        }
        if let Some(mems) = r.cpuset_mems.as_deref().filter(|mems| !mems.is_empty()) {
            self.write("cpuset", "cpuset.mems", mems, false);
        }
    }
}

fn max_or(limit: i64) -> String {
    if limit <= 0 { "max".into() } else { limit.to_string() }
}

/// The conversion OCI runtimes agree on: 2 → 1, 1024 → 100, 262144 → 10000.
fn weight_of_shares(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let weight = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
    // Exact powers must not be lifted by rounding noise.
    ((weight - 1e-6).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    fn writes(mountinfo: &str, resources: &Resources) -> Vec<String> {
        let layout = Layout::parse(mountinfo).expect("a layout");
        let writes = layout.limits("/k/pod/c1", resources);
        writes.iter().map(|w| format!("{}={}", w.file.display(), w.value)).collect()
    }

    fn resources() -> Resources {
        Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit_bytes: Some(1 << 20),
            pids_limit: Some(-1),
            ..Resources::default()
        }
    }

    #[test]
    fn v1_limits_lift_swap_before_memory() {
        assert_eq!(
            writes(V1, &resources()),
            [
                "/sys/fs/cgroup/cpu,cpuacct/k/pod/c1/cpu.shares=1024",
                "/sys/fs/cgroup/cpu,cpuacct/k/pod/c1/cpu.cfs_period_us=100000",
                "/sys/fs/cgroup/cpu,cpuacct/k/pod/c1/cpu.cfs_quota_us=50000",
                "/sys/fs/cgroup/memory/k/pod/c1/memory.memsw.limit_in_bytes=-1",
                "/sys/fs/cgroup/memory/k/pod/c1/memory.limit_in_bytes=1048576",
                "/sys/fs/cgroup/memory/k/pod/c1/memory.memsw.limit_in_bytes=1048576",
                "/sys/fs/cgroup/pids/k/pod/c1/pids.max=max",
            ]
        );
    }

    #[test]
    fn v2_limits() {
        assert_eq!(
            writes(V2, &resources()),
            [
                "/sys/fs/cgroup/k/pod/c1/cpu.weight=100",
                "/sys/fs/cgroup/k/pod/c1/cpu.max=50000 100000",
                "/sys/fs/cgroup/k/pod/c1/memory.max=1048576",
                "/sys/fs/cgroup/k/pod/c1/memory.swap.max=0",
                "/sys/fs/cgroup/k/pod/c1/pids.max=max",
            ]
        );
    }

    #[test]
    fn what_is_frozen_is_thawed() {
        let check = |mountinfo: &str, wanted: Option<&str>| {
            let write = Layout::parse(mountinfo).expect("a layout").thaw("/k/pod");
            assert_eq!(write.map(|w| format!("{}={}", w.file.display(), w.value)).as_deref(), wanted);
        };
        let freezer = format!("{V1}\n42 31 0:39 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer");
        check(&freezer, Some("/sys/fs/cgroup/freezer/k/pod/freezer.state=THAWED"));
        check(V1, None);
        check(V2, Some("/sys/fs/cgroup/k/pod/cgroup.freeze=0"));
    }

    #[test]
    fn nothing_set_writes_nothing() {
        assert_eq!(writes(V1, &Resources::default()), [""; 0]);
        assert_eq!(writes(V2, &Resources::default()), [""; 0]);
    }

    #[test]
    fn directories_are_one_a_hierarchy() {
        let v1 = Layout::parse(V1).expect("v1");
        assert_eq!(v1.directories("k/x").len(), 4);
        assert_eq!(v1.tracking_directory("/k/shims"), Path::new("/sys/fs/cgroup/systemd/k/shims"));
        let v2 = Layout::parse(V2).expect("v2");
        assert_eq!(v2.directories("/k/x"), [Path::new("/sys/fs/cgroup/k/x")]);
        assert_eq!(Layout::parse("1 2 0:1 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn who_is_in_a_group_is_in_all_of_its_hierarchies() {
        let v1 = Layout::parse(V1).expect("v1");
        let Layout::V1 { controllers, .. } = &v1 else { panic!("{v1:?}") };
        let text = |own: &str, group: &str| {
            let mut lines: Vec<String> = controllers.keys().map(|name| format!("3:{name}:/k/x")).collect();
            lines.push("1:name=systemd:/k/x".into());
            lines.push("0::/other".into());
            lines.join("\n").replace(&format!(":{own}:/k/x"), &format!(":{own}:{group}"))
        };
        assert!(v1.is_in(&text("none", ""), "/k/x"));
        assert!(!v1.is_in(&text("none", ""), "/k/y"));
        assert!(!v1.is_in(&text("memory", "/k"), "/k/x"));
        assert!(!v1.is_in(&text("name=systemd", "/k/shims"), "/k/x"));
        assert!(!v1.is_in("", "/k/x"));
        let v2 = Layout::parse(V2).expect("v2");
        assert!(v2.is_in("0::/k/x\n", "k/x"));
        assert!(!v2.is_in("0::/k\n", "k/x"));
        assert!(!v2.is_in("", "k/x"));
    }

    #[test]
    fn weights_follow_the_common_conversion() {
        assert_eq!([2, 102, 1024, 262_144].map(weight_of_shares), [1, 17, 100, 10_000]);
    }
}
