//! Address translation: which frontends exist, which backends take their connections, and how the kernel is told.
//!
//! Two levels of maps. `frontends` maps an (address, protocol, port) to a chain that is shared by all frontends with as
//! many backends; that chain draws a number and looks up (address, protocol, port, number) in `slots`. So
//! a frontend costs one element, a backend one more, and changing an endpoint changes that many elements,
//! whatever the number of frontends. `compile` and `diff` are pure; `Rules` performs them in one kernel transaction.

mod compile;
mod conntrack;
mod encode;
mod executor;
mod model;
mod skeleton;

pub use compile::{Changes, Desired, Pick, Tuple, compile, diff};
pub use executor::{Rules, RulesError};
pub use model::{Backend, Frontend, Options, Protocol};
