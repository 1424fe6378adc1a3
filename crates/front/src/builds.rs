//! Building images into the store of the data directory, where the server finds them at once.

use base::layout::Layout;
use image::builder::{BuildError, BuildEvent, BuildRequest, BuildTools, NamespaceRunner, StepError, build};
use image::{ImageRecord, ImageStore, Reference, RegistryAuth};
use tokio::sync::mpsc;

/// Builds; `event` is told what happens.
pub async fn run(
    layout: &Layout,
    request: BuildRequest,
    mut event: impl FnMut(BuildEvent),
) -> anyhow::Result<ImageRecord> {
    let store = ImageStore::open(layout.images()).map_err(|error| {
        anyhow::Error::from(error).context("cannot open the image store; building needs root")
    })?;
    let (sender, mut events) = mpsc::channel(64);
    let work = tokio::task::spawn_blocking(move || {
        let handle = tokio::runtime::Handle::current();
        let fetching = store.clone();
        let fetch = |reference: &Reference| {
            let name = reference.to_string();
            handle.block_on(fetching.pull(&name, &RegistryAuth::Anonymous, |_| ())).map(drop)
        };
        // Whoever listens may be gone: the build goes on all the same.
        let mut progress = |event| drop(sender.blocking_send(event));
        let runner = NamespaceRunner { network: true };
        build(&store, &request, &mut BuildTools { runner: &runner, fetch: &fetch, progress: &mut progress })
    });
    while let Some(next) = events.recv().await {
        event(next);
    }
    work.await?.map_err(explain)
}

fn explain(error: BuildError) -> anyhow::Error {
    let hint = match &error {
        BuildError::Step { source: StepError::NoSource(name), .. } if name.starts_with("bin/") => {
            Some("the program has to be compiled first; see the README beside the Dockerfile")
        }
        BuildError::Step { source: StepError::Command { output, .. }, .. } if !output.is_empty() => {
            let output = output.trim_end().to_owned();
            return anyhow::Error::from(error)
                .context(format!("the build failed; its last words:\n{output}"));
        }
        BuildError::Read { path, .. } if path.ends_with("Dockerfile") => {
            Some("name another file with -f, or `dockerfile:` in kedge.yaml")
        }
        _ => None,
    };
    let error = anyhow::Error::from(error);
    match hint {
        Some(hint) => anyhow::anyhow!("{error:#}\n{hint}"),
        None => error,
    }
}
