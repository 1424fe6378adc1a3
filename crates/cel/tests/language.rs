//! The language: what expressions come to, and in which words they fail. From the specification of CEL, and from the
//! documentation of Kubernetes' libraries.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::functions::{authorizer, request_resource};
use cel::{Authorizer, Decision, Decl, DeclKind, Env, Field, ListKind, Program, Question, Type, Value};
use serde_json::json;

fn evaluate(source: &str) -> String {
    let env = Env::default();
    match Program::compile(&env, source) {
        Ok(program) => {
            let nothing: BTreeMap<&str, Value<'_>> = BTreeMap::new();
            match program.evaluate(&nothing, cel::CALL_LIMIT).result {
                Ok(Value::Bool(true)) => "true".to_owned(),
                Ok(other) => format!("{other:?}"),
                Err(fault) => fault.to_string(),
            }
        }
        Err(issues) => {
            let first = issues.iter().next().map(|issue| issue.message.clone());
            first.unwrap_or_default()
        }
    }
}

#[test]
fn these_hold() {
    let wrong: Vec<String> = include_str!("true.cel")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(|line| (line, evaluate(line)))
        .filter(|(_, found)| found != "true")
        .map(|(line, found)| format!("{line}\n    {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn these_fail_in_these_words() {
    let cases = [
        ("1 / 0 == 1", "division by zero"),
        ("1 % 0 == 1", "modulus by zero"),
        ("9223372036854775807 + 1 > 0", "integer overflow"),
        ("-9223372036854775808 - 1 < 0", "integer overflow"),
        ("18446744073709551615u + 1u > 0u", "unsigned integer overflow"),
        ("0u - 1u == 0u", "unsigned integer overflow"),
        ("int(1e30) == 1", "integer overflow"),
        ("uint(-1) == 1u", "unsigned integer overflow"),
        ("[1, 2][5] == 1", "index out of bounds: 5"),
        ("[1, 2][-1] == 1", "index out of bounds: -1"),
        ("{'a': 1}['b'] == 1", "no such key: b"),
        ("{'a': 1}.b == 1", "no such key: b"),
        ("dyn(1) + dyn('a') == 1", "no such overload"),
        ("dyn(1).startsWith('a')", "no such overload: startsWith(int, string)"),
        ("int('x') == 1", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("[].min() == 1", "min called on empty list"),
        ("'abc'.substring(3, 1) == ''", "invalid substring range. start: 3, end: 1"),
        ("'abc'.charAt(7) == ''", "index out of range: 7"),
        ("quantity('1') == quantity('1')", "undeclared reference to 'quantity' (in container '')"),
        ("x == 1", "undeclared reference to 'x' (in container '')"),
        ("1 + 'a' == 1", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("1 && true", "expected type 'bool' but found 'int'"),
        ("[1, 'a'].size() == 2", "expected type 'int' but found 'string'"),
        ("'a'.foo() == 1", "undeclared reference to 'foo' (in container '')"),
        ("'a'.contains(1)", "found no matching overload for 'contains' applied to 'string.(int)'"),
        ("'a'.b == 1", "type 'string' does not support field selection"),
        (
            "1.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("[1].all(1, true)", "argument must be a simple name"),
        ("[1].map(a.b, true) == [true]", "argument is not an identifier"),
        ("has(1)", "invalid argument to has() macro"),
        ("duration('x') == duration('1s')", "invalid duration argument"),
        ("timestamp('x') == timestamp('2000-01-01T00:00:00Z')", "invalid timestamp argument"),
        ("'a'.matches('(')", "invalid matches argument"),
        ("for == 1", "reserved identifier: for"),
        ("99999999999999999999 == 1", "invalid int literal"),
        ("1 == 1 ? 'a' : 2", "found no matching overload for '_?_:_' applied to '(bool, string, int)'"),
        ("Foo{a: 1} == 1", "undeclared reference to 'Foo' (in container '')"),
        (
            "ip('1.2.3') == ip('1.2.3.4')",
            "IP Address \"1.2.3\" parse error during conversion from string: ParseAddr(\"1.2.3\"): unable to parse IP",
        ),
    ];
    let mut wrong = Vec::new();
    for (source, expected) in cases {
        let found = evaluate(source);
        if found != expected {
            wrong.push(format!("{source}\n    {found}\n    {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compile_text(env: &Env, source: &str) -> String {
    Program::compile(env, source)
        .map_or_else(|issues| issues.to_string(), |program| program.output().to_string())
}

#[test]
fn faults_of_the_text_are_shown_in_place() {
    let field = |kind| Field { json: "a".into(), decl: Arc::new(Decl::new(kind, 10, 1)) };
    let fields = [("a".into(), field(DeclKind::String))].into();
    let decl = Arc::new(Decl::new(DeclKind::Object { name: "selfType".into(), fields }, 0, 2));
    let env = Env::default().declare("self", &decl);
    let starts = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    for (source, expected) in [
        ("self.a", "string".to_owned()),
        ("self.x", "ERROR: <input>:1:5: undefined field 'x'\n | self.x\n | ....^".to_owned()),
        (
            "self.a + 1",
            "ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(string, int)'\n | self.a + 1\n | .......^".to_owned(),
        ),
        (
            "self.a ==\n  x",
            "ERROR: <input>:2:3: undeclared reference to 'x' (in container '')\n |   x\n | ..^".to_owned(),
        ),
        (
            "'é' + x",
            "ERROR: <input>:1:7: undeclared reference to 'x' (in container '')\n | 'é' + x\n | .．....^".to_owned(),
        ),
        ("1 + +", format!("ERROR: <input>:1:5: Syntax error: mismatched input '+' expecting {starts}\n | 1 + +\n | ....^")),
        (
            "1 + $",
            format!(
                "ERROR: <input>:1:5: Syntax error: token recognition error at: '$'\n | 1 + $\n | ....^\nERROR: <input>:1:6: Syntax error: \
                 mismatched input '<EOF>' expecting {starts}\n | 1 + $\n | .....^"
            ),
        ),
        (
            "TestAllTypes(){}",
            "ERROR: <input>:1:15: Syntax error: mismatched input '{' expecting <EOF>\n | TestAllTypes(){}\n | ..............^".to_owned(),
        ),
        ("0xFFFFFFFFFFFFFFFFF", "ERROR: <input>:1:1: invalid int literal\n | 0xFFFFFFFFFFFFFFFFF\n | ^".to_owned()),
        ("has(m)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(m)\n | ....^".to_owned()),
        (
            "{\"a\": 1}.\"a\"",
            "ERROR: <input>:1:10: Syntax error: no viable alternative at input '.\"a\"'\n | {\"a\": 1}.\"a\"\n | .........^".to_owned(),
        ),
    ] {
        assert_eq!(compile_text(&env, source), expected, "{source}");
    }
}

#[test]
fn objects_are_read_through_their_declaration() {
    let kinds = [
        ("time", DeclKind::Timestamp),
        ("day", DeclKind::Date),
        ("span", DeclKind::Duration),
        ("data", DeclKind::Bytes),
        ("port", DeclKind::Dyn),
        ("ratio", DeclKind::Double),
        ("namespace", DeclKind::String),
        ("a-b/c.d__e", DeclKind::String),
        (
            "items",
            DeclKind::List { item: Arc::new(Decl::new(DeclKind::String, 9, 2)), kind: ListKind::Atomic },
        ),
    ];
    let fields = kinds.map(|(json, kind)| {
        let name = cel::escape(json).expect("a name").into_owned();
        (name.into(), Field { json: json.into(), decl: Arc::new(Decl::new(kind, 9, 1)) })
    });
    let decl = Arc::new(Decl::new(DeclKind::Object { name: "selfType".into(), fields: fields.into() }, 0, 2));
    let env = Env::default().declare("self", &decl).declare_optional("oldSelf", &decl);
    let json = json!({"time": "2026-01-02T03:04:05Z", "day": "2026-01-02", "span": "90s", "data": "QUI=", "port": "80",
        "ratio": 1, "namespace": "x", "a-b/c.d__e": "y", "items": ["a"], "undeclared": 1});
    for source in [
        "self.time.getHours() == 3 && self.day.getFullYear() == 2026 && self.span.getSeconds() == 90",
        "self.data == b'AB' && type(self.ratio) == double",
        "type(self.port) == string ? int(self.port) < 100 : self.port < 100",
        "self.__namespace__ == 'x' && self.a__dash__b__slash__c__dot__d__underscores__e == 'y'",
        "self.items.all(i, i.startsWith('a'))",
        "!oldSelf.hasValue() && oldSelf.?port.orValue(1) == 1",
        "oldSelf.optMap(o, o.ratio).orValue(3.0) == 3.0",
    ] {
        let program = Program::compile(&env, source).unwrap_or_else(|issues| panic!("{source}: {issues}"));
        let variables = BTreeMap::from([
            ("self", decl.read(&json).expect("readable")),
            ("oldSelf", Value::Optional(None)),
        ]);
        let result = program.evaluate(&variables, cel::CALL_LIMIT).result;
        assert!(matches!(result, Ok(Value::Bool(true))), "{source}: {result:?}");
        assert_eq!(program.uses("oldSelf"), source.contains("oldSelf"), "{source}");
    }
}

struct Only;

impl Authorizer for Only {
    fn check(&self, question: &Question) -> Decision {
        let wanted = Question {
            verb: "get".into(),
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: "shop".into(),
            service_account: question.service_account.clone(),
            ..Default::default()
        };
        let allowed = *question == wanted || question.path.as_deref() == Some("/healthz");
        Decision { allowed, reason: if allowed { "because".into() } else { String::new() }, error: None }
    }
}

#[test]
fn the_authorizer_is_asked() {
    let env = Env::default()
        .variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"));
    let resource = Question {
        group: "apps".into(),
        resource: "deployments".into(),
        namespace: "shop".into(),
        ..Default::default()
    };
    for (source, cost) in [
        ("authorizer.path('/healthz').check('get').allowed()", 350_003),
        (
            "authorizer.group('apps').resource('deployments').namespace('shop').check('get').reason() == 'because'",
            350_006,
        ),
        ("!authorizer.group('').resource('pods').check('get').allowed()", 350_005),
        ("authorizer.requestResource.check('get').allowed()", 350_003),
        (
            "authorizer.serviceAccount('shop', 'web').group('apps').resource('deployments').namespace('shop').check('get').allowed()",
            350_006,
        ),
        ("!authorizer.requestResource.check('get').errored()", 350_004),
    ] {
        let program = Program::compile(&env, source).unwrap_or_else(|issues| panic!("{source}: {issues}"));
        let variables = BTreeMap::from([
            ("authorizer", authorizer(Arc::new(Only))),
            ("authorizer.requestResource", request_resource(Arc::new(Only), resource.clone())),
        ]);
        let evaluation = program.evaluate(&variables, cel::CALL_LIMIT);
        assert!(matches!(evaluation.result, Ok(Value::Bool(true))), "{source}: {:?}", evaluation.result);
        assert_eq!(evaluation.cost, cost, "{source}");
    }
}
