//! Making a container: root, user, cgroup and filter first, then libcontainer for namespaces, mounts and devices. Its
//! first process waits in there, still as root, until it is started; our own last steps follow then.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::container::{Container, Stdio};
use super::outlet::Outlet;
use super::sandbox::Sandbox;
use crate::cgroup::{Cgroup, detect_layout};
use crate::own::state;
use crate::process::launch::Launch;
use crate::protocol::receive_with_fds;
use crate::rootfs;
use crate::runtime::{ContainerConfig, ContainerState, ContainerStatus, Propagation, RuntimeError, Seccomp};
use crate::seccomp;
use crate::spec::capabilities::{self, CapabilitySet};
use crate::spec::user::Accounts;
use crate::spec::{self, HostDevice, PidNamespace, SpecInput};

/// On failure nothing is left behind.
pub fn create(
    sandbox: &Sandbox,
    config: ContainerConfig,
    target_pid: Option<i32>,
) -> Result<Container, RuntimeError> {
    let directory = sandbox.container_dir(&config.id);
    let cgroup_path = sandbox.record.container_cgroup(&config.id);
    let result = Creation { sandbox, config: &config, directory: &directory, cgroup_path: &cgroup_path }
        .run(target_pid);
    if result.is_err()
        && let Err(error) = state::tear_down(&directory, &config.rootfs, &cgroup_path)
    {
        base::tell!("{}: {error}", config.id);
    }
    result
}

struct Creation<'a> {
    sandbox: &'a Sandbox,
    config: &'a ContainerConfig,
    directory: &'a Path,
    cgroup_path: &'a str,
}

