//! The formats that values of custom resources are checked against: those that kube-apiserver v1.36 knows, and by the same
//! readings of them. Any other format says nothing of a value.

mod codes;
mod mail;
mod network;
mod times;
mod uri;

/// A format of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    BsonObjectId,
    Byte,
    Cidr,
    CreditCard,
    Date,
    DateTime,
    Duration,
    Email,
    HexColor,
    Hostname,
    Ipv4,
    Ipv6,
    Isbn,
    Isbn10,
    Isbn13,
    LongName,
    Mac,
    Password,
    RgbColor,
    ShortName,
    Ssn,
    Uri,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
}

/// By their names without dashes, which do not count.
const FORMATS: &[(&str, Format)] = &[
    ("bsonobjectid", Format::BsonObjectId),
    ("byte", Format::Byte),
    ("cidr", Format::Cidr),
    ("creditcard", Format::CreditCard),
    ("date", Format::Date),
    ("datetime", Format::DateTime),
    ("duration", Format::Duration),
    ("email", Format::Email),
    ("hexcolor", Format::HexColor),
    ("hostname", Format::Hostname),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("isbn", Format::Isbn),
    ("isbn10", Format::Isbn10),
    ("isbn13", Format::Isbn13),
    ("k8slongname", Format::LongName),
    ("k8sshortname", Format::ShortName),
    ("mac", Format::Mac),
    ("password", Format::Password),
    ("rgbcolor", Format::RgbColor),
    ("ssn", Format::Ssn),
    ("uri", Format::Uri),
    ("uuid", Format::Uuid),
    ("uuid3", Format::Uuid3),
    ("uuid4", Format::Uuid4),
    ("uuid5", Format::Uuid5),
];

/// Whether values of a type are checked against a format at all.
pub fn is_known(json_type: &str, format: &str) -> bool {
    match json_type {
        "" | "string" => of_text(format).is_some(),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether an address says how and where it is reached.
pub fn is_full_address(text: &str) -> bool {
    uri::parse(text).is_some_and(|uri| !uri.scheme.is_empty() && !uri.host.is_empty())
}

pub fn of_text(format: &str) -> Option<Format> {
    let name = format.replace('-', "");
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
}

impl Format {
    pub fn fits(self, text: &str) -> bool {
        match self {
            Self::BsonObjectId => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
            Self::Byte => codes::is_base64(text),
            Self::Cidr => network::is_cidr(text),
            Self::CreditCard => codes::is_credit_card(text),
            Self::Date => times::is_date(text),
            Self::DateTime => times::is_date_time(text),
            Self::Duration => times::is_duration(text),
            Self::Email => mail::is_address(text),
            Self::HexColor => codes::is_hex_color(text),
            Self::Hostname => network::is_hostname(text),
            Self::Ipv4 => network::is_ipv4(text),
            Self::Ipv6 => network::is_ipv6(text),
            Self::Isbn => codes::is_isbn10(text) || codes::is_isbn13(text),
            Self::Isbn10 => codes::is_isbn10(text),
            Self::Isbn13 => codes::is_isbn13(text),
            Self::LongName => text.len() <= 253 && text.split('.').all(network::is_name),
            Self::Mac => network::is_mac(text),
            Self::Password => true,
            Self::RgbColor => codes::is_rgb_color(text),
            Self::ShortName => text.len() <= 63 && network::is_name(text),
            Self::Ssn => codes::is_ssn(text),
            Self::Uri => uri::parse(text).is_some(),
            Self::Uuid => codes::is_uuid(text, None),
            Self::Uuid3 => codes::is_uuid(text, Some('3')),
            Self::Uuid4 => codes::is_uuid(text, Some('4')),
            Self::Uuid5 => codes::is_uuid(text, Some('5')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_of_a_format_do_not_count() {
        assert_eq!(of_text("date-time"), of_text("datetime"));
        assert_eq!(of_text("k8s-short-name"), Some(Format::ShortName));
        assert_eq!(of_text("what"), None);
        assert!(is_known("integer", "int32") && !is_known("string", "int32") && !is_known("boolean", "date"));
    }

    #[test]
    fn texts_fit_or_do_not() {
        for (format, fitting, others) in [
            ("duration", &["1s", "-1.5h", "5 days", "0", "3 hours"][..], &["", "1", "s", "abc"][..]),
            (
                "email",
                &["a@b", "Barry <b@example.com>", "\"a b\"@example.com"],
                &["a", "a@", "a..b@c", "a@b c"],
            ),
            ("uri", &["/a", "https://a/b", "urn:x", "*"], &["", "a/b", "http://a b", "http://a:80a/"]),
            ("mac", &["01:02:03:04:05:06", "0102.0304.0506"], &["01:02-03:04:05:06", "01:02"]),
            ("cidr", &["1.2.3.4/8", "::1/64", "01.2.3.4/08"], &["1.2.3.4", "1.2.3.4/33", "::1/129"]),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044", ""]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111-1111-1111-1112", ""]),
            ("hostname", &["a", "a.example.com", "exämple.com"], &["", "-a", "a..b", "a.example.c"]),
            ("date-time", &["2026-01-02t03:04:05.1+01:00"], &["2026-01-02T24:00:00Z", "2026-01-02"]),
        ] {
            let format = of_text(format).expect("a format");
            for text in fitting {
                assert!(format.fits(text), "{format:?} {text:?}");
            }
            for text in others {
                assert!(!format.fits(text), "{format:?} {text:?}");
            }
        }
    }
}
