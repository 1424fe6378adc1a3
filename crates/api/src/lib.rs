//! The Kubernetes API as data and pure functions: the kinds table, schemas, the four patches, field
//! ownership, protobuf, selectors, quantities, printer columns. It does no IO and knows no runtime.

pub mod apply;
pub mod authentication;
pub mod columns;
pub mod csr;
pub mod expressions;
pub mod jsonpath;
pub mod kinds;
pub mod limits;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod podsecurity;
pub mod policy;
pub mod proto;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod status;
pub mod stored;
pub mod weight;
pub mod yaml;
