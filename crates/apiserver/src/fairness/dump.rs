//! What runs and what waits, as text for people: `/debug/api_priority_and_fairness/…`, laid out as the original lays it out.

use std::sync::Arc;

use ::http::StatusCode;
use jiff::Timestamp;

use super::level::{Known, Level, LevelState};
use super::queues::RequestId;
use super::{Fairness, Plan};
use crate::http::query::Query;
use crate::http::respond::{self, Answer};

const PREFIX: &str = "/debug/api_priority_and_fairness/";
/// Of a level with more queues than this only those that are not idle are shown.
const QUEUES_SHOWN_MAX: usize = 1024;

const LEVELS: &[&str] = &[
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: &[&str] = &[
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: &[&str] = &[
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: &[&str] =
    &["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

type Row = Vec<String>;

fn heads(names: &[&str]) -> Row {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// In columns, with commas.
fn table(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            match i + 1 == columns {
                true => out += cell,
                false => out += &format!("{:<width$}", format!("{cell},"), width = widths[i] + 2),
            }
        }
        out.push('\n');
    }
    out
}

fn level_row(level: &Level, state: &LevelState) -> Row {
    let waiting = state.set.waiting();
    let running = state.set.running();
    let active = state.set.active().filter(|(_, queue)| queue.len() > 0).count();
    let idle = waiting + running == 0;
    let mut row = vec![level.name.clone(), active.to_string(), idle.to_string(), state.quiescing.to_string()];
    row.extend([waiting, running].map(|n| n.to_string()));
    row.extend([state.dispatched, state.refused, state.timed_out, state.cancelled].map(|n| n.to_string()));
    row
}

fn queue_rows(level: &Level, state: &LevelState) -> Vec<Row> {
    let Some(queuing) = state.set.queuing() else { return Vec::new() };
    let active: std::collections::BTreeMap<usize, _> = state.set.active().collect();
    let shown: Vec<usize> = match queuing.queues <= QUEUES_SHOWN_MAX {
        true => (0..queuing.queues).collect(),
        false => active.keys().copied().collect(),
    };
    let row = |at: usize| {
        let queue = active.get(&at);
        let (seats, widest) = queue.map_or((0, 0), |q| q.seats_ahead());
        let start = queue.map_or(0.0, |q| q.start);
        let work = queue.map_or(0.0, |q| q.work());
        vec![
            level.name.clone(),
            at.to_string(),
            queue.map_or(0, |q| q.len()).to_string(),
            queue.map_or(0, |q| q.running).to_string(),
            queue.map_or(0, |q| q.seats_in_use).to_string(),
            format!("{start:.8}ss"),
            seats.to_string(),
            widest.to_string(),
            format!("{work:.8}ss"),
        ]
    };
    shown.into_iter().map(row).collect()
}

fn request_row(level: &Level, state: &LevelState, id: RequestId, known: &Known, details: bool) -> Row {
    let digest = &known.digest;
    let place = state.set.place(id);
    let (queue, index) = place.map_or(("-1".into(), "-1".into()), |(q, i)| (q.to_string(), i.to_string()));
    let began = known.began.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), shown);
    let mut row = vec![level.name.clone(), digest.schema.to_string(), queue, index, digest.flow.clone()];
    row.extend([shown(known.arrived), digest.seats.to_string(), "0".into(), "0s".into(), began]);
    if details {
        let what = &digest.what;
        let version = if what.is_resource() { digest.version.as_str() } else { "" };
        let cells = [
            &digest.user,
            &what.verb,
            &what.path,
            &what.namespace,
            &what.name,
            version,
            &what.resource,
            &what.subresource,
        ];
        row.extend(cells.map(plain));
    }
    row
}

/// What somebody has chosen must not look like another line or column.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == ',' { '\u{fffd}' } else { c }).collect()
}

fn shown(time: Timestamp) -> String {
    time.to_string()
}

fn all(levels: &[Arc<Level>], head: Row, rows: impl Fn(&Level, &LevelState) -> Vec<Row>) -> String {
    let rows = levels.iter().flat_map(|level| rows(level, &level.state.lock()));
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

impl Fairness {
    /// The page at a path, if it is one of these.
    pub fn page(&self, plan: &Plan, path: &str, query: &Query) -> Option<Answer> {
        let levels = &plan.levels;
        let text = match path.strip_prefix(PREFIX)? {
            "dump_priority_levels" => all(levels, heads(LEVELS), |l, s| vec![level_row(l, s)]),
            "dump_queues" => all(levels, heads(QUEUES), queue_rows),
            "dump_requests" => {
                let details = query.get("includeRequestDetails").is_some_and(|v| !v.is_empty());
                let names = [REQUESTS, if details { DETAILS } else { &[] }].concat();
                all(levels, heads(&names), |level, state| {
                    let mut known: Vec<_> = state.known.iter().collect();
                    known.sort_by_key(|(id, _)| **id);
                    known.into_iter().map(|(id, k)| request_row(level, state, *id, k, details)).collect()
                })
            }
            _ => return None,
        };
        Some(respond::bytes(StatusCode::OK, "text/plain; charset=utf-8", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let rows =
            [vec!["A".to_owned(), "Long".into(), "C".into()], vec!["bbb".into(), "1".into(), "x,".into()]];
        assert_eq!(table(&rows), "A,   Long, C\nbbb, 1,    x,\n");
        assert_eq!(plain("a\nb,c"), "a\u{fffd}b\u{fffd}c");
    }
}
