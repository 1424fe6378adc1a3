//! Tokens on request: what may be asked for and how it is refused, what ends with a node, and that whoever has the published keys
//! can verify them.

mod world;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use store::{Etcd, EtcdAddress, EtcdOptions};
use world::World;

const NAMESPACE: &str = "/api/v1/namespaces/default";
const YEAR_SECONDS: i64 = 365 * 24 * 3600;

/// Two accounts, a node, a secret, and a pod of the first account on the node.
async fn populated() -> World {
    let world = World::new().await;
    for name in ["sa", "other"] {
        world.grant(&format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": name}})).await;
    }
    world.grant("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    world.grant(&format!("{NAMESPACE}/secrets"), json!({"metadata": {"name": "s"}})).await;
    let spec =
        json!({"serviceAccountName": "sa", "nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    world.grant(&format!("{NAMESPACE}/pods"), json!({"metadata": {"name": "p"}, "spec": spec})).await;
    world
}

async fn ask(world: &World, account: &str, request: Value) -> (u16, Value) {
    world.json("POST", &format!("{NAMESPACE}/serviceaccounts/{account}/token"), request).await
}

async fn token(world: &World, spec: Value) -> String {
    let (code, answer) = ask(world, "sa", json!({"spec": spec})).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

fn bound(reference: Value) -> Value {
    json!({"spec": {"boundObjectRef": reference}})
}

/// In the words of kube-apiserver v1.36.2.
#[tokio::test]
async fn what_no_token_is_given_for_is_told_as_by_the_original() {
    let world = populated().await;
    let other_uid = |kind: &str, name: &str| {
        let why = format!(
            "Operation cannot be fulfilled on {kind} \"{name}\": the UID in the bound object reference (wrong) does not match the UID in record. The object might have been deleted and then recreated"
        );
        (bound(json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "wrong"})), 409, why)
    };
    let lasting = |seconds: i64, why: &str| {
        let why = format!(
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: {seconds}: may not specify a duration {why}"
        );
        (json!({"spec": {"expirationSeconds": seconds}}), 422, why)
    };
    let least = "less than 10 minutes";
    let most = "larger than 2^32 seconds";
    let unbindable = |reference: Value, what: &str| {
        (bound(reference), 400, format!("cannot bind token to object of type {what}"))
    };
    let missing = |kind: &str, plural: &str| {
        let reference = json!({"apiVersion": "v1", "kind": kind, "name": "none"});
        (bound(reference), 404, format!("{plural} \"none\" not found"))
    };
    let cases = [
        lasting(599, least),
        lasting(0, least),
        lasting(-1, least),
        lasting((1 << 32) + 1, most),
        lasting(i64::MAX, most),
        other_uid("Pod", "p"),
        other_uid("Secret", "s"),
        other_uid("Node", "n"),
        missing("Pod", "pods"),
        missing("Secret", "secrets"),
        missing("Node", "nodes"),
        unbindable(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "s"}), "/v1, Kind=ConfigMap"),
        unbindable(json!({"apiVersion": "apps/v1", "kind": "Pod", "name": "p"}), "apps/v1, Kind=Pod"),
        unbindable(json!({"apiVersion": "v1", "name": "p"}), "/v1, Kind="),
        (
            json!({"metadata": {"name": "x"}, "spec": {}}),
            422,
            "TokenRequest.authentication.k8s.io \"sa\" is invalid: metadata.name: Invalid value: \"x\": must match the service account name if specified".into(),
        ),
        (
            json!({"metadata": {"namespace": "x"}, "spec": {}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request".into(),
        ),
    ];
    for (request, code, why) in cases {
        let (found, answer) = ask(&world, "sa", request.clone()).await;
        assert_eq!((found, answer["message"].as_str()), (code, Some(why.as_str())), "{request}");
    }
    let of_pod = bound(json!({"kind": "Pod", "name": "p"}));
    let (code, answer) = ask(&world, "other", of_pod.clone()).await;
    let why =
        "cannot bind token for serviceaccount \"other\" to pod running with different serviceaccount name.";
    assert_eq!((code, answer["message"].as_str()), (400, Some(why)));
    assert_eq!(ask(&world, "nobody", json!({})).await.0, 404);
    // A version need not be said.
    let (code, answer) = ask(&world, "sa", of_pod).await;
    assert_eq!((code, &answer["metadata"]["name"]), (201, &json!("sa")), "{answer}");
}

/// Keys sign for so long that a token may be good for a year; whoever asks for more is told that it is less.
#[tokio::test]
async fn a_token_lasts_as_long_as_was_asked_for_and_a_year_at_the_most() {
    let world = populated().await;
    let path = format!("{NAMESPACE}/serviceaccounts/sa/token");
    for (asked, lasts) in
        [(600, 600), (YEAR_SECONDS, YEAR_SECONDS), (YEAR_SECONDS + 1, YEAR_SECONDS), (1 << 32, YEAR_SECONDS)]
    {
        let body = json!({"spec": {"expirationSeconds": asked}}).to_string();
        let (code, headers, answer) =
            world.send("POST", &path, &[("content-type", "application/json")], body).await;
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!((code, &answer["spec"]["expirationSeconds"]), (201, &json!(lasts)), "{answer}");
        let claims = part(answer["status"]["token"].as_str().expect("a token"), 1);
        let [from, to] = ["iat", "exp"].map(|name| claims[name].as_i64().expect("a time"));
        assert_eq!(to - from, lasts, "{claims}");
        let warning = headers.get("warning").map(|text| text.to_str().expect("text").to_owned());
        let shortened =
            format!("299 - \"requested expiration of {asked} seconds shortened to {lasts} seconds\"");
        assert_eq!(warning, (asked != lasts).then_some(shortened));
    }
}

#[tokio::test]
async fn a_token_of_a_node_ends_with_it() {
    let world = populated().await;
    let of_node =
        token(&world, json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "n"}})).await;
    let of_pod =
        token(&world, json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}})).await;
    let (_, node) = world.json("GET", "/api/v1/nodes/n", Value::Null).await;
    for (token, claims) in [(&of_node, part(&of_node, 1)), (&of_pod, part(&of_pod, 1))] {
        assert_eq!(claims["kubernetes.io"]["node"], json!({"name": "n", "uid": node["metadata"]["uid"]}));
        let (code, who) = world.bearer(token).await;
        assert_eq!(code, 201);
        assert_eq!(who["extra"]["authentication.kubernetes.io/node-name"], json!(["n"]), "{who}");
        assert_eq!(who["extra"]["authentication.kubernetes.io/node-uid"], json!([node["metadata"]["uid"]]));
    }
    assert_eq!(world.json("DELETE", "/api/v1/nodes/n", Value::Null).await.0, 200);
    assert_eq!(world.bearer(&of_node).await.0, 401, "its node is gone");
    assert_eq!(world.bearer(&of_pod).await.0, 201, "it ends with its pod");
    world.grant("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    assert_eq!(world.bearer(&of_node).await.0, 401, "a namesake is not what it was bound to");
}

