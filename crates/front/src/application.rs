//! The two objects that an application is, and where they lie.

/// Where `kedge up` puts an application's objects, unless -n says otherwise.
pub const NAMESPACE: &str = "gitops";

/// A kind of the engine: its name, its group, its plural.
#[derive(Clone, Copy)]
pub struct Kind(pub &'static str, &'static str, &'static str);

pub const SOURCE: Kind = Kind("GitRepository", "source.toolkit.fluxcd.io", "gitrepositories");
pub const KUSTOMIZATION: Kind = Kind("Kustomization", "kustomize.toolkit.fluxcd.io", "kustomizations");

impl Kind {
    pub fn path(self, namespace: &str, name: &str) -> String {
        format!("/apis/{}/v1/namespaces/{namespace}/{}/{name}", self.1, self.2)
    }

    /// All of the cluster.
    pub fn everywhere(self) -> String {
        format!("/apis/{}/v1/{}", self.1, self.2)
    }

    /// `there is no Kustomization shop in the namespace gitops; …`
    pub fn not_there(self, namespace: &str, name: &str) -> String {
        let Self(kind, _, plural) = self;
        format!("there is no {kind} {name} in the namespace {namespace}; `kedge get {plural} -A` lists them")
    }
}

/// `kedge resume shop`, with the namespace where it is not the usual one.
pub fn resume(namespace: &str, name: &str) -> String {
    match namespace {
        NAMESPACE => format!("kedge resume {name}"),
        _ => format!("kedge resume {name} -n {namespace}"),
    }
}
