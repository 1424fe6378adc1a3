//! Structured authentication: `AuthenticationConfiguration` of `apiserver.config.k8s.io`, read and checked, and how the
//! claims of a token that has been verified make a user. Pure: the server reads the file, fetches keys, checks signatures.

mod claims;
mod config;

use std::collections::BTreeMap;

use cel::Program;

pub use config::parse;

/// How tokens of other issuers are met, and where nobody may stand without one.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    pub issuers: Vec<Issuer>,
    /// Paths open to whoever shows nothing. `None`: as the server has it.
    pub anonymous: Option<Anonymous>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    Nowhere,
    Everywhere,
    At(Vec<String>),
}

impl Anonymous {
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::At(paths) => paths.iter().any(|p| p == path),
        }
    }
}

/// Somebody whose tokens are accepted, and what of them.
#[derive(Clone, Debug)]
pub struct Issuer {
    pub url: String,
    /// Where its discovery document is, when not below its own URL.
    pub discovery_url: Option<String>,
    /// What its certificate is signed by, as PEM; without it the machine's own authorities.
    pub authority: Option<String>,
    pub audiences: Vec<String>,
    rules: Vec<ClaimRule>,
    username: Mapping,
    groups: Option<Mapping>,
    uid: Option<Mapping>,
    extra: Vec<(String, Program)>,
    user_rules: Vec<Expressed>,
}

#[derive(Clone, Debug)]
enum ClaimRule {
    Claim { name: String, required: String },
    Expressed(Expressed),
}

/// An expression that must hold, and what is said when it does not.
#[derive(Clone, Debug)]
struct Expressed {
    program: Program,
    message: String,
}

#[derive(Clone, Debug)]
enum Mapping {
    Claim { name: String, prefix: String },
    Expression(Program),
}

/// Who a token is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub username: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

#[cfg(test)]
mod tests;
