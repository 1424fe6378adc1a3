//! What admission adds to pods and claims and what it refuses: limit ranges, pod security, runtime classes, finalizers.

mod world;

use serde_json::{Value, json};
use world::{World, master};

const NAMESPACE: &str = "/api/v1/namespaces/default";

fn pod(name: &str, fields: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in fields.as_object().expect("fields") {
        pod["spec"][field] = value.clone();
    }
    pod
}

async fn world() -> World {
    let world = World::new().await;
    world.grant(&format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    world
}

/// The answer and what it warns of.
async fn warned(world: &World, method: &str, path: &str, body: Value) -> (u16, Value, Vec<String>) {
    let form = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let (code, headers, bytes) = world.send(method, path, &[("content-type", form)], body.to_string()).await;
    let warnings = headers.get_all("warning").iter().map(|w| w.to_str().expect("text").replace('\\', ""));
    (code, serde_json::from_slice(&bytes).unwrap_or_default(), warnings.collect())
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let world = world().await;
    let limits = json!([
        {"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "1Mi"}, "default": {"memory": "64Mi"}, "defaultRequest": {"cpu": "50m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]);
    world
        .grant(
            &format!("{NAMESPACE}/limitranges"),
            json!({"metadata": {"name": "r"}, "spec": {"limits": limits}}),
        )
        .await;
    let pods = format!("{NAMESPACE}/pods");
    let (code, made) = world.json("POST", &pods, pod("a", json!({}))).await;
    assert_eq!(code, 201, "{made}");
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(
        *resources,
        json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}})
    );
    let told = &made["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert_eq!(
        told,
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    );
    let large = json!([{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]);
    let (code, answer) = world.json("POST", &pods, pod("b", json!({"containers": large}))).await;
    let why = "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let claim = json!({"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    let (code, answer) = world.json("POST", &format!("{NAMESPACE}/persistentvolumeclaims"), claim).await;
    let why = "persistentvolumeclaims \"d\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
}

#[tokio::test]
async fn a_namespace_holds_its_pods_to_a_standard() {
    let world = world().await;
    let pods = format!("{NAMESPACE}/pods");
    let host = || json!({"hostNetwork": true});
    world.grant(&pods, pod("before", host())).await;
    let labels = |pairs: Value| json!({"metadata": {"labels": pairs}});
    let enforce = labels(
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}),
    );
    let (code, answer, warnings) = warned(&world, "PATCH", NAMESPACE, enforce).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        warnings,
        [
            "299 - \"existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"\"",
            "299 - \"before: host namespaces\"",
        ]
    );
    let (code, answer, _) = warned(&world, "POST", &pods, pod("after", host())).await;
    let why = "pods \"after\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let (code, answer, warnings) = warned(&world, "POST", &pods, pod("plain", json!({}))).await;
    assert_eq!(code, 201, "{answer}");
    let would = "299 - \"would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
                 (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities \
                 (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \
                 \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
                 securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")\"";
    assert_eq!(warnings, [would]);
    // What makes pods is warned of.
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"metadata": {"name": "set"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let (code, answer, warnings) =
        warned(&world, "POST", "/apis/apps/v1/namespaces/default/replicasets", set).await;
    assert_eq!((code, warnings.as_slice()), (201, [would.to_owned()].as_slice()), "{answer}");
    let wrong = labels(json!({"pod-security.kubernetes.io/enforce": "strict"}));
    let (code, answer, _) = warned(&world, "PATCH", NAMESPACE, wrong).await;
    let why = "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": \
               must be one of privileged, baseline, restricted";
    assert_eq!((code, answer["message"].as_str()), (422, Some(why)));
    // An ephemeral container is a container.
    let added = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "securityContext": {"privileged": true}}]}});
    let (code, answer, _) =
        warned(&world, "PATCH", &format!("{pods}/plain/ephemeralcontainers"), added).await;
    assert_eq!(code, 403, "{answer}");
}

