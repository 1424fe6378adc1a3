//! When an answer counts.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As events spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl From<&Probe> for Timing {
    fn from(probe: &Probe) -> Self {
        let positive = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(u64::from(positive(value, default)));
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: positive(probe.success_threshold, 1),
            failure_threshold: positive(probe.failure_threshold, 3),
        }
    }
}

/// What the answers so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
}

/// Counts answers of one probe of one container run.
#[derive(Clone, Debug)]
pub struct ProbeState {
    timing: Timing,
    last: Option<bool>,
    run: u32,
    verdict: Verdict,
}

impl ProbeState {
    /// Until proven otherwise a container is alive, not ready, and not started.
    pub fn new(kind: ProbeKind, timing: Timing) -> Self {
        let verdict = if kind == ProbeKind::Liveness { Verdict::Success } else { Verdict::Failure };
        Self { timing, last: None, run: 0, verdict }
    }

    /// Counts an answer; returns the verdict when an answer has reached its threshold. A failing probe that goes on
    /// failing is told once.
    pub fn observe(&mut self, success: bool) -> Option<Verdict> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.timing.success_threshold } else { self.timing.failure_threshold };
        let reached = if success { Verdict::Success } else { Verdict::Failure };
        // A startup probe begins as failed but its first real failure must still be told.
        let news = self.verdict != reached || (!success && self.run == threshold);
        if self.run < threshold || !news {
            return None;
        }
        self.verdict = reached;
        Some(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(kind: ProbeKind, answers: &str) -> String {
        let timing = Timing {
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success_threshold: 2,
            failure_threshold: 3,
        };
        let mut state = ProbeState::new(kind, timing);
        let told = answers.chars().map(|answer| match state.observe(answer == '+') {
            Some(Verdict::Success) => 'S',
            Some(Verdict::Failure) => 'F',
            None => '.',
        });
        told.collect()
    }

    #[test]
    fn thresholds_must_be_reached_in_a_row() {
        let cases = [
            (ProbeKind::Readiness, "++-+--+---++", ".S.......F.S"),
            (ProbeKind::Readiness, "-----", "..F.."),
            (ProbeKind::Startup, "---", "..F"),
            (ProbeKind::Liveness, "+++---", ".....F"),
        ];
        for (kind, answers, expected) in cases {
            assert_eq!(verdicts(kind, answers), expected, "{kind:?} {answers}");
        }
    }
}
