//! What operations and their groups are called: `readAppsV1NamespacedDeploymentStatus`, of `apps_v1`.

use crate::schema::Gvk;

/// A group as part of a name: `RbacAuthorization`, `CertManagerIo`.
pub(super) fn of_group(group: &str) -> String {
    match group.strip_suffix(".k8s.io").unwrap_or(group) {
        "" => "Core".to_owned(),
        group => group.split(['.', '-']).map(title).collect(),
    }
}

/// What the operations of a group and version are kept together by.
pub(super) fn tag(group: &str, version: &str) -> String {
    let name = of_group(group);
    let (first, rest) = name.split_at_checked(1).unwrap_or_default();
    let name = format!("{}{rest}", first.to_lowercase());
    if version.is_empty() { name } else { format!("{name}_{version}") }
}

/// An operation by its verb and what stands behind the group and version.
pub(super) fn operation(verb: &str, kind: &Gvk, rest: &str) -> String {
    format!("{verb}{}{}{rest}", of_group(&kind.group), title(&kind.version))
}

pub(super) fn title(text: &str) -> String {
    let (first, rest) = text.split_at_checked(1).unwrap_or((text, ""));
    format!("{}{rest}", first.to_uppercase())
}

/// A kind with what English puts before it; none for those that are many.
pub(super) fn with_article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") && !kind.ends_with("us") {
        return kind.to_owned();
    }
    let article = if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    format!("{article} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_generated_clients_know_them() {
        assert_eq!(of_group("flowcontrol.apiserver.k8s.io"), "FlowcontrolApiserver");
        assert_eq!(of_group("cert-manager.io"), "CertManagerIo");
        assert_eq!(tag("rbac.authorization.k8s.io", "v1"), "rbacAuthorization_v1");
        assert_eq!(tag("", ""), "core");
        let kind = Gvk { group: "".into(), version: "v1".into(), kind: "Pod".into() };
        assert_eq!(operation("read", &kind, "NamespacedPodLog"), "readCoreV1NamespacedPodLog");
        assert_eq!(with_article("Endpoints"), "Endpoints");
        assert_eq!(with_article("Ingress"), "an Ingress");
        assert_eq!(with_article("Pod"), "a Pod");
    }
}
