//! Turns the definitions into the table's lines. The form is described in `api::schema::table`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result, bail};

use super::source::{Field, Package, Scoped, Struct};

const META: &str = "apimachinery/pkg/apis/meta/v1";
const EXTENSIONS: &str = "apiextensions-apiserver/pkg/apis/apiextensions/";

type Packages = BTreeMap<String, Package>;

struct Emitter<'a> {
    packages: &'a Packages,
    /// Messages in order of their index.
    order: Vec<String>,
    index: BTreeMap<String, usize>,
}

pub fn table(packages: &Packages) -> Result<String> {
    let mut emitter = Emitter { packages, order: Vec::new(), index: BTreeMap::new() };
    for package in packages.values() {
        for (name, definition) in &package.structs {
            if is_kind(package, name, definition) {
                emitter.reference(&format!("{}.{name}", package.path));
            }
        }
    }
    let mut out = String::new();
    let mut next = 0;
    while next < emitter.order.len() {
        let name = emitter.order[next].clone();
        emitter.message(&name, &mut out).with_context(|| name.clone())?;
        next += 1;
    }
    Ok(out)
}

fn is_kind(package: &Package, name: &str, definition: &Struct) -> bool {
    let helper = ["GroupVersion", "TypeMeta", "Unknown", "InternalEvent"].contains(&name);
    !helper
        && package.path != "apimachinery/pkg/runtime"
        && (type_meta(definition).is_some() || (package.path == META && name == "WatchEvent"))
}

fn type_meta(definition: &Struct) -> Option<&Field> {
    definition.fields.iter().find(|field| field.name.is_empty() && field.ty.0.ends_with(".TypeMeta"))
}

fn model_name(full: &str) -> String {
    format!("io.k8s.{}", full.replace('/', "."))
}

