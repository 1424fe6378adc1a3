//! A tree of files as a Git commit holds it: read once, immutable, shared.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Paths are relative, with `/`, and without `.` or `..`.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<BTreeMap<String, Arc<[u8]>>>);

impl Files {
    pub fn new(files: BTreeMap<String, Arc<[u8]>>) -> Self {
        Self(Arc::new(files))
    }

    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(|bytes| &bytes[..])
    }

    pub fn is_folder(&self, path: &str) -> bool {
        let prefix = folder_prefix(path);
        self.0.range(prefix.clone()..).next().is_some_and(|(p, _)| p.starts_with(&prefix))
    }

    /// Every file below a folder.
    pub fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = &'a str> {
        let prefix = folder_prefix(folder);
        self.0
            .range(prefix.clone()..)
            .map(|(path, _)| path.as_str())
            .take_while(move |path| path.starts_with(&prefix))
    }
}

fn folder_prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}/") }
}

/// `path` as seen from `folder`, with `.` and `..` resolved; `None` if it leads out of the tree.
pub fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = match path.starts_with('/') {
        true => Vec::new(),
        false => folder.split('/').filter(|p| !p.is_empty()).collect(),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(resolve("a/b", "../c/./d").as_deref(), Some("a/c/d"));
        assert_eq!(resolve("", "./x").as_deref(), Some("x"));
        assert_eq!(resolve("a", "../../x"), None);
        assert_eq!(resolve("a", "..").as_deref(), Some(""));
    }
}
