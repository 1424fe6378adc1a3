//! What is told in the audit of a hook that was asked: that it changed the object, or not; its patch, where bodies are told;
//! and that it failed and the operation went on all the same.

use serde::Serialize;
use serde_json::Value;

use super::hook::{Hook, Role};
use crate::audit::{Layer, Level, annotate, annotate_from};

/// The parts stand in the order in which the original writes them.
#[derive(Serialize)]
struct Mutation<'a> {
    configuration: &'a str,
    webhook: &'a str,
    mutated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Patch<'a> {
    configuration: &'a str,
    webhook: &'a str,
    patch: &'a Value,
    patch_type: &'a str,
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Which call of which hook it is: the round (those that ask for it are asked once more) and the place in the order.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub role: Role,
    pub round: usize,
    pub index: usize,
}

impl Call {
    fn key(self, prefix: &str) -> String {
        let Self { round, index, .. } = self;
        format!("{prefix}webhook.admission.k8s.io/round_{round}_index_{index}")
    }

    pub fn layer(self) -> Layer {
        match self.role {
            Role::Mutating => Layer::MutatingWebhook,
            Role::Validating => Layer::ValidatingWebhook,
        }
    }

    /// Of one that may change objects, whether it did.
    pub fn tell_mutation(self, hook: &Hook, mutated: bool) {
        annotate_from(Level::Metadata, self.key("mutation."), || {
            text(&Mutation { configuration: &hook.configuration, webhook: &hook.name, mutated })
        });
    }

    pub fn tell_patch(self, hook: &Hook, patch: &Value) {
        annotate_from(Level::Request, self.key("patch."), || {
            let (configuration, webhook) = (&hook.configuration, &hook.name);
            text(&Patch { configuration, webhook, patch, patch_type: "JSONPatch" })
        });
    }

    pub fn tell_failed_open(self, hook: &Hook) {
        let prefix = match self.role {
            Role::Mutating => "failed-open.mutation.",
            Role::Validating => "failed-open.validating.",
        };
        annotate(self.key(prefix), hook.name.as_str());
    }
}
