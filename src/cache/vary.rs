//! `Vary`: which request fields an answer depends on (RFC 9111 §4.1).

use std::hash::{BuildHasher, Hash, Hasher};

use bytes::Bytes;
use foldhash::fast::FixedState;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, HOST, ORIGIN, RANGE, REFERER,
    USER_AGENT, VARY,
};
use http::{HeaderMap, HeaderName};

use crate::cache::list::listed_names;

/// The request fields that selected a stored answer. Empty: any request will do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    fields: Box<[Selecting]>,
}

#[derive(Clone, Debug)]
struct Selecting {
    name: HeaderName,
    manner: Manner,
    /// `None` where the request had no such field.
    value: Option<Selected>,
}

#[derive(Clone, Debug)]
struct Selected {
    /// The members as they were sent, joined: most requests that match are equal to the letter.
    sent: Box<[u8]>,
    /// The same in its normal form, where that is another.
    normal: Option<Box<[u8]>>,
}

/// How two values are found to mean the same. "a cache MAY .. [normalize] each header field value in a way
/// that is known to have identical semantics, according to the header field's specification (e.g.,
/// reordering field values when order is not significant; case-normalization, where values are defined to
/// be case-insensitive)".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// To the letter: the field is no list, and a comma is a part of its value.
    Exact,
    /// Member by member, without the white space around them.
    Members,
    /// Case does not matter.
    AnyCase,
    /// Order does not matter: `Accept` goes by weight and precision (RFC 9110 §12.5.1).
    AnyOrder,
    /// Neither matters: codings of `Accept-Encoding` (§12.5.3).
    AnyCaseAndOrder,
}

/// What the operator decided where the RFC leaves room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VaryRules {
    /// Whether `en, de` and `de, en` are the same wish, in `Accept-Language` and `Accept`. RFC 9110 §12.5.4:
    /// "some recipients treat the order in which language tags are listed as an indication of descending
    /// priority .. However, this behavior cannot be relied upon."
    pub(crate) any_preference_order: bool,
}

impl VaryRules {
    fn manner(self, name: &HeaderName) -> Manner {
        if *name == ACCEPT_ENCODING {
            Manner::AnyCaseAndOrder
        } else if *name == ACCEPT_LANGUAGE {
            if self.any_preference_order {
                Manner::AnyCaseAndOrder
            } else {
                Manner::AnyCase
            }
        } else if *name == ACCEPT && self.any_preference_order {
            Manner::AnyOrder
        } else if SINGLE.contains(name) {
            Manner::Exact
        } else {
            Manner::Members
        }
    }
}

impl Manner {
    /// What stands between the members. No field has a line feed in its value.
    const fn separator(self) -> u8 {
        match self {
            Self::Exact => b'\n',
            _ => b',',
        }
    }

    const fn has_a_normal_form(self) -> bool {
        !matches!(self, Self::Exact | Self::Members)
    }

    /// The members in their normal form; `None` if they are in it.
    fn normal(self, sent: &[u8]) -> Option<Box<[u8]>> {
        if !self.has_a_normal_form() {
            return None;
        }
        let mut normal = sent.to_vec();
        if matches!(self, Self::AnyCase | Self::AnyCaseAndOrder) {
            normal.make_ascii_lowercase();
        }
        if matches!(self, Self::AnyOrder | Self::AnyCaseAndOrder) {
            let mut members: Vec<&[u8]> = split(&normal, self)
                .filter(|member| !member.is_empty())
                .collect();
            members.sort_unstable();
            normal = members.join(&b","[..]);
        }
        (normal != sent).then(|| normal.into_boxed_slice())
    }
}

impl Selected {
    fn normal(&self) -> &[u8] {
        self.normal.as_ref().unwrap_or(&self.sent)
    }
}

impl Selecting {
    fn of(request: &HeaderMap, name: HeaderName, manner: Manner) -> Self {
        let value = joined(request, &name, manner).map(|sent| Selected {
            normal: manner.normal(&sent),
            sent,
        });
        Self {
            name,
            manner,
            value,
        }
    }

    fn fits(&self, request: &HeaderMap) -> bool {
        match (&self.value, request.contains_key(&self.name)) {
            (None, present) => !present,
            (Some(_), false) => false,
            (Some(selected), true) => {
                sent(request, &self.name, self.manner).eq(split(&selected.sent, self.manner))
                    || self.manner.has_a_normal_form() && self.means_the_same(request, selected)
            }
        }
    }

