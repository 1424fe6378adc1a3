//! Disks without room. Whoever meets one says the same: what is full, and that room there is the remedy.

use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;

/// Whether a write failed, somewhere below an error, because its disk or its share of it is full.
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// What to do about it.
pub fn remedy(place: &Path) -> String {
    format!("no room is left on the disk of {}: make room there, then try again", place.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_full_disk_is_known_below_other_errors() {
        let full = || std::io::Error::from(ErrorKind::StorageFull);
        assert!(is_full(&full()) && is_full(&Outer(full())));
        assert!(is_full(&std::io::Error::from_raw_os_error(28)), "as the kernel says it");
        assert!(!is_full(&Outer(std::io::Error::from(ErrorKind::NotFound))));
        assert!(remedy(Path::new("/x")).contains("disk of /x: make room"));
    }
}
