//! Control groups of both versions, by plain files. Where v1 rules, a group exists once in every controller's
//! hierarchy; where v2 does, once. [`Layout`] (pure) knows which files that means and what is to be written in
//! them; [`Cgroup`] does it.
//!
//! Groups are always named from the root of the hierarchy, never from our own group: the agent may be moved or
//! replaced, its containers may not.

mod group;
mod layout;
mod measure;

pub use group::{Cgroup, CgroupError, detect_layout};
pub use layout::{Layout, LimitWrite};
