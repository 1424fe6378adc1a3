//! Secrets of the type `kubernetes.io/service-account-token`: one that names an account is given that account's token, the
//! authority's certificate and its namespace; one whose account is gone goes too. Nobody makes such Secrets by themselves
//! any more, since each pod has tokens of its own that end.

use std::fmt::Debug;
use std::sync::Arc;

use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::DeleteParams;

use crate::context::{self, Context};
use crate::meta;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const TOKEN: &str = "token";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// Holds the key by which the API server knows its tokens.
pub trait TokenSigner: Debug + Send + Sync + 'static {
    /// A token without an end, for a Secret of an account (its name and uid).
    fn sign(&self, namespace: &str, account: (&str, &str), secret: &str) -> Result<String, String>;
}

pub fn start(context: &Context) -> Vec<Controller> {
    let secrets = context.caches.of::<Secret>();
    let accounts = context.caches.of::<ServiceAccount>();
    let tokens =
        Tokens { context: context.clone(), secrets: Arc::clone(&secrets), accounts: Arc::clone(&accounts) };
    let references = References { context: context.clone(), secrets: Arc::clone(&secrets) };
    let held = Arc::clone(&secrets);
    vec![
        Controller::new("serviceaccounttokens", tokens)
            .watches(&secrets, |change| match account_of(change.object()) {
                Some(_) => vec![Key::of(&**change.object())],
                None => Vec::new(),
            })
            .watches(&accounts, move |change| {
                let account = change.object();
                let held = held.in_namespace(meta::namespace(&account.metadata));
                let theirs = held.iter().filter(|s| account_of(s) == Some(meta::name(&account.metadata)));
                theirs.map(|secret| Key::of(&**secret)).collect()
            }),
        Controller::new("serviceaccounttokenreferences", references).watches(&secrets, |change| {
            if change.new.is_none() { reference(change.object()) } else { Vec::new() }
        }),
    ]
}

/// The account that such a Secret names; nothing for any other Secret.
pub fn account_of(secret: &Secret) -> Option<&str> {
    let account = annotation(secret, ACCOUNT);
    (secret.type_.as_deref() == Some(TYPE) && !account.is_empty()).then_some(account)
}

pub fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Its account is gone.
    Delete,
    Fill(Lacks),
}

/// What is missing, or is not as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lacks {
    ca: bool,
    namespace: bool,
    token: bool,
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, ca_pem: &str) -> Plan {
    if meta::is_deleting(&secret.metadata) {
        return Plan::Nothing;
    }
    let uid = annotation(secret, ACCOUNT_UID);
    let Some(_) = account.filter(|account| uid.is_empty() || meta::uid(&account.metadata) == uid) else {
        return Plan::Delete;
    };
    match lacks(secret, ca_pem) {
        nothing if nothing == Lacks::default() => Plan::Nothing,
        lacks => Plan::Fill(lacks),
    }
}

fn lacks(secret: &Secret, ca_pem: &str) -> Lacks {
    let held = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |v| &v.0);
    Lacks {
        ca: !ca_pem.is_empty() && held(CA) != ca_pem.as_bytes(),
        namespace: held(NAMESPACE).is_empty(),
        token: held(TOKEN).is_empty(),
    }
}

/// The Secret with what it lacked. `token` is called where there is none.
fn filled(
    mut secret: Secret,
    account: &ServiceAccount,
    ca_pem: &str,
    token: impl FnOnce() -> Result<String, String>,
) -> Result<Secret, String> {
    let lacks = lacks(&secret, ca_pem);
    let namespace = meta::namespace(&secret.metadata).to_owned();
    let data = secret.data.get_or_insert_default();
    let mut set = |key: &str, value: String| data.insert(key.to_owned(), ByteString(value.into_bytes()));
    if lacks.ca {
        set(CA, ca_pem.to_owned());
    }
    if lacks.namespace {
        set(NAMESPACE, namespace);
    }
    if lacks.token {
        set(TOKEN, token()?);
    }
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT.into(), meta::name(&account.metadata).into());
    annotations.insert(ACCOUNT_UID.into(), meta::uid(&account.metadata).into());
    Ok(secret)
}

