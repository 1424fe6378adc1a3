//! What reads what lies on a disk, as functions of bytes: for fuzzers, and for the test that runs what they have kept.

use crate::record;

pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[("record", record)];

/// A record that can be read is written so that it is the same.
fn record(data: &[u8]) {
    drop(record::decode(7, data));
    // Behind a sum that is right, so that what follows is looked at.
    let mut bytes = data.to_vec();
    if record::seal(7, &mut bytes) {
        let Ok((entry, deleted)) = record::decode(7, &bytes) else { return };
        assert_eq!(record::encode(&entry, deleted), bytes);
    }
}
