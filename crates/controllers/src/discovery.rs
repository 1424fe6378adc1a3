//! Which resources the API serves: for controllers that look after everything, whatever its kind.

use client::kube::discovery::{Discovery, Scope, verbs};
use kube::Client;
use kube::core::ApiResource;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    /// Whether it can be listed, watched and deleted; what cannot is not kept anywhere.
    pub listable: bool,
    pub watchable: bool,
    pub deletable: bool,
    pub delete_collection: bool,
}

/// All resources, each in its preferred version only.
pub async fn served(client: Client) -> Result<Vec<Served>, kube::Error> {
    let discovery = Discovery::new(client).run().await?;
    let groups = discovery.groups();
    let all = groups.flat_map(|group| group.recommended_resources()).map(|(resource, capabilities)| Served {
        namespaced: capabilities.scope == Scope::Namespaced,
        listable: capabilities.supports_operation(verbs::LIST),
        watchable: capabilities.supports_operation(verbs::WATCH),
        deletable: capabilities.supports_operation(verbs::DELETE),
        delete_collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        resource,
    });
    Ok(all.collect())
}
