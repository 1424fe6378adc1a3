//! Taking a cluster down to the last trace, also after a crash: processes, mounts, namespaces, cgroups, files.

use anyhow::{Context, bail};
use base::layout::Layout;
use net::namespace::Namespace;

/// Ends every container and shim and takes the network away; the data stays.
pub fn stop_containers(layout: &Layout) -> anyhow::Result<()> {
    container::own::purge(&layout.cgroup_prefix(), &[&layout.containers(), &layout.images(), &layout.node()])
        .context(
            "cannot end all containers; run `kedge down` again, and see which process is stuck with `ps`",
        )?;
    if let Err(error) = container::own::record_killed(&layout.containers()) {
        // They have ended all the same: a full disk must not keep anybody from that.
        base::tell!("cannot write down which containers were killed: {error}");
    }
    Namespace::purge(&layout.namespaces()).context("cannot remove the cluster's network namespaces")?;
    remove(&layout.runtime_dir())?;
    Ok(())
}

/// The same, and deletes what the cluster has made below the data directory; what else lies there stays.
pub fn purge(layout: &Layout) -> anyhow::Result<()> {
    let data_dir = layout.data_dir();
    if !data_dir.exists() {
        return stop_containers(layout);
    }
    if !layout.lock().exists() || !layout.pki().is_dir() {
        bail!("{} does not look like a cluster's data directory; nothing was deleted", data_dir.display());
    }
    stop_containers(layout)?;
    let entries = layout.entries().with_context(|| format!("cannot read {}", data_dir.display()))?;
    let (own, strangers) = entries;
    own.iter().try_for_each(|entry| remove(entry))?;
    match strangers.first() {
        Some(stranger) => {
            let (folder, stranger) = (data_dir.display(), stranger.display());
            base::tell!("{folder} stays: it holds {stranger}, which no cluster has made");
            Ok(())
        }
        None => remove(data_dir),
    }
}

fn remove(path: &std::path::Path) -> anyhow::Result<()> {
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}