#[tokio::test]
async fn defaults_and_finalizers_come_with_the_object() {
    let world = world().await;
    let class = json!({"metadata": {"name": "slow"}, "handler": "slow", "overhead": {"podFixed": {"cpu": "100m"}}, "scheduling": {"nodeSelector": {"k": "v"}}});
    world.grant("/apis/node.k8s.io/v1/runtimeclasses", class).await;
    let pods = format!("{NAMESPACE}/pods");
    let (_, made) = world.json("POST", &pods, pod("a", json!({"runtimeClassName": "slow"}))).await;
    assert_eq!(
        (&made["spec"]["overhead"], &made["spec"]["nodeSelector"]),
        (&json!({"cpu": "100m"}), &json!({"k": "v"})),
        "{made}"
    );
    let (code, answer) = world.json("POST", &pods, pod("b", json!({"runtimeClassName": "none"}))).await;
    let why = "pods \"b\" is forbidden: pod rejected: RuntimeClass \"none\" not found";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = format!("{NAMESPACE}/persistentvolumeclaims");
    let (_, made) = world.json("POST", &claims, claim.clone()).await;
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]), "{made}");
    let grown = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let (code, answer) = world.ask(&master(), "PATCH", &format!("{claims}/c"), grown).await;
    assert!(code == 403 || code == 422, "{answer}");
    let (_, node) = world
        .json(
            "POST",
            "/api/v1/nodes",
            json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}}),
        )
        .await;
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]),
        "{node}"
    );
    world.grant(&pods, pod("bound", json!({}))).await;
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    let (code, answer) = world.json("POST", &format!("{pods}/bound/binding"), binding).await;
    assert_eq!(code, 201, "{answer}");
    let (_, bound) = world.json("GET", &format!("{pods}/bound"), Value::Null).await;
    assert_eq!(bound["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z"}), "{bound}");
    let ingress_class = json!({"metadata": {"name": "first", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}, "spec": {"controller": "a/b"}});
    world.grant("/apis/networking.k8s.io/v1/ingressclasses", ingress_class).await;
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let (_, made) =
        world.json("POST", "/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress).await;
    assert_eq!(made["spec"]["ingressClassName"], "first", "{made}");
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    world.grant(classes, json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true})).await;
    let (code, answer) = world
        .json("POST", classes, json!({"metadata": {"name": "other"}, "value": 8, "globalDefault": true}))
        .await;
    let why = "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let (code, answer) = world.json("POST", &pods, pod("p", json!({"priority": 9}))).await;
    assert_eq!(code, 403, "{answer}");
}

