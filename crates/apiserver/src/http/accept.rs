//! What the `Accept` header asks for, and what a resource can offer: encoding and shape of an answer are settled here,
//! before anything is read, and as the original settles them (quality first, then the more specific range, then order).

use api::status::ApiError;

use super::query::Query;

/// The bytes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// In the order in which a wildcard tries them.
const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
        }
    }

    pub fn of_media_type(media_type: &str) -> Option<Self> {
        ENCODINGS.into_iter().find(|encoding| encoding.media_type() == media_type)
    }

    /// The media type of a watch in this encoding; there is no stream of YAML.
    pub fn stream_type(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("application/json;stream=watch"),
            Self::Yaml => None,
            Self::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
        }
    }
}

/// What is made of the object (`as=…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `PartialObjectMetadataList`.
    MetadataList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub encoding: Encoding,
    pub shape: Shape,
    /// The version of `meta.k8s.io` that a table or bare metadata are in.
    pub meta_version: &'static str,
    /// Indented JSON, for people.
    pub pretty: bool,
    /// Whether watches may leave out who owns which field: see [`super::service::Lean`].
    pub lean: bool,
}

/// What a resource can be answered in.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Whether the object itself has a protobuf form: custom resources have none.
    pub protobuf: bool,
    pub shapes: bool,
    pub stream: bool,
    /// Whether what is asked for is a collection.
    pub list: bool,
    /// Whether the original's router has a look first, which knows media types and anything, but no kinds of them.
    pub routed: bool,
}

impl Offer {
    pub const NOTHING: Self =
        Self { protobuf: false, shapes: false, stream: false, list: false, routed: false };
}

impl Form {
    pub const JSON: Self = Self {
        encoding: Encoding::Json,
        shape: Shape::Object,
        meta_version: "v1",
        pretty: false,
        lean: false,
    };

    /// Whether stored bytes can be copied into the answer as they are.
    pub fn is_plain_json(self) -> bool {
        self.encoding == Encoding::Json && self.shape == Shape::Object && !self.pretty
    }

    /// Whether their metadata can be, cut out of them.
    pub fn is_plain_metadata(self) -> bool {
        let metadata = matches!(self.shape, Shape::Metadata | Shape::MetadataList);
        self.encoding == Encoding::Json && metadata && !self.pretty
    }

    /// Whether encoded objects can be.
    pub fn is_plain_protobuf(self) -> bool {
        self.encoding == Encoding::Protobuf && self.shape == Shape::Object
    }

    pub fn parse(accept: Option<&str>, offer: Offer) -> Result<Self, ApiError> {
        let Some(accept) = accept.filter(|a| !a.is_empty()) else { return Ok(Self::JSON) };
        let ranges = ranges(accept);
        if offer.routed {
            routed(Some(accept), &offer.routes())?;
        }
        for range in &ranges {
            for encoding in ENCODINGS.into_iter().filter(|e| range.covers(*e)) {
                if let Some(form) = range.form(encoding, offer)
                    && (!offer.stream || encoding.stream_type().is_some())
                {
                    return Ok(form);
                }
            }
        }
        Err(not_acceptable(offer.stream && !ranges.iter().any(Range::names_kind)))
    }

    /// For errors, which must be told whatever is accepted.
    pub fn of_error(accept: Option<&str>) -> Self {
        let offer = Offer { protobuf: true, shapes: true, ..Offer::NOTHING };
        let form = Self::parse(accept, offer).unwrap_or(Self::JSON);
        Self { shape: Shape::Object, ..form }
    }

    /// Asked for in the query, or not known to be a program.
    pub fn with_pretty(self, query: &Query, user_agent: &str) -> Self {
        let browser = || ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| user_agent.starts_with(name));
        let pretty = self.pretty || query.option_flag("pretty").unwrap_or_else(browser);
        Self { pretty, ..self }
    }
}

