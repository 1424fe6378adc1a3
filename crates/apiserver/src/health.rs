//! `/healthz`, `/livez` and `/readyz`: the whole, one check of it, and the list of all as the original prints it.

use ::http::StatusCode;
use ::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;

use crate::http::query::Query;
use crate::http::respond::{self, Answer};

/// The one check that takes asking somebody.
pub const KMS: &str = "kms-providers";

#[derive(Clone, Debug)]
pub struct Check {
    pub name: &'static str,
    pub fault: Option<String>,
    asked_by: AskedBy,
}

/// Which of the three asks for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskedBy {
    All,
    /// Whether requests may come.
    Readyz,
    /// All but whether it lives: to start it anew would mend nothing.
    NotLivez,
}

impl AskedBy {
    fn includes(self, root: &str) -> bool {
        match self {
            Self::All => true,
            Self::Readyz => root == "readyz",
            Self::NotLivez => root != "livez",
        }
    }
}

/// What a check is of.
#[derive(Clone, Copy)]
enum Of {
    /// What is there as soon as the server answers.
    Server,
    Kinds,
    /// What every cluster is given.
    Cluster,
}

/// The checks of what begins once the server has, in the original's order and by its names.
const HOOKS: &[(&str, Of)] = &[
    ("poststarthook/generic-apiserver-start-informers", Of::Server),
    ("poststarthook/priority-and-fairness-config-consumer", Of::Server),
    ("poststarthook/priority-and-fairness-filter", Of::Server),
    ("poststarthook/start-apiextensions-informers", Of::Kinds),
    ("poststarthook/start-apiextensions-controllers", Of::Kinds),
    ("poststarthook/crd-informer-synced", Of::Kinds),
    ("poststarthook/start-system-namespaces-controller", Of::Cluster),
    ("poststarthook/start-cluster-authentication-info-controller", Of::Cluster),
    ("poststarthook/storage-readiness", Of::Server),
    ("poststarthook/start-legacy-token-tracking-controller", Of::Server),
    ("poststarthook/rbac/bootstrap-roles", Of::Cluster),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Of::Cluster),
    ("poststarthook/priority-and-fairness-config-producer", Of::Server),
    ("poststarthook/bootstrap-controller", Of::Cluster),
    ("poststarthook/start-kubernetes-service-cidr-controller", Of::Cluster),
    ("poststarthook/start-kube-aggregator-informers", Of::Server),
    ("poststarthook/apiservice-status-local-available-controller", Of::Server),
    ("poststarthook/apiservice-status-remote-available-controller", Of::Server),
    ("poststarthook/apiservice-registration-controller", Of::Server),
    ("poststarthook/apiservice-discovery-controller", Of::Server),
    ("poststarthook/kube-apiserver-autoregistration", Of::Cluster),
    ("autoregister-completion", Of::Cluster),
    ("poststarthook/apiservice-openapi-controller", Of::Server),
    ("poststarthook/apiservice-openapiv3-controller", Of::Server),
];

/// The checks by the names by which people and tools exclude them. `kms` is how those are who keep keys, where there is a
/// check of it; `reloads` whether encryption's configuration is read again when it changes; `settled` whether the cluster has
/// the roles and all else that every cluster has.
pub fn checks(
    etcd: Result<(), String>,
    kms: Option<Result<(), String>>,
    reloads: bool,
    kinds: Result<(), String>,
    settled: Result<(), String>,
) -> Vec<Check> {
    let asked =
        |name, result: &Result<(), String>, asked_by| Check { name, fault: result.clone().err(), asked_by };
    let check = |name, result: &Result<(), String>| asked(name, result, AskedBy::All);
    let ready = |name, result: &Result<(), String>| asked(name, result, AskedBy::Readyz);
    let mut all = vec![
        check("ping", &Ok(())),
        check("log", &Ok(())),
        check("etcd", &etcd),
        ready("etcd-readiness", &etcd),
    ];
    all.extend(kms.map(|kms| asked(KMS, &kms, AskedBy::NotLivez)));
    all.push(ready("informer-sync", &kinds));
    // Those of what is there at once, of the kinds, and of what every cluster is given.
    all.extend(HOOKS.iter().map(|(name, of)| match of {
        Of::Server => check(name, &Ok(())),
        Of::Kinds => check(name, &kinds),
        Of::Cluster => asked(name, &settled, AskedBy::NotLivez),
    }));
    all.extend(
        reloads.then(|| check("poststarthook/start-encryption-provider-config-automatic-reload", &Ok(()))),
    );
    all.push(ready("shutdown", &Ok(())));
    all
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

    /// Whether it is to be known how this one is.
    pub fn asks_for(&self, name: &str) -> bool {
        let of_root = name != KMS || AskedBy::NotLivez.includes(&self.root);
        of_root
            && self.one.as_deref().is_none_or(|one| one == name)
            && !self.excluded.iter().any(|n| n == name)
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
        let mut checks = checks.iter().filter(|check| check.asked_by.includes(root));
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
        told_with(path, checks(etcd, None, false, Ok(()), Ok(())))
    }

    fn told_with(path: &str, checks: Vec<Check>) -> (u16, String) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let probe = Probe::parse(path, &Query::parse(query)).expect("a probe");
        let (code, text) = probe.told(&checks);
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

    #[test]
    fn those_who_keep_keys_are_asked_for_where_they_are() {
        let told = |path: &str, kms: Option<Result<(), String>>| {
            told_with(path, checks(Ok(()), kms, true, Ok(()), Ok(())))
        };
        assert_eq!(told("/readyz/kms-providers", None).0, 404);
        assert_eq!(told("/readyz/kms-providers", Some(Ok(()))), (200, "ok".into()));
        for root in ["readyz", "healthz"] {
            let (code, text) = told(&format!("/{root}"), Some(Err("gone".into())));
            assert!(code == 500 && text.contains("[-]kms-providers failed: reason withheld\n"), "{text}");
            let one = told(&format!("/{root}/kms-providers"), Some(Err("gone".into())));
            assert_eq!(one, (500, "internal server error: gone\n".into()));
        }
        assert_eq!(told("/livez", Some(Err("gone".into()))), (200, "ok".into()));
        let asks = |path: &str| {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            Probe::parse(path, &Query::parse(query)).expect("a probe").asks_for(KMS)
        };
        assert!(asks("/readyz") && asks("/healthz") && asks("/readyz/kms-providers"));
        assert!(!asks("/livez") && !asks("/readyz/ping") && !asks("/readyz?exclude=kms-providers"));
        assert_eq!(
            told("/livez/poststarthook/start-encryption-provider-config-automatic-reload", None).0,
            200
        );
    }
}
