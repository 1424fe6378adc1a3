//! Invitations to nodes by the real program: what is signed with them, and their end.

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
