//! What the measurements ask of the API.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::Value;

use crate::connection::{Api, Connection};

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Opens a watch and returns when an object's event satisfies `wanted`; `act` is called once the watch stands.
pub async fn watch_until(
    api: &Api,
    path: &str,
    act: impl AsyncFnOnce(&mut Connection),
    wanted: impl Fn(&Value) -> bool,
) -> Duration {
    let mut watching = api.connect().await;
    let mut acting = api.connect().await;
    let mut events = watching.send("GET", path, "").await.into_body();
    let started = Instant::now();
    act(&mut acting).await;
    let mut rest = Vec::new();
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(60), events.frame()).await;
        let frame = frame
            .unwrap_or_else(|_| panic!("{path}: nothing for 60 s"))
            .expect("the watch goes on")
            .expect("a frame");
        rest.extend_from_slice(frame.data_ref().map(|d| &d[..]).unwrap_or_default());
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("an event");
            if wanted(&event["object"]) {
                return started.elapsed();
            }
        }
    }
}
