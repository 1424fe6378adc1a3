//! What the measurements ask of the API.

use std::time::{Duration, Instant};

use serde_json::Value;

use testkit::api::{Api, Connection};

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Opens a watch and returns when an event satisfies `wanted`; `act` is called once the watch stands.
pub async fn watch_until(
    api: &Api,
    path: &str,
    act: impl AsyncFnOnce(&mut Connection),
    wanted: impl Fn(&Value) -> bool,
) -> Duration {
    let mut watching = api.connect().await;
    let mut acting = api.connect().await;
    let mut events = watching.lines(path).await;
    let started = Instant::now();
    act(&mut acting).await;
    loop {
        let line = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
        let line = line.unwrap_or_else(|_| panic!("{path}: nothing for 60 s")).expect("the watch goes on");
        let event: Value = serde_json::from_slice(&line).expect("an event");
        if wanted(&event) {
            return started.elapsed();
        }
    }
}
