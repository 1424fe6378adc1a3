//! Published costs: each expression evaluated over a small object, and what the evaluation must have cost. The
//! figures are part of the API: they decide which rules run to their end.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Decl, DeclKind, Env, Field, ListKind, Program, Value};
use serde_json::{Value as Json, json};

fn object(name: &str, fields: &[(&str, Decl)]) -> Decl {
    let field = |(name, decl): &(&str, Decl)| {
        let field = Field { json: (*name).into(), decl: Arc::new(decl.clone()) };
        (cel::escape(name).expect("a name").into_owned().into(), field)
    };
    let fields = fields.iter().map(field).collect();
    Decl::new(DeclKind::Object { name: name.into(), fields }, 0, 2)
}

fn plain(kind: DeclKind) -> Decl {
    let length = if matches!(kind, DeclKind::String | DeclKind::Bytes) { 100 } else { 1 };
    Decl::new(kind, length, 1)
}

fn list(item: Decl) -> Decl {
    Decl::new(DeclKind::List { item: Arc::new(item), kind: ListKind::Atomic }, 100, 2)
}

fn set(item: Decl) -> Decl {
    Decl::new(DeclKind::List { item: Arc::new(item), kind: ListKind::Set }, 100, 2)
}

fn declared() -> Arc<Decl> {
    let text = || plain(DeclKind::String);
    let int = || plain(DeclKind::Int);
    let pair = object("pair", &[("k", text()), ("v", text()), ("v2", text())]);
    let keyed = |item: Decl| {
        let kind = ListKind::Map(vec!["k".into()]);
        Decl::new(DeclKind::List { item: Arc::new(item), kind }, 100, 2)
    };
    Arc::new(object(
        "self",
        &[
            ("text", text()),
            ("rook", text()),
            ("n", int()),
            ("m", int()),
            ("x", plain(DeclKind::Double)),
            ("bytes", plain(DeclKind::Bytes)),
            ("span", plain(DeclKind::Duration)),
            ("day", plain(DeclKind::Date)),
            ("array", list(int())),
            ("three", list(int())),
            ("set", set(text())),
            ("other", set(text())),
            ("map", Decl::new(DeclKind::Map(Arc::new(int())), 100, 2)),
            ("listMap", keyed(pair.clone())),
            ("objs", list(keyed(pair))),
            (
                "a1",
                object(
                    "a1",
                    &[("b1", object("b1", &[("c1", int())])), ("d2", object("d2", &[("e2", int())]))],
                ),
            ),
        ],
    ))
}

fn value() -> Json {
    json!({
        "text": "abc", "rook": "Rook takes 👑", "n": 10, "m": 10, "x": 10.0, "bytes": "QUI=", "span": "1h2m3s4ms",
        "day": "1997-07-16", "array": [1, 1, 2, 2, 3, 3, 4, 5], "three": [1, 2, 3], "set": ["a", "b", "c"],
        "other": ["a", "c", "b"], "map": {"b": 1, "d": 2},
        "listMap": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"}, {"k": "a3", "v": "b3", "v2": "z"}],
        "objs": [
            [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}],
            [{"k": "b", "v": "2"}, {"k": "a", "v": "1"}],
            [{"k": "b", "v": "3"}, {"k": "a", "v": "1"}],
            [{"k": "c", "v": "4"}],
        ],
        "a1": {"b1": {"c1": 4}},
    })
}

