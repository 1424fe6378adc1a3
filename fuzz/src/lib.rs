//! What is fuzzed: everything that reads what users send. The same functions are run over the kept corpus by an ordinary
//! test of the `kedge` crate, so that what was found once stays mended without a fuzzer.

pub mod targets;
