//! `Vary`: which request fields an answer depends on (RFC 9111 §4.1).

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use http::header::VARY;
use http::{HeaderMap, HeaderName};

use crate::cache::list::listed_names;

/// The request fields that selected a stored answer, normalised. Empty: any request will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    fields: Box<[(HeaderName, Option<Box<[u8]>>)]>,
}

impl Selector {
    /// What a response's `Vary` makes of the request that it answers. `*` must have been ruled out.
    pub(crate) fn of(response: &HeaderMap, request: &HeaderMap) -> Self {
        let mut names: Vec<HeaderName> = listed_names(response, &VARY).collect();
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        let fields = names.into_iter().map(|name| {
            let value = normalised(request, &name);
            (name, value)
        });
        Self {
            fields: fields.collect(),
        }
    }

    /// Whether the answer selected by these fields fits `request`: "if all of the presented header
    /// fields nominated by that Vary field value match".
    pub(crate) fn fits(&self, request: &HeaderMap) -> bool {
        self.fields.iter().all(
            |(name, wanted)| match (wanted, request.contains_key(name)) {
                (None, present) => !present,
                (Some(_), false) => false,
                (Some(wanted), true) => members(request, name).eq(members_of(wanted)),
            },
        )
    }

    /// A number by which requests of different variants are told apart most of the time; requests of
    /// the same variant always share it.
    pub(crate) fn variant(&self, request: &HeaderMap) -> u64 {
        let values = self
            .fields
            .iter()
            .map(|(name, _)| normalised(request, name));
        FixedState::default().hash_one(values.collect::<Vec<_>>())
    }

    pub(crate) fn bytes(&self) -> usize {
        let field = |(name, value): &(HeaderName, Option<Box<[u8]>>)| {
            name.as_str().len() + value.as_ref().map_or(0, |value| value.len()) + FIELD_OVERHEAD
        };
        self.fields.iter().map(field).sum()
    }
}

/// "normalizing both .. by combining multiple header fields with the same name" and white space around
/// the commas, "without changing the semantics".
fn normalised(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    headers.contains_key(name).then(|| {
        let members: Vec<&[u8]> = members(headers, name).collect();
        members.join(&b","[..]).into_boxed_slice()
    })
}

/// The members of all lines of this name.
fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| members_of(line.as_bytes()))
}

fn members_of(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    parts.filter(|member| !member.is_empty())
}

/// A name, a pointer and a length beside the text.
const FIELD_OVERHEAD: usize = 48;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_answer_fits_requests_whose_named_fields_agree() {
        let vary = headers(&[
            ("vary", "Accept-Language, x-plan"),
            ("vary", "accept-language"),
        ]);
        let first = headers(&[("accept-language", "de, en"), ("x-other", "1")]);
        let selector = Selector::of(&vary, &first);
        for (pairs, fits) in [
            (&[("accept-language", "de, en")][..], true),
            (&[("accept-language", "de,en"), ("x-other", "2")], true),
            (
                &[("accept-language", "de"), ("accept-language", "en")],
                true,
            ),
            (&[("accept-language", "en,de")], false),
            (&[], false),
            (&[("accept-language", "de, en"), ("x-plan", "pro")], false),
        ] {
            assert_eq!(selector.fits(&headers(pairs)), fits, "{pairs:?}");
        }
    }

    #[test]
    fn without_vary_any_request_fits() {
        let selector = Selector::of(&headers(&[]), &headers(&[("accept", "a")]));
        assert!(selector.fits(&headers(&[("accept", "b")])));
        assert_eq!(selector, Selector::default());
    }

    #[test]
    fn a_field_that_is_present_but_empty_is_not_an_absent_one() {
        let selector = Selector::of(&headers(&[("vary", "x-a")]), &headers(&[("x-a", "")]));
        assert!(selector.fits(&headers(&[("x-a", "")])));
        assert!(!selector.fits(&headers(&[])));
    }
}
