//! Forgetting what is old. Etcd keeps everything until it is told otherwise, so the servers tell it, by the agreement
//! that API servers have among themselves: whoever is first to advance the key `compact_rev_key` in a period compacts
//! to where etcd was a period before. So any number of servers, also of other makes, compact once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpc::Fault;

use super::client::{Again, Client};
use super::messages::{
    CompactionRequest, Compare, CompareResult, CompareTarget, Done, PutRequest, RangeRequest, Request,
    RequestOp, Response, TargetUnion, TxnRequest, TxnResponse,
};
use super::{Keys, signed, unsigned};
use crate::Revision;

pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub const TXN: &str = "/etcdserverpb.KV/Txn";

/// What a server remembers from one period to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The version that the key had.
    version: i64,
    /// Where etcd was.
    revision: Revision,
}

/// One turn a period, for ever.
pub async fn run(client: Arc<Client>, keys: Keys, period: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(period).await;
        match take_turn(&client, &keys, turn).await {
            Ok((next, compacted)) => {
                turn = next;
                if let Some(revision) = compacted {
                    tracing::debug!(revision, "compacted etcd");
                }
            }
            Err(fault) => tracing::warn!(%fault, "cannot compact etcd"),
        }
    }
}

/// What to remember, and to which revision it has compacted, if it was the first.
pub async fn take_turn(client: &Client, keys: &Keys, turn: Turn) -> Result<(Turn, Option<Revision>), Fault> {
    let key = keys.compaction();
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::Version(turn.version)),
    };
    let value = Bytes::from(turn.revision.to_string());
    let put = Request::Put(PutRequest { key: key.clone(), value, lease: 0 });
    let get = Request::Range(RangeRequest { key, ..Default::default() });
    let op = |request| vec![RequestOp { request: Some(request) }];
    let request = TxnRequest { compare: vec![compare], success: op(put), failure: op(get) };
    let answer: TxnResponse = client.call(TXN, &request, Again::Unsafe).await?;
    let revision = unsigned(answer.header.unwrap_or_default().revision);
    if !answer.succeeded {
        let first = answer.responses.into_iter().next().and_then(|r| r.response);
        let version = match first {
            Some(Response::Range(range)) => range.kvs.first().map_or(0, |kv| kv.version),
            _ => 0,
        };
        return Ok((Turn { version, revision }, None));
    }
    let next = Turn { version: turn.version + 1, revision };
    if turn.revision == 0 {
        return Ok((next, None));
    }
    let request = CompactionRequest { revision: signed(turn.revision) };
    match client.call::<_, Done>(COMPACT, &request, Again::Safe).await {
        Ok(_) => Ok((next, Some(turn.revision))),
        Err(fault) if super::is_compacted(&fault) => Ok((next, None)),
        Err(fault) => Err(fault),
    }
}
