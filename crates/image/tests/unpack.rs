//! Layers come out as images mean them, and nothing gets out of them that should not.

mod support;

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use image::ImageError;
use support::{Layer, Mounted, digest, docker_archive, import, store};

#[test]
fn later_layers_hide_and_replace() {
    let (directory, store) = store();
    let below = Layer::new()
        .dir("d/", 0o755, (0, 0))
        .file("d/gone", "x")
        .file("d/kept", "old")
        .dir("o/", 0o755, (0, 0))
        .file("o/a", "x")
        .dir("o/sub/", 0o755, (0, 0))
        .file("o/sub/b", "x")
        .dir("r/", 0o755, (0, 0))
        .file("r/in", "x")
        .file("f", "file");
    let above = Layer::new()
        .file("d/.wh.gone", "")
        .file("d/kept", "new")
        .file("o/mine", "m")
        .file("o/.wh..wh..opq", "")
        .file("r/.wh.in", "")
        .file("r/in", "again")
        .file("r/.wh.in", "")
        .file(".wh.f", "")
        .file(".wh..wh.plnk", "ignored");
    let record = import(directory.path(), &store, vec![below, above]).expect("imported");
    let root = Mounted::new(&store, &record);
    assert_eq!(root.list("d"), ["kept"]);
    assert_eq!(root.text("d/kept"), "new");
    assert_eq!(root.list("o"), ["mine"]);
    assert_eq!(root.text("r/in"), "again", "a whiteout speaks of lower layers only");
    assert_eq!(root.list("."), ["d", "o", "r"]);
    assert_eq!(
        (record.config.entrypoint.as_slice(), record.config.user.as_str()),
        (&["/entry".to_owned()][..], "5")
    );
    assert_eq!(
        (record.tags.as_slice(), record.config.stop_signal.as_deref()),
        (&["docker.io/library/test:1".to_owned()][..], Some("SIGINT"))
    );
}

#[test]
fn what_a_layer_leaves_unsaid_is_as_it_was() {
    let (directory, store) = store();
    let below = Layer::new()
        .dir("private/", 0o700, (5, 6))
        .dir("usr/", 0o755, (0, 0))
        .dir("usr/lib/", 0o755, (0, 0))
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .file("one", "shared");
    let above = Layer::new()
        .file_of("private/new", b"x", 0o4755, (7, 8))
        .file("lib/through", "x")
        .file("abs/too", "x")
        .hardlink("two", "one")
        .file("three", "own")
        .hardlink("four", "three")
        .file("deep/er/file", "x");
    let record = import(directory.path(), &store, vec![below, above]).expect("imported");
    let root = Mounted::new(&store, &record);
    let about = |path: &str| {
        let metadata = root.path(path).symlink_metadata().expect(path);
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime())
    };
    let (mode, uid, gid, _) = about("private");
    assert_eq!((mode, uid, gid), (0o700, 5, 6));
    assert_eq!(about("private/new"), (0o4755, 7, 8, 1_600_000_000));
    assert_eq!(root.list("usr/lib"), ["through", "too"]);
    assert!(root.path("lib").symlink_metadata().expect("lib").is_symlink());
    assert_eq!(root.text("two"), "shared");
    let inode = |path: &str| root.path(path).metadata().expect(path).ino();
    assert_eq!(inode("three"), inode("four"));
    assert_eq!(about("deep/er").0, 0o755);
}

