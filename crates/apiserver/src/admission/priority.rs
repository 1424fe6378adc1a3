//! A pod's priority class becomes a number; a name that nobody defined is refused.

use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;
use store::RangeRequest;

use super::attributes::Attributes;
use super::{Operation, forbid, is_pod, refused};
use crate::objects::store_error;
use crate::{ApiServer, Context};

pub fn admit<'a>(
    server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if !is_pod(context) || !operation.is_create() || !object["spec"].is_object() {
            return Ok(());
        }
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.by_kind("scheduling.k8s.io", "PriorityClass").ok_or_else(ApiError::no_such_path)?;
        let wanted = object["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = match wanted.as_str() {
            "" => default_class(server, kind).await?,
            name => match server.0.objects.get(kind, "", name).await? {
                Some((_, class)) => Some(typed(class)?),
                None => {
                    let why = format!("no PriorityClass with name {name} was found");
                    return Err(ApiError::forbidden(&context.resource(), meta::name(object), &why));
                }
            },
        };
        let class = class.as_ref();
        let computed = class.and_then(|c| c.value).unwrap_or(0);
        let policy = class.and_then(|c| c.preemption_policy.clone());
        let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
        let name = class.and_then(|c| c.metadata.name.clone());
        if let Some(given) = object["spec"]["priority"].as_i64().filter(|given| *given != i64::from(computed))
        {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {computed} from the given PriorityClass name"
            );
            return Err(forbid(context, object, &why));
        }
        if let Some(given) = object["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(forbid(context, object, &why));
        }
        let spec = &mut object["spec"];
        spec["priority"] = computed.into();
        if let Some(name) = name {
            spec["priorityClassName"] = name.into();
        }
        spec["preemptionPolicy"] = policy.into();
        Ok(())
    })
}

fn typed(class: Value) -> Result<PriorityClass, ApiError> {
    serde_json::from_value(class).map_err(ApiError::internal)
}

/// The class of pods that name none. The bytes tell of most classes that they are not it.
async fn default_class(server: &ApiServer, kind: &Kind) -> Result<Option<PriorityClass>, ApiError> {
    let objects = &server.0.objects;
    let request = RangeRequest { prefix: kind.key("", ""), ..Default::default() };
    let range = objects.store.range(request).await.map_err(store_error)?;
    objects.unlock(&range.entries).await?;
    let mut default: Option<PriorityClass> = None;
    for entry in &range.entries {
        if !objects.plain(entry)?.windows(MARK.len()).any(|bytes| bytes == MARK) {
            continue;
        }
        let class = typed(objects.decode(entry)?)?;
        if class.global_default == Some(true) && default.as_ref().is_none_or(|d| d.value <= class.value) {
            default = Some(class);
        }
    }
    Ok(default)
}

/// What stands in each class that is a default.
const MARK: &[u8] = b"\"globalDefault\":true";

/// There is one default class, or none.
pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    _old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let classes = attributes.is("scheduling.k8s.io", "priorityclasses");
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|o| classes && writes && o["globalDefault"] == true) else {
            return Ok(());
        };
        let held: Vec<PriorityClass> = server.0.objects.all(&attributes.context.kind).await?;
        let default =
            held.into_iter().filter(|c| c.global_default == Some(true)).find_map(|c| c.metadata.name);
        match default.filter(|name| attributes.operation.is_create() || name != meta::name(object)) {
            Some(name) => {
                let why =
                    format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(refused(attributes, &why))
            }
            None => Ok(()),
        }
    })
}
