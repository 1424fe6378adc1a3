//! Objects in the store: their keys, their stored form, and the few operations that the verbs are made of.

use std::sync::Arc;

use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use api::weight;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{Change, Entry, Event, Expect, LeaseId, Op, RangeRequest, Store, StoreError, TxnResponse};

use crate::aside;
use crate::audit::{self, Layer};
use crate::cipher::{self, Cipher, RotateError, Rotated};
use crate::claims;
use crate::recent::Recent;
use crate::room::What;

/// Objects with a time to live share leases of this granularity.
const LEASE_WINDOW_SECONDS: i64 = 60;
/// Of the text of what was written or looked at a moment ago; in memory it is about ten times as large.
const SEEN_LIMIT_BYTES: usize = 512 << 10;
/// Shorter objects are not weighed.
const WEIGHED_FROM_BYTES: usize = 4 << 10;
/// How long a request waits for a revision that is still to come.
const REVISION_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

pub struct Objects {
    pub store: Arc<dyn Store>,
    cipher: Cipher,
    /// The lease that new short-lived objects go on, and when it was taken.
    lease: tokio::sync::Mutex<Option<(LeaseId, i64)>>,
    /// Where the bytes of a value lie, and what they say. They are held, so that the place stays theirs.
    seen: Recent<(usize, usize), (Bytes, Arc<Value>)>,
}

/// Where bytes lie.
fn place(value: &Bytes) -> (usize, usize) {
    (value.as_ptr() as usize, value.len())
}

/// What is written together with an object or not at all, in place of the version of this revision.
pub struct Beside {
    pub kind: Arc<Kind>,
    pub object: Arc<Value>,
    pub revision: u64,
}

/// What a conditional write came to.
pub enum Written {
    /// Done, at this revision.
    At(u64),
    /// Somebody else was faster.
    Lost,
    /// What the object wants for itself alone (the claim of this key) is somebody else's, or what was to be written beside
    /// it (at this key) has changed.
    Taken(String),
}

impl Objects {
    pub fn new(store: Arc<dyn Store>, cipher: Cipher) -> Self {
        let (lease, seen) = (tokio::sync::Mutex::new(None), Recent::new(SEEN_LIMIT_BYTES));
        Self { store, cipher, lease, seen }
    }

    /// Does work that ends in a write: several that are done at the same time go to the disk together.
    pub async fn preparing<F: Future>(&self, work: F) -> F::Output {
        store::preparing(&*self.store, work).await
    }

    /// Asks those who keep keys, and goes on asking.
    pub async fn start_cipher(&self) {
        self.cipher.start().await;
    }

    pub fn cipher(&self) -> &Cipher {
        &self.cipher
    }

    /// Sees to it that entries that come from the store can be decoded: whoever keeps the key that one is sealed with may
    /// have to be asked first. Decoding does not wait for anybody.
    pub async fn unlock(&self, entries: &[Entry]) -> Result<(), ApiError> {
        // Mostly there are none: lists are long, and this must cost them nothing.
        for entry in entries.iter().filter(|entry| cipher::may_be_locked(&entry.value)) {
            self.cipher.unlock(&entry.key, &entry.value).await.map_err(ApiError::internal)?;
        }
        Ok(())
    }

    /// The same of what has changed, and of what it was before.
    pub async fn unlock_events(&self, events: &[Arc<Event>]) -> Result<(), ApiError> {
        for event in events {
            self.unlock(std::slice::from_ref(&event.entry)).await?;
            self.unlock(event.previous.as_slice()).await?;
        }
        Ok(())
    }

    /// One entry, ready to be decoded.
    pub async fn entry(&self, key: &str) -> Result<Option<Entry>, ApiError> {
        let (entry, _) = audit::timed(Layer::Store, self.store.get(key)).await.map_err(store_error)?;
        // Also where little is asked to be changed in it.
        aside::begin(entry.as_ref().map_or(0, |entry| entry.value.len())).await;
        self.unlock(entry.as_slice()).await?;
        if let Some(entry) = &entry {
            aside::place(What::Stored, self.weight(entry)).await?;
        }
        Ok(entry)
    }

    /// What an entry comes to once it is decoded; nothing where it is too short to come to much.
    fn weight(&self, entry: &Entry) -> usize {
        match entry.value.len() {
            0..WEIGHED_FROM_BYTES => 0,
            // Without a place to take it is nothing to know.
            _ if !aside::has_places() => 0,
            // Only where it is plain is it known. What cannot be opened will not be decoded.
            _ if cipher::is_sealed(&entry.value) => self.plain(entry).map_or(0, |plain| {
                aside::keep_opened(&entry.value, &plain);
                weight::of_json(&plain)
            }),
            _ => weight::of_json(&entry.value),
        }
    }

