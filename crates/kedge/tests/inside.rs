//! What containers meet from inside: the API by the service's name and their mounted token, a port of every node, the limits of
//! their cgroup, the time that they are given to end, a log that goes on however long it gets.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    cluster
}

fn pod(name: &str, spec: &str, container: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{{spec} \
         containers: [{{name: c, image: 'localhost/busybox:1', {container}}}]}}}}"
    )
}

fn wait_ready(cluster: &Cluster, name: &str) -> Value {
    until(&format!("{name} is ready"), LIMIT, || {
        let pod = cluster.get("pod", "default", name)?;
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        if ready { Ok(pod) } else { Err(pod["status"].to_string()) }
    })
}

fn exec(cluster: &Cluster, name: &str, command: &[&str]) -> testkit::cluster::Ran {
    cluster.kedge(&[&["exec", name, "--"], command].concat())
}

#[test]
fn the_network_is_as_pods_know_it() {
    let cluster = cluster();
    let page = "command: [sh, -c, 'mkdir /w; echo here > /w/index.html; exec httpd -f -p 8080 -h /w']";
    cluster.apply(&pod("web", "terminationGracePeriodSeconds: 0,", page)).ok();
    let idle = "command: [sleep, '100000']";
    cluster.apply(&pod("on-node", "terminationGracePeriodSeconds: 0, hostNetwork: true,", idle)).ok();
    wait_ready(&cluster, "web");
    wait_ready(&cluster, "on-node");
    a_node_port_answers(&cluster);
    a_pod_asks_the_api(&cluster);
}

/// At the node's address, for who is on the node and for pods, as long as there is the service.
fn a_node_port_answers(cluster: &Cluster) {
    cluster
        .apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}")
        .ok();
    let service = cluster.get("service", "default", "web").expect("the service");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a port");
    assert!((30000..=32767).contains(&port), "{service}");
    let node = cluster.get("node", "", "node-1").expect("the node");
    let addresses = node["status"]["addresses"].as_array().expect("addresses");
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP").expect("one of its own");
    let url = format!("http://{}:{port}/", internal["address"].as_str().expect("an address"));
    let ask = |from: &str| exec(cluster, from, &["wget", "-q", "-O", "-", &url]);
    for from in ["on-node", "web"] {
        until(&format!("{url} answers {from}"), LIMIT, || match ask(from) {
            ran if ran.stdout == "here\n" => Ok(()),
            ran => Err(ran),
        });
    }
    cluster.kedge(&["delete", "service", "web"]).ok();
    until("nothing answers there", LIMIT, || match ask("on-node") {
        ran if ran.stderr.contains("refused") => Ok(()),
        ran => Err(ran),
    });
}

/// An image with the program that asks the API.
fn asking(cluster: &Cluster) {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kedge")).with_file_name("served");
    assert!(program.exists(), "{} is missing: run `cargo build --package testkit` first", program.display());
    let context = cluster.folder().join("asking");
    std::fs::create_dir_all(&context).expect("a folder");
    std::fs::copy(&program, context.join("served")).expect("copied");
    let dockerfile = "FROM localhost/busybox:1\nCOPY served /bin/served\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("written");
    cluster.kedge(&["build", "-t", "localhost/asking:1", context.to_str().expect("a plain path")]).ok();
}

/// By the name that every program knows, with the token and the authority that every container has, as its service account.
fn a_pod_asks_the_api(cluster: &Cluster) {
    asking(cluster);
    cluster
        .apply(
            "{apiVersion: v1, kind: ServiceAccount, metadata: {name: reader}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: reader}, rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: reader}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}, subjects: [{kind: ServiceAccount, name: reader}]}",
        )
        .ok();
    let idle = "command: [sleep, '100000']";
    let asker = pod("asker", "terminationGracePeriodSeconds: 0, serviceAccountName: reader,", idle);
    cluster.apply(&asker.replace("localhost/busybox:1", "localhost/asking:1")).ok();
    let silent = "terminationGracePeriodSeconds: 0, automountServiceAccountToken: false,";
    cluster.apply(&pod("silent", silent, idle)).ok();
    let uid = wait_ready(cluster, "asker")["metadata"]["uid"].clone();
    let ask = |path: &str| {
        let said = exec(cluster, "asker", &["served", "ask", path]).ok();
        let (code, body) = said.split_once(' ').expect("a code");
        (code.to_owned(), serde_json::from_str::<Value>(body).expect("an object"))
    };
    let (code, itself) = ask("/api/v1/namespaces/default/pods/asker");
    assert_eq!((code.as_str(), &itself["metadata"]["uid"]), ("200", &uid), "{itself}");
    let (code, refused) = ask("/api/v1/namespaces/default/secrets");
    let words = "secrets is forbidden: User \"system:serviceaccount:default:reader\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"";
    assert_eq!((code.as_str(), refused["message"].as_str()), ("403", Some(words)));
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let namespace = exec(cluster, "asker", &["cat", &format!("{place}/namespace")]).ok();
    assert_eq!(namespace, "default");
    wait_ready(cluster, "silent");
    assert_ne!(exec(cluster, "silent", &["ls", place]).code, Some(0), "it asked for none");
}

#[test]
fn containers_keep_to_what_they_are_given() {
    let cluster = cluster();
    // They take their time side by side.
    cluster.apply(&pod("spinner", "terminationGracePeriodSeconds: 0,", SPINNER)).ok();
    cluster.apply(&pod("chatty", "terminationGracePeriodSeconds: 0,", CHATTY)).ok();
    time_is_given_to_end(&cluster);
    a_tenth_of_a_processor_is_all(&cluster);
    a_log_goes_on(&cluster);
}

