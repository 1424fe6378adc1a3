//! Certificate requests: who approves or signs must be allowed to for that very signer, and nobody gets a client
//! certificate for the group that may do everything.

use api::status::ApiError;
use base64::Engine;
use futures::future::BoxFuture;
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::refused;
use crate::ApiServer;
use crate::auth::{MASTERS, rbac};
use api::csr::{self, Request};

pub const GROUP: &str = "certificates.k8s.io";

pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let Some(object) = object.filter(|_| attributes.is(GROUP, "certificatesigningrequests")) else {
            return Ok(());
        };
        match (attributes.operation, attributes.subresource, old) {
            (Operation::Create, "", _) => check_subject(attributes, object),
            (Operation::Update, "approval", Some(old)) => {
                let signer = signer(old);
                let why = format!("user not permitted to approve requests with signerName {signer:?}");
                check_right(server, attributes, "approve", signer, &why).await
            }
            (Operation::Update, "status", Some(old)) => {
                let signed = |request: &Value| request["status"]["certificate"].clone();
                let (same, signer) = (signed(object) == signed(old), signer(old));
                let same = same && object["status"]["conditions"] == old["status"]["conditions"];
                let why = format!("user not permitted to sign requests with signerName {signer:?}");
                if same { Ok(()) } else { check_right(server, attributes, "sign", signer, &why).await }
            }
            _ => Ok(()),
        }
    })
}

fn signer(request: &Value) -> &str {
    request["spec"]["signerName"].as_str().unwrap_or_default()
}

fn check_subject(attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiError> {
    if signer(object) != csr::CLIENT {
        return Ok(());
    }
    let text = object["spec"]["request"].as_str().unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    match Request::parse(&pem) {
        Err(why) => Err(refused(attributes, &format!("failed to parse CSR: {why}"))),
        Ok(request) if request.organizations.iter().any(|o| o == MASTERS) => {
            let why = format!("use of {} signer with {MASTERS} group is not allowed", csr::CLIENT);
            Err(refused(attributes, &why))
        }
        Ok(_) => Ok(()),
    }
}

/// The right may be to the signer, or to all of its domain.
async fn check_right(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    verb: &str,
    signer: &str,
    why: &str,
) -> Result<(), ApiError> {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let what = rbac::Attributes {
            verb: verb.into(),
            group: GROUP.into(),
            resource: "signers".into(),
            name,
            ..Default::default()
        };
        if server.0.may(&attributes.context.who, &what).await? {
            return Ok(());
        }
    }
    Err(refused(attributes, why))
}
