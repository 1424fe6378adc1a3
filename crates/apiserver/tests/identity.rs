//! Who is believed, and for how long: tokens of our own and of others, what they are bound to and for whom they are.

mod world;

use std::sync::{Arc, OnceLock};

use apiserver::auth::authentication::Authentication;
use apiserver::auth::tokens::Signer;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use testkit::Extension;
use world::World;

const NAMESPACE: &str = "/api/v1/namespaces/default";
const OWN: &str = "https://kubernetes.default.svc.cluster.local";

/// An issuer of tokens on loopback.
struct Issuer {
    url: String,
    authority: String,
    key: EcdsaKeyPair,
    server: Extension,
}

fn pair() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).expect("a key")
}

impl Issuer {
    async fn start() -> Self {
        let key = pair();
        let point = key.public_key().as_ref().to_vec();
        let own = Arc::new(OnceLock::<String>::new());
        let url = Arc::clone(&own);
        let server = Extension::start(&["localhost"], move |parts, _| {
            let url = url.get().expect("set at once");
            Some((200, match parts.uri.path() {
                "/.well-known/openid-configuration" => json!({"issuer": url, "jwks_uri": format!("{url}/keys")}),
                "/keys" => json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "use": "sig",
                    "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])}]}),
                _ => return Some((404, Value::Null)),
            }))
        })
        .await;
        let url = format!("https://localhost:{}", server.port);
        own.set(url.clone()).expect("once");
        Self { url, authority: server.authority.clone(), key, server }
    }

    fn token(&self, change: impl Fn(&mut Value)) -> String {
        let now = base::time::now().as_second();
        let mut claims =
            json!({"iss": self.url, "aud": "kedge", "sub": "jane", "groups": ["devs"], "exp": now + 600});
        change(&mut claims);
        sign(&self.key, json!({"alg": "ES256", "kid": "k"}), &claims)
    }

