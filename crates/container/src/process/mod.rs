//! The last steps of a process on its way into a container, shared by a container's first process and by every
//! command executed in it later. All of it runs between fork and exec in a single-threaded process.

pub mod enter;
pub mod launch;