impl Emitter<'_> {
    fn reference(&mut self, full: &str) -> usize {
        if let Some(Scoped(target)) = self.named(full).and_then(|(package, name)| package.named.get(name)) {
            let target = target.clone();
            return self.reference(&target);
        }
        if let Some(at) = self.index.get(full) {
            return *at;
        }
        let at = self.order.len();
        self.order.push(full.to_owned());
        self.index.insert(full.to_owned(), at);
        at
    }

    fn named(&self, full: &str) -> Option<(&Package, &str)> {
        let (path, name) = full.rsplit_once('.')?;
        let package = self.packages.get(path)?;
        package.named.get_key_value(name).map(|(key, _)| (package, key.as_str()))
    }

    fn message(&mut self, full: &str, out: &mut String) -> Result<()> {
        let packages = self.packages;
        let (path, name) = full.rsplit_once('.').context("no package")?;
        let package = packages.get(path).with_context(|| format!("package {path} was not read"))?;
        let definition = package.structs.get(name).with_context(|| format!("type {name} was not read"))?;
        let atomic = definition.markers.iter().any(|marker| marker == "structType=atomic");
        let gvk = match is_kind(package, name, definition) {
            true => format!("{}/{}/{name}", package.group, package.version),
            false => String::new(),
        };
        writeln!(out, "M\t{}\t{}\t{gvk}", model_name(full), if atomic { "a" } else { "" })?;
        if type_meta(definition).is_some() {
            writeln!(out, "F\tapiVersion\t0\ts\toe\nF\tkind\t0\ts\toe")?;
        }
        for field in &definition.fields {
            self.field(field, out).with_context(|| format!("field {} {}", field.name, field.ty.0))?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, out: &mut String) -> Result<()> {
        let Some(json) = field.tags.get("json") else { return Ok(()) };
        let mut json = json.split(',');
        let name = json.next().unwrap_or_default();
        let options: BTreeSet<&str> = json.collect();
        let tag: u32 = match field.tags.get("protobuf") {
            Some(tag) => tag.split(',').nth(1).context("protobuf tag")?.parse()?,
            None => 0,
        };
        if name == "-" || (field.name.is_empty() && field.ty.0.ends_with(".TypeMeta")) {
            return Ok(());
        }
        if options.contains("inline") {
            let at = self.reference(&field.ty.0);
            writeln!(out, "I\t{tag}\t{at}")?;
            return Ok(());
        }
        let repeated = field.tags.get("protobuf").is_some_and(|tag| tag.split(',').nth(2) == Some("rep"));
        let bare = field.ty.0.trim_start_matches('*');
        let pointer = bare.len() < field.ty.0.len();
        let ty = self.type_code(bare, repeated)?;
        let marker = |wanted: &str| {
            field.markers.iter().filter_map(move |m| m.strip_prefix(wanted)?.strip_prefix('=')).next()
        };
        let mut flags = String::new();
        let omit_empty = options.contains("omitempty");
        let optional = field.markers.iter().any(|m| m == "optional") || omit_empty;
        for (flag, on) in [
            ("p", pointer),
            ("e", omit_empty),
            ("z", options.contains("omitzero")),
            ("r", !optional),
            ("a", marker("structType") == Some("atomic") || marker("mapType") == Some("atomic")),
            ("g", marker("structType") == Some("granular") || marker("mapType") == Some("granular")),
        ] {
            if on {
                flags.push_str(flag);
            }
        }
        let keys: Vec<&str> = field.markers.iter().filter_map(|m| m.strip_prefix("listMapKey=")).collect();
        let list = match marker("listType") {
            Some("map") => format!("m{}", keys.join(",")),
            Some("set") => "s".to_owned(),
            Some("atomic") => "a".to_owned(),
            _ => String::new(),
        };
        let strategy = field.tags.get("patchStrategy").cloned().unwrap_or_default();
        let merge_key = field.tags.get("patchMergeKey").cloned().unwrap_or_default();
        let go = self.go_name(bare);
        let default = match marker("default") {
            Some(value) if !value.starts_with("ref(") => value.to_owned(),
            Some("ref(AzureDataDiskCachingReadWrite)") => "\"ReadWrite\"".to_owned(),
            Some("ref(AzureSharedBlobDisk)") => "\"Shared\"".to_owned(),
            Some(other) => bail!("default {other} is not known"),
            None => String::new(),
        };
        let line =
            format!("F\t{name}\t{tag}\t{ty}\t{flags}\t{list}\t{strategy}\t{merge_key}\t{go}\t{default}");
        writeln!(out, "{}", line.trim_end_matches('\t'))?;
        Ok(())
    }

    /// The name a client sees in type errors, where it is not the plain type: `v1.Protocol`; `[v1.Protocol` where it is
    /// that of a list's or a map's elements.
    fn go_name(&self, bare: &str) -> String {
        let values = || Some(bare.strip_prefix("map[")?.split_once(']')?.1);
        let elements = bare.strip_prefix("[]").or_else(values);
        let (mark, ty) = elements.map_or(("", bare), |element| ("[", element));
        self.named(ty).map_or_else(String::new, |(package, name)| {
            format!("{mark}{}.{name}", package.path.rsplit('/').next().unwrap_or_default())
        })
    }

    fn type_code(&mut self, ty: &str, repeated: bool) -> Result<String> {
        let ty = ty.trim_start_matches('*');
        let simple = match ty {
            "string" => "s",
            "int32" | "int" | "int16" | "uint16" | "uint8" => "i",
            "int64" | "uint32" => "l",
            "bool" => "b",
            "float64" => "d",
            "[]byte" => "y",
            "apimachinery/pkg/api/resource.Quantity" => "q",
            "apimachinery/pkg/util/intstr.IntOrString" => "o",
            "apimachinery/pkg/apis/meta/v1.Time" => "t",
            "apimachinery/pkg/apis/meta/v1.MicroTime" => "u",
            "apimachinery/pkg/apis/meta/v1.Duration" => "D",
            "apimachinery/pkg/apis/meta/v1.FieldsV1" => "f",
            "apimachinery/pkg/runtime.RawExtension" => "R",
            "interface{}" => "*",
            _ => "",
        };
        if !simple.is_empty() {
            return Ok(simple.to_owned());
        }
        if let Some(name) = ty.strip_prefix(EXTENSIONS).and_then(|rest| rest.split_once('.')) {
            let props = format!("{EXTENSIONS}{}.JSONSchemaProps", name.0);
            match name.1 {
                "JSON" => return Ok("J".into()),
                "JSONSchemaPropsOrArray" => return Ok(format!("A@{}", self.reference(&props))),
                "JSONSchemaPropsOrBool" => return Ok(format!("B@{}", self.reference(&props))),
                "JSONSchemaPropsOrStringArray" => return Ok(format!("C@{}", self.reference(&props))),
                _ => {}
            }
        }
        if let Some(item) = ty.strip_prefix("[]") {
            return Ok(format!("[{}", self.type_code(item, false)?));
        }
        if let Some((_, value)) = ty.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            return Ok(format!("{{{}", self.type_code(value, false)?));
        }
        let (path, name) = ty.rsplit_once('.').with_context(|| format!("unknown type {ty}"))?;
        let package = self.packages.get(path).with_context(|| format!("package {path} was not read"))?;
        if package.structs.contains_key(name) {
            return Ok(format!("@{}", self.reference(ty)));
        }
        let Scoped(target) = package.named.get(name).with_context(|| format!("type {ty} was not read"))?;
        let target = target.clone();
        let code = self.type_code(&target, false)?;
        // A named list that is not a repeated field of its own is a message with one field `items`.
        match target.starts_with("[]") && target != "[]byte" && !repeated {
            true => Ok(format!("({code}")),
            false => Ok(code),
        }
    }
}
