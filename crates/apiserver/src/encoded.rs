//! What clients are sent of an entry, made once for all of them: an object in protobuf for lists and watches (it is stored
//! as JSON, and turning one into the other costs more than all else that a list does), and the frame of an event for every
//! watcher.

use std::sync::Arc;

use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use bytes::Bytes;
use store::Entry;

use crate::cipher;
use crate::objects::Objects;
use crate::recent::Recent;
use crate::verbs::set_version;

/// Objects in protobuf are for lists too, which are long: a list that is larger than half of this is made anew each time,
/// as its first objects are forgotten for its last. Ten thousand Pods are some 40 MiB.
const OBJECTS_LIMIT_BYTES: usize = 128 << 20;
/// Watchers are at about the same place, and those that lag make their own.
const FRAMES_LIMIT_BYTES: usize = 4 << 20;

type Name = (Arc<str>, u64);

pub struct Encoded {
    objects: Recent<Name, Bytes>,
    frames: Recent<(Name, u64, &'static str, bool), Bytes>,
}

impl Default for Encoded {
    fn default() -> Self {
        Self { objects: Recent::new(OBJECTS_LIMIT_BYTES), frames: Recent::new(FRAMES_LIMIT_BYTES) }
    }
}

fn name(entry: &Entry) -> Name {
    (Arc::clone(&entry.key), entry.mod_revision)
}

impl Encoded {
    /// The bytes of an entry as an item of a list in protobuf, without an envelope. The kind is a built-in one.
    pub fn bare(&self, kind: &Kind, objects: &Objects, entry: &Entry) -> Result<Bytes, ApiError> {
        let make = || bare(kind, objects, entry, entry.mod_revision);
        match is_kept(kind, entry) {
            true => self.objects.get(&name(entry), || make().map(|bytes| (bytes.clone(), bytes.len()))),
            false => make(),
        }
    }

    /// The frame of an event in JSON, with its line feed; a lean one says nothing of who owns which field. The kind is
    /// served as it is stored.
    pub fn frame(
        &self,
        (kind, event, lean): (&Kind, &'static str, bool),
        objects: &Objects,
        entry: &Entry,
        revision: u64,
    ) -> Result<Bytes, ApiError> {
        let make = || {
            let plain = objects.plain(entry)?;
            let mut out = Vec::with_capacity(plain.len() + 80);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(event.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            match lean {
                true => meta::write_served(&mut out, &meta::lean(&plain), revision),
                false => meta::write_served(&mut out, &plain, revision),
            }
            out.extend_from_slice(b"}\n");
            Ok(Bytes::from(out))
        };
        match is_kept(kind, entry) {
            true => self.frames.get(&(name(entry), revision, event, lean), || {
                make().map(|bytes: Bytes| (bytes.clone(), bytes.len()))
            }),
            false => make(),
        }
    }
}

/// What is encrypted where it is stored lies about in the open nowhere else; and a key and a revision name one version of
/// an object, not those that it is converted to.
fn is_kept(kind: &Kind, entry: &Entry) -> bool {
    kind.is_served_as_stored() && !cipher::is_sealed(&entry.value)
}

/// As [`Encoded::bare`], with another revision, and kept by nobody.
pub fn bare(kind: &Kind, objects: &Objects, entry: &Entry, revision: u64) -> Result<Bytes, ApiError> {
    let mut object = meta::from_stored(&objects.plain(entry)?, revision).map_err(ApiError::internal)?;
    set_version(kind, &mut object);
    let bytes = api::proto::bare(&kind.api_version(), &kind.kind, &object).map_err(ApiError::internal)?;
    Ok(Bytes::from(bytes))
}
