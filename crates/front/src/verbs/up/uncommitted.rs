//! Manifests on disk that differ from what is committed: what is deployed is what is committed, and whoever has changed a
//! file and not committed it wonders why nothing comes of it. Sources of images are not looked at: images are built from
//! what is on disk.

use std::fs;
use std::path::Path;

use gitops::files::Files;

use crate::project::FILE;

/// Files that are looked at, and those that are named, at most.
const FILES_MAX: usize = 5_000;
const NAMED_MAX: usize = 3;
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// One line, if there is anything to say. `path` is that of the application, without `./`.
pub fn hint(top: &Path, path: &str, committed: &Files) -> Option<String> {
    let changed = look(top, path, committed);
    let named = changed.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if changed.len() > NAMED_MAX { ", …" } else { "" };
    let verb = if changed.len() == 1 { "is" } else { "are" };
    let text = format!("{named}{more} {verb} changed and not committed: what is deployed is what is committed");
    (!changed.is_empty()).then_some(text)
}

/// Committed manifests beside and below the application's folder, which its own may be made of, and new ones in it.
fn look(top: &Path, path: &str, committed: &Files) -> Vec<String> {
    let beside = path.split('/').next().unwrap_or_default();
    let known = committed.below(beside).filter(|file| is_manifest(file) && *file != FILE);
    let is_changed = |file: &&str| {
        let on_disk = top.join(file);
        match fs::metadata(&on_disk) {
            Ok(meta) if meta.len() > FILE_LIMIT_BYTES => false,
            _ => fs::read(&on_disk).ok().as_deref() != committed.get(file),
        }
    };
    let mut changed: Vec<String> =
        known.take(FILES_MAX).filter(is_changed).map(str::to_owned).collect();
    let entries = fs::read_dir(top.join(path)).into_iter().flatten().flatten().take(FILES_MAX);
    let names = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let new = names.filter_map(|entry| {
        let name = entry.file_name().to_str()?.to_owned();
        Some(if path.is_empty() { name } else { format!("{path}/{name}") })
    });
    changed.extend(new.filter(|file| is_manifest(file) && file != FILE && committed.get(file).is_none()));
    changed
}

fn is_manifest(file: &str) -> bool {
    [".yaml", ".yml"].iter().any(|end| file.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn what_is_on_disk_alone_is_named() {
        let directory = tempfile::Builder::new().prefix("kedge-t-").tempdir().expect("a directory");
        let top = directory.path();
        let all = ["kedge.yaml", "deploy/dev/a.yaml", "deploy/base/b.yaml", "image/c.yaml"];
        let files = all.iter().map(|file| ((*file).to_owned(), Arc::from(b"x: 1\n".as_slice())));
        let committed = Files::new(BTreeMap::from_iter(files));
        for file in all {
            fs::create_dir_all(top.join(file).parent().expect("a folder")).expect("a folder");
            fs::write(top.join(file), "x: 1\n").expect("a file");
        }
        let write = |file: &str| fs::write(top.join(file), "x: 2\n").expect("a file");
        assert_eq!(hint(top, "deploy/dev", &committed), None);
        // Read from disk, and built from it.
        write("kedge.yaml");
        write("image/c.yaml");
        write("deploy/dev/notes.txt");
        assert_eq!(hint(top, "deploy/dev", &committed), None);
        write("deploy/base/b.yaml");
        let told = "deploy/base/b.yaml is changed and not committed: what is deployed is what is committed";
        assert_eq!(hint(top, "deploy/dev", &committed).as_deref(), Some(told));
        write("deploy/dev/new.yaml");
        fs::remove_file(top.join("deploy/dev/a.yaml")).expect("removed");
        let told = hint(top, "deploy/dev", &committed).expect("a hint");
        assert!(told.starts_with("deploy/base/b.yaml, deploy/dev/a.yaml, deploy/dev/new.yaml are changed"), "{told}");
    }
}
