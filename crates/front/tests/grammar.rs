//! What may be typed, and what help says about it: the words are a promise to those who have learned them.

use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use front::{Environment, Invocation, LogFormat, Request, parse_from};

fn environment() -> Environment {
    Environment {
        data_dir: Some(PathBuf::from("/srv/kedge")),
        kubeconfig: None,
        home: None,
        store: Default::default(),
        end_containers: |_, _, _| Box::pin(async { Ok(()) }),
        stop_containers: |_| Ok(()),
        purge: |_| Ok(()),
    }
}

fn verb(line: &str) -> Request {
    let words = line.split_whitespace();
    match parse_from(words, environment()).unwrap_or_else(|error| panic!("{line}: {error}")) {
        Invocation::Verb(request) => *request,
        other => panic!("{line}: {other:?}"),
    }
}

fn check(line: &str, expected: Expect) {
    expected.assert_eq(&format!("{:?}", verb(line).verb));
}

fn refused(line: &str, expected: Expect) {
    let error = parse_from(line.split_whitespace(), environment()).expect_err("refused").to_string();
    expected.assert_eq(error.lines().next().unwrap_or_default());
}

#[test]
fn the_server_is_told_where_and_how() {
    let words = "kedge server --data-dir /tmp/../tmp/k/ --api-port 7443 --node-name a --log-format json";
    let Ok(Invocation::Server(options)) = parse_from(words.split_whitespace(), environment()) else {
        panic!("a server")
    };
    assert_eq!((options.api_port, options.node_name.as_str()), (7443, "a"));
    assert_eq!((options.log, options.log_format), (None, LogFormat::Json));
    let Ok(Invocation::Server(options)) = parse_from(["kedge", "server"], environment()) else {
        panic!("a server")
    };
    assert_eq!(options.layout.data_dir(), Path::new("/srv/kedge"), "as the environment says");
    let Ok(Invocation::Server(slash)) =
        parse_from(["kedge", "server", "--data-dir", "/srv/kedge/"], environment())
    else {
        panic!("a server")
    };
    assert_eq!(slash.layout.cluster_id(), options.layout.cluster_id(), "one directory, one cluster");
}

#[test]
fn lines_are_understood() {
    check(
        "kedge up",
        expect![
            "Up(Up { repository: None, branch: None, path: None, name: None, replace: false, foreground: false, timeout: 300s, api_port: None, node_name: None })"
        ],
    );
    check(
        "kedge up . --path deploy/prod --timeout 90s --foreground",
        expect![[
            r#"Up(Up { repository: Some("."), branch: None, path: Some("deploy/prod"), name: None, replace: false, foreground: true, timeout: 90s, api_port: None, node_name: None })"#
        ]],
    );
    check("kedge status -o json", expect!["Status(Status { output: Some(Json) })"]);
    check("kedge down --purge", expect!["Down(Down { purge: true, now: false, grace_period: None })"]);
    check(
        "kedge get po,svc -A -o wide",
        expect![[
            r#"Get(Get { kinds: "po,svc", names: [], all_namespaces: true, selector: None, field_selector: None, output: Some(Wide), watch: false, show_managed_fields: false })"#
        ]],
    );
    check(
        "kedge get deploy/web -n shop -w",
        expect![[
            r#"Get(Get { kinds: "deploy/web", names: [], all_namespaces: false, selector: None, field_selector: None, output: None, watch: true, show_managed_fields: false })"#
        ]],
    );
    check(
        "kedge apply -k deploy/dev",
        expect![[
            r#"Apply(Apply { from: Manifests { files: [], folder: Some("deploy/dev") }, force_conflicts: false })"#
        ]],
    );
    check(
        "kedge delete pod a b --grace-period 0 --wait=false",
        expect![[
            r#"Delete(Delete { kinds: Some("pod"), names: ["a", "b"], from: Manifests { files: [], folder: None }, selector: None, all: false, wait: false, timeout: 300s, grace_period: Some(0), cascade: Background, ignore_not_found: false })"#
        ]],
    );
    check(
        "kedge logs -f -p --tail 5 deploy/web -c web",
        expect![[
            r#"Logs(Logs { target: Some("deploy/web"), selector: None, container: Some("web"), follow: true, previous: true, tail: Some(5), since: None, timestamps: false })"#
        ]],
    );
    check(
        "kedge exec -it web-1 -c web -- sh -c ls",
        expect![[
            r#"Exec(Exec { pod: "web-1", container: Some("web"), stdin: true, tty: true, command: ["sh", "-c", "ls"] })"#
        ]],
    );
    check(
        "kedge build -t a:1 --build-arg A=b=c .",
        expect![[
            r#"Build(Build { context: ".", tags: ["a:1"], file: None, arguments: [("A", "b=c")], labels: [], target: None, no_cache: false })"#
        ]],
    );
    check("kedge kubeconfig --merge", expect!["Kubeconfig(Kubeconfig { merge: true })"]);
    check("kedge completion zsh", expect!["Completion(Completion { shell: Zsh })"]);
}

