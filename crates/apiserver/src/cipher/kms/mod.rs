//! Keys that somebody else keeps: a KMS plugin (version 2) on a Unix socket, as kube-apiserver asks it. The plugin never sees
//! an object. It seals a *seed* for us, objects are sealed with keys derived from that, and what the plugin made of the seed
//! is stored beside each. So it is asked once for a seed, not once for an object:
//!
//! - It is asked how it is (`Status`) every minute, and every ten seconds while it is ill. When it names another key, a new
//!   seed is made and sealed with that; until this has succeeded the old one is written with.
//! - What there is may be written with for three minutes after it was well last; then writes fail, so that somebody who
//!   changes a key knows when nothing is written with the old one any more. Seeds that are known are read with for ever.
//! - Seeds that were opened once are kept, within a bound. Opening one needs the plugin, and waiting; so [`Kms::unlock`] is
//!   called for entries where they come from the store, and whatever decodes them afterwards does not wait.

pub mod envelope;
mod plugin;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use grpc::Fault;
use parking_lot::{Mutex, RwLock};

use super::metrics::{self, Family, Metrics, NO_CALL, Way};
use crate::recent::Recent;
use envelope::{Dek, EnvelopeError, SEED_BYTES, Source, SourceType};
use plugin::{Plugin, StatusResponse};

/// So begins what is stored under a key that somebody else keeps.
pub const STORED: &[u8] = b"k8s:enc:kms:v2:";
/// Some thousand seeds: a server makes one when it starts and one for each new key.
const DEKS_LIMIT_BYTES: usize = 1 << 20;
/// About what a seed takes, with its place.
const DEK_BYTES: usize = 192;
/// Seeds that are opened at the same time; who wants more waits.
const DECRYPTIONS: usize = 16;

/// How often a plugin is asked, and how long what it said holds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub poll_well: Duration,
    pub poll_ill: Duration,
    /// How long a seed is written with after the plugin was well.
    pub write_after: Duration,
    /// Whoever asks for its health in between is told what was found last.
    pub remember_well: Duration,
    pub remember_ill: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            poll_well: Duration::from_secs(60),
            poll_ill: Duration::from_secs(10),
            write_after: Duration::from_secs(180),
            remember_well: Duration::from_secs(20),
            remember_ill: Duration::from_secs(3),
        }
    }
}

/// What a configuration says of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    /// Of its socket; `@` at the beginning is for a name without a file.
    pub path: String,
    pub timeout: Duration,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("KMS provider {provider:?}: {why}")]
pub struct KmsError {
    provider: String,
    why: Why,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Why {
    #[error("failed to perform status section of the healthz check, error: {0}")]
    Status(Fault),
    #[error("it is not healthy, error: {0}")]
    Ill(String),
    #[error("there is no data key to write with yet")]
    NoKey,
    #[error("there is no data key to write with yet: {0}")]
    NotWell(Box<Why>),
    #[error("the data key may not be written with any more, it was not healthy for too long")]
    Expired,
    #[error("failed to decrypt DEK, error: {0}")]
    Decrypt(Fault),
    #[error("failed to decrypt DEK, error: it did not answer in time")]
    Late,
    #[error(transparent)]
    Envelope(EnvelopeError),
    #[error("the data key is not at hand")]
    NotAtHand,
    #[error("it was sealed with another data key or for another place, or is damaged")]
    Damaged,
}

impl KmsError {
    /// What came of the call, as metrics name it.
    pub fn code(&self) -> &'static str {
        match &self.why {
            Why::Decrypt(fault) => metrics::code(Some(fault)),
            Why::Late => "DeadlineExceeded",
            _ => NO_CALL,
        }
    }
}

/// What is written with.
#[derive(Clone)]
struct Writing {
    dek: Arc<Dek>,
    source: Arc<Source>,
    digest: [u8; 32],
    until: Instant,
}

/// What the plugin was found to be, and when.
#[derive(Default)]
struct Found {
    last: Option<(Instant, Result<(), KmsError>)>,
    /// The version that it spoke first, and has to stay with.
    version: Option<String>,
}

