//! Nobody hands out rights they do not have: roles and bindings are checked against the author's own.

use api::meta;
use api::status::{ApiError, Resource};
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use super::Operation;
use crate::auth::rbac::{Attributes, breadth};
use crate::{ApiServer, Context};

/// Single rights (a verb on a resource of a group, by a name) that somebody may give who has to hold them, at most.
const RIGHTS_MAX: usize = 20_000;

pub fn admit<'a>(
    server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if context.kind.group != api::kinds::RBAC_GROUP {
            return Ok(());
        }
        if !operation.is_create() && is_as_before(server, context, object).await? {
            return Ok(());
        }
        let rbac = server.0.rbac().await?;
        let namespace = context.target.namespace.as_str();
        let may = |verb: &str, resource: &str, name: &str| {
            let what = Attributes {
                verb: verb.into(),
                group: api::kinds::RBAC_GROUP.into(),
                resource: resource.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..Default::default()
            };
            rbac.allows(&context.who, &what)
        };
        let parse =
            |value: &Value| serde_json::from_value::<Vec<PolicyRule>>(value.clone()).unwrap_or_default();
        let (rules, excused) = match object.get("roleRef") {
            Some(reference) => {
                let reference: RoleRef = serde_json::from_value(reference.clone()).unwrap_or_default();
                let plural = if reference.kind == "ClusterRole" { "clusterroles" } else { "roles" };
                let excused = may("bind", plural, &reference.name);
                match rbac.role_rules(namespace, &reference) {
                    Some(rules) => (rules.to_vec(), excused),
                    // Whoever could bind to a role that is still to come could have it made into anything.
                    None if !excused => {
                        let resource = Resource { group: api::kinds::RBAC_GROUP, plural };
                        return Err(ApiError::not_found(&resource, &reference.name));
                    }
                    None => (Vec::new(), true),
                }
            }
            None => {
                let rules = parse(object.get("rules").unwrap_or(&Value::Null));
                let excused = may("escalate", &context.kind.plural, meta::name(object));
                // What a rule of aggregation gathers is not known in advance: it takes all there is.
                let gathers = object.get("aggregationRule").is_some_and(|rule| !rule.is_null());
                if gathers && !excused && !rbac.not_held(&context.who, namespace, &everything()).is_empty() {
                    let why = "must have cluster-admin privileges to use the aggregationRule";
                    return Err(ApiError::forbidden(&context.resource(), meta::name(object), why));
                }
                (rules, excused)
            }
        };
        // Each right is looked for among those that are held.
        if !excused && breadth(&rules) > RIGHTS_MAX {
            let why = format!(
                "the rules come to more than {RIGHTS_MAX} single rights, which is more than is compared with those held; make several roles of it"
            );
            return Err(ApiError::forbidden(&context.resource(), meta::name(object), &why));
        }
        let missing = if excused { Vec::new() } else { rbac.not_held(&context.who, namespace, &rules) };
        if missing.is_empty() {
            return Ok(());
        }
        let who = &context.who;
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            who.username,
            who.groups,
            missing.join("\n")
        );
        Err(ApiError::forbidden(&context.resource(), meta::name(object), &why))
    })
}

/// Whether nothing changes but who owns the object and who holds it back from going, which gives nobody anything.
async fn is_as_before(server: &ApiServer, context: &Context, object: &Value) -> Result<bool, ApiError> {
    let name = meta::name(object);
    let found = server.0.objects.find(&context.kind, &context.target.namespace, name).await?;
    let Some(found) = found else { return Ok(false) };
    let (mut before, mut after) = (Value::clone(&found), object.clone());
    for object in [&mut before, &mut after] {
        for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion"] {
            meta::unset(object, field);
        }
    }
    Ok(before == after)
}

fn everything() -> [PolicyRule; 2] {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = || vec!["*".to_owned()];
    [
        PolicyRule { api_groups: all(), resources: all(), verbs: verbs(), ..Default::default() },
        PolicyRule { non_resource_urls: all(), verbs: verbs(), ..Default::default() },
    ]
}
