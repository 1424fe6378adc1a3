//! No text and no value makes the crate panic, hang, or take what it was not given.

use std::collections::BTreeMap;

use cel::{Decl, Env, Fault, Program, Type, Value};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const LIMIT: u64 = 20_000;

fn run(source: &str, json: &Json) -> Option<Result<String, Fault>> {
    let env = Env::default().variable("self", Type::Dyn).variable("n", Type::Int).variable("s", Type::String);
    let program = Program::compile(&env, source).ok()?;
    let variables = BTreeMap::from([
        ("self", Decl::any().read(json).expect("any JSON can be read")),
        ("n", Value::Int(3)),
        ("s", Value::text("text")),
    ]);
    let evaluation = program.evaluate(&variables, LIMIT);
    assert!(evaluation.cost <= LIMIT || evaluation.result.is_err(), "{source}: cost {}", evaluation.cost);
    Some(evaluation.result.map(|value| format!("{value:?}").chars().take(20).collect()))
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Texts that look like expressions, right or wrong.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("self".to_owned()),
        Just("n".to_owned()),
        Just("s".to_owned()),
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| format!("{n}u")),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        "'[a-z%.()*0-9]{0,6}'",
        "b'[a-z]{0,4}'",
        Just("[]".to_owned()),
        Just("{}".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let two = (inner.clone(), inner.clone());
        let operators = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||",
        ]);
        let functions = prop::sample::select(vec![
            "size",
            "int",
            "uint",
            "double",
            "string",
            "bytes",
            "bool",
            "duration",
            "timestamp",
            "type",
            "dyn",
            "url",
            "ip",
            "cidr",
            "isIP",
            "isCIDR",
            "isURL",
            "semver",
            "isSemver",
            "optional.of",
            "optional.ofNonZeroValue",
            "lists.range",
            "strings.quote",
            "format.named",
            "jsonpatch.escapeKey",
            "has",
            "optional.unwrap",
        ]);
        let methods = prop::sample::select(vec![
            "contains",
            "startsWith",
            "endsWith",
            "matches",
            "indexOf",
            "lastIndexOf",
            "charAt",
            "split",
            "substring",
            "replace",
            "join",
            "format",
            "find",
            "findAll",
            "min",
            "max",
            "sum",
            "isSorted",
            "sort",
            "distinct",
            "flatten",
            "slice",
            "reverse",
            "first",
            "last",
            "getHours",
            "getFullYear",
            "value",
            "hasValue",
            "orValue",
            "or",
            "compareTo",
            "isLessThan",
            "containsIP",
            "containsCIDR",
            "masked",
            "validate",
            "size",
            "trim",
            "lowerAscii",
            "unwrapOpt",
        ]);
        let folds = prop::sample::select(vec![
            "all",
            "exists",
            "exists_one",
            "map",
            "filter",
            "sortBy",
            "optMap",
            "optFlatMap",
        ]);
        let folds2 = prop::sample::select(vec![
            "all",
            "exists",
            "existsOne",
            "transformList",
            "transformMap",
            "transformMapEntry",
        ]);
        prop_oneof![
            (two.clone(), operators).prop_map(|((a, b), op)| format!("({a} {op} {b})")),
            (inner.clone(), functions).prop_map(|(a, f)| format!("{f}({a})")),
            (inner.clone(), methods.clone()).prop_map(|(a, m)| format!("{a}.{m}()")),
            (two.clone(), methods.clone()).prop_map(|((a, b), m)| format!("{a}.{m}({b})")),
            (two.clone(), inner.clone(), methods).prop_map(|((a, b), c, m)| format!("{a}.{m}({b}, {c})")),
            (two.clone(), folds).prop_map(|((a, b), f)| format!("{a}.{f}(x, {b} == x)")),
            (two.clone(), folds2).prop_map(|((a, b), f)| format!("{a}.{f}(k, v, {b} == v)")),
            (two.clone(), inner.clone()).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
            two.clone().prop_map(|(a, b)| format!("{a}[{b}]")),
            two.clone().prop_map(|(a, b)| format!("{a}[?{b}]")),
            two.clone().prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            two.prop_map(|(a, b)| format!("[{a}, dyn({b})]")),
            inner.clone().prop_map(|a| format!("!{a}")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("{a}.?a.b")),
            inner.prop_map(|a| format!("has({a}.a)")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(source in ".{0,60}", json in json()) {
        run(&source, &json);
    }

    #[test]
    fn any_tokens_are_answered(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "self", "x", ".", "[", "]", "(", ")", "{", "}", "?", ":", ",", "!", "-", "+", "&&", "||", "==", "in", "1",
            "1u", "1.5", "'a'", "b'a'", "r'\\'", "'''", "map", "all", "has", "true", "null", ".?", "[?", "<", "%", "`",
        ]), 0..40),
        json in json(),
    ) {
        run(&tokens.concat(), &json);
        run(&tokens.join(" "), &json);
    }

    #[test]
    fn any_expression_is_answered(source in expression(), json in json()) {
        run(&source, &json);
    }
}

