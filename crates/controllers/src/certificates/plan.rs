//! What is next for a certificate request. Pure.

use std::time::Duration;

use api::csr::{self, Request};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// A request that nobody decides on goes after this.
pub const PENDING: Duration = Duration::from_secs(24 * 3600);
/// One that is decided on goes after this: its certificate has been fetched by then, or will never be.
const DECIDED: Duration = Duration::from_secs(3600);

/// A right by which an agent's request is approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub right: &'static str,
    pub message: &'static str,
}

/// An agent that has a certificate asks for the next one.
const RENEWS: Candidate = Candidate {
    right: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
/// Somebody asks for the first one of an agent.
const BEGINS: Candidate = Candidate {
    right: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// In so many seconds.
    LookAgain(u64),
    Delete,
    /// Approve it if one of these rights is its author's.
    Ask(Vec<Candidate>),
    Sign,
}

pub fn next(request: &CertificateSigningRequest, now: Timestamp) -> Step {
    if request.metadata.deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    let status = request.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let since = |kind: &str| {
        let condition = conditions.iter().find(|c| c.type_ == kind);
        condition.map(|c| c.last_update_time.as_ref().map_or(now, |t| t.0))
    };
    let signed = status.certificate.is_some_and(|c| !c.0.is_empty());
    let ours = [csr::CLIENT, csr::NODE_CLIENT, csr::NODE_SERVING, csr::LEGACY];
    let ours = ours.contains(&request.spec.signer_name.as_str());
    let decided = since("Denied").or_else(|| since("Failed")).or_else(|| since("Approved"));
    let made = request.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let until = match decided {
        Some(at) => at.as_second() + seconds(DECIDED),
        None => made.as_second() + seconds(PENDING),
    };
    if until <= now.as_second() {
        return Step::Delete;
    }
    let approved = since("Approved").is_some() && since("Denied").or_else(|| since("Failed")).is_none();
    if approved && !signed && ours {
        return Step::Sign;
    }
    let candidates = match decided {
        None => candidates(request),
        Some(_) => Vec::new(),
    };
    match candidates.is_empty() {
        true => Step::LookAgain(u64::try_from(until - now.as_second()).unwrap_or_default()),
        false => Step::Ask(candidates),
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn candidates(request: &CertificateSigningRequest) -> Vec<Candidate> {
    let spec = &request.spec;
    let usages = spec.usages.clone().unwrap_or_default();
    if spec.signer_name != csr::NODE_CLIENT {
        return Vec::new();
    }
    let Ok(asked) = Request::parse(&spec.request.0) else { return Vec::new() };
    if csr::objection(csr::NODE_CLIENT, &asked, &usages).is_some() {
        return Vec::new();
    }
    match spec.username.as_deref() == Some(asked.common_name.as_str()) {
        true => vec![RENEWS, BEGINS],
        false => vec![BEGINS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use serde_json::{Value, json};

    /// The request of an agent `n1`, made beforehand by openssl.
    const AGENT: &str = include_str!("agent.csr");

    fn check(user: &str, signer: &str, status: Value, after_seconds: i64, expected: Step) {
        let request = api_object(user, signer, status);
        assert_eq!(next(&request, at(after_seconds)), expected, "{user} {signer}");
    }

    fn api_object(user: &str, signer: &str, status: Value) -> CertificateSigningRequest {
        let request = base::id::base64(AGENT.as_bytes());
        let object = json!({"metadata": {"name": "r", "creationTimestamp": at(0).to_string()}, "status": status,
            "spec": {"request": request, "signerName": signer, "usages": ["client auth", "digital signature"], "username": user}});
        serde_json::from_value(object).expect("a request")
    }

    fn condition(kind: &str) -> Value {
        json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": at(0).to_string()}]})
    }

    #[test]
    fn an_agents_request_is_approved_signed_and_cleared_away() {
        check("boot", csr::NODE_CLIENT, json!({}), 1, Step::Ask(vec![BEGINS]));
        check("system:node:n1", csr::NODE_CLIENT, json!({}), 1, Step::Ask(vec![RENEWS, BEGINS]));
        check("boot", csr::NODE_CLIENT, condition("Approved"), 1, Step::Sign);
        check("boot", csr::NODE_CLIENT, json!({}), 24 * 3600, Step::Delete);
        let mut signed = condition("Approved");
        signed["certificate"] = "AAAA".into();
        check("boot", csr::NODE_CLIENT, signed.clone(), 1, Step::LookAgain(3599));
        check("boot", csr::NODE_CLIENT, signed, 3600, Step::Delete);
    }

    #[test]
    fn nothing_else_is_approved_by_itself_and_nobody_elses_signer_is_served() {
        check("jane", csr::CLIENT, json!({}), 0, Step::LookAgain(24 * 3600));
        check("jane", csr::CLIENT, condition("Approved"), 1, Step::Sign);
        check("jane", "example.com/mine", condition("Approved"), 1, Step::LookAgain(3599));
        check("jane", csr::CLIENT, condition("Denied"), 1, Step::LookAgain(3599));
        let mut both = condition("Approved");
        both["conditions"].as_array_mut().expect("a list").push(condition("Failed")["conditions"][0].clone());
        check("jane", csr::CLIENT, both, 1, Step::LookAgain(3599));
    }
}
