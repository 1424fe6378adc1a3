//! Where the time of a slow request went: what is told in its event when it took longer than half a second. Measured only
//! where something is audited.

use std::collections::BTreeMap;
use std::time::Duration;

/// A request that took longer is told where the time went.
pub const THRESHOLD: Duration = Duration::from_millis(500);
const PREFIX: &str = "apiserver.latency.k8s.io/";

/// A part of the way that a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    Authentication,
    Impersonation,
    Authorization,
    /// The wait for its turn.
    Queue,
    MutatingWebhook,
    ValidatingWebhook,
    /// Whichever store there is; the name is the original's.
    Store,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Impersonation => "impersonation",
            Self::Authorization => "authorization",
            Self::Queue => "apf-queue-wait",
            Self::MutatingWebhook => "mutating-webhook",
            Self::ValidatingWebhook => "validating-webhook",
            Self::Store => "etcd",
        }
    }

    /// What is done side by side takes as long as the longest of it.
    fn is_parallel(self) -> bool {
        matches!(self, Self::ValidatingWebhook | Self::Authorization | Self::Queue)
    }
}

/// How long each part took.
#[derive(Default)]
pub struct Latencies(BTreeMap<Layer, Duration>);

impl Latencies {
    pub fn add(&mut self, layer: Layer, took: Duration) {
        let held = self.0.entry(layer).or_default();
        *held = if layer.is_parallel() { took.max(*held) } else { *held + took };
    }

    /// The annotations of a request that took so long in all; none where it was quick, or nothing was measured.
    pub fn annotations(&self, total: Duration) -> Vec<(String, String)> {
        if total <= THRESHOLD || self.0.is_empty() {
            return Vec::new();
        }
        let parts = self.0.iter().filter(|(_, took)| !took.is_zero());
        let parts = parts.map(|(layer, took)| (layer.name(), *took));
        parts
            .chain([("total", total)])
            .map(|(name, took)| (format!("{PREFIX}{name}"), base::time::go_duration(took)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_request_is_told_where_its_time_went() {
        let ms = Duration::from_millis;
        let mut latencies = Latencies::default();
        assert!(latencies.annotations(ms(900)).is_empty(), "nothing was measured");
        for (layer, took) in [
            (Layer::Store, ms(100)),
            (Layer::Store, ms(50)),
            (Layer::ValidatingWebhook, ms(200)),
            (Layer::ValidatingWebhook, ms(300)),
            (Layer::ValidatingWebhook, ms(10)),
            (Layer::Authentication, Duration::ZERO),
        ] {
            latencies.add(layer, took);
        }
        assert!(latencies.annotations(ms(500)).is_empty(), "quick enough");
        let told = latencies.annotations(Duration::from_micros(1_500_250));
        let expected = [
            ("apiserver.latency.k8s.io/validating-webhook", "300ms"),
            ("apiserver.latency.k8s.io/etcd", "150ms"),
            ("apiserver.latency.k8s.io/total", "1.50025s"),
        ];
        assert_eq!(told, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
