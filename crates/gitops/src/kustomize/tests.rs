//! Builds as data. Where a kubectl is at hand, its built-in kustomize must give the same objects.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::*;

fn files(list: &[(&str, &str)]) -> Files {
    let entry = |(path, text): &(&str, &str)| ((*path).to_owned(), Arc::from(text.as_bytes()));
    Files::new(list.iter().map(entry).collect::<BTreeMap<_, _>>())
}

/// Builds, and compares with the original if there is one.
fn check(list: &[(&str, &str)], folder: &str) -> Vec<Value> {
    let mut ours = build(&files(list), folder, &Overrides::default()).expect("builds");
    let dir = tempfile::tempdir().expect("a folder");
    for (path, text) in list {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("written");
    }
    let output = Command::new("kubectl").arg("kustomize").arg(dir.path().join(folder)).output();
    if let Ok(output) = output {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let theirs = api::yaml::parse_documents(&text).expect("YAML");
        let mut theirs: Vec<Value> = theirs.into_iter().map(|d| d.value).collect();
        theirs.sort_by_cached_key(order::place);
        ours.sort_by_cached_key(order::place);
        assert_eq!(
            serde_json::to_string_pretty(&ours).expect("JSON"),
            serde_json::to_string_pretty(&theirs).expect("JSON")
        );
    }
    ours
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      serviceAccountName: web\n      containers:\n      - name: web\n        image: web:v1\n        envFrom:\n        - configMapRef: {name: config}\n        - secretRef: {name: secret}\n      volumes:\n      - {name: c, configMap: {name: config}}\n";
const ACCOUNT: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  ports: [{port: 80}]\n";

#[test]
fn an_overlay_renames_patches_and_hashes_as_the_original_does() {
    let objects = check(
        &[
            ("base/deployment.yaml", DEPLOYMENT),
            ("base/rest.yaml", &format!("{ACCOUNT}---\n{SERVICE}")),
            (
                "base/kustomization.yaml",
                "resources: [deployment.yaml, rest.yaml]\nlabels:\n- pairs: {part-of: shop}\n  includeSelectors: true\nconfigMapGenerator:\n- name: config\n  literals: [color=blue, x=<1>]\nsecretGenerator:\n- name: secret\n  literals: [password=s3cret]\n",
            ),
            (
                "prod/patch.yaml",
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers:\n      - name: web\n        resources: {limits: {memory: 64Mi}}\n",
            ),
            ("prod/app.env", "# comment\nA=1\nB=two words\n"),
            (
                "prod/kustomization.yaml",
                "namespace: shop\nnamePrefix: p-\nresources: [../base]\npatches:\n- path: patch.yaml\n- target: {kind: Deployment}\n  patch: |\n    - op: add\n      path: /spec/minReadySeconds\n      value: 3\nimages:\n- {name: web, newName: registry/web, newTag: v2}\nreplicas:\n- {name: web, count: 3}\nconfigMapGenerator:\n- name: config\n  behavior: merge\n  literals: [color=green]\n  envs: [app.env]\ncommonAnnotations: {team: a}\n",
            ),
        ],
        "prod",
    );
    let deployment = objects.iter().find(|o| o["kind"] == "Deployment").expect("the deployment");
    let config = objects.iter().find(|o| o["kind"] == "ConfigMap").expect("the map");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["envFrom"][0]["configMapRef"]["name"], config["metadata"]["name"]);
    assert_eq!(pod["serviceAccountName"], "p-web");
    assert_eq!(pod["containers"][0]["image"], "registry/web:v2");
}

/// The example's store is one pod that goes before its successor comes: from one overlay to the other it stays the same.
#[test]
fn the_examples_store_is_the_same_in_each_overlay() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/deploy");
    let mut list = BTreeMap::new();
    for folder in ["base", "overlays/dev", "overlays/prod"] {
        for entry in std::fs::read_dir(top.join(folder)).expect("a folder").flatten() {
            let bytes = std::fs::read(entry.path()).expect("a file");
            list.insert(format!("{folder}/{}", entry.file_name().to_string_lossy()), Arc::from(bytes));
        }
    }
    let files = Files::new(list);
    let template = |overlay: &str, name: &str| {
        let built = build(&files, &format!("overlays/{overlay}"), &Overrides::default()).expect("builds");
        let found = built.iter().find(|o| o["kind"] == "Deployment" && o["metadata"]["name"] == name);
        found.expect("a Deployment")["spec"]["template"].clone()
    };
    assert_eq!(template("dev", "store"), template("prod", "store"));
    for name in ["web", "api"] {
        let limit = "/spec/containers/0/resources/limits/memory";
        assert_eq!(template("prod", name).pointer(limit), Some(&Value::from("128Mi")), "{name}");
    }
}

