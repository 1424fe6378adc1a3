//! `kedge down`: ends the server and all it runs; also after a crash, when only remains are there.

use std::fs::File;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base::layout::Layout;
use clap::Args;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::duration;
use crate::process::{self, Hold, Process, State};
use crate::progress::{Progress, Step};
use crate::session::Session;

/// Stop the cluster on this machine: the server, its containers and its network
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge down                     `kedge up` goes on with the same data
  kedge down --now               kill what runs instead of asking it to end first
  kedge down --grace-period 2m   a database that takes its time to end well
  kedge down --purge             delete the data as well: no trace is left
  kedge down --data-dir /tmp/k   another cluster")]
pub struct Down {
    /// Delete the data directory as well
    #[arg(long)]
    purge: bool,
    /// Kill the containers at once instead of asking them to end first
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// How long containers have to end, at most; a pod with a shorter grace period has that [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = grace)]
    grace_period: Option<Duration>,
}

/// As Docker gives: who ends a cluster wants to go on, and what does not heed the signal would take its pod's 30 seconds.
pub const GRACE: Duration = Duration::from_secs(10);
/// A server that is told to end has this long before it is killed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take until it is clear who holds the directory, and how often it is looked at.
const SETTLES: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(25);

/// As kubectl takes it, in seconds, or as a duration; none at all kills at once.
fn grace(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('s').unwrap_or(text).parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => duration::parse(text),
    }
}

