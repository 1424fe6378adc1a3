//! `shop store`: the items, in one file on a volume. A write is on disk before it is acknowledged.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::http::{Answer, Request, serve};
use crate::settings;

pub fn run() -> Result<(), String> {
    let folder = PathBuf::from(settings::text("DATA_DIR", "/data"));
    let password = settings::text("SHOP_PASSWORD", "");
    let items = Mutex::new(load(&folder)?);
    let handler = move |request: &Request| {
        let sent = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
        if sent != format!("Bearer {password}") {
            return Answer::text(401, "wrong password");
        }
        let Ok(mut items) = items.lock() else { return Answer::text(503, "the store is in disorder") };
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/items") => Answer::json(&json!(*items)),
            ("POST", "/items") => match add(&folder, &items, &request.body) {
                Ok(all) => {
                    *items = all;
                    Answer::json(&json!(*items))
                }
                Err(error) => Answer::text(503, error),
            },
            _ => Answer::text(404, "no such place"),
        }
    };
    serve("store", settings::port(8082), || Ok(()), Arc::new(handler))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("items.json")
}

fn load(folder: &Path) -> Result<Vec<String>, String> {
    match std::fs::read(file(folder)) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| format!("{} is damaged: {e}", file(folder).display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {}: {error}", file(folder).display())),
    }
}

fn add(folder: &Path, items: &[String], item: &str) -> Result<Vec<String>, String> {
    let all: Vec<String> = items.iter().cloned().chain([item.to_owned()]).collect();
    let failed = |e: std::io::Error| format!("cannot write: {e}");
    let beside = folder.join("items.new");
    let mut out = std::fs::File::create(&beside).map_err(failed)?;
    out.write_all(Value::from(all.clone()).to_string().as_bytes()).map_err(failed)?;
    out.sync_all().map_err(failed)?;
    std::fs::rename(&beside, file(folder)).map_err(failed)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_outlive_the_process() {
        let folder = std::env::temp_dir().join(format!("kedge-t-shop-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let first = add(&folder, &load(&folder).expect("empty"), "rope").expect("written");
        add(&folder, &first, "anchor").expect("written");
        assert_eq!(load(&folder).expect("reads"), ["rope", "anchor"]);
        std::fs::write(file(&folder), "{").expect("written");
        assert!(load(&folder).expect_err("damaged").contains("is damaged"));
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
