//! Nodes that fall silent or go, and what becomes of their pods.

pub mod eviction;
pub mod lifecycle;
pub mod pod_gc;