impl Down {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let (layout, environment) = (&session.layout, &session.environment);
        if let Some(why) = process::lost(layout) {
            if !self.purge {
                bail!("{why}");
            }
            return self.take_away(session).await;
        }
        if !layout.data_dir().exists() {
            // What a deleted directory has left behind is found by its name.
            if self.purge {
                hook(layout, environment.purge).await?;
            }
            eprintln!("nothing runs: {} does not exist", layout.data_dir().display());
            return Ok(ExitCode::SUCCESS);
        }
        check_ours(layout)?;
        let progress = Progress::new();
        let stopped = stop_server(layout, progress).await?;
        if !stopped.was_there && !self.purge {
            eprintln!("no server runs; containers that one has left are stopped");
        }
        let grace = self.grace_period.unwrap_or(GRACE);
        stop_containers(session, progress, (!self.now && !grace.is_zero()).then_some(grace)).await?;
        if self.purge {
            let step = progress.step(format!("Delete {}", layout.data_dir().display()));
            hook(layout, environment.purge).await?;
            step.done("");
        } else {
            eprintln!(
                "The data stays in {}: `kedge up` goes on with it, `kedge down --purge` deletes it.",
                layout.data_dir().display()
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Down {
    /// What is left of a cluster whose directory was deleted while it ran. There is nobody to ask any more.
    async fn take_away(self, session: &Session) -> anyhow::Result<ExitCode> {
        let layout = &session.layout;
        let progress = Progress::new();
        if let Some(pid) = process::orphan(layout)
            && let Some(process) = Process::open(pid)?
            && process::orphan(layout) == Some(pid)
        {
            end_process(pid, process, progress).await?;
        }
        stop_containers(session, progress, None).await?;
        if layout.data_dir().exists() {
            let step = progress.step(format!("Delete {}", layout.data_dir().display()));
            // What the cluster has made is told by name; with its lock it is a cluster's directory again, to be deleted as any.
            std::fs::create_dir_all(layout.pki()).and_then(|()| std::fs::write(layout.lock(), ""))?;
            hook(layout, session.environment.purge).await?;
            step.done("");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks the containers to end and gives them some time, if any, and kills what is left. The server has ended.
pub async fn stop_containers(
    session: &Session,
    progress: Progress,
    grace: Option<Duration>,
) -> anyhow::Result<()> {
    let mut step = progress.step("Stop the containers");
    if let Some(grace) = grace {
        ask(session, &mut step, grace).await?;
    }
    hook(&session.layout, session.environment.stop_containers).await?;
    step.done("");
    Ok(())
}

/// What cannot be asked is killed afterwards as well.
async fn ask(session: &Session, step: &mut Step, grace: Duration) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let (left, mut changed) = watch::channel(0);
    let ended = (session.environment.end_containers)(session.layout.clone(), grace, left);
    tokio::pin!(ended);
    let mut is_told = false;
    loop {
        tokio::select! {
            result = &mut ended => {
                if let Err(error) = result {
                    step.say(&format!("not all could be asked to end, and are killed: {error:#}"));
                }
                return Ok(());
            }
            Ok(()) = changed.changed() => {
                let left = *changed.borrow_and_update();
                let text = format!("{left} are asked to end, within {} s; Ctrl-C kills them", grace.as_secs());
                // In a log, once.
                match is_told {
                    _ if left == 0 => {}
                    true => step.hint(&text),
                    false => step.say(&text),
                }
                is_told = true;
            }
            _ = interrupt.recv() => {
                step.say("at once");
                return Ok(());
            }
        }
    }
}

/// A directory that no cluster has made is not touched.
fn check_ours(layout: &Layout) -> anyhow::Result<()> {
    if let Err(error) = std::fs::read_dir(layout.data_dir())
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        bail!("{} belongs to another user; run as root", layout.data_dir().display());
    }
    if layout.lock().exists() && layout.pki().is_dir() {
        return Ok(());
    }
    bail!(
        "{} does not look like a cluster's data directory; nothing was done\nname the right one with --data-dir",
        layout.data_dir().display()
    )
}

/// A directory without a server. While this is there none starts: it would have its containers taken from it.
pub struct Stopped {
    pub was_there: bool,
    _hold: Option<File>,
}

/// Tells the server to end and waits until it has.
pub async fn stop_server(layout: &Layout, progress: Progress) -> anyhow::Result<Stopped> {
    let mut was_there = false;
    loop {
        was_there |= end_server(layout, progress).await?;
        match process::hold(layout)? {
            Hold::Ours(lock) => return Ok(Stopped { was_there, _hold: Some(lock) }),
            Hold::Nothing => return Ok(Stopped { was_there, _hold: None }),
            // Another has started, or somebody only looks.
            Hold::Others => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Whether there was one.
async fn end_server(layout: &Layout, progress: Progress) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let pid = loop {
        match process::look(layout)? {
            State::Down => return Ok(false),
            State::Serving(file) => break Some(file.pid),
            // One that was killed holds the lock until the kernel has taken it down, and is not found any more.
            State::Between { pid: None } if begun.elapsed() < SETTLES => tokio::time::sleep(LOOK).await,
            // Another `kedge down` comes to its end by itself, and then there is nothing left to do.
            State::Between { pid: Some(pid) } if !process::is_server(pid) => tokio::time::sleep(LOOK).await,
            State::Between { pid } => break pid,
        }
    };
    let pid = pid.with_context(|| {
        format!("a process that cannot be seen from here holds {}; run as root", layout.lock().display())
    })?;
    let Some(process) = Process::open(pid)? else { return Ok(false) };
    // The number may have been given away between the look and the opening.
    if process::look(layout)? == State::Down {
        return Ok(false);
    }
    end_process(pid, process, progress).await?;
    Ok(true)
}

/// Tells it to end; kills it if it does not.
async fn end_process(pid: u32, process: Process, progress: Progress) -> anyhow::Result<()> {
    let step = progress.step("Stop the server");
    process.signal(Signal::TERM)?;
    let started = Instant::now();
    let ended = tokio::task::spawn_blocking(move || -> anyhow::Result<bool> {
        if process.wait(PATIENCE)? {
            return Ok(true);
        }
        process.signal(Signal::KILL)?;
        process.wait(PATIENCE)
    })
    .await??;
    if !ended {
        bail!("the server (process {pid}) does not end; see what holds it with `cat /proc/{pid}/stack`");
    }
    step.done(if started.elapsed() < PATIENCE { "" } else { "it had to be killed" });
    Ok(())
}

/// The binary's own work blocks.
pub async fn hook(layout: &Layout, hook: fn(&Layout) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let layout = layout.clone();
    tokio::task::spawn_blocking(move || hook(&layout)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_period_is_seconds_or_a_duration() {
        let seconds = |text: &str| grace(text).map(|time| time.as_secs());
        assert_eq!([seconds("0"), seconds("0s"), seconds("10"), seconds("1m30s")], [Ok(0), Ok(0), Ok(10), Ok(90)]);
        assert!(grace("abc").is_err() && grace("").is_err() && grace("1.5s").is_err());
    }

    #[test]
    fn a_strange_directory_is_refused() {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        assert!(check_ours(&layout).expect_err("refused").to_string().contains("nothing was done"));
        std::fs::write(layout.lock(), "").expect("a file");
        assert!(check_ours(&layout).is_err(), "a file called lock is not enough");
        std::fs::create_dir(layout.pki()).expect("a folder");
        assert!(check_ours(&layout).is_ok());
    }
}
