//! What every other crate may lean on and what knows nothing of Kubernetes' objects: constants, ids,
//! time, back-off. It holds no logic of the platform, so nothing here may grow a dependency on it.

pub mod backoff;
pub mod constants;
pub mod disk;
pub mod id;
pub mod layout;
pub mod nearest;
pub mod say;
pub mod time;
pub mod zones;
