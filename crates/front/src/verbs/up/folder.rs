//! Whether the folder that is to be deployed holds anything to deploy, found out before anything is changed: an application
//! that runs is not turned to a folder that nothing comes of.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use gitops::files::Files;
use gitops::kustomize::{self, BuildError, NAMES, Overrides};
use gitops::types::GitReference;

use super::hints;

/// Folders that nothing is deployed from, though what they hold may look like it.
const LEFT_OUT: [&str; 2] = ["node_modules", "target"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing to deploy in it.
    Nothing(String),
    /// What is in it cannot be built; a commit may mend it.
    Broken(String),
}

/// What is committed; nothing when that cannot be read, which the engine tells better.
pub fn committed(repository: &Path, reference: &GitReference) -> Option<Files> {
    let never = AtomicBool::new(false);
    let url = repository.to_string_lossy();
    // One on this machine needs no mirror.
    gitops::source::checkout(&url, reference, Path::new(""), None, None, &never).ok().map(|found| found.files)
}

/// `on_disk`: the folder is there, whether committed or not.
pub fn look(files: &Files, path: &str, on_disk: bool) -> Option<Fault> {
    let fault = kustomize::build(files, path, &Overrides::default()).err()?;
    let path = path.trim_start_matches("./");
    let own = NAMES.iter().any(|name| files.get(&at(path, name)).is_some());
    match fault {
        BuildError::Missing { .. } if !own && !files.is_folder(path) && on_disk => Some(Fault::Nothing(format!(
            "the folder {path} is not committed, and what is deployed is what is committed\ncommit it first: git add {path} && git commit"
        ))),
        BuildError::Missing { .. } if !own && !files.is_folder(path) => Some(Fault::Nothing(hints::other_folders(
            &format!("there is no folder {path} in what is committed"),
            &folders(files),
        ))),
        BuildError::Empty { .. } => {
            Some(Fault::Nothing(hints::other_folders(&fault.to_string(), &folders(files))))
        }
        // Who has folders for it did not mean all the manifests of the repository together.
        fault if path.is_empty() && !own && !folders(files).is_empty() => Some(Fault::Nothing(
            hints::other_folders(
                &format!("the top of the repository has no kustomization.yaml, and what lies there cannot be deployed as it is: {fault}"),
                &folders(files),
            ),
        )),
        fault => Some(Fault::Broken(fault.to_string())),
    }
}

fn at(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Those with a kustomization.
fn folders(files: &Files) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (folder, name) in files.below("").filter_map(|path| path.rsplit_once('/')) {
        let left_out = folder.split('/').any(|part| LEFT_OUT.contains(&part));
        if NAMES.contains(&name) && !left_out {
            found.insert(folder.to_owned());
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn a_folder_that_nothing_comes_of_is_found() {
        let entry = |(path, text): (&str, &str)| (path.to_owned(), Arc::from(text.as_bytes()));
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n";
        let files = Files::new(BTreeMap::from_iter([
            entry(("deploy/kustomization.yaml", "resources: [a.yaml]\n")),
            entry(("deploy/a.yaml", map)),
            entry(("broken/kustomization.yaml", "resources: [b.yaml]\n")),
            entry(("plain/a.yaml", map)),
            entry(("empty/README.md", "")),
            entry(("web/node_modules/x/kustomization.yaml", "")),
        ]));
        let look_at = |files: &Files, path: &str, on_disk: bool, wanted: Option<&str>| {
            let told = match look(files, path, on_disk) {
                Some(Fault::Nothing(text)) => Some(text),
                Some(Fault::Broken(text)) => Some(format!("broken: {text}")),
                None => None,
            };
            match (told, wanted) {
                (Some(told), Some(wanted)) => assert!(told.contains(wanted), "{path}: {told}"),
                (told, wanted) => assert_eq!(told.as_deref(), wanted, "{path}"),
            }
        };
        let check = |path: &str, on_disk: bool, wanted: Option<&str>| look_at(&files, path, on_disk, wanted);
        check("./deploy", true, None);
        check("./plain", true, None);
        check("./empty", true, Some("./empty has neither a kustomization.yaml nor a manifest"));
        check("./empty", true, Some("with a kustomization.yaml are broken, deploy; name one with --path"));
        check("./nowhere", false, Some("there is no folder nowhere in what is committed"));
        check("./nowhere", false, Some("are broken, deploy; name one"));
        check("./new", true, Some("git add new && git commit"));
        check("./broken", true, Some("broken: broken/b.yaml: no such file"));
        check("./", true, Some("the top of the repository has no kustomization.yaml, and what lies there"));
        check("./", true, Some("are broken, deploy; name one with --path"));
        let plain = Files::new(BTreeMap::from_iter([entry(("a.yaml", "kind: [")), entry(("b/c.yaml", map))]));
        look_at(&plain, "./", true, Some("broken: "));
    }
}