#[test]
fn objects_know_the_files_that_they_are_from() {
    let list = [
        (
            "base/kustomization.yaml",
            "resources: [a.yaml]\nconfigMapGenerator:\n- {name: m, literals: [a=b]}\n",
        ),
        ("base/a.yaml", ACCOUNT),
        ("prod/kustomization.yaml", "resources: [../base]\nnamePrefix: p-\n"),
    ];
    let built = build_from(&files(&list), "prod", &Overrides::default()).expect("builds");
    let origins: Vec<(&str, &str)> =
        built.iter().map(|(o, origin)| (o["kind"].as_str().unwrap_or_default(), origin.as_str())).collect();
    assert_eq!(origins, [("ServiceAccount", "base/a.yaml"), ("ConfigMap", "")]);
}

#[test]
fn components_and_bindings() {
    check(
        &[
            (
                "base/all.yaml",
                &format!(
                    "{ACCOUNT}---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: r}}\nrules: []\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: b}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}}\nsubjects:\n- {{kind: ServiceAccount, name: web}}\n---\n{DEPLOYMENT}"
                ),
            ),
            ("base/kustomization.yaml", "resources: [all.yaml]\n"),
            (
                "debug/kustomization.yaml",
                "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n- target: {kind: Deployment, name: w.*}\n  patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {name: any}\n    spec:\n      template:\n        spec:\n          containers: [{name: web, env: [{name: DEBUG, value: '1'}]}]\n",
            ),
            ("dev/kustomization.yaml", "nameSuffix: -dev\nresources: [../base]\ncomponents: [../debug]\n"),
        ],
        "dev",
    );
}

#[test]
fn what_says_how_to_deploy_is_not_deployed() {
    let list = [("kedge.yaml", "images:\n- {name: x}\n"), ("a.yaml", ACCOUNT)];
    let built = build(&files(&list), "", &Overrides::default()).expect("builds");
    assert_eq!(built.len(), 1, "{built:?}");
}

#[test]
fn faults_say_what_and_where() {
    let fault = |list: &[(&str, &str)]| {
        build(&files(list), "app", &Overrides::default()).expect_err("a fault").to_string()
    };
    assert_eq!(
        fault(&[("app/kustomization.yaml", "resources: [a.yaml]\n")]),
        "app/a.yaml: no such file or folder (named in app/kustomization.yaml)"
    );
    let bad = fault(&[
        ("app/kustomization.yaml", "resources: [a.yaml]\n"),
        ("app/a.yaml", "kind: A\nspec:\n  x: [1\n"),
    ]);
    assert!(bad.starts_with("app/a.yaml: line "), "{bad}");
    let unknown = fault(&[("app/kustomization.yaml", "resource: [a.yaml]\n")]);
    assert!(unknown.contains("app/kustomization.yaml: unknown field `resource`"), "{unknown}");
    let target = fault(&[(
        "app/kustomization.yaml",
        "patches:\n- patch: |\n    kind: Service\n    apiVersion: v1\n    metadata: {name: nope}\n",
    )]);
    assert_eq!(target, "app/kustomization.yaml: the patch for Service \"nope\" matches no object");
    let cycle = fault(&[("app/kustomization.yaml", "resources: [../app]\n")]);
    assert_eq!(cycle, "app: its folders include themselves");
    for nothing in ["", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n", "# later\n"] {
        let empty = fault(&[("app/kustomization.yaml", nothing)]);
        assert_eq!(empty, "app/kustomization.yaml: kustomization.yaml is empty");
    }
    let bare = fault(&[("app/README.md", "none yet"), ("other/a.yaml", ACCOUNT)]);
    assert_eq!(bare, "./app has neither a kustomization.yaml nor a manifest in or below it");
    assert!(
        check(&[("app/kustomization.yaml", "resources: []\n")], "app").is_empty(),
        "said in so many words"
    );
    let nameless = fault(&[("app/a.yaml", "apiVersion: v1\nkind: Service\n")]);
    assert_eq!(nameless, "app/a.yaml: object 1 has no metadata.name");
}