/// The most wanted of what is offered, by the names it is asked for by; without a header, or an empty one, the first.
/// For answers that are no objects.
pub fn choose<T: Copy>(accept: Option<&str>, offered: &[(&str, T)]) -> Option<T> {
    let accept = accept.filter(|a| !a.is_empty()).unwrap_or("*/*");
    let found = |range: &Range<'_>| offered.iter().find(|(name, _)| range.names(name)).map(|(_, what)| *what);
    ranges(accept).iter().find_map(found)
}

/// Where nothing fits at all, the original's router says so before its negotiation is asked.
pub fn routed(accept: Option<&str>, offered: &[&str]) -> Result<(), ApiError> {
    let accept = accept.filter(|a| !a.is_empty()).unwrap_or("*/*");
    let fits = |range: &Range<'_>| {
        (range.kind, range.sub) == ("*", "*")
            || offered.iter().any(|name| {
                let name = name.split(';').next().unwrap_or_default();
                name.split_once('/') == Some((range.kind, range.sub))
            })
    };
    if ranges(accept).iter().any(fits) {
        return Ok(());
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", offered.join(", "));
    let mut error = ApiError::not_acceptable(message);
    error.details = Some(Box::default());
    Err(error)
}

impl Offer {
    /// The media types that the original's router knows.
    fn routes(self) -> Vec<&'static str> {
        let mut names = ENCODINGS.map(Encoding::media_type).to_vec();
        if self.list {
            names.extend(ENCODINGS.into_iter().filter_map(Encoding::stream_type));
        }
        names
    }
}

fn not_acceptable(stream: bool) -> ApiError {
    let streams = ENCODINGS.into_iter().filter_map(Encoding::stream_type);
    // Protobuf is named also where only bare metadata come in it.
    let names: Vec<&str> = match stream {
        true => streams.collect(),
        false => ENCODINGS.map(Encoding::media_type).to_vec(),
    };
    ApiError::not_acceptable(format!("only the following media types are accepted: {}", names.join(", ")))
}

/// One element of the header.
#[derive(Debug)]
struct Range<'a> {
    kind: &'a str,
    sub: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

/// The elements, the most wanted first.
fn ranges(accept: &str) -> Vec<Range<'_>> {
    let mut out: Vec<Range<'_>> = accept.split(',').filter_map(range).collect();
    let rank = |r: &Range<'_>| (r.kind == "*", r.sub == "*");
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality).then_with(|| rank(a).cmp(&rank(b))));
    out
}

fn range(text: &str) -> Option<Range<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?;
    let (kind, sub) = match media {
        "*" => ("*", "*"),
        media => media.split_once('/').map(|(kind, sub)| (kind.trim(), sub.trim()))?,
    };
    let mut range = Range { kind, sub, quality: 1.0, parameters: Vec::new() };
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "q" => range.quality = value.parse().ok().filter(|q: &f32| !q.is_nan()).unwrap_or(1.0),
            name => range.parameters.push((name, value)),
        }
    }
    Some(range)
}

