//! Which faults of fields a request is told of, and in which order. The original's reader of typed objects goes through
//! the document once and stops to note faults after so many; it knows nothing of what lies within a field that it does not know.

use std::collections::HashSet;

use api::schema::decode;

/// As many faults as one reading notes.
const NOTED: usize = 100;

const DUPLICATE: &str = "duplicate field ";
const OF_METADATA: &str = "unknown field \"metadata.";

/// The field that a fault is of.
fn path(fault: &str) -> &str {
    fault.split('"').nth(1).unwrap_or_default()
}

/// Of a whole object of a built-in kind: in the document's order.
pub fn of_document(bytes: &[u8], duplicates: Vec<String>, unknown: Vec<String>) -> Vec<String> {
    let within: HashSet<&str> = unknown.iter().map(|fault| path(fault)).collect();
    let hidden = |fault: &String| {
        let path = path(fault);
        let ends = path.match_indices(['.', '[']).map(|(at, _)| at).chain([path.len()]);
        fault.starts_with(DUPLICATE) && ends.into_iter().any(|end| within.contains(&path[..end]))
    };
    let mut faults: Vec<String> = duplicates.into_iter().filter(|fault| !hidden(fault)).collect();
    drop(within);
    faults.extend(unknown);
    if faults.len() > 1 {
        decode::in_order(bytes, &mut faults, |fault| path(fault));
    }
    faults.truncate(NOTED);
    faults
}

/// Of what a patch makes of an object of a built-in kind, which is read as typed where it was not patched as such.
pub fn of_patched(strategic: bool, mut duplicates: Vec<String>, mut unknown: Vec<String>) -> Vec<String> {
    duplicates.truncate(NOTED);
    if !strategic {
        unknown.truncate(NOTED);
    }
    duplicates.append(&mut unknown);
    duplicates
}

/// Of an object of a custom kind, of which only the metadata is read as typed.
pub fn of_custom(mut duplicates: Vec<String>, unknown: Vec<String>) -> Vec<String> {
    duplicates.truncate(NOTED);
    let mut of_metadata = 0;
    duplicates.extend(unknown.into_iter().filter(|fault| {
        of_metadata += usize::from(fault.starts_with(OF_METADATA));
        !fault.starts_with(OF_METADATA) || of_metadata <= NOTED
    }));
    duplicates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(count: usize, of: &str) -> Vec<String> {
        (0..count).map(|n| format!("unknown field \"{of}u{n}\"")).collect()
    }

    fn twice(count: usize, of: &str) -> Vec<String> {
        (0..count).map(|n| format!("duplicate field \"{of}d{n}\"")).collect()
    }

    /// As seen of kube-apiserver v1.36.2.
    #[test]
    fn so_many_are_told_of() {
        let builtin = |duplicates, unknown| of_document(b"{}", duplicates, unknown).len();
        for (duplicates, unknowns, told) in [(0, 99, 99), (0, 101, 100), (400, 0, 100), (60, 400, 100)] {
            assert_eq!(builtin(twice(duplicates, "data."), unknown(unknowns, "")), told);
        }
        let patched = |strategic| of_patched(strategic, twice(400, "data."), unknown(400, "")).len();
        assert_eq!((patched(true), patched(false)), (500, 200));
        assert_eq!(of_custom(twice(400, "spec."), unknown(400, "spec.")).len(), 500);
        assert_eq!(of_custom(Vec::new(), unknown(400, "metadata.")).len(), 100);
    }

    #[test]
    fn faults_are_told_in_the_documents_order_and_not_within_what_is_unknown() {
        let text = br#"{"z":{"d0":1,"d0":2},"z":1,"data":{"d0":1,"d0":2},"a":1}"#;
        let duplicates = ["z.d0", "z", "data.d0"].map(|path| format!("{DUPLICATE}\"{path}\"")).to_vec();
        let unknown = ["a", "z"].map(|path| format!("unknown field \"{path}\"")).to_vec();
        assert_eq!(
            of_document(text, duplicates, unknown),
            ["unknown field \"z\"", "duplicate field \"data.d0\"", "unknown field \"a\""]
        );
    }
}
