//! Images from a Dockerfile: our own parser, a cache that never does a step twice, and layers that are the same bytes
//! whenever their content is the same.
//!
//! [`parse`] makes instructions of the text, [`stage`] carries them out one after the other on a mounted stack, and a
//! [`StepRunner`] executes the commands of `RUN`.

mod cache;
mod context;
mod copy;
mod error;
mod expand;
mod glob;
mod instruction;
pub(crate) mod parse;
mod runner;
mod stage;
mod suggest;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

pub use error::{BuildError, StepError};
pub use runner::{NamespaceRunner, RunOutput, RunStep, StepRunner};

use crate::error::ImageError;
use crate::manifest::{Configuration, RootFs, architecture};
use crate::reference::Reference;
use crate::store::{ImageRecord, ImageStore};
use context::Context;
use instruction::{Instruction, Step};
use stage::{Finished, Stage};

/// What is to be built.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// The directory that `COPY` and `ADD` take from.
    pub context: PathBuf,
    /// `None`: `Dockerfile` in the context.
    pub dockerfile: Option<PathBuf>,
    /// Names for the image.
    pub tags: Vec<String>,
    /// Values for `ARG`.
    pub arguments: BTreeMap<String, String>,
    /// The stage to build; `None`: the last.
    pub target: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Do every step anew.
    pub no_cache: bool,
}

/// What happens during a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// `[2/5] COPY app /app`
    Started {
        step: usize,
        steps: usize,
        text: String,
    },
    Output {
        step: usize,
        line: String,
    },
    Finished {
        step: usize,
        steps: usize,
        text: String,
        cached: bool,
        duration: Duration,
    },
}

/// What a build may ask of its caller.
pub struct BuildTools<'a> {
    pub runner: &'a dyn StepRunner,
    /// Gets an image that `FROM` or `COPY --from` names and that is not here.
    pub fetch: &'a dyn Fn(&Reference) -> Result<(), ImageError>,
    pub progress: &'a mut dyn FnMut(BuildEvent),
}

/// Builds an image and names it. Blocks for as long as it takes; needs root, for mounts.
pub fn build(
    store: &ImageStore,
    request: &BuildRequest,
    tools: &mut BuildTools<'_>,
) -> Result<ImageRecord, BuildError> {
    let path = request.dockerfile.clone().unwrap_or_else(|| request.context.join("Dockerfile"));
    let text =
        std::fs::read_to_string(&path).map_err(|source| BuildError::Read { path: path.clone(), source })?;
    let names =
        request.tags.iter().map(|tag| Ok(tag.parse::<Reference>()?.to_string())).collect::<Result<_, _>>();
    let names: Vec<String> = names.map_err(BuildError::Image)?;
    let steps = parse::parse(&text)?;
    let context = Context::open(&request.context, &path)
        .map_err(|source| BuildError::Read { path: request.context.clone(), source })?;
    let plan = Plan::new(&steps, request)?;
    let _adding = store.add_blocking().map_err(BuildError::Image)?;
    let finished = plan.run(store, &context, request, tools)?;
    finish(store, request, finished, names)
}

fn finish(
    store: &ImageStore,
    request: &BuildRequest,
    finished: Finished,
    mut names: Vec<String>,
) -> Result<ImageRecord, BuildError> {
    let mut settings = finished.settings;
    settings.labels.extend(request.labels.clone());
    let created = finished.history.iter().filter_map(|entry| entry.created.clone()).max();
    let configuration = Configuration {
        created,
        architecture: architecture().into(),
        os: "linux".into(),
        variant: None,
        config: settings,
        rootfs: RootFs { kind: "layers".into(), diff_ids: finished.diff_ids },
        history: finished.history,
    };
    if names.is_empty() {
        // Something must hold it: a name of its own content.
        let text = serde_json::to_vec(&configuration).unwrap_or_default();
        names.push(format!("localhost/build@{}", crate::content::digest_of(&text)));
    }
    store.assemble(&configuration, finished.layers, names).map_err(BuildError::Image)
}

