//! Every input that the fuzzers have kept, run once more: what was found once stays mended, on machines without a fuzzer.

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

#[test]
fn every_kept_input_is_borne() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut inputs = 0;
    let all = targets::all();
    for (name, _) in &all {
        let folder = corpus.join(name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        assert!(!paths.is_empty(), "{name} has no inputs");
        for path in paths {
            let data = std::fs::read(&path).expect("a file");
            if std::panic::catch_unwind(|| targets::run(name, &data)).is_err() {
                panic!("{} is not borne", path.display());
            }
            inputs += 1;
        }
    }
    println!("{inputs} inputs of {} targets", all.len());
}
