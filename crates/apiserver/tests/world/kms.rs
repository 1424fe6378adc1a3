//! A holder of keys: a KMS plugin (version 2) on a real Unix socket, which does as the test says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::cipher::Settings;
use apiserver::cipher::kms::Times;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// What it says, and what it was asked.
pub struct Says {
    pub key_id: &'static str,
    /// With which it seals, if that is another one.
    pub seals_with: Option<&'static str>,
    pub healthz: &'static str,
    pub version: &'static str,
    pub hangs: bool,
    /// Opens nothing.
    pub refuses: bool,
    pub sealed: usize,
    pub opened: usize,
}

pub struct Plugin {
    folder: tempfile::TempDir,
    pub says: Arc<Mutex<Says>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

/// Of each message, what is needed: bytes, and on the way back the key and what it wants to be told again.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Sealed {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

/// So often and so long that a test sees it all in a moment.
pub const QUICK: Times = Times {
    poll_well: Duration::from_millis(20),
    poll_ill: Duration::from_millis(20),
    write_after: Duration::from_secs(180),
    remember_well: Duration::ZERO,
    remember_ill: Duration::ZERO,
};

impl Plugin {
    /// One that does not serve yet.
    pub fn new() -> Self {
        let says = Says {
            key_id: "key-1",
            seals_with: None,
            healthz: "ok",
            version: "v2",
            hangs: false,
            refuses: false,
            sealed: 0,
            opened: 0,
        };
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, says: Arc::new(Mutex::new(says)), serving: None }
    }

    pub fn started() -> Self {
        let mut plugin = Self::new();
        plugin.start();
        plugin
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("kms.sock")
    }

    /// As it stands in a configuration.
    pub fn provider(&self) -> String {
        let socket = self.socket();
        format!(
            "{{kms: {{apiVersion: v2, name: mine, endpoint: 'unix://{}', timeout: 300ms}}}}",
            socket.display()
        )
    }

    /// The same for tests in which it always answers, however busy the machine is.
    pub fn patient_provider(&self) -> String {
        self.provider().replace("300ms", "15s")
    }

    /// A configuration in which these providers see to Secrets.
    pub fn settings(&self, providers: &str, times: Times) -> Settings {
        let file = self.folder.path().join("encryption.yaml");
        std::fs::write(&file, configuration(providers)).expect("writes");
        Settings { configuration_file: Some(file), reload: false, kms: times }
    }

    pub fn start(&mut self) {
        let listener = UnixListener::bind(self.socket()).expect("a socket");
        let says = Arc::clone(&self.says);
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let says = Arc::clone(&says);
                let service = hyper::service::service_fn(move |request| answer(Arc::clone(&says), request));
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { served.await.ok() });
            }
        }));
    }

    /// Ends it with all its connections.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            serving.await.expect_err("aborted");
        }
        std::fs::remove_file(self.socket()).expect("the socket goes");
    }
}

pub fn configuration(providers: &str) -> String {
    format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets], providers: [{providers}]}}]}}"
    )
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>>;

async fn answer(says: Arc<Mutex<Says>>, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    if says.lock().hangs {
        std::future::pending::<()>().await;
    }
    let asked = &body[5..];
    let mut says = says.lock();
    let message = match path.as_str() {
        "/v2.KeyManagementService/Status" => Ok(Status {
            version: says.version.into(),
            healthz: says.healthz.into(),
            key_id: says.key_id.into(),
        }
        .encode_to_vec()),
        "/v2.KeyManagementService/Encrypt" => {
            says.sealed += 1;
            let asked = Asked::decode(asked).expect("a message");
            let annotations = BTreeMap::from([("made.example.com".into(), b"here".to_vec())]);
            let key_id = says.seals_with.unwrap_or(says.key_id).to_owned();
            Ok(Sealed { bytes: flipped(&asked.bytes), key_id, annotations }.encode_to_vec())
        }
        "/v2.KeyManagementService/Decrypt" => {
            says.opened += 1;
            let asked = Asked::decode(asked).expect("a message");
            match asked.annotations.get("made.example.com").map(Vec::as_slice) {
                Some(b"here") if !says.refuses => {
                    Ok(Sealed { bytes: flipped(&asked.bytes), ..Default::default() }.encode_to_vec())
                }
                _ => Err("3"),
            }
        }
        _ => Err("12"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(message.as_ref().err().unwrap_or(&"0")));
    let mut frames = Vec::new();
    if let Ok(message) = message {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("short"));
        framed.extend_from_slice(&message);
        frames.push(Ok(Frame::data(framed.freeze())));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
    let mut answer = Response::new(body);
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(answer)
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0x5a).collect()
}
