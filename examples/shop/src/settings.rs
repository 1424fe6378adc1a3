//! What the environment says: a ConfigMap, a Secret and the manifests set it.

pub fn text(name: &str, otherwise: &str) -> String {
    std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| otherwise.to_owned())
}

pub fn port(otherwise: u16) -> u16 {
    std::env::var("PORT").ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}