/// One stage: its `FROM` and what follows.
struct StagePlan<'a> {
    name: Option<String>,
    steps: &'a [Step],
}

/// The stages in order, and which of them the target needs.
struct Plan<'a> {
    global_arguments: &'a [Step],
    stages: Vec<StagePlan<'a>>,
    needed: BTreeSet<usize>,
    target: usize,
}

impl<'a> Plan<'a> {
    fn new(steps: &'a [Step], request: &BuildRequest) -> Result<Self, BuildError> {
        let is_from = |step: &Step| matches!(step.instruction, Instruction::From { .. });
        let first = steps.iter().position(is_from).ok_or(BuildError::Empty)?;
        let mut stages: Vec<StagePlan<'a>> = Vec::new();
        let mut begins: Vec<usize> =
            steps.iter().enumerate().filter(|(_, step)| is_from(step)).map(|(index, _)| index).collect();
        begins.push(steps.len());
        for pair in begins.windows(2) {
            let steps = &steps[pair[0]..pair[1]];
            let Instruction::From { alias, .. } = &steps[0].instruction else { continue };
            stages.push(StagePlan { name: alias.clone(), steps });
        }
        if let Some(step) =
            steps[..first].iter().find(|step| !matches!(step.instruction, Instruction::Arg(_)))
        {
            return Err(step.failed(StepError::BeforeFrom));
        }
        let mut plan = Self { global_arguments: &steps[..first], stages, needed: BTreeSet::new(), target: 0 };
        plan.target = match &request.target {
            None => plan.stages.len() - 1,
            Some(target) => plan.stage_index(target, plan.stages.len()).ok_or_else(|| {
                let hint = suggest::hint(target, plan.names(plan.stages.len()));
                BuildError::NoTarget { target: target.clone(), hint }
            })?,
        };
        plan.need(plan.target);
        Ok(plan)
    }

    /// A stage before `limit` by its name or number.
    fn stage_index(&self, name: &str, limit: usize) -> Option<usize> {
        let named = self.stages[..limit]
            .iter()
            .rposition(|stage| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name)));
        named.or_else(|| name.parse().ok().filter(|index| *index < limit))
    }

    /// What the stages before `limit` are called.
    fn names(&self, limit: usize) -> impl Iterator<Item = &str> {
        self.stages[..limit].iter().filter_map(|stage| stage.name.as_deref())
    }

    fn need(&mut self, index: usize) {
        if !self.needed.insert(index) {
            return;
        }
        let sources: Vec<String> = self.stages[index]
            .steps
            .iter()
            .filter_map(|step| match &step.instruction {
                Instruction::From { image, .. } => Some(image.clone()),
                Instruction::Copy(copy) => copy.from.clone(),
                _ => None,
            })
            .collect();
        for source in sources {
            if let Some(source) = self.stage_index(&source, index) {
                self.need(source);
            }
        }
    }

    fn run(
        &self,
        store: &ImageStore,
        context: &Context,
        request: &BuildRequest,
        tools: &mut BuildTools<'_>,
    ) -> Result<Finished, BuildError> {
        let total = self.needed.iter().map(|index| self.stages[*index].steps.len()).sum();
        let mut done = 0;
        let mut finished: BTreeMap<usize, Finished> = BTreeMap::new();
        for index in &self.needed {
            let stage_index = |name: &str| self.stage_index(name, *index);
            let stage_hint = |name: &str| suggest::hint(name, self.names(*index));
            let mut stage = Stage {
                store,
                context,
                request,
                tools,
                finished: &finished,
                stage_index: &stage_index,
                stage_hint: &stage_hint,
                global_arguments: self.global_arguments,
                numbering: (done, total),
                state: Finished::default(),
            };
            for step in self.stages[*index].steps {
                stage.step(step)?;
            }
            done = stage.numbering.0;
            let state = stage.state;
            finished.insert(*index, state);
        }
        finished.remove(&self.target).ok_or(BuildError::Empty)
    }
}
