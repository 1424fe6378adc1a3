//! Certificate requests as PKCS#10 writes them: who asks for a certificate, for which names, and what each of the
//! well-known signers holds of it. Pure.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY: &str = "kubernetes.io/legacy-unknown";

const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// So much of a request is read; they are far smaller.
const PEM_MAX_BYTES: usize = 64 << 10;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// The request itself.
    pub der: Vec<u8>,
}

impl Request {
    /// Reads one of PEM form.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let malformed = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
        let pem = pem.get(..pem.len().min(PEM_MAX_BYTES)).unwrap_or_default();
        let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| malformed())?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(malformed());
        }
        let (_, parsed) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
        let info = &parsed.certification_request_info;
        let text =
            |values: Vec<Option<&str>>| values.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>();
        let names = text(info.subject.iter_common_name().map(|n| n.as_str().ok()).collect());
        let organizations = text(info.subject.iter_organization().map(|n| n.as_str().ok()).collect());
        let mut request = Self {
            common_name: names.into_iter().next().unwrap_or_default(),
            organizations,
            ..Default::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => request.dns_names.push((*name).to_owned()),
                    GeneralName::RFC822Name(name) => request.emails.push((*name).to_owned()),
                    GeneralName::URI(name) => request.uris.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => request.addresses.push(address(bytes)?),
                    other => {
                        return Err(format!("subject alternative names such as {other:?} are not supported"));
                    }
                }
            }
        }
        request.der = block.contents.clone();
        Ok(request)
    }

    /// The node whose agent asks for its own certificate.
    pub fn node(&self) -> Option<&str> {
        let of_nodes = self.organizations.len() == 1 && self.organizations[0] == NODES;
        self.common_name.strip_prefix(NODE_PREFIX).filter(|name| of_nodes && !name.is_empty())
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).map(IpAddr::from).map_err(|e| e.to_string()),
        16 => <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|e| e.to_string()),
        other => Err(format!("an address of {other} bytes")),
    }
}

/// Why a signer does not sign a request with these usages; nothing where it does.
pub fn objection(signer: &str, request: &Request, usages: &[String]) -> Option<String> {
    let only = |allowed: &[&str]| usages.iter().all(|u| allowed.contains(&u.as_str()));
    let asks = |usage: &str| usages.iter().any(|u| u == usage);
    let say = |text: &str| Some(text.to_owned());
    let of_masters = || {
        request
            .organizations
            .iter()
            .any(|o| o == MASTERS)
            .then(|| format!("subject organization must not be {MASTERS}"))
    };
    match signer {
        CLIENT => {
            match asks("client auth") && only(&["digital signature", "key encipherment", "client auth"]) {
                true => of_masters(),
                false => say("usages did not match [client auth digital signature key encipherment]"),
            }
        }
        NODE_CLIENT | NODE_SERVING => {
            if request.organizations != [NODES] {
                return say("subject organization is not system:nodes");
            }
            if !request.emails.is_empty() {
                return say("Email subjectAltNames are not allowed");
            }
            if !request.uris.is_empty() {
                return say("URI subjectAltNames are not allowed");
            }
            let (serves, usage) =
                (signer == NODE_SERVING, if signer == NODE_SERVING { "server auth" } else { "client auth" });
            if !serves && !request.dns_names.is_empty() {
                return say("DNS subjectAltNames are not allowed");
            }
            if !serves && !request.addresses.is_empty() {
                return say("IP subjectAltNames are not allowed");
            }
            if serves && request.dns_names.is_empty() && request.addresses.is_empty() {
                return say("DNS or IP subjectAltName is required");
            }
            if request.node().is_none() {
                return say("subject common name does not begin with system:node: ");
            }
            let fits = only(&["digital signature", "key encipherment", usage]);
            match fits && asks(usage) && asks("digital signature") {
                true => None,
                false => Some(format!("usages did not match [{usage} digital signature key encipherment]")),
            }
        }
        // Nobody says what its certificates are good for; ours come from the authority that clients are known by.
        LEGACY => of_masters(),
        other => Some(format!("unknown signer {other}")),
    }
}

/// So long, at the least, is a certificate good for.
const SECONDS_MIN: i64 = 600;

/// How long a certificate is to live: as asked for, within bounds.
pub fn lifetime_seconds(asked: Option<i32>, most: i64) -> i64 {
    asked.map_or(most, |asked| i64::from(asked).max(SECONDS_MIN).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(signer: &str, change: impl Fn(&mut Request), usages: &[&str], expected: &str) {
        let mut request = Request {
            common_name: "system:node:n1".into(),
            organizations: vec![NODES.into()],
            ..Default::default()
        };
        change(&mut request);
        let usages: Vec<String> = usages.iter().map(|u| (*u).to_owned()).collect();
        assert_eq!(objection(signer, &request, &usages).unwrap_or_default(), expected, "{signer}");
    }

    #[test]
    fn each_signer_signs_what_it_is_for() {
        let (client, serving) = (["client auth", "digital signature"], ["server auth", "digital signature"]);
        check(NODE_CLIENT, |_| (), &client, "");
        check(
            NODE_CLIENT,
            |r| r.organizations.push("system:masters".into()),
            &client,
            "subject organization is not system:nodes",
        );
        check(NODE_CLIENT, |r| r.dns_names.push("n1".into()), &client, "DNS subjectAltNames are not allowed");
        check(
            NODE_CLIENT,
            |r| r.common_name = "root".into(),
            &client,
            "subject common name does not begin with system:node: ",
        );
        check(
            NODE_CLIENT,
            |_| (),
            &serving,
            "usages did not match [client auth digital signature key encipherment]",
        );
        check(NODE_SERVING, |r| r.dns_names.push("n1".into()), &serving, "");
        check(NODE_SERVING, |_| (), &serving, "DNS or IP subjectAltName is required");
        check(
            NODE_SERVING,
            |r| r.uris.push("spiffe://x".into()),
            &serving,
            "URI subjectAltNames are not allowed",
        );
        check(CLIENT, |r| r.organizations = vec!["devs".into()], &client, "");
        check(
            CLIENT,
            |r| r.organizations = vec!["system:masters".into()],
            &client,
            "subject organization must not be system:masters",
        );
        check(
            CLIENT,
            |_| (),
            &serving,
            "usages did not match [client auth digital signature key encipherment]",
        );
        check(LEGACY, |_| (), &serving, "");
        check(
            LEGACY,
            |r| r.organizations.push("system:masters".into()),
            &client,
            "subject organization must not be system:masters",
        );
        check("example.com/mine", |_| (), &client, "unknown signer example.com/mine");
    }

    #[test]
    fn lifetimes_are_bounded_on_both_sides() {
        assert_eq!(lifetime_seconds(None, 1000), 1000);
        assert_eq!(lifetime_seconds(Some(1), 1000), 600);
        assert_eq!(lifetime_seconds(Some(900), 1000), 900);
        assert_eq!(lifetime_seconds(Some(5000), 1000), 1000);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "nonsense"] {
            assert_eq!(
                Request::parse(text.as_bytes()),
                Err("PEM block type must be CERTIFICATE REQUEST".into())
            );
        }
        let broken = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        assert!(Request::parse(broken.as_bytes()).is_err());
    }
}
