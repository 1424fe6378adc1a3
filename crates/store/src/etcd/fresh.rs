//! What makes a read from the mirror a read of now: etcd says, by a majority of its members, which revision it has
//! reached, and the read waits until the mirror has come so far. One question serves all reads that came before it
//! was asked, so that a thousand readers ask no more often than one.
//!
//! Not every revision shows in the watch: some belong to keys beside ours. Where the mirror waits in vain, it writes a
//! key of its own: the watch is in order, so when that write shows, everything before it has shown too. Messages of
//! progress would tell the same, but can be trusted only in the newest releases of etcd (3.4.31, 3.5.13).

use std::sync::Arc;
use std::time::Duration;

use grpc::Fault;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::client::{Again, Client, REQUEST_LIMIT};
use super::messages::{Done, PutRequest};
use super::mirror::{Mirror, Reached, Seen, now};
use super::{Keys, unsigned};
use crate::Revision;

const QUEUE_LIMIT: usize = 4096;
/// So long a revision may take to show before it is thought to be somebody else's.
const NUDGE_AFTER: Duration = Duration::from_millis(30);

type Question = oneshot::Sender<Result<Reached, Fault>>;

/// Asks where etcd is, for many at once.
pub struct Fresh {
    questions: mpsc::Sender<Question>,
    nudging: tokio::sync::Mutex<()>,
}

impl Fresh {
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(QUEUE_LIMIT);
        (Self { questions, nudging: tokio::sync::Mutex::default() }, receiver)
    }

    /// Returns once the mirror holds all that was done before the call.
    ///
    /// An etcd that is behind what was read of it before it was asked is another one in its place (one that is set up
    /// alike is known by the same name): nothing is answered from what the old one held.
    pub async fn wait(&self, client: &Client, mirror: &Mirror, keys: &Keys) -> Result<Revision, Fault> {
        let gone = || Fault::NotSent("the store is shutting down".into());
        let before = *mirror.seen.borrow();
        let (reply, answer) = oneshot::channel();
        self.questions.send(reply).await.map_err(|_| gone())?;
        let now = answer.await.map_err(|_| gone())??;
        if before.cluster == now.cluster && now.revision < before.revision {
            read_anew(mirror, before).await?;
        }
        self.reach(client, mirror, keys, now).await?;
        Ok(now.revision)
    }

    /// Waits until the mirror has come to a revision of a cluster's history.
    pub async fn reach(
        &self,
        client: &Client,
        mirror: &Mirror,
        keys: &Keys,
        now: Reached,
    ) -> Result<(), Fault> {
        let end = Instant::now() + REQUEST_LIMIT;
        let mut seen = mirror.seen.subscribe();
        let there = |seen: &Seen| seen.cluster == now.cluster && seen.revision >= now.revision;
        if tokio::time::timeout(NUDGE_AFTER, seen.wait_for(there)).await.is_ok() {
            return Ok(());
        }
        let late = || Fault::NotSent("the watch of etcd is behind".into());
        {
            // Another's nudge may have been enough.
            let _turn = tokio::time::timeout_at(end, self.nudging.lock()).await.map_err(|_| late())?;
            let loaded = seen.borrow_and_update().cluster == now.cluster;
            if loaded && !there(&seen.borrow()) {
                nudge(client, keys).await?;
            }
        }
        match tokio::time::timeout_at(end, seen.wait_for(there)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(late()),
        }
    }
}

/// Waits until what was read in vain has been read anew.
async fn read_anew(mirror: &Mirror, before: Seen) -> Result<(), Fault> {
    let mut seen = mirror.seen.subscribe();
    if seen.borrow_and_update().loads == before.loads {
        mirror.doubted.notify_one();
    }
    match tokio::time::timeout(REQUEST_LIMIT, seen.wait_for(|seen| seen.loads != before.loads)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Fault::NotSent("etcd is at an older state than what was read of it".into())),
    }
}

/// Writes the key whose event shows how far the watch has come.
async fn nudge(client: &Client, keys: &Keys) -> Result<Revision, Fault> {
    let request = PutRequest { key: keys.progress(), ..Default::default() };
    let done: Done = client.call("/etcdserverpb.KV/Put", &request, Again::Safe).await?;
    Ok(unsigned(done.header.map_or(0, |h| h.revision)))
}

/// Answers the questions, for as long as somebody may ask.
pub async fn answer(mut questions: mpsc::Receiver<Question>, client: Arc<Client>, keys: Keys) {
    while let Some(first) = questions.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = questions.try_recv() {
            waiting.push(next);
        }
        let now = now(&client, &keys).await;
        for question in waiting {
            // Whoever has gone does not want the answer.
            drop(question.send(now.clone()));
        }
    }
}