    fn configuration(&self, prefix: &str) -> String {
        let authority = self.authority.lines().map(|line| format!("      {line}\n")).collect::<String>();
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {}\n    audiences: [kedge]\n    \
             certificateAuthority: |\n{authority}  claimValidationRules:\n  - {{expression: \"claims.sub != 'banned'\", message: banned}}\n  \
             claimMappings:\n    username: {{claim: sub, prefix: '{prefix}'}}\n    groups: {{expression: \"claims.groups.map(g, 'org:' + g)\"}}\n    \
             extra: [{{key: example.com/issuer, valueExpression: claims.iss}}]\n  \
             userValidationRules:\n  - {{expression: \"!user.username.startsWith('system:')\", message: reserved}}\n\
             anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n",
            self.url
        )
    }
}

fn sign(key: &EcdsaKeyPair, header: Value, claims: &Value) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn tokens_of_another_issuer_are_met_as_the_file_says() {
    let issuer = Issuer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authentication.yaml");
    std::fs::write(&file, issuer.configuration("oidc:")).expect("writes");
    let settings = Authentication { configuration_file: Some(file.clone()), ..Default::default() };
    let world = World::believing(settings).await;
    let (code, who) = world.bearer(&issuer.token(|_| ())).await;
    assert_eq!((code, who["username"].as_str()), (201, Some("oidc:jane")), "{who}");
    assert_eq!(who["groups"], json!(["org:devs", "system:authenticated"]));
    assert_eq!(who["extra"]["example.com/issuer"], json!([issuer.url]));
    let now = base::time::now().as_second();
    for (why, token) in [
        ("another audience", issuer.token(|c| c["aud"] = "other".into())),
        ("expired", issuer.token(|c| c["exp"] = (now - 1).into())),
        ("without an end", issuer.token(|c| drop(c.as_object_mut().expect("claims").remove("exp")))),
        ("not yet", issuer.token(|c| c["nbf"] = (now + 600).into())),
        ("another issuer", issuer.token(|c| c["iss"] = "https://elsewhere".into())),
        ("a rule", issuer.token(|c| c["sub"] = "banned".into())),
        (
            "another key",
            sign(
                &pair(),
                json!({"alg": "ES256", "kid": "k"}),
                &json!({"iss": issuer.url, "aud": "kedge", "sub": "jane", "groups": [], "exp": now + 600}),
            ),
        ),
        (
            "no key",
            sign(
                &issuer.key,
                json!({"alg": "none"}),
                &json!({"iss": issuer.url, "aud": "kedge", "sub": "jane", "groups": [], "exp": now + 600}),
            ),
        ),
    ] {
        assert_eq!(world.bearer(&token).await.0, 401, "{why}");
    }
    let fetched = issuer.server.asked().len();
    assert!(fetched <= 4, "keys are not fetched for every stranger: {fetched}");
    // Only where it is said may nobody in particular stand.
    assert_eq!(world.unknown("GET", "/livez", &[]).await.0, 200);
    assert_eq!(world.unknown("GET", "/readyz", &[]).await.0, 401);

    std::fs::write(&file, "kind: nonsense").expect("writes");
    assert_eq!(
        world.bearer(&issuer.token(|_| ())).await.1["username"],
        "oidc:jane",
        "what cannot be read changes nothing"
    );
    std::fs::write(&file, issuer.configuration("changed:")).expect("writes");
    assert_eq!(world.bearer(&issuer.token(|_| ())).await.1["username"], "changed:jane");
    std::fs::write(&file, issuer.configuration("system:")).expect("writes");
    assert_eq!(world.bearer(&issuer.token(|_| ())).await.0, 401, "a user that the rules refuse");
}

/// Strangers that come together have keys asked for once; those who belong to the issuer wait for that and get in.
#[tokio::test]
async fn keys_are_asked_for_once_by_all_who_come_meanwhile() {
    let issuer = Issuer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authentication.yaml");
    std::fs::write(&file, issuer.configuration("oidc:")).expect("writes");
    let settings = Authentication { configuration_file: Some(file), ..Default::default() };
    let world = World::believing(settings).await;
    let now = base::time::now().as_second();
    let claims = json!({"iss": issuer.url, "aud": "kedge", "sub": "jane", "groups": [], "exp": now + 600});
    let strange =
        |n: usize| sign(&issuer.key, json!({"alg": "ES256", "kid": format!("unknown-{n}")}), &claims);
    let mut tokens: Vec<(String, u16)> = (0..20).map(|n| (strange(n), 401)).collect();
    tokens.extend((0..5).map(|_| (issuer.token(|_| ()), 201)));
    let asking = tokens.iter().map(async |(token, expected)| {
        assert_eq!(world.bearer(token).await.0, *expected);
    });
    futures::future::join_all(asking).await;
    assert_eq!(issuer.server.asked().len(), 2, "a document and its keys");
}

#[tokio::test]
async fn another_service_may_know_tokens() {
    let service = Extension::start(&["localhost"], |_, body| {
        let token = body["spec"]["token"].as_str().unwrap_or_default();
        let user = json!({"username": "jane", "uid": "7", "groups": ["devs"]});
        let mut status = json!({"authenticated": token != "unknown", "user": user});
        if let Some(audience) = token.strip_prefix("known-to-") {
            status["audiences"] = json!([audience, "somebody-else"]);
        }
        Some((
            200,
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}),
        ))
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("webhook.yaml");
    let config = json!({"clusters": [{"name": "a", "cluster": {"server": format!("https://localhost:{}/review", service.port),
        "certificate-authority-data": STANDARD.encode(&service.authority)}}]});
    std::fs::write(&file, config.to_string()).expect("writes");
    let settings = Authentication { token_webhook_file: Some(file), ..Default::default() };
    let world = World::believing(settings).await;
    for _ in 0..3 {
        let (code, who) = world.bearer("known").await;
        assert_eq!((code, who["username"].as_str()), (201, Some("jane")));
        assert_eq!(world.bearer("unknown").await.0, 401);
    }
    assert_eq!(service.asked().len(), 2, "answers are kept for a while");

    // Whom a token is for is what the service says: of those that were asked for, no others; and ours where it says nothing.
    assert_eq!(world.bearer("known-to-vault").await.0, 401, "it is for another");
    let ours = "https://kubernetes.default.svc.cluster.local";
    let cases = [
        ("known-to-vault", json!(["kube", "vault"]), json!(["vault"])),
        ("known-to-vault", json!(["kube"]), Value::Null),
        ("known", json!(["vault"]), Value::Null),
        ("known", json!(["vault", ours]), json!([ours])),
    ];
    for (token, asked, wanted) in cases {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": asked}});
        let (code, answer) = world.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await;
        let is_known = answer["status"]["authenticated"] == true;
        assert_eq!(
            (code, is_known, &answer["status"]["audiences"]),
            (201, !wanted.is_null(), &wanted),
            "{token} for {asked}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_invitation_lets_a_node_ask_for_its_certificate() {
    let world = World::new().await;
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}});
    world.grant("/api/v1/namespaces/kube-system/secrets", secret).await;
    let (code, who) = world.bearer("abcdef.0123456789abcdef").await;
    assert_eq!((code, who["username"].as_str()), (201, Some("system:bootstrap:abcdef")));
    assert_eq!(who["groups"], json!(["system:bootstrappers", "system:authenticated"]));
    assert_eq!(world.bearer("abcdef.0123456789abcdee").await.0, 401);
    let path = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
    world.json("DELETE", path, Value::Null).await;
    assert_eq!(world.bearer("abcdef.0123456789abcdef").await.0, 401, "it was taken back");
}

