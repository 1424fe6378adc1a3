//! What has become of the requests of each flow schema, with the names that the original's dashboards know.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::Plan;
use super::queues::Refusal;

/// Upper bounds of the waiting time's buckets, as the original has them.
const WAIT_BUCKETS_SECONDS: [f64; 11] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const EXECUTION_BUCKETS_SECONDS: [f64; 12] =
    [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0];
const REFUSALS: [Refusal; 4] =
    [Refusal::QueueFull, Refusal::ConcurrencyLimit, Refusal::TimedOut, Refusal::Cancelled];

/// A histogram that many write to at once.
#[derive(Debug)]
struct Times<const N: usize> {
    /// Not cumulative.
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    sum_micros: AtomicU64,
}

impl<const N: usize> Default for Times<N> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum_micros: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Times<N> {
    fn observe(&self, bounds: &[f64; N], time: Duration) {
        let seconds = time.as_secs_f64();
        let at = bounds.iter().position(|bound| seconds <= *bound);
        at.map_or(&self.beyond, |at| &self.buckets[at]).fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str, bounds: &[f64; N]) -> std::fmt::Result {
        let mut count = 0;
        for (bound, bucket) in bounds.iter().zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
        }
        count += self.beyond.load(Ordering::Relaxed);
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64();
        writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}")
    }
}

#[derive(Debug, Default)]
pub struct Stats {
    waiting: AtomicI64,
    waiting_seats: AtomicI64,
    executing: AtomicI64,
    executing_seats: AtomicI64,
    dispatched: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
    waited: Times<11>,
    refused_after: Times<11>,
    ran: Times<12>,
}

impl Stats {
    pub fn refused(&self, why: Refusal, after: Duration) {
        if let Some(at) = REFUSALS.iter().position(|r| *r == why) {
            self.refused[at].fetch_add(1, Ordering::Relaxed);
        }
        self.refused_after.observe(&WAIT_BUCKETS_SECONDS, after);
    }

    pub fn queued(&self, seats: u32) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting_seats.fetch_add(i64::from(seats), Ordering::Relaxed);
    }

    pub fn left_queue(&self, seats: u32) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting_seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
    }

    /// A request has its seats, after it has waited so long.
    pub fn began(&self, seats: u32, after: Duration) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(1, Ordering::Relaxed);
        self.executing_seats.fetch_add(i64::from(seats), Ordering::Relaxed);
        self.waited.observe(&WAIT_BUCKETS_SECONDS, after);
    }

    pub fn ended(&self, seats: u32, ran: Duration) {
        self.executing.fetch_sub(1, Ordering::Relaxed);
        self.executing_seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
        self.ran.observe(&EXECUTION_BUCKETS_SECONDS, ran);
    }
}

fn head(out: &mut String, name: &str, kind: &str, stability: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} [{stability}] {help}\n# TYPE {name} {kind}")
}

type Gauge = fn(&Stats) -> i64;

const GAUGES: &[(&str, &str, &str, Gauge)] = &[
    (
        "current_executing_requests",
        "BETA",
        "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |stats| stats.executing.load(Ordering::Relaxed),
    ),
    (
        "current_executing_seats",
        "BETA",
        "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
        |stats| stats.executing_seats.load(Ordering::Relaxed),
    ),
    (
        "current_inqueue_requests",
        "BETA",
        "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |stats| stats.waiting.load(Ordering::Relaxed),
    ),
    (
        "current_inqueue_seats",
        "ALPHA",
        "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |stats| stats.waiting_seats.load(Ordering::Relaxed),
    ),
];

pub fn write(plan: &Plan, out: &mut String) -> std::fmt::Result {
    const PREFIX: &str = "apiserver_flowcontrol_";
    let all: Vec<(String, &Arc<Stats>)> = plan
        .schemas
        .iter()
        .map(|s| {
            let labels = format!("flow_schema=\"{}\",priority_level=\"{}\"", s.matcher.name, s.level.name);
            (labels, &s.stats)
        })
        .collect();
    for (name, stability, help, read) in GAUGES {
        let name = format!("{PREFIX}{name}");
        head(out, &name, "gauge", stability, help)?;
        for (labels, stats) in &all {
            writeln!(out, "{name}{{{labels}}} {}", read(stats))?;
        }
    }
    let name = format!("{PREFIX}dispatched_requests_total");
    let help = "Number of requests executed by API Priority and Fairness subsystem";
    head(out, &name, "counter", "BETA", help)?;
    for (labels, stats) in &all {
        writeln!(out, "{name}{{{labels}}} {}", stats.dispatched.load(Ordering::Relaxed))?;
    }
    let name = format!("{PREFIX}rejected_requests_total");
    head(
        out,
        &name,
        "counter",
        "BETA",
        "Number of requests rejected by API Priority and Fairness subsystem",
    )?;
    for (labels, stats) in &all {
        for (why, count) in REFUSALS.iter().zip(&stats.refused) {
            let count = count.load(Ordering::Relaxed);
            // As the original: a series begins with its first.
            if count > 0 {
                writeln!(out, "{name}{{{labels},reason=\"{}\"}} {count}", why.reason())?;
            }
        }
    }
    let name = format!("{PREFIX}request_wait_duration_seconds");
    head(out, &name, "histogram", "BETA", "Length of time a request spent waiting in its queue")?;
    for (labels, stats) in &all {
        for (executed, times) in [("false", &stats.refused_after), ("true", &stats.waited)] {
            let labels = format!("execute=\"{executed}\",{labels}");
            times.write(out, &name, &labels, &WAIT_BUCKETS_SECONDS)?;
        }
    }
    let name = format!("{PREFIX}request_execution_seconds");
    let help = "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem";
    head(out, &name, "histogram", "ALPHA", help)?;
    for (labels, stats) in &all {
        stats.ran.write(out, &name, labels, &EXECUTION_BUCKETS_SECONDS)?;
    }
    limits(plan, out)
}

fn limits(plan: &Plan, out: &mut String) -> std::fmt::Result {
    type Read = fn(&super::LevelState) -> f64;
    const LIMITS: &[(&str, &str, &str, Read)] = &[
        (
            "nominal_limit_seats",
            "BETA",
            "Nominal number of execution seats configured for each priority level",
            |s| f64::from(s.limits.nominal),
        ),
        (
            "lower_limit_seats",
            "ALPHA",
            "Configured lower bound on number of execution seats available to each priority level",
            |s| f64::from(s.limits.lower),
        ),
        (
            "upper_limit_seats",
            "ALPHA",
            "Configured upper bound on number of execution seats available to each priority level",
            |s| f64::from(s.limits.upper),
        ),
        (
            "current_limit_seats",
            "ALPHA",
            "current derived number of execution seats available to each priority level",
            |s| f64::from(s.set.limit()),
        ),
        ("demand_seats_smoothed", "ALPHA", "Smoothed seat demands", |s| s.smoothed),
        ("current_r", "ALPHA", "R(time of last change)", |s| s.set.progress()),
    ];
    for (name, stability, help, read) in LIMITS {
        let name = format!("apiserver_flowcontrol_{name}");
        head(out, &name, "gauge", stability, help)?;
        for level in &plan.levels {
            let value = read(&level.state.lock());
            writeln!(out, "{name}{{priority_level=\"{}\"}} {value}", level.name)?;
        }
    }
    Ok(())
}
