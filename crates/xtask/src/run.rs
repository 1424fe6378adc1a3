//! Commands that are put together from others: building, testing, measuring.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Cargo as if it had been called from the shell. What the cargo that runs this program says of this program would make
/// build scripts run anew, and all that stands on them.
fn fresh_cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_this_program = |name: &str| {
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_this_program) {
            command.env_remove(name);
        }
    }
    command
}

fn cargo(args: &[&str]) -> anyhow::Result<()> {
    let started = Instant::now();
    println!("── cargo {}", args.join(" "));
    let mut command = fresh_cargo();
    let status = command.args(args).current_dir(root()).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    println!("── {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn target() -> anyhow::Result<PathBuf> {
    let output = fresh_cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    Ok(metadata["target_directory"].as_str().context("cargo names no target directory")?.into())
}

/// Where cargo puts what it builds in a profile.
fn built(profile: &str) -> anyhow::Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(target()?.join(triple).join(profile))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Installs what is missing of what the tests use beside the Rust toolchain.
fn install(tools: &[(&str, &str)]) -> anyhow::Result<()> {
    let there = |tool: &str| {
        let folders = ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
        folders.iter().any(|folder| Path::new(folder).join(tool).exists())
    };
    let missing: Vec<&str> =
        tools.iter().filter(|(tool, _)| !there(tool)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(&missing)
}

fn install_packages(missing: &[&str]) -> anyhow::Result<()> {
    println!("── installing {}", missing.join(", "));
    let apt =
        |args: &[&str]| Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").status();
    let updated = apt(&["update", "-qq"]).context("cannot run apt-get; install by hand what is missing")?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(missing);
    if !updated.success() || !apt(&args)?.success() {
        bail!("apt-get could not install {}; install it by hand and try again", missing.join(", "));
    }
    Ok(())
}

/// The client libraries of other languages that are tried against our server, at the versions they were last tried at.
const PYTHON_CLIENT: &str = "kubernetes==34.1.0";
const JAVASCRIPT_CLIENT: &str = "@kubernetes/client-node@1.4.0";

/// Puts them below the target directory. Where a registry cannot be reached, the tests say that nothing was tried.
fn install_clients() -> anyhow::Result<()> {
    let folder = target()?.join("clients");
    let done = |name: &str, version: &str| {
        std::fs::read_to_string(folder.join(name).join("version")).is_ok_and(|held| held == version)
    };
    let run = |program: &Path, args: &[&str]| {
        Command::new(program).args(args).status().is_ok_and(|status| status.success())
    };
    let finish = |name: &str, version: &str, well: bool| -> anyhow::Result<()> {
        let place = folder.join(name);
        if well {
            return std::fs::write(place.join("version"), version)
                .context("cannot write below the target directory");
        }
        println!("── cannot install {version}: is its registry within reach? Its test will try nothing");
        if place.exists() {
            std::fs::remove_dir_all(place).context("cannot remove what is half installed")?;
        }
        Ok(())
    };
    std::fs::create_dir_all(&folder).context("cannot make a folder below the target directory")?;
    if !done("python", PYTHON_CLIENT) {
        println!("── installing {PYTHON_CLIENT}");
        let place = folder.join("python");
        let path = place.to_string_lossy();
        let python = Path::new("python3");
        if !run(python, &["-c", "import ensurepip, venv"]) {
            install_packages(&["python3-venv"])?;
        }
        let made = run(python, &["-m", "venv", "--clear", &path]);
        let pip = place.join("bin/pip");
        finish("python", PYTHON_CLIENT, made && run(&pip, &["install", "--quiet", PYTHON_CLIENT]))?;
    }
    if !done("javascript", JAVASCRIPT_CLIENT) {
        println!("── installing {JAVASCRIPT_CLIENT}");
        let place = folder.join("javascript");
        std::fs::create_dir_all(&place).context("cannot make a folder below the target directory")?;
        let path = place.to_string_lossy();
        let args = ["install", "--no-audit", "--no-fund", "--silent", "--prefix", &path, JAVASCRIPT_CLIENT];
        finish("javascript", JAVASCRIPT_CLIENT, run(Path::new("npm"), &args))?;
    }
    Ok(())
}

pub fn up(args: &[String]) -> anyhow::Result<()> {
    if !is_root() {
        bail!("containers need root: run the same command as root, for example with `sudo -E`");
    }
    cargo(&["build", "--release", "--package", "kedge", "--package", "shop"])?;
    let status = up_command(&built("release")?, args)?.status().context("cannot run kedge")?;
    std::process::exit(status.code().unwrap_or(1));
}

/// `kedge up` on the example, with what lies in a folder of built programs.
fn up_command(built: &Path, args: &[String]) -> anyhow::Result<Command> {
    let bin = root().join("examples/shop/bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::copy(built.join("shop"), bin.join("shop"))
        .context("cannot put the example's program into its build context")?;
    let mut command = Command::new(built.join("kedge"));
    command.arg("up").current_dir(root());
    // Without a repository of the user's own, the example's, which is this one.
    if args.iter().all(|arg| arg.starts_with('-')) {
        command.arg(root());
    }
    command.args(args);
    Ok(command)
}

/// The README's first command, with what was built for the tests, in this checkout: it ends well, and the address that it
/// names answers.
fn walk() -> anyhow::Result<()> {
    println!("── the first command");
    let built = built("debug")?;
    let folder = std::env::temp_dir().join(format!("kedge-t-walk-{}", std::process::id()));
    let data_dir = format!("--data-dir={}", folder.display());
    let args = [data_dir.clone(), "--api-port=0".to_owned()];
    let output = up_command(&built, &args)?.output().context("cannot run kedge")?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let answered = page(&told);
    let purged = Command::new(built.join("kedge")).args(["down", "--purge", "--now", &data_dir]).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("`cargo xtask up` failed: {told}\n{}", text(&output.stderr));
    }
    println!("{told}── {}", answered.with_context(|| format!("the example does not answer:\n{told}"))?);
    if !purged.status.success() || folder.exists() {
        bail!("`kedge down --purge` left something: {}", text(&purged.stderr));
    }
    Ok(())
}

/// Asks for the page at the address that was told.
fn page(told: &str) -> anyhow::Result<String> {
    use std::io::{Read, Write};
    let (_, rest) = told.split_once("http://localhost:").context("no address was told")?;
    let port: u16 = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse()?;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line = answer.lines().next().unwrap_or_default();
    if !line.contains(" 200 ") {
        bail!("it answered {line:?}");
    }
    Ok(format!("http://localhost:{port} answers {line}"))
}

pub fn test() -> anyhow::Result<()> {
    if !is_root() {
        bail!(
            "the tests run real containers and need root: run the same command as root, for example with `sudo -E`"
        );
    }
    install(&[
        ("busybox", "busybox-static"),
        ("git", "git"),
        ("nft", "nftables"),
        ("ip", "iproute2"),
        ("python3", "python3"),
        ("node", "nodejs"),
        ("npm", "npm"),
        ("etcd", "etcd-server"),
    ])?;
    install_clients()?;
    cargo(&["fmt", "--all", "--check"])?;
    super::tidy::run()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    cargo(&["build", "--package", "shop", "--package", "kedge", "--package", "testkit"])?;
    walk()?;
    cargo(&["test", "--workspace", "--no-fail-fast"])?;
    for missing in untried()? {
        println!("── not tried, as this machine has none: {missing}");
    }
    Ok(())
}

/// What tests leave out where it is not there.
fn untried() -> anyhow::Result<Vec<String>> {
    let clients = target()?.join("clients");
    let folders = ["/usr/lib/google-cloud-sdk/bin", "/usr/local/bin", "/usr/bin"].map(Path::new);
    let is_kubectl = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("kubectl"))
    };
    let kubectl =
        folders.iter().any(|folder| std::fs::read_dir(folder).into_iter().flatten().any(is_kubectl));
    let all = [
        ("kubectl".to_owned(), kubectl),
        (format!("Python's client {PYTHON_CLIENT}"), clients.join("python/version").exists()),
        (format!("JavaScript's client {JAVASCRIPT_CLIENT}"), clients.join("javascript/version").exists()),
    ];
    Ok(all.into_iter().filter(|(_, is_there)| !is_there).map(|(name, _)| name).collect())
}

pub fn bench(names: &[String]) -> anyhow::Result<()> {
    install(&[("etcd", "etcd-server"), ("runc", "runc"), ("busybox", "busybox-static")])?;
    cargo(&["build", "--release", "--package", "kedge", "--package", "testkit", "--package", "shop"])?;
    let status = Command::new(built("release")?.join("bench")).args(names).current_dir(root()).status()?;
    std::process::exit(status.code().unwrap_or(1));
}
