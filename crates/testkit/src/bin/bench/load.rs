//! Several clients at once, for a few seconds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::percentile;

const DURATION: Duration = Duration::from_secs(5);

/// Writes in a second and their latencies in milliseconds.
pub struct Load {
    pub per_second: f64,
    pub latencies_ms: Vec<f64>,
}

impl Load {
    pub fn shown(&mut self) -> String {
        let (p50, p99) = (percentile(&mut self.latencies_ms, 0.5), percentile(&mut self.latencies_ms, 0.99));
        format!("{:.0}/s (p50 {p50:.2} ms, p99 {p99:.2} ms)", self.per_second)
    }
}

pub async fn load(clients: usize, client: impl AsyncFn(Instant, &mut Vec<f64>)) -> Load {
    let started = Instant::now();
    let end = started + DURATION;
    let latencies = Mutex::new(Vec::new());
    let all = (0..clients).map(|_| async {
        let mut own = Vec::new();
        client(end, &mut own).await;
        latencies.lock().expect("not poisoned").append(&mut own);
    });
    join_all(all.collect()).await;
    let latencies_ms = std::mem::take(&mut *latencies.lock().expect("not poisoned"));
    Load { per_second: latencies_ms.len() as f64 / started.elapsed().as_secs_f64(), latencies_ms }
}

/// All of some futures, on this task.
pub async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for slot in &mut futures {
            if let Some(future) = slot {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(()) => *slot = None,
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
}
