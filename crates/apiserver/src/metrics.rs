//! `/metrics`, with the names that dashboards and alerts of Kubernetes know. Labels are closed: a resource is named only
//! once it is known to be served, so that nobody fills the table by asking for what there is not.

mod process;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ::http::{Method, StatusCode};
use api::status::ApiError;
use parking_lot::Mutex;

use crate::Server;
use crate::catalog::Kinds;
use crate::http::request::Asked;
use crate::http::respond::{self, Answer};
use crate::objects::store_error;

/// Upper bounds of the duration's buckets, as the original has them.
const BUCKETS_SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// What a request was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    dry_run: &'static str,
}

impl Labels {
    pub fn of(asked: &Asked, method: &Method, kinds: &Kinds, dry_run: bool, applies: bool) -> Self {
        let dry_run = if dry_run { "All" } else { "" };
        let Asked::Resource(target) = asked else {
            let verb = match *method {
                Method::GET | Method::HEAD => "GET",
                Method::POST => "POST",
                _ => "other",
            };
            return Self { verb, dry_run, ..Self::default() };
        };
        let Some(kind) = kinds.find(&target.group, &target.version, &target.plural) else {
            return Self { verb: "other", dry_run, ..Self::default() };
        };
        let known = kind.subresource(&target.subresource).map(|s| s.name.to_owned());
        let verb = match target.verb {
            "patch" if applies => "APPLY",
            _ if matches!(&*target.subresource, "exec" | "attach" | "portforward" | "proxy") => "CONNECT",
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let scope = match (target.name.is_empty(), target.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        Self {
            verb,
            group: target.group.clone(),
            version: target.version.clone(),
            resource: target.plural.clone(),
            subresource: known.unwrap_or_default(),
            scope,
            dry_run,
        }
    }

    fn is_mutating(&self) -> bool {
        !matches!(self.verb, "GET" | "LIST" | "WATCH")
    }

    /// Whether the request lives as long as whoever sent it wants.
    fn is_long(&self) -> bool {
        matches!(self.verb, "WATCH" | "CONNECT") || self.subresource == "log"
    }

    fn shown(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope, .. } = self;
        format!(
            "group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

#[derive(Debug, Default)]
struct Series {
    by_code: BTreeMap<u16, u64>,
    /// Not cumulative; the last is beyond every bound.
    buckets: [u64; BUCKETS_SECONDS.len() + 1],
    sum_seconds: f64,
}

#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, Series>>,
    long: Mutex<BTreeMap<Labels, i64>>,
    mutating: AtomicI64,
    read_only: AtomicI64,
}

/// A request that is being answered.
pub struct Running {
    metrics: Arc<Metrics>,
    labels: Labels,
}

impl Running {
    pub fn begin(metrics: &Arc<Metrics>, labels: Labels) -> Self {
        match labels.is_long() {
            true => *metrics.long.lock().entry(labels.clone()).or_default() += 1,
            false => drop(metrics.gauge(&labels).fetch_add(1, Ordering::Relaxed)),
        }
        Self { metrics: Arc::clone(metrics), labels }
    }

    /// Its answer has begun.
    pub fn answered(&self, code: StatusCode, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let at = BUCKETS_SECONDS.iter().position(|bound| seconds <= *bound);
        let mut requests = self.metrics.requests.lock();
        let series = requests.entry(self.labels.clone()).or_default();
        *series.by_code.entry(code.as_u16()).or_default() += 1;
        series.buckets[at.unwrap_or(BUCKETS_SECONDS.len())] += 1;
        series.sum_seconds += seconds;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match self.labels.is_long() {
            true => *self.metrics.long.lock().entry(self.labels.clone()).or_default() -= 1,
            false => drop(self.metrics.gauge(&self.labels).fetch_sub(1, Ordering::Relaxed)),
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    *out += &format!("# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n");
}

impl Metrics {
    fn gauge(&self, labels: &Labels) -> &AtomicI64 {
        if labels.is_mutating() { &self.mutating } else { &self.read_only }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        head(
            out,
            "apiserver_current_inflight_requests",
            "gauge",
            "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        );
        for (kind, gauge) in [("mutating", &self.mutating), ("readOnly", &self.read_only)] {
            let value = gauge.load(Ordering::Relaxed);
            writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {value}")?;
        }
        let help = "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.";
        head(out, "apiserver_longrunning_requests", "gauge", help);
        for (labels, value) in &*self.long.lock() {
            let labels = labels.shown();
            writeln!(out, "apiserver_longrunning_requests{{component=\"apiserver\",{labels}}} {value}")?;
        }
        let requests = self.requests.lock();
        let help = "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.";
        head(out, "apiserver_request_total", "counter", help);
        for (labels, series) in &*requests {
            let (shown, dry_run) = (labels.shown(), labels.dry_run);
            for (code, value) in &series.by_code {
                writeln!(
                    out,
                    "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"{dry_run}\",{shown}}} {value}"
                )?;
            }
        }
        let help = "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.";
        head(out, "apiserver_request_duration_seconds", "histogram", help);
        for (labels, series) in &*requests {
            series.write(
                out,
                &format!("component=\"apiserver\",dry_run=\"{}\",{}", labels.dry_run, labels.shown()),
            )?;
        }
        Ok(())
    }
}

impl Series {
    fn write(&self, out: &mut String, labels: &str) -> std::fmt::Result {
        const NAME: &str = "apiserver_request_duration_seconds";
        let mut count = 0;
        for (bound, value) in BUCKETS_SECONDS.iter().zip(self.buckets) {
            count += value;
            writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
        }
        count += self.buckets[BUCKETS_SECONDS.len()];
        writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(out, "{NAME}_sum{{{labels}}} {}", self.sum_seconds)?;
        writeln!(out, "{NAME}_count{{{labels}}} {count}")
    }
}

impl Server {
    pub(crate) async fn metrics(&self) -> Result<Answer, ApiError> {
        let mut out = String::with_capacity(64 << 10);
        self.metrics.write(&mut out).map_err(ApiError::internal)?;
        self.fairness_plan().await.metrics(&mut out).map_err(ApiError::internal)?;
        self.objects.cipher().write_metrics(&mut out).map_err(ApiError::internal)?;
        if let Some(audit) = &self.audit {
            audit.write_metrics(&mut out).map_err(ApiError::internal)?;
        }
        let remotes = self.remotes().await?;
        let help = "Gauge of APIServices which are marked as unavailable broken down by APIService name.";
        head(&mut out, "aggregator_unavailable_apiservice", "gauge", help);
        for (name, unavailable) in self.aggregation.unavailable(&remotes) {
            out += &format!("aggregator_unavailable_apiservice{{name={name:?}}} {}\n", u8::from(unavailable));
        }
        let mut objects = String::new();
        head(
            &mut out,
            "apiserver_storage_objects",
            "gauge",
            "Number of stored objects at the time of last check split by kind.",
        );
        let kinds = self.catalog.snapshot();
        let mut seen = std::collections::BTreeSet::new();
        for kind in kinds.all().iter().filter(|k| !k.is_virtual()) {
            let resource = kind.resource().to_string();
            if !seen.insert(resource.clone()) {
                continue;
            }
            let count = self.objects.store.count(&kind.key("", "")).await.map_err(store_error)?;
            out += &format!("apiserver_storage_objects{{resource=\"{resource}\"}} {count}\n");
            let (group, plural) = (&kind.group, &kind.plural);
            objects +=
                &format!("apiserver_resource_objects{{group=\"{group}\",resource=\"{plural}\"}} {count}\n");
        }
        head(
            &mut out,
            "apiserver_resource_objects",
            "gauge",
            "Number of stored objects at the time of last check split by kind.",
        );
        out += &objects;
        let (version, minor) = (base::constants::KUBERNETES_VERSION, base::constants::KUBERNETES_MINOR);
        head(
            &mut out,
            "kubernetes_build_info",
            "gauge",
            "A metric with a constant '1' value labeled by version.",
        );
        out += &format!(
            "kubernetes_build_info{{git_version=\"{version}+kedge\",major=\"1\",minor=\"{minor}\"}} 1\n"
        );
        process::write(&mut out);
        Ok(respond::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::Query;

    #[test]
    fn requests_are_counted_by_what_they_were() {
        let metrics = Arc::new(Metrics::default());
        let kinds = crate::catalog::Catalog::default();
        kinds.rebuild(&[]);
        let labels = |method: Method, path: &str| {
            let asked = Asked::parse(&method, path, &Query::parse("watch=1"));
            Labels::of(&asked, &method, &kinds.snapshot(), false, false)
        };
        let pod = Running::begin(&metrics, labels(Method::GET, "/api/v1/namespaces/a/pods/x"));
        let watch = Running::begin(&metrics, labels(Method::GET, "/api/v1/pods"));
        pod.answered(StatusCode::OK, Duration::from_millis(30));
        drop(Running::begin(&metrics, labels(Method::GET, "/api/v1/madeup/x")));
        let mut out = String::new();
        metrics.write(&mut out).expect("writes");
        let has = |line: &str| assert!(out.lines().any(|l| l == line), "{line}\n{out}");
        const POD: &str =
            "group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"";
        has(&format!("apiserver_request_total{{code=\"200\",component=\"apiserver\",dry_run=\"\",{POD}}} 1"));
        const NAME: &str = "apiserver_request_duration_seconds_bucket";
        has(&format!("{NAME}{{component=\"apiserver\",dry_run=\"\",{POD},le=\"0.025\"}} 0"));
        has(&format!("{NAME}{{component=\"apiserver\",dry_run=\"\",{POD},le=\"0.05\"}} 1"));
        has("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1");
        has(
            "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1",
        );
        assert!(!out.contains("madeup"), "{out}");
        drop((pod, watch));
        let mut out = String::new();
        metrics.write(&mut out).expect("writes");
        assert!(out.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0"), "{out}");
    }
}
