//! What is to be deployed: what was typed, then what `kedge.yaml` says, then what the repository itself tells.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use gitops::files::Files;
use gitops::types::{
    GitReference, GitRepository, GitRepositorySpec, Kustomization, KustomizationSpec, SourceReference,
};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::Up;
use super::folder::{self, Fault};
use super::uncommitted;
use crate::project::{FILE, Image, Project};
use crate::repository::{Head, Repository, Source, name_of, object_name};

/// Where the objects of the engine lie.
pub const NAMESPACE: &str = "gitops";
const INTERVAL: &str = "1m";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub name: String,
    pub url: String,
    pub reference: GitReference,
    /// `./deploy/dev`
    pub path: String,
    /// Of a local repository.
    pub top: PathBuf,
    pub images: Vec<Image>,
    /// Images of a repository without a working tree, which are not built here.
    pub unbuilt: Vec<String>,
    pub timeout_s: u64,
    /// An application of the same name from elsewhere may go.
    pub replaces: bool,
    /// Why nothing can come of what is committed, though the folder is there.
    pub broken: Option<String>,
    /// What is changed on disk and not committed.
    pub uncommitted: Option<String>,
}

impl Plan {
    pub fn new(source: Source, asked: &Up) -> anyhow::Result<Self> {
        let mut committed = None;
        let project = match &source {
            Source::Local(repository) if repository.is_bare() => {
                let files = committed_files(repository, asked)?;
                let text = String::from_utf8_lossy(files.get(FILE).unwrap_or_default()).into_owned();
                committed = Some(files);
                Project::parse(&text).with_context(|| format!("{FILE} is wrong"))?
            }
            Source::Local(repository) => Project::read(&repository.top)?,
            Source::Remote(_) => Project::default(),
        };
        let name = match &asked.name {
            Some(name) if object_name(name) != *name => {
                bail!("{name:?} is not a name; use small letters, digits and dashes")
            }
            Some(name) => name.clone(),
            None => project.name.as_deref().map(object_name).unwrap_or_else(|| name_of(&source)),
        };
        let mut plan = Self { name, timeout_s: asked.timeout.as_secs(), replaces: asked.replace, ..Self::default() };
        let branch = asked.branch.clone().or(project.branch);
        let top = match &source {
            Source::Local(repository) => repository.top.as_path(),
            Source::Remote(_) => Path::new(""),
        };
        let mut path = asked.path.as_deref().map(|path| checked(path, "--path ", top)).transpose()?;
        let written = project.path.as_deref().filter(|path| !path.is_empty());
        let written = written.map(|path| checked(path, &format!("the path: of {FILE}, "), top)).transpose()?;
        let mut on_disk = false;
        match source {
            Source::Remote(url) => {
                plan.url = url;
                // Most repositories call it so; others say --branch.
                plan.reference.branch = Some(branch.unwrap_or_else(|| "main".into()));
            }
            Source::Local(repository) => {
                plan.url = repository.top.to_string_lossy().into_owned();
                // Another branch than the one that lies there cannot be compared with what lies there.
                on_disk = match &repository.head {
                    Head::Branch(head) => branch.as_ref().is_none_or(|branch| branch == head),
                    Head::Commit(_) => branch.is_none(),
                };
                match (branch, repository.head.clone()) {
                    (Some(branch), _) | (None, Head::Branch(branch)) if repository.lacks(&branch) => bail!(
                        "there is no branch {branch:?} with a commit in {}, and what is deployed is what is committed\ncommit first, or name another branch with --branch (`git branch` lists them)",
                        repository.top.display()
                    ),
                    (Some(branch), _) | (None, Head::Branch(branch)) => plan.reference.branch = Some(branch),
                    (None, Head::Commit(commit)) => plan.reference.commit = Some(commit),
                }
                // Where one happens to stand counts only where nothing is written down.
                let named = asked.repository.as_deref().is_some_and(|word| word != ".");
                if path.is_none() && !repository.below.is_empty() && (named || written.is_none()) {
                    path = Some(repository.below);
                }
                plan.top = repository.top;
                match &committed {
                    // There is no folder that they could be built from.
                    Some(_) => plan.unbuilt = project.images.into_iter().map(|image| image.name).collect(),
                    None => plan.images = project.images,
                }
            }
        }
        let path = path.or(written).unwrap_or_default();
        plan.path = format!("./{path}");
        if !plan.top.as_os_str().is_empty() {
            plan.check_folder(&path, committed.is_some(), on_disk)?;
        }
        Ok(plan)
    }

