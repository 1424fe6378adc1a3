//! What other API servers have stored, brought into our own form: protobuf in an envelope, or JSON of another order,
//! perhaps in a version that is not the one we store. Written again, an object has our form.

use bytes::Bytes;
use serde_json::Value;

use crate::{kinds, meta, proto, schema};

#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error(transparent)]
    Protobuf(#[from] proto::ProtoError),
    #[error("it is neither JSON nor protobuf: {0}")]
    Json(#[from] serde_json::Error),
}

const PROTOBUF: &[u8] = b"k8s\0";
/// What every object that we store begins with.
const OURS: &[u8] = b"{\"apiVersion\":";

/// The bytes as we would have stored them: mostly the same.
pub fn ours(bytes: &Bytes) -> Result<Bytes, StoredError> {
    if bytes.starts_with(OURS) {
        // The original ends what it writes with a line feed, which must not get into a watch's lines.
        let end = bytes.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |last| last + 1);
        return Ok(bytes.slice(..end));
    }
    let object = match bytes.starts_with(PROTOBUF) {
        true => proto::decode(bytes)?,
        false => serde_json::from_slice(bytes)?,
    };
    Ok(meta::to_stored(&in_stored_version(object)))
}

/// An object of any version of a built-in kind in the version that we store; others as they are. The original fills in
/// some fields whenever it reads, and so it is done here.
fn in_stored_version(mut object: Value) -> Value {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (api_version, name) = (text("apiVersion"), text("kind"));
    let (group, version) = schema::split_api_version(&api_version);
    let of_kind = || kinds::builtin().iter().filter(|kind| kind.group == group && kind.kind == name.as_str());
    if let Some(kind) = of_kind().find(|kind| kind.version == version) {
        return kind.to_stored(&(kind.on_read)(object));
    }
    // A version from before the one that we know: the original keeps to the older one for a while.
    if let (Some(kind), Value::Object(map)) = (of_kind().next(), &mut object) {
        map.insert("apiVersion".into(), kind.api_version().into());
        return kind.to_stored(&(kind.on_read)(object));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: &str, expected: &str) {
        let ours = ours(&Bytes::copy_from_slice(stored.as_bytes())).expect("is read");
        assert_eq!(String::from_utf8_lossy(&ours), expected);
    }

    #[test]
    fn json_of_others() {
        check("{\"apiVersion\":\"a/v1\",\"kind\":\"B\"}\n", "{\"apiVersion\":\"a/v1\",\"kind\":\"B\"}");
        check(
            r#"{"kind":"ConfigMap","apiVersion":"v1","data":{},"metadata":{"name":"a"}}"#,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{}}"#,
        );
        let older =
            json(r#"{"kind":"MutatingAdmissionPolicy","apiVersion":"admissionregistration.k8s.io/v1beta1"}"#);
        assert_eq!(older["apiVersion"], "admissionregistration.k8s.io/v1");
    }

    fn json(stored: &str) -> Value {
        let ours = ours(&Bytes::copy_from_slice(stored.as_bytes())).expect("is read");
        serde_json::from_slice(&ours).expect("JSON")
    }

    #[test]
    fn what_is_neither_is_told() {
        for bad in [&b"garbage"[..], b"k8s\0\xff\xff", b""] {
            assert!(ours(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }
}
