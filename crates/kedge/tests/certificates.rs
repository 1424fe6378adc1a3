//! Certificates on request by the real program, from the request to what the certificate opens: those of users, those of nodes, which
//! come with an invitation and by themselves, and those that nodes serve with.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::Api;
use testkit::certificate::{Request, decoded};
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(30);
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const INVITATION: &str = "abcdef.0123456789abcdef";

/// A cluster, and ways into it.
struct World {
    cluster: Cluster,
    runtime: tokio::runtime::Runtime,
    admin: Api,
    authority: String,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
        let map = until("the authority is there", LIMIT, || {
            cluster.get("configmap", "default", "kube-root-ca.crt")
        });
        let admin = Api::read(&cluster.data_dir().join("kubeconfig"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let authority = map["data"]["ca.crt"].as_str().expect("PEM").to_owned();
        Self { cluster, runtime, admin, authority }
    }

    /// Code and body of somebody's request.
    fn ask(&self, who: &Api, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.runtime.block_on(async {
            let headers = [("content-type", kind)];
            let (code, body) = who.connect().await.answer_with(method, path, &headers, body).await;
            (code, serde_json::from_slice(&body).unwrap_or_default())
        })
    }

    /// Whoever shows what was signed for a request.
    fn bearer(&self, request: &Request, certificate: &str) -> Api {
        let shown = (certificate.as_bytes(), request.key.as_bytes());
        Api::showing(self.admin.address(), self.authority.as_bytes(), shown)
    }

    fn stranger(&self, token: &str) -> Api {
        Api::of(self.admin.address(), &self.authority, token)
    }

    /// Name and groups by which the server knows somebody.
    fn known_as(&self, who: &Api) -> (u16, String, Vec<String>) {
        let (code, answer) = self.ask(who, "POST", REVIEWS, &json!({}));
        let user = &answer["status"]["userInfo"];
        let groups = user["groups"].as_array().into_iter().flatten();
        let groups = groups.filter_map(|g| g.as_str().map(str::to_owned)).collect();
        (code, user["username"].as_str().unwrap_or_default().to_owned(), groups)
    }

    fn request(&self, who: &Api, name: &str, signer: &str, request: &Request) {
        let auth = if signer == "kubelet-serving" { "server auth" } else { "client auth" };
        let object = json!({"metadata": {"name": name}, "spec": {"request": request.encoded(),
            "signerName": format!("kubernetes.io/{signer}"), "usages": [auth, "digital signature"]}});
        let (code, answer) = self.ask(who, "POST", REQUESTS, &object);
        assert_eq!(code, 201, "{answer}");
    }

    fn decide(&self, name: &str, decision: &str) {
        let condition = json!({"type": decision, "status": "True", "reason": "Test", "message": "by hand"});
        let change = json!({"status": {"conditions": [condition]}});
        let (code, answer) = self.ask(&self.admin, "PATCH", &format!("{REQUESTS}/{name}/approval"), &change);
        assert_eq!(code, 200, "{answer}");
    }

    /// What was signed, as PEM.
    fn signed(&self, name: &str) -> String {
        let encoded = until(&format!("{name} is signed"), LIMIT, || {
            let status = self.cluster.get("certificatesigningrequest", "", name)?["status"].clone();
            status["certificate"].as_str().map(str::to_owned).ok_or(status.to_string())
        });
        decoded(&encoded)
    }

    fn status(&self, name: &str) -> Value {
        self.cluster.get("certificatesigningrequest", "", name).expect("it is there")["status"].clone()
    }
}

/// Those that lead to a certificate without anybody's doing, as kubeadm binds them.
fn let_nodes_in(cluster: &Cluster) {
    let binding = |name: &str, role: &str, group: &str| {
        format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {name}}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: '{role}'}}, \
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: '{group}'}}]}}\n---\n"
        )
    };
    let approved = "system:certificates.k8s.io:certificatesigningrequests";
    let mut objects = binding("may-ask", "system:node-bootstrapper", "system:bootstrappers");
    objects += &binding("first", &format!("{approved}:nodeclient"), "system:bootstrappers");
    objects += &binding("next", &format!("{approved}:selfnodeclient"), "system:nodes");
    let (id, secret) = INVITATION.split_once('.').expect("two parts");
    objects += &format!(
        "{{apiVersion: v1, kind: Secret, type: bootstrap.kubernetes.io/token, metadata: {{name: bootstrap-token-{id}, namespace: kube-system}}, \
         stringData: {{token-id: {id}, token-secret: '{secret}', usage-bootstrap-authentication: 'true'}}}}"
    );
    cluster.apply(&objects).ok();
}

