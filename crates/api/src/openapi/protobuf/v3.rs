//! The version 3 documents as protobuf (`openapi.v3.Document` of gnostic). The messages are a table of what they hold,
//! in the order of the fields' numbers, which is the order of the original's bytes.

use serde_json::{Map, Value};

use super::{double, flag, integer, message, present_text, text};

/// What an answer in this form is called; clients also ask for it by an older name that no media type may have.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
pub const MEDIA_TYPE_OLD: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// Encodes what the JSON form of a document says.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    body(&mut out, &DOCUMENT, document);
    out
}

/// How a member of the JSON form is written. Zeros, `false` and empty text are left out, as `proto3` does.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Flag,
    Integer,
    Double,
    /// Any value, as YAML.
    Any,
    Anys,
    /// A number, a flag or text; others leave no more than that there is a default.
    Default,
    One(&'static Message),
    /// `One`, which may be a reference instead.
    OneOrReference(&'static Message),
    ManyOrReference(&'static Message),
    /// Messages by name.
    Named(&'static Message),
    NamedOrReference(&'static Message),
    /// Those that have a number as their name, and a default beside them.
    Responses,
    /// One schema, where there might be several.
    Items,
    /// A schema, or whether anything goes.
    Additional,
}

struct Message {
    members: &'static [(&'static str, u32, Form)],
    /// The field that members which begin with `x-` go to.
    extensions: u32,
}

use Form::{
    Additional, Any, Anys, Default, Double, Flag, Integer, Items, ManyOrReference, Named, NamedOrReference,
    One, OneOrReference, Responses, Text, Texts,
};

static DOCUMENT: Message = Message {
    members: &[
        ("openapi", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 4, Named(&PATH_ITEM)),
        ("components", 5, One(&COMPONENTS)),
        ("externalDocs", 8, One(&EXTERNAL_DOCS)),
    ],
    extensions: 9,
};

static INFO: Message = Message {
    members: &[("title", 1, Text), ("description", 2, Text), ("version", 6, Text), ("summary", 8, Text)],
    extensions: 7,
};

static COMPONENTS: Message = Message {
    members: &[
        ("schemas", 1, NamedOrReference(&SCHEMA)),
        ("responses", 2, NamedOrReference(&RESPONSE)),
        ("parameters", 3, NamedOrReference(&PARAMETER)),
        ("requestBodies", 5, NamedOrReference(&REQUEST_BODY)),
        ("securitySchemes", 7, NamedOrReference(&SECURITY_SCHEME)),
    ],
    extensions: 10,
};

static SECURITY_SCHEME: Message = Message {
    members: &[
        ("type", 1, Text),
        ("description", 2, Text),
        ("name", 3, Text),
        ("in", 4, Text),
        ("scheme", 5, Text),
        ("bearerFormat", 6, Text),
        ("openIdConnectUrl", 8, Text),
    ],
    extensions: 9,
};

static PATH_ITEM: Message = Message {
    members: &[
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, One(&OPERATION)),
        ("put", 5, One(&OPERATION)),
        ("post", 6, One(&OPERATION)),
        ("delete", 7, One(&OPERATION)),
        ("options", 8, One(&OPERATION)),
        ("head", 9, One(&OPERATION)),
        ("patch", 10, One(&OPERATION)),
        ("trace", 11, One(&OPERATION)),
        ("parameters", 13, ManyOrReference(&PARAMETER)),
    ],
    extensions: 14,
};

static OPERATION: Message = Message {
    members: &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, One(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("parameters", 6, ManyOrReference(&PARAMETER)),
        ("requestBody", 7, OneOrReference(&REQUEST_BODY)),
        ("responses", 8, Responses),
        ("deprecated", 10, Flag),
    ],
    extensions: 13,
};

static PARAMETER: Message = Message {
    members: &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Flag),
        ("deprecated", 5, Flag),
        ("allowEmptyValue", 6, Flag),
        ("style", 7, Text),
        ("explode", 8, Flag),
        ("allowReserved", 9, Flag),
        ("schema", 10, OneOrReference(&SCHEMA)),
        ("example", 11, Any),
        ("content", 13, Named(&MEDIA)),
    ],
    extensions: 14,
};

static REQUEST_BODY: Message = Message {
    members: &[("description", 1, Text), ("content", 2, Named(&MEDIA)), ("required", 3, Flag)],
    extensions: 4,
};

static RESPONSE: Message =
    Message { members: &[("description", 1, Text), ("content", 3, Named(&MEDIA))], extensions: 5 };

static MEDIA: Message =
    Message { members: &[("schema", 1, OneOrReference(&SCHEMA)), ("example", 2, Any)], extensions: 5 };

static EXTERNAL_DOCS: Message =
    Message { members: &[("description", 1, Text), ("url", 2, Text)], extensions: 3 };

