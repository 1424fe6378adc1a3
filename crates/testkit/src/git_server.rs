//! A Git server as companies run them: bare repositories over HTTP or HTTPS, through Git's own `http-backend`, with or
//! without a password.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::certificate::Certificate;

pub struct GitServer {
    root: PathBuf,
    port: u16,
    /// What signs its certificate, as PEM; none where it speaks plain HTTP.
    pub authority: Option<String>,
    asked: Arc<AtomicUsize>,
    /// Dropped, it ends the server.
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    root: PathBuf,
    /// The whole `Authorization` header that is asked for.
    login: Option<String>,
    asked: Arc<AtomicUsize>,
}

impl GitServer {
    /// Serves the repositories below `root`. `login` is name and password, if it asks for them.
    pub fn start(root: &Path, certificate: Option<&Certificate>, login: Option<(&str, &str)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            .expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            login: login.map(|(name, word)| format!("Basic {}", STANDARD.encode(format!("{name}:{word}")))),
            asked: Arc::clone(&asked),
        });
        let tls = certificate.map(Certificate::acceptor);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        // A client that does not trust us hangs up; that is its right.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, shared).await;
                            }
                        }
                        None => serve(stream, shared).await,
                    }
                });
            }
        });
        let authority = certificate.map(|c| c.authority.clone());
        Self { root: root.to_owned(), port, authority, asked, _runtime: runtime }
    }

    /// Where a repository of the root answers.
    pub fn url(&self, name: &str) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}/{name}", self.port)
    }

    /// A bare copy of a repository, to be served and pushed to.
    pub fn publish(&self, repository: &Path, name: &str) -> PathBuf {
        let bare = self.root.join(name);
        let status = Command::new("git")
            .args(["clone", "--quiet", "--bare"])
            .args([repository, &bare])
            .status()
            .expect("git runs");
        assert!(status.success());
        bare
    }

    /// How many requests there were.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, hyper::Error>(answer(request, &shared).await) }
    });
    // A connection that breaks off is the client's affair.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    shared.asked.fetch_add(1, Ordering::Relaxed);
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    if shared.login.is_some() && shown != shared.login.as_deref() {
        let mut refusal = Response::new(Full::default());
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        refusal
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Basic realm=\"git\""));
        return refusal;
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let root = shared.root.clone();
    let output = tokio::task::spawn_blocking(move || backend(&root, &parts, &body)).await;
    response(&output.expect("the backend does not panic"))
}

/// Runs Git's own program for one request, by CGI.
fn backend(root: &Path, parts: &http::request::Parts, body: &[u8]) -> Vec<u8> {
    let text = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", text("content-type"))
        .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
        .env("GIT_PROTOCOL", text("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may have answered before it has read all; what it says is in its answer.
    drop(stdin.write_all(body));
    drop(stdin);
    child.wait_with_output().expect("it ends").stdout
}

fn response(output: &[u8]) -> Response<Full<Bytes>> {
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(output.len());
    let mut response =
        Response::new(Full::new(Bytes::copy_from_slice(output.get(end + 4..).unwrap_or_default())));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name == "Status" {
            let code = value.split(' ').next().and_then(|c| c.parse().ok()).expect("a status code");
            *response.status_mut() = code;
            continue;
        }
        let name: header::HeaderName = name.parse().expect("a header");
        response.headers_mut().insert(name, value.parse().expect("a value"));
    }
    response
}
