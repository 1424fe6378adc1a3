//! Device nodes of a container and the cgroup rules that let it use them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::SpecInput;

/// A device node of this machine and where the container sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    pub path: PathBuf,
    pub block: bool,
    pub major: i64,
    pub minor: i64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Out of `r`, `w`, `m`.
    pub access: String,
}

/// The nodes at `host`, which may be a directory of nodes.
pub fn lookup_device(host: &Path, container: &Path, access: &str) -> io::Result<Vec<HostDevice>> {
    let metadata = fs::metadata(host)?;
    let kind = metadata.file_type();
    if metadata.is_dir() {
        let mut found = Vec::new();
        for entry in fs::read_dir(host)? {
            let entry = entry?;
            found.extend(lookup_device(&entry.path(), &container.join(entry.file_name()), access)?);
        }
        return Ok(found);
    }
    if !kind.is_char_device() && !kind.is_block_device() {
        return Ok(Vec::new());
    }
    let number = metadata.rdev();
    Ok(vec![HostDevice {
        path: container.to_owned(),
        block: kind.is_block_device(),
        major: i64::from(rustix::fs::major(number)),
        minor: i64::from(rustix::fs::minor(number)),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: if access.is_empty() { "rwm".into() } else { access.to_owned() },
    }])
}

/// All devices of the machine: what a privileged container gets. Terminals and shared memory have mounts of their own.
pub fn host_devices() -> io::Result<Vec<HostDevice>> {
    const OWN_MOUNTS: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "hugepages"];
    let mut found = Vec::new();
    for entry in fs::read_dir("/dev")? {
        let entry = entry?;
        if OWN_MOUNTS.iter().any(|name| entry.file_name() == *name) || entry.file_type()?.is_symlink() {
            continue;
        }
        match lookup_device(&entry.path(), &entry.path(), "rwm") {
            Ok(devices) => found.extend(devices),
            // Device nodes come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

pub fn nodes(devices: &[HostDevice]) -> Result<Vec<LinuxDevice>, OciSpecError> {
    let node = |device: &HostDevice| {
        LinuxDeviceBuilder::default()
            .path(&*device.path)
            .typ(kind(device))
            .major(device.major)
            .minor(device.minor)
            .file_mode(device.mode)
            .uid(device.uid)
            .gid(device.gid)
            .build()
    };
    devices.iter().map(node).collect()
}

pub fn cgroup_rules(input: &SpecInput<'_>) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let all =
        LinuxDeviceCgroupBuilder::default().allow(input.config.security.privileged).access("rwm").build()?;
    let mut rules = vec![all];
    if input.config.security.privileged {
        return Ok(rules);
    }
    for device in &input.devices {
        rules.push(
            LinuxDeviceCgroupBuilder::default()
                .allow(true)
                .typ(kind(device))
                .major(device.major)
                .minor(device.minor)
                .access(&*device.access)
                .build()?,
        );
    }
    Ok(rules)
}

fn kind(device: &HostDevice) -> LinuxDeviceType {
    if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C }
}
