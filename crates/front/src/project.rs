//! `kedge.yaml` at the top of a repository: what `kedge up` is to build and deploy when nothing else is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

pub use base::constants::PROJECT_FILE as FILE;

/// Beside the images.
const FIELDS: [&str; 3] = ["name", "path", "branch"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Project {
    /// Of the GitRepository and the Kustomization.
    pub name: Option<String>,
    /// The folder with the `kustomization.yaml`.
    pub path: Option<String>,
    pub branch: Option<String>,
    #[serde(skip)]
    pub images: Vec<Image>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// `localhost/shop:v1`, as the manifests name it.
    pub name: String,
    /// The folder that the Dockerfile copies from, as seen from the top of the repository.
    #[serde(default = "here")]
    pub context: PathBuf,
    /// As seen from the context; `Dockerfile` unless it is said.
    #[serde(default)]
    pub dockerfile: Option<PathBuf>,
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub args: BTreeMap<String, String>,
}

fn here() -> PathBuf {
    PathBuf::from(".")
}

impl Project {
    /// That of a repository; the default where there is none.
    pub fn read(top: &Path) -> anyhow::Result<Self> {
        let path = top.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("{} is wrong", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut value = match api::yaml::parse_one(text)? {
            Value::Null => return Ok(Self::default()),
            Value::Object(fields) => fields,
            _ => bail!("it must be a map with the fields name, path, branch and images"),
        };
        let images = value.remove("images").unwrap_or_default();
        if let Some(unknown) = value.keys().find(|field| !FIELDS.contains(&field.as_str())) {
            bail!("unknown field `{unknown}`; the fields are {} and images", FIELDS.join(", "));
        }
        let mut project: Self = serde_json::from_value(Value::Object(value))?;
        let images = match images {
            Value::Null => Vec::new(),
            Value::Array(images) => images,
            _ => bail!("images: it must be a list of maps with a name and a context"),
        };
        for (index, image) in images.into_iter().enumerate() {
            let image: Image = serde_json::from_value(image).with_context(|| format!("images[{index}]"))?;
            image.check().with_context(|| format!("images[{index}]"))?;
            project.images.push(image);
        }
        Ok(project)
    }
}

impl Image {
    fn check(&self) -> anyhow::Result<()> {
        self.name.parse::<image::Reference>().context("name")?;
        let leads_out = |path: &Path| {
            path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir)
        };
        if leads_out(&self.context) {
            bail!("context: {} leads out of the repository", self.context.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn refused(text: &str, expected: Expect) {
        expected.assert_eq(&format!("{:#}", Project::parse(text).expect_err("refused")));
    }

    #[test]
    fn a_project_is_read() {
        let text = "path: deploy/dev\nbranch: main\nimages:\n- name: localhost/a:1\n  context: a\n  args: {V: \"2\"}\n- name: b\n";
        let project = Project::parse(text).expect("read");
        assert_eq!(project.path.as_deref(), Some("deploy/dev"));
        assert_eq!(project.images[0].args["V"], "2");
        assert_eq!(project.images[1].context, Path::new("."));
        assert_eq!(Project::parse("").expect("read"), Project::default());
    }

    #[test]
    fn mistakes_are_named() {
        refused("pth: x", expect!["unknown field `pth`; the fields are name, path, branch and images"]);
        refused("images: {a: b}", expect!["images: it must be a list of maps with a name and a context"]);
        refused("images:\n- context: x", expect!["images[0]: missing field `name`"]);
        refused(
            "images:\n- name: x\n- name: UPPER",
            expect![[
                r#"images[1]: name: couldn't parse image name "UPPER": invalid reference format: repository name must be lowercase"#
            ]],
        );
        refused(
            "images:\n- {name: x, context: ../y}",
            expect!["images[0]: context: ../y leads out of the repository"],
        );
        refused(
            "images:\n- {name: x, file: y}",
            expect![
                "images[0]: unknown field `file`, expected one of `name`, `context`, `dockerfile`, `target`, `args`"
            ],
        );
        refused("- a", expect!["it must be a map with the fields name, path, branch and images"]);
        refused("path: [", expect!["yaml: line 1: unclosed bracket '[' at line 1, column 7"]);
    }
}