#[tokio::test]
async fn tokens_are_mounted_where_they_are_wanted() {
    let world = world().await;
    let silent = json!({"metadata": {"name": "silent"}, "automountServiceAccountToken": false});
    world.grant(&format!("{NAMESPACE}/serviceaccounts"), silent).await;
    let said =
        |wanted: Option<bool>| wanted.map_or(json!({}), |w| json!({"automountServiceAccountToken": w}));
    for (i, (account, wanted, mounted)) in [
        ("default", None, true),
        ("default", Some(false), false),
        ("silent", None, false),
        ("silent", Some(true), true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut fields = said(wanted);
        fields["serviceAccountName"] = account.into();
        let (code, made) =
            world.json("POST", &format!("{NAMESPACE}/pods"), pod(&format!("p{i}"), fields)).await;
        assert_eq!(code, 201, "{made}");
        assert_eq!(made["spec"]["volumes"].is_array(), mounted, "{account} {wanted:?}");
    }
}

#[tokio::test]
async fn an_account_may_say_which_secrets_its_pods_use() {
    let world = World::new().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "known"}], "imagePullSecrets": [{"name": "pull"}]});
    world.grant(accounts, account).await;
    world.grant(accounts, json!({"metadata": {"name": "lax"}})).await;
    let check = async |account: &str, change: &dyn Fn(&mut Value), expected: &str| {
        let mut spec = json!({"serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]});
        change(&mut spec);
        let pod = json!({"metadata": {"generateName": "p-"}, "spec": spec});
        let (code, answer) = world.json("POST", "/api/v1/namespaces/default/pods", pod).await;
        let said = answer["message"].as_str().unwrap_or_default().to_owned();
        match expected {
            "" => assert_eq!(code, 201, "{said}"),
            why => assert!(code == 403 && said.ends_with(why), "{code} {said}"),
        }
    };
    let volume = |name: &str| json!([{"name": "v", "secret": {"secretName": name}}]);
    let from = |name: &str| json!([{"secretRef": {"name": name}}]);
    let variable =
        |name: &str| json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
    check("strict", &|_| (), "").await;
    check("strict", &|s| s["volumes"] = volume("known"), "").await;
    check("lax", &|s| s["volumes"] = volume("other"), "").await;
    check(
        "strict",
        &|s| s["volumes"] = volume("other"),
        "volume with secret.secretName=\"other\" is not allowed because service account strict does not reference that secret",
    )
    .await;
    check(
        "strict",
        &|s| s["containers"][0]["env"] = variable("other"),
        "container c with envVar E referencing secret.secretName=\"other\" is not allowed because service account strict does not reference that secret",
    )
    .await;
    check(
        "strict",
        &|s| s["initContainers"] = json!([{"name": "i", "image": "i", "envFrom": from("other")}]),
        "init container i with envFrom referencing secret.secretName=\"other\" is not allowed because service account strict does not reference that secret",
    )
    .await;
    check("strict", &|s| s["imagePullSecrets"] = json!([{"name": "pull"}]), "").await;
    check(
        "strict",
        &|s| s["imagePullSecrets"] = json!([{"name": "other"}]),
        "imagePullSecrets[0].name=\"other\" is not allowed because service account strict does not reference that imagePullSecret",
    )
    .await;
}

#[tokio::test]
async fn a_running_pod_changes_only_as_its_node_can() {
    let world = World::new().await;
    world.grant("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    world.grant("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let status = |features: &[&str]| json!({"status": {"allocatable": {"cpu": "8", "memory": "8Gi"}, "declaredFeatures": features}});
    let told = world.json("PATCH", "/api/v1/nodes/n/status", status(&[])).await;
    assert_eq!(told.0, 200, "{}", told.1);
    let cpu = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "1Gi"}, "requests": {"cpu": cpu, "memory": "1Gi"}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "resources": cpu("1"), "containers": [{"name": "c", "image": "i"}]}});
    world.grant("/api/v1/namespaces/default/pods", pod).await;
    let resize = async || {
        world
            .json(
                "PATCH",
                "/api/v1/namespaces/default/pods/p/resize",
                json!({"spec": {"resources": cpu("2")}}),
            )
            .await
    };
    let (code, answer) = resize().await;
    let said = answer["message"].as_str().unwrap_or_default();
    let expected = "pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"n\"";
    assert!(code == 403 && said.ends_with(expected), "{code} {said}");
    world.json("PATCH", "/api/v1/nodes/n/status", status(&["InPlacePodLevelResourcesVerticalScaling"])).await;
    let (code, answer) = resize().await;
    assert_eq!(code, 200, "{answer}");
}

