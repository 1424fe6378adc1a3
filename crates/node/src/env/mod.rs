//! The environment of a container, rendered purely from the pod, the objects it names, and the services around it.

mod expand;
mod field;
mod resource;
mod service;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Service};

use crate::objects::{ObjectError, Objects};

pub use expand::expand;
pub use field::{FieldContext, field_value};
pub use resource::resource_value;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
}

/// All that the environment depends on.
pub struct EnvInput<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub fields: &'a FieldContext,
    pub objects: &'a Objects,
    /// Services of the cluster; those that concern the pod are picked.
    pub services: &'a [std::sync::Arc<Service>],
}

/// The variables in order: services, then `envFrom`, then `env`, each overriding what came before it.
pub fn environment(input: &EnvInput<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = input.pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = input.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = service::variables(input.services, namespace, links);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for source in input.container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let pairs = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => input.objects.config_map_pairs(&map.name, map.optional.unwrap_or(false))?,
            (None, Some(secret)) => {
                input.objects.secret_pairs(&secret.name, secret.optional.unwrap_or(false))?
            }
            (None, None) => continue,
        };
        for (key, value) in pairs {
            let name = format!("{prefix}{key}");
            if is_variable_name(&name) {
                known.insert(name, value);
            }
        }
    }
    let mut order: Vec<String> = known.keys().cloned().collect();
    for variable in input.container.env.iter().flatten() {
        let Some(value) = variable_value(variable, input, &known, &services)? else { continue };
        order.retain(|name| *name != variable.name);
        order.push(variable.name.clone());
        known.insert(variable.name.clone(), value);
    }
    let mut all: Vec<(String, String)> =
        services.into_iter().filter(|(name, _)| !known.contains_key(name)).collect();
    all.extend(order.into_iter().filter_map(|name| known.remove_entry(&name)));
    Ok(all)
}

/// `None`: an optional source that is not there leaves the variable unset.
fn variable_value(
    variable: &EnvVar,
    input: &EnvInput<'_>,
    known: &BTreeMap<String, String>,
    services: &BTreeMap<String, String>,
) -> Result<Option<String>, EnvError> {
    let Some(source) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, |name| known.get(name).or_else(|| services.get(name)).cloned())));
    };
    if let Some(field) = &source.field_ref {
        return field_value(input.pod, input.fields, &field.field_path)
            .map(Some)
            .ok_or_else(|| EnvError::Field(field.field_path.clone()));
    }
    if let Some(resource) = &source.resource_field_ref {
        let containers = input
            .pod
            .spec
            .iter()
            .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let named = resource.container_name.as_deref().filter(|name| !name.is_empty());
        let container = match named {
            Some(name) => containers.into_iter().find(|c| c.name == name).unwrap_or(input.container),
            None => input.container,
        };
        return resource_value(container, resource, input.fields)
            .map(Some)
            .ok_or_else(|| EnvError::Resource(resource.resource.clone()));
    }
    if let Some(key) = &source.config_map_key_ref {
        return Ok(input.objects.config_map_key(&key.name, &key.key, key.optional.unwrap_or(false))?);
    }
    if let Some(key) = &source.secret_key_ref {
        return Ok(input.objects.secret_key(&key.name, &key.key, key.optional.unwrap_or(false))?);
    }
    Ok(Some(String::new()))
}

/// Anything printable without `=`; keys that are not are left out, as the kubelet does.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

#[cfg(test)]
mod tests;
