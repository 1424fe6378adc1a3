//! The queues as data: arrivals, seats, time.

use super::*;

const QUEUING: Queuing = Queuing { queues: 16, hand_size: 4, length_limit: 50 };

fn set(queuing: Option<Queuing>, limit: u32) -> QueueSet {
    let mut set = QueueSet::default();
    set.configure(queuing, limit);
    set
}

/// Flows that keep so many requests waiting each, for some seconds: how much each was served. A request takes its
/// flow's seats for its flow's time.
fn served(limit: u32, seconds: f64, flows: &[(u64, usize, u32, f64)]) -> Vec<f64> {
    let mut set = set(Some(Queuing { queues: 128, hand_size: 6, length_limit: 200 }), limit);
    let mut owner = HashMap::new();
    let mut ends: Vec<(f64, RequestId)> = Vec::new();
    let mut out = vec![0.0; flows.len()];
    let mut refill: Vec<usize> = flows.iter().enumerate().flat_map(|(i, f)| vec![i; f.1]).collect();
    let mut now = 0.0;
    while now < seconds {
        for flow in std::mem::take(&mut refill) {
            let (hash, _, seats, length) = flows[flow];
            match set.arrive(now, hash, seats) {
                Arrival::Runs(id) => {
                    owner.insert(id, flow);
                    ends.push((now + length, id));
                }
                Arrival::Waits(id) => drop(owner.insert(id, flow)),
                Arrival::Refused(why) => panic!("{why:?}"),
            }
        }
        for id in set.dispatch(now) {
            ends.push((now + flows[owner[&id]].3, id));
        }
        ends.sort_by(|a, b| b.0.total_cmp(&a.0));
        let Some((at, id)) = ends.pop() else { break };
        now = at;
        set.leave(now, id);
        let flow = owner.remove(&id).expect("one of ours");
        out[flow] += f64::from(flows[flow].2) * flows[flow].3;
        refill.push(flow);
    }
    out
}

#[test]
fn a_hand_has_different_queues_and_is_the_same_each_time() {
    let mut seen = std::collections::BTreeSet::new();
    for hash in (0..2000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let dealt = hand(hash, QUEUING);
        assert_eq!(dealt, hand(hash, QUEUING));
        let different: std::collections::BTreeSet<usize> = dealt.iter().copied().collect();
        assert_eq!((dealt.len(), different.len()), (4, 4), "{dealt:?}");
        assert!(dealt.iter().all(|q| *q < 16), "{dealt:?}");
        seen.extend(dealt);
    }
    assert_eq!(seen.len(), 16, "every queue is dealt to somebody");
    assert_eq!(hand(7, Queuing { queues: 1, hand_size: 1, length_limit: 1 }), [0]);
    assert_eq!(
        hand(u64::MAX, Queuing { queues: 10_000_000, hand_size: 10_000_000, length_limit: 1 }).len(),
        HAND_MAX
    );
}

#[test]
fn seats_are_given_out_up_to_the_limit_and_then_there_is_a_queue() {
    let mut set = set(Some(Queuing { queues: 1, hand_size: 1, length_limit: 2 }), 2);
    let first = set.arrive(0.0, 1, 1);
    assert!(matches!(first, Arrival::Runs(0)) && matches!(set.arrive(0.0, 1, 1), Arrival::Runs(1)));
    assert_eq!(set.arrive(0.0, 1, 1), Arrival::Waits(2));
    assert_eq!(set.arrive(0.0, 1, 1), Arrival::Waits(3));
    assert_eq!(set.arrive(0.0, 1, 1), Arrival::Refused(Refusal::QueueFull));
    assert_eq!((set.demand(), set.waiting(), set.place(3)), (5, 2, Some((0, 1))));
    assert_eq!(set.dispatch(0.1), [] as [RequestId; 0], "nobody has left");
    // One who waited has had enough, one who ran has ended: the other's turn.
    set.leave(0.2, 2);
    set.leave(0.2, 0);
    assert_eq!(set.dispatch(0.2), [3]);
    set.leave(0.3, 1);
    set.leave(0.3, 3);
    set.leave(0.3, 3);
    assert_eq!((set.in_use, set.running(), set.waiting(), set.active().count()), (0, 0, 0, 0));
}

#[test]
fn without_queues_what_finds_no_seat_is_refused() {
    let mut set = set(None, 1);
    assert_eq!(set.arrive(0.0, 1, 1), Arrival::Runs(0));
    assert_eq!(set.arrive(0.0, 2, 1), Arrival::Refused(Refusal::ConcurrencyLimit));
    set.leave(0.1, 0);
    assert!(matches!(set.arrive(0.1, 2, 1), Arrival::Runs(_)));
    set.set_limit(0);
    set.leave(0.1, 2);
    assert!(matches!(set.arrive(0.2, 2, 1), Arrival::Refused(_)), "a level without seats serves nobody");
}