/// Each holds, and costs that much.
const COSTS: &[(&str, u64)] = &[
    // names, selections, literals
    ("true", 0),
    ("self.n == self.m", 5),
    ("self.n == 10", 3),
    ("type(self.n) == int", 4),
    ("type(self.x) == double", 4),
    ("self.x == 10.0", 3),
    ("double(self.n) < 10.5", 4),
    ("double(5) < 10.0", 1),
    ("5 < int(10.0)", 1),
    ("has(self.n)", 1),
    ("has(self.n) && has(self.m)", 2),
    ("has(self.a1.b1.c1)", 3),
    ("!has(self.a1.d2)", 3),
    ("!(has(self.a1.d2) && has(self.a1.d2.e2))", 3),
    ("(1 > 2 ? 5 : 3) > 1", 2),
    ("(1 > 2 || 2 > 1) == true", 3),
    ("(self.n > 20 ? self.three : self.array).all(y, true)", 29),
    // strings
    ("self.rook.startsWith('Rook')", 3),
    ("!self.rook.startsWith('knight')", 4),
    ("!self.rook.startsWith('knight') && self.rook.size() == 12", 8),
    ("self.rook.matches('^[^0-9]*$')", 8),
    ("!self.rook.matches('^[0-9]*$')", 7),
    ("size(self.rook) == 12", 4),
    ("self.rook.charAt(3) == 'k'", 4),
    ("self.rook.indexOf('o') == 1", 4),
    ("self.rook.indexOf('o', 2) == 2", 4),
    ("self.rook.replace(' ', 'x') == 'Rookxtakesx👑'", 7),
    ("self.rook.replace(' ', 'x', 1) == 'Rookxtakes 👑'", 7),
    ("self.rook.split(' ') == ['Rook', 'takes', '👑']", 6),
    ("self.rook.split(' ', 2) == ['Rook', 'takes 👑']", 6),
    ("self.rook.substring(5) == 'takes 👑'", 5),
    ("self.rook.substring(0, 4) == 'Rook'", 5),
    ("self.rook.substring(4, 10).trim() == 'takes'", 6),
    ("self.rook.upperAscii() == 'ROOK TAKES 👑'", 6),
    ("self.rook.lowerAscii() == self.rook.lowerAscii()", 10),
    (
        "'%d %s %f %s %s'.format([1, 'abc', 1.0, duration('1m'), timestamp('2000-01-01T00:00:00.000Z')]) == '1 abc 1.000000 60s 2000-01-01T00:00:00Z'",
        6,
    ),
    ("'%e'.format([3.14]) == '3.140000×10⁰⁰'", 3),
    ("'%o %o %o'.format([7, 8, 9]) == '7 10 11'", 2),
    ("'%b %b %b'.format([7, 8, 9]) == '111 1000 1001'", 3),
    ("'123'.matches('[0-9]')", 2),
    ("'12345678901234567890' != '123456789012345678901234567890'", 2),
    ("self.bytes == b'AB'", 3),
    ("size(self.bytes) == 2", 4),
    // times
    ("self.span == duration('1h2m') + duration('3s4ms')", 4),
    ("self.span.getHours() == 1", 4),
    ("type(self.span) == google.protobuf.Duration", 4),
    ("self.day.getDate() == 16", 4),
    ("self.day == timestamp('1997-07-16T00:00:00.000Z')", 3),
    // lists, sets, maps
    ("self.text in ['abc', 'Available']", 2),
    ("1 in self.three", 5),
    ("self.three[0] in self.three", 8),
    ("!(0 in self.three)", 6),
    ("self.three + self.three == [1, 2, 3, 1, 2, 3]", 6),
    ("self.three + [4, 5] == [1, 2, 3, 4, 5]", 4),
    ("self.set == ['c', 'b', 'a']", 3),
    ("self.set == self.other", 5),
    ("self.set + self.other == ['a', 'b', 'c']", 6),
    ("self.set + ['c', 'd'] == ['a', 'b', 'c', 'd']", 4),
    ("sets.contains(self.set, ['a'])", 6),
    ("sets.equivalent(self.set, ['a', 'b', 'c'])", 21),
    ("sets.intersects(self.set, ['a'])", 6),
    ("self.objs[0] == self.objs[1]", 7),
    ("self.objs[0] + self.objs[2] == self.objs[2]", 11),
    ("self.objs[2] + self.objs[0] == self.objs[0]", 11),
    ("self.objs[0] == [self.objs[0][0], self.objs[0][1]]", 22),
    ("self.objs[0] == [self.objs[0][1], self.objs[0][0]]", 22),
    ("self.objs[2] + [self.objs[0][0], self.objs[0][1]] == self.objs[0]", 26),
    ("size(self.objs[0] + [self.objs[3][0]]) == 3", 20),
    ("self.map == {'b': 1, 'd': 2}", 3),
    ("'b' in self.map", 3),
    ("!('a' in self.map)", 4),
    ("has(self.map.b)", 2),
    ("!has(self.map.a)", 3),
    ("size(self.map) == 2", 4),
    // folds
    ("self.map.all(k, self.map[k] > 0)", 17),
    ("!self.map.exists(k, self.map[k] == 3)", 20),
    ("self.map.exists_one(k, self.map[k] == 2)", 14),
    ("!self.map.exists_one(k, self.map[k] > 0)", 17),
    ("size(self.map.filter(k, self.map[k] > 1)) == 1", 26),
    ("self.map.all(k, v, v > 0)", 13),
    ("!self.map.exists(k, v, v == 3)", 16),
    ("self.map.existsOne(k, v, v == 2)", 10),
    ("self.map.transformMap(k, v, v > 1, v + 1).size() == 1", 14),
    ("self.map.transformMap(k, v, v + 1).size() == 2", 15),
    ("self.map.transformMapEntry(k, v, v > 1, {k + '2': v + 1}).size() == 1", 45),
    ("self.map.transformMapEntry(k, v, {k + '2': v + 1}).size() == 2", 77),
    ("has(self.listMap[0].v)", 3),
    ("self.listMap.all(m, m.k.startsWith('a'))", 21),
    ("self.listMap.all(m, !has(m.v2) || m.v2 == 'z')", 21),
    ("self.listMap.exists(m, m.k.endsWith('1'))", 13),
    ("self.listMap.exists_one(m, m.k == 'a3')", 15),
    ("!self.listMap.all(m, m.k.endsWith('1'))", 18),
    ("!self.listMap.exists(m, m.v == 'x')", 25),
    ("!self.listMap.exists_one(m, m.k.startsWith('a'))", 20),
    ("size(self.listMap.filter(m, m.k == 'a1')) == 1", 27),
    ("self.listMap.exists(m, m.k == 'a1' && m.v == 'b1')", 16),
    ("self.listMap.map(m, m.v).exists(v, v == 'b1')", 55),
    ("self.listMap.exists(m, has(m.v2) && m.v2 == 'z')", 21),
    ("!self.listMap.all(m, has(m.v2) && m.v2 != 'z')", 10),
    ("self.listMap.exists_one(m, has(m.v2) && m.v2 == 'z')", 12),
    ("self.listMap.filter(m, has(m.v2) && m.v2 == 'z').size() == 1", 24),
    ("self.listMap.map(m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1", 25),
    ("self.listMap.filter(m, has(m.v2) && m.v2 == 'z').map(m, m.v2).size() == 1", 39),
    ("self.listMap.exists(m, m.v2 == 'z')", 24),
    ("!self.listMap.all(m, m.v2 != 'z')", 22),
    ("self.listMap.transformList(i, m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1", 25),
    ("self.listMap.transformList(i, m, m.v).size() == 3", 47),
    ("2 in self.array", 10),
    ("self.array.all(e, e > 0)", 43),
    ("self.array.exists(e, e > 2)", 36),
    ("self.array.exists_one(e, e > 4)", 22),
    ("!self.array.all(e, e < 2)", 21),
    ("!self.array.exists(e, e < 0)", 52),
    ("!self.array.exists_one(e, e == 2)", 25),
    ("size(self.array.filter(e, e%2 == 0)) == 3", 68),
    ("self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 194),
    ("self.array.transformList(i, e, e > 2, e * 2).size() > 0", 77),
    ("self.array.transformList(i, e, e * 2).size() > 0", 117),
];

#[test]
fn every_step_costs_what_it_is_published_to_cost() {
    let declared = declared();
    let env = Env::default().declare("self", &declared);
    let json = value();
    let mut wrong = Vec::new();
    for (source, expected) in COSTS {
        let program = match Program::compile(&env, source) {
            Ok(program) => program,
            Err(issues) => {
                wrong.push(format!("{source}: {issues}"));
                continue;
            }
        };
        let variables = BTreeMap::from([("self", declared.read(&json).expect("readable"))]);
        let evaluation = program.evaluate(&variables, cel::CALL_LIMIT);
        let holds = matches!(evaluation.result, Ok(Value::Bool(true)));
        if !holds || evaluation.cost != *expected {
            wrong.push(format!("{source}: {:?}, cost {} not {expected}", evaluation.result, evaluation.cost));
        }
        if program.bounds().max < evaluation.cost {
            wrong.push(format!("{source}: estimated {:?}, cost {}", program.bounds(), evaluation.cost));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Estimates over literals: no sizes are unknown.
const ESTIMATES: &[(&str, u64, u64)] = &[
    ("'ABCDEFGHIJ abcdefghij'.lowerAscii()", 3, 3),
    ("'ABCDEFGHIJ abcdefghij'.lowerAscii() == 'abcdefghij ABCDEFGHIJ'.lowerAscii()", 7, 9),
    ("strings.quote('ABCDEFGHIJ abcdefghij')", 3, 3),
    ("strings.quote('ABCDEFGHIJ abcdefghij') == strings.quote('ABCDEFGHIJ abcdefghij')", 7, 11),
    ("'abc 123 def 123'.replace('123', '456')", 3, 3),
    ("'abc 123 def 123'.split(' ')", 3, 3),
    ("'abc 123 def 123'.substring(5)", 2, 2),
    ("'  abc 123 def 123  '.trim()", 2, 2),
    ("'abc 123 def 123'.find('123')", 2, 2),
    ("'abc 123 def 123'.findAll('123')", 2, 2),
    ("jsonpatch.escapeKey('abc/def~ abc/def~')", 2, 2),
    ("format.named('dns1123subdomain')", 1, 1),
    ("format.named('dns1123Label').value() == format.named('dns1123Label').value()", 5, 11),
    ("sets.contains([], [])", 21, 21),
    ("sets.contains([1, 2, 3, 4], [2, 3])", 29, 29),
    ("sets.contains([[1], [2, 3]], [[2, 3]])", 53, 53),
    ("sets.equivalent([1, 2, 3], [3, 2, 1])", 39, 39),
    ("!sets.equivalent([1, 2], [2, 2, 2])", 34, 34),
    ("sets.intersects([1], [1, 2])", 23, 23),
    ("semver('1.2.3').major()", 2, 2),
];

#[test]
fn estimates_are_the_published_ones() {
    let env = Env::default();
    let mut wrong = Vec::new();
    for (source, min, max) in ESTIMATES {
        match Program::compile(&env, source) {
            Ok(program) => {
                let bounds = program.bounds();
                if (bounds.min, bounds.max) != (*min, *max) {
                    wrong.push(format!("{source}: {bounds:?} not {min}..{max}"));
                }
            }
            Err(issues) => wrong.push(format!("{source}: {issues}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
