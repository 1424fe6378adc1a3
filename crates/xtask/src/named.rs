//! Tests that are named in documents are there: those that hold the promises of `SECURITY.md`, and those that cover the ground of
//! a conformance test. A name that leads nowhere would let a promise go untested and look tested.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::tidy::rust_files;

const PROMISES: &str = "SECURITY.md";
const CONFORMANCE: &str = "crates/apiserver/tests/conformance.tsv";
/// Where a name of a file begins that says no crate.
const API_SERVER: &str = "crates/apiserver";

pub fn check(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).with_context(|| name.to_owned());
    promises(root, &read(PROMISES)?, faults);
    conformance(root, &read(CONFORMANCE)?, faults);
    Ok(())
}

/// Each row of a table whose last column names tests: in backticks a file, and after it functions in it.
fn promises(root: &Path, text: &str, faults: &mut Vec<String>) {
    let mut in_tests = false;
    for (number, line) in text.lines().enumerate() {
        if !line.starts_with('|') {
            in_tests = false;
            continue;
        }
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        match cell.trim() {
            "Test" => in_tests = true,
            cell if in_tests && !cell.starts_with("---") => {
                promise(root, cell, &mut |fault| faults.push(format!("{PROMISES}:{}: {fault}", number + 1)));
            }
            _ => {}
        }
    }
}

fn promise(root: &Path, cell: &str, fault: &mut dyn FnMut(String)) {
    let mut file: Option<PathBuf> = None;
    for name in cell.split('`').skip(1).step_by(2) {
        if name.contains('/') || name.ends_with(".rs") {
            let below = if name.starts_with("crates/") { root.to_owned() } else { root.join(API_SERVER) };
            let path = below.join(name);
            if !path.exists() {
                fault(format!("`{name}` is not there"));
            }
            file = Some(path);
            continue;
        }
        match &file {
            Some(file) if is_tested(file, name) => {}
            Some(file) => fault(format!("there is no test `{name}` in {}", shown(root, file))),
            None => fault(format!("`{name}` has no file before it: name the file, then its tests")),
        }
    }
    if file.is_none() {
        fault("a promise without a test is none: name the file and its tests in backticks".into());
    }
}

/// Each row's third column: a file below `tests` and a function in it, or `-`.
fn conformance(root: &Path, text: &str, faults: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let mut fault = |why: String| faults.push(format!("{CONFORMANCE}:{}: {why}", number + 1));
        let cells: Vec<&str> = line.split('\t').collect();
        let [_, _, test, _] = cells[..] else {
            fault("four columns are needed: area, name, test, result".into());
            continue;
        };
        if test == "-" {
            continue;
        }
        let Some((file, name)) = test.split_once(' ') else {
            fault(format!("`{test}`: name a file and a test in it"));
            continue;
        };
        if !is_tested(&root.join(API_SERVER).join("tests").join(file), name) {
            fault(format!("there is no test `{name}` in {file}"));
        }
    }
}

/// Whether a file, or one in a folder, has a test of this name; `…` at its end stands for the rest.
fn is_tested(place: &Path, name: &str) -> bool {
    let mut files = Vec::new();
    match place.is_dir() {
        true if rust_files(place, &mut files).is_err() => return false,
        true => {}
        false => files.push(place.to_owned()),
    }
    let name = match name.strip_suffix('…') {
        Some(start) => format!("fn {start}"),
        None => format!("fn {name}("),
    };
    files.iter().any(|file| std::fs::read_to_string(file).is_ok_and(|text| has_test(&text, &name)))
}

/// Whether a function that begins like this has an attribute right before it that makes it a test.
fn has_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let found = line.strip_prefix("async ").unwrap_or(line).starts_with(function);
        let mut attributes =
            lines[..at].iter().rev().take_while(|l| l.starts_with("#[") || l.starts_with("//"));
        found && attributes.any(|l| l.starts_with("#[test]") || l.starts_with("#[tokio::test"))
    })
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository").to_owned()
    }

    #[test]
    fn a_promise_names_tests_that_are_there() {
        let told = |cell: &str| {
            let mut faults = Vec::new();
            let table = format!(
                "| Whom | What |\n|---|---|\n| nobody | `nothing` |\n\n| Promise | Test |\n|---|---|\n| p | {cell} |\n"
            );
            promises(&root(), &table, &mut faults);
            faults
        };
        let here = "`crates/xtask/src/named.rs`";
        for cell in [
            here.to_owned(),
            format!("{here} `a_promise_names_tests_that_are_there`"),
            format!("{here} `a_promise_names_…`, `a_row_names_a_test`; `crates/xtask/src`"),
            "`crates/xtask/src` `a_row_names_a_test`".into(),
            "`tests/doors.rs` `a_trial_writes_nothing_and_other_trials_are_refused`".into(),
        ] {
            assert_eq!(told(&cell), Vec::<String>::new());
        }
        for (cell, why) in [
            ("", "a promise without a test is none"),
            ("`a_row_names_a_test`", "`a_row_names_a_test` has no file before it"),
            ("`tests/nothing.rs`", "`tests/nothing.rs` is not there"),
            (&format!("{here} `is_tested`"), "there is no test `is_tested` in crates/xtask/src/named.rs"),
            (&format!("{here} `a_row_names`"), "there is no test `a_row_names` in"),
        ] {
            let faults = told(cell);
            assert!(
                faults.iter().any(|f| f.starts_with(&format!("SECURITY.md:7: {why}"))),
                "{cell}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_row_names_a_test() {
        let told = |row: &str| {
            let mut faults = Vec::new();
            conformance(&root(), &format!("# head\n{row}\n"), &mut faults);
            faults.pop()
        };
        let name = "a_trial_writes_nothing_and_other_trials_are_refused";
        assert_eq!(told(&format!("area\tname\tdoors.rs {name}\tpassed")), None);
        assert_eq!(told("area\tname\t-\tpassed"), None);
        for (row, why) in [
            ("area\tname\tpassed", "four columns"),
            ("area\tname\tdoors.rs\tpassed", "`doors.rs`: name a file"),
            (&format!("area\tname\tnodes.rs {name}\tpassed"), "there is no test"),
        ] {
            assert!(told(row).is_some_and(|fault| fault.contains(why)), "{row}");
        }
    }
}