async fn pod_with_account(world: &World) -> Value {
    world.grant(&format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "sa"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "sa", "containers": [{"name": "c", "image": "i"}]}});
    let (code, pod) = world.json("POST", &format!("{NAMESPACE}/pods"), pod).await;
    assert_eq!(code, 201, "{pod}");
    pod
}

async fn token(world: &World, spec: Value) -> String {
    let path = format!("{NAMESPACE}/serviceaccounts/sa/token");
    let (code, answer) = world.json("POST", &path, json!({"spec": spec})).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn a_token_is_good_for_as_long_as_what_it_is_bound_to() {
    let world = World::new().await;
    let pod = pod_with_account(&world).await;
    world.grant(&format!("{NAMESPACE}/secrets"), json!({"metadata": {"name": "s"}})).await;
    let bound =
        |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let of_pod = token(&world, bound("Pod", "p")).await;
    let of_secret = token(&world, bound("Secret", "s")).await;
    let of_account = token(&world, json!({})).await;
    let (code, who) = world.bearer(&of_pod).await;
    assert_eq!((code, who["username"].as_str()), (201, Some("system:serviceaccount:default:sa")));
    assert_eq!(who["extra"]["authentication.kubernetes.io/pod-uid"], json!([pod["metadata"]["uid"]]));
    assert!(
        who["extra"]["authentication.kubernetes.io/credential-id"][0]
            .as_str()
            .is_some_and(|id| id.starts_with("JTI="))
    );
    world.json("DELETE", &format!("{NAMESPACE}/pods/p"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(world.bearer(&of_pod).await.0, 401, "its pod is gone");
    assert_eq!(world.bearer(&of_secret).await.0, 201);
    world.json("DELETE", &format!("{NAMESPACE}/secrets/s"), Value::Null).await;
    world.grant(&format!("{NAMESPACE}/secrets"), json!({"metadata": {"name": "s"}})).await;
    assert_eq!(world.bearer(&of_secret).await.0, 401, "a namesake is not what it was bound to");
    assert_eq!(world.bearer(&of_account).await.0, 201);
    world.json("DELETE", &format!("{NAMESPACE}/serviceaccounts/sa"), Value::Null).await;
    assert_eq!(world.bearer(&of_account).await.0, 401, "its account is gone");
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_for_as_long_as_that_and_its_account() {
    let world = World::new().await;
    let secrets = format!("{NAMESPACE}/secrets");
    let accounts = format!("{NAMESPACE}/serviceaccounts");
    let made = async |name: &str| {
        let (code, account) = world.json("POST", &accounts, json!({"metadata": {"name": name}})).await;
        assert_eq!(code, 201, "{account}");
        account["metadata"]["uid"].as_str().expect("a uid").to_owned()
    };
    let sign = |uid: &str, secret: &str| {
        world.server.sign_for_secret("default", ("sa", uid), secret).expect("signs")
    };
    let keep = async |name: &str, token: &str| {
        let secret = json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "sa"}},
            "type": "kubernetes.io/service-account-token", "stringData": {"token": token}});
        world.grant(&secrets, secret).await;
    };
    let uid = made("sa").await;
    let token = sign(&uid, "a");
    assert_eq!(world.bearer(&token).await.0, 401, "it lies nowhere");
    keep("a", &token).await;
    let (code, who) = world.bearer(&token).await;
    assert_eq!((code, &who["username"]), (201, &json!("system:serviceaccount:default:sa")), "{who}");
    assert_eq!((&who["uid"], &who["extra"]), (&json!(uid), &Value::Null));
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(who["groups"], json!(groups));
    assert_eq!(world.bearer(&sign(&uid, "a")).await.0, 401, "signed as well, but not what lies there");
    let review = async |audiences: Value| {
        let review = json!({"spec": {"token": token, "audiences": audiences}});
        world.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await.1["status"].clone()
    };
    assert_eq!(review(json!([])).await["authenticated"], true);
    assert_eq!(review(json!(["vault"])).await["authenticated"], Value::Null, "it is for this server alone");

    // When it was used is kept on its Secret.
    let path = format!("{secrets}/a");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let noted = loop {
        let (_, secret) = world.json("GET", &path, Value::Null).await;
        let noted = secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].clone();
        if !noted.is_null() {
            break noted;
        }
        assert!(std::time::Instant::now() < end, "{secret}");
        tokio::task::yield_now().await;
    };
    let day = base::time::now().strftime("%Y-%m-%d").to_string();
    assert!(noted.as_str().is_some_and(|noted| noted <= day.as_str() && noted.len() == day.len()), "{noted}");
    let (_, since) = world
        .json(
            "GET",
            "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking",
            Value::Null,
        )
        .await;
    assert!(since["data"]["since"].as_str().is_some_and(|since| since <= day.as_str()), "{since}");

    let label =
        |value: Value| json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": value}}});
    world.json("PATCH", &path, label("2026-01-01".into())).await;
    assert_eq!(world.bearer(&token).await.0, 401, "it was set aside");
    world.json("PATCH", &path, label(Value::Null)).await;
    assert_eq!(world.bearer(&token).await.0, 201, "and taken up again");
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    world.json("PATCH", &path, finalizers(json!(["example.com/a"]))).await;
    world.json("DELETE", &path, Value::Null).await;
    assert_eq!(world.bearer(&token).await.0, 401, "its Secret is going");
    world.json("PATCH", &path, finalizers(Value::Null)).await;
    assert_eq!(world.bearer(&token).await.0, 401, "its Secret is gone");

    let token = sign(&uid, "b");
    keep("b", &token).await;
    assert_eq!(world.bearer(&token).await.0, 201);
    let warned = async || {
        let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(apiserver::http::body::full("{}"))
            .expect("a request");
        let answer = world.server.handle(request, None).await;
        assert_eq!(answer.status().as_u16(), 201);
        answer.headers().get("warning").map(|text| text.to_str().expect("text").to_owned())
    };
    assert_eq!(warned().await, None);
    let listed = json!({"secrets": [{"name": "b"}]});
    world.json("PATCH", &format!("{accounts}/sa"), listed).await;
    let warning = warned().await.unwrap_or_default();
    assert!(
        warning.contains("instead of auto-generated secret-based tokens"),
        "made by a controller: {warning}"
    );
    world.json("DELETE", &format!("{accounts}/sa"), Value::Null).await;
    assert_eq!(world.bearer(&token).await.0, 401, "its account is gone");
    made("sa").await;
    assert_eq!(world.bearer(&token).await.0, 401, "a namesake is not whom it was for");
}

