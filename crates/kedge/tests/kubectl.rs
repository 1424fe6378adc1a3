//! Real kubectl, every version the machine has: what people do with it every day. Where there is none, there is nothing
//! to compare with, and the test says so.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use testkit::cluster::kubectls;
use testkit::{Cluster, http, until};

const LIMIT: Duration = Duration::from_secs(40);

const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: localhost/busybox:1
        command: [sh, -c, 'mkdir -p /tmp/w; echo hello > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w']
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

struct Kubectl<'a> {
    cluster: &'a Cluster,
    program: &'a Path,
}

impl Kubectl<'_> {
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.cluster.kubectl(self.program, args);
        assert_eq!(
            ran.code,
            Some(0),
            "{} {args:?}\nstdout: {}\nstderr: {}",
            self.program.display(),
            ran.stdout,
            ran.stderr
        );
        ran.stdout
    }

    fn ok_with(&self, args: &[&str], input: &str) -> String {
        let ran = self.cluster.kubectl_with_input(self.program, args, input);
        assert_eq!(
            ran.code,
            Some(0),
            "{} {args:?}\nstdout: {}\nstderr: {}",
            self.program.display(),
            ran.stdout,
            ran.stderr
        );
        ran.stdout
    }

    /// Output and error text of a command that must fail.
    fn fails(&self, args: &[&str]) -> String {
        let ran = self.cluster.kubectl(self.program, args);
        assert_ne!(ran.code, Some(0), "{args:?} succeeded: {}", ran.stdout);
        ran.stdout + &ran.stderr
    }
}

