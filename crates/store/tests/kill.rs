//! `kill -9` under load: a child process writes and says what was acknowledged over a pipe, and is killed at a random
//! moment, again and again on the same file: half of the times once it writes, half from its start on, which is while it opens
//! the file and recovers. Every other file forgets its history at once, so that it is killed while it compacts as well. After
//! each time, what it had said is there, whole, and the history tells each writer's story without a gap. `KEDGE_KILLS=<n>` kills
//! as often as that.
//!
//! A program of its own rather than a test function, because it starts itself as the child.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use store::{Embedded, EmbeddedOptions, Expect, Op, RangeRequest, Revision, Store, StoreError, TxnResponse};

const KILLS: u64 = 1000;
const WRITERS: u64 = 6;
/// A fresh file after so many, so that opening it stays quick.
const KILLS_PER_FILE: u64 = 25;
const LIFE_LIMIT_MS: u64 = 40;

/// A child that keeps no history.
const FORGETFUL: &str = "forgetful";

/// When a child is killed, counted from when.
#[derive(Clone, Copy)]
enum Life {
    OfItsStart(Duration),
    OfItsFirstWord(Duration),
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, child, path, history] = &args[..]
        && child == "child"
    {
        return write_for_ever(Path::new(path), history == FORGETFUL);
    }
    if args.iter().any(|arg| arg == "--list") {
        println!("kill: test");
        return;
    }
    let kills = std::env::var("KEDGE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let started = Instant::now();
    let (mut acknowledged, mut silent, mut compacted) = (0, 0, 0);
    let mut random =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_micros() as u64);
    let mut done = 0;
    while done < kills {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.redb");
        let mut known = BTreeMap::new();
        let history = if (done / KILLS_PER_FILE).is_multiple_of(2) { "whole" } else { FORGETFUL };
        for _ in 0..KILLS_PER_FILE.min(kills - done) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let life = Duration::from_micros((random >> 33) % (LIFE_LIMIT_MS * 1000));
            let life =
                if done.is_multiple_of(2) { Life::OfItsFirstWord(life) } else { Life::OfItsStart(life) };
            let said = live_and_die(&path, history, life);
            silent += usize::from(said.is_empty());
            acknowledged += said.len();
            known.extend(said);
            compacted += usize::from(check(&path, &mut known));
            done += 1;
        }
    }
    assert!(acknowledged > 0, "no load at all");
    assert!(
        kills < KILLS || silent > 0 && compacted > 0,
        "{silent} killed before they wrote, {compacted} had forgotten something"
    );
    println!(
        "{kills} kills ({silent} before the first write, {compacted} after history was forgotten), {acknowledged} acknowledged transactions, none lost, in {:.1} s",
        started.elapsed().as_secs_f64()
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn keys(writer: u64) -> [String; 2] {
    [format!("/w/{writer}"), format!("/w/{writer}-beside")]
}

/// The child: each writer counts up in two keys at once, and says so when it is acknowledged.
fn write_for_ever(path: &Path, is_forgetful: bool) {
    let mut options = EmbeddedOptions::default();
    if is_forgetful {
        options.history.time = Duration::ZERO;
    }
    let store = Embedded::open(path, options).expect("opens");
    runtime().block_on(async {
        let writers = (0..WRITERS).map(|writer| {
            let store = &store;
            async move {
                let [key, beside] = keys(writer);
                let held = store.get(&key).await.expect("answers").0;
                let mut n = held.map_or(0, |e| String::from_utf8_lossy(&e.value).parse().unwrap_or(0_u64));
                loop {
                    n += 1;
                    let put = |key: &str| Op::put(key, n.to_string(), Expect::Anything);
                    match store.txn(vec![put(&key), put(&beside)]).await {
                        Ok(TxnResponse::Committed { revision }) => {
                            let mut out = std::io::stdout().lock();
                            // A pipe that nobody reads any more: we are about to be killed.
                            if writeln!(out, "{revision} {writer} {n}").and_then(|()| out.flush()).is_err() {
                                return;
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        });
        futures::future::join_all(writers).await;
    });
}

/// Starts a child, kills it, and gives what it has said: by revision, who wrote what.
fn live_and_die(path: &Path, history: &str, life: Life) -> BTreeMap<Revision, (u64, u64)> {
    let program = std::env::current_exe().expect("ourselves");
    let mut command = Command::new(program);
    command.arg("child").arg(path).arg(history).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut first = String::new();
    let life = match life {
        Life::OfItsStart(life) => life,
        Life::OfItsFirstWord(life) => {
            lines.read_line(&mut first).expect("its first word");
            life
        }
    };
    let killer = std::thread::spawn(move || {
        std::thread::park_timeout(life);
        child.kill().expect("killed");
        child.wait().expect("reaped");
    });
    if first.is_empty() {
        lines.read_line(&mut first).expect("its first word, or its end");
    }
    let mut said = BTreeMap::new();
    let mut line = first;
    // A line without its end was cut off by the kill.
    while line.ends_with('\n') {
        let numbers: Vec<u64> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        said.insert(numbers[0], (numbers[1], numbers[2]));
        line.clear();
        if lines.read_line(&mut line).expect("reads") == 0 {
            break;
        }
    }
    killer.join().expect("the killer");
    said
}

/// Whether some of the history was forgotten.
fn check(path: &Path, known: &mut BTreeMap<Revision, (u64, u64)>) -> bool {
    let store = Embedded::open(path, EmbeddedOptions::default()).expect("opens after a kill");
    runtime().block_on(async {
        let mut is_compacted = false;
        let mut watch = match store.watch("/w/", 0) {
            Ok(watch) => watch,
            Err(StoreError::Compacted { compacted, .. }) => {
                is_compacted = true;
                store.watch("/w/", compacted).expect("watches")
            }
            Err(error) => panic!("{error}"),
        };
        let mut story = BTreeMap::<Revision, Vec<(String, u64)>>::new();
        let mut last = 0;
        while watch.progress() < store.revision() {
            for event in watch.next().await.expect("events") {
                assert!(event.revision >= last, "out of order: {} after {last}", event.revision);
                last = event.revision;
                let n = String::from_utf8_lossy(&event.entry.value).parse().expect("a number");
                story.entry(event.revision).or_default().push((event.entry.key.to_string(), n));
            }
        }
        let mut counts = BTreeMap::<u64, u64>::new();
        for (revision, events) in &story {
            let [(key, n), (beside, m)] = &events[..] else {
                panic!("half a transaction at {revision}: {events:?}")
            };
            assert!(n == m && *beside == format!("{key}-beside"), "not whole at {revision}: {events:?}");
            let writer: u64 = key.trim_start_matches("/w/").parse().expect("a writer");
            let before = counts.insert(writer, *n);
            assert!(before.is_none_or(|before| before + 1 == *n), "a gap in {writer}'s story at {revision}");
            known.insert(*revision, (writer, *n));
        }
        let oldest = story.keys().next().copied().unwrap_or(store.revision() + 1);
        for (revision, (writer, n)) in known.range(oldest..) {
            let told = story.get(revision).and_then(|events| events.first());
            assert_eq!(told, Some(&(keys(*writer)[0].clone(), *n)), "acknowledged at {revision} and lost");
        }
        // Replayed in revision order, that is what is there.
        let mut replayed = BTreeMap::new();
        for (writer, n) in known.values() {
            replayed.extend(keys(*writer).map(|key| (key, n.to_string().into_bytes())));
        }
        let request = RangeRequest { prefix: "/w/".into(), ..Default::default() };
        let there = store.range(request).await.expect("answers").entries;
        let there: BTreeMap<_, _> =
            there.into_iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect();
        if !is_compacted {
            assert_eq!(there, replayed);
        }
        // What was written last and never acknowledged may be forgotten as history; of each writer there is no less than was said,
        // and in both keys the same.
        let number = |key: &String| -> u64 {
            there.get(key).map_or(0, |value| String::from_utf8_lossy(value).parse().expect("a number"))
        };
        for writer in 0..WRITERS {
            let [key, beside] = keys(writer);
            let said = known.values().rev().find(|(other, _)| *other == writer).map_or(0, |(_, n)| *n);
            assert!(
                number(&key) >= said && number(&key) == number(&beside),
                "{writer} had said {said}: {there:?}"
            );
        }
        is_compacted
    })
}
