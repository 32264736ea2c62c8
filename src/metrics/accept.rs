//! Which text format a scraper wants.
//!
//! OpenMetrics is for those who name it: `*/*` is what everybody says, and a person who looks at the page with a
//! browser is better served with the older one. Whatever is not understood asks for the older one as well.

use http::HeaderValue;

use crate::metrics::exposition::Format;

/// Longer fields are not read. Prometheus' own takes some 300 bytes.
const LONGEST: usize = 4096;

/// The format that `accept` asks for (RFC 9110 §12.5.1).
pub(crate) fn format_for(accept: Option<&HeaderValue>) -> Format {
    let text = accept
        .filter(|accept| accept.len() <= LONGEST)
        .and_then(|accept| accept.to_str().ok());
    match text.and_then(Wishes::of) {
        Some(wishes) => wishes.format(),
        None => Format::Text,
    }
}

/// How closely a media range names a format; zero is not at all.
type Closeness = u8;
const NAMED: Closeness = 3;
const NAMED_WITH_VERSION: Closeness = 4;

/// How much each format is wanted.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    open_metrics: Wish,
    text: Wish,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wish {
    closeness: Closeness,
    /// The weight in thousandths.
    weight: u16,
}

impl Wish {
    /// "The most specific reference has precedence"; of two alike the one with the higher weight.
    fn hear(&mut self, closeness: Closeness, weight: u16) {
        if (closeness, weight) > (self.closeness, self.weight) {
            *self = Self { closeness, weight };
        }
    }
}

impl Wishes {
    /// What a field says; nothing if it is malformed.
    fn of(field: &str) -> Option<Self> {
        let mut wishes = Self::default();
        let mut rest = field;
        while !rest.is_empty() {
            let element;
            (element, rest) = cut(rest, ',')?;
            // RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements".
            if !element.is_empty() {
                wishes.hear(element)?;
            }
        }
        Some(wishes)
    }

    /// One media range with its parameters.
    fn hear(&mut self, element: &str) -> Option<()> {
        let (range, mut rest) = cut(element, ';')?;
        let (kind, subtype) = range.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) || (kind == "*" && subtype != "*") {
            return None;
        }
        let (mut weight, mut version) = (1_000, None);
        while !rest.is_empty() {
            let parameter;
            (parameter, rest) = cut(rest, ';')?;
            if parameter.is_empty() {
                continue;
            }
            let (name, value) = parameter.split_once('=')?;
            if name.eq_ignore_ascii_case("q") {
                weight = thousandths(value)?;
            } else if name.eq_ignore_ascii_case("version") {
                version = Some(value.trim_matches('"'));
            } else if !is_token(name) {
                return None;
            }
        }
        let is = |other_kind: &str, other_subtype: &str| {
            kind.eq_ignore_ascii_case(other_kind) && subtype.eq_ignore_ascii_case(other_subtype)
        };
        if is("application", "openmetrics-text") {
            if let Some(closeness) = named(version, "1.0.0") {
                self.open_metrics.hear(closeness, weight);
            }
        } else if is("text", "plain") {
            if let Some(closeness) = named(version, "0.0.4") {
                self.text.hear(closeness, weight);
            }
        } else if is("text", "*") {
            self.text.hear(2, weight);
        } else if is("*", "*") {
            self.text.hear(1, weight);
        }
        Some(())
    }

    fn format(self) -> Format {
        let Self { open_metrics, text } = self;
        let wanted = open_metrics.weight > 0;
        let only_it_is_named = open_metrics.weight == text.weight && text.closeness < NAMED;
        if wanted && (open_metrics.weight > text.weight || only_it_is_named) {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }
}

/// How closely a format is named by a range of its name with this version; not at all with another one.
fn named(version: Option<&str>, ours: &str) -> Option<Closeness> {
    match version {
        None => Some(NAMED),
        Some(version) if version == ours => Some(NAMED_WITH_VERSION),
        Some(_) => None,
    }
}

/// The text before the first separator that does not stand within quotes, and the text behind it; the first is
/// trimmed. Nothing where a quote is left open.
fn cut(text: &str, separator: char) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, char) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted {
            escaped = char == '\\';
            quoted = char != '"';
        } else if char == separator {
            let behind = text.get(at + separator.len_utf8()..)?;
            return Some((text.get(..at)?.trim(), behind));
        } else {
            quoted = char == '"';
        }
    }
    (!quoted).then_some((text.trim(), ""))
}

/// A weight of RFC 9110 §12.4.2: `0`, `0.5`, `1.000`; at most three digits after the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, digits) = match text.split_once('.') {
        Some((whole, digits)) => (whole, digits),
        None => (text, ""),
    };
    if digits.len() > 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let places = digits.bytes().chain(*b"000").take(3);
    let part = places.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match (whole, part) {
        ("0", part) => Some(part),
        ("1", 0) => Some(1_000),
        _ => None,
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(accept: &str) -> Format {
        format_for(Some(&HeaderValue::from_str(accept).unwrap()))
    }

    #[test]
    fn open_metrics_is_for_those_who_name_it_and_prefer_it() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0",
            "Application/OpenMetrics-Text;Version=\"1.0.0\";charset=utf-8",
            "application/openmetrics-text, */*",
            "application/openmetrics-text;q=0.5, text/plain;q=0.4",
            ",, application/openmetrics-text ,",
            "application/openmetrics-text;q=0.001,text/plain;q=0",
            // Prometheus 2.42.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            // Prometheus 3; its `text/plain;version=1.0.0` is no format of ours.
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(format(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn everybody_else_gets_the_older_format() {
        for accept in [
            "",
            "*/*",
            "application/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.0, */*",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text, text/plain",
            "application/openmetrics-text;version=1.0.0;q=0, application/openmetrics-text",
            "application/openmetrics-text;q=0.3, text/*;q=0.4",
            // Malformed: the whole field says nothing.
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=0.5000",
            "application/openmetrics-text;q=.5",
            "application/openmetrics-text;q=-1",
            "application/openmetrics-text;q=",
            "application/openmetrics-text;q",
            "application/openmetrics-text, nonsense",
            "application/openmetrics-text, a/b;c=\"open",
            "application/openmetrics-text, */plain",
            "application openmetrics-text",
            "*",
        ] {
            assert_eq!(format(accept), Format::Text, "{accept}");
        }
        assert_eq!(format_for(None), Format::Text);
        let bytes = HeaderValue::from_bytes(b"application/openmetrics-text;\xff=1").unwrap();
        assert_eq!(format_for(Some(&bytes)), Format::Text);
    }

    #[test]
    fn a_separator_within_quotes_separates_nothing() {
        let accept = "a/b;c=\"x,y;\\\"z\", application/openmetrics-text";
        assert_eq!(format(accept), Format::OpenMetrics);
    }

    #[test]
    fn a_huge_field_is_not_read() {
        let huge = format!("application/openmetrics-text{}", ", a/b".repeat(1_000));
        assert!(huge.len() > LONGEST);
        assert_eq!(format(&huge), Format::Text);
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(accept) = HeaderValue::from_bytes(&bytes) {
                format_for(Some(&accept));
            }
        }

        #[test]
        fn weights_are_read_as_they_are_written(weight in 0u16..=1_000) {
            let written = format!("{}.{:03}", weight / 1_000, weight % 1_000);
            prop_assert_eq!(thousandths(&written), Some(weight));
        }
    }
}
