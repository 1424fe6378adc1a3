//! Tokens in Secrets that controllers made for each account, as they did before v1.24, and that nobody has used for a year:
//! such a Secret is first marked, by which its token is no longer believed, and deleted when it has been marked for a year
//! and nobody has taken the mark off. Secrets that people have made themselves are never touched, nor what a pod names.

use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, Preconditions};
use serde_json::{Value, json};

use crate::context::{self, Context};
use crate::meta;
use crate::token_secrets::{ACCOUNT_UID, account_of, annotation};

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Says since when it is noted when a token was used.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
const UNUSED: SignedDuration = SignedDuration::from_hours(365 * 24);
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

pub fn start(context: &Context) -> Vec<Controller> {
    let secrets = context.caches.of::<Secret>();
    let accounts = context.caches.of::<ServiceAccount>();
    let maps = context.caches.of::<ConfigMap>();
    let cleaner = Cleaner {
        context: context.clone(),
        secrets: Arc::clone(&secrets),
        accounts: Arc::clone(&accounts),
        maps: Arc::clone(&maps),
    };
    let controller = Controller::new("legacyserviceaccounttokencleaner", cleaner)
        .watches(&secrets, |change| match account_of(change.object()) {
            Some(_) => vec![Key::of(&**change.object())],
            None => Vec::new(),
        })
        .watches(&accounts, |_| Vec::new())
        .watches(&maps, |_| Vec::new());
    vec![controller]
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Keep,
    /// Its token is no longer to be believed, from this day on.
    Mark(String),
    Delete,
}

/// A day as labels spell it.
fn date(text: &str) -> Option<Date> {
    text.parse::<Date>().ok().filter(|date| date.to_string() == text)
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Whether it has been noted for long enough which tokens are used. The day on which that began is not counted.
fn is_tracked(map: Option<&ConfigMap>, now: Timestamp) -> bool {
    let since = map.and_then(|map| map.data.as_ref()?.get("since")).and_then(|since| date(since));
    let begun = since.and_then(|since| since.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok());
    begun.is_some_and(|begun| now.duration_since(begun.timestamp()) >= UNUSED)
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, now: Timestamp) -> Plan {
    let name = meta::name(&secret.metadata);
    let before = now - UNUSED;
    if meta::is_deleting(&secret.metadata) || meta::created(&secret.metadata) >= before {
        return Plan::Keep;
    }
    // A day that nobody can read says nothing of when it was.
    let label = |key: &str| meta::labels(&secret.metadata).get(key).map(String::as_str);
    if label(LAST_USED).is_some_and(|used| date(used).is_none() || used >= day(before).as_str()) {
        return Plan::Keep;
    }
    let uid = annotation(secret, ACCOUNT_UID);
    let account = account.filter(|account| uid.is_empty() || meta::uid(&account.metadata) == uid);
    let mut listed = account.into_iter().flat_map(|account| account.secrets.iter().flatten());
    if !listed.any(|reference| reference.name.as_deref() == Some(name)) {
        return Plan::Keep;
    }
    match label(INVALID_SINCE).filter(|since| date(since).is_some()) {
        None => Plan::Mark(day(now)),
        Some(since) if since >= day(before).as_str() => Plan::Keep,
        Some(_) => Plan::Delete,
    }
}

/// Whether a pod says the name at all, wherever it stands: rather one Secret too many than a pod without its own.
fn names(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(list) => list.iter().any(|value| names(value, name)),
        Value::Object(map) => map.values().any(|value| names(value, name)),
        _ => false,
    }
}

struct Cleaner {
    context: Context,
    secrets: Arc<Cache<Secret>>,
    accounts: Arc<Cache<ServiceAccount>>,
    maps: Arc<Cache<ConfigMap>>,
}

impl Reconciler for Cleaner {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(secret) = self.secrets.get(&key) else { return Ok(Next::OnChange) };
            let Some(account) = account_of(&secret) else { return Ok(Next::OnChange) };
            let (now, account) = (base::time::now(), self.accounts.get(&Key::new(&key.namespace, account)));
            let tracking = self.maps.get(&Key::new(TRACKING.0, TRACKING.1));
            if is_tracked(tracking.as_deref(), now) {
                self.act(&secret, plan(&secret, account.as_deref(), now)).await?;
            }
            Ok(Next::After(LOOK_EVERY))
        })
    }
}