#[test]
fn deep_and_long_texts_fit_a_small_stack() {
    let nest = |open: &str, middle: &str, close: &str, n: usize| {
        format!("{}{middle}{}", open.repeat(n), close.repeat(n))
    };
    let check = move || {
        for n in [40, 240, 260, 5000, 20_000] {
            for text in [
                nest("(", "1", ")", n),
                nest("[", "1", "]", n),
                nest("{1:", "1", "}", n),
                nest("-", "self", "", n),
                nest("!", "true", "", n),
                nest("!(", "true", ")", n),
                nest("size(", "s", ")", n),
                nest("true ? true : ", "true", "", n),
                nest("[1].map(x, ", "1", ")", n.min(8000)),
                nest("[1].all(x, ", "true", ")", n.min(8000)),
                format!("self{}", ".a".repeat(n)),
                format!("self{}", "[0]".repeat(n)),
                format!("self{}", ".map(x, x)".repeat(n.min(8000))),
                format!("1{}", " + 1".repeat(n)),
                format!("s{}", " + s".repeat(n)),
                format!("true{}", " && true".repeat(n.min(8000))),
                format!("false{}", " || false".repeat(n.min(8000))),
                format!("1{}", " == 1".repeat(n)),
            ] {
                run(&text, &json!({"a": [0]}));
            }
        }
        let long = format!("'{}'", "x".repeat(200_000));
        assert!(run(&long, &json!(1)).is_none(), "too long a text is refused");
        assert!(
            run(&format!("true{}", " && true".repeat(5000)), &json!(1)).is_some(),
            "long chains are flat"
        );
    };
    // Less than a worker of the server has, and this build's frames are several times as large as a released one's.
    let thread = std::thread::Builder::new().stack_size(3 << 19).spawn(check).expect("a thread");
    thread.join().expect("it fits");
}

#[test]
fn what_grows_is_stopped() {
    let twice = ".map(x, x + x)".repeat(100);
    let pairs = ".map(x, {x: x})".repeat(100);
    for source in [
        format!("[[1]]{twice}.size() == 1"),
        format!("[s]{twice} == [s]"),
        format!("dyn([1]){pairs} == dyn([1])"),
        format!("[1]{}{} == [1]", ".map(x, [x, x])".repeat(60), ""),
        format!("[1]{0} == [1]{0}", ".map(x, [x, x])".repeat(60)),
        format!("'%s'.format([[1]{}]) == ''", ".map(x, [x, x])".repeat(60)),
        "lists.range(9223372036854775807).size() == 1".to_owned(),
        "lists.range(1000000000).all(x, true)".to_owned(),
        "lists.range(100).map(a, lists.range(100).map(b, lists.range(100).map(c, a + b + c))).size() == 1"
            .to_owned(),
        format!("s{}.size() == 1", ".replace('', 'xxxxxxxxxxxxxxxx')".repeat(40)),
        format!("s{}.size() == 1", ".replace('t', 'tttttttttttttttt')".repeat(40)),
        "s.matches('(((((a{100}){100}){100}){100}){100})')".to_owned(),
        "lists.range(5000).all(i, 'x'.matches('(a{500}){9}' + string(i)) || true)".to_owned(),
        "lists.range(5000).all(i, s.replace('', 'aaaaaaaaaaaaaaaaaaaa').matches('(a?b?){500}' + s) || true)"
            .to_owned(),
        format!("s{}.findAll('a*b').size() == 1", ".replace('t', 'aaaaaaaaaaaaaaaatt')".repeat(9)),
        format!("s.matches('{}')", "(a*)*".repeat(500)),
        "'%.1000f'.format([1.5]).size() == 1 && '%.1000000000f'.format([1.5]).size() == 1".to_owned(),
        format!("self{}.hasValue()", ".?a".repeat(200)),
        format!("optional.of(1){}.hasValue()", ".optMap(x, x)".repeat(200)),
    ] {
        // What it comes to does not matter; that it comes to something does.
        run(&source, &json!({"a": 1}));
    }
    let endless = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, true)))";
    assert_eq!(run(endless, &json!(1)), Some(Err(Fault::CostLimit)));
    let absorbed = format!("{endless} || true");
    assert_eq!(run(&absorbed, &json!(1)), Some(Err(Fault::CostLimit)), "no operator passes over the limit");
}