static SCHEMA: Message = Message {
    members: &[
        ("nullable", 1, Flag),
        ("readOnly", 3, Flag),
        ("writeOnly", 4, Flag),
        ("externalDocs", 6, One(&EXTERNAL_DOCS)),
        ("example", 7, Any),
        ("deprecated", 8, Flag),
        ("title", 9, Text),
        ("multipleOf", 10, Double),
        ("maximum", 11, Double),
        ("exclusiveMaximum", 12, Flag),
        ("minimum", 13, Double),
        ("exclusiveMinimum", 14, Flag),
        ("maxLength", 15, Integer),
        ("minLength", 16, Integer),
        ("pattern", 17, Text),
        ("maxItems", 18, Integer),
        ("minItems", 19, Integer),
        ("uniqueItems", 20, Flag),
        ("maxProperties", 21, Integer),
        ("minProperties", 22, Integer),
        ("required", 23, Texts),
        ("enum", 24, Anys),
        ("type", 25, Text),
        ("allOf", 26, ManyOrReference(&SCHEMA)),
        ("oneOf", 27, ManyOrReference(&SCHEMA)),
        ("anyOf", 28, ManyOrReference(&SCHEMA)),
        ("not", 29, One(&SCHEMA)),
        ("items", 30, Items),
        ("properties", 31, NamedOrReference(&SCHEMA)),
        ("additionalProperties", 32, Additional),
        ("default", 33, Default),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    extensions: 36,
};

fn body(out: &mut Vec<u8>, kind: &Message, value: &Value) {
    let Value::Object(members) = value else { return };
    let (before, after) = kind.members.split_at(kind.members.partition_point(|m| m.1 < kind.extensions));
    before.iter().for_each(|member| write(out, member, members));
    for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
        message(out, kind.extensions, |entry| {
            text(entry, 1, Some(name));
            any(entry, 2, value);
        });
    }
    after.iter().for_each(|member| write(out, member, members));
}

fn write(out: &mut Vec<u8>, (name, field, form): &(&str, u32, Form), members: &Map<String, Value>) {
    let (Some(value), field) = (members.get(*name), *field) else { return };
    let list = || value.as_array().into_iter().flatten();
    match *form {
        Text => text(out, field, value.as_str()),
        Texts => list().filter_map(Value::as_str).for_each(|word| present_text(out, field, word)),
        Flag if value == true => flag(out, field, true),
        Flag => {}
        Integer => value.as_i64().filter(|n| *n != 0).into_iter().for_each(|n| integer(out, field, n)),
        Double => value.as_f64().filter(|n| *n != 0.0).into_iter().for_each(|n| double(out, field, n)),
        Any => any(out, field, value),
        Anys => list().for_each(|value| any(out, field, value)),
        Default => message(out, field, |out| match value {
            Value::Number(number) => double(out, 1, number.as_f64().unwrap_or_default()),
            Value::Bool(on) => flag(out, 2, *on),
            Value::String(said) => present_text(out, 3, said),
            _ => {}
        }),
        One(kind) => message(out, field, |out| body(out, kind, value)),
        OneOrReference(kind) => message(out, field, |out| or_reference(out, kind, value)),
        ManyOrReference(kind) => {
            list().for_each(|value| message(out, field, |out| or_reference(out, kind, value)));
        }
        Named(kind) => message(out, field, |out| named(out, 1, value, |out, value| body(out, kind, value))),
        NamedOrReference(kind) => {
            message(out, field, |out| named(out, 1, value, |out, value| or_reference(out, kind, value)));
        }
        Responses => message(out, field, |out| responses(out, value)),
        Items => message(out, field, |out| message(out, 1, |out| or_reference(out, &SCHEMA, value))),
        Additional => message(out, field, |out| match value {
            Value::Bool(allowed) => flag(out, 2, *allowed),
            schema => message(out, 1, |out| or_reference(out, &SCHEMA, schema)),
        }),
    }
}

fn responses(out: &mut Vec<u8>, value: &Value) {
    let mut by_code = value.clone();
    let default = by_code.as_object_mut().and_then(|map| map.remove("default"));
    for default in default.iter() {
        message(out, 1, |out| or_reference(out, &RESPONSE, default));
    }
    named(out, 2, &by_code, |out, value| or_reference(out, &RESPONSE, value));
}

fn named(out: &mut Vec<u8>, field: u32, value: &Value, mut write: impl FnMut(&mut Vec<u8>, &Value)) {
    let members = value.as_object().into_iter().flatten();
    for (name, value) in members {
        message(out, field, |entry| {
            text(entry, 1, Some(name));
            message(entry, 2, |out| write(out, value));
        });
    }
}

/// What is said beside a reference, other than what it is for, is lost.
fn or_reference(out: &mut Vec<u8>, kind: &Message, value: &Value) {
    match value.get("$ref") {
        None => message(out, 1, |out| body(out, kind, value)),
        Some(reference) => message(out, 2, |out| {
            text(out, 1, reference.as_str());
            text(out, 2, value["summary"].as_str());
            text(out, 3, value["description"].as_str());
        }),
    }
}

fn any(out: &mut Vec<u8>, field: u32, value: &Value) {
    message(out, field, |out| text(out, 2, Some(&crate::yaml::to_string(value))));
}
