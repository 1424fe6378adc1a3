//! Where the links of what is served through a proxy lead: one to a path of the same server has to begin with the path
//! that this server is reached at from outside.

/// The server behind a proxied path, as links may name it.
#[derive(Clone, Debug)]
pub struct Links {
    below: String,
    backend: Vec<String>,
    asked: Option<String>,
}

impl Links {
    /// `below` is the path of the proxy, without a slash at its end; `backend` is the server as `host:port` (and without
    /// its port, where that is the usual one); `asked` is the host that the client believes to speak to.
    pub fn new(below: String, backend: Vec<String>, asked: Option<String>) -> Self {
        Self { below, backend, asked }
    }

    /// The link as it has to be; `None` where it stays as it is, because it is relative or leads elsewhere.
    pub fn through(&self, link: &str) -> Option<String> {
        let host_from = after_scheme(link).strip_prefix("//");
        let (host, path) = match host_from {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", after_scheme(link)),
        };
        let bare = host.rsplit_once('@').map_or(host, |(_, bare)| bare);
        let is_asked = !bare.is_empty() && self.asked.as_deref() == Some(bare);
        let is_ours = bare.is_empty() || is_asked || self.backend.iter().any(|own| own == bare);
        if !is_ours || !path.starts_with('/') {
            return None;
        }
        // The client's own name for this place is kept; the server's means nothing to it.
        let front = if is_asked { &link[..link.len() - path.len()] } else { "" };
        let below = if path.starts_with(&self.below) { "" } else { self.below.as_str() };
        let through = format!("{front}{below}{path}");
        (through != link).then_some(through)
    }
}

/// What follows `scheme:`, or everything.
fn after_scheme(link: &str) -> &str {
    let end = link.find([':', '/', '?', '#']).unwrap_or(0);
    let (scheme, rest) = link.split_at(end);
    let begins = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let fits = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    match rest.strip_prefix(':') {
        Some(rest) if begins && fits => rest,
        _ => link,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BELOW: &str = "/api/v1/namespaces/n/pods/p/proxy";

    fn check(link: &str, expected: Option<&str>) {
        let backend = vec!["10.0.0.1:80".to_owned(), "10.0.0.1".to_owned()];
        let links = Links::new(BELOW.to_owned(), backend, Some("localhost:8001".to_owned()));
        let below = expected.map(|text| text.replace('$', BELOW));
        assert_eq!(links.through(link), below, "{link}");
    }

    #[test]
    fn paths_of_the_same_server() {
        check("/", Some("$/"));
        check("/a/b?c=/d#e", Some("$/a/b?c=/d#e"));
        check("http://10.0.0.1:80/x", Some("$/x"));
        check("https://10.0.0.1/x", Some("$/x"));
        check("//10.0.0.1:80/x", Some("$/x"));
        check("http://user@10.0.0.1:80/x", Some("$/x"));
        check("http://localhost:8001/x", Some("http://localhost:8001$/x"));
    }

    #[test]
    fn what_leads_elsewhere_or_is_relative() {
        for link in [
            "",
            "a/b",
            "../x",
            "?q",
            "#top",
            "mailto:me@example.com",
            "javascript:go('/x')",
            "data:text/plain,/x",
            "https://example.com/x",
            "//example.com/x",
            "http://10.0.0.1:8080/x",
            "http://10.0.0.1:80",
            "1http://10.0.0.1:80/x",
        ] {
            check(link, None);
        }
    }

    #[test]
    fn what_is_below_already() {
        check(&format!("{BELOW}/x"), None);
        check(&format!("http://10.0.0.1:80{BELOW}/x"), Some("$/x"));
        check(&format!("http://localhost:8001{BELOW}/x"), None);
    }
}
