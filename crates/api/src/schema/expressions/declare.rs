//! What a schema's values are to expressions: their types, and how large they can become.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Decl, DeclKind, Field, ListKind, MAX_REQUEST_BYTES};
use serde_json::Value;

use crate::schema::crd::{flag, text};

/// A text's length without its quotes.
const MAX_TEXT: u64 = MAX_REQUEST_BYTES - 2;
/// The longest duration and the longest time, in quotes.
const MAX_TIME: u64 = 32;
const DATE: u64 = 12;
const MAX_NAME: u64 = 253;

pub fn number(schema: &Value, key: &str) -> Option<u64> {
    schema.get(key).and_then(Value::as_i64).map(|n| u64::try_from(n).unwrap_or(0))
}

/// The declaration of a schema's values; `None` where expressions do not see them. `name` is the type's.
pub fn declare(schema: &Value, name: &str, resource_root: bool) -> Option<Arc<Decl>> {
    let (kind, max_elements, min_size) = if flag(schema, "x-kubernetes-int-or-string") {
        let max = number(schema, "maxLength").map_or(MAX_TEXT, |n| n.saturating_mul(4));
        (DeclKind::Dyn, max, 1)
    } else {
        match text(schema, "type") {
            "array" => list(schema, name)?,
            "object" => match schema.get("additionalProperties").filter(|values| values.is_object()) {
                Some(values) if !resource_root => map(schema, values, name)?,
                _ => object(schema, name, resource_root),
            },
            "string" => string(schema),
            "boolean" => (DeclKind::Bool, 0, 4),
            "number" => (DeclKind::Double, 0, 1),
            "integer" => (DeclKind::Int, 0, 1),
            _ => return None,
        }
    };
    Some(Arc::new(Decl::new(kind, max_elements, min_size)))
}

fn embedded(schema: &Value) -> bool {
    flag(schema, "x-kubernetes-embedded-resource")
}

fn list(schema: &Value, name: &str) -> Option<(DeclKind, u64, u64)> {
    let items = schema.get("items")?;
    let item = declare(items, &format!("{name}.@idx"), embedded(items))?;
    let max = number(schema, "maxItems").unwrap_or((MAX_REQUEST_BYTES - 2) / (item.min_size + 1));
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
    let kind = match text(schema, "x-kubernetes-list-type") {
        "set" => ListKind::Set,
        "map" => ListKind::Map(keys.filter_map(Value::as_str).map(Into::into).collect()),
        _ => ListKind::Atomic,
    };
    Some((DeclKind::List { item, kind }, max, 2))
}

fn map(schema: &Value, values: &Value, name: &str) -> Option<(DeclKind, u64, u64)> {
    let value = declare(values, &format!("{name}.@elem"), embedded(values))?;
    let max = number(schema, "maxProperties").unwrap_or((MAX_REQUEST_BYTES - 2) / (value.min_size + 6));
    Some((DeclKind::Map(value), max, 2))
}

fn object(schema: &Value, name: &str, resource_root: bool) -> (DeclKind, u64, u64) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (property, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let Some(decl) = declare(inner, &format!("{name}.{property}"), embedded(inner)) else { continue };
        // What has a default is not sent.
        if required.contains(&property.as_str()) && inner.get("default").is_none() {
            min_size += property.len() as u64 + decl.min_size + 4;
        }
        if let Some(expressed) = cel::escape(property) {
            fields.insert(expressed.into_owned().into(), Field { json: property.as_str().into(), decl });
        }
    }
    if resource_root {
        root_fields(&mut fields, name);
    }
    (DeclKind::Object { name: name.into(), fields }, 0, min_size)
}

/// Every resource has these, and of its metadata only the names are known.
fn root_fields(fields: &mut BTreeMap<Box<str>, Field>, name: &str) {
    let text = |max: u64| Arc::new(Decl::new(DeclKind::String, max, 2));
    let put = |fields: &mut BTreeMap<Box<str>, Field>, name: &str, decl: Arc<Decl>| {
        fields.insert(name.into(), Field { json: name.into(), decl });
    };
    let mut names = BTreeMap::new();
    put(&mut names, "name", text(MAX_NAME * 4));
    put(&mut names, "generateName", text((MAX_NAME - 1) * 4));
    let metadata = DeclKind::Object { name: format!("{name}.metadata").into(), fields: names };
    put(fields, "metadata", Arc::new(Decl::new(metadata, 0, 2)));
    put(fields, "kind", text(MAX_TEXT));
    put(fields, "apiVersion", text(MAX_TEXT));
}