#[derive(Debug, PartialEq)]
enum Decided {
    Nothing,
    Delete,
    /// With this account's token.
    Fill(Box<ServiceAccount>),
}

/// What is done with a Secret. A cache may lag behind: its word is enough to leave a Secret alone, but before one is deleted,
/// and before a token is signed for an account that may be gone or be a namesake by now, the account is read itself.
async fn decide<E, F>(
    secret: &Secret,
    cached: Option<&ServiceAccount>,
    ca_pem: &str,
    read: impl FnOnce() -> F,
) -> Result<Decided, E>
where
    F: Future<Output = Result<Option<ServiceAccount>, E>>,
{
    if plan(secret, cached, ca_pem) == Plan::Nothing {
        return Ok(Decided::Nothing);
    }
    let account = read().await?;
    Ok(match (plan(secret, account.as_ref(), ca_pem), account) {
        (Plan::Nothing, _) => Decided::Nothing,
        (Plan::Fill(_), Some(account)) => Decided::Fill(Box::new(account)),
        (Plan::Delete | Plan::Fill(_), _) => Decided::Delete,
    })
}

struct Tokens {
    context: Context,
    secrets: Arc<Cache<Secret>>,
    accounts: Arc<Cache<ServiceAccount>>,
}

impl Reconciler for Tokens {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            if let Some(secret) = self.secrets.get(&key) {
                self.sync(&secret).await?;
            }
            Ok(Next::OnChange)
        })
    }
}

impl Tokens {
    async fn sync(&self, secret: &Secret) -> Result<(), kube::Error> {
        let Some(name) = account_of(secret) else { return Ok(()) };
        let namespace = meta::namespace(&secret.metadata);
        let ca_pem = &self.context.config.cluster_ca_pem;
        let accounts: Api<ServiceAccount> = self.context.api(namespace);
        let cached = self.accounts.get(&Key::new(namespace, name));
        let decided = decide(secret, cached.as_deref(), ca_pem, || accounts.get_opt(name)).await?;
        let secrets: Api<Secret> = self.context.api(namespace);
        match decided {
            Decided::Nothing => Ok(()),
            Decided::Fill(account) => self.fill(&secrets, secret, &account).await,
            Decided::Delete => {
                context::delete_exactly(&secrets, &secret.metadata, DeleteParams::default()).await
            }
        }
    }

    async fn fill(
        &self,
        secrets: &Api<Secret>,
        cached: &Secret,
        account: &ServiceAccount,
    ) -> Result<(), kube::Error> {
        let name = meta::name(&cached.metadata);
        // Caches leave things out; what is written back is read for that.
        let Some(live) = secrets.get_opt(name).await? else { return Ok(()) };
        if live.metadata.resource_version != cached.metadata.resource_version {
            // Another change is on its way, and with it another turn.
            return Ok(());
        }
        let config = &self.context.config;
        let of = (meta::name(&account.metadata), meta::uid(&account.metadata));
        let sign = || config.tokens.sign(meta::namespace(&live.metadata), of, name);
        match filled(live.clone(), account, &config.cluster_ca_pem, sign) {
            Ok(new) => context::ignore_existing(context::ignore_missing(
                secrets.replace(name, &context::params(), &new).await,
            )),
            Err(error) => {
                Err(kube::Error::Service(format!("cannot sign a token for {name}: {error}").into()))
            }
        }
    }
}

/// Of a Secret that is gone: which account may still list it. All three have names without slashes.
fn reference(secret: &Secret) -> Vec<Key> {
    let Some(account) = account_of(secret) else { return Vec::new() };
    let uid = annotation(secret, ACCOUNT_UID);
    let name = format!("{account}/{uid}/{}", meta::name(&secret.metadata));
    vec![Key::new(meta::namespace(&secret.metadata), &name)]
}