    /// The plain bytes of an entry, in our form whoever wrote it.
    pub fn plain(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        if cipher::is_sealed(&entry.value)
            && let Some(opened) = aside::take_opened(&entry.value)
        {
            return Ok(opened);
        }
        let plain = self.cipher.open_sealed(&entry.key, &entry.value).map_err(ApiError::internal)?;
        api::stored::ours(&plain).map_err(|e| ApiError::internal(format!("cannot read {}: {e}", entry.key)))
    }

    /// Whether an entry would be encrypted otherwise if it was written now.
    pub fn is_stale(&self, kind: &Kind, entry: &Entry) -> bool {
        self.cipher.is_stale(kind, &entry.key, &entry.value)
    }

    /// Gives the cluster a new key and seals everything with it.
    pub async fn rotate_key(&self) -> Result<Rotated, RotateError> {
        self.cipher.rotate(&*self.store).await
    }

    /// Brings a rotation to its end that was stopped.
    pub async fn finish_rotation(&self) -> Result<(), RotateError> {
        if self.cipher.is_unfinished()? && !self.store.is_shared() {
            let Rotated { entries, keys } = self.cipher.finish(&*self.store).await?;
            tracing::info!(entries, keys, "finished a rotation of the encryption key");
        }
        Ok(())
    }

    pub fn decode(&self, entry: &Entry) -> Result<Value, ApiError> {
        let plain = self.plain(entry)?;
        meta::from_stored(&plain, entry.mod_revision)
            .map_err(|e| ApiError::internal(format!("cannot read {}: {e}", entry.key)))
    }

    /// The object of an entry as it is stored, to be looked at by many. Its `resourceVersion` may be missing or another.
    pub fn look(&self, entry: &Entry) -> Result<Arc<Value>, ApiError> {
        // What is encrypted where it is stored lies about in the open nowhere else.
        if cipher::is_sealed(&entry.value) {
            return self.decode(entry).map(Arc::new);
        }
        let decode = || {
            let object = Arc::new(self.decode(entry)?);
            Ok(((entry.value.clone(), object), entry.value.len()))
        };
        self.seen.get(&place(&entry.value), decode).map(|(_, object)| object)
    }

    pub async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(Entry, Value)>, ApiError> {
        let entry = self.entry(&kind.key(namespace, name)).await?;
        entry
            .map(|entry| Ok((self.decode(&entry)?, entry)))
            .transpose()
            .map(|found| found.map(|(v, e)| (e, v)))
    }

    /// One object, to be looked at only: see [`Objects::look`].
    pub async fn find(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        let entry = self.entry(&kind.key(namespace, name)).await?;
        entry.map(|entry| self.look(&entry)).transpose()
    }

    /// Waits a little for a revision that has not come yet, as one server of several does that is behind.
    pub async fn wait_for(&self, revision: u64) -> Result<(), ApiError> {
        let end = tokio::time::Instant::now() + REVISION_WAIT;
        loop {
            let current = self.store.revision();
            if revision <= current {
                return Ok(());
            }
            let mut watch = self.store.watch("", current).map_err(store_error)?;
            if tokio::time::timeout_at(end, watch.next()).await.is_err() {
                return Err(ApiError::future_resource_version(revision, self.store.revision()));
            }
        }
    }

    /// Every object of a kind, typed.
    pub async fn all<T: DeserializeOwned>(&self, kind: &Kind) -> Result<Vec<T>, ApiError> {
        self.in_namespace(kind, "").await
    }