#[test]
fn everyday_work_with_every_kubectl() {
    let programs = kubectls();
    if programs.is_empty() {
        eprintln!("this machine has no kubectl: nothing was compared");
        return;
    }
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    for program in &programs {
        println!("── {}", program.display());
        let kubectl = Kubectl { cluster: &cluster, program };
        objects(&kubectl);
        rollouts(&kubectl);
        containers(&kubectl);
        rights(&kubectl);
        kubectl.ok_with(&["delete", "-f", "-", "--wait=true"], MANIFEST);
        kubectl.ok(&["delete", "deployment", "other"]);
        until("what the deployments made goes with them", LIMIT, || {
            let left = kubectl.ok(&["get", "pods,replicasets", "-o", "name"]);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

fn objects(kubectl: &Kubectl<'_>) {
    kubectl.ok_with(&["apply", "-f", "-"], MANIFEST);
    let again = kubectl.ok_with(&["apply", "-f", "-"], MANIFEST);
    assert!(again.contains("unchanged"), "{again}");
    let changed = MANIFEST.replace("replicas: 2", "replicas: 3");
    let diff = kubectl.cluster.kubectl_with_input(kubectl.program, &["diff", "-f", "-"], &changed);
    assert_eq!(diff.code, Some(1), "{diff:?}");
    assert!(diff.stdout.contains("replicas: 3"), "{diff:?}");
    kubectl.ok_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &changed);
    kubectl.ok(&["scale", "deployment/web", "--replicas=2"]);
    kubectl.ok(&["label", "deployment/web", "tier=front", "--overwrite"]);
    kubectl.ok(&["annotate", "deployment/web", "note=x", "--overwrite"]);
    let what = "jsonpath={.spec.replicas} {.metadata.labels.tier} {.metadata.annotations.note}";
    assert_eq!(kubectl.ok(&["get", "deployment", "web", "-o", what]), "2 front x");
    misspelt(kubectl);
    kubectl.ok(&["wait", "--for=condition=Available", "deployment/web", "--timeout=30s"]);
    let wide = kubectl.ok(&["get", "all", "-A", "-o", "wide"]);
    assert!(wide.contains("deployment.apps/web") && wide.contains("localhost/busybox:1"), "{wide}");
    let shown = kubectl.ok(&["describe", "deployment", "web"]);
    assert!(shown.contains("ScalingReplicaSet"), "{shown}");
    kubectl.ok(&["describe", "pods", "-l", "app=web"]);
    let explained = kubectl.ok(&["explain", "deployment.spec.strategy"]);
    assert!(explained.contains("rollingUpdate"), "{explained}");
    kubectl.ok(&["create", "deployment", "other", "--image=localhost/busybox:1", "--replicas=0"]);
    let listed = kubectl.ok(&["get", "deploy", "-o", "name"]);
    assert!(listed.contains("deployment.apps/other"), "{listed}");
    let mut edit = kubectl.cluster.kubectl_command(kubectl.program, &["edit", "deployment", "other"]);
    let edited =
        edit.env("KUBE_EDITOR", "sed -i 's/replicas: 0/replicas: 1/'").output().expect("kubectl runs");
    assert!(edited.status.success(), "{edited:?}");
    let replicas = kubectl.ok(&["get", "deployment", "other", "-o", "jsonpath={.spec.replicas}"]);
    assert_eq!(replicas, "1");
    assert!(kubectl.fails(&["get", "pod", "nobody"]).contains("pods \"nobody\" not found"));
}

/// A field that is not there is refused, told of or passed over as was asked for, by its path.
fn misspelt(kubectl: &Kubectl<'_>) {
    let manifest = MANIFEST.replace("replicas: 2", "replicaz: 2");
    let unknown = "unknown field \"spec.replicaz\"";
    for (args, refused, words) in [
        (&["--validate=strict"][..], true, unknown),
        (&["--server-side"][..], true, ".spec.replicaz: field not declared in schema"),
        (&["--validate=warn", "--dry-run=server"][..], false, unknown),
        (&["--validate=ignore", "--dry-run=server"][..], false, ""),
    ] {
        let args = [&["apply", "-f", "-"][..], args].concat();
        let told = kubectl.cluster.kubectl_with_input(kubectl.program, &args, &manifest);
        assert_eq!(told.code != Some(0), refused, "{args:?}: {told:?}");
        assert!(told.stderr.contains(words), "{args:?}: {told:?}");
        assert_eq!(told.stderr.contains("replicaz"), !words.is_empty(), "{args:?}: {told:?}");
    }
}

fn rollouts(kubectl: &Kubectl<'_>) {
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    kubectl.ok(&["set", "env", "deployment/web", "VERSION=2"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    let history = kubectl.ok(&["rollout", "history", "deployment/web"]);
    assert!(history.lines().count() >= 4, "{history}");
    kubectl.ok(&["rollout", "undo", "deployment/web"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    let env =
        kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env}"]);
    assert!(!env.contains("VERSION"), "{env}");
    kubectl.ok(&["rollout", "restart", "deployment/web"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=30s"]);
}

fn containers(kubectl: &Kubectl<'_>) {
    let pod = until("one of the pods is all there is of it", LIMIT, || {
        let pods = kubectl.ok(&[
            "get",
            "pods",
            "-l",
            "app=web",
            "--field-selector=status.phase=Running",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{\"\\n\"}{end}",
        ]);
        pods.lines().find(|l| l.split_whitespace().count() == 1).map(|l| l.trim().to_owned()).ok_or(pods)
    });
    assert_eq!(kubectl.ok(&["exec", &pod, "--", "echo", "from inside"]), "from inside\n");
    assert_eq!(kubectl.ok_with(&["exec", "-i", &pod, "--", "cat"], "through\n"), "through\n");
    let failed = kubectl.cluster.kubectl(kubectl.program, &["exec", &pod, "--", "sh", "-c", "exit 3"]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    let file = kubectl.cluster.folder().join("file");
    std::fs::write(&file, "copied\n").expect("written");
    kubectl.ok(&["cp", file.to_str().expect("a plain path"), &format!("{pod}:/tmp/file")]);
    assert_eq!(kubectl.ok(&["exec", &pod, "--", "cat", "/tmp/file"]), "copied\n");
    let back = kubectl.cluster.folder().join("back");
    kubectl.ok(&["cp", &format!("{pod}:/tmp/w/index.html"), back.to_str().expect("a plain path")]);
    assert_eq!(std::fs::read_to_string(&back).expect("it came back"), "hello\n");
    std::fs::remove_file(&back).expect("removed");
    logs(kubectl);
    terminals(kubectl, &pod);
    attached(kubectl);
    forward(kubectl);
}

/// Who follows hears what is said only later, and who comes later of the run before.
fn logs(kubectl: &Kubectl<'_>) {
    let script = "echo one; until [ -e /tmp/go ]; do sleep 0.1; done; rm /tmp/go; echo two; exit 3";
    let image = "--image=localhost/busybox:1";
    kubectl.ok(&["run", "talk", image, "--restart=OnFailure", "--command", "--", "sh", "-c", script]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/talk", "--timeout=30s"]);
    let mut command = kubectl.cluster.kubectl_command(kubectl.program, &["logs", "-f", "talk"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl runs");
    let mut lines = Lines::of(child.stdout.take().expect("an output"));
    assert_eq!(lines.next(), Some("one".into()), "{}", kubectl.program.display());
    assert_eq!(lines.so_far(), None, "nothing more was said yet");
    kubectl.ok(&["exec", "talk", "--", "touch", "/tmp/go"]);
    assert_eq!(lines.next(), Some("two".into()), "{}", kubectl.program.display());
    assert_eq!(lines.next(), None, "it ends with its container");
    assert!(child.wait().expect("reaped").success());
    until("the run after it says its own", LIMIT, || {
        let now = kubectl.cluster.kubectl(kubectl.program, &["logs", "talk"]);
        let before = kubectl.cluster.kubectl(kubectl.program, &["logs", "-p", "talk"]);
        let all = (now.stdout.as_str(), before.stdout.as_str()) == ("one\n", "one\ntwo\n");
        if all { Ok(()) } else { Err((now, before)) }
    });
    kubectl.ok(&["delete", "pod", "talk", "--now"]);
}

/// Lines as they come; the reader ends at the latest with the program.
struct Lines(std::sync::mpsc::Receiver<String>);

impl Lines {
    fn of(output: std::process::ChildStdout) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let lines = std::io::BufRead::lines(std::io::BufReader::new(output));
            lines.map_while(Result::ok).all(|line| tell.send(line).is_ok())
        });
        Self(told)
    }

    /// `None` at the end.
    fn next(&mut self) -> Option<String> {
        match self.0.recv_timeout(LIMIT) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no line in {LIMIT:?}"),
            line => line.ok(),
        }
    }

    fn so_far(&mut self) -> Option<String> {
        self.0.try_recv().ok()
    }
}

/// A terminal of its own, of the size that the user's has; versions before 1.30 speak SPDY, later ones WebSockets.
fn terminals(kubectl: &Kubectl<'_>, pod: &str) {
    // The size comes a moment after the command has begun.
    let script = "n=0; until [ \"$(stty size 2>&1)\" = \"33 77\" ] || [ $n = 100 ]; do n=$((n + 1)); sleep 0.1; done; stty size; tty";
    let Some(typed) = in_terminal(kubectl, &["exec", "-it", pod, "--", "sh", "-c", script]) else {
        eprintln!("this machine has no `script`: no terminal was tried");
        return;
    };
    assert!(typed.contains("33 77") && typed.contains("/dev/pts/"), "{}: {typed}", kubectl.program.display());
}

/// What a terminal of 77 columns and 33 rows shows of a command.
fn in_terminal(kubectl: &Kubectl<'_>, args: &[&str]) -> Option<String> {
    let command = kubectl.cluster.kubectl_command(kubectl.program, args);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let line = format!("stty cols 77 rows 33; exec {}", quoted.join(" "));
    let mut script = std::process::Command::new("script");
    let ran = script.args(["-q", "-e", "-c", &line, "/dev/null"]).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// What runs already is talked to, and says what it says to whoever is there.
fn attached(kubectl: &Kubectl<'_>) {
    let script = "read line; echo heard $line; exec sleep 1000";
    let image = "--image=localhost/busybox:1";
    kubectl.ok(&[
        "run",
        "ear",
        image,
        "--restart=Never",
        "--stdin",
        "--attach=false",
        "--command",
        "--",
        "sh",
        "-c",
        script,
    ]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/ear", "--timeout=30s"]);
    let mut command = kubectl.cluster.kubectl_command(kubectl.program, &["attach", "-i", "ear"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl runs");
    let mut input = child.stdin.take().expect("an input");
    std::io::Write::write_all(&mut input, b"a word\n").expect("is typed");
    let heard = Lines::of(child.stdout.take().expect("an output")).next();
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert_eq!(heard.as_deref(), Some("heard a word"), "{}", kubectl.program.display());
    kubectl.ok(&["delete", "pod", "ear", "--now"]);
}

fn forward(kubectl: &Kubectl<'_>) {
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let ports = format!("{free}:80");
    let mut command = kubectl
        .cluster
        .kubectl_command(kubectl.program, &["port-forward", "--address=127.0.0.1", "service/web", &ports]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl runs");
    let answer = until("an answer through the forwarded port", LIMIT, || match http::get(free, "/") {
        Ok((200, body)) => Ok(body),
        other => Err(format!("{other:?}")),
    });
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert_eq!(answer, "hello\n");
}

fn rights(kubectl: &Kubectl<'_>) {
    assert_eq!(kubectl.ok(&["auth", "can-i", "create", "deployments"]).trim(), "yes");
    let denied = kubectl.cluster.kubectl(kubectl.program, &["auth", "can-i", "list", "secrets", "--as=jane"]);
    assert_eq!(denied.stdout.trim(), "no");
    let refused = kubectl.fails(&["get", "pods", "--as=jane"]);
    let words = "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert!(refused.contains(words), "{refused}");
}

#[test]
fn the_merged_kubeconfig_reaches_the_cluster_and_keeps_the_others() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let target = cluster.folder().join("home/.kube/config");
    std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
    let before = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters: [{name: work, cluster: {server: 'https://work.example'}}]\ncontexts: [{name: work, \
                  context: {cluster: work, user: work}}]\nusers: [{name: work, user: {token: abc}}]\n";
    std::fs::write(&target, before).expect("written");
    let merge = || {
        let mut command = cluster.command(&["kubeconfig", "--merge"]);
        let ran = command.env("HOME", cluster.folder().join("home")).output().expect("kedge runs");
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    assert!(merge().contains(target.to_str().expect("a plain path")));
    let once = std::fs::read_to_string(&target).expect("the file");
    merge();
    assert_eq!(std::fs::read_to_string(&target).expect("the file"), once, "merged twice is merged once");
    assert!(once.contains("https://work.example") && once.contains("token: abc"), "{once}");

    // From another folder, with nothing but the file: ours and every kubectl.
    let mut ours = cluster.command(&["get", "nodes"]);
    let ran = ours.env_remove("KEDGE_DATA_DIR").env("KUBECONFIG", &target).output().expect("kedge runs");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("node-1"), "{ran:?}");
    for program in kubectls() {
        let mut command = std::process::Command::new(&program);
        let ran = command
            .args(["get", "nodes", "-o", "name"])
            .env("KUBECONFIG", &target)
            .output()
            .expect("kubectl runs");
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "node/node-1\n", "{}: {ran:?}", program.display());
    }
}

const SHOWN: &str = "
{apiVersion: v1, kind: Secret, metadata: {name: hidden}, stringData: {word: open-sesame}}
---
{apiVersion: v1, kind: Pod, metadata: {name: huge, labels: {app: huge, tier: front}}, spec: {containers: [{name: c, image: 'localhost/none:1', imagePullPolicy: Never, resources: {requests: {cpu: '640'}}}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: none}, spec: {replicas: 0, selector: {matchLabels: {app: b}}, template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: 'localhost/none:1'}]}}}}
";

/// The words of a table, whatever the time that has passed.
fn words(table: &str) -> Vec<&str> {
    let is_age = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with(['s', 'm']);
    table.split_whitespace().map(|word| if is_age(word) { "(age)" } else { word }).collect()
}

#[test]
fn our_own_commands_show_what_there_is() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.apply(SHOWN).ok();
    let described = until("the pod is told why it waits", LIMIT, || {
        let said = cluster.kedge(&["describe", "pod", "huge"]).ok();
        let told = ["Unschedulable", "FailedScheduling"].iter().all(|word| said.contains(word));
        if told { Ok(said) } else { Err(said) }
    });
    let why = "0/1 nodes are available: 1 Insufficient cpu.";
    assert_eq!(described.matches(why).count(), 2, "as condition and as event: {described}");
    for line in [
        "Name: huge",
        "Namespace: default",
        "Kind: Pod (v1)",
        "tier=front",
        "Status: Pending",
        "Requests: cpu=640",
    ] {
        let found = described.lines().any(|l| words(l).join(" ").ends_with(line));
        assert!(found, "{line}: {described}");
    }
    let secret = cluster.kedge(&["describe", "secret/hidden"]).ok();
    assert!(secret.contains("word: 11 bytes") && secret.contains("Type: Opaque"), "{secret}");
    assert!(!secret.contains("sesame") && !secret.contains("b3Blbi1zZXNhbWU"), "{secret}");
    let nobody = cluster.kedge(&["describe", "pod", "nobody"]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("pods \"nobody\" not found"), "{nobody:?}");

    let get = |rest: &[&str]| cluster.kedge(&[&["get"], rest].concat()).ok();
    let yaml = |text: &str| api::yaml::parse_one(text).expect("YAML");
    let secret = get(&["secret", "hidden", "-o", "yaml"]);
    assert_eq!(yaml(&secret), cluster.get("secret", "default", "hidden").expect("the secret"));
    let all = "deploy,pods";
    let wide = get(&[all, "-o", "wide"]);
    let line = |of: &str| words(wide.lines().find(|l| l.starts_with(of)).unwrap_or_default()).join(" ");
    assert_eq!(line("deployment.apps/none"), "deployment.apps/none 0/0 0 0 (age) c localhost/none:1 app=b");
    assert_eq!(line("pod/huge"), "pod/huge 0/1 Pending 0 (age) <none> <none> <none> <none>");
    for program in kubectls() {
        let kubectl = Kubectl { cluster: &cluster, program: &program };
        assert_eq!(words(&kubectl.ok(&["get", all, "-o", "wide"])), words(&wide), "{}", program.display());
        assert_eq!(words(&kubectl.ok(&["get", all])), words(&get(&[all])), "{}", program.display());
        assert_eq!(yaml(&kubectl.ok(&["get", "secret", "hidden", "-o", "yaml"])), yaml(&secret));
    }
    a_kubeconfig_is_printed(&cluster);
    completions_are_scripts(&cluster);
}

/// And is all that it takes.
fn a_kubeconfig_is_printed(cluster: &Cluster) {
    let printed = cluster.folder().join("printed");
    std::fs::write(&printed, cluster.kedge(&["kubeconfig"]).ok()).expect("written");
    let args = ["get", "nodes", "-o", "name", "--kubeconfig", printed.to_str().expect("a plain path")];
    let ran = cluster.command(&args).env_remove("KEDGE_DATA_DIR").output().expect("kedge runs");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "node/node-1\n", "{ran:?}");
}

/// bash itself says what it would offer; the others' are there.
fn completions_are_scripts(cluster: &Cluster) {
    let script = cluster.folder().join("completion");
    std::fs::write(&script, cluster.kedge(&["completion", "bash"]).ok()).expect("written");
    let offer = "source \"$0\" && complete -p kedge && COMP_WORDS=(kedge des) COMP_CWORD=1 && _kedge kedge des kedge && echo \"offers ${COMPREPLY[*]}\"";
    for args in [&["-n"][..], &["-c", offer]] {
        let ran = std::process::Command::new("bash").args(args).arg(&script).output().expect("bash runs");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && ran.stderr.is_empty(), "{args:?}: {ran:?}");
        assert!(args.len() == 1 || said.ends_with("offers describe\n"), "{said}");
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = cluster.kedge(&["completion", shell]).ok();
        assert!(script.contains("kedge") && script.contains("describe"), "{shell}: {script}");
    }
}
