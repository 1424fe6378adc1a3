//! Claims, volumes and their classes of attributes come with the finalizer that holds them while they are used: no moment passes without it. The
//! controllers that take it off again are in `controllers`.

use api::meta;
use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::Operation;
use crate::{ApiServer, Context};

const FINALIZERS: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub fn admit<'a>(
    _server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let kind = &context.kind;
        let of_kind = FINALIZERS.iter().find(|(g, plural, _)| kind.group == *g && kind.plural == *plural);
        let Some((_, _, finalizer)) = of_kind.filter(|_| operation.is_create()) else { return Ok(()) };
        let mut all: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
        if !all.iter().any(|f| f == finalizer) {
            all.push((*finalizer).to_owned());
            meta::set(object, "finalizers", all);
        }
        Ok(())
    })
}
