//! `securityContext` of pod and container as the runtime wants it.

use std::path::{Path, PathBuf};

use container::runtime::{Capabilities, Seccomp, Security, UserSpec};
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use crate::images::Image;

/// Messages are the kubelet's: they are read in `kubectl describe`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecurityError {
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunAsRoot { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    UnknownUser { user: String, pod: String, container: String },
}

/// `name_namespace(uid)`, as the kubelet names a pod in messages.
pub fn pod_title(pod: &Pod) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let meta = &pod.metadata;
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

pub fn security(
    pod: &Pod,
    container: &Container,
    image: &Image,
    seccomp_dir: &Path,
) -> Result<Security, SecurityError> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let user = own.and_then(|s| s.run_as_user).or_else(|| of_pod.and_then(|s| s.run_as_user));
    let group = own.and_then(|s| s.run_as_group).or_else(|| of_pod.and_then(|s| s.run_as_group));
    let non_root = own.and_then(|s| s.run_as_non_root).or_else(|| of_pod.and_then(|s| s.run_as_non_root));
    if non_root == Some(true) {
        verify_non_root(pod, container, image, user)?;
    }
    let mut supplemental_groups: Vec<u32> = Vec::new();
    let declared = of_pod.and_then(|s| s.supplemental_groups.clone()).unwrap_or_default();
    let groups = declared.into_iter().chain(of_pod.and_then(|s| s.fs_group));
    for group in groups.filter_map(|group| u32::try_from(group).ok()) {
        if !supplemental_groups.contains(&group) {
            supplemental_groups.push(group);
        }
    }
    let privileged = own.and_then(|s| s.privileged).unwrap_or(false);
    let capabilities = own.and_then(|s| s.capabilities.clone()).unwrap_or_default();
    let unmasked = privileged || own.and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked");
    let profile = own
        .and_then(|s| s.seccomp_profile.as_ref())
        .or_else(|| of_pod.and_then(|s| s.seccomp_profile.as_ref()));
    Ok(Security {
        privileged,
        user: user_spec(user, group),
        supplemental_groups,
        capabilities: Capabilities {
            add: capabilities.add.unwrap_or_default(),
            drop: capabilities.drop.unwrap_or_default(),
        },
        readonly_rootfs: own.and_then(|s| s.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|s| s.allow_privilege_escalation) == Some(false),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile, seccomp_dir) },
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
    })
}

fn user_spec(user: Option<i64>, group: Option<i64>) -> Option<UserSpec> {
    let id = |value: i64| u32::try_from(value).ok();
    match (user.and_then(id), group.and_then(id)) {
        (Some(uid), gid) => Some(UserSpec::Id { uid, gid }),
        (None, Some(gid)) => Some(UserSpec::Group { gid }),
        (None, None) => None,
    }
}

fn seccomp(profile: Option<&SeccompProfile>, directory: &Path) -> Seccomp {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => Seccomp::RuntimeDefault,
        Some(("Localhost", Some(path))) => Seccomp::Localhost(directory.join(PathBuf::from(path))),
        _ => Seccomp::Unconfined,
    }
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image: &Image,
    user: Option<i64>,
) -> Result<(), SecurityError> {
    let (title, name) = (pod_title(pod), container.name.clone());
    match user {
        Some(0) => return Err(SecurityError::RunAsRoot { pod: title, container: name }),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image.config.user.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(0) => Err(SecurityError::ImageRunsAsRoot { pod: title, container: name }),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() => Err(SecurityError::ImageRunsAsRoot { pod: title, container: name }),
        Err(_) => Err(SecurityError::UnknownUser { user: user.to_owned(), pod: title, container: name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(
        pod_context: serde_json::Value,
        context: serde_json::Value,
        image_user: &str,
    ) -> Result<Security, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": context}]},
        }))
        .expect("a pod");
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let mut image = Image::default();
        image.config.user = image_user.into();
        security(&pod, container, &image, Path::new("/seccomp")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let pod = json!({"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4, 3000],
            "seccompProfile": {"type": "RuntimeDefault"}});
        let security =
            check(pod, json!({"runAsUser": 5, "allowPrivilegeEscalation": false}), "").expect("allowed");
        assert_eq!(security.user, Some(UserSpec::Id { uid: 5, gid: Some(2000) }));
        assert_eq!(security.supplemental_groups, [4, 3000]);
        assert!(security.no_new_privileges && security.seccomp == Seccomp::RuntimeDefault);
        let privileged =
            check(json!({"seccompProfile": {"type": "RuntimeDefault"}}), json!({"privileged": true}), "");
        assert_eq!(privileged.expect("allowed").seccomp, Seccomp::Unconfined);
    }

    #[test]
    fn non_root_is_verified_in_the_kubelets_words() {
        let non_root = json!({"runAsNonRoot": true});
        let cases = [
            (
                json!({"runAsUser": 0}),
                "",
                "container's runAsUser breaks non-root policy (pod: \"p_ns(u)\", container: c)",
            ),
            (
                json!({}),
                "",
                "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)",
            ),
            (
                json!({}),
                "web",
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \"p_ns(u)\", container: c)",
            ),
        ];
        for (context, image_user, message) in cases {
            assert_eq!(check(non_root.clone(), context, image_user).map(drop), Err(message.to_owned()));
        }
        assert!(check(non_root, json!({}), "101:101").is_ok());
    }
}
