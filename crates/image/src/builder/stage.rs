//! One stage, step by step: what each instruction does to the configuration and to the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::cache::{self, Entry, Layer};
use super::context::{self, Context};
use super::copy::{self, Job, Ownership, Source};
use super::error::{BuildError, StepError};
use super::expand::{expand, expand_text};
use super::instruction::{Command, Copy, Heredoc, Instruction, Step};
use super::runner::RunStep;
use super::{BuildEvent, BuildRequest, BuildTools};
use crate::accounts;
use crate::error::{ImageError, failed};
use crate::manifest::{Configuration, Descriptor, Empty, History, Settings, architecture, chain_ids};
use crate::overlay::{Overlay, View};
use crate::reference::Reference;
use crate::store::ImageStore;
use crate::tree::{Owner, Tree, remove_all};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What a stage has come to.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    pub settings: Settings,
    pub layers: Vec<Descriptor>,
    pub diff_ids: Vec<String>,
    pub history: Vec<History>,
    /// Of the last step.
    key: String,
    arguments: BTreeMap<String, String>,
    /// `CMD` was said in this stage, not inherited.
    own_cmd: bool,
}

/// The files a step leaves: the layer's directory, and the directories in it whose times are as they should be.
type Timed = BTreeSet<PathBuf>;

pub struct Stage<'a, 't> {
    pub store: &'a ImageStore,
    pub context: &'a Context,
    pub request: &'a BuildRequest,
    pub tools: &'a mut BuildTools<'t>,
    pub finished: &'a BTreeMap<usize, Finished>,
    /// An earlier stage by name or number.
    pub stage_index: &'a dyn Fn(&str) -> Option<usize>,
    /// What an earlier stage is called, if it is called nearly so.
    pub stage_hint: &'a dyn Fn(&str) -> String,
    pub global_arguments: &'a [Step],
    /// Steps done, and steps in all.
    pub numbering: (usize, usize),
    pub state: Finished,
}

impl Stage<'_, '_> {
    pub fn step(&mut self, step: &Step) -> Result<(), BuildError> {
        self.numbering.0 += 1;
        let (number, steps) = self.numbering;
        let text = step.text.clone();
        (self.tools.progress)(BuildEvent::Started { step: number, steps, text: text.clone() });
        let begun = Instant::now();
        let cached = self.carry_out(step).map_err(|error| step.failed(error))?;
        let duration = begun.elapsed();
        (self.tools.progress)(BuildEvent::Finished { step: number, steps, text, cached, duration });
        Ok(())
    }

    /// Returns whether nothing had to be done for it.
    fn carry_out(&mut self, step: &Step) -> Result<bool, StepError> {
        match &step.instruction {
            Instruction::From { image, .. } => return self.from(image).map(|()| true),
            Instruction::Run { command, heredocs } => return self.run(step, command, heredocs),
            Instruction::Copy(copy) => return self.copy(step, copy),
            Instruction::Workdir(path) => return self.workdir(step, path),
            _ => self.configure(step)?,
        }
        self.remember(step, true, None);
        self.state.key = cache::key(&self.state.key, &[&step.text, &self.settings_text()]);
        Ok(true)
    }

    fn settings_text(&self) -> String {
        serde_json::to_string(&self.state.settings).unwrap_or_default()
    }

    fn remember(&mut self, step: &Step, empty_layer: bool, created: Option<String>) {
        self.state.history.push(History { created, created_by: Some(step.text.clone()), empty_layer });
    }