#[tokio::test]
async fn a_token_is_for_its_audience() {
    let world = World::new().await;
    pod_with_account(&world).await;
    let other = token(&world, json!({"audiences": ["vault", "mail"]})).await;
    assert_eq!(world.bearer(&other).await.0, 401, "it is not for this server");
    let review = async |token: &str, audiences: Value| {
        let review = json!({"spec": {"token": token, "audiences": audiences}});
        world.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await.1["status"].clone()
    };
    let status = review(&other, json!(["vault", "bank"])).await;
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["vault"])),
        "{status}"
    );
    let status = review(&other, json!(["bank"])).await;
    assert_ne!(status["authenticated"], true, "{status}");
    let ours = token(&world, json!({})).await;
    let status = review(&ours, json!([])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([OWN])), "{status}");
}

/// Signed as it should be, and yet not to be believed: whoever bears it is a stranger.
#[tokio::test]
async fn a_token_out_of_its_time_or_for_others_is_a_strangers() {
    let world = World::new().await;
    pod_with_account(&world).await;
    let signer = Signer::open(&world.keys().join("service-account.key")).expect("a key");
    let good = token(&world, json!({})).await;
    let claims: Value = {
        let body = good.split('.').nth(1).expect("claims");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).expect("base64")).expect("JSON")
    };
    let now = claims["iat"].as_i64().expect("a time");
    let ask = async |change: Value| {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("claims").extend(change.as_object().expect("changes").clone());
        let bearer = format!("Bearer {}", signer.sign(&claims).expect("signs"));
        world.unknown("GET", &format!("{NAMESPACE}/configmaps"), &[("authorization", &bearer)]).await
    };
    assert_eq!(ask(json!({})).await.0, 403, "who it is, is known");
    let stranger = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401});
    for (what, change) in [
        ("expired", json!({"exp": now - 1})),
        ("expired long ago", json!({"exp": 1})),
        ("not yet valid", json!({"nbf": now + 3600})),
        ("valid never", json!({"nbf": now + 3600, "exp": now - 3600})),
        ("for others", json!({"aud": ["vault"]})),
        ("for nobody", json!({"aud": []})),
        ("by others", json!({"iss": "https://elsewhere"})),
        ("of times that are no numbers", json!({"exp": "never"})),
    ] {
        assert_eq!(ask(change).await, (401, stranger.clone()), "{what}");
    }
}