#[tokio::test]
async fn what_is_signed_is_verified_with_the_keys_that_are_published() {
    let world = populated().await;
    let token = token(&world, json!({"audiences": ["vault"]})).await;
    let (code, keys) = world.json("GET", "/openid/v1/jwks", Value::Null).await;
    assert_eq!(code, 200, "{keys}");
    let named = |key: &&Value| key["kid"] == part(&token, 0)["kid"];
    let key = keys["keys"].as_array().and_then(|keys| keys.iter().find(named)).expect("the key of the token");
    let is = ["kty", "crv", "alg", "use"].map(|name| key[name].as_str().unwrap_or_default());
    assert_eq!(is, ["EC", "P-256", "ES256", "sig"], "{key}");
    let mut point = vec![4];
    for half in ["x", "y"] {
        let half = URL_SAFE_NO_PAD.decode(key[half].as_str().expect("half a point")).expect("base64");
        assert_eq!(half.len(), 32);
        point.extend(half);
    }
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    public.verify(signed.as_bytes(), &signature).expect("it is signed with this key");
    public.verify(format!("{signed}A").as_bytes(), &signature).expect_err("and nothing else is");
}

/// Makes the key that signs as old as one may become.
fn age(world: &World) {
    let file = std::fs::File::options().append(true).open(world.keys().join("service-account.key"));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(300 * 24 * 3600);
    file.and_then(|file| file.set_modified(long_ago)).expect("it is older");
}

#[tokio::test]
async fn a_key_that_has_served_its_time_is_replaced_while_the_server_runs() {
    let world = populated().await;
    let old = token(&world, json!({})).await;
    world.server.replace_old_key().expect("looks");
    assert_eq!(part(&token(&world, json!({})).await, 0)["kid"], part(&old, 0)["kid"], "it is young");
    age(&world);
    world.server.replace_old_key().expect("replaces");
    let new = token(&world, json!({})).await;
    assert_ne!(part(&new, 0)["kid"], part(&old, 0)["kid"]);
    let (_, keys) = world.json("GET", "/openid/v1/jwks", Value::Null).await;
    let published: Vec<&Value> =
        keys["keys"].as_array().expect("keys").iter().map(|key| &key["kid"]).collect();
    for token in [&old, &new] {
        assert_eq!(world.bearer(token).await.0, 201);
        assert!(published.contains(&&part(token, 0)["kid"]), "{keys}");
    }
    world.server.replace_old_key().expect("looks");
    assert_eq!(part(&token(&world, json!({})).await, 0)["kid"], part(&new, 0)["kid"], "once is enough");
}

/// Another server would not know tokens of a key that this one has made for itself, nor let this one start again.
#[tokio::test]
async fn servers_that_share_a_store_keep_the_key_that_they_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let etcd = testkit::Etcd::required(folder.path());
    let address = EtcdAddress::parse(&format!("etcd://{}", etcd.address)).expect("an address");
    let store = Etcd::open(EtcdOptions::new(address)).await.expect("opens");
    let world = World::on(std::sync::Arc::new(store)).await;
    let key = || std::fs::read(world.keys().join("service-account.key")).expect("a key");
    let before = key();
    age(&world);
    world.server.replace_old_key().expect("looks");
    assert_eq!(key(), before);
}
