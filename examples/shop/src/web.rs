//! `shop web`: the page. Its colour and greeting come from a ConfigMap, so that a change of either is seen.

use std::sync::Arc;

use crate::http::{Answer, Request, serve};
use crate::{client, settings};

fn ask(method: &str, body: &str) -> Result<String, String> {
    client::call(method, &settings::text("API_ADDRESS", "127.0.0.1:8081"), "/items", "", body)
}

pub fn run() -> Result<(), String> {
    let handler = |request: &Request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => match ask("GET", "") {
            Ok(items) => Answer::new(
                200,
                "text/html; charset=utf-8",
                page(&serde_json::from_str::<Vec<String>>(&items).unwrap_or_default()),
            ),
            Err(error) => Answer::text(503, error),
        },
        ("POST", "/add") => match ask("POST", &form_field(&request.body, "name")) {
            Ok(_) => Answer::see("/"),
            Err(error) => Answer::text(400, error),
        },
        _ => Answer::text(404, "no such place"),
    };
    serve("web", settings::port(8080), || Ok(()), Arc::new(handler))
}

fn page(items: &[String]) -> String {
    let (color, greeting) = (settings::text("COLOR", "gray"), settings::text("GREETING", "Hello"));
    let version = settings::text("VERSION", "dev");
    let list: String = items.iter().map(|item| format!("<li>{}</li>", escaped(item))).collect();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Shop</title><body style=\"font-family: sans-serif; border-left: 1em solid {color}; padding: 1em\">\
         <h1>{greeting}</h1><p>colour {color}, version {version}</p><ul>{list}</ul>\
         <form method=post action=/add><input name=name placeholder=\"an item\" required maxlength=60> <button>Add</button></form></body></html>\n",
        color = escaped(&color),
        greeting = escaped(&greeting),
        version = escaped(&version),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A field of a form as browsers send it.
fn form_field(body: &str, name: &str) -> String {
    let value =
        body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let mut out = Vec::new();
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_and_text_is_escaped() {
        assert_eq!(form_field("a=1&name=an+%3Canchor%3E", "name"), "an <anchor>");
        let page = page(&["<b>".to_owned()]);
        assert!(page.contains("<li>&lt;b&gt;</li>"), "{page}");
    }
}
