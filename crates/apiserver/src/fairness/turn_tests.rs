//! What a turn costs that nobody has to wait for.

use super::*;
use crate::bootstrap::flowcontrol;

fn typed<T: serde::de::DeserializeOwned>(objects: Vec<serde_json::Value>) -> Vec<T> {
    objects.into_iter().map(|object| serde_json::from_value(object).expect("an object")).collect()
}

#[tokio::test]
async fn a_turn_that_is_free_costs_little() {
    let fairness = Fairness::new(&RequestLimits { seats: Some(100), ..RequestLimits::default() });
    let plan = fairness.compile(&typed(flowcontrol::schemas()), &typed(flowcontrol::levels()));
    let what = Attributes {
        verb: "get".into(),
        resource: "pods".into(),
        namespace: "a".into(),
        ..Default::default()
    };
    let who = Identity::new("jane", &[]);
    const TURNS: u32 = 20_000;
    let begun = Instant::now();
    for _ in 0..TURNS {
        let turn = fairness.turn(&plan, &who, &what, "v1", async |_: &Level| 1).await;
        assert!(turn.is_ok_and(|turn| turn.place.is_some()));
    }
    let cost = begun.elapsed() / TURNS;
    println!("a turn costs {cost:?}");
    // Some microseconds where it counts, more without optimisation on a busy machine.
    assert!(cost < Duration::from_micros(500), "{cost:?}");
    assert!(plan.levels.iter().all(|level| level.state.lock().known.is_empty()), "a place is left behind");
}
