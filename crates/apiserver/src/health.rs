//! `/healthz`, `/livez` and `/readyz`: the whole, one check of it, and the list of all as the original prints it.

use ::http::StatusCode;
use ::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;

use crate::http::query::Query;
use crate::http::respond::{self, Answer};

#[derive(Clone, Debug)]
pub struct Check {
    pub name: &'static str,
    pub fault: Option<String>,
    /// Only whether requests may come asks for it.
    readiness: bool,
}

/// The checks by the names by which people and tools exclude them.
pub fn checks(etcd: Result<(), String>, kinds: Result<(), String>) -> Vec<Check> {
    let check =
        |name, result: &Result<(), String>| Check { name, fault: result.clone().err(), readiness: false };
    let ready = |name, result: &Result<(), String>| Check { readiness: true, ..check(name, result) };
    vec![
        check("ping", &Ok(())),
        check("log", &Ok(())),
        check("etcd", &etcd),
        ready("etcd-readiness", &etcd),
        ready("informer-sync", &kinds),
        check("poststarthook/generic-apiserver-start-informers", &Ok(())),
        check("poststarthook/priority-and-fairness-config-consumer", &Ok(())),
        check("poststarthook/priority-and-fairness-filter", &Ok(())),
        check("poststarthook/crd-informer-synced", &kinds),
        check("poststarthook/rbac/bootstrap-roles", &Ok(())),
        check("poststarthook/priority-and-fairness-config-producer", &Ok(())),
        ready("shutdown", &Ok(())),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `healthz`, `livez` or `readyz`.
    root: String,
    one: Option<String>,
    verbose: bool,
    excluded: Vec<String>,
}

impl Probe {
    pub fn parse(path: &str, query: &Query) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.splitn(2, '/');
        let root = parts.next().filter(|root| matches!(*root, "healthz" | "livez" | "readyz"))?.to_owned();
        Some(Self {
            root,
            one: parts.next().map(str::to_owned),
            verbose: query.all("verbose").next().is_some(),
            excluded: query.all("exclude").map(str::to_owned).collect(),
        })
    }

    pub fn answer(&self, checks: &[Check]) -> Answer {
        let (code, text) = self.told(checks);
        let mut answer = respond::bytes(code, "text/plain; charset=utf-8", Bytes::from(text));
        let name = HeaderName::from_static("x-content-type-options");
        answer.headers_mut().insert(name, HeaderValue::from_static("nosniff"));
        answer
    }

    fn told(&self, checks: &[Check]) -> (StatusCode, String) {
        let Self { root, .. } = self;
        let mut checks = checks.iter().filter(|check| !check.readiness || root == "readyz");
        if let Some(one) = &self.one {
            return match checks.find(|check| check.name == one).map(|check| &check.fault) {
                Some(None) => (StatusCode::OK, "ok".to_owned()),
                Some(Some(fault)) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {fault}\n"))
                }
                None => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
            };
        }
        let mut excluded: Vec<&str> = self.excluded.iter().map(String::as_str).collect();
        let (mut text, mut well) = (String::new(), true);
        for check in checks {
            let before = excluded.len();
            excluded.retain(|name| *name != check.name);
            text += &match &check.fault {
                _ if excluded.len() < before => format!("[+]{} excluded: ok\n", check.name),
                None => format!("[+]{} ok\n", check.name),
                // Anybody may ask; what is wrong exactly is the log's business.
                Some(fault) => {
                    tracing::warn!(check = check.name, fault, "a health check failed");
                    well = false;
                    format!("[-]{} failed: reason withheld\n", check.name)
                }
            };
        }
        if !excluded.is_empty() {
            let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
            text +=
                &format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(","));
        }
        match (well, self.verbose) {
            (false, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{root} check failed\n")),
            (true, true) => (StatusCode::OK, format!("{text}{root} check passed\n")),
            (true, false) => (StatusCode::OK, "ok".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &str, etcd: Result<(), String>) -> (u16, String) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let probe = Probe::parse(path, &Query::parse(query)).expect("a probe");
        let (code, text) = probe.told(&checks(etcd, Ok(())));
        (code.as_u16(), text)
    }

    #[test]
    fn probes_as_people_ask_them() {
        assert_eq!(told("/livez", Ok(())), (200, "ok".into()));
        assert_eq!(told("/livez/ping", Ok(())), (200, "ok".into()));
        assert_eq!(told("/livez/nothing", Ok(())).0, 404);
        assert_eq!(told("/livez/shutdown", Ok(())).0, 404, "only readiness knows it");
        assert_eq!(told("/readyz/shutdown", Ok(())).0, 200);
        let (code, text) = told("/readyz?verbose", Ok(()));
        assert_eq!(code, 200);
        assert!(
            text.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n")
                && text.ends_with("readyz check passed\n"),
            "{text}"
        );
        let (code, text) = told("/livez?verbose&exclude=etcd&exclude=x", Err("gone".into()));
        assert_eq!(code, 200);
        assert!(text.contains("[+]etcd excluded: ok\n"), "{text}");
        assert!(
            text.contains("warn: some health checks cannot be excluded: no matches for \"x\"\n"),
            "{text}"
        );
        let (code, text) = told("/healthz", Err("gone".into()));
        assert_eq!(code, 500);
        assert!(
            text.contains("[-]etcd failed: reason withheld\n") && text.ends_with("healthz check failed\n"),
            "{text}"
        );
        assert_eq!(told("/healthz/etcd", Err("gone".into())), (500, "internal server error: gone\n".into()));
        assert_eq!(Probe::parse("/version", &Query::default()), None);
    }
}
