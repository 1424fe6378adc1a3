//! `kedge apply`: manifests into the cluster by server-side apply.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use gitops::kustomize::{self, Overrides};
use kube::Client;
use serde_json::Value;

use crate::discovery::{Discovery, Resource};
use crate::session::{Cluster, Session};
use crate::{kustomization, output, requests};

/// Create or change objects from files, by server-side apply
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge apply -f deployment.yaml
  kedge apply -f manifests/ -n shop
  kedge apply -k deploy/overlays/dev
  cat job.yaml | kedge apply -f -")]
pub struct Apply {
    #[command(flatten)]
    from: Manifests,
    /// Take over fields that another manager owns
    #[arg(long)]
    force_conflicts: bool,
}

/// Where manifests come from; shared with `delete`.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = true)]
pub struct Manifests {
    /// A file, a folder, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A folder with a kustomization.yaml
    #[arg(short = 'k', long = "kustomize", value_name = "FOLDER", conflicts_with = "files")]
    pub folder: Option<PathBuf>,
}

impl Manifests {
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.folder.is_none()
    }

    /// Objects, each with the file that it is from.
    pub fn read(&self) -> anyhow::Result<Vec<(Value, String)>> {
        let mut objects = Vec::new();
        if let Some(folder) = &self.folder {
            objects.extend(kustomized(folder)?);
        }
        for file in &self.files {
            if file.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
                objects.extend(parse(&text, "standard input")?);
            } else if file.is_dir() {
                for path in manifests_in(file)? {
                    objects.extend(read_file(&path)?);
                }
            } else {
                objects.extend(read_file(file)?);
            }
        }
        if objects.is_empty() {
            bail!("there is no object in what was named; give a file with -f or a folder with -k");
        }
        Ok(objects)
    }
}

fn read_file(path: &Path) -> anyhow::Result<Vec<(Value, String)>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, &path.display().to_string())
}

fn manifests_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let is_manifest =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_manifest).collect();
    paths.sort();
    Ok(paths)
}

fn parse(text: &str, origin: &str) -> anyhow::Result<Vec<(Value, String)>> {
    let documents = api::yaml::parse_documents_strict(text).with_context(|| format!("cannot read {origin}"))?;
    let mut objects = Vec::new();
    for document in documents {
        let is_list = document.value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match document.value.get("items").and_then(Value::as_array) {
            Some(items) if is_list => objects.extend(items.iter().cloned()),
            _ => objects.push(document.value),
        }
    }
    for object in &objects {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if object["kind"].as_str().is_none() || object["apiVersion"].as_str().is_none() || name.is_empty() {
            bail!("{origin}: an object needs apiVersion, kind and metadata.name");
        }
    }
    Ok(objects.into_iter().map(|object| (object, origin.to_owned())).collect())
}

fn kustomized(folder: &Path) -> anyhow::Result<Vec<(Value, String)>> {
    let folder = std::fs::canonicalize(folder).with_context(|| format!("there is no folder {}", folder.display()))?;
    let files = kustomization::files(&folder)?;
    let below = folder.strip_prefix(&files.top)?.to_string_lossy().into_owned();
    Ok(kustomize::build_from(&files.files, &below, &Overrides::default())?)
}

impl Apply {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let objects = self.from.read()?;
        let cluster = session.cluster().await?;
        let mut discovery = Discovery::read(&cluster.client).await?;
        let mut failed = false;
        for (object, origin) in &objects {
            match self.one(&cluster, &mut discovery, object).await {
                Ok(line) => output::line(&line)?,
                Err(error) => {
                    failed = true;
                    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                    let from = if origin.is_empty() { String::new() } else { format!("{origin}: ") };
                    eprintln!("error: {from}{}/{}: {error:#}", text("/kind"), text("/metadata/name"));
                }
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn one(&self, cluster: &Cluster, discovery: &mut Discovery, object: &Value) -> anyhow::Result<String> {
        let resource = resource_of(&cluster.client, discovery, object).await?;
        let path = path_of(cluster, &resource, object);
        let before = settled(&cluster.client, &path, &resource.label()).await?;
        let after = requests::apply(&cluster.client, &path, object, self.force_conflicts).await?;
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let how = match before {
            None => "created",
            Some(before) if version(&before) == version(&after) => "unchanged",
            Some(_) => "configured",
        };
        Ok(format!("{}/{} {how}", resource.label(), object["metadata"]["name"].as_str().unwrap_or_default()))
    }
}

/// How long an object of before that is being deleted is waited for.
const GOES: Duration = Duration::from_secs(60);

/// An object as it is, once it is not about to go any more: what is applied to one that goes is gone with it, and nothing can
/// be made in such a namespace.
async fn settled(client: &Client, path: &str, label: &str) -> anyhow::Result<Option<Value>> {
    let deadline = Instant::now() + GOES;
    let mut is_told = false;
    loop {
        let found = requests::get_optional(client, path).await?;
        let Some(object) = found.as_ref().filter(|object| !object["metadata"]["deletionTimestamp"].is_null()) else {
            return Ok(found);
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if Instant::now() > deadline {
            bail!(
                "the one of before is still being deleted after {} s; see what holds it, as its finalizers: kedge get {label} {name} -o yaml",
                GOES.as_secs()
            );
        }
        if !is_told {
            eprintln!("{label}/{name} is being deleted; it is applied when it is gone");
            is_told = true;
        }
        tokio::time::sleep(RETRY).await;
    }
}

pub fn path_of(cluster: &Cluster, resource: &Resource, object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or(&cluster.namespace);
    requests::path(resource, Some(namespace), text("/metadata/name"))
}

/// A kind whose definition was applied just now is served in a moment.
const NEW_KIND: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

async fn resource_of(client: &Client, discovery: &mut Discovery, object: &Value) -> anyhow::Result<Resource> {
    let custom = object["apiVersion"].as_str().is_some_and(|version| version.contains('.'));
    let deadline = Instant::now() + if custom { NEW_KIND } else { Duration::ZERO };
    loop {
        match discovery.of(object) {
            Ok(resource) => return Ok(resource.clone()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                *discovery = Discovery::read(client).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn manifests_are_read_from_files_and_folders() {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let object = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n");
        fs::write(directory.path().join("b.yaml"), format!("{}---\n{}", object("b"), object("c"))).expect("a file");
        let list = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}]}"#;
        fs::write(directory.path().join("a.json"), list).expect("a file");
        fs::write(directory.path().join("notes.txt"), "not a manifest").expect("a file");
        let names = |manifests: Manifests| -> Vec<String> {
            let objects = manifests.read().expect("read");
            objects.iter().map(|(o, _)| o["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let folder = directory.path().to_owned();
        assert_eq!(names(Manifests { files: vec![folder.clone()], folder: None }), ["a", "b", "c"]);

        fs::create_dir_all(folder.join("overlay")).expect("a folder");
        fs::write(folder.join("kustomization.yaml"), "resources: [b.yaml]\n").expect("a file");
        let overlay = "resources: [..]\nnamePrefix: dev-\n";
        fs::write(folder.join("overlay/kustomization.yaml"), overlay).expect("a file");
        assert_eq!(names(Manifests { files: vec![], folder: Some(folder.join("overlay")) }), ["dev-b", "dev-c"]);

        fs::write(folder.join("d.yaml"), "kind: ConfigMap\n").expect("a file");
        let error = Manifests { files: vec![folder.join("d.yaml")], folder: None }.read().expect_err("refused");
        assert!(error.to_string().contains("an object needs apiVersion"), "{error}");
    }
}
