//! What to do about a source that cannot be read, or a folder that cannot be built.

use gitops::kustomize::NAMES;

use super::plan::Plan;
use crate::{explain, kustomization};
use crate::project::FILE;

/// Folders that are named, at most.
const FOLDERS_MAX: usize = 5;

pub fn of_source(message: &str, plan: &Plan) -> String {
    if message.contains("is not in the repository") && plan.top.as_os_str().is_empty() {
        return format!("{message}\nname another branch with --branch");
    }
    if message.contains("is not in the repository") {
        return format!("{message}\nhas anything been committed? name another branch with --branch");
    }
    explain::unreachable(message, &plan.url)
}

/// Where nobody said which folder it is, or where the one that was said has no kustomization, those that have are named.
pub fn of_deployment(message: &str, plan: &Plan) -> String {
    if !message.starts_with("BuildFailed") || plan.top.as_os_str().is_empty() {
        return message.to_owned();
    }
    let own = plan.top.join(plan.path.trim_start_matches("./"));
    if NAMES.iter().any(|name| own.join(name).is_file()) {
        return message.to_owned();
    }
    other_folders(message, &kustomization::folders(&plan.top))
}

/// The folders that could be deployed instead.
pub fn other_folders(message: &str, folders: &[String]) -> String {
    let named: Vec<&str> = folders.iter().take(FOLDERS_MAX).map(String::as_str).collect();
    match named.as_slice() {
        [] => format!("{message}\nname the folder with the manifests with --path, or as `path:` in {FILE}"),
        named => format!(
            "{message}\nthe folders with a kustomization.yaml are {}{}; name one with --path, or as `path:` in {FILE}",
            named.join(", "),
            if folders.len() > named.len() { ", …" } else { "" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_can_be_built_are_named() {
        let directory = tempfile::Builder::new().prefix("kedge-t-").tempdir().expect("a directory");
        let top = directory.path();
        let plan = |path: &str| Plan { top: top.to_owned(), path: path.into(), ..Plan::default() };
        let told = of_deployment("BuildFailed: x", &plan("./"));
        assert!(told.ends_with("name the folder with the manifests with --path, or as `path:` in kedge.yaml"), "{told}");
        for folder in ["deploy/base", "deploy/prod", "node_modules/a"] {
            std::fs::create_dir_all(top.join(folder)).expect("a folder");
            std::fs::write(top.join(folder).join("kustomization.yaml"), "").expect("a file");
        }
        let told = of_deployment("BuildFailed: x", &plan("./"));
        assert!(told.contains("are deploy/base, deploy/prod; name one with --path"), "{told}");
        assert_eq!(of_deployment("BuildFailed: x", &plan("./deploy/prod")), "BuildFailed: x");
        assert_eq!(of_deployment("HealthCheckFailed: x", &plan("./")), "HealthCheckFailed: x");
        assert_eq!(of_source("x", &plan("./")), "x");
    }
}
