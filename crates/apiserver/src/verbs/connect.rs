//! Requests that end at a pod's node: logs, exec, attach, port-forward. The server checks, then passes bytes through.

use ::http::header::CONTENT_TYPE;
use ::http::{Request, StatusCode};
use api::meta;
use api::status::{ApiError, FieldError};
use serde_json::Value;

use super::{proxy, read};
use crate::admission::{self, Operation};
use crate::http::body::{self, Body, full};
use crate::http::query::percent_encode;
use crate::http::respond::{self, Answer};
use crate::http::websocket;
use crate::{ApiServer, Context};

pub async fn connect(
    server: &ApiServer,
    context: &Context,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    let subresource = context.target.subresource.as_str();
    if subresource != "log" {
        let options = connect_options(context, subresource);
        admission::validate(server, context, Some(&options), None, Operation::Connect).await?;
    }
    if subresource == "proxy" {
        return proxy::proxy(server, context, request).await;
    }
    match subresource {
        "log" => check_log_options(context)?,
        "portforward" => check_ports(context)?,
        _ => {}
    }
    let (_, pod) = read::find(server, context).await?;
    let name = meta::name(&pod);
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        if subresource != "portforward" {
            container(context, &pod)?;
        }
        // What runs nowhere has said nothing.
        if subresource == "log" {
            let mut nothing = respond::bytes(StatusCode::NO_CONTENT, "text/plain", "");
            nothing.headers_mut().remove(CONTENT_TYPE);
            return Ok(nothing);
        }
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let place = format!("{}/{name}", meta::namespace(&pod));
    let path = match subresource {
        "portforward" => format!("/portForward/{place}?{}", node_query(context, subresource)),
        "log" => {
            let container = container(context, &pod)?;
            format!("/containerLogs/{place}/{container}?{}", node_query(context, subresource))
        }
        _ => {
            let container = container(context, &pod)?;
            format!("/{subresource}/{place}/{container}?{}", node_query(context, subresource))
        }
    };
    let address = server.0.node_address(node).await.map_err(|error| match error.code {
        // The original looks for the node and tells of it as of a pod.
        404 => ApiError::not_found(&context.resource(), node),
        _ => error,
    })?;
    if subresource == "log" && websocket::is_asked(&request) {
        let answer = server.0.nodes.forward(address, &path, Request::new(full(""))).await?;
        let answer = readable(answer, &name_of_log(context)).await?;
        return match answer.status() {
            StatusCode::OK => websocket::stream_body(request, answer.into_body()),
            _ => Ok(answer),
        };
    }
    let answer = server.0.nodes.forward(address, &path, request).await?;
    match subresource {
        "log" => readable(answer, &name_of_log(context)).await,
        _ => Ok(answer),
    }
}

/// As the original names what it could not read.
fn name_of_log(context: &Context) -> String {
    format!("pods/log {}", context.target.name)
}

/// A node's refusal to show a log is text; clients read refusals as objects.
async fn readable(answer: Answer, what: &str) -> Result<Answer, ApiError> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let text = match body::read(answer.into_body(), REFUSAL_LIMIT_BYTES).await {
        Ok(text) => String::from_utf8_lossy(&text).trim_end().to_owned(),
        Err(_) => "the node's answer broke off or is too long".to_owned(),
    };
    Err(match status {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => {
            let mut error = ApiError::no_such_path();
            error.message = format!("{} ( {what}): {text}", error.message);
            error
        }
        _ => ApiError::internal(text),
    })
}

/// Of what a node says why it shows no log.
const REFUSAL_LIMIT_BYTES: usize = 50_000;

/// What a stream was asked to be, as admission sees it.
fn connect_options(context: &Context, subresource: &str) -> Value {
    let kind = context.kind.subresource(subresource).map_or("", |s| s.gvk.2);
    let mut options = serde_json::json!({"kind": kind, "apiVersion": "v1"});
    for name in ["container", "path"] {
        if let Some(value) = context.query.get(name) {
            options[name] = value.into();
        }
    }
    for name in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|name| context.query.flag(name)) {
        options[name] = true.into();
    }
    for name in ["command", "ports"] {
        let values: Vec<Value> = context.query.all(name).map(Value::from).collect();
        if !values.is_empty() {
            options[name] = values.into();
        }
    }
    options
}

/// Ports are numbers, whatever becomes of them.
fn check_ports(context: &Context) -> Result<(), ApiError> {
    let wrong = context.query.all("ports").find(|port| port.parse::<u64>().is_err());
    wrong.map_or(Ok(()), |port| {
        let why = format!("cannot convert to []int32: strconv.ParseUint: parsing {port:?}: invalid syntax");
        Err(ApiError::bad_request(why))
    })
}

/// What is wrong with how a log is asked for.
fn check_log_options(context: &Context) -> Result<(), ApiError> {
    let query = &context.query;
    let mut errors = Vec::new();
    for (name, least, detail) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(number) = query.number(name)?.filter(|number| *number < least) {
            errors.push(FieldError::invalid(name, number, detail));
        }
    }
    if let Some(time) = query.get("sinceTime") {
        if time.parse::<jiff::Timestamp>().is_err() {
            return Err(ApiError::bad_request(format!(
                "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {time:?} as \"2006\""
            )));
        }
        if query.get("sinceSeconds").is_some() {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("[]", detail));
        }
    }
    if query.get("stream").is_some() {
        // One of the two streams alone is not to be had by default.
        errors.push(FieldError::forbidden("stream", "may not be specified"));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid("", "PodLogOptions", &context.target.name, &errors)),
    }
}

/// The container that was named, or the only one, or the one that an annotation makes the default.
fn container(context: &Context, pod: &Value) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array();
        list.into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (all, name) = (names("containers"), meta::name(pod));
    let given = context.query.get("container");
    if let Some(given) = given {
        let known =
            ["containers", "initContainers", "ephemeralContainers"].iter().any(|f| names(f).contains(&given));
        return match known {
            true => Ok(given.to_owned()),
            false => Err(ApiError::bad_request(format!("container {given} is not valid for pod {name}"))),
        };
    }
    if let Some(default) =
        meta::annotation(pod, "kubectl.kubernetes.io/default-container").filter(|d| all.contains(d))
    {
        return Ok(default.to_owned());
    }
    match (all.as_slice(), names("initContainers")) {
        ([only], _) => Ok((*only).to_owned()),
        (many, inits) => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !inits.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// The node's agent names some parameters otherwise than the API does.
fn node_query(context: &Context, subresource: &str) -> String {
    let query = &context.query;
    let mut out: Vec<String> = Vec::new();
    let mut add = |name: &str, value: &str| out.push(format!("{name}={}", percent_encode(value)));
    match subresource {
        "log" => {
            for name in [
                "follow",
                "previous",
                "timestamps",
                "tailLines",
                "limitBytes",
                "sinceSeconds",
                "sinceTime",
                "stream",
            ] {
                if let Some(value) = query.get(name) {
                    add(name, value);
                }
            }
        }
        "portforward" => query.all("ports").for_each(|port| add("port", port)),
        _ => {
            for (from, to) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if query.flag(from) {
                    add(to, "1");
                }
            }
            query.all("command").for_each(|word| add("command", word));
        }
    }
    out.join("&")
}