pub struct Kms {
    config: Config,
    times: Times,
    prefix: Vec<u8>,
    plugin: Plugin,
    writing: RwLock<Option<Arc<Writing>>>,
    /// Shared with who comes after it by the same name: see [`Kms::after`].
    deks: Arc<Recent<[u8; 32], Arc<Dek>>>,
    decrypting: tokio::sync::Semaphore,
    /// Since when the plugin has opened nothing that it was asked to.
    fails_since: Mutex<Option<Instant>>,
    metrics: OnceLock<Arc<Metrics>>,
    checking: tokio::sync::Mutex<()>,
    found: Mutex<Found>,
    polling: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Drop for Kms {
    fn drop(&mut self) {
        if let Some(polling) = self.polling.lock().take() {
            polling.abort();
        }
    }
}

impl Kms {
    pub fn new(config: Config, times: Times) -> Self {
        Self::knowing(config, times, Arc::new(Recent::new(DEKS_LIMIT_BYTES)))
    }

    fn knowing(config: Config, times: Times, deks: Arc<Recent<[u8; 32], Arc<Dek>>>) -> Self {
        Self {
            prefix: [STORED, config.name.as_bytes(), b":"].concat(),
            plugin: Plugin::new(&config.path, config.timeout),
            config,
            times,
            writing: RwLock::default(),
            deks,
            decrypting: tokio::sync::Semaphore::new(DECRYPTIONS),
            fails_since: Mutex::default(),
            metrics: OnceLock::new(),
            checking: Default::default(),
            found: Mutex::default(),
            polling: Mutex::default(),
        }
    }

    /// One of another configuration in the place of one by the same name. Whatever has sealed a seed, what the seed is stays
    /// true: what either of them knows both read with, so that nobody has to be asked again. With what it writes this one
    /// finds out by itself.
    pub fn after(config: Config, times: Times, before: &Self) -> Self {
        Self::knowing(config, times, Arc::clone(&before.deks))
    }

    /// Where it tells what it does; once.
    pub fn report_to(&self, metrics: &Arc<Metrics>) {
        self.metrics.get_or_init(|| Arc::clone(metrics));
    }

    fn tell(&self, tell: impl FnOnce(&Metrics, (&'static str, &str))) {
        if let Some(metrics) = self.metrics.get() {
            tell(metrics, ("provider_name", &self.config.name));
        }
    }

    /// So begins what it has sealed.
    pub fn prefix(&self) -> String {
        String::from_utf8_lossy(&self.prefix).into_owned()
    }

    /// A call of the plugin, with what came of it.
    async fn timed<T>(&self, method: &str, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let began = Instant::now();
        let result = call.await;
        let method = format!("/v2.KeyManagementService/{method}");
        self.tell(|metrics, provider| {
            let code = ("grpc_status_code", metrics::code(result.as_ref().err()));
            let labels = [provider, ("method_name", method.as_str()), code];
            metrics.observe(Family::Calls, &labels, began.elapsed());
        });
        result
    }

    /// A key has been used.
    fn used(&self, way: Way, key_id: &str) {
        self.tell(|metrics, provider| {
            let hash = metrics::hash(key_id);
            let labels = [
                ("transformation_type", way.name()),
                provider,
                ("key_id_hash", hash.as_str()),
                ("apiserver_id_hash", ""),
            ];
            metrics.count(Family::KeyIds, &labels);
            metrics.set(Family::KeyIdTimes, &labels, seconds_now());
        });
    }

    /// What the plugin says of its key.
    fn told_of_key(&self, key_id: &str) {
        self.tell(|metrics, provider| match envelope::check_key_id(key_id) {
            Ok(()) => {
                let hash = metrics::hash(key_id);
                let labels = [provider, ("key_id_hash", hash.as_str()), ("apiserver_id_hash", "")];
                metrics.set(Family::KeyIdStatusTimes, &labels, seconds_now());
            }
            Err(_) => {
                let error = if key_id.is_empty() { "empty" } else { "too_long" };
                metrics.count(Family::InvalidKeyIds, &[provider, ("error", error)]);
            }
        });
    }

    fn remember(&self, digest: [u8; 32], dek: &Arc<Dek>) {
        self.deks.keep(digest, Arc::clone(dek), DEK_BYTES);
        let known = self.deks.len();
        self.tell(|metrics, provider| metrics.set(Family::Sources, &[provider], known as f64));
    }

    pub fn times(&self) -> Times {
        self.times
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    fn error(&self, why: Why) -> KmsError {
        KmsError { provider: self.config.name.clone(), why }
    }

    /// Asks how it is, and goes on asking for as long as somebody holds this.
    pub async fn start(self: &Arc<Self>) {
        self.look().await;
        let kms = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            while let Some(pause) = kms.upgrade().map(|kms| kms.pause()) {
                tokio::time::sleep(pause).await;
                let Some(kms) = kms.upgrade() else { return };
                kms.look().await;
            }
        });
        if let Some(before) = self.polling.lock().replace(task.abort_handle()) {
            before.abort();
        }
    }

    async fn look(&self) {
        if let Err(error) = self.check().await {
            tracing::warn!(%error, "a holder of keys is not well");
        }
    }

    fn pause(&self) -> Duration {
        match &self.found.lock().last {
            Some((_, Ok(()))) => self.times.poll_well,
            _ => self.times.poll_ill,
        }
    }

    /// How it is, as it was found a moment ago or else as it says now.
    pub async fn check(&self) -> Result<(), KmsError> {
        // One at a time; who waited takes what the other has found.
        let _checking = self.checking.lock().await;
        if let Some((at, result)) = &self.found.lock().last {
            let holds = if result.is_ok() { self.times.remember_well } else { self.times.remember_ill };
            if at.elapsed() < holds {
                return result.clone();
            }
        }
        let result = self.ask().await.map_err(|why| self.error(why));
        self.found.lock().last = Some((Instant::now(), result.clone()));
        result
    }

    async fn ask(&self) -> Result<(), Why> {
        let status = self.timed("Status", self.plugin.status()).await.map_err(Why::Status)?;
        self.told_of_key(&status.key_id);
        let mut faults = self.faults(&status);
        match envelope::check_key_id(&status.key_id) {
            // Another key is taken up also when something else is wrong.
            Ok(()) => faults.extend(self.rotate(&status.key_id).await.err()),
            Err(why) => faults.push(format!("got invalid KMSv2 KeyID: {why}")),
        }
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(Why::Ill(one.clone())),
            several => Err(Why::Ill(format!("[{}]", several.join(", ")))),
        }
    }

