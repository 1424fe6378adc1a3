//! Certificate requests: those of agents for themselves are approved when they may ask for them, approved ones are signed
//! by whoever holds the authority's key, and all of them go after a while.

mod plan;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use api::csr::{self, Request};
use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::DeleteParams;

use crate::context::{self, Context, now};
use crate::meta;
use plan::Step;

/// Holds the authority's key; the only one who does.
pub trait CertificateSigner: Debug + Send + Sync + 'static {
    /// A certificate for what a request asks for, as PEM.
    fn sign(&self, request: &Request, usages: &[String], lifetime_seconds: i64) -> Result<String, String>;
}

/// So long a certificate lives unless less was asked for.
const LIFETIME_SECONDS: i64 = 365 * 24 * 3600;

pub fn start(context: &Context) -> Vec<Controller> {
    let requests = context.caches.of::<CertificateSigningRequest>();
    let reconciler = Requests { context: context.clone(), requests: Arc::clone(&requests) };
    vec![Controller::new("certificatesigningrequest", reconciler).owns_kind(&requests)]
}

struct Requests {
    context: Context,
    requests: Arc<Cache<CertificateSigningRequest>>,
}

impl Reconciler for Requests {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(request) = self.requests.get(&key) else { return Ok(Next::OnChange) };
            let api: Api<CertificateSigningRequest> = self.context.cluster_api();
            match plan::next(&request, now()) {
                Step::Nothing => Ok(Next::OnChange),
                Step::LookAgain(seconds) => Ok(Next::After(Duration::from_secs(seconds.max(1)))),
                Step::Delete => {
                    context::delete_exactly(&api, &request.metadata, DeleteParams::default()).await?;
                    Ok(Next::OnChange)
                }
                Step::Ask(candidates) => self.approve(&api, &request, candidates).await,
                Step::Sign => self.sign(&api, &request).await,
            }
        })
    }
}

impl Requests {
    /// Approves if whoever asked may ask for one of these.
    async fn approve(
        &self,
        api: &Api<CertificateSigningRequest>,
        request: &CertificateSigningRequest,
        candidates: Vec<plan::Candidate>,
    ) -> Outcome {
        for candidate in candidates {
            if self.may(request, candidate.right).await? {
                let approved = with_condition(request, "Approved", "AutoApproved", candidate.message);
                let name = meta::name(&request.metadata);
                let written = api.replace_subresource("approval", name, &context::params(), &approved).await;
                context::ignore_missing(written)?;
                return Ok(Next::OnChange);
            }
        }
        Ok(Next::After(plan::PENDING))
    }

    async fn may(&self, request: &CertificateSigningRequest, right: &str) -> Result<bool, kube::Error> {
        let spec = request.spec.clone();
        let attributes = ResourceAttributes {
            group: Some("certificates.k8s.io".into()),
            resource: Some("certificatesigningrequests".into()),
            verb: Some("create".into()),
            subresource: Some(right.into()),
            ..Default::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username,
                uid: spec.uid,
                groups: spec.groups,
                extra: spec.extra,
                resource_attributes: Some(attributes),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = self.context.cluster_api().create(&context::params(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn sign(
        &self,
        api: &Api<CertificateSigningRequest>,
        request: &CertificateSigningRequest,
    ) -> Outcome {
        let spec = &request.spec;
        let usages = spec.usages.clone().unwrap_or_default();
        let signed = Request::parse(&spec.request.0).and_then(|asked| {
            match csr::objection(&spec.signer_name, &asked, &usages) {
                Some(why) => Err(why),
                None => {
                    let lifetime = csr::lifetime_seconds(spec.expiration_seconds, LIFETIME_SECONDS);
                    self.context.config.signer.sign(&asked, &usages, lifetime)
                }
            }
        });
        let updated = match signed {
            Ok(pem) => {
                let mut updated = request.clone();
                updated.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
                updated
            }
            Err(why) => with_condition(request, "Failed", "SignerValidationFailure", &why),
        };
        context::ignore_missing(context::write_status(api, &updated).await)?;
        Ok(Next::OnChange)
    }
}

fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> CertificateSigningRequest {
    let mut updated = request.clone();
    let condition = CertificateSigningRequestCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now())),
        last_transition_time: Some(Time(now())),
    };
    updated.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    updated
}
