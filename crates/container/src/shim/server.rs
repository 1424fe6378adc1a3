//! The shim's loop: one poll over its socket, its clients, its containers' stdio and the ends of its children.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::container::Container;
use super::create;
use super::exec::Exec;
use super::outlet::Outlet;
use super::sandbox::Sandbox;
use super::signals;
use crate::log::Stream;
use crate::process::launch::LaunchFailure;
use crate::protocol::{LINE_MAX_BYTES, Reply, Request, line, send_with_fds};
use crate::runtime::{ContainerState, RuntimeError};

/// More clients than an agent ever has.
const CONNECTIONS_MAX: usize = 512;

pub struct Server {
    sandbox: Sandbox,
    listener: UnixListener,
    signals: OwnedFd,
    containers: BTreeMap<String, Container>,
    connections: BTreeMap<u64, Connection>,
    /// By the connection that asked.
    execs: BTreeMap<u64, Exec>,
    next_connection: u64,
    /// Everything is being killed, and this connection is to be told when it is over.
    shutdown: Option<u64>,
}

struct Connection {
    socket: UnixStream,
    outlet: Outlet,
    inbox: Vec<u8>,
    subscribed: bool,
    gone: bool,
}

/// What a descriptor of the poll set stands for. In the order they are served: output before the news that the process
/// has ended, and that before requests.
#[derive(Clone)]
enum Source {
    Output(String, Stream),
    StartReport(String),
    ExecReport(u64),
    Signals,
    Stdin(String),
    ClientInput(String, u64),
    ClientOutput(String, u64, Stream),
    Connection(u64),
    Listener,
}

