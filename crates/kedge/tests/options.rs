//! Options that a server cannot be started with are named, with what is wrong.

use testkit::Cluster;

#[test]
fn what_cannot_be_is_named() {
    let junk = |cluster: &Cluster| {
        let path = cluster.folder().join("junk.pem");
        std::fs::write(&path, "no certificate").expect("written");
        path.to_str().expect("a plain path").to_owned()
    };
    let check = |node: &str, arguments: &[&str], words: &[&str]| {
        let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
        let junk = junk(&cluster);
        let arguments: Vec<&str> =
            arguments.iter().map(|argument| if *argument == "JUNK" { &junk } else { *argument }).collect();
        let said = cluster.told(node, &arguments).launch_in_vain();
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    };
    check("Bad_Name!", &[], &["--node-name \"Bad_Name!\"", "lower case"]);
    check("", &[], &["--node-name"]);
    let authority = ["--requestheader-client-ca-file", "JUNK"];
    check("node-1", &authority, &["--requestheader-client-ca-file", "junk.pem", "no certificate"]);
    let nowhere = ["--requestheader-client-ca-file", "/nowhere/ca.pem"];
    check("node-1", &nowhere, &["--requestheader-client-ca-file", "/nowhere/ca.pem"]);
}
