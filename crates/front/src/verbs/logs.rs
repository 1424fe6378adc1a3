//! `kedge logs`: what containers write, of a pod or of all pods of a workload.

use std::pin::Pin;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use futures::stream::{SelectAll, Stream};
use futures::{AsyncBufRead, AsyncBufReadExt, StreamExt};
use serde_json::Value;

use crate::discovery::Discovery;
use crate::session::{Cluster, Session};
use crate::{duration, output, requests};

/// Print what a pod's containers write, or those of all pods of a workload
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge logs web-6d4b -n shop
  kedge logs -f deploy/web -n shop     all pods of it, each line with its pod
  kedge logs -p web-6d4b               of the container before its last restart
  kedge logs --tail 20 --since 5m -l app=web")]
pub struct Logs {
    /// POD or KIND/NAME
    #[arg(value_name = "POD", required_unless_present = "selector")]
    target: Option<String>,
    /// Of all pods with these labels
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "target")]
    selector: Option<String>,
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on as more is written
    #[arg(short, long)]
    follow: bool,
    /// Of the container before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Only what is not older
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    since: Option<std::time::Duration>,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
}

type Lines = Pin<Box<dyn Stream<Item = anyhow::Result<Vec<u8>>>>>;

impl Logs {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let cluster = session.cluster().await?;
        let pods = self.pods(&cluster).await?;
        if pods.is_empty() {
            bail!("no pod found in namespace {}; name another with -n", cluster.namespace);
        }
        let several = pods.len() > 1;
        let mut all: SelectAll<Lines> = SelectAll::new();
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let path = self.path(&cluster, pod, name)?;
            let reader = requests::stream(&cluster.client, &path, false).await;
            let reader = reader.with_context(|| format!("cannot read the log of {name}"))?;
            let prefix = if several { format!("[{name}] ") } else { String::new() };
            all.push(Box::pin(lines(reader, prefix)));
        }
        while let Some(line) = all.next().await {
            output::bytes(&line?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn pods(&self, cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
        match &self.selector {
            Some(selector) => selected(cluster, selector).await,
            None => pods_of(cluster, self.target.as_deref().unwrap_or_default()).await,
        }
    }

    fn path(&self, cluster: &Cluster, pod: &Value, name: &str) -> anyhow::Result<String> {
        let container = match &self.container {
            Some(name) => name.clone(),
            None => default_container(pod).with_context(|| format!("{name} has no container"))?,
        };
        let mut query = vec![("container", container)];
        let flags = [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)];
        query.extend(flags.iter().filter(|(_, on)| *on).map(|(name, _)| (*name, "true".to_owned())));
        query.extend(self.tail.map(|lines| ("tailLines", lines.to_string())));
        query.extend(self.since.map(|since| ("sinceSeconds", since.as_secs().to_string())));
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = format!("/api/v1/namespaces/{}/pods/{name}/log", cluster.namespace);
        Ok(requests::with_query(&path, &query))
    }
}

async fn selected(cluster: &Cluster, selector: &str) -> anyhow::Result<Vec<Value>> {
    let pods = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    let path = requests::with_query(&pods, &[("labelSelector", selector)]);
    let mut list = requests::get(&cluster.client, &path).await?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// A pod by its name, or the pods of a workload: `deploy/web`.
pub async fn pods_of(cluster: &Cluster, target: &str) -> anyhow::Result<Vec<Value>> {
    let Some((kind, name)) = target.split_once('/') else {
        let path = format!("/api/v1/namespaces/{}/pods/{target}", cluster.namespace);
        let found = requests::get(&cluster.client, &path).await;
        return Ok(vec![found.with_context(|| format!("in the namespace {:?}", cluster.namespace))?]);
    };
    let discovery = Discovery::read(&cluster.client).await?;
    let resource = discovery.find(kind)?;
    let path = requests::path(resource, Some(&cluster.namespace), Some(name));
    let object = requests::get(&cluster.client, &path).await?;
    if resource.kind == "Pod" {
        return Ok(vec![object]);
    }
    selected(cluster, &selector_of(&object).with_context(|| format!("{target} has no pods"))?).await
}

/// The one that is meant when none is named: the annotated one, else the first.
pub fn default_container(pod: &Value) -> Option<String> {
    let annotated = &pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"];
    let first = &pod["spec"]["containers"][0]["name"];
    annotated.as_str().or(first.as_str()).map(str::to_owned)
}

/// A workload's selector as a query has it.
fn selector_of(object: &Value) -> Option<String> {
    let selector = object.pointer("/spec/selector")?;
    let equal = |map: &Value| -> Vec<String> {
        let pairs = map.as_object().into_iter().flatten();
        pairs.filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect()
    };
    // A Service and a ReplicationController have the labels themselves.
    let labels = selector.get("matchLabels").unwrap_or(selector);
    let mut parts = equal(labels);
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// Lines with their ends, each behind a prefix.
fn lines(
    reader: impl AsyncBufRead + Unpin,
    prefix: String,
) -> impl Stream<Item = anyhow::Result<Vec<u8>>> {
    futures::stream::unfold((reader, prefix), async |(mut reader, prefix)| {
        let mut line = prefix.clone().into_bytes();
        let item = match reader.read_until(b'\n', &mut line).await {
            Ok(0) => return None,
            Ok(_) => Ok(line),
            Err(error) => Err(anyhow::Error::from(error).context("the log broke off")),
        };
        Some((item, (reader, prefix)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_become_queries() {
        let of = |selector: Value| selector_of(&json!({"spec": {"selector": selector}}));
        assert_eq!(of(json!({"matchLabels": {"app": "web"}})).as_deref(), Some("app=web"));
        let expressions = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}, {"key": "d", "operator": "DoesNotExist"}]});
        assert_eq!(of(expressions).as_deref(), Some("a in (b,c),!d"));
        assert_eq!(of(json!({"app": "web"})).as_deref(), Some("app=web"), "a service");
        assert_eq!(of(json!({})), None);
    }

    #[test]
    fn lines_carry_their_pod() {
        let text = &b"one\ntwo\nrest"[..];
        let read = futures::executor::block_on(lines(text, "[a] ".into()).map(|line| line.expect("a line")).concat());
        assert_eq!(String::from_utf8_lossy(&read), "[a] one\n[a] two\n[a] rest");
    }
}