    fn faults(&self, status: &StatusResponse) -> Vec<String> {
        let mut faults = Vec::new();
        let StatusResponse { version, healthz, .. } = status;
        if healthz != "ok" {
            faults.push(format!("got unexpected healthz status: {healthz}"));
        }
        if !matches!(version.as_str(), "v2" | "v2beta1") {
            faults.push(format!("expected KMSv2 API version v2, got {version}"));
            return faults;
        }
        let mut found = self.found.lock();
        let first = found.version.get_or_insert_with(|| version.clone());
        if *first != *version {
            faults.push(format!(
                "KMSv2 API version should not change after the initial status response version {first}, got {version}"
            ));
        }
        faults
    }

    /// Makes a new seed if the plugin has another key than the one that sealed ours; else ours is good for another while.
    async fn rotate(&self, key_id: &str) -> Result<(), String> {
        // From before anybody is asked, so that it is the most that it can be.
        let until = Instant::now() + self.times.write_after;
        let held = self.writing.read().clone();
        if let Some(held) = held.as_ref().filter(|held| held.source.key_id == key_id) {
            *self.writing.write() = Some(Arc::new(Writing { until, ..Writing::clone(held) }));
            return Ok(());
        }
        let failed = |why: &dyn std::fmt::Display| format!("failed to rotate DEK: {why}");
        let began = Instant::now();
        let seed: [u8; SEED_BYTES] = base::id::random_bytes();
        self.tell(|metrics, _| metrics.observe(Family::Generations, &[], began.elapsed()));
        let answer = self
            .timed("Encrypt", self.plugin.encrypt(&seed))
            .await
            .map_err(|e| failed(&format!("failed to encrypt DEK, error: {e}")))?;
        let source = Source {
            key_id: answer.key_id,
            sealed: answer.ciphertext,
            annotations: answer.annotations,
            source_type: SourceType::Seed,
        };
        source.check().map_err(|e| failed(&e))?;
        if source.key_id != key_id {
            return Err(failed(&"it sealed with another key than it said it has"));
        }
        let dek = Arc::new(Dek::new(SourceType::Seed, &seed).map_err(|e| failed(&e))?);
        let digest = source.digest();
        if let Some(before) = held {
            self.remember(before.digest, &before.dek);
        }
        // Also for who may come after this one.
        self.remember(digest, &dek);
        *self.writing.write() = Some(Arc::new(Writing { dek, source: Arc::new(source), digest, until }));
        tracing::info!(provider = self.config.name, "there is a new data key to write with");
        Ok(())
    }

    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Bytes, KmsError> {
        let Some(writing) = self.writing.read().clone() else {
            let why = match &self.found.lock().last {
                Some((_, Err(error))) => Why::NotWell(Box::new(error.why.clone())),
                _ => Why::NoKey,
            };
            return Err(self.error(why));
        };
        if Instant::now() > writing.until {
            return Err(self.error(Why::Expired));
        }
        let data = writing.dek.seal(place, plain).ok_or_else(|| self.error(Why::NoKey))?;
        self.used(Way::ToStorage, &writing.source.key_id);
        Ok(envelope::write(&self.prefix, &writing.source, data))
    }