    /// Of a repository on this machine.
    fn check_folder(&mut self, path: &str, is_bare: bool, is_checked_out: bool) -> anyhow::Result<()> {
        let on_disk = !is_bare && self.top.join(path).is_dir();
        let committed = folder::committed(&self.top, &self.reference);
        if let Some(files) = committed.as_ref().filter(|_| on_disk && is_checked_out) {
            self.uncommitted = uncommitted::hint(&self.top, path, files);
        }
        let fault = match committed {
            Some(files) => folder::look(&files, &self.path, on_disk),
            None if on_disk || is_bare => None,
            None => Some(Fault::Nothing(format!(
                "there is no folder {}\nname the one with the manifests with --path, or as `path:` in {FILE}",
                self.top.join(path).display()
            ))),
        };
        match fault {
            Some(Fault::Nothing(why)) => bail!("{why}"),
            Some(Fault::Broken(why)) => self.broken = Some(why),
            None => {}
        }
        Ok(())
    }

    /// `main`, or the beginning of a commit.
    pub fn label(&self) -> String {
        let commit = self.reference.commit.as_deref().map(|commit| commit.chars().take(8).collect());
        self.reference.branch.clone().or(commit).unwrap_or_default()
    }

    fn metadata(&self, annotations: &Value) -> Value {
        json!({"name": self.name, "namespace": NAMESPACE, "annotations": annotations})
    }

    /// Null takes a field away that an earlier run has set: a switch from a commit to a branch must leave no commit.
    pub fn source(&self, annotations: &Value) -> anyhow::Result<Value> {
        let spec = GitRepositorySpec {
            url: self.url.clone(),
            interval: INTERVAL.into(),
            reference: Some(self.reference.clone()),
            ..GitRepositorySpec::default()
        };
        let object = GitRepository {
            api_version: "source.toolkit.fluxcd.io/v1".into(),
            kind: "GitRepository".into(),
            metadata: ObjectMeta::default(),
            spec,
            status: None,
        };
        self.finish(serde_json::to_value(object)?, annotations)
    }

    pub fn kustomization(&self, annotations: &Value) -> anyhow::Result<Value> {
        let spec = KustomizationSpec {
            interval: INTERVAL.into(),
            path: Some(self.path.clone()),
            prune: true,
            wait: Some(true),
            timeout: Some(format!("{}s", self.timeout_s)),
            source_ref: SourceReference {
                kind: "GitRepository".into(),
                name: self.name.clone(),
                namespace: None,
            },
            ..KustomizationSpec::default()
        };
        let object = Kustomization {
            api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
            kind: "Kustomization".into(),
            metadata: ObjectMeta::default(),
            spec,
            status: None,
        };
        self.finish(serde_json::to_value(object)?, annotations)
    }

    /// An applied configuration holds what is meant and nothing else: an empty list would be owned as well.
    fn finish(&self, mut object: Value, annotations: &Value) -> anyhow::Result<Value> {
        object["metadata"] = self.metadata(annotations);
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
        }
        Ok(object)
    }
}

/// A folder as seen from the repository's top, without `./` and slashes around; `said` is where it was named.
fn checked(path: &str, said: &str, top: &Path) -> anyhow::Result<String> {
    const HOW: &str = "name the folder as seen from the repository's top";
    if path.trim().is_empty() {
        bail!("{said}is empty; {HOW}, as --path deploy, or --path . for the top itself");
    }
    if Path::new(path).is_absolute() {
        let below = Path::new(path).strip_prefix(top).ok().filter(|_| !top.as_os_str().is_empty());
        let instead = match below.map(|below| below.display().to_string()) {
            Some(below) if below.is_empty() => ": .".to_owned(),
            Some(below) => format!(": {below}"),
            None => String::new(),
        };
        bail!("{said}{path} is absolute; {HOW}{instead}");
    }
    let parts = path.split('/').filter(|part| !["", "."].contains(part));
    let parts: Vec<&str> = parts.collect();
    if parts.contains(&"..") {
        bail!("{said}{path} has `..` in it; {HOW}, as --path deploy; another repository is named before its options");
    }
    Ok(parts.join("/"))
}

