//! Names of images as users write them, and the one full form everything else uses.

use std::fmt;
use std::str::FromStr;

use crate::error::{ImageError, Result};

const DEFAULT_REGISTRY: &str = "docker.io";
const NAME_MAX_BYTES: usize = 255;
const TAG_MAX_BYTES: usize = 128;

/// `docker.io/library/nginx:1.29@sha256:…`. Without tag and digest the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    /// `registry/repository`
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    pub fn with_digest(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// As short as it can be without meaning something else: `nginx:1.29`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let rest = match full.strip_prefix("docker.io/") {
            Some(rest) => rest,
            None => return full,
        };
        match rest.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => rest.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|detail| ImageError::InvalidReference {
            reference: text.to_owned(),
            detail: if detail.is_empty() { String::new() } else { format!(": {detail}") },
        })
    }
}

fn parse(text: &str) -> std::result::Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
        Some(_) => return Err("bad digest"),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("bad tag");
    }
    let (registry, repository) = match path.split_once('/') {
        Some((first, repository)) if is_registry(first) => (first, repository.to_owned()),
        Some(_) => (DEFAULT_REGISTRY, path.to_owned()),
        None => (DEFAULT_REGISTRY, format!("library/{path}")),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let repository = match (registry, repository.contains('/')) {
        (DEFAULT_REGISTRY, false) => format!("library/{repository}"),
        _ => repository,
    };
    if path.bytes().any(|byte| byte.is_ascii_uppercase())
        && repository.bytes().any(|b| b.is_ascii_uppercase())
    {
        return Err("repository name must be lowercase");
    }
    if !repository.split('/').all(is_component) || !is_host(registry) {
        return Err("");
    }
    if path.len() == 64 && path.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits name an image by its id");
    }
    if registry.len() + 1 + repository.len() > NAME_MAX_BYTES {
        return Err("repository name must not be more than 255 characters");
    }
    let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// A first component is a registry when it cannot be a user's name.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_address = name.starts_with('[') && name.ends_with(']');
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        && (is_address || name.split('.').all(is_label))
}

/// Lower-case words joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_in_words = bytes.first().is_some_and(&is_word) && bytes.last().is_some_and(is_word);
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_in_words
        && separators
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=TAG_MAX_BYTES).contains(&tag.len()) && tag.bytes().all(allowed) && !tag.starts_with(['.', '-'])
}

/// `sha256:` and 64 digits; the only algorithm anybody uses.
pub fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:");
    hex.is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let check = |text: &str, full: &str, familiar: &str| {
            let reference: Reference = text.parse().expect(text);
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar));
            assert_eq!(full.parse::<Reference>().expect(full), reference, "the full form means the same");
        };
        check("nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("me/app:1.0", "docker.io/me/app:1.0", "me/app:1.0");
        check("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest");
        check("localhost/app", "localhost/app:latest", "localhost/app:latest");
        check("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "127.0.0.1:5000/x:latest");
        check(&format!("x@{digest}"), &format!("docker.io/library/x@{digest}"), &format!("x@{digest}"));
        check("a--b__c.d_e", "docker.io/library/a--b__c.d_e:latest", "a--b__c.d_e:latest");
    }

    #[test]
    fn bad_names_are_refused() {
        for text in [
            "",
            ":x",
            "UPPER",
            "a/B",
            "a b",
            "a//b",
            "-a",
            "a_",
            "a___b",
            "x:",
            "x:-a",
            "x@sha256:12",
            "x/",
            "/x",
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert!(error.to_string().contains("invalid reference format"), "{error}");
        }
        assert!("a".repeat(64).parse::<Reference>().is_err());
        let error = "Upper/App".parse::<Reference>().expect_err("uppercase");
        assert!(
            error.to_string().ends_with("invalid reference format: repository name must be lowercase"),
            "{error}"
        );
    }
}