/// Spins for four seconds of the machine's clock, and says how long that was and how much of a processor it had: both in
/// hundredths of a second.
const SPINNER: &str = "resources: {limits: {cpu: 100m}}, command: [sh, -c, '\
    read up rest < /proc/uptime; begin=${up%.*}${up#*.}; now=$begin; \
    while [ $((now - begin)) -lt 400 ]; do read up rest < /proc/uptime; now=${up%.*}${up#*.}; done; \
    read all < /proc/1/stat; set -- $all; echo $((now - begin)) $((${14} + ${15})); exec sleep 100000']";

fn a_tenth_of_a_processor_is_all(cluster: &Cluster) {
    let said = until("it has spun", LIMIT, || match cluster.kedge(&["logs", "spinner"]) {
        ran if ran.stdout.ends_with('\n') => Ok(ran.stdout),
        ran => Err(ran),
    });
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [elapsed, used] = numbers[..] else { panic!("{said:?}") };
    let hundredths = used * 100 / elapsed;
    // What it had at the least only shows that something was measured: others may want the processor as well.
    assert!((1..=20).contains(&hundredths), "{used} of {elapsed} hundredths of a second");
}

/// Long lines before they are many: so many that the log is set aside.
const CHATTY: &str = "command: [sh, -c, '\
    wait_for() { until [ -e /tmp/$1 ]; do sleep 0.1; done; }; \
    wait_for go; yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 | head -n 80000 | cat -n; \
    wait_for on; echo the last; exec sleep 100000']";
const CHATTY_LINES: usize = 80_000;

/// Files of a container's log.
fn log_files(cluster: &Cluster, uid: &str) -> Vec<PathBuf> {
    fn add(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => add(&path, found),
                path => found.push(path),
            }
        }
    }
    let (layout, mut found) = (base::layout::Layout::new(cluster.data_dir()), Vec::new());
    add(&layout.node(), &mut found);
    found.retain(|path| {
        let path = path.to_string_lossy();
        path.contains(uid) && path.contains("/c/0.log")
    });
    found.sort();
    found
}

/// It is set aside where it has become too large, and who follows it hears all of it nevertheless.
fn a_log_goes_on(cluster: &Cluster) {
    let uid = wait_ready(cluster, "chatty")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let heard = cluster.folder().join("heard");
    let out = File::create(&heard).expect("a file");
    let mut follower = cluster.command(&["logs", "-f", "chatty"]).stdout(out).spawn().expect("kedge runs");
    exec(cluster, "chatty", &["touch", "/tmp/go"]).ok();
    let files = until("the log is set aside", LIMIT, || match log_files(cluster, &uid) {
        files if files.len() > 1 => Ok(files),
        files => Err(files),
    });
    let size = |path: &PathBuf| std::fs::metadata(path).expect("it is there").len();
    assert!(size(&files[1]) > 10 << 20, "{files:?}");
    exec(cluster, "chatty", &["touch", "/tmp/on"]).ok();
    let now = until("the new file has the last line", LIMIT, || match cluster.kedge(&["logs", "chatty"]) {
        ran if ran.stdout.ends_with("the last\n") => Ok(ran.stdout),
        ran => Err(ran.stderr),
    });
    assert!(now.lines().count() <= CHATTY_LINES, "it begins anew");
    let all = until("who follows has heard the last line", LIMIT, || {
        let text = std::fs::read_to_string(&heard).expect("what was heard");
        if text.ends_with("the last\n") { Ok(text) } else { Err(text.lines().count()) }
    });
    follower.kill().expect("killed");
    follower.wait().expect("reaped");
    let numbers: Vec<usize> =
        all.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(numbers, (1..=CHATTY_LINES).collect::<Vec<_>>(), "a line was lost or came twice");
}

/// First the hook, then the signal, and then as much time as the pod asked for.
fn time_is_given_to_end(cluster: &Cluster) {
    let shared = cluster.folder().join("shared");
    std::fs::create_dir_all(&shared).expect("a folder");
    let make = |name: &str, grace: u32, on_term: &str| {
        let spec = format!(
            "terminationGracePeriodSeconds: {grace}, volumes: [{{name: v, hostPath: {{path: {}}}}}],",
            shared.display()
        );
        let container = format!(
            "volumeMounts: [{{name: v, mountPath: /v}}], lifecycle: {{preStop: {{exec: {{command: [sh, -c, 'echo hook >> /v/{name}']}}}}}}, \
             command: [sh, -c, 'trap \"echo asked >> /v/{name}; {on_term}\" TERM; touch /v/{name}; while true; do sleep 0.1; done'], \
             readinessProbe: {{exec: {{command: [test, -e, /v/{name}]}}, periodSeconds: 1}}"
        );
        cluster.apply(&pod(name, &spec, &container)).ok();
    };
    make("gentle", 60, "sleep 2; echo done >> /v/gentle; exit 0");
    make("stubborn", 5, "true");
    for (name, wanted) in [("gentle", "hook\nasked\ndone\n"), ("stubborn", "hook\nasked\n")] {
        wait_ready(cluster, name);
        let since = std::time::Instant::now();
        cluster.kedge(&["delete", "pod", name]).ok();
        until(&format!("{name} is gone"), LIMIT, || match cluster.get("pod", "default", name) {
            Err(error) if error.contains("not found") => Ok(()),
            other => Err(other),
        });
        assert_eq!(std::fs::read_to_string(shared.join(name)).expect("what it told"), wanted, "{name}");
        // A minute of grace is not waited for once it has ended.
        assert!(since.elapsed() < Duration::from_secs(50), "{name}: {:?}", since.elapsed());
    }
}
