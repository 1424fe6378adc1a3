//! Who a container's process runs as: the image's or the configuration's user, looked up in the root's own
//! `/etc/passwd` and `/etc/group`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde::{Deserialize, Serialize};

use crate::runtime::UserSpec;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// Besides `gid`: the groups the root's `/etc/group` puts the user in, and those asked for.
    pub groups: Vec<u32>,
    pub home: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
}

/// The two files, empty where the root has none.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    pub passwd: String,
    pub group: String,
}

impl Accounts {
    /// Reads them from a root directory without ever following a link out of it.
    pub fn read(root: &Path) -> Self {
        let read = |path: &str| read_inside(root, path).unwrap_or_default();
        Self { passwd: read("etc/passwd"), group: read("etc/group") }
    }

    fn passwd_entry(&self, matches: impl Fn(&[&str]) -> bool) -> Option<Vec<&str>> {
        entries(&self.passwd, 6).find(|fields| matches(fields))
    }

    fn by_name(&self, name: &str) -> Option<Vec<&str>> {
        self.passwd_entry(|fields| fields[0] == name)
    }

    fn by_uid(&self, uid: u32) -> Option<Vec<&str>> {
        self.passwd_entry(|fields| fields[2].parse() == Ok(uid))
    }

    fn gid_of_group(&self, group: &str) -> Result<u32, UserError> {
        let named = entries(&self.group, 3).find(|fields| fields[0] == group);
        let gid = named.and_then(|fields| fields[2].parse().ok()).or_else(|| group.parse().ok());
        gid.ok_or_else(|| UserError::UnknownGroup(group.to_owned()))
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let member =
            |fields: &Vec<&str>| fields.get(3).is_some_and(|list| list.split(',').any(|name| name == user));
        entries(&self.group, 3).filter(member).filter_map(|fields| fields[2].parse().ok()).collect()
    }

    /// `image_user` is the image's `User` field; `spec` overrides it.
    pub fn resolve(
        &self,
        image_user: &str,
        spec: Option<&UserSpec>,
        supplemental: &[u32],
    ) -> Result<ResolvedUser, UserError> {
        let mut user = match spec {
            Some(UserSpec::Id { uid, gid }) => self.by_number(*uid, *gid),
            Some(UserSpec::Name { username, gid }) => {
                let mut user = self.by_user_field(username)?;
                user.gid = gid.unwrap_or(user.gid);
                user
            }
            Some(UserSpec::Group { gid }) => ResolvedUser { gid: *gid, ..self.by_user_field(image_user)? },
            None => self.by_user_field(image_user)?,
        };
        user.groups.extend_from_slice(supplemental);
        user.groups.sort_unstable();
        user.groups.dedup();
        Ok(user)
    }

    fn by_number(&self, uid: u32, gid: Option<u32>) -> ResolvedUser {
        match self.by_uid(uid) {
            Some(fields) => {
                let user = self.user_of(&fields);
                ResolvedUser { gid: gid.unwrap_or(user.gid), ..user }
            }
            None => ResolvedUser { uid, gid: gid.unwrap_or(0), groups: Vec::new(), home: "/".into() },
        }
    }

    fn by_user_field(&self, field: &str) -> Result<ResolvedUser, UserError> {
        let (name, group) = match field.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (field, None),
        };
        let mut user = match (name, self.by_name(name), name.parse::<u32>()) {
            ("", _, _) => self.by_number(0, None),
            (_, Some(fields), _) => self.user_of(&fields),
            (_, None, Ok(uid)) => self.by_number(uid, None),
            (_, None, Err(_)) => return Err(UserError::UnknownUser(name.to_owned())),
        };
        if let Some(group) = group {
            user.gid = self.gid_of_group(group)?;
        }
        Ok(user)
    }

    fn user_of(&self, fields: &[&str]) -> ResolvedUser {
        ResolvedUser {
            uid: fields[2].parse().unwrap_or(0),
            gid: fields[3].parse().unwrap_or(0),
            groups: self.groups_of(fields[0]),
            home: if fields[5].is_empty() { "/".into() } else { fields[5].to_owned() },
        }
    }
}

fn entries(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    let rows =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect::<Vec<_>>());
    rows.filter(move |row| row.len() >= fields)
}

fn read_inside(root: &Path, path: &str) -> io::Result<String> {
    let root = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat2(&root, PathBuf::from(path), flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let file = fs::File::from(file);
    // Bounded: the image is not ours.
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, 4 << 20), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/false\n".into(),
            group: "root:x:0:\nwww:x:34:\nlog:x:40:web,other\n".into(),
        }
    }

    fn check(image: &str, spec: Option<UserSpec>, expect: (u32, u32, &[u32], &str)) {
        let user = accounts().resolve(image, spec.as_ref(), &[7]).expect("resolves");
        assert_eq!(
            (user.uid, user.gid, user.groups.as_slice(), user.home.as_str()),
            expect,
            "{image:?} {spec:?}"
        );
    }

    #[test]
    fn users_are_looked_up_in_the_roots_own_files() {
        check("", None, (0, 0, &[7], "/root"));
        check("web", None, (33, 34, &[7, 40], "/srv/web"));
        check("33", None, (33, 34, &[7, 40], "/srv/web"));
        check("web:log", None, (33, 40, &[7, 40], "/srv/web"));
        check("1000:1000", None, (1000, 1000, &[7], "/"));
        check("web", Some(UserSpec::Id { uid: 5, gid: None }), (5, 0, &[7], "/"));
        check("web", Some(UserSpec::Id { uid: 33, gid: Some(9) }), (33, 9, &[7, 40], "/srv/web"));
        check("web", Some(UserSpec::Group { gid: 9 }), (33, 9, &[7, 40], "/srv/web"));
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(accounts().resolve("nope", None, &[]), Err(UserError::UnknownUser("nope".into())));
        assert_eq!(accounts().resolve("web:nope", None, &[]), Err(UserError::UnknownGroup("nope".into())));
    }
}
