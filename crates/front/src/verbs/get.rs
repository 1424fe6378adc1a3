//! `kedge get`: objects as the server prints them, or whole.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use futures::AsyncBufReadExt;
use futures::StreamExt;
use kube::Client;
use serde_json::{Value, json};

use crate::discovery::{Discovery, Resource};
use crate::session::{Cluster, Session};
use crate::table::TextTable;
use crate::{output, requests};

/// List objects, or show some
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge get pods -A
  kedge get deploy,sts -n shop -o wide
  kedge get deploy/web -n shop -o yaml
  kedge get pods -l app=web -w")]
pub struct Get {
    /// KIND, KIND/NAME, or several kinds separated by commas; short names do
    #[arg(value_name = "KIND[/NAME]")]
    kinds: String,
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those with these labels, such as app=web,tier!=test
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Only those with these fields, such as status.phase=Running
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Form>,
    /// Go on and print each change
    #[arg(short, long)]
    watch: bool,
    /// With -o yaml or json: who owns which field
    #[arg(long)]
    show_managed_fields: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Wide,
    Yaml,
    Json,
    Name,
}

/// A kind and the objects of it that are meant; no names: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub resource: Resource,
    pub names: Vec<String>,
}

/// What `KIND NAME…`, `KIND/NAME …` or `KIND,KIND` mean.
pub fn select(discovery: &Discovery, kinds: &str, names: &[String]) -> anyhow::Result<Vec<Selection>> {
    if !kinds.contains('/') {
        let resources = discovery.find_all(kinds)?;
        let selection = |resource| Selection { resource, names: names.to_vec() };
        return Ok(resources.into_iter().map(selection).collect());
    }
    std::iter::once(kinds)
        .chain(names.iter().map(String::as_str))
        .map(|word| {
            let (kind, name) = word.split_once('/').with_context(|| format!("{word:?} is not KIND/NAME"))?;
            if name.is_empty() {
                bail!("{word:?} has no name after the slash");
            }
            Ok(Selection { resource: discovery.find(kind)?.clone(), names: vec![name.to_owned()] })
        })
        .collect()
}

impl Get {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let cluster = session.cluster().await?;
        let discovery = Discovery::read(&cluster.client).await?;
        let selections = select(&discovery, &self.kinds, &self.names)?;
        match self.output {
            None | Some(Form::Wide) if self.watch => self.watch_table(&cluster, &selections).await?,
            None | Some(Form::Wide) => self.print_tables(&cluster, &selections).await?,
            Some(form) if !self.watch => self.print_objects(&cluster, &selections, form).await?,
            Some(_) => bail!("-w prints tables; leave -o away"),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// One path a name, or one of the list.
    fn paths(&self, cluster: &Cluster, selection: &Selection) -> Vec<String> {
        let namespace = (!self.all_namespaces).then_some(cluster.namespace.as_str());
        let resource = &selection.resource;
        if !selection.names.is_empty() {
            let path = |name: &String| requests::path(resource, Some(&cluster.namespace), Some(name));
            return selection.names.iter().map(path).collect();
        }
        let fields = [("labelSelector", &self.selector), ("fieldSelector", &self.field_selector)];
        let pairs: Vec<(&str, &str)> =
            fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        vec![requests::with_query(&requests::path(resource, namespace, None), &pairs)]
    }

    async fn print_tables(&self, cluster: &Cluster, selections: &[Selection]) -> anyhow::Result<()> {
        let mut sections = Vec::new();
        for selection in selections {
            let mut printer = self.printer(selection, selections.len() > 1);
            for path in self.paths(cluster, selection) {
                printer.add(&requests::get_table(&cluster.client, &path).await?);
            }
            sections.extend(printer.finish());
        }
        if sections.is_empty() {
            let place = match self.all_namespaces || selections.iter().all(|s| !s.resource.namespaced) {
                true => String::new(),
                false => format!(" in namespace {}; look in all of them with -A", cluster.namespace),
            };
            eprintln!("nothing found{place}");
        }
        output::text(&sections.join("\n"))
    }

    fn printer(&self, selection: &Selection, with_kind: bool) -> Printer {
        Printer {
            wide: self.output == Some(Form::Wide),
            namespaces: self.all_namespaces && selection.resource.namespaced,
            prefix: if with_kind { format!("{}/", selection.resource.label()) } else { String::new() },
            table: None,
        }
    }

    async fn print_objects(
        &self,
        cluster: &Cluster,
        selections: &[Selection],
        form: Form,
    ) -> anyhow::Result<()> {
        let mut items = Vec::new();
        let mut single = selections.len() == 1;
        for selection in selections {
            let resource = &selection.resource;
            single &= selection.names.len() == 1;
            for path in self.paths(cluster, selection) {
                items.extend(objects(&cluster.client, resource, &path).await?);
            }
        }
        if !self.show_managed_fields {
            for metadata in items.iter_mut().filter_map(|item| item["metadata"].as_object_mut()) {
                metadata.remove("managedFields");
            }
        }
        match form {
            Form::Name => {
                let discovery = selections.iter().map(|s| &s.resource);
                for item in &items {
                    let resource = discovery.clone().find(|r| item["kind"] == r.kind.as_str());
                    let label = resource.map(Resource::label).unwrap_or_default();
                    output::line(&format!("{label}/{}", item["metadata"]["name"].as_str().unwrap_or_default()))?;
                }
                Ok(())
            }
            _ => {
                let value = match items.pop() {
                    Some(item) if single => item,
                    last => {
                        items.extend(last);
                        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
                    }
                };
                if form == Form::Yaml { output::yaml(&value) } else { output::json(&value) }
            }
        }
    }

    async fn watch_table(&self, cluster: &Cluster, selections: &[Selection]) -> anyhow::Result<()> {
        let [selection] = selections else { bail!("-w watches one kind at a time") };
        let mut path = self.paths(cluster, &Selection { names: Vec::new(), ..selection.clone() }).remove(0);
        match &selection.names[..] {
            [] => {}
            [name] if self.field_selector.is_none() => {
                path = requests::with_query(&path, &[("fieldSelector", &format!("metadata.name={name}"))]);
            }
            _ => bail!("-w watches all objects of a kind, or one"),
        }
        let first = requests::get_table(&cluster.client, &path).await?;
        let mut printer = self.printer(selection, false);
        printer.add(&first);
        output::text(&printer.begin())?;
        let version = first["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let path = requests::with_query(&path, &[("watch", "true"), ("resourceVersion", version)]);
        let mut lines = requests::stream(&cluster.client, &path, true).await?.lines();
        while let Some(line) = lines.next().await {
            let event: Value = serde_json::from_str(&line.context("the watch broke off")?)?;
            match event["type"].as_str() {
                Some("ERROR") => bail!("{}", event["object"]["message"].as_str().unwrap_or("the watch broke off")),
                Some("BOOKMARK") => {}
                _ => {
                    printer.add(&event["object"]);
                    output::text(&printer.more())?;
                }
            }
        }
        Ok(())
    }
}

/// The objects a path means, each with its kind.
pub async fn objects(client: &Client, resource: &Resource, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut answer = requests::get(client, path).await?;
    let Some(items) = answer.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take) else {
        return Ok(vec![answer]);
    };
    let api_version = match resource.group.as_str() {
        "" => resource.version.clone(),
        group => format!("{group}/{}", resource.version),
    };
    let whole = |item: Value| {
        // Kind and version first, as everybody expects to read them.
        let mut object = json!({"apiVersion": api_version, "kind": resource.kind});
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), item) {
            object.extend(fields);
        }
        object
    };
    Ok(items.into_iter().map(whole).collect())
}

