//! System-call filters. Compiled before the container's process is forked, installed by it as its last act: after that
//! even our own code could not go on.

mod default;
mod profile;
mod syscalls;

use std::path::Path;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use crate::runtime::Seccomp;

#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("no filters for this processor architecture")]
    Architecture(#[source] seccompiler::BackendError),
    #[error("compile filter")]
    Compile(#[source] seccompiler::BackendError),
    #[error("read profile {path:?}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("decode profile {path:?}")]
    Decode { path: std::path::PathBuf, source: serde_json::Error },
    #[error("profile {path:?}: {message}")]
    Profile { path: std::path::PathBuf, message: String },
}

/// Filters in the order they are to be installed. The kernel obeys the strictest answer, and of equally strict ones
/// that of the filter installed last.
pub type Programs = Vec<BpfProgram>;

/// `capabilities` widen the default profile, as mount does with `CAP_SYS_ADMIN`.
pub fn compile(seccomp: &Seccomp, capabilities: &[String]) -> Result<Programs, SeccompError> {
    match seccomp {
        Seccomp::Unconfined => Ok(Vec::new()),
        Seccomp::RuntimeDefault => default::programs(capabilities),
        Seccomp::Localhost(path) => profile::programs(path, capabilities),
    }
}

/// One rule of a system call: allow when all conditions hold. No rule at all: always.
type Rules = std::collections::BTreeMap<i64, Vec<SeccompRule>>;

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(SeccompError::Architecture)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(SeccompError::Compile)?;
    filter.try_into().map_err(SeccompError::Compile)
}

fn profile_error(path: &Path, message: impl Into<String>) -> SeccompError {
    SeccompError::Profile { path: path.to_owned(), message: message.into() }
}

/// Installs the programs on this thread. Only async-signal-safe calls: it runs between fork and exec.
pub fn install(programs: &Programs) -> Result<(), i32> {
    for program in programs {
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr() as *mut libc::sock_filter,
        };
        // SAFETY: seccompiler's instruction has the layout of the kernel's, and the program outlives the call, which
        // copies it.
        let result =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
        if result != 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL));
        }
    }
    Ok(())
}
