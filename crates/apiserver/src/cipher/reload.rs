//! The configuration's file, and what is done when it changes. One that cannot be read changes nothing; nor does one that
//! names a holder of keys who does not answer, for with it nothing could be written any more. Such a one is tried again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::config::{self, Rule};
use super::kms::{Kms, KmsError, Times};
use super::metrics::Metrics;
use super::provider::Provider;
use super::{Keyring, OpenError, Settings};

/// How often a configuration that may change is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long new holders of keys have to be well, at least.
const GRACE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Configured {
    path: PathBuf,
    pub(super) reload: bool,
    times: Times,
    metrics: Arc<Metrics>,
    pub(super) looked: Mutex<Looked>,
}

pub(super) struct Looked {
    pub(super) at: Instant,
    modified: Option<SystemTime>,
    /// Whether somebody is still finding out whether a new one can be taken.
    trying: bool,
}

impl Configured {
    pub(super) fn new(path: &Path, settings: &Settings, metrics: &Arc<Metrics>) -> Self {
        let looked = Looked { at: Instant::now(), modified: modified(path), trying: false };
        let Settings { reload, kms: times, .. } = *settings;
        let metrics = Arc::clone(metrics);
        Self { path: path.to_owned(), reload, times, metrics, looked: Mutex::new(looked) }
    }

    pub(super) fn read(&self) -> Result<Vec<Rule>, OpenError> {
        let fault =
            |detail: String| OpenError::Configuration { path: self.path.display().to_string(), detail };
        let text = std::fs::read_to_string(&self.path).map_err(|e| fault(e.to_string()))?;
        config::parse(&text, self.times).map_err(|e| fault(e.to_string()))
    }

    /// Takes a configuration that has changed.
    pub(super) fn look(self: &Arc<Self>, ring: &Arc<RwLock<Arc<Keyring>>>) {
        let mut looked = self.looked.lock();
        if looked.trying || looked.at.elapsed() < LOOK_EVERY {
            return;
        }
        let now = modified(&self.path);
        looked.at = Instant::now();
        if now == looked.modified {
            return;
        }
        looked.modified = now;
        let mut rules = match self.read() {
            Ok(rules) => rules,
            Err(error) => return tracing::error!(%error, "encryption stays as it was configured"),
        };
        let held = Arc::clone(&ring.read());
        let new = keep_known(&mut rules, &held);
        new.iter().for_each(|kms| kms.report_to(&self.metrics));
        match tokio::runtime::Handle::try_current() {
            _ if new.is_empty() => self.take(ring, rules),
            Err(error) => tracing::error!(%error, "encryption stays as it was configured"),
            Ok(runtime) => {
                looked.trying = true;
                let (configured, ring) = (Arc::clone(self), Arc::clone(ring));
                runtime.spawn(async move {
                    let well = wait_for(&new).await;
                    if well.is_ok() {
                        configured.take(&ring, rules);
                    }
                    let mut looked = configured.looked.lock();
                    looked.trying = false;
                    if let Err(error) = well {
                        looked.modified = None;
                        tracing::error!(%error, "encryption stays as it was configured, for now");
                    }
                });
            }
        }
    }

    fn take(&self, ring: &RwLock<Arc<Keyring>>, rules: Vec<Rule>) {
        let own = ring.read().own.clone();
        *ring.write() = Arc::new(Keyring { rules, own });
        tracing::info!(path = %self.path.display(), "encryption is configured anew");
    }
}

/// Those who keep keys and are asked as before stay, with what they have said; says who is new. Who is asked otherwise knows
/// what the one by the same name knew.
fn keep_known(rules: &mut [Rule], held: &Keyring) -> Vec<Arc<Kms>> {
    let mut new = Vec::new();
    for provider in rules.iter_mut().flat_map(|rule| &mut rule.providers) {
        let Some(kms) = provider.kms().cloned() else { continue };
        let known =
            held.providers().find(|held| held.kms().is_some_and(|held| held.config() == kms.config()));
        if let Some(known) = known {
            *provider = Arc::clone(known);
            continue;
        }
        let namesake = held.kms().find(|held| held.config().name == kms.config().name);
        let kms = match namesake {
            Some(before) => {
                let after = Arc::new(Kms::after(kms.config().clone(), kms.times(), before));
                *provider = Arc::new(Provider::of_kms(Arc::clone(&after)));
                after
            }
            None => kms,
        };
        new.push(kms);
    }
    new
}

/// Until all are well, or have had their time.
async fn wait_for(new: &[Arc<Kms>]) -> Result<(), KmsError> {
    let grace = new.iter().map(|kms| kms.config().timeout * 2).sum::<Duration>().max(GRACE);
    let end = Instant::now() + grace;
    for kms in new {
        kms.start().await;
    }
    for kms in new {
        while let Err(error) = kms.check().await {
            if Instant::now() > end {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}
