//! Bodies made to take more than they should: read on a thread as small as any, each is refused or read, and none takes
//! the process down.

use api::schema::decode;

fn check(what: &str, content_type: &str, body: &[u8], readable: bool) {
    let read = decode::parse(body, content_type);
    assert_eq!(read.is_ok(), readable, "{what}: {:?}", read.err().map(|e| e.to_string()));
}

#[test]
fn depth_is_bounded_whatever_the_form() {
    let json = |levels: usize| format!("{{\"data\":{}1{}}}", "{\"a\":".repeat(levels), "}".repeat(levels));
    check("JSON", "application/json", json(100).as_bytes(), true);
    check("deep JSON", "application/json", json(200_000).as_bytes(), false);
    check("brackets", "application/json", "[".repeat(1_000_000).as_bytes(), false);
    let flow = |levels: usize| format!("data: {}1{}", "{a: ".repeat(levels), "}".repeat(levels));
    check("YAML", "application/yaml", flow(100).as_bytes(), true);
    check("deep YAML", "application/yaml", flow(200).as_bytes(), false);
    check("very deep YAML", "application/yaml", flow(100_000).as_bytes(), false);
    check("dashes", "application/yaml", "- ".repeat(100_000).as_bytes(), false);
    let steps: String = (0..1500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    check("steps", "application/yaml", steps.as_bytes(), false);
    let protobuf = [&b"k8s\0"[..], &[0x0a; 3 << 19]].concat();
    check("deep protobuf", "application/vnd.kubernetes.protobuf", &protobuf, false);
}

#[test]
fn aliases_do_not_multiply() {
    let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, of) in ('b'..='j').zip('a'..) {
        laughs.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(",")));
    }
    check("a billion laughs", "application/yaml", laughs.as_bytes(), false);
}

/// What a body comes to follows from its size, also where it says much in a few letters.
#[test]
fn little_does_not_come_to_much() {
    let many = |elements: usize, aliases: usize| {
        let row = vec!["x"; elements].join(",");
        format!("a: &a [{row}]\nb: [{}]\n", vec!["*a"; aliases].join(","))
    };
    check("a few aliases", "application/yaml", many(100, 50).as_bytes(), true);
    check("aliases of a long list", "application/yaml", many(1_000, 90).as_bytes(), false);
    let long = |letters: usize, aliases: usize| {
        let anchors: String = (0..aliases / 8).map(|n| format!("c{n}: &c{n} x\n")).collect();
        format!("a: &a {}\n{anchors}b: [{}]\n", "x".repeat(letters), vec!["*a"; aliases].join(","))
    };
    check("a long text, a few times", "application/yaml", long(10_000, 20).as_bytes(), true);
    check("a long text, many times", "application/yaml", long(1 << 20, 1_000).as_bytes(), false);
    let lines = "- a\n".repeat(100_000);
    check("many short lines", "application/yaml", lines.as_bytes(), true);
}