impl Creation<'_> {
    fn failed(&self, step: &str) -> impl Fn(&dyn std::error::Error) -> RuntimeError {
        let (id, step) = (self.config.id.clone(), step.to_owned());
        move |error| RuntimeError::Create { id: id.clone(), message: format!("{step}: {}", chain(error)) }
    }

    fn invalid(&self, message: impl ToString) -> RuntimeError {
        RuntimeError::InvalidConfig { id: self.config.id.clone(), message: message.to_string() }
    }

    fn run(&self, target_pid: Option<i32>) -> Result<Container, RuntimeError> {
        let (config, directory) = (self.config, self.directory);
        let inherited = open_descriptors();
        state::write_config(directory, self.cgroup_path, config).map_err(|e| self.failed("save")(&e))?;
        rootfs::mount_overlay(&config.rootfs).map_err(|e| self.failed("mount root")(&e))?;
        let launch = self.launch()?;
        let cgroup = self.cgroup()?;
        let pid_namespace = match (&config.target_container, self.sandbox.pause, target_pid) {
            (Some(_), _, Some(pid)) | (None, Some(pid), _) => {
                PidNamespace::Join(format!("/proc/{pid}/ns/pid").into())
            }
            (Some(target), _, None) => return Err(self.invalid(format!("container {target:?} does not run"))),
            (None, None, _) if self.sandbox.record.config.host_pid => PidNamespace::Host,
            (None, None, _) => PidNamespace::New,
        };
        let own_pid_namespace = pid_namespace == PidNamespace::New;
        self.save_spec(&launch, pid_namespace)?;
        // libcontainer's own joining leaves out what has no controller of its own.
        let joins = if cgroup.is_unified() { Ok(Vec::new()) } else { cgroup.open_joins() };
        let joins = joins.map_err(|e| self.failed("cgroup")(&e))?;
        let (runtime, start_report, stdio) = self.build(&launch, inherited, &joins)?;
        let pid = runtime.pid().map_or(0, |pid| pid.as_raw());
        if !cgroup.holds(pid) {
            cgroup.take_in(pid).map_err(|e| self.failed("join cgroup")(&e))?;
        }
        // Never the shim's own. Lowering it needs a right that not everybody has; then the inherited one must do.
        let adjustment = config.resources.oom_score_adj.unwrap_or(0);
        fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string()).ok();
        let container = Container {
            status: self.status(pid),
            config: config.clone(),
            directory: directory.to_owned(),
            cgroup,
            launch,
            runtime,
            start_report: Some(start_report),
            starter: None,
            start_failure: None,
            own_pid_namespace,
            stdio,
        };
        container.save();
        Ok(container)
    }

    fn launch(&self) -> Result<Launch, RuntimeError> {
        let (config, security) = (self.config, &self.config.security);
        let user = Accounts::read(&config.rootfs.merged)
            .resolve(&config.image_config.user, security.user.as_ref(), &security.supplemental_groups)
            .map_err(|error| self.invalid(error))?;
        let capabilities =
            capabilities::effective(security, held_capabilities()).map_err(|error| self.invalid(error))?;
        let filter = if security.privileged { &Seccomp::Unconfined } else { &security.seccomp };
        let programs =
            seccomp::compile(filter, &capabilities.names()).map_err(|error| self.invalid(chain(&error)))?;
        Ok(Launch {
            args: spec::arguments(config),
            env: spec::environment(&self.sandbox.record.config, config, &user.home),
            user,
            capabilities,
            no_new_privileges: security.no_new_privileges,
            seccomp: Rc::new(programs),
        })
    }

    fn cgroup(&self) -> Result<Cgroup, RuntimeError> {
        let cgroup = Cgroup::detect(self.cgroup_path).map_err(|e| self.failed("cgroup")(&e))?;
        cgroup.create().map_err(|e| self.failed("cgroup")(&e))?;
        cgroup.apply(&self.config.resources).map_err(|e| self.failed("cgroup")(&e))?;
        cgroup.kill_together_on_oom().map_err(|e| self.failed("cgroup")(&e))?;
        Ok(cgroup)
    }

    fn devices(&self) -> io::Result<Vec<HostDevice>> {
        let mut devices = if self.config.security.privileged { spec::host_devices()? } else { Vec::new() };
        for device in &self.config.devices {
            let empty = device.container_path.as_os_str().is_empty();
            let seen_at = if empty { &device.host_path } else { &device.container_path };
            devices.extend(spec::lookup_device(&device.host_path, seen_at, &device.permissions)?);
        }
        Ok(devices)
    }

    fn save_spec(&self, launch: &Launch, pid_namespace: PidNamespace) -> Result<(), RuntimeError> {
        let spec = spec::build(&SpecInput {
            sandbox: &self.sandbox.record.config,
            config: self.config,
            user: &launch.user,
            sandbox_dir: &self.sandbox.directory,
            pid_namespace,
            cgroup_path: self.cgroup_path,
            // What a v1 container sees is its own group already.
            cgroup_namespace: Cgroup::detect(self.cgroup_path).is_ok_and(|cgroup| cgroup.is_unified()),
            cgroup_hierarchies: detect_layout().map(|layout| layout.hierarchies()).unwrap_or_default(),
            devices: self.devices().map_err(|error| self.invalid(format!("devices: {error}")))?,
        })?;
        let bundle = self.directory.join("bundle");
        fs::create_dir_all(&bundle).map_err(|e| self.failed("bundle")(&e))?;
        spec.save(bundle.join("config.json")).map_err(|e| self.failed("bundle")(&e))?;
        rootfs::create_dir_inside(&self.config.rootfs.merged, Path::new(spec::working_dir(self.config)))
            .map_err(|e| self.failed("working directory")(&e))
    }

    fn build(
        &self,
        launch: &Launch,
        inherited: Vec<RawFd>,
        joins: &[File],
    ) -> Result<(libcontainer::container::Container, File, Stdio), RuntimeError> {
        let io = |e: io::Error| self.failed("stdio")(&e);
        let (report_read, report_write) = pipe().map_err(io)?;
        let mounts = &self.config.mounts;
        let executor = LastSteps {
            launch: launch.clone(),
            report: report_write.as_raw_fd(),
            inherited,
            joins: joins.iter().map(AsRawFd::as_raw_fd).collect(),
            propagation: mounts
                .iter()
                .map(|mount| (mount.container_path.clone(), mount.propagation))
                .collect(),
        };
        let oci = self.directory.join("oci");
        fs::create_dir_all(&oci).map_err(io)?;
        let mut builder = ContainerBuilder::new(self.config.id.clone(), SyscallType::default())
            .with_root_path(&oci)
            .and_then(ContainerBuilder::validate_id)
            .map_err(|e| self.failed("create")(&e))?
            .with_executor(executor);
        let mut stdio =
            Stdio { terminal: self.config.tty, stdin_once: self.config.stdin_once, ..Stdio::default() };
        // Relative to the sandbox's directory, which is where we are: socket addresses are short.
        let console = Path::new("containers").join(&self.config.id).join("console.sock");
        let mut listener = None;
        if self.config.tty {
            listener = Some(UnixListener::bind(&console).map_err(io)?);
            builder = builder.with_console_socket(Some(self.directory.join("console.sock")));
        } else {
            let (stdin, stdout, stderr) = self.pipes(&mut stdio).map_err(io)?;
            builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
        }
        let built =
            builder.as_init(self.directory.join("bundle")).with_systemd(false).with_detach(true).build();
        // It makes its caller undumpable, which would take the caller's own /proc files away from it.
        // SAFETY: plain flags, no memory involved.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        drop(report_write);
        let runtime = built.map_err(|e| self.failed("create")(&e))?;
        if let Some(listener) = listener {
            self.take_terminal(&listener, &mut stdio).map_err(io)?;
            fs::remove_file(&console).map_err(io)?;
        }
        if !self.config.log_path.as_os_str().is_empty() {
            stdio.open_log(&self.status(0).log_path).map_err(|e| self.failed("open log")(&e))?;
        }
        Ok((runtime, report_read, stdio))
    }

    fn pipes(&self, stdio: &mut Stdio) -> io::Result<(OwnedFd, OwnedFd, OwnedFd)> {
        let stdin: OwnedFd = if self.config.stdin {
            let (theirs, ours) = pipe()?;
            stdio.stdin = Some(Outlet::new(ours.into())?);
            theirs.into()
        } else {
            File::open("/dev/null")?.into()
        };
        let output = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (ours, theirs) = pipe()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            Ok((ours.into(), theirs.into()))
        };
        let (stdout, their_stdout) = output()?;
        let (stderr, their_stderr) = output()?;
        (stdio.stdout, stdio.stderr) = (Some(stdout), Some(stderr));
        Ok((stdin, their_stdout, their_stderr))
    }

    /// The first process has sent the terminal's master before it said it was ready.
    fn take_terminal(&self, listener: &UnixListener, stdio: &mut Stdio) -> io::Result<()> {
        let (socket, _) = listener.accept()?;
        let (mut buffer, mut fds) = ([0; 4096], Vec::new());
        receive_with_fds(&socket, &mut buffer, &mut fds)?;
        let master = fds.pop().ok_or_else(|| io::Error::other("no terminal was sent"))?;
        if self.config.stdin {
            stdio.stdin = Some(Outlet::new(master.try_clone()?)?);
        }
        rustix::io::ioctl_fionbio(&master, true)?;
        stdio.stdout = Some(master);
        Ok(())
    }

    fn status(&self, pid: i32) -> ContainerStatus {
        ContainerStatus {
            state: ContainerState::Created,
            created_at_ns: crate::clock::now_ns(),
            pid,
            ..state::status_of(&self.sandbox.record.config, self.config)
        }
    }
}