impl Range<'_> {
    fn covers(&self, encoding: Encoding) -> bool {
        self.names(encoding.media_type())
    }

    fn names(&self, media_type: &str) -> bool {
        let (kind, sub) = media_type.split_once('/').unwrap_or_default();
        (self.kind == "*" || self.kind == kind) && (self.sub == "*" || self.sub == sub)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// A group or version alone names a kind too, and one that there is not.
    fn names_kind(&self) -> bool {
        ["as", "g", "v"].iter().any(|name| self.parameter(name).is_some())
    }

    fn form(&self, encoding: Encoding, offer: Offer) -> Option<Form> {
        match self.parameter("stream") {
            None | Some("") => {}
            Some("watch") if offer.stream => {}
            Some(_) => return None,
        }
        let pretty = self.parameter("pretty") == Some("1");
        let mut form = Form { encoding, pretty, ..Form::JSON };
        if !self.names_kind() {
            return (offer.protobuf || encoding != Encoding::Protobuf).then_some(form);
        }
        form.meta_version = match (self.parameter("g"), self.parameter("v")) {
            (Some("meta.k8s.io"), Some("v1")) => "v1",
            (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
            _ => return None,
        };
        form.shape = match self.parameter("as") {
            Some("Table") if encoding != Encoding::Protobuf => Shape::Table,
            Some("PartialObjectMetadata") => Shape::Metadata,
            Some("PartialObjectMetadataList") => Shape::MetadataList,
            _ => return None,
        };
        offer.shapes.then_some(form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILTIN: Offer = Offer { protobuf: true, shapes: true, stream: false, list: false, routed: true };
    const CUSTOM: Offer = Offer { protobuf: false, routed: false, ..BUILTIN };

    fn check(offer: Offer, accept: &str, expected: &str) {
        let shown = match Form::parse(Some(accept), offer) {
            Ok(form) => format!("{:?} {:?} {}", form.encoding, form.shape, form.meta_version),
            Err(error) => format!("{} {}", error.code, error.message),
        };
        assert_eq!(shown, expected, "{accept}");
    }

    #[test]
    fn the_most_wanted_of_what_is_offered() {
        check(BUILTIN, "*/*", "Json Object v1");
        check(CUSTOM, "application/*", "Json Object v1");
        check(BUILTIN, "application/yaml", "Yaml Object v1");
        check(BUILTIN, "application/vnd.kubernetes.protobuf, application/json", "Protobuf Object v1");
        check(BUILTIN, "application/vnd.kubernetes.protobuf,application/json", "Protobuf Object v1");
        check(BUILTIN, "application/json;q=0.5, application/yaml;q=0.9", "Yaml Object v1");
        check(BUILTIN, "*/*;q=0.8, text/html, application/yaml;q=0.8", "Yaml Object v1");
        check(BUILTIN, "text/html,application/xml;q=0.9,*/*;q=0.8", "Json Object v1");
        check(CUSTOM, "application/vnd.kubernetes.protobuf, application/json", "Json Object v1");
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        check(CUSTOM, metadata, "Protobuf MetadataList v1");
    }

    #[test]
    fn one_of_what_is_offered() {
        let offered = [("application/json", 1), ("application/a.b+protobuf", 2)];
        for (accept, expected) in [
            (None, Some(1)),
            (Some(""), Some(1)),
            (Some("*/*"), Some(1)),
            (Some("application/a.b+protobuf"), Some(2)),
            (Some("application/json;q=0.1, application/a.b+protobuf"), Some(2)),
            (Some("text/html, application/*;q=0.2"), Some(1)),
            (Some("text/html"), None),
        ] {
            assert_eq!(choose(accept, &offered), expected, "{accept:?}");
        }
    }

    #[test]
    fn shapes_need_group_and_version() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(BUILTIN, table, "Json Table v1");
        check(BUILTIN, "application/json;as=Table;v=v1beta1;g=meta.k8s.io", "Json Table v1beta1");
        check(BUILTIN, "application/json;as=Table, application/yaml", "Yaml Object v1");
        check(
            BUILTIN,
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1, */*",
            "Json Object v1",
        );
        let refusal = "406 only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        check(BUILTIN, "application/json;as=Other;g=meta.k8s.io;v=v1", refusal);
        let list = Offer { list: true, ..BUILTIN };
        const AVAILABLE: &str = "406 406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        check(BUILTIN, "text/html", AVAILABLE);
        check(
            list,
            "text/html",
            &format!(
                "{AVAILABLE}, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
            ),
        );
        check(CUSTOM, "text/html", refusal);
        check(CUSTOM, "application/vnd.kubernetes.protobuf", refusal);
    }

    #[test]
    fn watches_stream_what_can_be_framed() {
        let stream = Offer { stream: true, ..BUILTIN };
        check(stream, "application/json;stream=watch", "Json Object v1");
        check(stream, "application/vnd.kubernetes.protobuf;stream=watch", "Protobuf Object v1");
        check(
            stream,
            "application/json;stream=other",
            "406 only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        );
        check(stream, "application/yaml, */*;q=0.1", "Json Object v1");
        check(BUILTIN, "application/json;stream=watch, application/yaml", "Yaml Object v1");
    }
}
