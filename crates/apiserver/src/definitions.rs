//! Definitions get their names: as soon as one is written, the definitions of its group are told which names are theirs, and
//! whoever has them all is served. It is done here and not by a controller, so that a definition that was just made is served
//! when that is answered, whoever else is at work.

use std::sync::atomic::{AtomicU64, Ordering};

use ::http::{Method, Request, header};
use api::kinds::{Kind, definitions};
use api::meta;
use api::status::ApiError;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::ApiServer;
use crate::auth::{Identity, MASTERS};
use crate::http::body::full;

const GROUP: &str = "apiextensions.k8s.io";
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Names are given by one at a time; whoever comes meanwhile leaves word.
#[derive(Default)]
pub struct Naming {
    giving: tokio::sync::Mutex<()>,
    asked: AtomicU64,
}

impl ApiServer {
    /// What has to follow a write of this server's own.
    pub(crate) async fn after_write(&self, kind: &Kind, name: &str) {
        self.0.after_write(kind, name).await;
        if kind.group == GROUP {
            self.name_definitions(name.split_once('.').map(|(_, group)| group)).await;
        }
    }

    /// Gives the definitions of a group, or all, the names that are theirs.
    pub(crate) async fn name_definitions(&self, group: Option<&str>) {
        let naming = &self.0.naming;
        naming.asked.fetch_add(1, Ordering::SeqCst);
        while let Ok(giving) = naming.giving.try_lock() {
            let seen = naming.asked.load(Ordering::SeqCst);
            if let Err(error) = self.give_names(group).await {
                tracing::error!(%error, "cannot tell CustomResourceDefinitions which names are theirs");
            }
            drop(giving);
            // What was written meanwhile is looked at as well.
            if naming.asked.load(Ordering::SeqCst) == seen {
                break;
            }
        }
    }

    async fn give_names(&self, group: Option<&str>) -> Result<(), ApiError> {
        let kinds = self.0.catalog.snapshot();
        let Some(kind) = kinds.by_kind(GROUP, "CustomResourceDefinition") else { return Ok(()) };
        let mut held: Vec<(Value, CustomResourceDefinition)> = Vec::new();
        for object in
            self.0.objects.named::<Value>(kind, |name| group.is_none_or(|group| is_of(name, group))).await?
        {
            let definition = serde_json::from_value(object.clone()).map_err(ApiError::internal)?;
            held.push((object, definition));
        }
        // Who came first is asked first.
        held.sort_by_cached_key(|(object, _)| meta::text(object, "creationTimestamp").to_owned());
        for at in 0..held.len() {
            let (object, definition) = &held[at];
            if meta::is_deleting(object) {
                continue;
            }
            let others: Vec<&CustomResourceDefinition> = held.iter().map(|(_, other)| other).collect();
            let status = definitions::settled(definition, &others, base::time::now());
            if definition.status.as_ref() == Some(&status) {
                continue;
            }
            let mut object = object.clone();
            object["status"] = serde_json::to_value(&status).map_err(ApiError::internal)?;
            self.tell(&object).await?;
            held[at].1.status = Some(status);
        }
        Ok(())
    }

    async fn tell(&self, object: &Value) -> Result<(), ApiError> {
        let uri = format!("{PATH}/{}/status?fieldManager=kube-apiserver", meta::name(object));
        let request = Request::builder()
            .method(Method::PUT)
            .uri(&uri)
            .header(header::CONTENT_TYPE, "application/json")
            .body(full(object.to_string()))
            .map_err(ApiError::internal)?;
        let answer = self.handle(request, Some(Identity::new("system:apiserver", &[MASTERS]))).await;
        match answer.status().as_u16() {
            // Gone, or written by somebody whose write is looked at next.
            200 | 404 | 409 => Ok(()),
            code => Err(ApiError::internal(format!("{uri}: {code}"))),
        }
    }
}

/// Whether a definition's name is one of a group, or of a group below it.
fn is_of(name: &str, group: &str) -> bool {
    name.strip_suffix(group).is_some_and(|plural| plural.ends_with('.'))
}
