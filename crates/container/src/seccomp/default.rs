//! The default profile: what container runtimes have agreed that ordinary programs never need. Everything else of the
//! architecture's table is allowed; calls that are newer than the table are refused like the listed ones.

use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{Programs, Rules, SeccompError, program, syscalls};

/// Refused unless the container holds one of the capabilities; with none named, always.
const GUARDED: &[(&[&str], &[&str])] = &[
    (&["SYS_ADMIN", "BPF"], &["bpf"]),
    (&["SYS_ADMIN", "PERFMON"], &["perf_event_open"]),
    (
        &["SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (&["SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_madvise"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "settimeofday"]),
    (&["SYS_TTY_CONFIG"], &["vhangup"]),
    (&["SYSLOG"], &["syslog"]),
    (&["DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (
        &[],
        &[
            "_sysctl",
            "add_key",
            "afs_syscall",
            "create_module",
            "get_kernel_syms",
            "getpmsg",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
            "kexec_file_load",
            "kexec_load",
            "keyctl",
            "migrate_pages",
            "move_pages",
            "nfsservctl",
            "pivot_root",
            "putpmsg",
            "query_module",
            "request_key",
            "security",
            "swapoff",
            "swapon",
            "sysfs",
            "tuxcall",
            "uselib",
            "userfaultfd",
            "ustat",
            "vserver",
        ],
    ),
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// What `personality` may be set to: Linux, Linux with a 2.6 version, without address randomisation, and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Far beyond the numbers any kernel of the next years will use.
const NEWEST_GUESSED: i64 = 520;

pub fn programs(capabilities: &[String]) -> Result<Programs, SeccompError> {
    let held = |name: &&str| capabilities.iter().any(|held| held.strip_prefix("CAP_") == Some(*name));
    let refused: Vec<&str> = GUARDED
        .iter()
        .filter(|(unlocked_by, _)| !unlocked_by.iter().any(&held))
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let mut rules: Rules =
        syscalls::all().filter(|(name, _)| !refused.contains(name)).map(|(_, nr)| (nr, Vec::new())).collect();
    rules.insert(libc::SYS_socket, vec![rule(0, SeccompCmpOp::Ne, libc::AF_VSOCK as u64)?]);
    let personalities = PERSONALITIES.iter().map(|value| rule(0, SeccompCmpOp::Eq, *value));
    rules.insert(libc::SYS_personality, personalities.collect::<Result<_, _>>()?);
    let namespaces_allowed = held(&"SYS_ADMIN");
    if !namespaces_allowed {
        rules.insert(libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS), 0)?]);
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let mut programs = vec![program(rules, refuse, SeccompAction::Allow)?];
    // Callers of calls newer than the table expect to be told so, and then fall back; "not permitted" confuses them.
    let newest = syscalls::all().map(|(_, number)| number).max().unwrap_or(0);
    let mut absent: Rules = (newest + 1..=NEWEST_GUESSED).map(|number| (number, Vec::new())).collect();
    if !namespaces_allowed {
        // Its flags are in memory, where no filter can look: saying it does not exist makes callers use `clone`.
        absent.insert(libc::SYS_clone3, Vec::new());
    }
    programs.push(program(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?);
    Ok(programs)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, SeccompError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    SeccompRule::new(vec![condition.map_err(SeccompError::Compile)?]).map_err(SeccompError::Compile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_compiles_with_and_without_capabilities() {
        assert_eq!(programs(&[]).expect("compiles").len(), 2);
        assert_eq!(programs(&["CAP_SYS_ADMIN".into()]).expect("compiles").len(), 2);
    }
}
