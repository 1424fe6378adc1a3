//! How far a rollout may go above and below the number of pods asked for.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::percent::{Round, scaled};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub desired: i32,
    pub surge: i32,
    pub unavailable: i32,
}

impl Limits {
    pub fn of(spec: &DeploymentSpec) -> Self {
        let desired = spec.replicas.unwrap_or(1);
        if is_recreate(spec) {
            return Self { desired, surge: 0, unavailable: 0 };
        }
        let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.clone()).unwrap_or_default();
        let share = |value: Option<_>, round| match value {
            Some(value) => scaled(&value, desired, round),
            None => scaled(&IntOrString::String("25%".into()), desired, round),
        };
        let surge = share(rolling.max_surge, Round::Up);
        let mut unavailable = share(rolling.max_unavailable, Round::Down).min(desired);
        if surge == 0 && unavailable == 0 {
            // Shares of a small number can both come to nothing, and nothing could ever move.
            unavailable = 1;
        }
        Self { desired, surge, unavailable }
    }

    /// The most pods there may be.
    pub fn total(&self) -> i32 {
        self.desired.saturating_add(self.surge)
    }

    /// The fewest available pods there should be.
    pub fn available(&self) -> i32 {
        (self.desired - self.unavailable).max(0)
    }
}

pub fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}