impl Server {
    pub fn new(sandbox: Sandbox, listener: UnixListener, signals: OwnedFd) -> Self {
        Self {
            sandbox,
            listener,
            signals,
            containers: BTreeMap::new(),
            connections: BTreeMap::new(),
            execs: BTreeMap::new(),
            next_connection: 1,
            shutdown: None,
        }
    }

    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let (sources, mut polled) = self.poll_set();
            // SAFETY: the array is ours and as long as we say.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
            if ready < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
                continue;
            }
            for (source, poll) in sources.into_iter().zip(polled) {
                if poll.revents != 0 {
                    self.serve(source, poll.revents);
                }
            }
            self.connections.retain(|_, connection| !connection.gone);
            if self.is_over() {
                return self.finish();
            }
        }
    }

    fn poll_set(&self) -> (Vec<Source>, Vec<libc::pollfd>) {
        let mut set: Vec<(Source, RawFd, i16)> = Vec::new();
        for (id, container) in &self.containers {
            let stdio = &container.stdio;
            for (stream, fd) in [(Stream::Stdout, &stdio.stdout), (Stream::Stderr, &stdio.stderr)] {
                set.extend(
                    fd.as_ref().map(|fd| (Source::Output(id.clone(), stream), fd.as_raw_fd(), libc::POLLIN)),
                );
            }
            if let (Some(report), Some(_)) = (&container.start_report, container.starter) {
                set.push((Source::StartReport(id.clone()), report.as_raw_fd(), libc::POLLIN));
            }
        }
        for (connection, exec) in &self.execs {
            let report = exec.report.as_ref();
            set.extend(report.map(|r| (Source::ExecReport(*connection), r.as_raw_fd(), libc::POLLIN)));
        }
        set.push((Source::Signals, self.signals.as_raw_fd(), libc::POLLIN));
        for (id, container) in &self.containers {
            poll_clients(id, container, &mut set);
        }
        for (id, connection) in &self.connections {
            let write = if connection.outlet.is_idle() { 0 } else { libc::POLLOUT };
            set.push((Source::Connection(*id), connection.socket.as_raw_fd(), libc::POLLIN | write));
        }
        set.push((Source::Listener, self.listener.as_raw_fd(), libc::POLLIN));
        set.into_iter().map(|(source, fd, events)| (source, libc::pollfd { fd, events, revents: 0 })).unzip()
    }

    fn serve(&mut self, source: Source, events: i16) {
        match source {
            Source::Output(id, stream) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.stdio.read_output(stream);
                }
            }
            Source::StartReport(id) => self.read_start_report(&id),
            Source::ExecReport(connection) => self.read_exec_report(connection),
            Source::Signals => self.reap(),
            Source::Stdin(id) => {
                let stdio = self.containers.get_mut(&id).map(|container| &mut container.stdio);
                if let Some(stdio) = stdio
                    && !stdio.stdin.as_mut().is_some_and(Outlet::flush)
                {
                    stdio.stdin = None;
                }
            }
            Source::ClientInput(id, client) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.stdio.read_client(client);
                }
            }
            Source::ClientOutput(id, client, stream) => self.flush_client(&id, client, stream, events),
            Source::Connection(id) => self.serve_connection(id, events),
            Source::Listener => self.accept(),
        }
    }

    fn flush_client(&mut self, id: &str, client: u64, stream: Stream, events: i16) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(client) = container.stdio.clients.get_mut(&client) {
            let outlet = client.outlet(stream);
            let hung_up = events & (libc::POLLHUP | libc::POLLERR) != 0;
            if hung_up || !outlet.as_mut().is_some_and(Outlet::flush) {
                *outlet = None;
            }
        }
        container.stdio.tidy();
    }

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else { return };
        if self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let outlet = socket.try_clone().map(OwnedFd::from).and_then(Outlet::new);
        if let Ok(outlet) = outlet {
            let connection = Connection { socket, outlet, inbox: Vec::new(), subscribed: false, gone: false };
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    fn serve_connection(&mut self, id: u64, events: i16) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if events & libc::POLLOUT != 0 && !connection.outlet.flush() {
            connection.gone = true;
        }
        let mut buffer = [0; 16 * 1024];
        match (&connection.socket).read(&mut buffer) {
            Ok(count @ 1..) => connection.inbox.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Ok(_) | Err(_) => connection.gone = true,
        }
        if connection.inbox.len() > LINE_MAX_BYTES {
            connection.gone = true;
        }
        while let Some(end) =
            self.connections.get(&id).and_then(|c| c.inbox.iter().position(|byte| *byte == b'\n'))
        {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let text: Vec<u8> = connection.inbox.drain(..=end).collect();
            match serde_json::from_slice::<Request>(&text) {
                Ok(request) => self.handle(id, request),
                Err(error) => {
                    self.send(id, &Reply::Failed { error: RuntimeError::io("request", "shim", error) })
                }
            }
        }
    }

    fn handle(&mut self, connection: u64, request: Request) {
        let answer = match request {
            Request::Subscribe => {
                let statuses = self.containers.values().map(|container| container.status.clone()).collect();
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.subscribed = true;
                }
                Ok(Some(Reply::Statuses { statuses }))
            }
            Request::Create { config } => self.create(*config).map(Some),
            Request::Start { id } => self.start(connection, &id).map(|()| None),
            Request::Signal { id, signal } => self.container(&id).map(|container| {
                container.signal(signal);
                Some(Reply::Done)
            }),
            Request::Forget { id } => self.forget(&id).map(Some),
            Request::Exec { id, exec } => {
                self.container(&id).and_then(|container| Exec::start(container, exec)).map(|exec| {
                    self.execs.insert(connection, exec);
                    self.read_exec_report(connection);
                    None
                })
            }
            Request::Kill => {
                self.execs.get(&connection).into_iter().for_each(Exec::kill);
                Ok(None)
            }
            Request::Attach { id } => self.attach(connection, &id).map(|()| None),
            Request::Resize { id, size } => self.container(&id).and_then(|container| {
                let result = container.stdio.resize(size);
                result.map(|()| Some(Reply::Done)).map_err(|error| RuntimeError::io("resize", &id, error))
            }),
            Request::ReopenLog { id } => self.container(&id).and_then(|container| {
                let result = container.stdio.log.as_mut().map_or(Ok(()), crate::log::ContainerLog::reopen);
                result.map(|()| Some(Reply::Done)).map_err(|error| RuntimeError::io("reopen log", &id, error))
            }),
            Request::Shutdown => {
                self.shut_down(connection);
                Ok(None)
            }
        };
        match answer {
            Ok(Some(reply)) => self.send(connection, &reply),
            Ok(None) => {}
            Err(error) => self.send(connection, &Reply::Failed { error }),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, RuntimeError> {
        self.containers.get_mut(id).ok_or_else(|| RuntimeError::container_not_found(id))
    }

    fn create(&mut self, config: crate::runtime::ContainerConfig) -> Result<Reply, RuntimeError> {
        let id = config.id.clone();
        if self.containers.contains_key(&id) {
            return Err(RuntimeError::AlreadyExists { object: "container".into(), id });
        }
        if self.shutdown.is_some() {
            return Err(RuntimeError::Create { id, message: "the sandbox is being stopped".into() });
        }
        let target = config.target_container.as_ref().and_then(|target| self.containers.get(target));
        let target = target.map(|target| target.status.pid).filter(|pid| *pid > 0);
        let container = create::create(&self.sandbox, config, target)?;
        let reply = Reply::Status { status: Box::new(container.status.clone()) };
        self.containers.insert(id.clone(), container);
        self.publish(&id);
        Ok(reply)
    }

    fn start(&mut self, connection: u64, id: &str) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let status = &mut container.status;
        if status.state != ContainerState::Created || status.started_at_ns != 0 {
            return Err(RuntimeError::NotRunning {
                id: id.into(),
                state: format!("{}, not created", status.state),
            });
        }
        status.started_at_ns = crate::clock::now_ns();
        container.starter = Some(connection);
        container.runtime.start().map_err(|error| {
            // It still waits, or has ended, which is told in its own way: this attempt is over.
            container.starter = None;
            container.status.started_at_ns = 0;
            RuntimeError::Start { id: id.into(), message: error.to_string(), exit_code: 128 }
        })
    }

    /// The report ends when the program was executed, or says why not.
    fn read_start_report(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (Some(mut report), Some(starter)) = (container.start_report.take(), container.starter.take())
        else {
            return;
        };
        let mut text = Vec::new();
        // It is readable: the writer writes once and ends, so that reading to the end does not wait.
        if let Err(error) = report.read_to_end(&mut text) {
            base::tell!("{id}: {error}");
        }
        if text.is_empty() {
            container.status.state = ContainerState::Running;
            container.save();
            self.publish(id);
            return self.send(starter, &Reply::Done);
        }
        let failure = serde_json::from_slice(&text).unwrap_or_else(|error| LaunchFailure::at("start", error));
        let LaunchFailure { exit_code, message } = failure.clone();
        container.start_failure = Some(failure);
        let error = RuntimeError::Start { id: id.into(), message, exit_code };
        self.send(starter, &Reply::Failed { error });
    }

    fn read_exec_report(&mut self, connection: u64) {
        let Some(exec) = self.execs.get_mut(&connection) else { return };
        let Some(reply) = exec.read_report() else { return };
        let failed = matches!(reply, Reply::Failed { .. });
        if let Some(to) = self.connections.get_mut(&connection) {
            let ends = exec.ends();
            let ends = if failed { Vec::new() } else { ends };
            send_streams(to, &reply, &ends);
        }
        exec.release_ends();
        if exec.pid == 0 {
            self.execs.remove(&connection);
        }
    }

    fn attach(&mut self, connection: u64, id: &str) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        if container.status.state != ContainerState::Running {
            let state = container.status.state.to_string();
            return Err(RuntimeError::NotRunning { id: id.into(), state });
        }
        let terminal = container.stdio.terminal;
        let ends = container.stdio.attach().map_err(|error| RuntimeError::io("attach", id, error))?;
        let [stdin, stdout, stderr] = ends.each_ref().map(Option::is_some);
        let reply = Reply::Streams { stdin, stdout, stderr, terminal, master: false };
        let fds: Vec<_> = ends.iter().flatten().map(std::os::fd::AsFd::as_fd).collect();
        if let Some(to) = self.connections.get_mut(&connection) {
            send_streams(to, &reply, &fds);
        }
        Ok(())
    }

    fn forget(&mut self, id: &str) -> Result<Reply, RuntimeError> {
        let Some(container) = self.containers.get(id) else { return Ok(Reply::Done) };
        if container.status.state != ContainerState::Exited {
            return Err(RuntimeError::io("remove", id, "it still runs"));
        }
        self.containers.remove(id);
        self.broadcast(&Reply::Removed { id: id.into() });
        Ok(Reply::Done)
    }

    fn reap(&mut self) {
        for (pid, exit_code) in signals::reap(&self.signals) {
            if let Some(id) =
                self.containers.iter().find(|(_, c)| c.status.pid == pid).map(|(id, _)| id.clone())
            {
                self.read_start_report(&id);
                if let Some(container) = self.containers.get_mut(&id) {
                    container.ended(exit_code);
                }
                self.publish(&id);
            } else if let Some(connection) = self.execs.iter().find(|(_, e)| e.pid == pid).map(|(c, _)| *c) {
                self.read_exec_report(connection);
                if let Some(exec) = self.execs.remove(&connection) {
                    // A command that could not be executed has been answered already.
                    drop(exec);
                    self.send(connection, &Reply::Exited { exit_code });
                }
            }
        }
    }

    fn publish(&mut self, id: &str) {
        if let Some(container) = self.containers.get(id) {
            let status = Box::new(container.status.clone());
            self.broadcast(&Reply::Status { status });
        }
    }

    fn broadcast(&mut self, reply: &Reply) {
        let subscribers: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.subscribed)
            .map(|(id, _)| *id)
            .collect();
        subscribers.into_iter().for_each(|id| self.send(id, reply));
    }

    fn send(&mut self, connection: u64, reply: &Reply) {
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        match line(reply) {
            Ok(bytes) => connection.gone |= !connection.outlet.push(&bytes),
            Err(_) => connection.gone = true,
        }
    }

    fn shut_down(&mut self, connection: u64) {
        self.shutdown = Some(connection);
        for container in self.containers.values() {
            container.signal(libc::SIGKILL);
        }
        self.execs.values().for_each(Exec::kill);
    }

    fn is_over(&self) -> bool {
        self.shutdown.is_some() && self.containers.values().all(|c| c.status.state == ContainerState::Exited)
    }

    /// The pause process, if any, ends with us.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(pause) = self.sandbox.pause {
            // SAFETY: our own child, not yet reaped: it ends only by this.
            unsafe { libc::kill(pause, libc::SIGKILL) };
        }
        self.sandbox.release()?;
        if let Some(connection) = self.shutdown {
            self.send(connection, &Reply::Done);
        }
        Ok(())
    }
}

