//! What every verb starts from: which data directory, which cluster, which namespace.

use std::path::PathBuf;

use anyhow::{Context, bail};
use base::layout::Layout;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::cli::{Environment, Globals, layout};

#[derive(Debug)]
pub struct Session {
    pub layout: Layout,
    pub globals: Globals,
    pub environment: Environment,
}

/// A cluster and the namespace that is meant unless another is named.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
}

impl Session {
    pub fn new(globals: Globals, environment: Environment) -> Self {
        Self { layout: layout(&globals, &environment), globals, environment }
    }

    /// The cluster of the data directory, whatever else is configured.
    pub async fn own_cluster(&self) -> anyhow::Result<Cluster> {
        self.connect(Kubeconfig::read_from(self.layout.kubeconfig())?).await
    }

    /// The namespace that was named with `-n`.
    pub fn namespace_named(&self) -> Option<&str> {
        self.globals.namespace.as_deref()
    }

    /// The cluster that was asked for: by flag, by the environment, or the one on this machine.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        let files = self.kubeconfig_files();
        let mut merged: Option<Kubeconfig> = None;
        for file in files.iter().filter(|file| is_there(file)) {
            if let Err(error) = std::fs::File::open(file)
                && error.kind() == std::io::ErrorKind::PermissionDenied
            {
                bail!(
                    "{} belongs to another user; run as root, or name another with --kubeconfig",
                    file.display()
                );
            }
            let one =
                Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?;
            merged = Some(match merged {
                None => one,
                Some(before) => before.merge(one)?,
            });
        }
        let Some(config) = merged else {
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            bail!(
                "there is no cluster: {} does not exist\nstart one with `kedge up`, or name another with --kubeconfig or --data-dir",
                names.join(", ")
            );
        };
        self.connect(config).await
    }

    fn kubeconfig_files(&self) -> Vec<PathBuf> {
        let own = self.layout.kubeconfig();
        match (&self.globals.kubeconfig, &self.globals.data_dir, &self.environment.kubeconfig) {
            (Some(file), _, _) => vec![file.clone()],
            (None, None, Some(list)) if !list.is_empty() => std::env::split_paths(list).collect(),
            _ => vec![own],
        }
    }

    /// Where `kubeconfig --merge` writes: the first of `$KUBECONFIG`, else kubectl's own place.
    pub fn merge_target(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.globals.kubeconfig {
            return Ok(file.clone());
        }
        let listed = self.environment.kubeconfig.as_ref().and_then(|list| std::env::split_paths(list).next());
        match (listed.filter(|file| !file.as_os_str().is_empty()), &self.environment.home) {
            (Some(file), _) => Ok(file),
            (None, Some(home)) => Ok(home.join(".kube/config")),
            (None, None) => bail!("there is no home directory to merge into; name a file with --kubeconfig"),
        }
    }

    async fn connect(&self, config: Kubeconfig) -> anyhow::Result<Cluster> {
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let namespace = self.globals.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Cluster { client: Client::try_from(config)?, namespace })
    }
}

/// A file that may not be looked at is there all the same.
fn is_there(file: &std::path::Path) -> bool {
    !matches!(std::fs::metadata(file), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}