#[test]
fn mistakes_are_told() {
    refused("kedge upp", expect!["error: unrecognized subcommand 'upp'"]);
    refused(
        "kedge up --timeout soon",
        expect![[
            r#"error: invalid value 'soon' for '--timeout <TIME>': "soon" is not a duration such as 90s, 5m or 1h30m"#
        ]],
    );
    refused("kedge exec web-1 ls", expect!["error: unexpected argument 'ls' found"]);
    refused("kedge delete", expect!["error: the following required arguments were not provided:"]);
    refused(
        "kedge apply -f a -k b",
        expect!["error: the argument '--filename <FILE>' cannot be used with '--kustomize <FOLDER>'"],
    );
    refused(
        "kedge build --build-arg A .",
        expect![[r#"error: invalid value 'A' for '--build-arg <NAME=VALUE>': "A" is not NAME=VALUE"#]],
    );
}

#[test]
fn the_store_is_named_before_or_after_what_is_done_to_it() {
    let request = |line: &str| match parse_from(line.split_whitespace(), environment()) {
        Ok(Invocation::Store(request)) => request,
        other => panic!("{line}: {other:?}"),
    };
    for line in ["kedge store --store etcd://a check", "kedge store check --store etcd://a --data-dir /d"] {
        let request = request(line);
        assert_eq!(request.verb, front::StoreVerb::Check { file: None });
        assert_eq!(request.store.address.as_deref(), Some("etcd://a"), "{line}");
    }
    // What is typed goes before the environment, and a file with a password before the password there.
    let mut with = environment();
    with.store.address = Some("etcds://e".into());
    with.store.user = Some("u".into());
    with.store.password = Some(front::Secret("hidden".into()));
    let words = "kedge server --store-password-file /p --store-ca /ca";
    let Ok(Invocation::Server(options)) = parse_from(words.split_whitespace(), with) else {
        panic!("a server")
    };
    assert_eq!(options.store.address.as_deref(), Some("etcds://e"));
    assert_eq!((options.store.password, options.store.user.as_deref()), (None, Some("u")));
    assert!(!format!("{:?}", front::Secret("hidden".into())).contains("hidden"));
}

#[test]
fn help_lists_every_verb() {
    let help = parse_from(["kedge", "--help"], environment()).expect_err("help").to_string();
    let commands =
        help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
    // Without the margin, which the expectation below has of its own.
    let commands: Vec<&str> = commands.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let commands = commands.join("\n") + "\n";
    expect![[r#"
        server      Run all of the cluster's roles in the foreground; `kedge up` does it in the background
        store       Back up, restore, check or move the cluster's state
        up          Start the cluster on this machine and deploy a Git repository to it
        status      Show what runs: sources, what they deploy, workloads and pods, each with its health
        reconcile   Look at an application's Git repository now, and wait until what it holds is deployed
        suspend     Hold an application as it is: commits are not deployed, and changes by hand stay
        resume      Let Git drive an application again that was suspended
        down        Stop the cluster on this machine: the server, its containers and its network
        get         List objects, or show some
        describe    Show an object in words, with its events
        apply       Create or change objects from files, by server-side apply
        delete      Delete objects, by name, by label, or those of files
        logs        Print what a pod's containers write, or those of all pods of a workload
        exec        Run a command in a container
        build       Build an image from a Dockerfile; the cluster can use it at once, without a registry
        images      List the images on this machine
        kubeconfig  Print the kubeconfig of the cluster on this machine, or add it to yours
        version     Print the version of this program and of the cluster
        completion  Print the completion script of a shell
        help        Print this message or the help of the given subcommand(s)
    "#]]
    .assert_eq(&commands);
    let verbs: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let help = parse_from(["kedge", verb, "--help"], environment()).expect_err("help").to_string();
        assert!(help.contains("Examples:"), "{verb} shows no example");
    }
}
