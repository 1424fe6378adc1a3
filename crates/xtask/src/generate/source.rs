//! Reads type definitions: structs with their tags and markers, and named simple types. A line reader is
//! enough, since the sources are formatted by `gofmt` and hold one field a line.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// One group and version.
#[derive(Debug, Default)]
pub struct Package {
    /// `api/core/v1`: repository and path.
    pub path: String,
    pub group: String,
    pub version: String,
    pub structs: BTreeMap<String, Struct>,
    /// `type Protocol string`, also `type Rule = v1.Rule`.
    pub named: BTreeMap<String, Scoped>,
}

#[derive(Debug, Default)]
pub struct Struct {
    pub markers: Vec<String>,
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    /// Empty where the field is embedded.
    pub name: String,
    pub ty: Scoped,
    pub tags: BTreeMap<String, String>,
    pub markers: Vec<String>,
}

/// A type expression with its package prefixes resolved: `[]api/core/v1.Container`.
#[derive(Debug, Clone)]
pub struct Scoped(pub String);

const ROOTS: [&str; 4] = [
    "api",
    "apimachinery/pkg/apis/meta",
    "kube-aggregator/pkg/apis/apiregistration",
    "apiextensions-apiserver/pkg/apis/apiextensions",
];
/// Packages that only lend types to the others.
const HELPERS: [&str; 3] =
    ["apimachinery/pkg/types", "apimachinery/pkg/runtime", "apimachinery/pkg/util/intstr"];

pub fn read_packages(sources: &Path) -> Result<BTreeMap<String, Package>> {
    let mut packages = BTreeMap::new();
    for root in ROOTS {
        walk(sources, root, &mut packages)?;
    }
    for helper in HELPERS {
        read_package(sources, helper, &mut packages)?;
    }
    Ok(packages)
}

fn walk(sources: &Path, at: &str, packages: &mut BTreeMap<String, Package>) -> Result<()> {
    let folder = sources.join(at);
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = format!("{at}/{name}");
        let is_version = name.starts_with('v') && name[1..].starts_with(|c: char| c.is_ascii_digit());
        match is_version {
            true => read_package(sources, &path, packages)?,
            false => walk(sources, &path, packages)?,
        }
    }
    Ok(())
}

fn read_package(sources: &Path, path: &str, packages: &mut BTreeMap<String, Package>) -> Result<()> {
    let mut package = Package {
        path: path.to_owned(),
        version: path.rsplit('/').next().unwrap_or_default().to_owned(),
        ..Package::default()
    };
    let folder = sources.join(path);
    let mut names: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(|entry| entry.file_name());
    for entry in names {
        let name = entry.file_name().to_string_lossy().into_owned();
        let generated = name.starts_with("zz_") || name.contains(".pb") || name.contains("generated");
        if !name.ends_with(".go") || name.ends_with("_test.go") || generated {
            continue;
        }
        let text = std::fs::read_to_string(entry.path())?;
        read_file(&text, &mut package);
    }
    packages.insert(path.to_owned(), package);
    Ok(())
}

fn read_file(text: &str, package: &mut Package) {
    let mut imports: BTreeMap<String, String> = BTreeMap::new();
    // Markers stand in the comment before a type, also in one set apart from it by an empty line.
    let mut comment: Vec<String> = Vec::new();
    let mut open: Option<(String, Struct)> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("//") {
            if let Some(marker) = text.trim().strip_prefix('+') {
                comment.push(marker.to_owned());
            }
            continue;
        }
        if let Some(group) = line.strip_prefix("const GroupName = ") {
            package.group = group.trim_matches('"').to_owned();
        }
        read_import(line, &mut imports);
        if let Some((name, mut definition)) = open.take() {
            if line == "}" {
                package.structs.insert(name, definition);
                comment.clear();
                continue;
            }
            if let Some(mut field) = read_field(line, &imports, &package.path) {
                field.markers = std::mem::take(&mut comment);
                definition.fields.push(field);
            }
            open = Some((name, definition));
            continue;
        }
        if let Some(rest) = line.strip_prefix("type ") {
            let markers = std::mem::take(&mut comment);
            let (name, ty) = rest.split_once(' ').unwrap_or((rest, ""));
            let ty = ty.trim_start_matches("= ").trim();
            if ty == "struct {" {
                open = Some((name.to_owned(), Struct { markers, fields: Vec::new() }));
            } else if ty.starts_with("struct") && ty.ends_with("{}") {
                package.structs.insert(name.to_owned(), Struct { markers, fields: Vec::new() });
            } else if !ty.starts_with("struct") && !ty.starts_with("func") && !ty.starts_with("interface") {
                let ty = ty.split("//").next().unwrap_or_default().trim();
                package.named.insert(name.to_owned(), Scoped(resolve(ty, &imports, &package.path)));
            }
        } else if !line.is_empty() {
            comment.clear();
        }
    }
}

fn read_import(line: &str, imports: &mut BTreeMap<String, String>) {
    let line = line.strip_prefix("import ").unwrap_or(line);
    let Some((alias, rest)) = line.split_once('"') else { return };
    let Some(path) = rest.strip_suffix('"').and_then(|path| path.strip_prefix("k8s.io/")) else { return };
    let last = path.rsplit('/').next().unwrap_or(path);
    let alias = alias.trim();
    let name = if alias.is_empty() { last } else { alias };
    if name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        imports.insert(name.to_owned(), path.to_owned());
    }
}

fn read_field(line: &str, imports: &BTreeMap<String, String>, package: &str) -> Option<Field> {
    let (head, rest) = line.split_once('`')?;
    let (tags, _) = rest.split_once('`')?;
    let mut words = head.split_whitespace();
    let first = words.next()?;
    let (name, ty) = match words.next() {
        Some(ty) => (first, ty),
        None => ("", first),
    };
    Some(Field {
        name: name.to_owned(),
        ty: Scoped(resolve(ty, imports, package)),
        tags: read_tags(tags),
        markers: Vec::new(),
    })
}

fn read_tags(text: &str) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once(":\"") {
        let Some((value, next)) = after.split_once('"') else { break };
        tags.insert(key.trim().to_owned(), value.to_owned());
        rest = next;
    }
    tags
}

/// Replaces `v1.Pod` and `Pod` by `api/core/v1.Pod`; keeps `*`, `[]`, `map[…]` and simple types.
fn resolve(ty: &str, imports: &BTreeMap<String, String>, package: &str) -> String {
    if let Some(inner) = ty.strip_prefix('*') {
        return format!("*{}", resolve(inner, imports, package));
    }
    if let Some(inner) = ty.strip_prefix("[]") {
        return format!("[]{}", resolve(inner, imports, package));
    }
    if let Some((key, value)) = ty.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return format!("map[{}]{}", resolve(key, imports, package), resolve(value, imports, package));
    }
    match ty.split_once('.') {
        Some((prefix, name)) => match imports.get(prefix) {
            Some(path) => format!("{path}.{name}"),
            None => ty.to_owned(),
        },
        None if ty.starts_with(|c: char| c.is_ascii_uppercase()) => format!("{package}.{ty}"),
        None => ty.to_owned(),
    }
}
