//! Writes that are refused or owned: bodies, names, versions, patches and server-side apply, with what was heard from the
//! original as the measure.

mod world;

use serde_json::{Value, json};
use world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn told(world: &World, method: &str, path: &str, media_type: &str, body: &str) -> (u16, Value) {
    let (code, _, answer) = world
        .send(method, path, &[("content-type", media_type), ("user-agent", "test")], body.to_owned())
        .await;
    (code, serde_json::from_slice(&answer).expect("JSON"))
}

#[tokio::test]
async fn refusals_are_worded_as_the_originals() {
    let world = World::new().await;
    world.grant(MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    let one = format!("{MAPS}/a");
    const FIT: &str = "the server rejected our request due to an error in our request";
    for (method, path, media_type, body, code, message) in [
        (
            "POST",
            MAPS,
            JSON,
            r#"{"metadata":{"name":"c"},"data":{"x":1}}"#,
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data",
        ),
        (
            "POST",
            MAPS,
            JSON,
            "",
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"metadata":{"name":"c"}"#,
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"metadata\":{\"name\":\"c\"})",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            400,
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"kind":"ConfigMap","apiVersion":"v2"}"#,
            400,
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\"",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"metadata":{"name":"d","resourceVersion":"5"}}"#,
            500,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            "PUT",
            &one,
            JSON,
            r#"{"metadata":{"name":"b"}}"#,
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            "PUT",
            &one,
            JSON,
            r#"{"metadata":{}}"#,
            400,
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (
            "PUT",
            &one,
            JSON,
            r#"{"metadata":{"name":"a","resourceVersion":"x"}}"#,
            500,
            "strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            "PUT",
            &one,
            JSON,
            r#"{"metadata":{"name":"a","uid":"x"}}"#,
            409,
            "Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: ",
        ),
        ("PATCH", &one, JSON_PATCH, r#"[{"op":"test","path":"/data/k","value":"z"}]"#, 422, FIT),
        ("PATCH", &one, JSON_PATCH, r#"[{"op":"bad","path":"/data/k"}]"#, 422, FIT),
        (
            "PATCH",
            &one,
            JSON_PATCH,
            r#"{"a":1}"#,
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            "PATCH",
            &one,
            JSON_PATCH,
            "xx",
            400,
            "error decoding patch: invalid character 'x' looking for beginning of value",
        ),
        (
            "PATCH",
            &one,
            MERGE,
            "[]",
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "PATCH",
            &one,
            STRATEGIC,
            "[]",
            400,
            "json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "PATCH",
            &one,
            MERGE,
            r#"{"metadata":{"name":"z"}}"#,
            400,
            "the name of the object (z) does not match the name on the URL (a)",
        ),
        (
            "PATCH",
            &one,
            MERGE,
            r#"{"metadata":{"namespace":"z"}}"#,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        ("PATCH", &one, MERGE, r#"{"data":{"k":5}}"#, 422, " \"\" is invalid: patch: Invalid value: "),
        (
            "PATCH",
            &one,
            STRATEGIC,
            r#"{"data":{"k":5}}"#,
            422,
            " \"\" is invalid: patch: Invalid value: \"map[data:map[k:5]]\": ",
        ),
        (
            "PATCH",
            &one,
            STRATEGIC,
            r#"{"$patch":"bad"}"#,
            500,
            "unknown patch type: bad in map: map[$patch:bad]",
        ),
    ] {
        let (found, status) = told(&world, method, path, media_type, body).await;
        let said = status["message"].as_str().unwrap_or_default();
        assert!(
            found == code && said.starts_with(message),
            "{method} {path} {body}\n{found} {said}\n{code} {message}"
        );
    }
}

#[tokio::test]
async fn configurations_that_are_refused() {
    let world = World::new().await;
    let path = format!("{MAPS}/s?fieldManager=m");
    for (body, code, message) in [
        (
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"},"foo":1}"#,
            500,
            "failed to create typed patch object (/s; /v1, Kind=ConfigMap): .foo: field not declared in schema",
        ),
        (
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"},"data":{"a":1}}"#,
            500,
            "failed to create typed patch object (/s; /v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (r#"{"apiVersion":"v2","kind":"ConfigMap"}"#, 400, "invalid object type: /v2, Kind=ConfigMap"),
        (r#"{"apiVersion":"v1","kind":"Pod"}"#, 400, "invalid object type: /v1, Kind=Pod"),
        ("", 400, "invalid object type: /, Kind="),
        (
            "[]",
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"other"}}"#,
            400,
            "the name of the object (other) does not match the name on the URL (s)",
        ),
        (
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s","managedFields":[]}}"#,
            400,
            "metadata.managedFields must be nil",
        ),
        (
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s","uid":"x"}}"#,
            409,
            "Operation cannot be fulfilled on configmaps \"s\": uid mismatch: the provided object specified uid x, and no existing object was found",
        ),
    ] {
        let (found, status) = told(&world, "PATCH", &path, APPLY, body).await;
        assert_eq!((found, status["message"].as_str()), (code, Some(message)), "{body}");
    }
    let twice =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: s\n  name: s\ndata: {a: \"9\", a: \"8\"}\n";
    let (code, status) = told(&world, "PATCH", &format!("{path}&fieldValidation=Strict"), APPLY, twice).await;
    let lines = "yaml: unmarshal errors:\n  line 5: key \"name\" already set in map\n  line 6: key \"a\" already set in map";
    let message = format!("error strict decoding YAML: error converting YAML to JSON: {lines}");
    assert_eq!((code, status["message"].as_str()), (400, Some(&*message)));
    let create =
        |how: &str| format!("/api/v1/namespaces/default/configmaps?fieldValidation={how}&dryRun=All");
    let yaml = [("content-type", "application/yaml")];
    let (code, _, answer) = world.send("POST", &create("Strict"), &yaml, twice).await;
    let status: Value = serde_json::from_slice(&answer).expect("a Status");
    let prefix = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: ";
    assert_eq!((code, status["message"].as_str()), (400, Some(&*format!("{prefix}{lines}"))));
    for (method, path, content_type) in [
        ("POST", create("Warn"), yaml[0].1),
        ("PATCH", format!("{path}&fieldValidation=Warn&force=true"), APPLY),
    ] {
        let (code, headers, _) = world.send(method, &path, &[("content-type", content_type)], twice).await;
        assert!(matches!(code, 200 | 201), "{method} {code}");
        let warnings: Vec<_> = headers.get_all("warning").iter().map(|w| w.to_str().expect("text")).collect();
        let expected = [
            "299 - \"line 5: key \\\"name\\\" already set in map\"",
            "299 - \"line 6: key \\\"a\\\" already set in map\"",
        ];
        assert_eq!(warnings, expected, "{method}");
    }
}

fn managers(object: &Value) -> Vec<String> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let shown = |e: &Value| {
        let timed = if e.get("time").is_some() { "timed" } else { "-" };
        format!(
            "{} {} {} {timed} {}",
            text(e, "manager"),
            text(e, "operation"),
            text(e, "subresource"),
            e["fieldsV1"]
        )
    };
    entries.iter().map(shown).collect()
}

#[tokio::test]
async fn scales_are_owned_as_scales() {
    let world = World::new().await;
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let config = |replicas: i64| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template}})
        .to_string()
    };
    let path = format!("{DEPLOYMENTS}/d");
    let (code, _) = told(&world, "PATCH", &format!("{path}?fieldManager=one"), APPLY, &config(3)).await;
    assert_eq!(code, 201);
    let scale = r#"{"spec":{"replicas":7}}"#;
    let (code, scaled) = told(&world, "PATCH", &format!("{path}/scale?fieldManager=hpa"), MERGE, scale).await;
    assert_eq!((code, &scaled["kind"], &scaled["spec"]["replicas"]), (200, &json!("Scale"), &json!(7)));
    let (_, object) = world.json("GET", &path, Value::Null).await;
    let own = managers(&object);
    assert!(own.contains(&r#"hpa Update scale - {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{own:#?}");
    let (code, status) = told(&world, "PATCH", &format!("{path}?fieldManager=one"), APPLY, &config(3)).await;
    let message = "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert_eq!((code, status["message"].as_str()), (409, Some(message)));
    let applied =
        r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":4}}"#;
    let (code, _) = told(&world, "PATCH", &format!("{path}/scale?fieldManager=two"), APPLY, applied).await;
    assert_eq!(code, 409);
    let (code, _) =
        told(&world, "PATCH", &format!("{path}/scale?fieldManager=two&force=true"), APPLY, applied).await;
    assert_eq!(code, 200);
    let (_, object) = world.json("GET", &path, Value::Null).await;
    let own = managers(&object);
    assert_eq!(object["spec"]["replicas"], 4);
    assert!(own.contains(&r#"two Apply scale - {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{own:#?}");
    assert!(!own.iter().any(|o| o.starts_with("hpa ")), "{own:#?}");
}

#[tokio::test]
async fn applying_what_is_already_so_changes_nothing_but_owners() {
    let world = World::new().await;
    let path = |manager: &str| format!("{MAPS}/s?fieldManager={manager}");
    let config = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"},"data":{"a":"1"}}"#;
    let (_, first) = told(&world, "PATCH", &path("one"), APPLY, config).await;
    let (_, again) = told(&world, "PATCH", &path("one"), APPLY, config).await;
    assert_eq!(first["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    let (_, shared) = told(&world, "PATCH", &path("two"), APPLY, config).await;
    let fields = r#"{"f:data":{"f:a":{}}}"#;
    assert_eq!(managers(&shared), [format!("two Apply - - {fields}"), format!("one Apply - timed {fields}")]);
    let (_, reset) = told(&world, "PATCH", &path("x"), MERGE, r#"{"metadata":{"managedFields":[{}]}}"#).await;
    assert_eq!(managers(&reset), Vec::<String>::new());
    let more = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"},"data":{"b":"1"}}"#;
    let (_, owned) = told(&world, "PATCH", &path("one"), APPLY, more).await;
    let before = r#"before-first-apply Update - timed {"f:data":{".":{},"f:a":{}}}"#;
    assert_eq!(managers(&owned).last().map(String::as_str), Some(before));
}

/// What takes long is done aside: while it is, others are answered, also where there is one thread for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_write_holds_nobody_up() {
    let world = std::sync::Arc::new(World::new().await);
    let port = |n: u32| json!({"name": format!("p{n}"), "port": n % 65_535 + 1, "protocol": if n > 40_000 { "UDP" } else { "TCP" }});
    let ports: Vec<Value> = (0..20_000).map(port).collect();
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "ports": ports}});
    let writing = {
        let world = world.clone();
        tokio::spawn(async move {
            world.json("POST", "/api/v1/namespaces/default/services?dryRun=All", service).await
        })
    };
    let probing = tokio::spawn(async move {
        let mut answered = 0;
        while !writing.is_finished() {
            let (code, _, _) = world.send("GET", "/livez", &[], "").await;
            assert_eq!(code, 200);
            answered += 1;
            tokio::task::yield_now().await;
        }
        (answered, writing.await.expect("does not panic"))
    });
    let (answered, (code, answer)) = probing.await.expect("does not panic");
    assert_eq!(code, 201, "{}", answer["message"]);
    assert_eq!(answer["spec"]["ports"].as_array().map(Vec::len), Some(20_000));
    assert!(answered > 50, "{answered} probes were answered meanwhile");
}

/// As seen of the original, which tells of a hundred at most and of so many letters.
#[tokio::test]
async fn of_so_many_fields_that_are_unknown_one_is_told() {
    let world = World::new().await;
    let unknown: String = (0..1000).map(|n| format!("\"u{n}\":1,\"u{n}\":2,")).collect();
    let body = format!("{{{unknown}\"metadata\":{{\"name\":\"a\"}}}}");
    let path = |how| format!("{MAPS}?dryRun=All&fieldValidation={how}");
    let (code, headers, _) = world.send("POST", &path("Warn"), &[("content-type", JSON)], body.clone()).await;
    let warnings: Vec<_> = headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).collect();
    assert_eq!((code, warnings.len()), (201, 100));
    assert_eq!(
        (warnings[0], warnings[99]),
        (r#"299 - "unknown field \"u0\"""#, r#"299 - "unknown field \"u99\"""#)
    );
    let (code, refused) = told(&world, "POST", &path("Strict"), JSON, &body).await;
    let message = refused["message"].as_str().unwrap_or_default();
    assert_eq!((code, message.matches("field").count()), (400, 100));
    assert!(message.ends_with("unknown field \"u99\""), "{message}");
}

/// The one address and the list that begins with it; both recorded from the original.
#[tokio::test]
async fn a_services_address_stays_and_is_the_first_of_all() {
    let world = World::new().await;
    let path = "/api/v1/namespaces/default/services";
    let own =
        json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.43.0.77", "ports": [{"port": 80}]}});
    world.grant(path, own).await;
    let fault =
        |value: &str, detail: &str| format!("spec.clusterIPs: Invalid value: [\"{value}\"]: {detail}");
    let first = "first value must match `clusterIP`";
    let alone = "must be empty when `clusterIP` is not specified";
    let fixed =
        |value: &str| format!("spec.clusterIPs[0]: Invalid value: [\"{value}\"]: may not change once set");
    let changes = [
        (json!({"clusterIP": ""}), String::new()),
        (json!({"clusterIPs": null}), String::new()),
        (json!({"clusterIP": "10.43.0.78"}), fixed("10.43.0.78")),
        (json!({"clusterIP": "10.43.0.78", "clusterIPs": null}), fixed("10.43.0.78")),
        (json!({"clusterIP": "None"}), fixed("None")),
        (json!({"clusterIPs": ["10.43.0.78"]}), fault("10.43.0.78", first)),
        (json!({"clusterIP": "10.43.0.78", "clusterIPs": ["10.43.0.79"]}), fault("10.43.0.79", first)),
    ];
    for (spec, wanted) in changes {
        let body = json!({"spec": spec}).to_string();
        let (code, answer) = told(&world, "PATCH", &format!("{path}/s"), MERGE, &body).await;
        match wanted.as_str() {
            "" => assert_eq!(
                (code, &answer["spec"]["clusterIPs"]),
                (200, &json!(["10.43.0.77"])),
                "{spec}: {answer}"
            ),
            wanted => {
                let wanted = format!("Service \"s\" is invalid: {wanted}");
                assert_eq!((code, answer["message"].as_str()), (422, Some(wanted.as_str())), "{spec}");
            }
        }
    }
    for (spec, wanted) in [
        (json!({"clusterIPs": ["10.43.0.90"]}), fault("10.43.0.90", alone)),
        (json!({"clusterIPs": ["None"]}), fault("None", alone)),
        (json!({"clusterIP": "10.43.0.91", "clusterIPs": ["10.43.0.92"]}), fault("10.43.0.92", first)),
        (json!({"clusterIP": "None", "clusterIPs": ["10.43.0.92"]}), fault("10.43.0.92", first)),
    ] {
        let mut spec = spec;
        spec["ports"] = json!([{"port": 80}]);
        let body = json!({"metadata": {"name": "n"}, "spec": spec}).to_string();
        let (code, answer) = told(&world, "POST", path, JSON, &body).await;
        let wanted = format!("Service \"n\" is invalid: {wanted}");
        assert_eq!((code, answer["message"].as_str()), (422, Some(wanted.as_str())), "{body}");
    }
}
