//! Named formats: what names and values of the API look like.

use std::sync::Arc;

use super::{Row, regexes};
use crate::cost::Cost;
use crate::decl::decode_base64;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::time;
use crate::value::{Opaque, Value};

macro_rules! rows {
    ($($name:literal $native:ident $index:literal;)*) => {
        $(fn $native<'a>(_: &mut Meter, _: &[Value<'a>]) -> Result<Value<'a>, Fault> {
            Ok(format_value($index))
        })*
        pub const ROWS: &[Row] = &[
            $(Row(concat!("format.", $name, "(): kubernetes.NamedFormat"), Cost::One, $native),)*
            Row("format.named(string): optional<kubernetes.NamedFormat>", Cost::One, named),
            Row("kubernetes.NamedFormat::validate(string): optional<list<string>>", Cost::Validate, validate),
        ];
    };
}

rows! {
    "dns1123Label" dns1123_label 0;
    "dns1123Subdomain" dns1123_subdomain 1;
    "dns1035Label" dns1035_label 2;
    "qualifiedName" qualified_name 3;
    "dns1123LabelPrefix" dns1123_label_prefix 4;
    "dns1123SubdomainPrefix" dns1123_subdomain_prefix 5;
    "dns1035LabelPrefix" dns1035_label_prefix 6;
    "labelValue" label_value 7;
    "uri" uri 8;
    "uuid" uuid 9;
    "byte" byte 10;
    "date" date 11;
    "datetime" datetime 12;
}

struct Format {
    name: &'static str,
    /// The length of the pattern it stands for; costs follow from it.
    pattern: u64,
    check: fn(&str) -> Vec<String>,
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

const FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", pattern: 30, check: label },
    Format { name: "dns1123Subdomain", pattern: 60, check: subdomain },
    Format { name: "dns1035Label", pattern: 30, check: label_1035 },
    Format { name: "qualifiedName", pattern: 60, check: qualified },
    Format { name: "dns1123LabelPrefix", pattern: 30, check: |text| label(&masked(text)) },
    Format { name: "dns1123SubdomainPrefix", pattern: 60, check: |text| subdomain(&masked(text)) },
    Format { name: "dns1035LabelPrefix", pattern: 30, check: |text| label_1035(&masked(text)) },
    Format { name: "labelValue", pattern: 40, check: value_of_label },
    Format { name: "uri", pattern: 1117, check: is_uri },
    Format { name: "uuid", pattern: 92, check: is_uuid },
    Format { name: "byte", pattern: 83, check: is_byte },
    Format { name: "date", pattern: 71, check: is_date },
    Format { name: "datetime", pattern: 71, check: is_datetime },
];

#[derive(Debug, PartialEq)]
struct Named(usize);

impl Opaque for Named {
    fn type_name(&self) -> &'static str {
        "kubernetes.NamedFormat"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn size(&self) -> u64 {
        FORMATS.get(self.0).map_or(1, |format| format.pattern)
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn format_value<'a>(index: usize) -> Value<'a> {
    Value::Opaque(Arc::new(Named(index)))
}

fn named<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(name)] = args else { return Err(Fault::no_overload()) };
    let index = FORMATS.iter().position(|format| *format.name == **name);
    Ok(index.map_or(Value::Optional(None), |index| Value::some(format_value(index))))
}

fn validate<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::Opaque(format), Value::String(text)] = args else { return Err(Fault::no_overload()) };
    let format = format.as_any().downcast_ref::<Named>().and_then(|named| FORMATS.get(named.0));
    let format = format.ok_or_else(Fault::no_overload)?;
    meter.text(text.len())?;
    let faults = (format.check)(text);
    Ok(match faults.is_empty() {
        true => Value::Optional(None),
        false => Value::some(Value::list(faults.iter().map(|fault| Value::text(fault)).collect())),
    })
}

fn whole(pattern: &str, text: &str) -> bool {
    regexes::compile(&format!("^({pattern})$")).is_ok_and(|pattern| pattern.is_match(text))
}

/// A prefix ends where more will follow: its last dash is none.
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(head) if !head.is_empty() => format!("{head}a"),
        _ => text.to_owned(),
    }
}

fn faults(text: &str, limit: usize, fits: bool, why: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > limit {
        out.push(format!("must be no more than {limit} bytes"));
    }
    if !fits {
        out.push(why.to_owned());
    }
    out
}

fn label(text: &str) -> Vec<String> {
    let why = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
               end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    faults(text, 63, whole(LABEL, text), why)
}

fn subdomain(text: &str) -> Vec<String> {
    let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
               start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    faults(text, 253, whole(&format!("{LABEL}(\\.{LABEL})*"), text), why)
}

fn label_1035(text: &str) -> Vec<String> {
    let why = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
               character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
               validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    faults(text, 63, whole(LABEL_1035, text), why)
}

fn qualified(text: &str) -> Vec<String> {
    let shape = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')";
    let parts: Vec<&str> = text.split('/').collect();
    let (mut out, name) = match parts.as_slice() {
        [name] => (Vec::new(), *name),
        ["", name] => (vec!["prefix part must be non-empty".to_owned()], *name),
        [prefix, name] => {
            (subdomain(prefix).into_iter().map(|fault| format!("prefix part {fault}")).collect(), *name)
        }
        _ => return vec![shape.to_owned()],
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 bytes".to_owned());
    }
    if !whole(QUALIFIED, name) {
        let part = shape.split_once(" with an optional").map_or(shape, |(part, _)| part);
        out.push(format!("name part {}", part.replacen("a qualified name", "", 1).trim_start()));
    }
    out
}

fn value_of_label(text: &str) -> Vec<String> {
    let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
               start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
               for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    faults(text, 63, text.is_empty() || whole(QUALIFIED, text), why)
}

fn one(fits: bool, why: &str) -> Vec<String> {
    if fits { Vec::new() } else { vec![why.to_owned()] }
}

fn is_uri(text: &str) -> Vec<String> {
    super::urls::fault(text).into_iter().collect()
}

fn is_uuid(text: &str) -> Vec<String> {
    let hex = "[0-9a-fA-F]";
    let pattern = format!("{hex}{{8}}-?{hex}{{4}}-?{hex}{{4}}-?{hex}{{4}}-?{hex}{{12}}");
    one(whole(&pattern, text), "does not match the UUID format")
}

fn is_byte(text: &str) -> Vec<String> {
    one(!text.is_empty() && decode_base64(text).is_some(), "invalid base64")
}

fn is_date(text: &str) -> Vec<String> {
    one(time::parse_timestamp(&format!("{text}T00:00:00Z")).is_some(), "invalid date")
}

fn is_datetime(text: &str) -> Vec<String> {
    one(time::parse_timestamp(text).is_some(), "invalid datetime")
}