fn pipe() -> io::Result<(File, File)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read.into(), write.into()))
}

/// What the first process does in place of libcontainer's own end.
#[derive(Clone)]
struct LastSteps {
    launch: Launch,
    report: RawFd,
    inherited: Vec<RawFd>,
    /// See [`Cgroup::open_joins`].
    joins: Vec<RawFd>,
    propagation: Vec<(PathBuf, Propagation)>,
}

impl LastSteps {
    fn join(&self) -> Result<(), ExecutorValidationError> {
        for fd in &self.joins {
            // SAFETY: opened for this, and nobody else has it in this forked process.
            let mut file = unsafe { File::from_raw_fd(*fd) };
            file.write_all(b"0").map_err(|error| {
                ExecutorValidationError::ArgValidationError(format!("join cgroup: {error}"))
            })?;
        }
        Ok(())
    }

    /// libcontainer leaves every bind as its source was, which is too much for those that are to be private.
    fn set_propagation(&self) -> Result<(), ExecutorValidationError> {
        for (path, propagation) in &self.propagation {
            let flags = match propagation {
                Propagation::Private => MountPropagationFlags::PRIVATE,
                Propagation::HostToContainer => MountPropagationFlags::DOWNSTREAM,
                Propagation::Bidirectional => continue,
            };
            mount_change(path, flags | MountPropagationFlags::REC).map_err(|error| {
                ExecutorValidationError::ArgValidationError(format!("set propagation of {path:?}: {error}"))
            })?;
        }
        Ok(())
    }
}

impl Executor for LastSteps {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        self.launch.run().report_and_exit(self.report)
    }

    /// Whether the program exists is found out by executing it. But this is the moment before the wait, inside the new
    /// root and still as root; and while it waits it must not hold the shim's sockets and the pipes of other
    /// containers open.
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        for fd in &self.inherited {
            // SAFETY: these were the shim's; nothing in this forked process uses them.
            unsafe { libc::close(*fd) };
        }
        self.join()?;
        self.set_propagation()
    }

    /// The environment goes into exec as it is, in its order.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// All of ours but stdio.
fn open_descriptors() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let all: Vec<RawFd> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The listing itself had a descriptor, which is closed by now.
    // SAFETY: asks only whether the number is open.
    all.into_iter().filter(|fd| *fd > 2 && unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0).collect()
}

fn held_capabilities() -> CapabilitySet {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = text.lines().find_map(|line| line.strip_prefix("CapPrm:")).map(str::trim);
    let held = hex.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    CapabilitySet(held & CapabilitySet::ALL.0)
}

/// An error with all its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}
