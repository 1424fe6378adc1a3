//! Measurements of the real thing, beside the originals where they are installed, in one run: the machines are noisy,
//! so ratios count. `bench [NAMES…]` runs those named, or all but those that take minutes.

mod api;
mod definitions;
mod gitops;
mod idle;
mod load;
mod machinery;
mod original;
mod overload;
mod pods;
mod protection;
mod size;
mod start;
mod store;
mod wire;
mod writes;

use std::path::PathBuf;

/// One line of the table.
pub struct Row {
    pub what: String,
    pub ours: String,
    pub aim: String,
    pub beside: String,
}

impl Row {
    pub fn new(
        what: impl Into<String>,
        ours: impl Into<String>,
        aim: impl Into<String>,
        beside: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), ours: ours.into(), aim: aim.into(), beside: beside.into() }
    }
}

type Bench = fn(&std::path::Path) -> Vec<Row>;

const TABLE: &[(&str, bool, Bench)] = &[
    ("start", true, start::run),
    ("idle", true, idle::run),
    ("pods", true, pods::run),
    ("writes", true, writes::run),
    ("gitops", true, gitops::run),
    ("api", true, machinery::run),
    ("overload", true, overload::run),
    ("size", true, size::run),
    ("build", true, size::build),
    // Minutes of both cores.
    ("protection", false, protection::run),
    ("definitions", false, definitions::run),
    ("store", false, store::run),
];

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let executable = std::env::current_exe()
        .map(|bench| bench.with_file_name("kedge"))
        .unwrap_or_else(|_| PathBuf::from("kedge"));
    let mut rows = Vec::new();
    for (name, by_default, bench) in TABLE {
        if named.iter().any(|n| n == name) || named.is_empty() && *by_default {
            eprintln!("── {name}");
            let new = bench(&executable);
            // As they come: a later one that fails takes nothing away.
            new.iter().for_each(|row| eprintln!("{}: {} {}", row.what, row.ours, row.beside));
            rows.extend(new);
        }
    }
    print(&rows);
}

fn print(rows: &[Row]) {
    let heads = Row::new("what", "kedge", "aim", "beside");
    let all: Vec<[&str; 4]> =
        std::iter::once(&heads).chain(rows).map(|r| [r.what.as_str(), &r.ours, &r.aim, &r.beside]).collect();
    let width = |column: usize| all.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    for row in &all {
        let cells: Vec<String> =
            row.iter().enumerate().map(|(i, cell)| format!("{cell:<width$}", width = width(i))).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// The value below which this share of the samples lies.
pub fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = ((samples.len() as f64 - 1.0) * share).round() as usize;
    samples.get(at).copied().unwrap_or(f64::NAN)
}
