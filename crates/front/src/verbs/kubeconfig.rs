//! `kedge kubeconfig`: what kubectl, Helm and others need to reach the cluster.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::output;
use crate::session::Session;

/// Print the kubeconfig of the cluster on this machine, or add it to yours
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge kubeconfig > shop.kubeconfig
  kedge kubeconfig --merge && kubectl --context kedge get pods -A")]
pub struct Kubeconfig {
    /// Add it to the first file of $KUBECONFIG, or to ~/.kube/config, and make it the current context
    #[arg(long)]
    merge: bool,
}

impl Kubeconfig {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let own = session.layout.kubeconfig();
        let text = std::fs::read_to_string(&own)
            .with_context(|| format!("there is no {}; start the cluster with `kedge up`", own.display()))?;
        if !self.merge {
            output::text(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let target = session.merge_target()?;
        let before = match std::fs::read_to_string(&target) {
            Ok(text) => api::yaml::parse_one(&text).with_context(|| format!("cannot read {}", target.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", target.display())),
        };
        let merged = merge(before, api::yaml::parse_one(&text)?)?;
        write(&target, &api::yaml::to_string(&merged))?;
        let context = merged["current-context"].as_str().unwrap_or_default();
        output::line(&format!("{} has the context {context} now, and it is the current one", target.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Puts the entries of one file into another; those of the same name are replaced.
fn merge(before: Value, added: Value) -> anyhow::Result<Value> {
    let mut merged = if before.is_null() { json!({"apiVersion": "v1", "kind": "Config"}) } else { before };
    if !merged.is_object() {
        bail!("the file to merge into is not a kubeconfig");
    }
    for field in ["clusters", "users", "contexts"] {
        let mut entries = merged[field].as_array().cloned().unwrap_or_default();
        for entry in added[field].as_array().into_iter().flatten() {
            entries.retain(|old| old["name"] != entry["name"]);
            entries.push(entry.clone());
        }
        merged[field] = entries.into();
    }
    merged["current-context"] = added["current-context"].clone();
    Ok(merged)
}

/// Whole or not at all, and for nobody else to read: it holds a key.
fn write(target: &Path, text: &str) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", target.display());
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    // Through a link, so that the link stays.
    let target = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    let beside = target.with_extension("kedge-new");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .with_context(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(failed)?;
    std::fs::rename(&beside, &target).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn other_clusters_stay() {
        let before = json!({"apiVersion": "v1", "kind": "Config", "current-context": "work", "preferences": {"colors": true},
            "clusters": [{"name": "work"}, {"name": "kedge", "cluster": {"server": "old"}}], "contexts": [{"name": "work"}]});
        let added = json!({"current-context": "kedge", "clusters": [{"name": "kedge", "cluster": {"server": "new"}}],
            "users": [{"name": "kedge-admin"}], "contexts": [{"name": "kedge"}]});
        let merged = merge(before, added.clone()).expect("merged");
        assert_eq!(merged["clusters"], json!([{"name": "work"}, {"name": "kedge", "cluster": {"server": "new"}}]));
        assert_eq!(merged["current-context"], "kedge");
        assert_eq!(merged["preferences"], json!({"colors": true}));
        assert_eq!(merge(merged.clone(), added.clone()).expect("merged again"), merged);
        assert!(merge(json!("text"), added).is_err());
    }

    #[test]
    fn the_file_is_private() {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let target = directory.path().join(".kube/config");
        write(&target, "a: b\n").expect("written");
        assert_eq!(std::fs::metadata(&target).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path().join(".kube")).expect("listed").count(), 1);
    }
}
