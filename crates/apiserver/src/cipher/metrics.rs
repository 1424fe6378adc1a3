//! What encryption tells of itself in `/metrics`, by the names that kube-apiserver has for it. Labels are resources that are
//! encrypted, prefixes and providers of the configuration, methods and codes: few. Names of keys come from a plugin, so the
//! number of series has a bound, past which new ones are not counted.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;

/// Of each family.
const SERIES: usize = 1000;

/// What is counted, each described in [`FAMILIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Operations,
    Durations,
    CacheMisses,
    Generations,
    GenerationFailures,
    Calls,
    KeyIds,
    KeyIdTimes,
    KeyIdStatusTimes,
    InvalidKeyIds,
    Sources,
}

struct Described {
    family: Family,
    name: &'static str,
    help: &'static str,
    shape: Shape,
}

enum Shape {
    Counter,
    Gauge,
    /// The first bound, and how many there are, each twice the one before.
    Histogram(f64, usize),
}

const fn described(family: Family, name: &'static str, help: &'static str, shape: Shape) -> Described {
    Described { family, name, help, shape }
}

const FAMILIES: [Described; 11] = [
    described(
        Family::Operations,
        "apiserver_storage_transformation_operations_total",
        "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails.",
        Shape::Counter,
    ),
    described(
        Family::Durations,
        "apiserver_storage_transformation_duration_seconds",
        "Latencies in seconds of value transformation operations.",
        Shape::Histogram(5e-6, 25),
    ),
    described(
        Family::CacheMisses,
        "apiserver_storage_envelope_transformation_cache_misses_total",
        "Total number of cache misses while accessing key decryption key(KEK).",
        Shape::Counter,
    ),
    described(
        Family::Generations,
        "apiserver_storage_data_key_generation_duration_seconds",
        "Latencies in seconds of data encryption key(DEK) generation operations.",
        Shape::Histogram(5e-6, 14),
    ),
    described(
        Family::GenerationFailures,
        "apiserver_storage_data_key_generation_failures_total",
        "Total number of failed data encryption key(DEK) generation operations.",
        Shape::Counter,
    ),
    described(
        Family::Calls,
        "apiserver_envelope_encryption_kms_operations_latency_seconds",
        "KMS operation duration with gRPC error code status total.",
        Shape::Histogram(1e-4, 20),
    ),
    described(
        Family::KeyIds,
        "apiserver_envelope_encryption_key_id_hash_total",
        "Number of times a keyID is used split by transformation type, provider, and apiserver identity.",
        Shape::Counter,
    ),
    described(
        Family::KeyIdTimes,
        "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds",
        "The last time in seconds when a keyID was used.",
        Shape::Gauge,
    ),
    described(
        Family::KeyIdStatusTimes,
        "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds",
        "The last time in seconds when a keyID was returned by the Status RPC call.",
        Shape::Gauge,
    ),
    described(
        Family::InvalidKeyIds,
        "apiserver_envelope_encryption_invalid_key_id_from_status_total",
        "Number of times an invalid keyID is returned by the Status RPC call split by error.",
        Shape::Counter,
    ),
    described(
        Family::Sources,
        "apiserver_envelope_encryption_dek_source_cache_size",
        "Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
        Shape::Gauge,
    ),
];

/// Which way something was transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    FromStorage,
    ToStorage,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::FromStorage => "from_storage",
            Self::ToStorage => "to_storage",
        }
    }
}

pub type Labels<'a> = &'a [(&'static str, &'a str)];

#[derive(Debug, Default, Clone)]
struct Value {
    count: u64,
    /// The sum of a histogram, the value of a gauge.
    number: f64,
    /// Not cumulative; the last is beyond every bound.
    buckets: Vec<u64>,
}

#[derive(Debug, Default)]
pub struct Metrics {
    series: Mutex<BTreeMap<Family, BTreeMap<String, Value>>>,
}

impl Metrics {
    pub fn count(&self, family: Family, labels: Labels<'_>) {
        self.change(family, labels, |value| value.count += 1);
    }

    pub fn set(&self, family: Family, labels: Labels<'_>, number: f64) {
        self.change(family, labels, |value| value.number = number);
    }