fn string(schema: &Value) -> (DeclKind, u64, u64) {
    let max_length = number(schema, "maxLength");
    match text(schema, "format") {
        "byte" => (DeclKind::Bytes, max_length.unwrap_or(MAX_TEXT), 2),
        "duration" => (DeclKind::Duration, MAX_TIME, 3),
        "date" => (DeclKind::Date, DATE, DATE),
        "date-time" => (DeclKind::Timestamp, MAX_TIME, 21),
        _ => {
            let longest =
                schema.get("enum").and_then(Value::as_array).filter(|allowed| !allowed.is_empty()).map(
                    |allowed| {
                        allowed.iter().filter_map(Value::as_str).map(|s| s.len() as u64).max().unwrap_or(0)
                    },
                );
            // A length is told in characters, of up to four bytes.
            let max = max_length.map(|n| n.saturating_mul(4)).or(longest).unwrap_or(MAX_TEXT);
            (DeclKind::String, max, 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use cel::{Env, Program};
    use serde_json::json;

    use super::*;
    use crate::expressions::library;

    /// Published estimates: they decide which rules may be written, and are part of the API.
    fn check(properties: Value, estimates: &[(&str, u64)]) {
        let schema = json!({"type": "object", "properties": properties});
        let decl = declare(&schema, "selfType", true).expect("an object");
        let env = Env::new(library().clone()).declare("self", &decl);
        let wrong: Vec<String> = estimates
            .iter()
            .filter_map(|(source, expected)| match Program::compile(&env, source) {
                Ok(program) if program.bounds().max == *expected => None,
                Ok(program) => Some(format!("{source}: {} not {expected}", program.bounds().max)),
                Err(issues) => Some(format!("{source}: {issues}")),
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn estimates_of_scalars() {
        let text = json!({"type": "string"});
        check(
            json!({"val1": text, "val2": text}),
            &[
                ("self.val1 == self.val2", 314_577),
                ("self.val1 == '''l1\nl2'''", 3),
                ("self.val1.startsWith('Rook')", 3),
                ("self.val1.matches('^[^0-9]*$')", 943_721),
                ("!self.val1.matches('^[0-9]*$')", 629_149),
                ("type(self.val1) == string", 4),
                ("size(self.val1) == 12", 4),
                ("self.val1.charAt(3) == 'k'", 4),
                ("self.val1.indexOf('o', 2) == 2", 314_576),
                ("self.val1.replace(' ', 'x') == 'Rookxtakesx👑'", 629_150),
                ("self.val1.split(' ') == ['Rook', 'takes', '👑']", 629_159),
                ("self.val1.substring(0, 4) == 'Rook'", 314_576),
                ("self.val1.substring(4, 10).trim() == 'takes'", 629_149),
                ("self.val1.lowerAscii() == self.val1.lowerAscii()", 943_723),
                ("isQuantity(self.val1)", 314_575),
                ("quantity(self.val1).isLessThan(quantity(self.val2))", 629_151),
                ("optional.of('a') != optional.of('b')", 1_844_674_407_370_955_266),
                ("optional.of('a').or(optional.of('a')).hasValue()", 4),
                ("optional.of('a').optMap(v, v == 'value').hasValue()", 18),
                ("optional.of([1, 2, 3, 4, 5]).optMap(v, v.size()).hasValue()", 38),
            ],
        );
        let number = json!({"type": "number"});
        check(
            json!({"i": {"type": "integer"}, "n": number, "b": {"type": "string", "format": "byte"}, "t": {"type": "string", "format": "date-time"},
                "d": {"type": "string", "format": "duration"}, "s": {"type": "string"}, "e": {"type": "string", "enum": ["Pending", "Available"]},
                "x": {"x-kubernetes-int-or-string": true}}),
            &[
                ("type(self.i) == int", 4),
                ("self.n == 1.0", 2),
                ("double(self.i) < self.n", 6),
                ("double(5) < 10.0", 2),
                ("int(self.n) == self.i", 5),
                ("self.b == b'AB'", 3),
                ("bytes(self.s) == self.b", 629_150),
                ("string(self.b) == self.s", 629_150),
                ("duration(self.s) == self.d", 6),
                ("timestamp(self.s) == self.t", 6),
                ("self.d == duration('1h2m') + duration('3s4ms')", 6),
                ("self.d.getHours() == 1", 4),
                ("self.e == 'Pending'", 3),
                ("self.e in ['Pending', 'Available']", 14),
                ("self.x == 1 || self.x == '25%'", 6),
                ("self.x != ['anything']", 13),
                ("type(self.x) == int ? self.x == 1 : self.x == '25%'", 7),
                ("type(self.x) == string && self.x.matches(r'(\\d+(\\.\\d+)?%)')", 1_258_298),
            ],
        );
    }

    #[test]
    fn estimates_of_lists() {
        let list = json!({"type": "array", "items": {"type": "integer"}});
        check(
            json!({"array": list, "val1": list, "val2": list}),
            &[
                ("1 in self.val1", 1_572_865),
                ("self.val2[0] in self.val1", 1_572_868),
                ("self.val1 + self.val2 == [1, 2, 3, 1, 2, 3]", 16),
                ("self.val1 + [4, 5] == [1, 2, 3, 4, 5]", 24),
                ("has(self.val1) && has(self.val2)", 2),
                ("self.val1.all(k, size(self.val1) > 0)", 11_010_044),
                ("self.val1.exists_one(k, self.val1 == [2])", 23_592_949),
                ("size(self.val1.filter(k, size(self.val1) > 1)) == 1", 26_738_686),
                ("self.array.all(e, e > 0)", 7_864_318),
                ("self.array.exists(e, e > 2)", 9_437_181),
                ("self.array.exists_one(e, e > 4)", 6_291_456),
                ("!self.array.exists_one(e, e == 2)", 4_718_594),
                ("size(self.array.filter(e, e%2 == 0)) == 3", 25_165_823),
                ("self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 53_477_367),
            ],
        );
        let pair = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string"}, "v2": {"type": "string"}}});
        let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": pair});
        check(
            json!({"listMap": keyed, "objs": {"type": "array", "items": keyed}}),
            &[
                ("self.listMap.all(m, m.k.startsWith('a'))", 6_291_453),
                ("self.listMap.all(m, !has(m.v2) || m.v2 == 'z')", 8_388_603),
                ("self.listMap.exists(m, m.k.endsWith('1'))", 7_340_028),
                ("self.listMap.exists_one(m, m.k == 'a3')", 5_242_879),
                ("size(self.listMap.filter(m, m.k == 'a1')) == 1", 16_777_215),
                ("self.listMap.exists(m, m.k == 'a1' && m.v == 'b1')", 10_485_753),
                ("self.listMap.map(m, m.v).exists(v, v == 'b1')", 19_922_939),
                ("self.listMap.map(m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1", 18_874_365),
                ("self.listMap.filter(m, has(m.v2) && m.v2 == 'z').map(m, m.v2).size() == 1", 32_505_851),
                ("self.objs[0] == self.objs[1]", 104_864),
                ("self.objs[0] + self.objs[2] == self.objs[2]", 104_868),
                ("self.objs[0] == [self.objs[0][0], self.objs[0][1]]", 22),
                ("self.objs[2] + [self.objs[0][0], self.objs[0][1]] == self.objs[0]", 104_883),
                ("size(self.objs[0] + [self.objs[3][0]]) == 3", 20),
                ("self.objs[0].all(k, size(self.objs[0]) > 0)", 8_388_604),
            ],
        );
    }

    #[test]
    fn estimates_of_maps_and_objects() {
        let map = |value: &str| json!({"type": "object", "additionalProperties": {"type": value}});
        check(
            json!({"val1": map("string"), "val2": map("string"), "val": map("integer"),
                "a1": {"type": "object", "properties": {"b1": {"type": "object", "properties": {"c1": {"type": "integer"}}}}},
                "embedded": {"type": "object", "x-kubernetes-embedded-resource": true}}),
            &[
                ("self.val1 == self.val2", 39_326),
                ("'k1' in self.val1", 3),
                ("self.val1 == {'k1': 'a', 'k2': 'b'}", 33),
                ("self.val1.all(k, size(self.val1) > 0)", 2_752_508),
                ("self.val1.exists_one(k, size(self.val1) > 0)", 2_359_294),
                ("size(self.val1.filter(k, size(self.val1) > 1)) == 1", 6_684_670),
                ("self.val.all(k, self.val[k] > 0)", 3_595_115),
                ("self.val.exists_one(k, self.val[k] == 2)", 2_696_338),
                ("size(self.val.filter(k, self.val[k] > 1)) == 1", 8_089_017),
                ("has(self.a1.b1.c1)", 3),
                ("self.kind == 'Pod'", 3),
                ("self.metadata.generateName == 'pickItForMe'", 5),
                ("self.embedded.metadata.generateName == 'pickItForMe'", 6),
            ],
        );
    }
}