/// What a repository without a working tree holds.
fn committed_files(repository: &Repository, asked: &Up) -> anyhow::Result<Files> {
    let mut reference = GitReference { branch: asked.branch.clone(), ..GitReference::default() };
    if reference.branch.is_none() {
        match &repository.head {
            Head::Branch(branch) => reference.branch = Some(branch.clone()),
            Head::Commit(commit) => reference.commit = Some(commit.clone()),
        }
    }
    let url = repository.top.to_string_lossy();
    let never = AtomicBool::new(false);
    // One on this machine needs no mirror.
    let found = gitops::source::checkout(&url, &reference, Path::new(""), None, None, &never);
    Ok(found.context("name another branch with --branch")?.files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::repository::find;
    use clap::Parser;
    use std::fs;

    fn asked(words: &[&str]) -> Up {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            up: Up,
        }
        Only::parse_from(["up"].iter().chain(words)).up
    }

    fn repository() -> tempfile::TempDir {
        let directory = tempfile::Builder::new().prefix("kedge-t-").tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join(".git")).expect("a folder");
        fs::write(directory.path().join(".git/HEAD"), "ref: refs/heads/work\n").expect("a file");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let packed = format!("{commit} refs/heads/main\n{commit} refs/heads/work\n");
        fs::write(directory.path().join(".git/packed-refs"), packed).expect("a file");
        fs::create_dir_all(directory.path().join("deploy/dev")).expect("a folder");
        fs::create_dir_all(directory.path().join("deploy/prod")).expect("a folder");
        let project = "name: shop\npath: deploy/dev\nimages:\n- name: localhost/shop:v1\n";
        fs::write(directory.path().join(FILE), project).expect("a file");
        directory
    }

    fn plan(folder: &std::path::Path, words: &[&str]) -> anyhow::Result<Plan> {
        let source = find(&folder.to_string_lossy()).expect("looked").expect("a repository");
        Plan::new(source, &asked(words))
    }

    #[test]
    fn what_is_typed_wins_over_what_is_written() {
        let directory = repository();
        let top = directory.path();
        let written = plan(top, &[]).expect("a plan");
        assert_eq!((written.name.as_str(), written.path.as_str()), ("shop", "./deploy/dev"));
        assert_eq!(written.reference.branch.as_deref(), Some("work"));
        assert_eq!(written.images.len(), 1);
        let typed = plan(top, &["--path", "./deploy/prod/", "--branch", "main", "--name", "other"]).expect("a plan");
        assert_eq!((typed.name.as_str(), typed.path.as_str()), ("other", "./deploy/prod"));
        assert_eq!(typed.reference.branch.as_deref(), Some("main"));
        // Standing in a folder is not naming it, where the repository says what it deploys.
        let below = plan(&top.join("deploy/prod"), &[]).expect("a plan");
        assert_eq!(below.path, "./deploy/dev");
        let named = top.join("deploy/prod");
        let named = plan(&named, &[&named.to_string_lossy()]).expect("a plan");
        assert_eq!(named.path, "./deploy/prod");
        assert!(plan(top, &["--path", "nowhere"]).expect_err("refused").to_string().contains("--path"));
        assert!(plan(top, &["--name", "No Name"]).is_err());
        assert_eq!(plan(top, &["--path", "."]).expect("a plan").path, "./");
        let refused = |path: &str, wanted: &str| {
            let told = plan(top, &["--path", path]).expect_err("refused").to_string();
            assert!(told.starts_with("--path ") && told.contains(wanted), "{path:?}: {told}");
        };
        refused("", "is empty; name the folder as seen from the repository's top, as --path deploy");
        refused("../shop", "has `..` in it; name the folder as seen");
        refused("/srv/elsewhere", "/srv/elsewhere is absolute; name the folder as seen from the repository's top");
        let inside = fs::canonicalize(top).expect("a folder").join("deploy/prod");
        refused(&inside.to_string_lossy(), "as seen from the repository's top: deploy/prod");
        assert!(plan(top, &["--branch", "mian"]).expect_err("refused").to_string().contains("no branch \"mian\""));
    }

    #[test]
    fn the_objects_hold_what_is_meant() {
        let plan = plan(repository().path(), &[]).expect("a plan");
        let source = plan.source(&json!({"a": "b"})).expect("json");
        assert_eq!(source["spec"]["ref"], json!({"branch": "work"}));
        assert_eq!(source["metadata"], json!({"name": "shop", "namespace": "gitops", "annotations": {"a": "b"}}));
        let applied = plan.kustomization(&json!({})).expect("json");
        assert_eq!(
            applied["spec"],
            json!({"interval": "1m", "path": "./deploy/dev", "prune": true, "wait": true, "timeout": "300s",
                "sourceRef": {"kind": "GitRepository", "name": "shop"}})
        );
        assert!(Cli::try_parse_from(["kedge", "up", "--timeout", "soon"]).is_err());
    }
}
