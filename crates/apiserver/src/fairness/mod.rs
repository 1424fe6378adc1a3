//! API priority and fairness: every request waits its turn among those of its kind, so that who asks too much starves
//! nobody else (KEP-1040). A request's flow schema says its priority level and its flow; the level's seats and queues
//! (`queues`, pure) say when it runs. Levels lend each other what they do not need (`shares`, pure), looked at when
//! somebody has to wait and not by the clock: an idle server does nothing for it.
//!
//! In-process clients pass here like anybody, by the names they have. Members of `system:masters` and probes are exempt.

mod admit;
mod dump;
mod estimate;
mod level;
mod objects;
pub mod queues;
mod schema;
mod shares;
mod stats;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::http::StatusCode;
use ::http::header::{HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use api::status::ApiError;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::Server;
use crate::audit::{self, Layer};
use crate::auth::Identity;
use crate::auth::rbac::Attributes;
use crate::http::respond::{self, Answer, Form};
use crate::reloaded::Reloaded;
pub use admit::Admitted;
pub use objects::settle;

use level::{Digest, Entered, Level, LevelState, Place};
use queues::{Queuing, Refusal, RequestId};
use schema::Matcher;
use shares::Shares;
use stats::Stats;

/// The whole of a request that is no stream must be done within this time, as in the original.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// This part of it may be spent waiting.
const WAIT_PART: u32 = 4;
/// What whoever is refused is told to wait. Short: the queues have absorbed what was only a moment.
const RETRY_AFTER_SECONDS: u32 = 1;
/// Seats are parted anew no more often than this. What lenders want back they have within it.
const BALANCE_PERIOD: Duration = Duration::from_millis(100);
/// Seats for each processor. What runs at the same time shares the processors without priority, so it must not be much
/// more than keeps them and the disk busy; the original's 600 are for requests that wait for an etcd elsewhere.
const SEATS_FOR_A_PROCESSOR: u32 = 50;
const SEATS_MIN: u32 = 100;
/// The original's 400 that read and 200 that write.
const SEATS_MAX: u32 = 600;

pub const EXEMPT: &str = "exempt";
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// How many requests are answered at once, and how long each may take.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    /// In all; else as the machine is.
    pub seats: Option<u32>,
    pub timeout: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { seats: None, timeout: REQUEST_TIMEOUT }
    }
}

/// Seats where nobody has said how many.
fn default_seats() -> u32 {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let seats = u32::try_from(processors).unwrap_or(u32::MAX).saturating_mul(SEATS_FOR_A_PROCESSOR);
    seats.clamp(SEATS_MIN, SEATS_MAX)
}

/// A flow schema and where it leads.
pub struct Schema {
    matcher: Matcher,
    name: Arc<str>,
    level: Arc<Level>,
    stats: Arc<Stats>,
    uid: Option<HeaderValue>,
    level_uid: Option<HeaderValue>,
}

/// The configuration at some moment: schemas in the order in which they are asked, and all levels by name.
#[derive(Default)]
pub struct Plan {
    schemas: Vec<Schema>,
    levels: Vec<Arc<Level>>,
}

pub struct Fairness {
    total: u32,
    pub timeout: Duration,
    began: Instant,
    plan: Reloaded<Plan>,
    /// Levels live on from one configuration to the next.
    levels: Mutex<BTreeMap<String, Arc<Level>>>,
    stats: Mutex<HashMap<(String, String), Arc<Stats>>>,
    /// Since the beginning, in milliseconds.
    balanced: AtomicU64,
    changed: watch::Sender<()>,
    work: estimate::Work,
}

/// A request's turn, for as long as it runs; nothing for what is not counted.
pub struct Turn {
    place: Option<Place>,
    uids: [Option<HeaderValue>; 2],
}

impl Turn {
    fn free() -> Self {
        Self { place: None, uids: [None, None] }
    }

    /// Tells whoever asked what their request was taken for.
    pub fn mark(&self, answer: &mut Answer) {
        for (name, uid) in [SCHEMA_UID, LEVEL_UID].into_iter().zip(&self.uids) {
            if let Some(uid) = uid {
                answer.headers_mut().insert(name, uid.clone());
            }
        }
    }

    /// What else follows from the request once it is answered.
    pub fn linger(&mut self, time: Duration) {
        if let Some(place) = &mut self.place {
            place.linger = time;
        }
    }
}

/// The answer, or that there was none within the time that the request has left.
pub async fn in_time(answering: impl Future<Output = Answer>, left: Duration, form: Form) -> Answer {
    let answer = match left {
        Duration::ZERO => None,
        left => tokio::time::timeout(left, answering).await.ok(),
    };
    answer.unwrap_or_else(|| {
        let text = "Timeout: request did not complete within the allotted timeout";
        respond::error(form, &ApiError::worded(504, "Timeout".into(), text.into(), None))
    })
}

