//! Users and groups by the names an image's own `/etc/passwd` and `/etc/group` give them.

use std::io::Read;
use std::path::Path;

use crate::tree::{Owner, Tree};

/// Larger files are cut: an image's files are not ours.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// `user`, `uid`, `user:group` or `uid:gid`, looked up in a root. The error quotes the unknown name.
pub fn resolve(root: &Path, spec: &str) -> Result<Owner, String> {
    let (user, group) = spec.split_once(':').map_or((spec, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(root, "etc/passwd");
    let by_name = rows(&passwd).find(|row| row.first() == Some(&user));
    let by_uid = || rows(&passwd).find(|row| row.get(2) == Some(&user));
    let entry = by_name.or_else(by_uid);
    let field = |row: &Vec<&str>, index: usize| row.get(index).and_then(|text| text.parse::<u32>().ok());
    let uid = entry.as_ref().and_then(|row| field(row, 2)).or_else(|| user.parse().ok());
    let uid = uid.ok_or_else(|| format!("no user {user:?} in /etc/passwd"))?;
    let gid = match group.filter(|group| !group.is_empty()) {
        None => entry.as_ref().and_then(|row| field(row, 3)).unwrap_or(0),
        Some(group) => {
            let groups = read(root, "etc/group");
            let named = rows(&groups).find(|row| row.first() == Some(&group));
            let gid = named.and_then(|row| field(&row, 2)).or_else(|| group.parse().ok());
            gid.ok_or_else(|| format!("no group {group:?} in /etc/group"))?
        }
    };
    Ok(Owner { uid, gid })
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// Nothing where there is no such file.
fn read(root: &Path, path: &str) -> String {
    let mut text = String::new();
    let read = Tree::open(root)
        .and_then(|tree| tree.open_file(Path::new(path)))
        .and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text));
    if read.is_ok() { text } else { String::new() }
}
