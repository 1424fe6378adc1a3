//! Volumes written to real folders, from objects in memory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::payload::{FileContent, Payload};
use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("in range")
}

fn payload(files: &[(&str, &str)]) -> Payload {
    let content = |text: &str| FileContent { bytes: text.into(), mode: 0o640 };
    files.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect()
}

#[test]
fn payloads_appear_and_change_as_a_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("v");
    assert!(payload::write(&path, &payload(&[("a", "1"), ("d/b", "2")]), None, now()).expect("writes"));
    assert!(!payload::write(&path, &payload(&[("a", "1"), ("d/b", "2")]), None, now()).expect("knows"));
    assert_eq!(fs::read_to_string(path.join("d/b")).expect("reads"), "2");
    assert_eq!(fs::metadata(path.join("a")).expect("is there").permissions().mode() & 0o777, 0o640);
    let before = fs::read_link(path.join("..data")).expect("a link");
    assert!(payload::write(&path, &payload(&[("a", "3")]), None, now()).expect("writes"));
    assert_eq!(fs::read_to_string(path.join("a")).expect("reads"), "3");
    assert!(fs::symlink_metadata(path.join("d")).is_err() && !path.join(before).exists());
    for bad in ["../x", "/x", "..x", "a/../b"] {
        assert!(payload::write(&path, &payload(&[(bad, "")]), None, now()).is_err(), "{bad}");
    }
}

/// A context whose API server is nowhere: none of these kinds asks it.
fn with_context(directory: &Path, pod: &Pod, objects: &Objects, check: impl FnOnce(&VolumeContext<'_>)) {
    let nowhere = tower_nowhere();
    let (fields, tokens) =
        (FieldContext { pod_ip: "10.42.0.2".into(), ..FieldContext::default() }, TokenCache::default());
    let context = VolumeContext {
        pod,
        objects,
        fields: &fields,
        client: &nowhere,
        tokens: &tokens,
        directory: directory.to_owned(),
        fs_group: Some(1234),
        now: now(),
    };
    check(&context);
}

fn tower_nowhere() -> Client {
    let config = kube::Config::new(http::Uri::from_static("http://127.0.0.1:1"));
    Client::try_from(config).expect("a client")
}

#[tokio::test]
async fn kinds_are_prepared_and_released() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("volumes");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
        "spec": {"containers": [], "volumes": [
            {"name": "e", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "h", "hostPath": {"path": directory.path().join("host"), "type": "DirectoryOrCreate"}},
            {"name": "c", "configMap": {"name": "cm", "items": [{"key": "k", "path": "sub/file", "mode": 256}]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "cm"}}, {"secret": {"name": "gone", "optional": true}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
        ]},
    }))
    .expect("a pod");
    let mut objects = Objects::new("ns");
    objects.add_config_map(
        "cm",
        serde_json::from_value(json!({"data": {"k": "v"}, "binaryData": {"b": "AAE="}})).ok(),
    );
    let mut ready = BTreeMap::new();
    with_context(&root, &pod, &objects, |context| {
        ready = futures::executor::block_on(prepare_all(context)).expect("all are prepared");
    });
    let read = |volume: &str, file: &str| fs::read(ready[volume].host_path.join(file)).expect("reads");
    assert_eq!(read("c", "sub/file"), b"v");
    assert_eq!(fs::metadata(ready["c"].host_path.join("sub/file")).expect("is there").mode() & 0o777, 0o440);
    assert_eq!(
        (read("all", "k"), read("all", "b"), read("all", "labels")),
        (b"v".to_vec(), vec![0, 1], b"app=\"web\"".to_vec())
    );
    let empty = fs::metadata(&ready["e"].host_path).expect("is there");
    assert_eq!((empty.gid(), empty.mode() & 0o7777), (1234, 0o2777));
    assert!(ready["c"].readonly && !ready["h"].readonly && ready["h"].host_path.is_dir());
    // In memory is what asked for it, and what may be secret: once, however often it is looked at, and anew after the machine
    // was down.
    let mounted = |volume: &str| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reads");
        mounts.matches(&format!(" {} ", ready[volume].host_path.display())).count()
    };
    let again = || {
        with_context(&root, &pod, &objects, |context| {
            futures::executor::block_on(prepare_all(context)).expect("all are prepared");
        });
    };
    again();
    assert_eq!(["m", "all", "c", "e"].map(mounted), [1, 1, 0, 0]);
    for volume in ["m", "all"] {
        let flags = rustix::mount::UnmountFlags::empty();
        rustix::mount::unmount(&ready[volume].host_path, flags).expect("unmounted");
    }
    assert!(fs::read_dir(&ready["all"].host_path).expect("a folder").next().is_none(), "it is on disk");
    again();
    assert_eq!((["m", "all"].map(mounted), read("all", "k")), ([1, 1], b"v".to_vec()));
    let memory = fs::metadata(&ready["m"].host_path).expect("is there");
    assert_eq!((memory.gid(), memory.mode() & 0o7777), (1234, 0o2777));
    release_all(&root).expect("all are released");
    assert!(!root.exists());
}

#[tokio::test]
async fn failures_are_worded_as_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let cases = [
        (json!({"name": "v", "configMap": {"name": "x"}}), "configmap \"x\" not found"),
        (json!({"name": "v", "secret": {"secretName": "x"}}), "secret \"x\" not found"),
        (
            json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
            "configmap references non-existent config key: z",
        ),
        (
            json!({"name": "v", "hostPath": {"path": "/etc/hostname", "type": "Directory"}}),
            "hostPath type check failed: /etc/hostname is not a directory",
        ),
    ];
    let mut objects = Objects::new("ns");
    objects.add_config_map("cm", Some(Default::default()));
    for (volume, message) in cases {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "volumes": [volume]}})).expect("a pod");
        with_context(directory.path(), &pod, &objects, |context| {
            let error = futures::executor::block_on(prepare_all(context)).expect_err("fails");
            let expected = format!("MountVolume.SetUp failed for volume \"v\" : {message}");
            assert_eq!(error.to_string(), expected);
        });
    }
}

#[test]
fn sub_paths_stay_inside_their_volume() {
    let directory = tempfile::tempdir().expect("a directory");
    let volume = directory.path().join("v");
    fs::create_dir(&volume).expect("creates");
    std::os::unix::fs::symlink("/etc", volume.join("out")).expect("links");
    let prepared =
        BTreeMap::from([("v".to_owned(), Prepared { host_path: volume.clone(), readonly: false })]);
    let mount = |fields: serde_json::Value| {
        let mut mount = json!({"name": "v", "mountPath": "/data"});
        mount.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let container =
            serde_json::from_value(json!({"name": "c", "volumeMounts": [mount]})).expect("a container");
        mounts::mounts(&container, &prepared, &[("NAME".into(), "x".into())])
            .map(|mounts| mounts[0].host_path.clone())
    };
    let root = fs::canonicalize(&volume).expect("resolves");
    assert_eq!(mount(json!({"subPath": "a/b"})).expect("made"), root.join("a/b"));
    assert_eq!(mount(json!({"subPathExpr": "e-$(NAME)"})).expect("made"), root.join("e-x"));
    for bad in ["../x", "out", "out/passwd", "/etc"] {
        assert!(mount(json!({"subPath": bad})).is_err(), "{bad}");
    }
}
