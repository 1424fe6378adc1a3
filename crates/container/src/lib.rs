//! Containers: a CRI-shaped trait ([`runtime`]) and our own implementation of it.
//!
//! This crate knows sandboxes, containers, cgroups, mounts, seccomp and stdio. It knows nothing of the objects an
//! orchestrator describes them with, nor of images: a container's root arrives as a list of layer directories.

pub mod cgroup;
mod clock;
mod log;
pub mod own;
mod process;
mod protocol;
#[cfg(test)]
mod recorded;
mod rootfs;
pub mod runtime;
mod seccomp;
pub mod shim;
mod spec;
