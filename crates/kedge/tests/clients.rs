//! Clients that are not ours, doing their everyday work against a real server: the Python and the JavaScript library, as
//! `cargo xtask test` installs them, and kube-rs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, AttachParams, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch,
    PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use testkit::Cluster;
use testkit::cluster::Ran;
use tokio::io::AsyncReadExt;

const LIMIT: Duration = Duration::from_secs(60);

/// The folder below the target directory where `cargo xtask test` puts the libraries of other languages.
fn libraries(name: &str) -> Option<PathBuf> {
    let place =
        Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().map(|folder| folder.join("clients").join(name));
    place.into_iter().find(|folder| folder.is_dir())
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn run(command: &mut Command) {
    let ran: Ran = command.output().expect("the script runs").into();
    println!("{}", ran.stdout);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn the_python_client_works() {
    let Some(folder) = libraries("python") else {
        eprintln!("PyPI's kubernetes is not installed, `cargo xtask test` does it: nothing was tried");
        return;
    };
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    run(Command::new(folder.join("bin/python")).arg(script("everyday.py")).arg(kubeconfig));
}

#[test]
fn the_javascript_client_works() {
    let Some(folder) = libraries("javascript") else {
        eprintln!(
            "npm's @kubernetes/client-node is not installed, `cargo xtask test` does it: nothing was tried"
        );
        return;
    };
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    run(Command::new("node").arg(script("everyday.mjs")).arg(kubeconfig).arg(folder));
}

#[test]
fn kube_rs_works() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let kubeconfig = cluster.data_dir().join("kubeconfig");
        tokio::time::timeout(LIMIT, everyday(&kubeconfig))
            .await
            .expect("in time")
            .expect("as kube-rs expects it");
    });
}

async fn everyday(kubeconfig: &Path) -> kube::Result<()> {
    // Whoever installed one before is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await.expect("a configuration");
    let client = Client::try_from(config)?;
    assert_eq!(client.apiserver_version().await?.major, "1");
    objects(&client).await?;
    watches(&client).await?;
    apply(&client).await?;
    pods(&client).await?;
    definitions(&client).await
}

fn map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<String, String> = data.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let mut map = ConfigMap { data: Some(data), ..Default::default() };
    map.metadata.name = Some(name.into());
    map
}

fn code(result: kube::Result<ConfigMap>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("{other:?}"),
    }
}

async fn objects(client: &Client) -> kube::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("rust".into());
    namespaces.create(&PostParams::default(), &namespace).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    let created = maps.create(&PostParams::default(), &map("a", &[("k", "1")])).await?;
    assert_eq!(code(maps.create(&PostParams::default(), &map("a", &[])).await), 409);
    assert_eq!(code(maps.get("none").await), 404);
    maps.replace("a", &PostParams::default(), &created).await?;
    let patch = json!({"data": {"k": "2"}});
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    assert_eq!(code(maps.replace("a", &PostParams::default(), &created).await), 409);
    assert_eq!(patched.data.and_then(|d| d.get("k").cloned()).as_deref(), Some("2"));
    for name in ["b", "c", "d"] {
        maps.create(&PostParams::default(), &map(name, &[])).await?;
    }
    let (mut names, mut params) = (Vec::new(), ListParams::default().limit(3));
    loop {
        let page = maps.list(&params).await?;
        names.extend(page.items.into_iter().filter_map(|m| m.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    names.retain(|name| name != "kube-root-ca.crt");
    assert_eq!(names, ["a", "b", "c", "d"]);
    let metadata = maps.list_metadata(&ListParams::default()).await?;
    assert!(metadata.items.iter().any(|m| m.metadata.name.as_deref() == Some("a")));
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().fields("metadata.name=d"))
        .await?;
    Ok(())
}

async fn watches(client: &Client) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    let version = maps.list(&ListParams::default()).await?.metadata.resource_version.expect("a version");
    maps.create(&PostParams::default(), &map("w", &[])).await?;
    maps.delete("w", &DeleteParams::default()).await?;
    let mut events = maps.watch(&WatchParams::default(), &version).await?.boxed();
    let Some(WatchEvent::Added(added)) = events.try_next().await? else { panic!("nothing was added") };
    let Some(WatchEvent::Deleted(_)) = events.try_next().await? else { panic!("nothing was deleted") };
    let version = added.metadata.resource_version.expect("a version");
    let mut resumed = maps.watch(&WatchParams::default(), &version).await?.boxed();
    let Some(WatchEvent::Deleted(_)) = resumed.try_next().await? else { panic!("it did not go on") };
    // A streamed list, as informers ask for it.
    let config = kube::runtime::watcher::Config::default().streaming_lists();
    let mut streamed = kube::runtime::watcher(maps, config).boxed();
    loop {
        match streamed.try_next().await {
            Ok(Some(kube::runtime::watcher::Event::InitDone)) => return Ok(()),
            Ok(Some(_)) => {}
            other => panic!("a streamed list ended with {other:?}"),
        }
    }
}