impl Cleaner {
    async fn act(&self, secret: &Secret, plan: Plan) -> Result<(), kube::Error> {
        let (namespace, name) = (meta::namespace(&secret.metadata), meta::name(&secret.metadata));
        if plan == Plan::Keep || self.is_named_by_a_pod(namespace, name).await? {
            return Ok(());
        }
        let secrets: Api<Secret> = self.context.api(namespace);
        match plan {
            Plan::Keep => Ok(()),
            Plan::Mark(day) => {
                let patch =
                    json!({"metadata": {"uid": meta::uid(&secret.metadata), "labels": {INVALID_SINCE: day}}});
                let marked = secrets.patch(name, &context::params_patch(), &Patch::Merge(patch)).await;
                context::ignore_existing(context::ignore_missing(marked))
            }
            Plan::Delete => {
                // As it was looked at: somebody may have used it since.
                let resource_version = secret.metadata.resource_version.clone();
                let exactly = Preconditions { uid: secret.metadata.uid.clone(), resource_version };
                let how = DeleteParams { preconditions: Some(exactly), ..Default::default() };
                context::ignore_existing(context::ignore_missing(secrets.delete(name, &how).await))
            }
        }
    }

    /// Asked of the server, for what containers are given is left out of caches.
    async fn is_named_by_a_pod(&self, namespace: &str, name: &str) -> Result<bool, kube::Error> {
        let pods: Api<Pod> = self.context.api(namespace);
        let pods = pods.list(&ListParams::default()).await?;
        let spec = |pod: &Pod| serde_json::to_value(&pod.spec).unwrap_or_default();
        Ok(pods.iter().any(|pod| names(&spec(pod), name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn check(change: impl Fn(&mut Secret, &mut ServiceAccount), expected: Plan) {
        let mut secret =
            Secret { type_: Some("kubernetes.io/service-account-token".into()), ..Default::default() };
        secret.metadata.name = Some("s".into());
        secret.metadata.creation_timestamp = Some(Time(time("2020-01-01T00:00:00Z")));
        let annotations = [("kubernetes.io/service-account.name", "sa"), (ACCOUNT_UID, "u1")];
        secret.metadata.annotations = Some(annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let mut account = ServiceAccount::default();
        account.metadata.uid = Some("u1".into());
        account.secrets = Some(vec![ObjectReference { name: Some("s".into()), ..Default::default() }]);
        change(&mut secret, &mut account);
        assert_eq!(plan(&secret, Some(&account), time("2026-06-15T12:00:00Z")), expected, "{secret:?}");
    }

    fn label(secret: &mut Secret, key: &str, value: &str) {
        secret.metadata.labels.get_or_insert_default().insert(key.into(), value.into());
    }

    #[test]
    fn what_nobody_has_used_for_a_year_is_marked_and_a_year_later_deleted() {
        let mark = || Plan::Mark("2026-06-15".into());
        check(|_, _| (), mark());
        check(|s, _| label(s, LAST_USED, "2025-06-14"), mark());
        check(|s, _| label(s, LAST_USED, "2025-06-15"), Plan::Keep);
        check(|s, _| label(s, LAST_USED, "some day"), Plan::Keep);
        check(|s, _| label(s, INVALID_SINCE, "2025-06-15"), Plan::Keep);
        check(|s, _| label(s, INVALID_SINCE, "2025-06-14"), Plan::Delete);
        check(|s, _| label(s, INVALID_SINCE, "20250614"), mark());
        let used_again = |s: &mut Secret, _: &mut ServiceAccount| {
            label(s, INVALID_SINCE, "2025-06-14");
            label(s, LAST_USED, "2026-06-14");
        };
        check(used_again, Plan::Keep);
    }

    #[test]
    fn what_is_young_or_goes_or_was_made_by_people_is_kept() {
        check(|s, _| s.metadata.creation_timestamp = Some(Time(time("2025-06-15T12:00:00Z"))), Plan::Keep);
        check(|s, _| s.metadata.deletion_timestamp = Some(Time(time("2026-06-15T11:00:00Z"))), Plan::Keep);
        check(|_, account| account.secrets = None, Plan::Keep);
        check(|_, account| account.metadata.uid = Some("u2".into()), Plan::Keep);
    }

    #[test]
    fn nothing_is_judged_before_uses_were_noted_for_a_year() {
        let tracked = |since: Option<&str>, now: &str| {
            let data = since.map(|since| [("since".to_owned(), since.to_owned())].into());
            is_tracked(Some(&ConfigMap { data, ..Default::default() }), time(now))
        };
        assert!(tracked(Some("2025-06-13"), "2026-06-14T00:00:00Z"));
        assert!(!tracked(Some("2025-06-13"), "2026-06-13T23:59:59Z"), "the first day is not counted");
        assert!(!tracked(Some("long ago"), "2026-06-14T00:00:00Z"));
        assert!(!tracked(None, "2026-06-14T00:00:00Z"));
        assert!(!is_tracked(None, time("2026-06-14T00:00:00Z")));
    }

    #[test]
    fn what_a_pod_names_anywhere_is_used() {
        let spec = json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}}]}]});
        assert!(names(&spec, "s"));
        assert!(!names(&spec, "t"));
    }
}