    fn means_the_same(&self, request: &HeaderMap, selected: &Selected) -> bool {
        let asked = Self::of(request, self.name.clone(), self.manner);
        asked
            .value
            .is_some_and(|asked| asked.normal() == selected.normal())
    }
}

impl Selector {
    /// What a response's `Vary` makes of the request that it answers. `*` must have been ruled out.
    pub(crate) fn of(response: &HeaderMap, request: &HeaderMap, rules: VaryRules) -> Self {
        let fields = in_order(listed_names(response, &VARY))
            .into_iter()
            .map(|name| {
                let manner = rules.manner(&name);
                Selecting::of(request, name, manner)
            });
        Self {
            fields: fields.collect(),
        }
    }

    /// What a request is asked for by answers that depend on these fields.
    pub(crate) fn asked(names: Vec<HeaderName>, request: &HeaderMap, rules: VaryRules) -> Self {
        let fields = in_order(names.into_iter()).into_iter().map(|name| {
            let manner = rules.manner(&name);
            Selecting::of(request, name, manner)
        });
        Self {
            fields: fields.collect(),
        }
    }

    /// The fields, and the values of the request that selected the answer.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.fields.iter().map(|field| {
            let sent = field.value.as_ref().map(|value| &*value.sent);
            (&field.name, sent)
        })
    }

    /// A selector of these parts.
    pub(crate) fn from_parts(
        parts: impl Iterator<Item = (HeaderName, Option<Bytes>)>,
        rules: VaryRules,
    ) -> Self {
        let fields = parts.map(|(name, value)| {
            let manner = rules.manner(&name);
            let value = value.map(|sent| Selected {
                normal: manner.normal(&sent),
                sent: sent.to_vec().into(),
            });
            Selecting {
                name,
                manner,
                value,
            }
        });
        Self {
            fields: fields.collect(),
        }
    }

    /// A text that is the same for the same fields with the same values, and hardly ever for others.
    pub(crate) fn fingerprint(&self) -> String {
        let mut state = FixedState::with_seed(0x76_6172_7900).build_hasher();
        self.hash(&mut state);
        let mut text = format!("{:016x}", state.finish());
        for (name, _) in self.parts() {
            text.push(' ');
            text.push_str(name.as_str());
        }
        text
    }

    /// Whether any request will do.
    pub(crate) const fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether the answer selected by these fields fits `request`: "if all of the presented header
    /// fields nominated by that Vary field value match".
    #[inline]
    pub(crate) fn fits(&self, request: &HeaderMap) -> bool {
        self.fields.iter().all(|field| field.fits(request))
    }

    /// Whether these are the fields it goes by.
    pub(crate) fn names(&self, names: impl Iterator<Item = HeaderName>) -> bool {
        self.fields
            .iter()
            .map(|field| &field.name)
            .eq(&in_order(names))
    }

    /// A number by which requests of different variants are told apart most of the time; requests of
    /// the same variant always share it.
    pub(crate) fn variant(&self, request: &HeaderMap) -> u64 {
        let values = self.fields.iter().map(|field| {
            let asked = Selecting::of(request, field.name.clone(), field.manner);
            asked.value.map(|asked| Box::from(asked.normal()))
        });
        FixedState::default().hash_one(values.collect::<Vec<Option<Box<[u8]>>>>())
    }

    /// The fields and their values, for people to look at.
    pub(crate) fn described(&self) -> impl Iterator<Item = (&HeaderName, Option<String>)> {
        self.fields.iter().map(|field| {
            let text = |selected: &Selected| String::from_utf8_lossy(&selected.sent).into_owned();
            (&field.name, field.value.as_ref().map(text))
        })
    }

    /// Hashes what selects, alike in every process.
    pub(crate) fn hash(&self, state: &mut impl Hasher) {
        for field in &self.fields {
            field.name.as_str().hash(state);
            field.value.as_ref().map(Selected::normal).hash(state);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let field = |field: &Selecting| {
            let value = field.value.as_ref();
            let text = value.map_or(0, |value| value.sent.len() + value.normal().len());
            field.name.as_str().len() + text + FIELD_OVERHEAD
        };
        self.fields.iter().map(field).sum()
    }
}

/// Whether both select the same requests.
impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (&Selecting, &Selecting)| {
            let normal =
                |field: &Selecting| field.value.as_ref().map(|value| value.normal().to_vec());
            one.name == other.name && normal(one) == normal(other)
        };
        self.fields.len() == other.fields.len() && self.fields.iter().zip(&other.fields).all(same)
    }
}

