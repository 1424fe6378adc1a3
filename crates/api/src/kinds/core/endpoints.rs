//! `Endpoints`: the older form of EndpointSlices, kept for clients that still read it.

use k8s_openapi::api::core::v1::Endpoints;

use crate::columns::{age_cell, list_or_none, name_cell};
use crate::kinds::{Build, Kind};

pub fn kind() -> Kind {
    Build::<Endpoints>::new("endpoints", true)
        .short(&["ep"])
        .prefix("/registry/services/endpoints")
        .row(|e| {
            let addresses = e.subsets.iter().flatten().flat_map(|subset| {
                subset.ports.iter().flatten().flat_map(move |port| {
                    let addresses = subset.addresses.iter().flatten();
                    addresses.map(move |address| format!("{}:{}", address.ip, port.port))
                })
            });
            vec![name_cell(&e.metadata), list_or_none(addresses), age_cell(&e.metadata)]
        })
        .done()
}
