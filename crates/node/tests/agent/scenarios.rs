//! What a pod goes through. All run on one node at the same time, as pods do.

use std::time::Instant;

use serde_json::{Value, json};

use crate::api::Api;
use crate::world::World;

/// A container of the test image that runs a script.
fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox:test", "command": ["sh", "-c", script], "imagePullPolicy": "IfNotPresent"})
}

fn with(mut object: Value, fields: Value) -> Value {
    let fields = fields.as_object().expect("an object").clone();
    object.as_object_mut().expect("an object").extend(fields);
    object
}

fn pod(containers: Value) -> Value {
    json!({"containers": containers, "terminationGracePeriodSeconds": 5})
}

fn never(containers: Value) -> Value {
    with(pod(containers), json!({"restartPolicy": "Never"}))
}

fn phase(pod: Option<&Value>) -> &str {
    pod.and_then(|pod| pod["status"]["phase"].as_str()).unwrap_or("none")
}

fn is_ready(pod: Option<&Value>) -> bool {
    let conditions = pod.and_then(|pod| pod["status"]["conditions"].as_array());
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn container(pod: Option<&Value>) -> &Value {
    static NOTHING: Value = Value::Null;
    pod.map_or(&NOTHING, |pod| &pod["status"]["containerStatuses"][0])
}

pub async fn run(only: Option<&str>) {
    let mut world = World::new().await;
    let api = world.api.clone();
    api.put("services", "kubernetes", json!({"spec": {"clusterIP": "10.43.0.1", "ports": [{"port": 443}]}}));
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let begun = Instant::now();
    macro_rules! scenario {
        ($name:ident) => {
            async {
                if wanted(stringify!($name)) {
                    let begun = Instant::now();
                    $name(&world).await;
                    eprintln!("scenario {} ... ok ({:?})", stringify!($name), begun.elapsed());
                }
            }
        };
    }
    tokio::join!(
        scenario!(runs_to_its_end_and_says_so),
        scenario!(is_ready_when_its_probe_says_so_and_ends_gracefully),
        scenario!(waits_for_its_config_map_and_follows_it),
        scenario!(crashes_and_backs_off),
        scenario!(starts_in_order),
        scenario!(shows_why_it_cannot_start),
        scenario!(is_killed_when_it_is_not_alive),
        scenario!(expires),
        scenario!(serves_streams),
        scenario!(is_reached_through_its_service_and_name),
        scenario!(uses_its_volumes),
    );
    if wanted("survives_the_agent") {
        survives_the_agent(&mut world).await;
        eprintln!("scenario survives_the_agent ... ok");
    }
    everything_goes(&world, &api).await;
    world.stop().await;
    eprintln!("all scenarios in {:?}", begun.elapsed());
}

async fn runs_to_its_end_and_says_so(world: &World) {
    let api = &world.api;
    let script = "echo out; echo err >&2; echo -n last words > /dev/termination-log; exit 3";
    api.run("ends", never(json!([shell("c", script)])));
    let ended = api.until("pods", "ends", "failed", |pod| phase(pod) == "Failed").await;
    let state = &container(ended.as_ref())["state"]["terminated"];
    assert_eq!(
        (&state["exitCode"], &state["reason"], &state["message"]),
        (&json!(3), &json!("Error"), &json!("last words"))
    );
    let pod = ended.expect("the pod");
    assert!(pod["status"]["podIP"].as_str().expect("an address").starts_with("10.42.0."), "{pod:#}");
    assert!(pod["status"]["startTime"].is_string());
    let log = crate::scenarios::streams::log(world, "ends", "c", "").await;
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    let has = |reason: &str| api.reasons("ends").iter().any(|(r, _)| r == reason);
    assert!(["Pulled", "Created", "Started"].iter().all(|reason| has(reason)), "{:?}", api.reasons("ends"));
}

async fn is_ready_when_its_probe_says_so_and_ends_gracefully(world: &World) {
    let api = &world.api;
    let script = "trap 'echo term; exit 0' TERM; mkdir /tmp/w; echo ok > /tmp/w/ready; httpd -p 80 -h /tmp/w; while true; do sleep 0.1; done";
    let probed = with(
        shell("c", script),
        json!({
            "ports": [{"name": "web", "containerPort": 80}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "web"}, "periodSeconds": 1},
            "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
            "startupProbe": {"exec": {"command": ["cat", "/tmp/w/ready"]}, "periodSeconds": 1},
            "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo started > /tmp/post"]}},
                "preStop": {"exec": {"command": ["sh", "-c", "cat /tmp/post > /proc/1/fd/1"]}}},
        }),
    );
    api.run("serves", pod(json!([probed])));
    api.until("pods", "serves", "ready", is_ready).await;
    api.delete("serves", 5);
    api.until("pods", "serves", "gone", |pod| pod.is_none()).await;
    assert!(
        api.reasons("serves")
            .iter()
            .any(|(reason, message)| reason == "Killing" && message == "Stopping container c")
    );
}

