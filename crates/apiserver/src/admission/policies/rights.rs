//! `authorizer` in expressions: asks the roles and bindings as they were when the request was judged.

use std::sync::Arc;

use cel::{Authorizer, Decision, Question};

use crate::auth::rbac::{Attributes, Snapshot};
use crate::auth::{AUTHENTICATED, Identity};

pub struct Rights {
    pub rbac: Arc<Snapshot>,
    pub who: Identity,
}

impl Authorizer for Rights {
    fn check(&self, question: &Question) -> Decision {
        let account;
        let who = match &question.service_account {
            None => &self.who,
            Some((namespace, name)) => {
                account = Identity {
                    username: format!("system:serviceaccount:{namespace}:{name}"),
                    groups: vec![
                        "system:serviceaccounts".into(),
                        format!("system:serviceaccounts:{namespace}"),
                        AUTHENTICATED.into(),
                    ],
                    ..Default::default()
                };
                &account
            }
        };
        let what = match &question.path {
            Some(path) => {
                Attributes { verb: question.verb.clone(), path: path.clone(), ..Default::default() }
            }
            None => Attributes {
                verb: question.verb.clone(),
                resource: question.resource.clone(),
                subresource: question.subresource.clone(),
                group: question.group.clone(),
                namespace: question.namespace.clone(),
                name: question.name.clone(),
                ..Default::default()
            },
        };
        Decision { allowed: self.rbac.allows(who, &what), ..Default::default() }
    }
}
