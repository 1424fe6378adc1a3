//! The mounts every container has, and those it asks for.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount as SpecMount, MountBuilder};

use super::SpecInput;
use crate::runtime::{Mount, MountKind, Propagation};

type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Destination, type, source, options.
const DEFAULT: [Row; 6] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

pub fn all(input: &SpecInput<'_>) -> Result<Vec<SpecMount>, OciSpecError> {
    let wanted = &input.config.mounts;
    let mut mounts = Vec::new();
    for (destination, typ, source, options) in DEFAULT {
        let writable = input.config.security.privileged && destination.starts_with("/sys");
        let options = options.iter().map(|option| if writable && *option == "ro" { "rw" } else { option });
        mounts.push(mount(destination, typ, Path::new(source), options.map(str::to_owned).collect())?);
    }
    let bind = |destination: &str, name: &str| {
        let options = ["rbind", "rprivate", "rw"].map(str::to_owned).to_vec();
        mount(destination, "bind", &input.sandbox_dir.join(name), options)
    };
    if !input.sandbox.host_ipc {
        mounts.push(bind("/dev/shm", "shm")?);
    } else {
        let options = ["rbind", "rprivate", "rw"].map(str::to_owned).to_vec();
        mounts.push(mount("/dev/shm", "bind", Path::new("/dev/shm"), options)?);
    }
    if !input.sandbox.hostname.is_empty() {
        mounts.push(bind("/etc/hostname", "hostname")?);
    }
    mounts.retain(|m| !wanted.iter().any(|w| normal(&w.container_path) == normal(m.destination())));
    // What lies below another mount must come after it.
    let mut ordered: Vec<&Mount> = wanted.iter().collect();
    ordered.sort_by_key(|m| m.container_path.components().count());
    for wanted in ordered {
        mounts.push(requested(wanted)?);
    }
    Ok(mounts)
}

fn requested(wanted: &Mount) -> Result<SpecMount, OciSpecError> {
    let access = if wanted.readonly { "ro" } else { "rw" };
    let destination = wanted.container_path.to_string_lossy();
    match wanted.kind {
        MountKind::Tmpfs { size_bytes } => {
            let mut options = ["nosuid", "nodev", "mode=1777", access].map(str::to_owned).to_vec();
            options.extend(size_bytes.map(|size| format!("size={size}")));
            mount(&destination, "tmpfs", Path::new("tmpfs"), options)
        }
        MountKind::Bind => {
            let propagation = match wanted.propagation {
                Propagation::Private => "rprivate",
                Propagation::HostToContainer => "rslave",
                Propagation::Bidirectional => "rshared",
            };
            let options = ["rbind", propagation, access].map(str::to_owned).to_vec();
            mount(&destination, "bind", &wanted.host_path, options)
        }
    }
}

fn mount(
    destination: &str,
    typ: &str,
    source: &Path,
    options: Vec<String>,
) -> Result<SpecMount, OciSpecError> {
    MountBuilder::default()
        .destination(PathBuf::from(destination))
        .typ(typ)
        .source(source)
        .options(options)
        .build()
}

fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}
