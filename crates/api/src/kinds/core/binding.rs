//! `Binding`: the older door by which a pod is put on a node; `pods/binding` is the same.

use crate::kinds::Kind;
use crate::kinds::typed::review;

pub fn kind() -> Kind {
    review("", "Binding", "bindings", true)
}
