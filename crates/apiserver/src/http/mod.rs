//! HTTP: connections and TLS, what a path asks for, how answers are written.

pub mod body;
pub mod query;
pub mod request;
pub mod respond;
pub mod serve;
pub mod service;