/// Takes Secrets that are gone out of the lists of their accounts.
struct References {
    context: Context,
    secrets: Arc<Cache<Secret>>,
}

impl Reconciler for References {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let parts: Vec<&str> = key.name.split('/').collect();
            let [account, uid, secret] = parts.as_slice() else { return Ok(Next::OnChange) };
            if self.secrets.get(&Key::new(&key.namespace, *secret)).is_some() {
                return Ok(Next::OnChange);
            }
            let accounts: Api<ServiceAccount> = self.context.api(&key.namespace);
            if let Some(found) = accounts.get_opt(account).await?
                && let Some(new) = without(found, uid, secret)
            {
                context::ignore_missing(accounts.replace(account, &context::params(), &new).await)?;
            }
            Ok(Next::OnChange)
        })
    }
}

/// The account without a Secret in its list; nothing when it is another account, or has it not.
fn without(mut account: ServiceAccount, uid: &str, secret: &str) -> Option<ServiceAccount> {
    if !uid.is_empty() && meta::uid(&account.metadata) != uid {
        return None;
    }
    let listed = account.secrets.as_mut()?;
    let before = listed.len();
    listed.retain(|reference| reference.name.as_deref() != Some(secret));
    (listed.len() < before).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use k8s_openapi::api::core::v1::ObjectReference;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn account(uid: &str) -> ServiceAccount {
        let mut account = ServiceAccount::default();
        account.metadata.namespace = Some("ns".into());
        account.metadata.name = Some("sa".into());
        account.metadata.uid = Some(uid.into());
        account
    }

    fn secret(change: impl Fn(&mut Secret)) -> Secret {
        let mut secret = Secret { type_: Some(TYPE.into()), ..Default::default() };
        secret.metadata.namespace = Some("ns".into());
        secret.metadata.name = Some("s".into());
        secret.metadata.annotations = Some([(ACCOUNT.to_owned(), "sa".to_owned())].into());
        change(&mut secret);
        secret
    }

    fn set(secret: &mut Secret, key: &str, value: &str) {
        secret.data.get_or_insert_default().insert(key.into(), ByteString(value.as_bytes().to_vec()));
    }

    fn whole(secret: &mut Secret) {
        set(secret, CA, "pem");
        set(secret, NAMESPACE, "ns");
        set(secret, TOKEN, "t");
        secret.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.into(), "u1".into());
    }

    #[test]
    fn a_secret_is_filled_while_its_account_is_there_and_goes_with_it() {
        let check = |change: &dyn Fn(&mut Secret), account: Option<&ServiceAccount>, expected: Plan| {
            let secret = secret(change);
            assert_eq!(plan(&secret, account, "pem"), expected, "{secret:?}");
        };
        let (one, two) = (account("u1"), account("u2"));
        let all = Lacks { ca: true, namespace: true, token: true };
        check(&|_| (), Some(&one), Plan::Fill(all));
        check(&whole, Some(&one), Plan::Nothing);
        check(&whole, Some(&two), Plan::Delete);
        check(&whole, None, Plan::Delete);
        check(&|_| (), None, Plan::Delete);
        let ca = Lacks { ca: true, ..Lacks::default() };
        check(
            &|s| {
                whole(s);
                set(s, CA, "old")
            },
            Some(&one),
            Plan::Fill(ca),
        );
        let token = Lacks { token: true, ..Lacks::default() };
        check(
            &|s| {
                whole(s);
                set(s, TOKEN, "")
            },
            Some(&one),
            Plan::Fill(token),
        );
        let going = |s: &mut Secret| s.metadata.deletion_timestamp = Some(Time(at(0)));
        check(
            &|s| {
                whole(s);
                going(s)
            },
            None,
            Plan::Nothing,
        );
        assert_eq!(plan(&secret(whole), Some(&one), ""), Plan::Nothing, "there is no authority to tell of");
    }

    #[tokio::test]
    async fn the_cache_alone_neither_fills_nor_deletes() {
        let check = async |secret: Secret, cached: Option<&str>, live: Option<&str>, expected: Decided| {
            let (cached, live) = (cached.map(account), live.map(account));
            let read = async || Ok::<_, ()>(live);
            assert_eq!(decide(&secret, cached.as_ref(), "pem", read).await, Ok(expected), "{secret:?}");
        };
        let fill = |uid: &str| Decided::Fill(Box::new(account(uid)));
        let known = |s: &mut Secret| {
            s.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.into(), "u1".into());
        };
        check(secret(|_| ()), Some("u1"), Some("u1"), fill("u1")).await;
        // Gone, or another by the same name, and the cache does not know it yet.
        check(secret(|_| ()), Some("u1"), None, Decided::Delete).await;
        check(secret(|_| ()), Some("u1"), Some("u2"), fill("u2")).await;
        check(secret(known), Some("u1"), Some("u2"), Decided::Delete).await;
        // There, and the cache does not know that yet.
        check(secret(|_| ()), None, Some("u1"), fill("u1")).await;
        check(secret(whole), Some("u2"), Some("u1"), Decided::Nothing).await;
        let unread = async || -> Result<Option<ServiceAccount>, ()> { panic!("nothing is to be done") };
        assert_eq!(decide(&secret(whole), Some(&account("u1")), "pem", unread).await, Ok(Decided::Nothing));
        let down = async || Err::<Option<ServiceAccount>, _>("down");
        assert_eq!(decide(&secret(|_| ()), Some(&account("u1")), "pem", down).await, Err("down"));
    }

    #[test]
    fn what_is_there_stays_and_what_lacks_is_put_in() {
        let text = |secret: &Secret, key: &str| {
            let data = secret.data.as_ref().expect("data");
            String::from_utf8(data[key].0.clone()).expect("text")
        };
        let new = filled(secret(|s| set(s, "own", "x")), &account("u1"), "pem", || Ok("made".into()));
        let new = new.expect("a token");
        for (key, value) in [(CA, "pem"), (NAMESPACE, "ns"), (TOKEN, "made"), ("own", "x")] {
            assert_eq!(text(&new, key), value);
        }
        assert_eq!((annotation(&new, ACCOUNT), annotation(&new, ACCOUNT_UID)), ("sa", "u1"));
        assert_eq!(plan(&new, Some(&account("u1")), "pem"), Plan::Nothing, "once is enough");
        let kept = filled(secret(whole), &account("u1"), "new", || panic!("there is one")).expect("a token");
        assert_eq!((text(&kept, TOKEN), text(&kept, CA)), ("t".into(), "new".into()));
        assert!(filled(secret(|_| ()), &account("u1"), "pem", || Err("no key".into())).is_err());
    }

    #[test]
    fn only_secrets_of_the_type_that_name_an_account_are_looked_at() {
        assert_eq!(account_of(&secret(|_| ())), Some("sa"));
        assert_eq!(account_of(&secret(|s| s.type_ = Some("Opaque".into()))), None);
        assert_eq!(account_of(&secret(|s| s.metadata.annotations = None)), None);
    }

    #[test]
    fn an_account_loses_a_secret_that_is_gone_and_no_other() {
        let listing = |names: &[&str]| {
            let list =
                names.iter().map(|n| ObjectReference { name: Some((*n).into()), ..Default::default() });
            ServiceAccount { secrets: Some(list.collect()), ..account("u1") }
        };
        let left = |uid: &str, secret: &str| {
            without(listing(&["a", "b"]), uid, secret)
                .map(|new| new.secrets.into_iter().flatten().filter_map(|r| r.name).collect::<Vec<_>>())
        };
        assert_eq!(left("u1", "a"), Some(vec!["b".to_owned()]));
        assert_eq!(left("", "b"), Some(vec!["a".to_owned()]));
        assert_eq!(left("u2", "a"), None, "a namesake's list");
        assert_eq!(left("u1", "c"), None);
        let gone = reference(&secret(whole));
        assert_eq!((gone[0].namespace.as_str(), gone[0].name.as_str()), ("ns", "sa/u1/s"));
    }
}