impl Fairness {
    pub fn new(limits: &RequestLimits) -> Arc<Self> {
        Arc::new(Self {
            total: limits.seats.unwrap_or_else(default_seats).max(1),
            timeout: limits.timeout,
            began: Instant::now(),
            plan: Reloaded::default(),
            levels: Mutex::default(),
            stats: Mutex::default(),
            balanced: AtomicU64::new(0),
            changed: watch::Sender::new(()),
            work: estimate::Work::default(),
        })
    }

    /// To be called after each write of what the plan is made from.
    pub fn outdate(&self) {
        self.plan.outdate();
        self.changed.send_replace(());
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Makes a plan of the stored configuration.
    fn compile(&self, schemas: &[FlowSchema], configured: &[PriorityLevelConfiguration]) -> Plan {
        let name = |level: &PriorityLevelConfiguration| level.metadata.name.clone().unwrap_or_default();
        let shares: Vec<Shares> = configured.iter().map(shares).collect();
        let limits = shares::limits(self.total, &shares);
        let mut levels = self.levels.lock();
        for (level, limits) in configured.iter().zip(limits) {
            let live =
                levels.entry(name(level)).or_insert_with(|| Arc::new(Level::new(&name(level), self.began)));
            live.configure(queuing(level), limits);
        }
        levels.retain(|held, level| {
            let stays = configured.iter().any(|c| name(c) == *held);
            if !stays {
                level.quiesce();
            }
            stays
        });
        let mut matchers: Vec<Matcher> = schemas.iter().map(Matcher::new).collect();
        schema::sort(&mut matchers);
        let mut held = self.stats.lock();
        let mut stats = HashMap::new();
        let schemas = matchers.into_iter().filter_map(|matcher| {
            // One that leads nowhere is passed over.
            let level = Arc::clone(levels.get(&matcher.level)?);
            let key = (matcher.name.clone(), level.name.clone());
            let own = Arc::clone(held.entry(key.clone()).or_default());
            stats.insert(key, Arc::clone(&own));
            let uid = configured.iter().find(|c| name(c) == level.name)?.metadata.uid.clone();
            let header = |uid: &str| HeaderValue::from_str(uid).ok();
            Some(Schema {
                name: matcher.name.as_str().into(),
                uid: header(&matcher.uid),
                level_uid: uid.as_deref().and_then(header),
                stats: own,
                level,
                matcher,
            })
        });
        let schemas = schemas.collect();
        *held = stats;
        Plan { schemas, levels: levels.values().cloned().collect() }
    }

    /// Parts the seats anew, if that has not just been done.
    fn balance_if_due(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.balanced.load(Ordering::Relaxed);
        let period = u64::try_from(BALANCE_PERIOD.as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(last) < period
            || self.balanced.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let levels: Vec<Arc<Level>> =
            self.levels.lock().values().filter(|level| !level.is_exempt()).cloned().collect();
        let wanted: Vec<_> = levels.iter().map(|level| level.wanted()).collect();
        for (level, seats) in levels.iter().zip(shares::part(self.total, &wanted)) {
            level.give(seats);
        }
    }

    /// Whether a turn came in time.
    async fn waited(&self, mut turn: oneshot::Receiver<()>) -> bool {
        let limit = self.timeout / WAIT_PART;
        let first = BALANCE_PERIOD.min(limit);
        let came = match tokio::time::timeout(first, &mut turn).await {
            Ok(came) => Ok(came),
            Err(_) => {
                // When it came the seats had just been parted, without it.
                self.balance_if_due();
                tokio::time::timeout(limit - first, turn).await
            }
        };
        matches!(came, Ok(Ok(())))
    }

    /// Waits for a request's turn. Whoever stops waiting leaves the queue.
    async fn turn(
        self: &Arc<Self>,
        plan: &Plan,
        who: &Identity,
        what: &Attributes,
        version: &str,
        seats: impl AsyncFnOnce(&Level) -> u32,
    ) -> Result<Turn, Answer> {
        let Some(schema) = plan.schemas.iter().find(|s| s.matcher.matches(who, what)) else {
            // Before there is a configuration there is nobody to be fair to.
            return Ok(Turn::free());
        };
        let started = Instant::now();
        let (level, stats) = (&schema.level, &schema.stats);
        let seats = if level.is_exempt() { 1 } else { seats(level).await };
        let flow = schema.matcher.flow(who, what);
        let hash = schema::flow_hash(&schema.name, flow);
        let digest = Digest {
            schema: Arc::clone(&schema.name),
            flow: flow.to_owned(),
            user: who.username.clone(),
            what: what.clone(),
            version: version.to_owned(),
            seats,
        };
        let (mut entered, back) = level.enter(hash, digest);
        if !matches!(entered, Entered::Runs(_)) {
            self.balance_if_due();
            if let Some(digest) = back {
                entered = level.enter(hash, digest).0;
            }
        }
        let place = |id, began| schema.place(self, id, seats, began);
        match entered {
            Entered::Runs(id) => {
                stats.began(seats, Duration::ZERO);
                Ok(schema.turn(Some(place(id, Some(started)))))
            }
            Entered::Refused(why) => Err(schema.refuse(why, started)),
            Entered::Waits(id, wait) => {
                stats.queued(seats);
                let mut place = place(id, None);
                let gone = Gone(Some((schema, started)));
                let came = audit::timed(Layer::Queue, self.waited(wait)).await;
                gone.stayed();
                if !came {
                    drop(place);
                    return Err(schema.refuse(Refusal::TimedOut, started));
                }
                stats.left_queue(seats);
                stats.began(seats, started.elapsed());
                place.began = Some(Instant::now());
                Ok(schema.turn(Some(place)))
            }
        }
    }
}

impl Schema {
    fn place(&self, fairness: &Arc<Fairness>, id: RequestId, seats: u32, began: Option<Instant>) -> Place {
        Place {
            level: Arc::clone(&self.level),
            fairness: Arc::clone(fairness),
            stats: Arc::clone(&self.stats),
            id,
            seats,
            began,
            linger: Duration::ZERO,
        }
    }

    fn turn(&self, place: Option<Place>) -> Turn {
        Turn { place, uids: [self.uid.clone(), self.level_uid.clone()] }
    }

    fn count_refused(&self, why: Refusal, since: Instant) {
        self.level.refuse(why);
        self.stats.refused(why, since.elapsed());
    }

    fn refuse(&self, why: Refusal, since: Instant) -> Answer {
        self.count_refused(why, since);
        let mut answer = too_many_requests();
        self.turn(None).mark(&mut answer);
        answer
    }
}

/// Counts those who do not wait for the end.
struct Gone<'a>(Option<(&'a Schema, Instant)>);

