//! The whole server under far more than it can serve: who asks too much is told to come back later, everybody else goes
//! on, memory stays bounded, and when it is over it is over.

use std::time::{Duration, Instant};

use testkit::api::Api;
use testkit::overload::{Flood, calm, flood, memory_bytes, percentile, prepare, renew};
use testkit::{Cluster, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A node's lease holds for 40 s and is renewed every ten: a renewal that takes less keeps it.
const RENEWAL_LIMIT_MS: f64 = 10_000.0;
/// Far above what is needed; what is unbounded passes it within the flood's time.
const MEMORY_LIMIT_BYTES: u64 = 1 << 30;
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);
/// Ten times and more what the level has seats for, and far more than its queues hold for one user.
const FLOOD: Flood = Flood { clients: 640, watchers: 2000, lazy: 20, duration: Duration::from_secs(12) };

#[test]
fn a_runaway_client_is_told_to_wait_and_nobody_else_suffers() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        prepare(&api).await;
        let (idle_ms, failed) = renew(&api, Instant::now() + Duration::from_secs(2)).await;
        assert!(failed.is_empty(), "{failed:?}");
        let before = memory_bytes(cluster.server_pid());
        let outcome = flood(&api, cluster.server_pid(), FLOOD).await;
        let over = Instant::now();
        let p99 = |samples: &[f64]| percentile(samples, 0.99);
        let (idle, busy) = (p99(&idle_ms), p99(&outcome.renewals_ms));
        println!(
            "lease renewal p99: idle {idle:.1} ms, under the flood {busy:.1} ms ({} renewals); answers {:?}; {} watchers, {} events; memory {} → {} MiB",
            outcome.renewals_ms.len(),
            outcome.codes,
            outcome.watching,
            outcome.events,
            before >> 20,
            outcome.memory_peak_bytes >> 20
        );
        assert!(outcome.failed_renewals.is_empty(), "{:?}", outcome.failed_renewals);
        assert!(outcome.renewals_ms.len() >= 5 && busy < RENEWAL_LIMIT_MS, "{busy} ms");
        assert!(outcome.memory_peak_bytes < MEMORY_LIMIT_BYTES, "{} bytes", outcome.memory_peak_bytes);
        let offered: u64 = outcome.codes.values().sum();
        let refused = outcome.codes.get(&429).copied().unwrap_or_default();
        assert!(offered >= 10 * (offered - refused), "{refused} of {offered} were refused");
        // Served, or told to come back and when; never a fault, never nothing.
        let known = [200, 201, 409, 429];
        assert!(outcome.codes.keys().all(|code| known.contains(code)), "{:?}", outcome.codes);
        assert!(outcome.codes.contains_key(&429) && outcome.codes.contains_key(&200), "{:?}", outcome.codes);
        assert_eq!((outcome.hung, outcome.broken, outcome.unsaid), (0, 0, 0), "{outcome:?}");
        assert_eq!(outcome.watching, FLOOD.watchers as u64, "{outcome:?}");
        assert!(outcome.events > outcome.watching, "watchers were told {} times", outcome.events);
        loop {
            if calm(&api).await.is_some_and(|took| took < Duration::from_secs(1)) {
                break;
            }
            assert!(over.elapsed() < RECOVERY_LIMIT, "it has not recovered");
        }
        println!("recovered after {:?}; memory {} MiB", over.elapsed(), memory_bytes(cluster.server_pid()) >> 20);
    });
    let node = cluster.get("node", "", "node-1").expect("a node");
    let ready = node["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    assert!(ready, "{node}");
}

/// As many as a server takes (4096) and more, each of which has said half a hello, or nothing.
const HALF_OPEN: usize = 4500;

#[test]
fn connections_that_are_half_open_keep_nobody_out() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let renewed = || -> Result<String, String> {
        let lease = cluster.get("lease", "kube-node-lease", "node-1")?;
        Ok(lease["spec"]["renewTime"].to_string())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let held = runtime.block_on(async {
        prepare(&api).await;
        let mut held = Vec::new();
        for number in 0..HALF_OPEN {
            // Those that come when there is no room are not answered, or make room.
            let connected = tokio::time::timeout(RECOVERY_LIMIT, TcpStream::connect(api.address())).await;
            let mut half = connected.expect("it listens").expect("connects");
            if number % 2 == 0 {
                // It may have been ended already, to make room.
                drop(half.write_all(&[22, 3, 1, 2, 0, 1, 0]).await);
            }
            held.push(half);
        }
        held
    });
    // With all of them open: who comes is served, on one connection and on new ones, and the node lives.
    let before = renewed().expect("the node's lease");
    let (took_ms, failed) =
        runtime.block_on(async { renew(&api, Instant::now() + Duration::from_secs(3)).await });
    assert!(failed.is_empty() && !took_ms.is_empty(), "{failed:?}");
    let resident = memory_bytes(cluster.server_pid());
    println!(
        "renewal p99 {:.1} ms beside {HALF_OPEN} half-open connections; memory {} MiB",
        percentile(&took_ms, 0.99),
        resident >> 20
    );
    assert!(resident < MEMORY_LIMIT_BYTES, "{resident} bytes");
    until("the node renews its own lease", Duration::from_secs(40), || {
        let now = renewed()?;
        if now == before { Err(now) } else { Ok(()) }
    });
    drop(held);
}