/// The class of a claim that names none: the newest of those marked so. Recorded from the original.
#[tokio::test]
async fn a_claim_without_a_class_gets_the_default_one() {
    let world = World::new().await;
    let marked = |name: &str, mark: &str| json!({"metadata": {"name": name, "annotations": {mark: "true"}}, "provisioner": "p/q"});
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    // What this cluster begins with is not to be in the way.
    let (_, begun) = world.json("GET", classes, Value::Null).await;
    for class in begun["items"].as_array().into_iter().flatten() {
        world
            .json(
                "DELETE",
                &format!("{classes}/{}", class["metadata"]["name"].as_str().expect("a name")),
                Value::Null,
            )
            .await;
    }
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let class_of = async |name: &str, class: Value, annotations: Value| {
        let mut claim = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        if !class.is_null() {
            claim["spec"]["storageClassName"] = class;
        }
        let (code, answer) = world.json("POST", claims, claim).await;
        assert_eq!(code, 201, "{answer}");
        answer["spec"]["storageClassName"].clone()
    };
    assert_eq!(class_of("before", Value::Null, Value::Null).await, Value::Null);
    world.grant(classes, json!({"metadata": {"name": "plain"}, "provisioner": "p/q"})).await;
    assert_eq!(class_of("plain", Value::Null, Value::Null).await, Value::Null);
    world.grant(classes, marked("one", "storageclass.kubernetes.io/is-default-class")).await;
    assert_eq!(class_of("one", Value::Null, Value::Null).await, "one");
    assert_eq!(class_of("none", "".into(), Value::Null).await, "");
    assert_eq!(class_of("named", "plain".into(), Value::Null).await, "plain");
    let annotated = json!({"volume.beta.kubernetes.io/storage-class": "plain"});
    assert_eq!(class_of("annotated", Value::Null, annotated).await, Value::Null);
    // Of one age, the first by name; both marks count.
    world.grant(classes, marked("another", "storageclass.beta.kubernetes.io/is-default-class")).await;
    world.json("DELETE", &format!("{classes}/one"), Value::Null).await;
    assert_eq!(class_of("another", Value::Null, Value::Null).await, "another");
}

/// Nothing is made in a namespace that is not there, or that goes; and some never go.
#[tokio::test]
async fn a_namespace_is_there_before_what_is_in_it() {
    let world = World::new().await;
    let map = |name: &str| json!({"metadata": {"name": name}});
    let (code, answer) = world.json("POST", "/api/v1/namespaces/absent/configmaps", map("a")).await;
    assert_eq!((code, answer["message"].as_str()), (404, Some("namespaces \"absent\" not found")));
    for name in ["default", "kube-system", "kube-public"] {
        let (code, answer) = world.json("DELETE", &format!("/api/v1/namespaces/{name}"), Value::Null).await;
        let why = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
        assert_eq!((code, answer["message"].as_str()), (403, Some(why.as_str())));
    }
    world.grant("/api/v1/namespaces", map("going")).await;
    let (code, answer) = world.json("DELETE", "/api/v1/namespaces/going", Value::Null).await;
    assert_eq!((code, &answer["status"]["phase"]), (200, &json!("Terminating")), "{answer}");
    let (code, answer) = world.json("POST", "/api/v1/namespaces/going/configmaps", map("a")).await;
    let why = "configmaps \"a\" is forbidden: unable to create new content in namespace going because it is being terminated";
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let causes = json!([{"reason": "NamespaceTerminating", "message": "namespace going is being terminated", "field": "metadata.namespace"}]);
    assert_eq!(answer["details"]["causes"], causes);
}

/// That of the nodes' leases may go, and comes again: without it no node could say that it lives.
#[tokio::test]
async fn the_namespace_of_leases_is_made_again() {
    const PATH: &str = "/api/v1/namespaces/kube-node-lease";
    let world = World::new().await;
    let (code, going) = world.json("DELETE", PATH, Value::Null).await;
    assert_eq!((code, &going["status"]["phase"]), (200, &json!("Terminating")), "{going}");
    let mut watch = world.store.watch("/registry/namespaces/", world.store.revision()).expect("a watch");
    let mut free = going.clone();
    free["spec"]["finalizers"] = json!([]);
    let (code, answer) = world.json("PUT", &format!("{PATH}/finalize"), free).await;
    assert_eq!(code, 200, "{answer}");
    let again = async {
        loop {
            let events = watch.next().await.expect("events");
            if events.iter().any(|event| !event.deleted && event.entry.key.ends_with("/kube-node-lease")) {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), again).await.expect("it is made again");
    let (code, made) = world.json("GET", PATH, Value::Null).await;
    assert_eq!((code, &made["status"]["phase"]), (200, &json!("Active")), "{made}");
    assert_ne!(made["metadata"]["uid"], going["metadata"]["uid"]);
}