impl Gone<'_> {
    fn stayed(mut self) {
        self.0 = None;
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if let Some((schema, since)) = self.0.take() {
            schema.count_refused(Refusal::Cancelled, since);
        }
    }
}

fn shares(level: &PriorityLevelConfiguration) -> Shares {
    let spec = level.spec.as_ref();
    let positive = |n: Option<i32>| u32::try_from(n.unwrap_or(0)).unwrap_or(0);
    let limited = spec.and_then(|s| s.limited.as_ref());
    let exempt = spec.and_then(|s| s.exempt.as_ref());
    match (limited, exempt) {
        (Some(limited), _) => Shares {
            nominal: positive(limited.nominal_concurrency_shares),
            lendable_percent: positive(limited.lendable_percent),
            borrowing_limit_percent: limited.borrowing_limit_percent.map(|p| positive(Some(p))),
        },
        (None, Some(exempt)) => Shares {
            nominal: positive(exempt.nominal_concurrency_shares),
            lendable_percent: positive(exempt.lendable_percent),
            borrowing_limit_percent: None,
        },
        (None, None) => Shares::default(),
    }
}

fn queuing(level: &PriorityLevelConfiguration) -> Option<Queuing> {
    let response = level.spec.as_ref()?.limited.as_ref()?.limit_response.as_ref()?;
    let queuing = response.queuing.as_ref()?;
    let count = |n: Option<i32>| usize::try_from(n.unwrap_or(1)).unwrap_or(1).max(1);
    Some(Queuing {
        queues: count(queuing.queues),
        hand_size: count(queuing.hand_size),
        length_limit: count(queuing.queue_length_limit),
    })
}

/// In the original's words, and not as an object: clients look at the code and the header.
fn too_many_requests() -> Answer {
    let text = "Too many requests, please try again later.\n";
    let mut answer = respond::bytes(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

impl Plan {
    pub fn metrics(&self, out: &mut String) -> std::fmt::Result {
        stats::write(self, out)
    }
}

impl Server {
    /// The configuration as the last write has left it; as it was where that cannot be read.
    pub(crate) async fn fairness_plan(&self) -> Arc<Plan> {
        match self.fairness.plan.get(|| self.load_fairness()).await {
            Ok(plan) => plan,
            Err(error) => {
                tracing::warn!(%error, "cannot read the flow schemas");
                self.fairness.plan.last()
            }
        }
    }

    async fn load_fairness(&self) -> Result<Plan, ApiError> {
        let kinds = self.catalog.snapshot();
        let kind = |plural: &str| {
            let kind = kinds.find(crate::bootstrap::flowcontrol::GROUP, "v1", plural);
            kind.cloned().ok_or_else(|| ApiError::internal(format!("the kinds table has no {plural}")))
        };
        let schemas = self.objects.all(&*kind("flowschemas")?).await?;
        let levels = self.objects.all(&*kind("prioritylevelconfigurations")?).await?;
        Ok(self.fairness.compile(&schemas, &levels))
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
