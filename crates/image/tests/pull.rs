//! Pulling from a registry that speaks the protocol over real sockets, and every way in which that goes wrong.

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use image::{ImageError, PullPhase, RegistryAuth};
use parking_lot::Mutex;
use support::{Layer, Mounted, digest, store};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Path to media type and body.
type Pages = Arc<Mutex<HashMap<String, (String, Vec<u8>)>>>;

struct Registry {
    address: String,
    pages: Pages,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("address").to_string();
        let (pages, requests): (Pages, Arc<Mutex<Vec<String>>>) = Default::default();
        let (served, seen) = (pages.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, seen) = (served.clone(), seen.clone());
                std::thread::spawn(move || serve(stream, &served, &seen));
            }
        });
        Self { address, pages, requests }
    }

    fn add(&self, path: &str, media_type: &str, body: &[u8]) {
        self.pages.lock().insert(format!("/v2/{path}"), (media_type.to_owned(), body.to_owned()));
    }

    /// An image of one layer behind an index for several machines; returns the layer's digest.
    fn publish(&self, repository: &str, tag: &str) -> String {
        let layer = Layer::new().file("hello", "pulled").bytes();
        let config = serde_json::json!({
            "architecture": image::architecture(), "os": "linux", "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        })
        .to_string();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config.as_bytes()), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&layer), "size": layer.len()}],
        })
        .to_string();
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [
                {"mediaType": MANIFEST, "digest": digest(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "s390x"}},
                {"mediaType": MANIFEST, "digest": digest(manifest.as_bytes()), "size": manifest.len(),
                 "platform": {"os": "linux", "architecture": image::architecture()}},
            ],
        })
        .to_string();
        for (name, media_type, body) in [
            (tag, INDEX, &index),
            (&digest(index.as_bytes()), INDEX, &index),
            (&digest(manifest.as_bytes()), MANIFEST, &manifest),
        ] {
            self.add(&format!("{repository}/manifests/{name}"), media_type, body.as_bytes());
        }
        for blob in [config.as_bytes(), &layer] {
            self.add(&format!("{repository}/blobs/{}", digest(blob)), "application/octet-stream", blob);
        }
        digest(&layer)
    }
}

fn serve(stream: TcpStream, pages: &Pages, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut authorized = false;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            authorized |= header.to_lowercase().starts_with("authorization: basic");
            if header.trim().is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
        seen.lock().push(path.clone());
        let page = pages.lock().get(&path).cloned();
        let (status, media_type, body) = match page {
            _ if path.contains("/private/") && !authorized => (
                "401 Unauthorized",
                "application/json".into(),
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.to_vec(),
            ),
            Some((media_type, body)) => ("200 OK", media_type, body),
            None if path == "/v2/" => ("200 OK", "application/json".into(), b"{}".to_vec()),
            None => (
                "404 Not Found",
                "application/json".into(),
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec(),
            ),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = &stream;
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_image_is_pulled_once() {
    let registry = Registry::start();
    let layer = registry.publish("team/app", "1.0");
    let (_directory, store) = store();
    let reference = format!("{}/team/app:1.0", registry.address);
    let phases = Arc::new(Mutex::new(Vec::new()));
    let seen = phases.clone();
    let report = move |progress: image::PullProgress| seen.lock().push((progress.digest, progress.phase));
    let record = store.pull(&reference, &RegistryAuth::Anonymous, report).await.expect("pulled");
    assert_eq!(
        (record.tags.as_slice(), record.config.cmd.as_slice()),
        (&[reference.clone()][..], &["/hello".to_owned()][..])
    );
    assert!(
        record.digests[0].starts_with(&format!("{}/team/app@sha256:", registry.address)),
        "{:?}",
        record.digests
    );
    assert!(phases.lock().contains(&(layer.clone(), PullPhase::Downloaded)));
    assert_eq!(Mounted::new(&store, &record).text("hello"), "pulled");

    registry.requests.lock().clear();
    let again = store.pull(&reference, &RegistryAuth::Anonymous, |_| {}).await.expect("pulled again");
    assert_eq!(again, record);
    let requests = registry.requests.lock().clone();
    assert!(!requests.iter().any(|path| path.contains("/blobs/")), "{requests:?}");
    let by_digest =
        store.pull(&record.digests[0], &RegistryAuth::Anonymous, |_| {}).await.expect("by digest");
    assert_eq!(by_digest.id, record.id);
    assert_eq!(store.resolve(&record.digests[0]).expect("resolve").map(|found| found.id), Some(record.id));
}

#[tokio::test]
async fn failures_are_told_apart() {
    let registry = Registry::start();
    let (_directory, store) = store();
    let pull = async |reference: String, auth: RegistryAuth| store.pull(&reference, &auth, |_| {}).await;
    let missing = format!("{}/team/none:1", registry.address);
    let error = pull(missing.clone(), RegistryAuth::Anonymous).await.expect_err("missing");
    assert_eq!(error.to_string(), format!("failed to resolve reference {missing:?}: not found"));
    let error = pull("Not A Name".into(), RegistryAuth::Anonymous).await.expect_err("bad name");
    assert!(matches!(error, ImageError::InvalidReference { .. }), "{error}");
    let error = pull("127.0.0.1:1/x:1".into(), RegistryAuth::Anonymous).await.expect_err("nobody there");
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");

    // Not a registry: whatever listens on this machine is not asked for what was never built.
    let error = pull("localhost/shop:v9".into(), RegistryAuth::Anonymous).await.expect_err("never built");
    assert_eq!(
        error.to_string(),
        "failed to resolve reference \"localhost/shop:v9\": not found: images of localhost/ are built on this machine; build it \
         with `kedge build -t localhost/shop:v9 FOLDER`"
    );
    registry.add("team/page/manifests/1", "text/html", b"<html>a page</html>");
    let error = pull(format!("{}/team/page:1", registry.address), RegistryAuth::Anonymous).await;
    let error = error.expect_err("a page").to_string();
    assert!(error.contains(&format!("what {} sent is not a manifest", registry.address)), "{error}");

    registry.publish("private/app", "1");
    let private = format!("{}/private/app:1", registry.address);
    let error = pull(private.clone(), RegistryAuth::Anonymous).await.expect_err("private");
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");

    let layer = registry.publish("team/bad", "1");
    let size = registry.pages.lock()[&format!("/v2/team/bad/blobs/{layer}")].1.len();
    registry.add(&format!("team/bad/blobs/{layer}"), "application/octet-stream", &vec![b'x'; size]);
    let error =
        pull(format!("{}/team/bad:1", registry.address), RegistryAuth::Anonymous).await.expect_err("lie");
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
    assert_eq!(store.list().expect("list"), []);
}