    fn dek(&self, digest: &[u8; 32]) -> Option<Arc<Dek>> {
        if let Some(writing) = self.writing.read().as_ref().filter(|writing| writing.digest == *digest) {
            return Some(Arc::clone(&writing.dek));
        }
        self.deks.find(digest)
    }

    /// Whether it was sealed under its name.
    pub fn has_sealed(&self, stored: &[u8]) -> bool {
        stored.starts_with(&self.prefix)
    }

    /// Whether it would be sealed with the same key if it was sealed now.
    pub fn is_fresh(&self, stored: &[u8]) -> bool {
        let Some(body) = stored.strip_prefix(self.prefix.as_slice()) else { return false };
        // Without anything to write with nothing is better than what there is.
        let Some(writing) = self.writing.read().clone() else { return true };
        envelope::read(body).is_ok_and(|(source, _)| {
            source.key_id == writing.source.key_id && source.source_type == writing.source.source_type
        })
    }

    /// Sees to it that the data key of what was sealed under its name is at hand. What is damaged is not told of here.
    pub async fn unlock(&self, stored: &[u8]) -> Result<(), KmsError> {
        let read = stored.strip_prefix(self.prefix.as_slice()).map(envelope::read);
        let Some(Ok((source, _))) = read else { return Ok(()) };
        let digest = source.digest();
        if self.dek(&digest).is_some() {
            return Ok(());
        }
        let opened = async {
            // Closed by nobody.
            let _turn = self.decrypting.acquire().await;
            if self.dek(&digest).is_some() {
                return Ok(());
            }
            self.tell(|metrics, _| metrics.count(Family::CacheMisses, &[]));
            let plain = self.timed("Decrypt", self.plugin.decrypt(&source)).await.map_err(Why::Decrypt)?;
            let dek = Dek::new(source.source_type, &plain).map_err(Why::Envelope)?;
            self.remember(digest, &Arc::new(dek));
            Ok(())
        };
        // The call itself has the same time; the turn before it is in it too, but must not hide what the call says.
        let opened = tokio::time::timeout(self.config.timeout + TURN, opened).await.unwrap_or(Err(Why::Late));
        let mut fails_since = self.fails_since.lock();
        match &opened {
            Ok(()) => *fails_since = None,
            Err(_) => {
                fails_since.get_or_insert_with(Instant::now);
            }
        }
        opened.map_err(|why| self.error(why))
    }

    pub fn opens_nothing_for(&self) -> Duration {
        self.fails_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The plain bytes of what was sealed under its name, with a data key that is at hand.
    pub fn open(&self, place: &str, stored: &[u8]) -> Result<Bytes, KmsError> {
        let body = stored.strip_prefix(self.prefix.as_slice()).ok_or_else(|| self.error(Why::Damaged))?;
        let (source, data) = envelope::read(body).map_err(|e| self.error(Why::Envelope(e)))?;
        let dek = self.dek(&source.digest()).ok_or_else(|| self.error(Why::NotAtHand))?;
        let plain = dek.open(place, &data).ok_or_else(|| self.error(Why::Damaged))?;
        self.used(Way::FromStorage, &source.key_id);
        Ok(plain)
    }
}

fn seconds_now() -> f64 {
    base::time::now().as_millisecond() as f64 / 1000.0
}

/// How long one waits for a turn beyond the time of a call.
const TURN: Duration = Duration::from_secs(1);
