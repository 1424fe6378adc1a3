//! A small shop in three parts, to have something real to deploy: `web` shows a page, `api` knows the rules, `store` keeps
//! the items on disk. One program, so that one image serves all three.

mod api;
mod client;
mod http;
mod settings;
mod signals;
mod store;
mod web;

use std::process::ExitCode;

fn main() -> ExitCode {
    let part = std::env::args().nth(1).unwrap_or_default();
    let result = match part.as_str() {
        "web" => web::run(),
        "api" => api::run(),
        "store" => store::run(),
        _ => Err("usage: shop web|api|store".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", serde_json::json!({"level": "error", "part": part, "message": error}));
            ExitCode::FAILURE
        }
    }
}