#[test]
fn what_is_signed_on_request_opens_what_it_is_for_and_nothing_else() {
    let world = World::new();
    a_user_is_let_in_once_somebody_approves(&world);
    let_nodes_in(&world.cluster);
    let node = a_node_is_let_in_by_its_invitation(&world);
    a_node_serves_with_what_somebody_approves(&world, &node);
}

fn a_user_is_let_in_once_somebody_approves(world: &World) {
    let jane = Request::of("jane", "devs", &[]);
    world.request(&world.admin, "jane", "kube-apiserver-client", &jane);
    world.request(&world.admin, "nobody", "kube-apiserver-client", &Request::of("nobody", "devs", &[]));
    world.decide("nobody", "Denied");
    // It is not for us to decide: nothing comes of it until somebody has.
    assert_eq!(world.status("jane")["conditions"], Value::Null);
    world.decide("jane", "Approved");
    let certificate = world.signed("jane");
    let bearer = world.bearer(&jane, &certificate);
    let (code, name, groups) = world.known_as(&bearer);
    assert_eq!((code, name.as_str()), (201, "jane"));
    assert_eq!(groups, ["devs", "system:authenticated"]);
    let (code, answer) = world.ask(&bearer, "GET", "/api/v1/namespaces/default/pods", &Value::Null);
    assert_eq!(code, 403, "{answer}");
    assert!(answer["message"].as_str().is_some_and(|m| m.contains("User \"jane\" cannot list")), "{answer}");
    assert_eq!(world.status("nobody")["certificate"], Value::Null, "it was denied");
    let served = world.runtime.block_on(jane.serves(&world.authority, &certificate, "jane"));
    served.expect_err("it is for asking, not for serving");
}

/// Its first certificate is asked for by who has the invitation, its next one by itself; both without anybody's doing.
fn a_node_is_let_in_by_its_invitation(world: &World) -> Api {
    let first = Request::of("system:node:n9", "system:nodes", &[]);
    world.request(&world.stranger(INVITATION), "first", "kube-apiserver-client-kubelet", &first);
    let certificate = world.signed("first");
    assert_eq!(world.status("first")["conditions"][0]["reason"], "AutoApproved");
    let node = world.bearer(&first, &certificate);
    let (code, name, groups) = world.known_as(&node);
    assert_eq!((code, name.as_str()), (201, "system:node:n9"));
    assert_eq!(groups, ["system:nodes", "system:authenticated"]);
    let own = json!({"metadata": {"name": "n9"}});
    assert_eq!(world.ask(&node, "POST", "/api/v1/nodes", &own).0, 201);
    assert_eq!(world.ask(&node, "GET", "/api/v1/nodes/n9", &Value::Null).0, 200);
    assert_eq!(world.ask(&node, "GET", "/api/v1/namespaces/default/secrets", &Value::Null).0, 403);

    let next = Request::of("system:node:n9", "system:nodes", &[]);
    world.request(&node, "next", "kube-apiserver-client-kubelet", &next);
    let certificate = world.signed("next");
    let message = "Auto approving self kubelet client certificate after SubjectAccessReview.";
    assert_eq!(world.status("next")["conditions"][0]["message"], message);
    let node = world.bearer(&next, &certificate);
    assert_eq!(world.known_as(&node).1, "system:node:n9");
    node
}

fn a_node_serves_with_what_somebody_approves(world: &World, node: &Api) {
    let request = Request::of("system:node:n9", "system:nodes", &["n9.example.com"]);
    world.request(node, "serving", "kubelet-serving", &request);
    world.decide("serving", "Approved");
    let certificate = world.signed("serving");
    let serves = |name: &str| world.runtime.block_on(request.serves(&world.authority, &certificate, name));
    serves("n9.example.com").expect("who trusts the cluster's authority trusts it");
    serves("n8.example.com").expect_err("it is for its own name");
    let bearer = world.bearer(&request, &certificate);
    let is_refused = world.runtime.block_on(async {
        match bearer.connect_http2().await {
            Ok(mut streams) => streams.send("GET", "/livez", &[], "").await.is_err(),
            Err(_) => true,
        }
    });
    assert!(is_refused, "it is for serving, not for asking");
}