/// Makes a table of text from the server's tables.
struct Printer {
    wide: bool,
    namespaces: bool,
    /// Before each name.
    prefix: String,
    /// And which of the server's columns it has.
    table: Option<(TextTable, Vec<usize>)>,
}

impl Printer {
    fn add(&mut self, answer: &Value) {
        let rows = answer["rows"].as_array().cloned().unwrap_or_default();
        if self.table.is_none() {
            let columns = answer["columnDefinitions"].as_array().cloned().unwrap_or_default();
            let shown = |column: &Value| self.wide || column["priority"].as_i64().unwrap_or(0) == 0;
            let indices: Vec<usize> =
                columns.iter().enumerate().filter(|(_, c)| shown(c)).map(|(index, _)| index).collect();
            let names =
                indices.iter().map(|index| columns[*index]["name"].as_str().unwrap_or_default().to_uppercase());
            let first = self.namespaces.then(|| "NAMESPACE".to_owned());
            self.table = Some((TextTable::new(first.into_iter().chain(names)), indices));
        }
        let Some((table, indices)) = &mut self.table else { return };
        for row in rows {
            let mut cells: Vec<String> = indices.iter().map(|index| cell(&row["cells"][index])).collect();
            if let Some(name) = cells.first_mut() {
                name.insert_str(0, &self.prefix);
            }
            if self.namespaces {
                cells.insert(0, cell(&row["object"]["metadata"]["namespace"]));
            }
            table.row(cells);
        }
    }

    fn begin(&mut self) -> String {
        self.table.as_mut().map(|(table, _)| table.render()).unwrap_or_default()
    }

    fn more(&mut self) -> String {
        self.table.as_mut().map(|(table, _)| table.render_more()).unwrap_or_default()
    }

    /// `None`: there is no row.
    fn finish(mut self) -> Option<String> {
        let (table, _) = self.table.as_ref()?;
        (!table.is_empty()).then(|| self.begin())
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(wide: bool, namespaces: bool, prefix: &str, expected: Expect) {
        let answer = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "Restarts", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", 0, "10.42.0.2"], "object": {"metadata": {"namespace": "shop"}}},
                {"cells": ["a-long-name", "0/1", 12, null], "object": {"metadata": {"namespace": "kube-system"}}},
            ],
        });
        let mut printer = Printer { wide, namespaces, prefix: prefix.into(), table: None };
        printer.add(&answer);
        expected.assert_eq(&printer.finish().unwrap_or_default());
    }

    #[test]
    fn tables_are_the_servers() {
        check(false, false, "", expect![[r#"
            NAME          READY   RESTARTS
            web-1         1/1     0
            a-long-name   0/1     12
        "#]]);
        check(true, true, "pod/", expect![[r#"
            NAMESPACE     NAME              READY   RESTARTS   IP
            shop          pod/web-1         1/1     0          10.42.0.2
            kube-system   pod/a-long-name   0/1     12         <none>
        "#]]);
        let empty = Printer { wide: false, namespaces: false, prefix: String::new(), table: None };
        assert_eq!(empty.finish(), None);
    }
}
