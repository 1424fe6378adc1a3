//! Nodes: where their pods get addresses from, those that fall silent or go, and what becomes of their pods.

pub mod eviction;
pub mod lifecycle;
pub mod pod_gc;
pub mod ranges;