#[test]
fn a_wide_request_is_not_overtaken_and_one_wider_than_all_runs_alone() {
    let mut set = set(Some(QUEUING), 4);
    assert_eq!(set.arrive(0.0, 1, 3), Arrival::Runs(0));
    assert_eq!(set.arrive(0.0, 2, 10), Arrival::Waits(1), "wider than all there is");
    assert_eq!(set.arrive(0.0, 3, 1), Arrival::Waits(2), "there is room for it, but not its turn");
    set.leave(1.0, 0);
    let order = set.dispatch(1.0);
    assert!(order == [2] || order == [1], "{order:?}");
    for id in order {
        set.leave(2.0, id);
    }
    assert_eq!(set.dispatch(2.0).len(), 1);
}

#[test]
fn flows_that_want_more_than_there_is_get_the_same_whatever_they_send() {
    // One sends ten times as many; one sends few wide ones, one many short ones.
    for flows in [
        [(11, 100, 1, 0.01), (29, 10, 1, 0.01)],
        [(11, 20, 4, 0.01), (29, 20, 1, 0.01)],
        [(11, 20, 1, 0.1), (29, 60, 1, 0.002)],
    ] {
        let flows = flows.map(|(n, waiting, seats, long): (u64, usize, u32, f64)| {
            (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), waiting, seats, long)
        });
        let out = served(5, 60.0, &flows);
        let ratio = out[0] / out[1];
        // Each stands in as many queues as its hand has.
        assert!((0.5..2.0).contains(&ratio), "{flows:?}: {out:?}");
    }
}

#[test]
fn a_flow_that_wants_little_does_not_wait_for_one_that_wants_much() {
    let mut set = set(Some(Queuing { queues: 64, hand_size: 6, length_limit: 50 }), 2);
    let flood = 3_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut running: VecDeque<RequestId> = VecDeque::new();
    for _ in 0..250 {
        if let Arrival::Runs(id) = set.arrive(0.0, flood, 1) {
            running.push_back(id);
        }
    }
    let Arrival::Waits(mine) = set.arrive(0.0, 17_u64.wrapping_mul(0xd134_2543_de82_ef95), 1) else {
        panic!("there is no room");
    };
    // Two end every 10 ms: it comes long before the 250 that were there.
    let mut now = 0.0;
    for round in 0..20 {
        now += 0.01;
        while let Some(id) = running.pop_front() {
            set.leave(now, id);
        }
        running.extend(set.dispatch(now));
        if running.contains(&mine) {
            assert!(round < 6, "it came in round {round}");
            return;
        }
    }
    panic!("it never came");
}

#[test]
fn nothing_is_lost_or_left_behind_whatever_happens() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut set = set(Some(Queuing { queues: 8, hand_size: 3, length_limit: 4 }), 5);
    let (mut running, mut waiting): (Vec<RequestId>, Vec<RequestId>) = (Vec::new(), Vec::new());
    let mut now = 0.0;
    for _ in 0..20_000 {
        now += random(10) as f64 / 1000.0;
        match random(4) {
            0 | 1 => match set.arrive(now, random(20), 1 + u32::try_from(random(3)).expect("small")) {
                Arrival::Runs(id) => running.push(id),
                Arrival::Waits(id) => waiting.push(id),
                Arrival::Refused(_) => {}
            },
            2 if !running.is_empty() => {
                let at = usize::try_from(random(running.len() as u64)).expect("small");
                set.leave(now, running.swap_remove(at));
            }
            3 if !waiting.is_empty() => {
                let at = usize::try_from(random(waiting.len() as u64)).expect("small");
                set.leave(now, waiting.swap_remove(at));
            }
            _ => set.set_limit(u32::try_from(1 + random(8)).expect("small")),
        }
        for id in set.dispatch(now) {
            waiting.retain(|w| *w != id);
            running.push(id);
        }
        assert_eq!((set.running(), set.waiting()), (running.len(), waiting.len()));
        assert!(waiting.is_empty() || !running.is_empty(), "they wait for nobody");
    }
    for id in running.into_iter().chain(waiting) {
        set.leave(now, id);
        set.dispatch(now).into_iter().for_each(|id| set.leave(now, id));
    }
    assert_eq!((set.in_use, set.waiting(), set.active().count()), (0, 0, 0));
}