    pub fn observe(&self, family: Family, labels: Labels<'_>, took: Duration) {
        let described = FAMILIES.iter().find(|described| described.family == family);
        let Some(Described { shape: Shape::Histogram(start, bounds), .. }) = described else { return };
        let seconds = took.as_secs_f64();
        let at = bounds_of(*start, *bounds).position(|bound| seconds <= bound).unwrap_or(*bounds);
        self.change(family, labels, |value| {
            value.buckets.resize(bounds + 1, 0);
            value.buckets[at] += 1;
            value.count += 1;
            value.number += seconds;
        });
    }

    fn change(&self, family: Family, labels: Labels<'_>, change: impl FnOnce(&mut Value)) {
        let mut series = self.series.lock();
        let family = series.entry(family).or_default();
        let room = family.len() < SERIES;
        match family.entry(shown(labels)) {
            Entry::Occupied(mut found) => change(found.get_mut()),
            Entry::Vacant(new) if room => change(new.insert(Value::default())),
            Entry::Vacant(_) => {}
        }
    }

    pub fn write(&self, out: &mut String) -> std::fmt::Result {
        let series = self.series.lock();
        for Described { family, name, help, shape } in &FAMILIES {
            let of_family = series.get(family);
            // Without labels there is something to tell also when nothing has happened.
            let unlabelled = matches!(family, Family::CacheMisses | Family::GenerationFailures);
            if of_family.is_none() && !unlabelled {
                continue;
            }
            let kind = match shape {
                Shape::Counter => "counter",
                Shape::Gauge => "gauge",
                Shape::Histogram(..) => "histogram",
            };
            writeln!(out, "# HELP {name} [ALPHA] {help}\n# TYPE {name} {kind}")?;
            if of_family.is_none() {
                writeln!(out, "{name} 0")?;
            }
            for (labels, value) in of_family.into_iter().flatten() {
                match shape {
                    Shape::Counter => writeln!(out, "{name}{} {}", braced(labels), value.count)?,
                    Shape::Gauge => writeln!(out, "{name}{} {}", braced(labels), value.number)?,
                    Shape::Histogram(start, bounds) => {
                        histogram(out, (*name, labels.as_str()), value, bounds_of(*start, *bounds))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn bounds_of(start: f64, count: usize) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(start), |bound| Some(bound * 2.0)).take(count)
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

fn histogram(
    out: &mut String,
    (name, labels): (&str, &str),
    value: &Value,
    bounds: impl Iterator<Item = f64>,
) -> std::fmt::Result {
    let before = if labels.is_empty() { String::new() } else { format!("{labels},") };
    let mut count = 0;
    for (bound, of_bucket) in bounds.zip(&value.buckets) {
        count += of_bucket;
        writeln!(out, "{name}_bucket{{{before}le=\"{bound}\"}} {count}")?;
    }
    writeln!(out, "{name}_bucket{{{before}le=\"+Inf\"}} {}", value.count)?;
    writeln!(out, "{name}_sum{} {}", braced(labels), value.number)?;
    writeln!(out, "{name}_count{} {}", braced(labels), value.count)
}

/// In the order of their names, as they are always shown.
fn shown(labels: Labels<'_>) -> String {
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let shown = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    shown.collect::<Vec<_>>().join(",")
}

/// A key's name is nobody's business, but whether it is the same as elsewhere is.
pub fn hash(name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let mut out = String::from("sha256:");
    for byte in digest.as_ref() {
        out += &format!("{byte:02x}");
    }
    out
}

/// What failed before anybody was asked.
pub const NO_CALL: &str = "unknown-non-grpc";

/// The name of what came of a call.
pub fn code(fault: Option<&grpc::Fault>) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match fault {
        None => "OK",
        // A call is tried until its time is over.
        Some(grpc::Fault::NotSent(_) | grpc::Fault::Broken(_)) => "DeadlineExceeded",
        Some(grpc::Fault::Refused { code, .. }) => {
            usize::try_from(*code).ok().and_then(|code| NAMES.get(code).copied()).unwrap_or("Unknown")
        }
    }
}

/// The resource of a place in the store, as labels name it.
pub fn resource_of(place: &str) -> String {
    let below = place.strip_prefix("/registry/").unwrap_or(place);
    let mut parts = below.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let known = |folder: &str| RESOURCES.get(folder).cloned();
    match known(&format!("{first}/{second}")).or_else(|| known(first)) {
        Some(resource) => resource,
        None if first.contains('.') => format!("{second}.{first}"),
        None => first.to_owned(),
    }
}

/// By the folder below `/registry` that their objects lie in.
static RESOURCES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let stored = api::kinds::builtin().iter().filter(|kind| !kind.is_virtual());
    let folder = |place: String| Some(place.strip_prefix("/registry/")?.trim_end_matches('/').to_owned());
    stored.filter_map(|kind| Some((folder(kind.key("", ""))?, kind.resource().to_string()))).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_has_the_names_and_the_form_that_are_known() {
        let metrics = Metrics::default();
        let of = |status| {
            [
                ("resource", "secrets"),
                ("transformation_type", Way::ToStorage.name()),
                ("transformer_prefix", "k8s:enc:kms:v2:a\"b:"),
                ("status", status),
            ]
        };
        metrics.count(Family::Operations, &of("OK"));
        metrics.count(Family::Operations, &of("OK"));
        metrics.count(Family::Operations, &of("Internal"));
        metrics.observe(Family::Calls, &[("method_name", "m")], Duration::from_millis(1));
        metrics.observe(Family::Calls, &[("method_name", "m")], Duration::from_secs(100));
        metrics.set(Family::Sources, &[("provider_name", "p")], 3.0);
        let mut out = String::new();
        metrics.write(&mut out).expect("writes");
        let has = |line: &str| assert!(out.lines().any(|l| l == line), "{line}\n{out}");
        const OPERATIONS: &str =
            "apiserver_storage_transformation_operations_total{resource=\"secrets\",status=\"";
        const REST: &str =
            "\",transformation_type=\"to_storage\",transformer_prefix=\"k8s:enc:kms:v2:a\\\"b:\"}";
        has(&format!("{OPERATIONS}OK{REST} 2"));
        has(&format!("{OPERATIONS}Internal{REST} 1"));
        const CALLS: &str = "apiserver_envelope_encryption_kms_operations_latency_seconds";
        has(&format!("# TYPE {CALLS} histogram"));
        has(&format!("{CALLS}_bucket{{method_name=\"m\",le=\"0.0008\"}} 0"));
        has(&format!("{CALLS}_bucket{{method_name=\"m\",le=\"0.0016\"}} 1"));
        has(&format!("{CALLS}_bucket{{method_name=\"m\",le=\"+Inf\"}} 2"));
        has(&format!("{CALLS}_sum{{method_name=\"m\"}} 100.001"));
        has(&format!("{CALLS}_count{{method_name=\"m\"}} 2"));
        has("apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"p\"} 3");
        has("apiserver_storage_envelope_transformation_cache_misses_total 0");
        assert!(!out.contains("key_id_hash"), "what never was is not told of");
    }

    #[test]
    fn the_number_of_series_has_a_bound() {
        let metrics = Metrics::default();
        for n in 0..SERIES + 10 {
            metrics.count(Family::KeyIds, &[("key_id_hash", &n.to_string())]);
        }
        metrics.count(Family::KeyIds, &[("key_id_hash", "0")]);
        let series = metrics.series.lock();
        let family = &series[&Family::KeyIds];
        assert_eq!((family.len(), family["key_id_hash=\"0\""].count), (SERIES, 2));
    }

    #[test]
    fn places_and_codes_have_names() {
        for (place, resource) in [
            ("/registry/secrets/default/a", "secrets"),
            ("/registry/deployments/default/a", "deployments.apps"),
            ("/registry/controllers/default/a", "replicationcontrollers"),
            ("/registry/services/specs/default/a", "services"),
            ("/registry/example.com/widgets/default/a", "widgets.example.com"),
        ] {
            assert_eq!(resource_of(place), resource, "{place}");
        }
        let refused = |code| grpc::Fault::Refused { code, message: String::new() };
        assert_eq!(code(None), "OK");
        assert_eq!(code(Some(&refused(9))), "FailedPrecondition");
        assert_eq!(code(Some(&refused(99))), "Unknown");
        assert_eq!(code(Some(&grpc::Fault::NotSent(String::new()))), "DeadlineExceeded");
        assert_eq!(hash("1"), "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b");
        assert_eq!(hash(""), "");
    }
}
