//! Pods stay five minutes on a node that is not ready or cannot be reached, unless they say otherwise.

use api::status::ApiError;
use base::constants::taints::{NOT_READY, UNREACHABLE};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Operation, is_pod};
use crate::{ApiServer, Context};

const SECONDS: i64 = 300;

pub fn admit<'a>(
    _server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    _operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if is_pod(context) && object["spec"].is_object() {
            tolerate(&mut object["spec"]);
        }
        Ok(())
    })
}

fn tolerate(spec: &mut Value) {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for taint in [NOT_READY, UNREACHABLE] {
        let covers = |t: &Value| {
            let key = t["key"].as_str().unwrap_or_default();
            let effect = t["effect"].as_str().unwrap_or_default();
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if !tolerations.iter().any(covers) {
            let toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            tolerations.push(toleration);
        }
    }
    spec["tolerations"] = Value::Array(tolerations);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let mut spec = json!({"tolerations": [{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]});
        tolerate(&mut spec);
        assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
        assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 1);
        let mut all = json!({"tolerations": [{"operator": "Exists"}]});
        tolerate(&mut all);
        assert_eq!(all["tolerations"].as_array().map(Vec::len), Some(1));
    }
}