    fn variable(&self, name: &str) -> Option<String> {
        let of_env =
            |entry: &String| entry.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned());
        self.state.settings.env.iter().find_map(of_env).or_else(|| self.state.arguments.get(name).cloned())
    }

    fn expand(&self, word: &str) -> Result<String, StepError> {
        expand(word, &|name| self.variable(name)).map_err(StepError::Invalid)
    }

    fn expand_all(&self, words: &[String]) -> Result<Vec<String>, StepError> {
        words.iter().map(|word| self.expand(word)).collect()
    }

    /// `ARG` before the first `FROM`, and what is always known.
    fn global(&self) -> Result<BTreeMap<String, String>, StepError> {
        let platform = format!("linux/{}", architecture());
        let mut known: BTreeMap<String, String> = [
            ("TARGETPLATFORM", platform.as_str()),
            ("TARGETOS", "linux"),
            ("TARGETARCH", architecture()),
            ("BUILDPLATFORM", platform.as_str()),
            ("BUILDOS", "linux"),
            ("BUILDARCH", architecture()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for step in self.global_arguments {
            let Instruction::Arg(arguments) = &step.instruction else { continue };
            for (name, default) in arguments {
                let default = default.as_ref().map(|word| expand(word, &|name| known.get(name).cloned()));
                let default = default.transpose().map_err(StepError::Invalid)?;
                if let Some(value) = self.request.arguments.get(name).cloned().or(default) {
                    known.insert(name.clone(), value);
                }
            }
        }
        Ok(known)
    }

    fn from(&mut self, image: &str) -> Result<(), StepError> {
        let global = self.global()?;
        let image = expand(image, &|name| global.get(name).cloned()).map_err(StepError::Invalid)?;
        if image.is_empty() {
            return Err(StepError::Invalid("base name should not be blank".into()));
        }
        self.state = if image == "scratch" {
            Finished { key: cache::key("", &["scratch"]), ..Finished::default() }
        } else if let Some(earlier) = (self.stage_index)(&image).and_then(|index| self.finished.get(&index)) {
            Finished { arguments: BTreeMap::new(), own_cmd: false, ..earlier.clone() }
        } else {
            self.image(&image)?
        };
        Ok(())
    }

    /// What is called so is no stage.
    fn image(&mut self, name: &str) -> Result<Finished, StepError> {
        let hint = (self.stage_hint)(name);
        let wrong = |source: StepError| match hint.is_empty() {
            true => source,
            false => StepError::NoStage { name: name.to_owned(), hint, source: Box::new(source) },
        };
        self.base_image(name).map_err(wrong)
    }

    fn base_image(&mut self, image: &str) -> Result<Finished, StepError> {
        let reference: Reference = image.parse()?;
        let record = match self.store.resolve(image)? {
            Some(record) => record,
            None => {
                (self.tools.fetch)(&reference)?;
                let missing = || ImageError::NotFound { reference: reference.to_string() };
                self.store.resolve(image)?.ok_or_else(missing)?
            }
        };
        let (manifest, configuration): (_, Configuration) = self.store.documents(&record)?;
        Ok(Finished {
            settings: configuration.config,
            layers: manifest.layers,
            diff_ids: configuration.rootfs.diff_ids,
            history: configuration.history,
            key: cache::key("", &[&record.id]),
            ..Finished::default()
        })
    }

    /// The instructions that change nothing but the configuration.
    fn configure(&mut self, step: &Step) -> Result<(), StepError> {
        match &step.instruction {
            Instruction::Arg(arguments) => self.declare(arguments)?,
            Instruction::Env(pairs) => {
                // All of them see what was before.
                let values = pairs.iter().map(|(name, value)| Ok((name.clone(), self.expand(value)?)));
                for (name, value) in values.collect::<Result<Vec<_>, StepError>>()? {
                    set_env(&mut self.state.settings.env, &name, &value);
                }
            }
            Instruction::Label(pairs) => {
                let pairs = pairs.iter().map(|(name, value)| Ok((self.expand(name)?, self.expand(value)?)));
                let pairs = pairs.collect::<Result<Vec<_>, StepError>>()?;
                self.state.settings.labels.extend(pairs);
            }
            Instruction::User(user) => self.state.settings.user = self.expand(user)?,
            Instruction::Expose(ports) => {
                for port in self.expand_all(ports)? {
                    self.state
                        .settings
                        .exposed_ports
                        .extend(expose(&port)?.into_iter().map(|port| (port, Empty {})));
                }
            }
            Instruction::Volume(paths) => {
                let paths = self.expand_all(paths)?;
                self.state.settings.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
            }
            Instruction::StopSignal(signal) => self.state.settings.stop_signal = Some(self.expand(signal)?),
            Instruction::Shell(words) => self.state.settings.shell.clone_from(words),
            Instruction::Healthcheck(check) => self.state.settings.healthcheck = Some(check.clone()),
            Instruction::Cmd(command) => {
                self.state.settings.cmd = self.words(command);
                self.state.own_cmd = true;
            }
            Instruction::Entrypoint(command) => {
                self.state.settings.entrypoint = self.words(command);
                // The inherited one was for another entrypoint.
                if !self.state.own_cmd {
                    self.state.settings.cmd.clear();
                }
            }
            Instruction::From { .. }
            | Instruction::Run { .. }
            | Instruction::Copy(_)
            | Instruction::Workdir(_) => {}
        }
        Ok(())
    }

    fn declare(&mut self, arguments: &[(String, Option<String>)]) -> Result<(), StepError> {
        let global = self.global()?;
        for (name, default) in arguments {
            let default = default.as_ref().map(|word| self.expand(word)).transpose()?;
            let given = self.request.arguments.get(name).cloned();
            if let Some(value) = given.or(default).or_else(|| global.get(name).cloned()) {
                self.state.arguments.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    fn shell(&self) -> Vec<String> {
        match self.state.settings.shell.is_empty() {
            true => DEFAULT_SHELL.map(str::to_owned).to_vec(),
            false => self.state.settings.shell.clone(),
        }
    }

    fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => [self.shell(), vec![line.clone()]].concat(),
        }
    }

    fn run(&mut self, step: &Step, command: &Command, heredocs: &[Heredoc]) -> Result<bool, StepError> {
        let argv = match (command, heredocs) {
            (Command::Exec(words), _) => words.clone(),
            // The document is the script.
            (Command::Shell(line), [only])
                if line.starts_with("<<") && !line.contains(char::is_whitespace) =>
            {
                [self.shell(), vec![only.content.clone()]].concat()
            }
            // The shell itself knows what to do with it.
            (Command::Shell(line), documents) => {
                let documents =
                    documents.iter().map(|document| format!("\n{}{}", document.content, document.name));
                [self.shell(), vec![format!("{line}{}", documents.collect::<String>())]].concat()
            }
        };
        let mut env = self.state.settings.env.clone();
        for (name, value) in &self.state.arguments {
            if !env.iter().any(|entry| entry.split_once('=').is_some_and(|(n, _)| n == name)) {
                env.push(format!("{name}={value}"));
            }
        }
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(DEFAULT_PATH.into());
        }
        let settings = &self.state.settings;
        let (user, cwd) = (settings.user.clone(), directory_or_root(&settings.working_dir));
        let key = cache::key(&self.state.key, &["RUN", &argv.join("\0"), &env.join("\0"), &user, &cwd]);
        self.layer(step, key, |stage, overlay| {
            let rootfs = overlay.merged();
            let owner = accounts::resolve(&rootfs, &user).map_err(StepError::Invalid)?;
            let run = RunStep { rootfs, argv, env, cwd, uid: owner.uid, gid: owner.gid };
            stage.execute(&run)?;
            Ok(None)
        })
    }

    fn execute(&mut self, run: &RunStep) -> Result<(), StepError> {
        let number = self.numbering.0;
        let progress = &mut *self.tools.progress;
        let mut output = |line: &str| progress(BuildEvent::Output { step: number, line: line.to_owned() });
        let result = self.tools.runner.run(run, &mut output);
        let command = run.argv.join(" ");
        let ended = result.map_err(StepError::io(format!("run {command:?}")))?;
        match ended.exit_code {
            0 => Ok(()),
            exit_code => Err(StepError::Command { command, exit_code, output: ended.tail }),
        }
    }

    fn workdir(&mut self, step: &Step, path: &str) -> Result<bool, StepError> {
        let path = absolute(&self.state.settings.working_dir, &self.expand(path)?);
        self.state.settings.working_dir = path.to_string_lossy().into_owned();
        let key = cache::key(&self.state.key, &["WORKDIR", &path.to_string_lossy()]);
        self.layer(step, key, |_, overlay| {
            let made = Tree::open(&overlay.merged()).and_then(|tree| tree.make_directories(&path).map(drop));
            made.map_err(StepError::io(format!("create {path:?}")))?;
            Ok(Some(Timed::new()))
        })
    }

    fn copy(&mut self, step: &Step, copy: &Copy) -> Result<bool, StepError> {
        let work = self.store.content().temporary();
        let result = self.copy_with(step, copy, &work);
        remove_all(&work).map_err(failed("remove", &work))?;
        result
    }

    fn copy_with(&mut self, step: &Step, copy: &Copy, work: &Path) -> Result<bool, StepError> {
        let from = copy.from.as_ref().map(|from| self.expand(from)).transpose()?;
        let view = from.as_ref().map(|from| self.other_files(from, work)).transpose()?;
        let other = view.as_ref().map(|view| Context::whole(view.path()));
        let words = self.expand_all(&copy.sources)?;
        let remote =
            |word: &&String| ["http://", "https://", "git@", "git://"].iter().any(|p| word.starts_with(p));
        if let Some(url) = words.iter().filter(|_| copy.add).find(remote) {
            return Err(StepError::Invalid(format!("ADD of remote sources is not supported: {url}")));
        }
        let (documents, patterns): (Vec<_>, Vec<_>) = words
            .into_iter()
            .partition(|word| copy.heredocs.iter().any(|document| is_marker(word, document)));
        let mut sources = copy::find(other.as_ref().unwrap_or(self.context), &patterns)?;
        let mut hashes = Vec::new();
        for source in &sources {
            if let Source::Files { name, files } = source {
                let hash = context::hash(files).map_err(StepError::io("read sources"))?;
                hashes.push(format!("{} {hash}", name.display()));
            }
        }
        for document in copy.heredocs.iter().filter(|_| !documents.is_empty()) {
            let content = match document.expand {
                true => {
                    expand_text(&document.content, &|name| self.variable(name)).map_err(StepError::Invalid)?
                }
                false => document.content.clone(),
            };
            hashes.push(format!("{} {content}", document.name));
            sources.push(Source::Document { name: document.name.clone(), content });
        }
        let destination = self.expand(&copy.destination)?;
        let chown = copy.chown.as_ref().map(|chown| self.expand(chown)).transpose()?;
        let mode = copy.chmod.as_ref().map(|chmod| self.mode(chmod)).transpose()?;
        let into_directory = destination.ends_with('/') || destination == "." || sources.len() > 1;
        let target = absolute(&self.state.settings.working_dir, &destination);
        let facts = format!("{} {} {target:?} {into_directory} {chown:?} {mode:?}", copy.add, from.is_some());
        let key = cache::key(&self.state.key, &["COPY", &facts, &hashes.join("\n")]);
        self.layer(step, key, |_, overlay| {
            let owner = match (&chown, from.is_some()) {
                (Some(chown), _) => {
                    Ownership::All(accounts::resolve(&overlay.merged(), chown).map_err(StepError::Invalid)?)
                }
                (None, true) => Ownership::Kept,
                (None, false) => Ownership::All(Owner { uid: 0, gid: 0 }),
            };
            let unpack_archives = copy.add;
            let job = Job { sources, destination: target, into_directory, owner, mode, unpack_archives };
            copy::run(&job, &overlay.merged()).map(Some)
        })
    }

    fn mode(&self, text: &str) -> Result<u32, StepError> {
        let text = self.expand(text)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.ok_or_else(|| StepError::Invalid(format!("invalid chmod parameter: {text:?} should be octal")))
    }

    /// The files of an earlier stage or of an image.
    fn other_files(&mut self, name: &str, work: &Path) -> Result<View, StepError> {
        let diff_ids = match (self.stage_index)(name).and_then(|index| self.finished.get(&index)) {
            Some(stage) => stage.diff_ids.clone(),
            None => self.image(name)?.diff_ids,
        };
        fs::create_dir_all(work).map_err(failed("create", work))?;
        Ok(View::mount(work, &self.store.snapshots().lower(&chain_ids(&diff_ids)))?)
    }

    /// A step that changes files: from the cache, or done now. Returns whether it came from the cache.
    fn layer(
        &mut self,
        step: &Step,
        key: String,
        make: impl FnOnce(&mut Self, &Overlay) -> Result<Option<Timed>, StepError>,
    ) -> Result<bool, StepError> {
        let found = if self.request.no_cache { None } else { cache::find(self.store, &key) };
        let cached = found.is_some();
        let entry = match found {
            Some(entry) => entry,
            None => {
                let work = self.store.content().temporary();
                let result = self.make_layer(&work, make);
                remove_all(&work).map_err(failed("remove", &work))?;
                let entry = Entry { layer: result?, created: base::time::rfc3339_seconds(base::time::now()) };
                cache::keep(self.store, &key, &entry)?;
                entry
            }
        };
        self.remember(step, entry.layer.is_none(), Some(entry.created));
        if let Some(layer) = entry.layer {
            self.state.layers.push(layer.descriptor);
            self.state.diff_ids.push(layer.diff_id);
        }
        self.state.key = key;
        Ok(cached)
    }

    fn make_layer(
        &mut self,
        work: &Path,
        make: impl FnOnce(&mut Self, &Overlay) -> Result<Option<Timed>, StepError>,
    ) -> Result<Option<Layer>, StepError> {
        let below = chain_ids(&self.state.diff_ids);
        let overlay = Overlay::mount(work, &self.store.snapshots().lower(&below))?;
        let upper = overlay.upper();
        let timed = make(self, &overlay)?;
        overlay.unmount()?;
        if fs::read_dir(&upper).map_err(failed("list", &upper))?.next().is_none() {
            return Ok(None);
        }
        if let Some(timed) = timed {
            settle_times(&upper, Path::new(""), &timed).map_err(StepError::io("set times"))?;
        }
        let (descriptor, diff_id) = self.store.add_layer(&upper)?;
        let mut diff_ids = self.state.diff_ids.clone();
        diff_ids.push(diff_id.clone());
        let chain_id = chain_ids(&diff_ids).pop().unwrap_or_default();
        self.store.snapshots().adopt(&chain_id, &upper)?;
        Ok(Some(Layer { descriptor, diff_id, chain_id }))
    }
}

/// Directories that were only made or changed on the way get a time that says nothing, so that doing the step again
/// gives the same bytes.
fn settle_times(upper: &Path, below: &Path, timed: &Timed) -> std::io::Result<()> {
    let directory = upper.join(below);
    for entry in fs::read_dir(&directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            settle_times(upper, &below.join(entry.file_name()), timed)?;
        }
    }
    if below.as_os_str().is_empty() || timed.contains(below) {
        return Ok(());
    }
    fs::File::open(directory)?.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH))
}

fn is_marker(word: &str, document: &Heredoc) -> bool {
    let name = word.strip_prefix("<<").map(|rest| rest.trim_start_matches('-'));
    name.is_some_and(|name| name.trim_matches(['"', '\'']) == document.name)
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|known| known.split_once('=').is_some_and(|(n, _)| n == name)) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

fn directory_or_root(directory: &str) -> String {
    if directory.is_empty() { "/".into() } else { directory.to_owned() }
}

/// `..` goes up, but never above the root.
fn absolute(working_dir: &str, path: &str) -> PathBuf {
    let mut result = PathBuf::from("/");
    for component in Path::new(&directory_or_root(working_dir)).join(path).components() {
        match component {
            std::path::Component::Normal(name) => result.push(name),
            std::path::Component::ParentDir => drop(result.pop()),
            _ => {}
        }
    }
    result
}

/// `80`, `53/udp`, `8000-8002`
fn expose(port: &str) -> Result<Vec<String>, StepError> {
    let invalid = || StepError::Invalid(format!("invalid containerPort: {port}"));
    let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    let known = ["tcp", "udp", "sctp"].contains(&protocol.to_ascii_lowercase().as_str());
    if !known || first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{}", protocol.to_ascii_lowercase())).collect())
}
