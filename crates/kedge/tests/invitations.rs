//! Tokens in Secrets by the real program: invitations to nodes, what is signed with them, and their end; and tokens of
//! service accounts, which come with the Secret that asks for them and go with the account.

use std::time::Duration;

use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn an_invitation_signs_what_strangers_read_and_goes_when_its_time_is_over() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let end = base::time::now() + Duration::from_secs(8);
    cluster
        .apply(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: cluster-info, namespace: kube-public}}, data: {{kubeconfig: where it is}}}}
---
{{apiVersion: v1, kind: Secret, type: bootstrap.kubernetes.io/token, metadata: {{name: bootstrap-token-abcdef, namespace: kube-system}},
 stringData: {{token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-signing: 'true', expiration: '{end}'}}}}"
        ))
        .ok();
    let signature = || {
        let map = cluster.get("configmap", "kube-public", "cluster-info").expect("the map");
        map["data"]["jws-kubeconfig-abcdef"].as_str().map(str::to_owned)
    };
    let signed = until("a signature", LIMIT, || signature().ok_or("none"));
    assert!(signed.starts_with("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9.."), "{signed}");
    until("its end", LIMIT, || match cluster.get("secret", "kube-system", "bootstrap-token-abcdef") {
        Err(_) => Ok(()),
        Ok(secret) => Err(secret),
    });
    until("no signature", LIMIT, || signature().map_or(Ok(()), Err));
}

#[test]
fn a_secret_of_an_account_is_filled_with_its_token_and_goes_with_it() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster
        .apply(
            "{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: default}, secrets: [{name: robot-token}, {name: other}]}
---
{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: robot-token, namespace: default,
 annotations: {kubernetes.io/service-account.name: robot}}}",
        )
        .ok();
    let secret = || cluster.get("secret", "default", "robot-token");
    let filled = until("a token", LIMIT, || match secret() {
        Ok(secret) if secret["data"]["token"].is_string() => Ok(secret),
        other => Err(other),
    });
    let account = cluster.get("serviceaccount", "default", "robot").expect("the account");
    assert_eq!(
        filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"],
        account["metadata"]["uid"]
    );
    assert_eq!(filled["data"]["namespace"], "ZGVmYXVsdA==");
    assert!(
        filled["data"]["ca.crt"].as_str().is_some_and(|pem| pem.starts_with("LS0tLS1CRUdJTi")),
        "{filled}"
    );
    // Another Secret's end is no end of the account, but it is not listed any more.
    cluster.kedge(&["delete", "secret", "robot-token"]).ok();
    until("no reference", LIMIT, || {
        let account = cluster.get("serviceaccount", "default", "robot").expect("the account");
        match account["secrets"].as_array().map(Vec::len) {
            Some(1) => Ok(()),
            _ => Err(account),
        }
    });
    cluster
        .apply(
            "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: robot-token, namespace: default,
 annotations: {kubernetes.io/service-account.name: robot}}}",
        )
        .ok();
    until("a token", LIMIT, || match secret() {
        Ok(secret) if secret["data"]["token"].is_string() => Ok(secret),
        other => Err(other),
    });
    cluster.kedge(&["delete", "serviceaccount", "robot"]).ok();
    until("its end", LIMIT, || secret().map_or(Ok(()), Err));
}