impl Eq for Selector {}

/// Each once, in one order for all.
fn in_order(names: impl Iterator<Item = HeaderName>) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = names.collect();
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    names
}

/// "normalizing both .. by combining multiple header fields with the same name" and white space around
/// the commas, "without changing the semantics".
fn joined(headers: &HeaderMap, name: &HeaderName, manner: Manner) -> Option<Box<[u8]>> {
    headers.contains_key(name).then(|| {
        let members: Vec<&[u8]> = sent(headers, name, manner).collect();
        members.join(&manner.separator()).into_boxed_slice()
    })
}

/// The members of all lines of this name, or the lines themselves.
fn sent<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    manner: Manner,
) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(move |line| split(line.as_bytes(), manner))
}

/// Empty members are members: `a,` is not `a` to whoever reads the field as a whole.
fn split(line: &[u8], manner: Manner) -> impl Iterator<Item = &[u8]> {
    let separator = manner.separator();
    line.split(move |byte| *byte == separator)
        .map(<[u8]>::trim_ascii)
}

/// Fields with one value, as far as answers are known to depend on them.
const SINGLE: [HeaderName; 7] = [
    AUTHORIZATION,
    COOKIE,
    HOST,
    ORIGIN,
    RANGE,
    REFERER,
    USER_AGENT,
];

/// A name, pointers and lengths beside the text.
const FIELD_OVERHEAD: usize = 80;

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
        let selector = Selector::of(&vary, &first, VaryRules::default());
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
        let selector = Selector::of(
            &headers(&[]),
            &headers(&[("accept", "a")]),
            VaryRules::default(),
        );
        assert!(selector.fits(&headers(&[("accept", "b")])));
        assert_eq!(selector, Selector::default());
    }

    #[test]
    fn a_field_that_is_present_but_empty_is_not_an_absent_one() {
        let selector = Selector::of(
            &headers(&[("vary", "x-a")]),
            &headers(&[("x-a", "")]),
            VaryRules::default(),
        );
        assert!(selector.fits(&headers(&[("x-a", "")])));
        assert!(!selector.fits(&headers(&[])));
    }

    /// RFC 9110 §12.5: what order and case mean is each field's own.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn values_that_mean_the_same_select_the_same() {
        let lenient = VaryRules {
            any_preference_order: true,
        };
        for (name, stored, asked, rules, same) in [
            (
                "accept-encoding",
                "gzip, br",
                "BR,gzip",
                VaryRules::default(),
                true,
            ),
            (
                "accept-encoding",
                "gzip, br",
                "gzip;q=0.5, br",
                VaryRules::default(),
                false,
            ),
            (
                "accept",
                "text/html, */*;q=0.1",
                "*/*;q=0.1,text/html",
                lenient,
                true,
            ),
            (
                "accept",
                "text/html, */*",
                "*/*, text/html",
                VaryRules::default(),
                false,
            ),
            (
                "origin",
                "https://a.example",
                "https://a.example,",
                lenient,
                false,
            ),
            ("user-agent", "a, b", "a,b", lenient, false),
            ("x-plan", "a,b", " a , b ", VaryRules::default(), true),
            ("x-plan", "a", "a,", VaryRules::default(), false),
            (
                "accept",
                "text/html",
                "Text/HTML",
                VaryRules::default(),
                false,
            ),
            (
                "accept-language",
                "en, de",
                "EN, De",
                VaryRules::default(),
                true,
            ),
            (
                "accept-language",
                "en, de",
                "de, en",
                VaryRules::default(),
                false,
            ),
            ("accept-language", "en, de", "de, en", lenient, true),
            ("x-plan", "a, b", "b, a", lenient, false),
            ("x-plan", "a, b", "A, b", lenient, false),
        ] {
            let pair = |value: &str| {
                let mut headers = HeaderMap::new();
                headers.insert(name, HeaderValue::from_str(value).unwrap());
                headers
            };
            let vary = HeaderMap::from_iter([(VARY, HeaderValue::from_static(name))]);
            let (one, other) = (pair(stored), pair(asked));
            let selector = Selector::of(&vary, &one, rules);
            let what = format!("{name}: {stored} and {asked}");
            assert_eq!(selector.fits(&other), same, "{what}");
            assert_eq!(
                selector == Selector::of(&vary, &other, rules),
                same,
                "{what}"
            );
            assert_eq!(
                selector.variant(&one) == selector.variant(&other),
                same,
                "{what}"
            );
        }
    }
}