async fn apply(client: &Client) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    let one = PatchParams::apply("one");
    let first = maps.patch("ssa", &one, &Patch::Apply(&map("ssa", &[("a", "1"), ("b", "1")]))).await?;
    let again = maps.patch("ssa", &one, &Patch::Apply(&map("ssa", &[("a", "1"), ("b", "1")]))).await?;
    assert_eq!(first.metadata.resource_version, again.metadata.resource_version);
    let wanted = map("ssa", &[("a", "2")]);
    assert_eq!(code(maps.patch("ssa", &PatchParams::apply("two"), &Patch::Apply(&wanted)).await), 409);
    maps.patch("ssa", &PatchParams::apply("two").force(), &Patch::Apply(&wanted)).await?;
    let left = maps.patch("ssa", &one, &Patch::Apply(&map("ssa", &[]))).await?;
    assert_eq!(left.data, wanted.data);
    Ok(())
}

async fn pods(client: &Client) -> kube::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "rust");
    let command = "mkdir /w; echo page > /w/index.html; echo begun; exec httpd -f -p 8080 -h /w";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": "localhost/busybox:1", "command": ["sh", "-c", command]}]}});
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams::default(), &pod).await?;
    let running = kube::runtime::conditions::is_pod_running();
    kube::runtime::wait::await_condition(pods.clone(), "p", running).await.expect("it runs");
    let params = AttachParams::default().stderr(false);
    let mut process = pods.exec("p", ["echo", "inside"], &params).await?;
    let mut out = String::new();
    process.stdout().expect("an output").read_to_string(&mut out).await.expect("text");
    assert_eq!(out, "inside\n");
    let mut lines = pods.log_stream("p", &LogParams { follow: true, ..Default::default() }).await?.lines();
    assert_eq!(lines.try_next().await.expect("a line").as_deref(), Some("begun"));
    let mut forward = pods.portforward("p", &[8080]).await?;
    let mut stream = forward.take_stream(8080).expect("a stream");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.ends_with("page\n"), "{answer}");
    pods.delete("p", &DeleteParams::default()).await?;
    Ok(())
}

async fn definitions(client: &Client) -> kube::Result<()> {
    let size = json!({"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": size}}});
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "widgets.rust.example.com"},
        "spec": {"group": "rust.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}
    }))
    .expect("a definition");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition).await?;
    let established = kube::runtime::conditions::is_crd_established();
    let name = "widgets.rust.example.com";
    kube::runtime::wait::await_condition(definitions, name, established).await.expect("it is served");
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("rust.example.com", "v1", "Widget"));
    let widgets: Api<DynamicObject> = Api::namespaced_with(client.clone(), "rust", &kind);
    let widget =
        |name: &str, size: i64| DynamicObject::new(name, &kind).data(json!({"spec": {"size": size}}));
    widgets.create(&PostParams::default(), &widget("w", 2)).await?;
    let refused = widgets.create(&PostParams::default(), &widget("x", 0)).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422), "{refused:?}");
    let all: Vec<Value> =
        widgets.list(&ListParams::default()).await?.items.into_iter().map(|w| w.data).collect();
    assert_eq!(all, [json!({"spec": {"size": 2}})]);
    Ok(())
}
