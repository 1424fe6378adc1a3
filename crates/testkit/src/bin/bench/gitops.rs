//! From a commit to its objects applied and its pods ready.

use std::path::Path;
use std::time::Duration;

use testkit::{Cluster, Repository, until};

use crate::api::{runtime, watch_until};
use crate::{Row, percentile};
use testkit::api::Api;

const ROUNDS: usize = 7;
const LIMIT: Duration = Duration::from_secs(60);

fn manifest(color: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: \
         {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      - name: c\n        image: localhost/busybox:1\n        command: [sleep, '1000']\n        \
         env: [{{name: COLOR, value: '{color}'}}]\n"
    )
}

pub fn run(executable: &Path) -> Vec<Row> {
    let cluster = Cluster::start(executable);
    cluster.busybox();
    let repository = Repository::new(cluster.folder().join("repo"));
    repository
        .write("app.yaml", &manifest(0))
        .write("kustomization.yaml", "namespace: default\nresources: [app.yaml]\n");
    repository.commit("first");
    let objects = format!(
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: app, namespace: default}}\nspec: {{url: {}, interval: 1m, ref: {{branch: main}}}}\n---\n\
         apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: app, namespace: default}}\nspec: {{interval: 1m, path: ., prune: true, wait: true, sourceRef: \
         {{kind: GitRepository, name: app}}}}\n",
        repository.path().display()
    );
    until("the objects are taken", LIMIT, || {
        let ran = cluster.apply(&objects);
        if ran.code == Some(0) { Ok(()) } else { Err(ran) }
    });
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let (mut applied, mut ready) = (Vec::new(), Vec::new());
    let runtime = runtime();
    for round in 1..=ROUNDS {
        for (times, field) in [(&mut applied, "lastAttemptedRevision"), (&mut ready, "lastAppliedRevision")] {
            let color = round * 2 + usize::from(field == "lastAppliedRevision");
            repository.write("app.yaml", &manifest(color));
            let path = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/default/kustomizations?watch=true&resourceVersion=0";
            let commit = std::sync::Mutex::new(String::new());
            let took = runtime.block_on(watch_until(
                &api,
                path,
                async |_| *commit.lock().expect("not poisoned") = repository.commit("next"),
                |event| {
                    let commit = commit.lock().expect("not poisoned");
                    !commit.is_empty()
                        && event["object"]["status"][field]
                            .as_str()
                            .is_some_and(|r| r.ends_with(commit.as_str()))
                },
            ));
            times.push(took.as_secs_f64() * 1000.0);
            // Until the round has come to its end.
            let last = commit.into_inner().expect("not poisoned");
            until("the commit is ready", LIMIT, || {
                let object = cluster.get("kustomization", "default", "app")?;
                let revision =
                    object["status"]["lastAppliedRevision"].as_str().unwrap_or_default().to_owned();
                if revision.ends_with(&last) { Ok(()) } else { Err(revision) }
            });
        }
    }
    let shown = |times: &mut Vec<f64>| format!("p50 {:.0} ms", percentile(times, 0.5));
    vec![
        Row::new("git commit → applied (commit's own time included)", shown(&mut applied), "", ""),
        Row::new("git commit → 2 replicas rolled and Ready", shown(&mut ready), "", ""),
    ]
}
