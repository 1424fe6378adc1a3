//! Capability sets: names, bits, the default set of container runtimes, and how a configuration changes it.

use crate::runtime::Security;

/// In the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

pub const COUNT: u8 = NAMES.len() as u8;

/// A set as the kernel counts it: bit n is capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    fn of(names: &[&str]) -> Self {
        Self(names.iter().filter_map(|name| number(name)).fold(0, |set, n| set | 1 << n))
    }

    pub fn contains(self, number: u8) -> bool {
        self.0 & 1 << number != 0
    }

    /// `CAP_CHOWN`…
    pub fn names(self) -> Vec<String> {
        let present = (0..COUNT).filter(|n| self.contains(*n));
        present.map(|n| format!("CAP_{}", NAMES[usize::from(n)])).collect()
    }
}

/// With or without `CAP_`, in any case.
fn number(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|n| n as u8)
}

/// What the container may hold, limited to what we hold ourselves; an unknown name is an error that quotes it.
pub fn effective(security: &Security, held: CapabilitySet) -> Result<CapabilitySet, String> {
    if security.privileged {
        return Ok(held);
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let changes = security.capabilities.add.iter().chain(&security.capabilities.drop);
    if let Some(unknown) = changes.clone().find(|name| !is_all(name) && number(name).is_none()) {
        return Err(format!("unknown capability {unknown:?}"));
    }
    let (add, drop) = (&security.capabilities.add, &security.capabilities.drop);
    let set = |names: &[String]| CapabilitySet::of(&names.iter().map(String::as_str).collect::<Vec<_>>()).0;
    let start = match (add.iter().any(is_all), drop.iter().any(is_all)) {
        (true, _) => CapabilitySet::ALL.0,
        (false, true) => 0,
        (false, false) => CapabilitySet::of(&DEFAULT).0,
    };
    // A named capability counts for more than `ALL` of the other list.
    let result = if drop.iter().any(is_all) { start | set(add) } else { (start | set(add)) & !set(drop) };
    Ok(CapabilitySet(result & held.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Capabilities;

    fn check(add: &[&str], drop: &[&str], expect: impl Fn(CapabilitySet) -> bool) {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let capabilities = Capabilities { add: own(add), drop: own(drop) };
        let set =
            effective(&Security { capabilities, ..Security::default() }, CapabilitySet::ALL).expect("known");
        assert!(expect(set), "add {add:?} drop {drop:?} gives {:?}", set.names());
    }

    #[test]
    fn sets_follow_add_and_drop() {
        check(&[], &[], |set| set.names().len() == 14 && set.contains(13));
        check(&[], &["ALL"], |set| set.0 == 0);
        check(&["NET_BIND_SERVICE"], &["ALL"], |set| set.names() == ["CAP_NET_BIND_SERVICE"]);
        check(&["CAP_SYS_ADMIN"], &["net_raw"], |set| set.contains(21) && !set.contains(13));
        check(&["ALL"], &["SYS_ADMIN"], |set| set.names().len() == 40 && !set.contains(21));
    }

    #[test]
    fn unknown_names_are_refused() {
        let capabilities = Capabilities { add: vec!["FLY".into()], drop: vec![] };
        let security = Security { capabilities, ..Security::default() };
        assert_eq!(effective(&security, CapabilitySet::ALL), Err("unknown capability \"FLY\"".into()));
    }
}
