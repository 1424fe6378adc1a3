//! Each check refuses what it is for and nothing else, at every version: pods as data, words as users know them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn standard(text: &str) -> Standard {
    let (level, version) = text.split_once(':').expect("level:version");
    let labels = BTreeMap::from([
        ("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned()),
        ("pod-security.kubernetes.io/enforce-version".to_owned(), version.to_owned()),
    ]);
    policy(&labels).0.enforce
}

fn told(at: &str, spec: &Value, annotations: &Value) -> String {
    let meta = serde_json::from_value(json!({"annotations": annotations})).expect("metadata");
    let spec = serde_json::from_value(spec.clone()).expect("a spec");
    in_detail(&violations(standard(at), &meta, &spec))
}

fn check(at: &str, spec: Value, expected: &str) {
    assert_eq!(told(at, &spec, &json!({})), expected, "{at}: {spec}");
}

/// A pod of one container with this security context.
fn with(security: Value) -> Value {
    json!({"containers": [{"name": "a", "securityContext": security}]})
}

/// A pod that every standard lets through, with fields of its own.
fn careful(fields: Value) -> Value {
    let container = json!({"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
    let mut spec = json!({"containers": [container], "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}});
    for (name, value) in fields.as_object().expect("fields") {
        match name.as_str() {
            "containers" => {
                spec[name][0].as_object_mut().expect("one").extend(value.as_object().expect("fields").clone())
            }
            "securityContext" => {
                spec[name].as_object_mut().expect("one").extend(value.as_object().expect("fields").clone())
            }
            _ => spec[name] = value.clone(),
        }
    }
    spec
}

#[test]
fn a_pod_that_says_nothing_falls_short_of_the_restricted_level_only() {
    let silent = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    check("privileged:latest", silent.clone(), "");
    check("baseline:latest", silent.clone(), "");
    let all = "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
               unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), \
               runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
               seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    check("restricted:latest", silent.clone(), all);
    // Earlier versions did not know all of it.
    let early = "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
                 runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true)";
    check("restricted:v1.8", silent.clone(), early);
    check(
        "restricted:v1.7",
        silent,
        "runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true)",
    );
    check("restricted:latest", careful(json!({})), "");
}

#[test]
fn each_check_of_the_baseline_refuses_what_it_is_for() {
    let at = "baseline:latest";
    check(
        at,
        with(json!({"privileged": true})),
        "privileged (container \"a\" must not set securityContext.privileged=true)",
    );
    check(
        at,
        json!({"hostNetwork": true, "hostPID": true, "hostIPC": true, "containers": []}),
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
    );
    check(
        at,
        json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        "hostPath volumes (volume \"v\")",
    );
    check(
        at,
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
        "hostPort (container \"a\" uses hostPort 80)",
    );
    check(
        at,
        with(json!({"capabilities": {"add": ["CHOWN", "SYS_ADMIN", "NET_RAW"]}})),
        "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
    );
    check(
        at,
        with(json!({"procMount": "Unmasked"})),
        "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
    );
    check(
        at,
        with(json!({"seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"}})),
        "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role may not be set)",
    );
    check(
        at,
        with(json!({"seccompProfile": {"type": "Unconfined"}})),
        "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    check(
        at,
        with(json!({"appArmorProfile": {"type": "Unconfined"}})),
        "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
    );
    check(
        at,
        with(json!({"windowsOptions": {"hostProcess": true}})),
        "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
    );
    check(
        at,
        json!({"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
        "forbidden sysctls (kernel.msgmax)",
    );
    check(
        at,
        json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"port": 1, "host": "h"}}}]}),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
    );
    let annotated = told(
        at,
        &json!({"containers": [{"name": "a"}]}),
        &json!({"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}),
    );
    assert_eq!(
        annotated,
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")"
    );
}

#[test]
fn each_check_of_the_restricted_level_refuses_what_it_is_for() {
    let at = "restricted:latest";
    check(
        at,
        careful(
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {"path": "/", "server": "s"}}]}),
        ),
        "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
    );
    check(
        at,
        careful(json!({"securityContext": {"runAsUser": 0}})),
        "runAsUser=0 (pod must not set runAsUser=0)",
    );
    check(
        at,
        careful(json!({"securityContext": {"runAsNonRoot": false}})),
        "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
    );
    check(
        at,
        careful(
            json!({"containers": {"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}}}),
        ),
        "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
    );
    check(
        at,
        careful(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
        "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    // Baseline and restricted rules of the same thing are told once.
    check(at, careful(json!({"hostNetwork": true})), "host namespaces (hostNetwork=true)");
}

#[test]
fn rules_change_with_the_version_that_is_pinned() {
    let sysctl = json!({"containers": [], "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}});
    check("baseline:v1.31", sysctl.clone(), "forbidden sysctls (net.ipv4.tcp_rmem)");
    check("baseline:v1.32", sysctl, "");
    let engine = with(json!({"seLinuxOptions": {"type": "container_engine_t"}}));
    check(
        "baseline:v1.30",
        engine.clone(),
        "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
    );
    check("baseline:v1.31", engine, "");
    let probe = json!({"containers": [{"name": "a", "lifecycle": {"preStop": {"httpGet": {"port": 1, "host": "h"}}}}]});
    check("baseline:v1.33", probe.clone(), "");
    check(
        "baseline:v1.34",
        probe,
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
    );
    let own_users =
        careful(json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "runAsNonRoot": null}}));
    check("restricted:v1.35", own_users.clone(), "");
    check(
        "restricted:v1.34",
        own_users,
        "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), runAsUser=0 (pod must not set runAsUser=0)",
    );
    let windows = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
    check("restricted:v1.25", windows.clone(), "");
    assert!(!told("restricted:v1.24", &windows, &json!({})).is_empty());
    let profile = json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"});
    let pod = json!({"containers": [{"name": "a"}]});
    assert_eq!(
        told("baseline:v1.18", &pod, &profile),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
    assert_eq!(told("baseline:v1.19", &pod, &profile), "");
}

#[test]
fn labels_make_the_policy() {
    let of = |pairs: &[(&str, &str)]| {
        let labels =
            pairs.iter().map(|(k, v)| (format!("pod-security.kubernetes.io/{k}"), (*v).to_owned())).collect();
        let (policy, errors) = policy(&labels);
        let errors: Vec<String> = errors.iter().map(|e| e.field.clone()).collect();
        format!("{} {} {} {}", policy.enforce, policy.audit, policy.warn, errors.join(" ")).trim().to_owned()
    };
    assert_eq!(of(&[]), "privileged:latest privileged:latest privileged:latest");
    assert_eq!(of(&[("enforce", "baseline")]), "baseline:latest privileged:latest baseline:latest");
    assert_eq!(
        of(&[("enforce", "restricted"), ("enforce-version", "v1.20"), ("warn", "baseline")]),
        "restricted:v1.20 privileged:latest baseline:latest"
    );
    assert_eq!(
        of(&[("enforce", "x"), ("audit-version", "v1.01")]),
        "restricted:latest privileged:latest privileged:latest metadata.labels[pod-security.kubernetes.io/enforce] metadata.labels[pod-security.kubernetes.io/audit-version]"
    );
}

#[test]
fn pods_that_are_there_are_told_of_once_a_fault() {
    let pod = |name: &str, owner: Option<&str>, spec: Value| -> Pod {
        let owners: Vec<Value> = owner
            .map(|uid| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": spec}))
            .expect("a pod")
    };
    let host = || json!({"containers": [], "hostNetwork": true});
    let pods = [
        pod("b", Some("u"), host()),
        pod("a", Some("u"), host()),
        pod("c", None, with(json!({"privileged": true}))),
        pod("d", None, json!({"containers": []})),
    ];
    assert_eq!(
        of_existing("ns", standard("baseline:latest"), &pods),
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces",
            "c: privileged",
        ]
    );
    assert!(of_existing("ns", standard("baseline:latest"), &pods[3..]).is_empty());
}

/// As v1.36.2 said it of this very pod.
#[test]
fn what_the_original_said_of_a_pod_with_everything_wrong_is_what_is_said_here() {
    let container = json!({"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}], "livenessProbe": {"tcpSocket": {"port": 1, "host": "h"}},
        "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}, "seccompProfile": {"type": "Unconfined"},
            "seLinuxOptions": {"user": "u"}, "appArmorProfile": {"type": "Unconfined"}}});
    let spec = json!({"hostNetwork": true, "hostPID": true, "containers": [container], "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        "securityContext": {"runAsUser": 0, "sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
    let annotations = json!({"container.apparmor.security.beta.kubernetes.io/a": "unconfined"});
    let said = "forbidden AppArmor profiles (container \"a\" and annotation must not set AppArmor profile type to \"Unconfined\", \
                \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\"), host namespaces (hostNetwork=true, hostPID=true), hostPort \
                (container \"a\" uses hostPort 80), probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\"), privileged (container \
                \"a\" must not set securityContext.privileged=true), seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: user \
                may not be set), forbidden sysctls (kernel.msgmax), allowPrivilegeEscalation != false (container \"a\" must set \
                securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set \
                securityContext.capabilities.drop=[\"ALL\"]; container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), \
                restricted volume types (volume \"v\" uses restricted volume type \"hostPath\"), runAsNonRoot != true (pod or container \"a\" must set \
                securityContext.runAsNonRoot=true), runAsUser=0 (pod must not set runAsUser=0), seccompProfile (container \"a\" must not set \
                securityContext.seccompProfile.type to \"Unconfined\")";
    assert_eq!(told("restricted:latest", &spec, &annotations), said);
}