/// As browsers do it, who can say nothing else with a WebSocket.
#[tokio::test]
async fn a_token_may_come_as_the_name_of_a_protocol() {
    let world = World::new().await;
    pod_with_account(&world).await;
    let token = URL_SAFE_NO_PAD.encode(token(&world, json!({})).await);
    let ask = async |protocols: &str| {
        let headers =
            [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", protocols)];
        world.unknown("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers).await.0
    };
    let named = format!("base64url.bearer.authorization.k8s.io.{token}");
    assert_eq!(ask(&format!("{named}, base64.binary.k8s.io")).await, 201);
    assert_eq!(ask(&named).await, 401, "nothing is left to answer with");
    assert_eq!(ask("base64.binary.k8s.io").await, 401);
    assert_eq!(ask("base64url.bearer.authorization.k8s.io.d3Jvbmc, base64.binary.k8s.io").await, 401);
}

#[tokio::test]
async fn whoever_verifies_tokens_themselves_finds_the_keys() {
    let world = World::new().await;
    pod_with_account(&world).await;
    let ours = token(&world, json!({})).await;
    let (_, document) = world.json("GET", "/.well-known/openid-configuration", Value::Null).await;
    assert_eq!(
        (&document["issuer"], &document["jwks_uri"]),
        (&json!(OWN), &json!(format!("{OWN}/openid/v1/jwks")))
    );
    let (_, keys) = world.json("GET", "/openid/v1/jwks", Value::Null).await;
    let header = URL_SAFE_NO_PAD.decode(ours.split('.').next().expect("a header")).expect("base64");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    assert_eq!(keys["keys"][0]["kid"], header["kid"], "{keys}");
}