#[test]
fn attributes_and_capabilities_come_along() {
    let (directory, store) = store();
    // Version 2, effective, CAP_NET_BIND_SERVICE.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::new()
        .xattr("security.capability", &capability)
        .file_of("tool", b"x", 0o755, (3, 3))
        .xattr("trusted.overlay.redirect", b"/etc")
        .dir("sly/", 0o755, (0, 0))
        .device("null", 1, 3);
    let record = import(directory.path(), &store, vec![layer]).expect("imported");
    let root = Mounted::new(&store, &record);
    let mut value = [0u8; 64];
    let length =
        rustix::fs::lgetxattr(root.path("tool"), "security.capability", &mut value[..]).expect("kept");
    assert_eq!(value[..length], capability);
    let snapshot = store.prepare(&record, "c").expect("a root").lower[0].join("sly");
    assert!(
        rustix::fs::lgetxattr(snapshot, "trusted.overlay.redirect", &mut value[..]).is_err(),
        "never from an image"
    );
    assert_eq!(root.path("null").metadata().expect("null").rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn nothing_leaves_the_root() {
    let outside = tempfile::tempdir().expect("a directory");
    let target = outside.path().to_string_lossy().into_owned();
    let (directory, store) = store();
    let error =
        import(directory.path(), &store, vec![Layer::new().file("../evil", "x")]).expect_err("refused");
    assert!(error.to_string().contains("leaves the root"), "{error}");
    let error = import(directory.path(), &store, vec![Layer::new().hardlink("h", "../../etc/passwd")])
        .expect_err("refused");
    assert!(error.to_string().contains("leaves the root"), "{error}");
    let error = import(directory.path(), &store, vec![Layer::new().device("d", 0, 0)]).expect_err("refused");
    assert!(error.to_string().contains("device 0/0 is refused"), "{error}");
    let layer = Layer::new().symlink("out", &target).symlink("up", "../../..").file("up/tmp-x", "in");
    let record = import(
        directory.path(),
        &store,
        vec![layer, Layer::new().dir(&target[1..], 0o755, (0, 0)).file("out/f", "in")],
    )
    .expect("imported");
    assert_eq!(std::fs::read_dir(outside.path()).expect("list").count(), 0);
    let root = Mounted::new(&store, &record);
    assert_eq!(
        (root.text(&format!("{}/f", &target[1..])).as_str(), root.text("tmp-x").as_str()),
        ("in", "in")
    );
    assert!(store.content_is_tidy(), "failed imports leave nothing unfinished");
}

trait Tidy {
    fn content_is_tidy(&self) -> bool;
}

impl Tidy for image::ImageStore {
    fn content_is_tidy(&self) -> bool {
        let listed = self.list().expect("list");
        let directory = self.prepare(&listed[0], "tidy").expect("a root").upper;
        let ingest = directory.ancestors().nth(3).expect("the store").join("ingest");
        std::fs::read_dir(ingest).expect("list").next().is_none()
    }
}

#[test]
fn every_compression_and_no_lie_about_the_content() {
    let (directory, store) = store();
    let plain = Layer::new().file("f", &"text ".repeat(50_000)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("compress");
    let gzip = gzip.finish().expect("compress");
    let zstd = ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
    for stored in [plain.clone(), gzip.clone(), zstd] {
        let (directory, store) = support::store();
        let archive = docker_archive(directory.path(), "x", &[(stored, plain.clone())]);
        let record = store.import_tar(&archive).expect("imported").remove(0);
        assert_eq!(record.diff_ids, [digest(&plain)]);
        assert_eq!(Mounted::new(&store, &record).text("f").len(), 250_000);
    }
    let other = Layer::new().file("f", "other").bytes();
    let error =
        store.import_tar(&docker_archive(directory.path(), "x", &[(gzip, other)])).expect_err("refused");
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
    assert_eq!(store.list().expect("list"), []);
}

#[test]
fn layers_are_shared_and_collected_when_nobody_needs_them() {
    let (directory, store) = store();
    let common = || Layer::new().file("common", "x");
    let one =
        import(directory.path(), &store, vec![common(), Layer::new().file("one", "1")]).expect("imported");
    store.tag("test:1", "first:1").expect("tag");
    let two =
        import(directory.path(), &store, vec![common(), Layer::new().file("two", "2")]).expect("imported");
    let snapshots = directory.path().join("images/snapshots");
    let count = || std::fs::read_dir(&snapshots).expect("list").count();
    assert_eq!(count(), 3);
    assert_eq!(store.resolve("first:1").expect("resolve").map(|r| r.id), Some(one.id.clone()));
    assert_eq!(
        store.resolve(&two.id).expect("resolve").map(|r| r.tags),
        Some(vec!["docker.io/library/test:1".to_owned()])
    );
    let root = store.prepare(&one, "c").expect("a root");
    assert!(store.remove("first:1").expect("remove"));
    assert!(!store.remove("first:1").expect("remove again"));
    assert_eq!(count(), 3, "a container still needs it");
    assert!(root.lower.iter().all(|layer| layer.is_dir()));
    store.release("c").expect("release");
    store.release("c").expect("release twice");
    assert_eq!(store.collect().expect("collect").snapshots, 1);
    assert!(store.remove(&two.id).expect("remove by id"));
    assert_eq!((count(), store.list().expect("list").len()), (0, 0));
    assert!(store.resolve("Bad Name").is_err());
    let again = image::ImageStore::open(directory.path().join("images")).expect("reopened");
    assert_eq!(again.resolve("test:1").expect("resolve"), None);
}

#[test]
fn a_directory_becomes_an_image() {
    let (directory, store) = store();
    let root = directory.path().join("root");
    std::fs::create_dir_all(root.join("bin")).expect("directory");
    std::fs::write(root.join("bin/app"), "app").expect("file");
    let settings = image::Settings { cmd: vec!["/bin/app".into()], ..Default::default() };
    let record = store.import_rootfs_dir(&root, "app", settings.clone()).expect("imported");
    assert_eq!(record.config, settings);
    assert_eq!(
        store.import_rootfs_dir(&root, "app", settings).expect("again").id,
        record.id,
        "the same bytes"
    );
    assert_eq!(Mounted::new(&store, &record).text("bin/app"), "app");
}
