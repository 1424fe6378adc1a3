//! Our server in this process, asked as its administrator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::auth::Identity;
use apiserver::auth::certificates::{Authority, Usage};
use apiserver::http::body::full;
use apiserver::{ApiServer, Config, Dial};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::unfold;
use http::{Request, Response};
use http_body_util::BodyExt;
use store::{Embedded, EmbeddedOptions};
use testkit::differential::{Door, Stream};
use tokio::net::TcpStream;

/// No answer takes longer.
const LIMIT: Duration = Duration::from_secs(5);

struct Nowhere;

impl Dial for Nowhere {
    fn dial(&self, _address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        Box::pin(async { Err(std::io::Error::other("there are no nodes here")) })
    }
}

pub struct World {
    server: ApiServer,
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(folder.path()).expect("an authority");
        let config = Config {
            folder: folder.path().to_owned(),
            advertise: SocketAddr::from((Ipv4Addr::new(10, 44, 0, 1), 6443)),
            service_cidr: "10.43.0.0/16".into(),
            dns_address: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
            node_client: authority.issue("x", Usage::Client { group: "g".into() }).expect("issues"),
            authority: authority.certificate.clone(),
            dial: Arc::new(Nowhere),
            authentication: Default::default(),
            requests: Default::default(),
            audit: Default::default(),
            encryption: Default::default(),
        };
        let store = Embedded::open(&folder.path().join("state"), EmbeddedOptions::default()).expect("opens");
        let server = ApiServer::open(config, Arc::new(store)).await.expect("starts");
        Self { server, _folder: folder }
    }
}

impl Door for World {
    fn ask(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Stream>, String>> {
        Box::pin(async move {
            let mut who = Identity::new("admin", &["system:masters"]);
            who.uid = "admin".into();
            let answer = self.server.handle(request.map(full), Some(who)).await;
            let (head, body) = answer.into_parts();
            let pieces = unfold(body, |mut body| async move {
                let frame = match tokio::time::timeout(LIMIT, body.frame()).await {
                    Ok(frame) => frame?,
                    Err(_) => return Some((Err("nothing comes".to_owned()), body)),
                };
                let piece = frame.map(|f| f.into_data().unwrap_or_default()).map_err(|e| e.to_string());
                Some((piece, body))
            });
            let pieces: Stream = Box::pin(pieces);
            Ok(Response::from_parts(head, pieces))
        })
    }
}
