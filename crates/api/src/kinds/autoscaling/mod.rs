//! `autoscaling`: `HorizontalPodAutoscaler`, stored as v2 and served as v2 and v1.

mod metrics;
mod v1;
mod v2;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    let stored = v2::kind();
    let older = v1::kind(&stored);
    vec![stored, older]
}
