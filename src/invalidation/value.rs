//! A value on its way into a template: how it is written depends on where it comes from and goes to.
//!
//! What a path variable stood for is percent-encoded already, everything else is plain text. A tag
//! takes plain text, a path and a pattern take what a client would write there. Nothing that has a
//! meaning at its place gets there from a value: no `/` into a path, no `&` into a query.

use std::borrow::Cow;

use crate::encoding::{Place, encoded};
use crate::target::normal_form;

/// The value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// As it stood in a request's path, percent-encoded by its client.
    InPath(Cow<'a, str>),
    /// Plain text.
    Text(Cow<'a, str>),
}

impl<'a> Value<'a> {
    /// The value, borrowed.
    pub(crate) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// What was in the path, borrowed.
    pub(crate) fn in_path(text: &'a str) -> Self {
        Self::InPath(Cow::Borrowed(text))
    }

    /// The same for longer.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Self::InPath(text) => Value::InPath(Cow::Owned(text.into_owned())),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        }
    }

    /// The same, borrowed from this one.
    pub(crate) fn borrowed(&self) -> Value<'_> {
        match self {
            Self::InPath(text) => Value::in_path(text),
            Self::Text(text) => Value::text(text),
        }
    }

    /// Whether there is nothing in it, so that it names nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let (Self::InPath(text) | Self::Text(text)) = self;
        text.is_empty()
    }

    /// The value as it is written at `place`.
    pub(crate) fn at(&self, place: Place) -> Cow<'_, str> {
        match (self, place) {
            (Self::Text(text), Place::Tag) => Cow::Borrowed(text),
            (Self::Text(text), _) => encoded(text, place),
            (Self::InPath(text), Place::Path) => normal_form(text),
            (Self::InPath(text), Place::Tag) => {
                decoded(text).unwrap_or_else(|| Cow::Borrowed(text))
            }
            // What may stand in a path as it is may have a meaning here.
            (Self::InPath(text), Place::Query | Place::Name) => match decoded(text) {
                Some(plain) => Cow::Owned(encoded(&plain, place).into_owned()),
                None => normal_form(text),
            },
        }
    }
}

/// `text` without its percent-encoding (RFC 3986 §2.1); `None` if that is not UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let byte = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &rest[3..] } else { tail };
    }
    String::from_utf8(bytes).map(Cow::Owned).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_written_as_a_client_writes_it_there() {
        use Place::{Name, Path, Query, Tag};
        let hostile = "a/b?c#d&e=f+g:h%41*ä {{id}}\\";
        let cases = [
            (Value::text(hostile), Tag, hostile),
            (
                Value::text(hostile),
                Path,
                "a%2Fb%3Fc%23d&e=f+g:h%2541*%C3%A4%20%7B%7Bid%7D%7D%5C",
            ),
            (
                Value::text(hostile),
                Query,
                "a%2Fb%3Fc%23d%26e%3Df%2Bg:h%2541*%C3%A4%20%7B%7Bid%7D%7D%5C",
            ),
            (Value::text("a:b/c"), Name, "a%3Ab%2Fc"),
            (Value::in_path("a%2fb%41&c"), Path, "a%2FbA&c"),
            (Value::in_path("a%2fb%41&c"), Query, "a%2FbA%26c"),
            (Value::in_path("a%2fb%41:c"), Name, "a%2FbA%3Ac"),
            (Value::in_path("a%2fb%41&c"), Tag, "a/bA&c"),
            (Value::in_path("%ff%41"), Tag, "%ff%41"),
            (Value::in_path("%ff%41"), Query, "%FFA"),
        ];
        for (value, place, written) in cases {
            assert_eq!(value.at(place), written, "{value:?} {place:?}");
            assert_eq!(value.borrowed(), value);
            assert_eq!(value.clone().into_owned(), value);
        }
    }

    #[test]
    fn decoding_takes_pairs_of_digits_only_and_leaves_what_is_no_text() {
        for (text, plain) in [
            ("plain", Some("plain")),
            ("%41%6a%6A", Some("Ajj")),
            ("100%", Some("100%")),
            ("%4", Some("%4")),
            ("%+4%zz%%41", Some("%+4%zz%A")),
            ("%ff%41", None),
            ("ä%41", Some("äA")),
        ] {
            assert_eq!(decoded(text).as_deref(), plain, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_its_own_normal_form_and_reads_back(text in ".{0,20}") {
            for place in [Place::Path, Place::Query, Place::Name] {
                let written = encoded(&text, place);
                prop_assert_eq!(&normal_form(&written), &written);
                prop_assert_eq!(decoded(&written).unwrap(), &*text);
            }
        }

        #[test]
        fn decoding_never_panics(text in ".{0,20}|[%0-9a-f]{0,12}") {
            prop_assert!(decoded(&text).is_none_or(|plain| plain.len() <= text.len()));
        }
    }
}