fn poll_clients(id: &str, container: &Container, set: &mut Vec<(Source, RawFd, i16)>) {
    let stdio = &container.stdio;
    let busy = stdio.stdin.as_ref().filter(|stdin| !stdin.is_idle());
    set.extend(busy.map(|stdin| (Source::Stdin(id.to_owned()), stdin.raw_fd(), libc::POLLOUT)));
    for (number, client) in &stdio.clients {
        if let (Some(fd), None) = (&client.stdin, busy) {
            set.push((Source::ClientInput(id.to_owned(), *number), fd.as_raw_fd(), libc::POLLIN));
        }
        for (stream, outlet) in [(Stream::Stdout, &client.stdout), (Stream::Stderr, &client.stderr)] {
            if let Some(outlet) = outlet {
                // Without anything to write this only tells when the client leaves.
                let events = if outlet.is_idle() { 0 } else { libc::POLLOUT };
                set.push((Source::ClientOutput(id.to_owned(), *number, stream), outlet.raw_fd(), events));
            }
        }
    }
}

/// Nothing else was sent on this connection before, so there is room for a short line.
fn send_streams(connection: &mut Connection, reply: &Reply, fds: &[std::os::fd::BorrowedFd<'_>]) {
    let sent =
        line(reply).and_then(|bytes| Ok(send_with_fds(&connection.socket, &bytes, fds)? == bytes.len()));
    connection.gone |= !sent.unwrap_or(false);
}