    /// The objects of a kind in a namespace, or all of them.
    pub async fn in_namespace<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        namespace: &str,
    ) -> Result<Vec<T>, ApiError> {
        self.chosen(kind, namespace, |_| true).await
    }

    /// The objects of a kind without namespaces that have certain names: the others are not read.
    pub async fn named<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        is_asked: impl Fn(&str) -> bool,
    ) -> Result<Vec<T>, ApiError> {
        let name = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
        self.chosen(kind, "", |key| is_asked(&name(key))).await
    }

    async fn chosen<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        namespace: &str,
        is_asked: impl Fn(&str) -> bool,
    ) -> Result<Vec<T>, ApiError> {
        let request = RangeRequest { prefix: kind.key(namespace, ""), ..Default::default() };
        let mut entries = self.store.range(request).await.map_err(store_error)?.entries;
        entries.retain(|entry| is_asked(&entry.key));
        self.unlock(&entries).await?;
        let typed = |entry: &Entry| {
            let value = kind.to_served(self.decode(entry)?);
            serde_json::from_value(value)
                .map_err(|e| ApiError::internal(format!("cannot read {}: {e}", entry.key)))
        };
        entries.iter().map(typed).collect()
    }

    /// Writes an object if `expect` holds, and in the same transaction what is to be written beside it; its
    /// `resourceVersion` is what the answer says. The other answer is the text that was written, before it was encrypted.
    pub async fn put(
        &self,
        kind: &Kind,
        object: &Arc<Value>,
        expect: Expect,
        beside: &[Beside],
    ) -> Result<(Written, Bytes), ApiError> {
        let key = kind.key(meta::namespace(object), meta::name(object));
        let mut _sealed = None;
        if self.cipher.seals(kind) || beside.iter().any(|beside| self.cipher.seals(&beside.kind)) {
            _sealed = Some(self.cipher.writing.read().await);
        }
        let (plain, value) = self.stored(kind, &key, object)?;
        let lease = match kind.ttl_seconds {
            Some(seconds) => Some(self.lease(seconds).await?),
            None => None,
        };
        let mut rest = self.claims(&key, expect, Some(object)).await?;
        for Beside { kind, object, revision } in beside {
            let key = kind.key(meta::namespace(object), meta::name(object));
            let (_, value) = self.stored(kind, &key, object)?;
            rest.push(Op::put(key, value, Expect::At(*revision)));
        }
        let written = self.commit(Op { key, expect, change: Change::Put { value, lease } }, rest).await?;
        Ok((written, plain))
    }

    /// The text of an object, and what is stored of it. Whoever writes what is sealed holds [`Cipher::writing`].
    fn stored(&self, kind: &Kind, key: &str, object: &Arc<Value>) -> Result<(Bytes, Bytes), ApiError> {
        let plain = match kind.conversion {
            Some(_) => meta::to_stored(&kind.to_stored(object)),
            None => meta::to_stored(object),
        };
        let mut value = plain.clone();
        if self.cipher.seals(kind) {
            value = self.cipher.seal(kind, key, value).map_err(ApiError::internal)?;
        } else if kind.conversion.is_none() {
            // Whoever is told of it need not read what was just written.
            self.seen.keep(place(&value), (value.clone(), Arc::clone(object)), value.len());
        }
        Ok((plain, value))
    }

    pub async fn delete(&self, key: &str, revision: u64) -> Result<Written, ApiError> {
        let expect = Expect::At(revision);
        let claims = self.claims(key, expect, None).await?;
        self.commit(Op::delete(key, expect), claims).await
    }

    /// What is to be done to an object's claims, in the same transaction.
    async fn claims(&self, key: &str, expect: Expect, new: Option<&Value>) -> Result<Vec<Op>, ApiError> {
        if !claims::may_be_held_by(key) {
            return Ok(Vec::new());
        }
        let old = match expect {
            Expect::Absent => None,
            _ => self.entry(key).await?,
        };
        let old = old.map(|entry| self.decode(&entry)).transpose()?;
        Ok(claims::changes(key, old.as_ref(), new))
    }

    async fn commit(&self, op: Op, rest: Vec<Op>) -> Result<Written, ApiError> {
        let written = op.key.clone();
        let ops = std::iter::once(op).chain(rest).collect();
        match audit::timed(Layer::Store, self.store.txn(ops)).await.map_err(store_error)? {
            TxnResponse::Committed { revision } => Ok(Written::At(revision)),
            TxnResponse::Conflict { key, .. } if key == written => Ok(Written::Lost),
            TxnResponse::Conflict { key, .. } => Ok(Written::Taken(key)),
        }
    }

    async fn lease(&self, ttl_seconds: u64) -> Result<LeaseId, ApiError> {
        let mut current = self.lease.lock().await;
        let now = base::time::now().as_second();
        match *current {
            Some((id, since)) if now - since < LEASE_WINDOW_SECONDS => Ok(id),
            _ => {
                let id = self.store.lease_grant(ttl_seconds).await.map_err(store_error)?;
                *current = Some((id, now));
                Ok(id)
            }
        }
    }
}

/// What a client is told of a fault of the store.
pub fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { requested, compacted } => {
            ApiError::expired(format!("too old resource version: {requested} ({compacted})"))
        }
        StoreError::FutureRevision { requested, current } => {
            ApiError::future_resource_version(requested, current)
        }
        StoreError::ValueTooLarge { length_bytes, limit_bytes, .. } => ApiError::too_large(format!(
            "Request entity too large: limit is {limit_bytes}, the object has {length_bytes} bytes"
        )),
        StoreError::KeyTooLong { .. } => ApiError::bad_request(error.to_string()),
        // As the original: whoever comes again meets another server, or this one anew.
        StoreError::Closed => ApiError::unavailable_for_now("apiserver is shutting down", 1),
        // As the original: a fault of its own. 503 would have clients try again by themselves, for minutes.
        StoreError::Unavailable { .. }
        | StoreError::Uncertain { .. }
        | StoreError::UnknownLease(_)
        | StoreError::Damaged { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Open { .. }
        | StoreError::Full { .. } => ApiError::internal(error),
    }
}