async fn waits_for_its_config_map_and_follows_it(world: &World) {
    let api = &world.api;
    let script = "echo got $K; while ! grep -q two /config/k; do sleep 0.1; done; cat /config/k";
    let configured = with(
        shell("c", script),
        json!({"env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/config"}]}),
    );
    let volumes = json!({"volumes": [{"name": "v", "configMap": {"name": "late", "optional": true}}]});
    api.run("configured", with(never(json!([configured])), volumes));
    let waits =
        |pod: Option<&Value>| container(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    let waiting = api.until("pods", "configured", "waiting for its ConfigMap", waits).await;
    assert_eq!(container(waiting.as_ref())["state"]["waiting"]["message"], "configmap \"late\" not found");
    api.put("configmaps", "late", json!({"data": {"k": "one"}}));
    api.until("pods", "configured", "running", |pod| !container(pod)["state"]["running"].is_null()).await;
    api.put("configmaps", "late", json!({"data": {"k": "two"}}));
    api.until("pods", "configured", "done", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(streams::log(world, "configured", "c", "").await, "got one\ntwo\n");
}

async fn crashes_and_backs_off(world: &World) {
    let api = &world.api;
    api.run("crashes", pod(json!([shell("c", "echo run; exit 1")])));
    let backs_off = |pod: Option<&Value>| {
        container(pod)["restartCount"] == 1
            && container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let pod = api.until("pods", "crashes", "backing off", backs_off).await;
    let status = container(pod.as_ref());
    let message = status["state"]["waiting"]["message"].as_str().expect("a message");
    assert!(
        message.starts_with("back-off 10s restarting failed container=c pod=crashes_default("),
        "{message}"
    );
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(phase(pod.as_ref()), "Running");
    assert_eq!(streams::log(world, "crashes", "c", "previous=true").await, "run\n");
    api.delete("crashes", 1);
}

async fn starts_in_order(world: &World) {
    let api = &world.api;
    let say = |name: &str, rest: &str| {
        with(
            shell(name, &format!("echo {name} >> /order/file; {rest}")),
            json!({"volumeMounts": [{"name": "o", "mountPath": "/order"}]}),
        )
    };
    let sidecar = with(
        say("side", "trap 'exit 0' TERM; while true; do sleep 0.1; done"),
        json!({"restartPolicy": "Always"}),
    );
    let spec = json!({
        "initContainers": [say("one", "true"), sidecar, say("two", "true")],
        "volumes": [{"name": "o", "emptyDir": {}}],
    });
    api.run("ordered", with(never(json!([say("main", "cat /order/file")])), spec));
    api.until("pods", "ordered", "done", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(streams::log(world, "ordered", "main", "").await, "one\nside\ntwo\nmain\n");
}

async fn shows_why_it_cannot_start(world: &World) {
    let api = &world.api;
    let broken = |fields: Value| with(shell("c", "true"), fields);
    let cases = [
        (
            "no-image",
            broken(json!({"image": "busybox:absent", "imagePullPolicy": "Never"})),
            "ErrImageNeverPull",
        ),
        ("bad-image", broken(json!({"image": "Bad//Name"})), "InvalidImageName"),
        ("root", broken(json!({"securityContext": {"runAsNonRoot": true}})), "CreateContainerConfigError"),
        ("no-command", broken(json!({"command": ["/no/such/program"]})), "CrashLoopBackOff"),
    ];
    for (name, container, _) in &cases {
        api.run(name, pod(json!([container])));
    }
    for (name, _, reason) in &cases {
        let says = |pod: Option<&Value>| container(pod)["state"]["waiting"]["reason"] == *reason;
        let pod = api.until("pods", name, reason, says).await;
        if *name == "no-command" {
            // Each failure counts once: the first is tried again soon, the second after ten seconds.
            let status = container(pod.as_ref());
            let message = status["state"]["waiting"]["message"].as_str().expect("a message");
            assert!(message.starts_with("back-off 10s ") && status["restartCount"] == 1, "{status}");
            let last = &status["lastState"]["terminated"];
            assert_eq!(last["reason"], "StartError", "{status}");
            assert!(last["message"].as_str().expect("a message").contains("/no/such/program"), "{status}");
        }
    }
    let mounted = json!({"volumes": [{"name": "v", "secret": {"secretName": "gone"}}]});
    api.run("no-secret", with(pod(json!([shell("c", "true")])), mounted));
    api.until("events", "", "told", |_| {
        let message = "MountVolume.SetUp failed for volume \"v\" : secret \"gone\" not found";
        api.reasons("no-secret").contains(&("FailedMount".into(), message.into()))
    })
    .await;
}

async fn is_killed_when_it_is_not_alive(world: &World) {
    let api = &world.api;
    let alive =
        json!({"livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}});
    api.run(
        "sick",
        with(
            pod(json!([with(shell("c", "sleep 1000"), alive)])),
            json!({"terminationGracePeriodSeconds": 1}),
        ),
    );
    api.until("pods", "sick", "restarted", |pod| container(pod)["restartCount"].as_i64() >= Some(1)).await;
    let reasons = api.reasons("sick");
    let killed = ("Killing".to_owned(), "Container c failed liveness probe, will be restarted".to_owned());
    assert!(reasons.contains(&killed), "{reasons:?}");
    assert!(
        reasons
            .iter()
            .any(|(reason, message)| reason == "Unhealthy" && message.starts_with("Liveness probe failed: "))
    );
    api.delete("sick", 1);
}

async fn expires(world: &World) {
    let api = &world.api;
    let limit = json!({"activeDeadlineSeconds": 2, "terminationGracePeriodSeconds": 1});
    api.run("expires", with(pod(json!([shell("c", "sleep 1000")])), limit));
    let ended = api.until("pods", "expires", "expired", |pod| phase(pod) == "Failed").await;
    assert_eq!(ended.expect("the pod")["status"]["reason"], "DeadlineExceeded");
}

async fn serves_streams(world: &World) {
    let api = &world.api;
    api.run(
        "streams",
        pod(json!([shell("c", "httpd -p 8080 -h /www; while true; do date; sleep 0.2; done")])),
    );
    api.until("pods", "streams", "ready", is_ready).await;
    let (out, status) =
        streams::exec(world, "streams", "c", &["sh", "-c", "cat; echo $0; exit 4"], b"typed\n").await;
    assert_eq!(out, "typed\nsh\n");
    assert_eq!(
        (&status["reason"], &status["details"]["causes"][0]["message"]),
        (&json!("NonZeroExitCode"), &json!("4"))
    );
    let page = streams::forward(world, "streams", 8080, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(page.ends_with("hello\n"), "{page}");
    for protocol in ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let command = "command=sh&command=-c&command=read%20x%3B%20echo%20%24x%3B%20exit%204";
        let path = format!("/exec/default/streams/c?input=1&output=1&{command}");
        let channels = streams::as_text(world, &path, protocol, "0", b"typed\n").await;
        assert_eq!(channels["1"], "typed\n", "{protocol}");
        assert!(channels["3"].contains("exit status 4"), "{protocol}: {channels:?}");
        assert_eq!(channels["3"].starts_with('{'), protocol.starts_with("v4"), "{channels:?}");
    }
    let (path, asked) = ("/portForward/default/streams?port=8080", b"GET / HTTP/1.0\r\n\r\n");
    let channels = streams::as_text(world, path, "v4.base64.channel.k8s.io", "0", asked).await;
    assert!(channels["0"].ends_with("hello\n"), "{channels:?}");
    api.delete("streams", 1);
}

async fn is_reached_through_its_service_and_name(world: &World) {
    let api = &world.api;
    api.run("backend", pod(json!([shell("c", "httpd -f -p 8080 -h /www")])));
    let backend = api.until("pods", "backend", "ready", is_ready).await.expect("the pod");
    let service = json!({"spec": {"clusterIP": "10.43.0.77", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
    api.put("services", "web", service);
    let endpoint =
        json!({"addresses": [backend["status"]["podIP"]], "conditions": {"ready": true}, "nodeName": "n"});
    let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [endpoint], "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
    api.put("endpointslices", "web-1", slice);
    let script = "until wget -q -O - http://web; do sleep 0.2; done; echo $KUBERNETES_SERVICE_HOST; \
                  wget -q -O - http://web.default.svc.cluster.local:80/";
    api.run("client", never(json!([shell("c", script)])));
    api.until("pods", "client", "done", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(streams::log(world, "client", "c", "tailLines=3").await, "hello\n10.43.0.1\nhello\n");
}

async fn uses_its_volumes(world: &World) {
    let api = &world.api;
    api.put("secrets", "s", json!({"data": {"k": "c2VjcmV0"}}));
    let script = "cat /s/k; echo; cat /token/token; echo; cat /labels; echo; id -u; cat /etc/hostname; \
                  touch /readonly 2>/dev/null || echo readonly; grep -c Kubernetes-managed /etc/hosts; head -c 3 /mem/x; \
                  stat -c %g /mem";
    let container = with(
        shell("c", script),
        json!({
            "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": true},
            "lifecycle": {},
            "volumeMounts": [
                {"name": "s", "mountPath": "/s"}, {"name": "t", "mountPath": "/token"}, {"name": "m", "mountPath": "/mem"},
                {"name": "l", "mountPath": "/labels", "subPath": "labels"}],
        }),
    );
    let prepare =
        with(shell("p", "echo xyz > /mem/x"), json!({"volumeMounts": [{"name": "m", "mountPath": "/mem"}]}));
    let spec = json!({
        "initContainers": [prepare],
        "securityContext": {"fsGroup": 2000},
        "volumes": [
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}},
            {"name": "l", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ],
    });
    api.run("volumes", with(never(json!([container])), spec));
    api.until("pods", "volumes", "done", |pod| phase(pod) == "Succeeded").await;
    let log = streams::log(world, "volumes", "c", "").await;
    assert_eq!(log, "secret\nt0k3n\nvolumes\n1000\nvolumes\nreadonly\n1\nxyz2000\n");
}

async fn survives_the_agent(world: &mut World) {
    let api = world.api.clone();
    let mounted = json!({"volumeMounts": [{"name": "e", "mountPath": "/e"}]});
    let script = "echo run >> /e/runs; trap 'exit 0' TERM; while true; do sleep 0.1; done";
    let volumes = json!({"volumes": [{"name": "e", "emptyDir": {}}]});
    api.run("survivor", with(pod(json!([with(shell("c", script), mounted)])), volumes));
    api.run("orphan", pod(json!([shell("c", "while true; do sleep 0.1; done")])));
    let before = api.until("pods", "survivor", "ready", is_ready).await;
    let orphan = api.until("pods", "orphan", "ready", is_ready).await.expect("the pod");
    world.stop().await;
    // Deleted while nobody listened.
    api.forget("orphan");
    world.start().await;
    let uid = orphan["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let left = world.directory.path().join("node/pods").join(uid);
    streams::until("the orphan is gone", || !left.exists()).await;
    // A new pod shows that the agent has long looked at all of them.
    api.run("later", never(json!([shell("c", "true")])));
    api.until("pods", "later", "done", |pod| phase(pod) == "Succeeded").await;
    let after = api.get("pods", "survivor");
    assert_eq!(container(before.as_ref())["containerID"], container(after.as_ref())["containerID"]);
    assert_eq!((&container(after.as_ref())["restartCount"], is_ready(after.as_ref())), (&json!(0), true));
    // And goes on as before: what ends is started again, with its volumes.
    streams::exec(world, "survivor", "c", &["kill", "1"], b"").await;
    let again = |pod: Option<&Value>| container(pod)["restartCount"] == 1 && is_ready(pod);
    api.until("pods", "survivor", "restarted", again).await;
    let (runs, _) = streams::exec(world, "survivor", "c", &["cat", "/e/runs"], b"").await;
    assert_eq!(runs, "run\nrun\n");
}

/// Every pod is deleted; nothing of any is left on the node.
async fn everything_goes(world: &World, api: &Api) {
    for name in api.names("pods") {
        api.delete(&name, 1);
    }
    for name in api.names("pods") {
        api.until("pods", &name, "gone", |pod| pod.is_none()).await;
    }
    let node = world.directory.path().join("node");
    for part in ["pods", "logs"] {
        let left = || std::fs::read_dir(node.join(part)).map_or(0, Iterator::count);
        streams::until(&format!("no {part} are left"), || left() == 0).await;
    }
    let links =
        world.namespace.run(|| std::fs::read_to_string("/proc/net/dev")).expect("runs").expect("reads");
    assert!(!links.contains("kv"), "{links}");
}

pub mod streams {
    //! The node's server as the API server uses it.

    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use futures::{SinkExt, StreamExt};
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::TokioIo;
    use serde_json::Value;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::protocol::Message;

    use crate::world::World;

    async fn connect(world: &World) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(world.certificate.cert.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(world.server.expect("a server")).await.expect("connects");
        let name = rustls::pki_types::ServerName::try_from("n").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
    }

    pub async fn log(world: &World, pod: &str, container: &str, query: &str) -> String {
        let stream = TokioIo::new(connect(world).await);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.expect("a connection");
        tokio::spawn(connection);
        let path = format!("/containerLogs/default/{pod}/{container}?{query}");
        let request =
            http::Request::get(path).header("host", "n").body(Empty::<Bytes>::new()).expect("a request");
        let reply = sender.send_request(request).await.expect("an answer");
        let status = reply.status();
        let body = reply.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(status.is_success(), "{status} {text}");
        text
    }

    async fn open(world: &World, path: &str, protocol: &str) -> WebSocketStream<TlsStream<TcpStream>> {
        let mut request = format!("wss://n{path}").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
        let stream = connect(world).await;
        tokio_tungstenite::client_async(request, stream).await.expect("an upgrade").0
    }

    pub async fn exec(
        world: &World,
        pod: &str,
        container: &str,
        command: &[&str],
        input: &[u8],
    ) -> (String, Value) {
        let encoded: Vec<String> = command
            .iter()
            .map(|word| word.bytes().map(|byte| format!("%{byte:02x}")).collect())
            .map(|word: String| format!("command={word}"))
            .collect();
        let path = format!("/exec/default/{pod}/{container}?input=1&output=1&error=1&{}", encoded.join("&"));
        let mut socket = open(world, &path, "v5.channel.k8s.io").await;
        let typed = [&[0][..], input].concat();
        socket.send(Message::Binary(typed.into())).await.expect("sends");
        socket.send(Message::Binary(vec![255, 0].into())).await.expect("sends");
        let (mut out, mut status) = (Vec::new(), Value::Null);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(data) if data[0] == 1 => out.extend_from_slice(&data[1..]),
                Message::Binary(data) if data[0] == 3 => {
                    status = serde_json::from_slice(&data[1..]).expect("a status")
                }
                _ => {}
            }
        }
        (String::from_utf8(out).expect("text"), status)
    }

    pub async fn forward(world: &World, pod: &str, port: u16, request: &[u8]) -> String {
        let path = format!("/portForward/default/{pod}?port={port}");
        let mut socket = open(world, &path, "v4.channel.k8s.io").await;
        socket.send(Message::Binary([&[0][..], request].concat().into())).await.expect("sends");
        let mut out = Vec::new();
        let mut first = true;
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(data) = message else { continue };
            if data[0] == 0 && !std::mem::take(&mut first) {
                out.extend_from_slice(&data[1..]);
            } else if data[0] == 1 {
                assert_eq!(data[1..], port.to_le_bytes(), "{}", String::from_utf8_lossy(&data));
            }
        }
        String::from_utf8(out).expect("text")
    }

    /// What came for each channel of a protocol in base64, after something was sent to one of them.
    pub async fn as_text(
        world: &World,
        path: &str,
        protocol: &str,
        channel: &str,
        sent: &[u8],
    ) -> BTreeMap<String, String> {
        let mut socket = open(world, path, protocol).await;
        socket.send(Message::text(format!("{channel}{}", STANDARD.encode(sent)))).await.expect("sends");
        let mut channels = BTreeMap::<String, String>::new();
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let (channel, data) = text.split_at(1);
            let data = STANDARD.decode(data).expect("base64");
            channels.entry(channel.to_owned()).or_default().push_str(&String::from_utf8_lossy(&data));
        }
        channels
    }

    /// Waits for something nobody announces.
    pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            ticks.tick().await;
        }
    }
}
