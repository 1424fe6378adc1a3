//! The differential suite: the same requests to our server and to the original, and what differs in the answers. Cases
//! are made from an example of each kind; the original's answers are recorded beside them, so that the comparison needs
//! no original at hand.

pub mod cases;
pub mod normal;
pub mod original;
pub mod patches;
pub mod record;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use serde_json::Value;

use cases::{Body, Case, Step};
use normal::Normal;
use record::Answer;

/// A server that can be asked. The body comes as a stream of pieces, since a watch has no end.
pub trait Door: Send + Sync {
    fn ask(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Stream>, String>>;
}

pub type Stream = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Bytes, String>> + Send>>;

/// Longest answer that is read.
const BODY_LIMIT_BYTES: usize = 16 << 20;

/// Answers of one case, by the step's name.
pub type Answers = BTreeMap<String, Answer>;

/// Runs the steps of a case in their order. What an answer holds (versions, uids) goes into later steps.
pub async fn run(door: &dyn Door, case: &Case) -> Result<Answers, String> {
    let mut normal = Normal::new();
    let mut answers = Answers::new();
    let mut memory = Memory::default();
    for step in &case.steps {
        let label = format!("{} {}", case.name, step.name);
        let answer = ask(door, step, &memory).await.map_err(|e| format!("{label}: {e}"))?;
        memory.learn(&answer);
        if step.recorded {
            answers.insert(step.name.clone(), normal.answer(answer));
        } else {
            normal.learn(&answer.body);
        }
    }
    Ok(answers)
}

/// What steps take from earlier answers.
#[derive(Default)]
struct Memory {
    /// The last object that was answered whole.
    object: Value,
    /// The version of the last list.
    revision: String,
}

impl Memory {
    fn learn(&mut self, answer: &Answer) {
        let body = &answer.body;
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default();
        match text("/kind") {
            "Status" | "Table" | "PartialObjectMetadata" | "" => {}
            list if list.ends_with("List") => self.revision = text("/metadata/resourceVersion").to_owned(),
            _ if !text("/metadata/uid").is_empty() => self.object = body.clone(),
            _ => {}
        }
    }

    fn fill(&self, body: &Body) -> (String, Option<&'static str>) {
        match body {
            Body::None => (String::new(), None),
            Body::Json(value) => (value.to_string(), Some("application/json")),
            Body::Patch(kind, value) => (value.to_string(), Some(kind)),
            Body::Held(change) => {
                let mut object = self.object.clone();
                cases::merge(&mut object, change);
                (object.to_string(), Some("application/json"))
            }
        }
    }
}

async fn ask(door: &dyn Door, step: &Step, memory: &Memory) -> Result<Answer, String> {
    let (body, content_type) = memory.fill(&step.body);
    let path = step.path.replace("{revision}", &memory.revision);
    let mut request = Request::builder().method(step.method).uri(path).header("accept", step.accept);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let request = request.header("user-agent", "differential").body(Bytes::from(body));
    let answer = door.ask(request.map_err(|e| e.to_string())?).await?;
    let (head, stream) = answer.into_parts();
    let body = match step.events {
        0 => whole(stream).await?,
        count => events(stream, count).await?,
    };
    Ok(Answer { code: head.status.as_u16(), warnings: warnings(&head.headers), body })
}

fn warnings(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all("warning").iter();
    values.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
}

/// JSON, or the text itself.
fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

async fn whole(mut stream: Stream) -> Result<Value, String> {
    use futures::StreamExt;
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        out.extend_from_slice(&piece?);
        if out.len() > BODY_LIMIT_BYTES {
            return Err(format!("an answer of more than {BODY_LIMIT_BYTES} bytes"));
        }
    }
    Ok(parsed(&out))
}

/// The first events of a watch; the stream is left then.
async fn events(mut stream: Stream, count: usize) -> Result<Value, String> {
    use futures::StreamExt;
    let (mut out, mut rest) = (Vec::new(), Vec::new());
    while out.len() < count {
        match stream.next().await {
            Some(Ok(piece)) => rest.extend_from_slice(&piece),
            // What did not come is a difference like any other.
            Some(Err(error)) => {
                out.push(error.into());
                break;
            }
            None => break,
        }
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            out.push(parsed(&line));
        }
    }
    out.truncate(count);
    Ok(Value::Array(out))
}
