//! Where a binding takes its policy's parameters from.

use k8s_openapi::api::admissionregistration::v1::ParamRef;

use crate::selector::Selector;

/// What has to be looked up before a policy is asked.
#[derive(Debug, Clone)]
pub enum Params {
    /// The policy takes none: it is asked once, with null.
    None,
    /// One by name; the namespace is empty for kinds that lie in none.
    Named { namespace: String, name: String },
    /// All that a selector finds; the policy is asked with each.
    Selected { namespace: String, selector: Selector },
}

impl Params {
    /// `namespaced` is whether the policy's `paramKind` lies in namespaces; `namespace` is the operation's.
    pub fn plan(
        takes_params: bool,
        reference: Option<&ParamRef>,
        namespaced: bool,
        namespace: &str,
    ) -> Result<Self, String> {
        let Some(reference) = reference.filter(|_| takes_params) else { return Ok(Self::None) };
        let given = reference.namespace.as_deref().unwrap_or_default();
        let namespace = match (namespaced, given, namespace) {
            (false, "", _) => String::new(),
            (false, ..) => {
                return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
            }
            (true, "", "") => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                        .into(),
                );
            }
            (true, "", own) => own.to_owned(),
            (true, given, _) => given.to_owned(),
        };
        match (reference.name.as_deref().unwrap_or_default(), &reference.selector) {
            ("", None) => Err("one of name or selector must be provided".into()),
            ("", Some(selector)) => {
                let selector = Selector::from_object(selector).map_err(|error| error.to_string())?;
                Ok(Self::Selected { namespace, selector })
            }
            (_, Some(_)) => Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
            (name, None) => Ok(Self::Named { namespace, name: name.to_owned() }),
        }
    }
}

/// Whether a binding whose parameters are not there refuses.
pub fn denies_without(reference: Option<&ParamRef>) -> Result<(), String> {
    match reference.and_then(|reference| reference.parameter_not_found_action.as_deref()) {
        Some("Deny") => {
            Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned())
        }
        _ => Ok(()),
    }
}
