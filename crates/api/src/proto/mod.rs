//! Kubernetes' protobuf bodies (`application/vnd.kubernetes.protobuf`) to JSON values and back, driven by the facts
//! table: no generated code. A body is the magic `k8s\0` and an `Unknown` message that carries `apiVersion`, `kind`
//! and the object's bytes. Decoded objects are in canonical form, since a zero scalar on the wire means "unset"
//! unless the original's field is a pointer.

mod read;
mod wire;
mod write;

use serde_json::Value;

use crate::schema::{self, Schema};
use crate::weight::{self, Left, TooHeavy};

const MAGIC: &[u8] = b"k8s\0";
/// Objects are limited far below this by the request's size; nesting is bounded for the stack's sake.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    #[error("provided data does not appear to be a protobuf message, expected prefix 107 56 115 0")]
    Magic,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
    #[error("protobuf of {message}: {problem}")]
    Malformed { message: String, problem: &'static str },
    #[error(transparent)]
    TooHeavy(#[from] TooHeavy),
    #[error("{path} cannot be written as protobuf: {problem}")]
    Value { path: String, problem: &'static str },
}

/// `apiVersion` and `kind` of a body, without decoding the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

/// Splits the envelope off.
pub fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtoError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtoError::Magic)?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    for entry in wire::Reader::new(body) {
        match entry.map_err(|problem| malformed("Unknown", problem))? {
            (1, wire::Entry::Bytes(meta)) => {
                for entry in wire::Reader::new(meta) {
                    match entry.map_err(|problem| malformed("TypeMeta", problem))? {
                        (1, wire::Entry::Bytes(text)) => {
                            envelope.api_version = String::from_utf8_lossy(text).into()
                        }
                        (2, wire::Entry::Bytes(text)) => envelope.kind = String::from_utf8_lossy(text).into(),
                        _ => {}
                    }
                }
            }
            (2, wire::Entry::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Decodes an object into the value its JSON form would have, whatever that comes to.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtoError> {
    decode_within(bytes, usize::MAX)
}

/// The same of a body, which may come to so much.
pub fn decode_within(bytes: &[u8], weight: usize) -> Result<Value, ProtoError> {
    decode_with(bytes, &Left::of(weight))
}

fn decode_with(bytes: &[u8], left: &Left) -> Result<Value, ProtoError> {
    let Envelope { api_version, kind, raw } = envelope(bytes)?;
    let schema = schema_of(&api_version, &kind)?;
    let mut value = read::message(schema.node(), raw, read::Room { depth: MAX_DEPTH, left })?;
    schema.canonicalize(&mut value);
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
    }
    Ok(value)
}

/// What a body comes to, where that is not more than `most`; otherwise as much as a body may. What its signs mean is known only to
/// whoever reads it, so it is read, where it is not so short that it cannot come to much.
pub fn weigh(bytes: &[u8], most: usize) -> usize {
    let at_most = bytes.len().saturating_mul(weight::MOST_OF_A_BYTE);
    if at_most < most {
        return at_most;
    }
    let left = Left::of(most);
    match decode_with(bytes, &left) {
        Err(ProtoError::TooHeavy(_)) => weight::LIMIT_BYTES,
        _ => most - left.get(),
    }
}

/// Encodes an object, which must carry its `apiVersion` and `kind`, with the envelope.
pub fn encode(value: &Value) -> Result<Vec<u8>, ProtoError> {
    let mut writer = wire::Writer::default();
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let schema = schema_of(api_version, kind)?;
    enveloped(api_version, kind, &mut writer, |writer| write::message(schema.node(), value, writer))?;
    Ok(writer.finish())
}

/// An object's bytes without the envelope, as they stand in a list of such.
pub fn bare(api_version: &str, kind: &str, value: &Value) -> Result<Vec<u8>, ProtoError> {
    let mut writer = wire::Writer::default();
    write::message(schema_of(api_version, kind)?.node(), value, &mut writer)?;
    Ok(writer.finish())
}

/// What [`bare`] gave, in the envelope.
pub fn whole(api_version: &str, kind: &str, bare: &[u8]) -> Result<Vec<u8>, ProtoError> {
    let mut writer = wire::Writer::after(Vec::with_capacity(bare.len() + ENVELOPE_BYTES));
    enveloped(api_version, kind, &mut writer, |writer| {
        writer.raw(bare);
        Ok(())
    })?;
    Ok(writer.finish())
}

/// What stands before the items of a list of what [`bare`] gave, which are so many bytes as [`list_item`] writes them: every
/// kind's list has its metadata under 1 and its items under 2.
pub fn list_head(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items_bytes: usize,
) -> Result<Vec<u8>, ProtoError> {
    let of_metadata = schema::of_model("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    let of_metadata = of_metadata.ok_or_else(|| malformed("ListMeta", "it is not in the table"))?;
    let mut head = wire::Writer::default();
    write::message(of_metadata.node(), metadata, &mut head)?;
    let head = head.finish();
    let mut writer = wire::Writer::default();
    begin_envelope(api_version, kind, &mut writer);
    writer.head(2, wire::length_of_bytes(head.len()) + items_bytes);
    writer.bytes(1, &head);
    Ok(writer.finish())
}

/// How long [`list_item`] makes an item.
pub fn list_item_length(item: &[u8]) -> usize {
    wire::length_of_bytes(item.len())
}

/// Appends an item to a list.
pub fn list_item(out: &mut Vec<u8>, item: &[u8]) {
    let mut writer = wire::Writer::after(std::mem::take(out));
    writer.bytes(2, item);
    *out = writer.finish();
}

/// What stands behind the items of a list.
pub const LIST_TAIL: &[u8] = ENVELOPE_TAIL;

/// An event of a watch: a bare message with its object as bytes in an envelope of its own.
pub fn watch_event(kind: &str, object: &Value) -> Result<Vec<u8>, ProtoError> {
    Ok(event(kind, &encode(object)?))
}

/// An event with an object that is encoded already, in its envelope.
pub fn event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut event = wire::Writer::after(Vec::with_capacity(object.len() + ENVELOPE_BYTES));
    event.bytes(1, kind.as_bytes());
    let open = event.open(2);
    event.bytes(1, object);
    event.close(open);
    event.finish()
}

/// What is around an object takes at most about this much.
const ENVELOPE_BYTES: usize = 128;

fn enveloped(
    api_version: &str,
    kind: &str,
    writer: &mut wire::Writer,
    body: impl FnOnce(&mut wire::Writer) -> Result<(), ProtoError>,
) -> Result<(), ProtoError> {
    begin_envelope(api_version, kind, writer);
    let raw = writer.open(2);
    body(writer)?;
    writer.close(raw);
    end_envelope(writer);
    Ok(())
}

/// What stands before the object in an envelope.
fn begin_envelope(api_version: &str, kind: &str, writer: &mut wire::Writer) {
    writer.raw(MAGIC);
    let meta = writer.open(1);
    writer.bytes(1, api_version.as_bytes());
    writer.bytes(2, kind.as_bytes());
    writer.close(meta);
}

/// Of an object in no encoding but its own, and of no other content type.
const ENVELOPE_TAIL: &[u8] = b"\x1a\0\"\0";

/// What stands behind it.
fn end_envelope(writer: &mut wire::Writer) {
    writer.raw(ENVELOPE_TAIL);
}

fn schema_of(api_version: &str, kind: &str) -> Result<Schema, ProtoError> {
    let (group, version) = match schema::split_api_version(api_version) {
        // Bare metadata are the same in both versions.
        ("meta.k8s.io", "v1beta1") => ("meta.k8s.io", "v1"),
        other => other,
    };
    schema::of_kind(group, version, kind)
        .ok_or_else(|| ProtoError::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() })
}

fn malformed(message: &str, problem: &'static str) -> ProtoError {
    ProtoError::Malformed { message: message.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Written by hand from the published message definitions.
    #[test]
    fn a_small_config_map() {
        let bytes = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x1d\n\x13\n\x01x\x12\x00\x1a\x02ns\"\x00*\x002\x008\x00B\x00\x12\x06\n\x01a\x12\x01b\x1a\0\"\0";
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "ns"},
                           "data": {"a": "b"}});
        assert_eq!(decode(bytes).unwrap(), value);
        assert_eq!(encode(&value).unwrap(), bytes);
    }

    #[test]
    fn zero_is_kept_where_the_original_has_a_pointer() {
        let value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"b": "1", "a": "2"}}, "strategy": {},
                     "template": {"metadata": {}, "spec": {"containers": [{
                        "name": "c", "resources": {"limits": {"cpu": "100m"}},
                        "livenessProbe": {"httpGet": {"port": "web", "path": "/"}, "timeoutSeconds": 1},
                        "readinessProbe": {"tcpSocket": {"port": 8080}},
                     }], "volumes": [{"name": "v", "emptyDir": {}}]}}},
            "status": {},
        });
        assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value);
    }

    #[test]
    fn what_a_body_comes_to_is_known_before_it_is_kept() {
        let of = |data: &str| {
            let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": data}});
            weigh(&encode(&value).unwrap(), 1 << 20)
        };
        assert!((100_000..200_000).contains(&of(&"x".repeat(100_000))), "a text is what it is");
        let pod = |containers: usize| {
            let containers = vec![json!({"name": "", "livenessProbe": {"httpGet": {"port": 1}}}); containers];
            let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": containers}});
            let bytes = encode(&value).unwrap();
            (weigh(&bytes, 1 << 20), decode_within(&bytes, 1 << 20))
        };
        assert!(matches!(pod(150), (300_000..1_000_000, Ok(_))), "{}", pod(150).0);
        assert_eq!(pod(1_000), (weight::LIMIT_BYTES, Err(ProtoError::TooHeavy(TooHeavy))));
    }

    #[test]
    fn requests_of_kubectl() {
        let value = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
            "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}, "status": {"allowed": false}});
        assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value);
        let value = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Background"});
        assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value);
    }

    #[test]
    fn lists_statuses_and_metadata() {
        let item = json!({"metadata": {"name": "x", "resourceVersion": "3"}, "data": {"a": "b"}});
        let metadata = json!({"resourceVersion": "5", "continue": "c", "remainingItemCount": 2});
        let list =
            json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": [item]});
        assert_eq!(decode(&encode(&list).unwrap()).unwrap(), list);
        let items = [bare("v1", "ConfigMap", &item).unwrap(), vec![7; 200], vec![]];
        for items in [&items[..1], &items[1..], &[]] {
            let length = items.iter().map(|item| list_item_length(item)).sum();
            let mut pieces = list_head("v1", "ConfigMapList", &metadata, length).unwrap();
            let before = pieces.len();
            items.iter().for_each(|item| list_item(&mut pieces, item));
            assert_eq!(pieces.len() - before, length);
            pieces.extend_from_slice(LIST_TAIL);
            if items.len() == 1 {
                assert_eq!(pieces, encode(&list).unwrap());
            }
        }
        let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404,
            "reason": "NotFound", "message": "no", "details": {"name": "x", "causes": [{"reason": "r", "field": "f"}]}});
        assert_eq!(decode(&encode(&status).unwrap()).unwrap(), status);
        for version in ["v1", "v1beta1"] {
            let api_version = format!("meta.k8s.io/{version}");
            let metadata = json!({"apiVersion": api_version, "kind": "PartialObjectMetadata", "metadata": {"name": "x"}});
            assert_eq!(decode(&encode(&metadata).unwrap()).unwrap(), metadata);
        }
    }

    #[test]
    fn events_of_watches() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
        let object = encode(&value).unwrap();
        let mut expected = b"\n\x05ADDED\x12".to_vec();
        expected.push(object.len() as u8 + 2);
        expected.push(0x0a);
        expected.push(object.len() as u8);
        expected.extend(&object);
        assert_eq!(watch_event("ADDED", &value).unwrap(), expected);
    }

    #[test]
    fn damaged_bodies_are_errors() {
        assert_eq!(decode(b"{}"), Err(ProtoError::Magic));
        let value =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": []}});
        let bytes = encode(&value).unwrap();
        for cut in 4..bytes.len() {
            // Whatever is cut off: an error or an object, never a panic.
            assert!(
                decode(&bytes[..cut]).is_ok_and(|value| value.is_object()) || decode(&bytes[..cut]).is_err()
            );
        }
        let unknown = b"k8s\0\n\x0b\n\x02v1\x12\x05Other";
        assert!(matches!(decode(unknown), Err(ProtoError::UnknownKind { .. })));
    }
}
