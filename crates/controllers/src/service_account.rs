//! What every namespace starts with: the `default` ServiceAccount, and the ConfigMap from which pods learn whom to
//! trust when they call the API server.

use std::sync::Arc;

use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;

use crate::context::{self, Context, is_namespace_terminating};
use crate::meta;

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

pub fn start(context: &Context) -> Vec<Controller> {
    let namespaces = context.caches.of::<Namespace>();
    let accounts = context.caches.of::<ServiceAccount>();
    let maps = context.caches.of::<ConfigMap>();
    let reconciler = Basics {
        context: context.clone(),
        namespaces: Arc::clone(&namespaces),
        accounts: Arc::clone(&accounts),
        maps: Arc::clone(&maps),
    };
    let namespace_of = |meta: &ObjectMeta, wanted: &str| match meta::name(meta) == wanted {
        true => vec![Key::new("", meta::namespace(meta))],
        false => Vec::new(),
    };
    let controller = Controller::new("serviceaccount", reconciler)
        .owns_kind(&namespaces)
        .watches(&accounts, move |change| namespace_of(&change.object().metadata, ACCOUNT))
        .watches(&maps, move |change| namespace_of(&change.object().metadata, ROOT_CA));
    vec![controller]
}

/// What a namespace lacks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    create_account: bool,
    root_ca: Option<Write>,
}

#[derive(Debug, PartialEq, Eq)]
enum Write {
    Create,
    Replace,
}

fn plan(
    namespace: &Namespace,
    account: Option<&ServiceAccount>,
    map: Option<&ConfigMap>,
    ca_pem: &str,
) -> Plan {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    if meta::is_deleting(&namespace.metadata) || phase == Some("Terminating") {
        return Plan::default();
    }
    let published =
        map.map(|map| map.data.as_ref().and_then(|data| data.get(ROOT_CA_KEY)).map(String::as_str));
    let root_ca = match published {
        None => Some(Write::Create),
        Some(Some(pem)) if pem == ca_pem => None,
        Some(_) => Some(Write::Replace),
    };
    Plan { create_account: account.is_none(), root_ca }
}

struct Basics {
    context: Context,
    namespaces: Arc<Cache<Namespace>>,
    accounts: Arc<Cache<ServiceAccount>>,
    maps: Arc<Cache<ConfigMap>>,
}

impl Reconciler for Basics {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(namespace) = self.namespaces.get(&key) else { return Ok(Next::OnChange) };
            match self.sync(&namespace, &key.name).await {
                Err(error) if !is_namespace_terminating(&error) => Err(error.into()),
                _ => Ok(Next::OnChange),
            }
        })
    }
}

impl Basics {
    async fn sync(&self, namespace: &Namespace, name: &str) -> Result<(), kube::Error> {
        let account = self.accounts.get(&Key::new(name, ACCOUNT));
        let map = self.maps.get(&Key::new(name, ROOT_CA));
        let plan = plan(namespace, account.as_deref(), map.as_deref(), &self.context.config.cluster_ca_pem);
        if plan.create_account {
            let account = ServiceAccount { metadata: named(name, ACCOUNT), ..Default::default() };
            let api: Api<ServiceAccount> = self.context.api(name);
            context::ignore_existing(api.create(&context::params(), &account).await)?;
        }
        let api: Api<ConfigMap> = self.context.api(name);
        match plan.root_ca {
            Some(Write::Create) => {
                context::ignore_existing(api.create(&context::params(), &self.root_ca(name)).await)
            }
            Some(Write::Replace) => {
                api.replace(ROOT_CA, &context::params(), &self.root_ca(name)).await.map(drop)
            }
            None => Ok(()),
        }
    }

    fn root_ca(&self, namespace: &str) -> ConfigMap {
        let mut metadata = named(namespace, ROOT_CA);
        let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                     endpoints such as the internal service IP or kubernetes.default.svc.";
        metadata.annotations = Some([(DESCRIPTION.to_owned(), about.to_owned())].into());
        let pem = self.context.config.cluster_ca_pem.clone();
        ConfigMap { metadata, data: Some([(ROOT_CA_KEY.to_owned(), pem)].into()), ..Default::default() }
    }
}

fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), namespace: Some(namespace.into()), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_namespace_gets_what_it_lacks_until_it_goes() {
        let mut namespace = Namespace::default();
        let account = ServiceAccount::default();
        let map = |pem: &str| ConfigMap {
            data: Some([("ca.crt".into(), pem.into())].into()),
            ..Default::default()
        };
        let all = Plan { create_account: true, root_ca: Some(Write::Create) };
        assert_eq!(plan(&namespace, None, None, "ca"), all);
        assert_eq!(plan(&namespace, Some(&account), Some(&map("ca")), "ca"), Plan::default());
        assert_eq!(plan(&namespace, Some(&account), Some(&map("x")), "ca").root_ca, Some(Write::Replace));
        namespace.metadata.deletion_timestamp = Some(Time(at(0)));
        assert_eq!(plan(&namespace, None, None, "ca"), Plan::default());
    }
}
