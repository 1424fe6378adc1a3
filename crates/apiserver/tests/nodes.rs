//! What a node may see and write: its own object, what its pods refer to, and nothing of another's.

mod world;

use apiserver::auth::Identity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use world::served::{Served, client};
use world::{World, master};

const NAMESPACE: &str = "/api/v1/namespaces/default";

fn node(name: &str) -> Identity {
    Identity::new(format!("system:node:{name}"), &["system:nodes"])
}

struct Cluster {
    world: World,
}

impl Cluster {
    /// Two nodes, and on the first a pod that refers to a secret, a map and a claim.
    async fn new() -> Self {
        let world = World::new().await;
        for (plural, name) in
            [("serviceaccounts", "sa"), ("secrets", "s"), ("secrets", "other"), ("configmaps", "m")]
        {
            world.grant(&format!("{NAMESPACE}/{plural}"), json!({"metadata": {"name": name}})).await;
        }
        for name in ["n1", "n2"] {
            let (code, answer) =
                world.ask(&node(name), "POST", "/api/v1/nodes", json!({"metadata": {"name": name}})).await;
            assert_eq!(code, 201, "a node registers itself: {answer}");
        }
        let volumes = json!([{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "configMap": {"name": "m"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "sa", "containers": [{"name": "c", "image": "i"}], "volumes": volumes}});
        world.grant(&format!("{NAMESPACE}/pods"), pod).await;
        Self { world }
    }

    async fn bind(&self) {
        let binding = json!({"target": {"kind": "Node", "name": "n1"}});
        self.world.grant(&format!("{NAMESPACE}/pods/p/binding"), binding).await;
    }

    async fn check(&self, who: &str, method: &str, path: &str, body: Value, expected: u16) -> String {
        let (code, answer) = self.world.ask(&node(who), method, path, body).await;
        assert_eq!(code, expected, "{who}: {method} {path}: {answer}");
        answer["message"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to_and_no_other() {
    let cluster = Cluster::new().await;
    let get = async |who: &str, path: &str, expected: u16| {
        cluster.check(who, "GET", &format!("{NAMESPACE}/{path}"), Value::Null, expected).await
    };
    get("n1", "secrets/s", 403).await;
    cluster.bind().await;
    get("n1", "secrets/s", 200).await;
    get("n1", "secrets?fieldSelector=metadata.name%3Ds", 200).await;
    get("n1", "configmaps/m", 200).await;
    get("n1", "secrets/other", 403).await;
    get("n1", "secrets", 403).await;
    let why = get("n2", "secrets/s", 403).await;
    let cannot = "secrets \"s\" is forbidden: User \"system:node:n2\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\"";
    assert_eq!(why, format!("{cannot}: no relationship found between node 'n2' and this object"));
    get("n2", "pods/p", 403).await;
    get("n1", "pods/p", 200).await;
    cluster.check("n1", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", Value::Null, 200).await;
    cluster.check("n2", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", Value::Null, 403).await;
    cluster.check("n2", "GET", "/api/v1/pods", Value::Null, 403).await;
    cluster.check("n2", "GET", "/api/v1/secrets", Value::Null, 403).await;
    cluster.check("n1", "GET", "/api/v1/nodes/n2", Value::Null, 403).await;
    // The name alone makes no node.
    let (code, _) = cluster
        .world
        .ask(&Identity::new("system:node:n1", &[]), "GET", &format!("{NAMESPACE}/secrets/s"), Value::Null)
        .await;
    assert_eq!(code, 403);
    let gone = cluster
        .world
        .ask(&master(), "DELETE", &format!("{NAMESPACE}/pods/p"), json!({"gracePeriodSeconds": 0}))
        .await;
    assert_eq!(gone.0, 200);
    // What was granted by a pod goes with it: at once for whoever asks after that.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while cluster.world.ask(&node("n1"), "GET", &format!("{NAMESPACE}/secrets/s"), Value::Null).await.0 != 403
    {
        assert!(std::time::Instant::now() < end, "it still sees the secret");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_writes_its_own_object_and_its_own_pods_status() {
    let cluster = Cluster::new().await;
    cluster.bind().await;
    let merge = |value: Value| value;
    let why = cluster
        .check("n1", "PATCH", "/api/v1/nodes/n2", merge(json!({"metadata": {"labels": {"a": "b"}}})), 403)
        .await;
    assert_eq!(why, "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"");
    let tainted = json!({"spec": {"taints": []}});
    let why = cluster.check("n1", "PATCH", "/api/v1/nodes/n1", tainted, 403).await;
    assert_eq!(why, "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints");
    let restricted =
        json!({"metadata": {"labels": {"node-restriction.kubernetes.io/safe": "yes", "mine": "yes"}}});
    let why = cluster.check("n1", "PATCH", "/api/v1/nodes/n1", restricted, 403).await;
    assert_eq!(
        why,
        "nodes \"n1\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/safe"
    );
    cluster
        .check("n1", "PATCH", "/api/v1/nodes/n1", json!({"metadata": {"labels": {"mine": "yes"}}}), 200)
        .await;
    cluster
        .check("n1", "PATCH", "/api/v1/nodes/n1/status", json!({"status": {"phase": "Running"}}), 200)
        .await;
    let status = json!({"status": {"phase": "Running"}});
    cluster.check("n1", "PATCH", &format!("{NAMESPACE}/pods/p/status"), status.clone(), 200).await;
    let why = cluster.check("n2", "PATCH", &format!("{NAMESPACE}/pods/p/status"), status, 403).await;
    assert_eq!(
        why,
        "pods \"p\" is forbidden: node \"n2\" can only update pod status for pods with spec.nodeName set to itself"
    );
    let why = cluster.check("n2", "DELETE", &format!("{NAMESPACE}/pods/p"), json!({}), 403).await;
    assert_eq!(
        why,
        "pods \"p\" is forbidden: node \"n2\" can only delete pods with spec.nodeName set to itself"
    );
    let pod = json!({"metadata": {"name": "q"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    cluster.check("n1", "POST", &format!("{NAMESPACE}/pods"), pod, 403).await;
    let eviction = json!({"metadata": {"name": "p"}});
    let why = cluster.check("n2", "POST", &format!("{NAMESPACE}/pods/p/eviction"), eviction, 403).await;
    assert_eq!(why, "pods \"p\" is forbidden: node n2 can only evict pods with spec.nodeName set to itself");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    cluster.check("n1", "POST", leases, json!({"metadata": {"name": "n1"}}), 201).await;
    cluster.check("n1", "POST", leases, json!({"metadata": {"name": "n2"}}), 403).await;
    cluster
        .check("n2", "PATCH", &format!("{leases}/n1"), json!({"spec": {"holderIdentity": "n2"}}), 403)
        .await;
    // Its own right, and no way to more.
    cluster
        .check(
            "n1",
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": {"name": "r"}}),
            403,
        )
        .await;
    cluster.check("n1", "POST", &format!("{NAMESPACE}/pods/p/exec?command=sh"), Value::Null, 403).await;
}

/// Whatever belongs to one node is closed to another, by every verb and every part of it.
#[tokio::test]
async fn a_node_reaches_nothing_of_another() {
    let cluster = Cluster::new().await;
    cluster.bind().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    cluster.check("n1", "POST", leases, json!({"metadata": {"name": "n1"}}), 201).await;
    // One of its own, in the same namespace and with the same account.
    let own = json!({"metadata": {"name": "own"}, "spec": {"serviceAccountName": "sa", "nodeName": "n2",
        "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "secret": {"secretName": "other"}}]}});
    cluster.world.grant(&format!("{NAMESPACE}/pods"), own).await;
    cluster.check("n2", "GET", &format!("{NAMESPACE}/secrets/other"), Value::Null, 200).await;
    let (node, lease) = ("/api/v1/nodes/n1".to_owned(), format!("{leases}/n1"));
    let (pod, secret, map) = (
        format!("{NAMESPACE}/pods/p"),
        format!("{NAMESPACE}/secrets/s"),
        format!("{NAMESPACE}/configmaps/m"),
    );
    let node_n2 = &crate::node("n2");
    let mut asked = 0;
    for (path, parts) in [
        (&node, &["", "/status", "/proxy/pods", "/proxy/run/default/p/c"][..]),
        (
            &pod,
            &[
                "",
                "/status",
                "/log",
                "/exec",
                "/attach",
                "/portforward",
                "/proxy",
                "/eviction",
                "/binding",
                "/ephemeralcontainers",
                "/resize",
            ],
        ),
        (&lease, &[""]),
        (&secret, &[""]),
        (&map, &[""]),
        (&"/apis/storage.k8s.io/v1/csinodes/n1".to_owned(), &[""]),
    ] {
        for part in parts {
            let name = path.rsplit('/').next().unwrap_or_default();
            let body = json!({"metadata": {"name": name}});
            let path = format!("{path}{part}");
            for method in ["GET", "PUT", "PATCH", "DELETE", "POST"] {
                let (code, answer) = cluster.world.ask(node_n2, method, &path, body.clone()).await;
                // What cannot be done to it by anybody is no way either.
                assert!(matches!(code, 403 | 405), "{method} {path}: {code} {answer}");
                asked += usize::from(code == 403);
            }
        }
    }
    assert!(asked > 50, "{asked} were refused for want of rights");
    for list in [
        "/api/v1/nodes",
        "/api/v1/nodes?fieldSelector=metadata.name%3Dn1",
        "/api/v1/nodes?watch=1",
        "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1",
        "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1",
        "/api/v1/pods?watch=1",
        "/api/v1/namespaces/default/pods",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/namespaces/default/secrets?watch=1&fieldSelector=metadata.name%3Ds",
        "/api/v1/configmaps",
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
    ] {
        cluster.check("n2", "GET", list, Value::Null, 403).await;
    }
    for many in
        ["/api/v1/nodes", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/secrets", leases]
    {
        cluster.check("n2", "DELETE", many, json!({}), 403).await;
    }
    // As its certificate says, over a real connection.
    let served = Served::new(cluster.world).await;
    let certificate = client(&served.world.authority, "system:node:n2", "system:nodes", 1000);
    for (path, code) in
        [("/api/v1/nodes/n2", 200), ("/api/v1/nodes/n1", 403), (&*secret, 403), (&*lease, 403)]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = served.raw(Some(&certificate), request.as_bytes()).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{path}: {answer:.200}");
    }
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_pods_only() {
    let cluster = Cluster::new().await;
    cluster.bind().await;
    let (_, pod) = cluster.world.json("GET", &format!("{NAMESPACE}/pods/p"), Value::Null).await;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]});
    let path = format!("{NAMESPACE}/serviceaccounts/sa/token");
    let ask = async |who: &str, spec: Value, expected: u16| {
        cluster.check(who, "POST", &path, json!({"spec": spec}), expected).await
    };
    ask("n1", json!({"boundObjectRef": bound}), 201).await;
    ask("n1", json!({"boundObjectRef": bound, "audiences": ["vault"]}), 201).await;
    let why = ask("n1", json!({"boundObjectRef": bound, "audiences": ["bank"]}), 403).await;
    assert!(why.contains("audience \"bank\" not found in pod spec volume"), "{why}");
    let why = ask("n1", json!({}), 403).await;
    assert!(why.ends_with("node requested token not bound to a pod"), "{why}");
    ask("n2", json!({"boundObjectRef": bound}), 403).await;
    // Also where a pod of its own has the same account: a token is for that pod and not for another's.
    let own = json!({"metadata": {"name": "own"}, "spec": {"serviceAccountName": "sa", "nodeName": "n2", "containers": [{"name": "c", "image": "i"}]}});
    cluster.world.grant(&format!("{NAMESPACE}/pods"), own).await;
    let why = ask("n2", json!({"boundObjectRef": bound}), 403).await;
    assert!(why.ends_with("node requested token bound to a pod scheduled on a different node"), "{why}");
    let other = format!("{NAMESPACE}/serviceaccounts/default/token");
    cluster.check("n1", "POST", &other, json!({"spec": {"boundObjectRef": bound}}), 403).await;
}

fn request(subject: &str) -> String {
    // Requests made beforehand; the key of none is kept.
    let pem = match subject {
        "masters" => include_str!("certificates/masters.csr"),
        "n1" => include_str!("certificates/n1.csr"),
        other => panic!("{other}"),
    };
    STANDARD.encode(pem)
}

#[tokio::test]
async fn nobody_gets_a_certificate_for_the_masters_and_a_node_one_for_itself() {
    let cluster = Cluster::new().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let asked = |name: &str, subject: &str, signer: &str| json!({"metadata": {"name": name}, "spec": {"request": request(subject), "signerName": format!("kubernetes.io/{signer}"), "usages": ["client auth", "digital signature"]}});
    let (code, answer) =
        cluster.world.json("POST", requests, asked("m", "masters", "kube-apiserver-client")).await;
    let why = "certificatesigningrequests.certificates.k8s.io \"m\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let (code, answer) = cluster.world.json("POST", requests, asked("m", "masters", "legacy-unknown")).await;
    let why = "CertificateSigningRequest.certificates.k8s.io \"m\" is invalid: spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not \
               allowed via this API version";
    assert_eq!((code, answer["message"].as_str()), (422, Some(why)));
    let why =
        cluster.check("n2", "POST", requests, asked("x", "n1", "kube-apiserver-client-kubelet"), 403).await;
    assert!(why.ends_with("can only create a node CSR with CN=system:node:n2"), "{why}");
    cluster.check("n1", "POST", requests, asked("own", "n1", "kube-apiserver-client-kubelet"), 201).await;
    cluster.check("n1", "PATCH", &format!("{requests}/own/approval"), json!({}), 403).await;
    // Approving is a right to the signer, not only to the request.
    let rules = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"], "verbs": ["update", "patch"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    cluster
        .world
        .grant(&format!("{rbac}/clusterroles"), json!({"metadata": {"name": "approver"}, "rules": rules}))
        .await;
    let binding = json!({"metadata": {"name": "approver"}, "roleRef": {"kind": "ClusterRole", "name": "approver", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    cluster.world.grant(&format!("{rbac}/clusterrolebindings"), binding).await;
    let jane = Identity::new("jane", &[]);
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}});
    let path = format!("{requests}/own/approval");
    let (code, answer) = cluster.world.ask(&jane, "PATCH", &path, approved.clone()).await;
    let why = "certificatesigningrequests.certificates.k8s.io \"own\" is forbidden: user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client-kubelet\"";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let signed = json!({"status": {"certificate": STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}});
    let (code, answer) = cluster.world.ask(&jane, "PATCH", &format!("{requests}/own/status"), signed).await;
    assert_eq!(code, 403, "{answer}");
    let signers = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"], "verbs": ["approve"]});
    let role = format!("{rbac}/clusterroles/approver");
    let (code, answer) = cluster.world.json("PATCH", &role, json!({"rules": [signers]})).await;
    assert_eq!(code, 200, "{answer}");
    let (code, _) = cluster.world.ask(&jane, "PATCH", &path, approved.clone()).await;
    assert_eq!(code, 403, "the right to the signer is not one to the request");
    let (code, answer) = cluster.world.json("PATCH", &role, json!({"rules": [signers, rules[0]]})).await;
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = cluster.world.ask(&jane, "PATCH", &path, approved).await;
    assert_eq!(code, 200, "{answer}");
    // What is said of a request may be noted with its status.
    let noted = json!({"metadata": {"annotations": {"noted": "yes"}}});
    let (code, answer) = cluster.world.json("PATCH", &format!("{requests}/own/status"), noted).await;
    assert_eq!((code, &answer["metadata"]["annotations"]["noted"]), (200, &json!("yes")), "{answer}");
}
