//! `shop api`: what an item may be called, and the way to the store.

use std::sync::Arc;

use crate::http::{Answer, Request, serve};
use crate::{client, settings};

const NAME_LIMIT: usize = 60;

fn store() -> String {
    settings::text("STORE_ADDRESS", "127.0.0.1:8082")
}

fn ask(method: &str, body: &str) -> Result<String, String> {
    client::call(method, &store(), "/items", &settings::text("SHOP_PASSWORD", ""), body)
}

pub fn run() -> Result<(), String> {
    let handler = |request: &Request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/items") => passed_on(ask("GET", "")),
        ("POST", "/items") => match checked(&request.body) {
            Ok(name) => passed_on(ask("POST", name)),
            Err(error) => Answer::text(400, error),
        },
        _ => Answer::text(404, "no such place"),
    };
    // The store is waited for when it is asked: that it is replaced is no reason to send nobody here.
    serve("api", settings::port(8081), || Ok(()), Arc::new(handler))
}

fn passed_on(result: Result<String, String>) -> Answer {
    match result {
        Ok(body) => Answer::new(200, "application/json", body),
        Err(error) => Answer::text(503, error),
    }
}

fn checked(name: &str) -> Result<&str, String> {
    let name = name.trim();
    match name.chars().count() {
        0 => Err("an item needs a name".to_owned()),
        n if n > NAME_LIMIT => Err(format!("a name has at most {NAME_LIMIT} letters")),
        _ if name.chars().any(char::is_control) => Err("a name is one line of text".to_owned()),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(checked(" rope "), Ok("rope"));
        assert!(checked("  ").is_err() && checked("a\nb").is_err() && checked(&"x".repeat(61)).is_err());
    }
}
