//! Targeted cache control: fields that speak to caches of one kind and to no other (RFC 9213).

use std::borrow::Cow;
use std::convert::Infallible;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser};

use crate::cache::control::{CacheControl, DELTA_SECONDS_MAX};

/// What the first valid field of `targets` says. "If a targeted field in a given response is empty or a
/// parsing error is encountered, that field MUST be ignored by the cache (i.e., it behaves as if the
/// field were not present)" (RFC 9213 §2.1).
pub(crate) fn targeted(headers: &HeaderMap, targets: &[HeaderName]) -> Option<CacheControl> {
    targets.iter().find_map(|name| {
        let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = lines.next()?;
        let mut whole = Cow::Borrowed(first);
        for line in lines {
            whole.to_mut().extend_from_slice(b", ");
            whole.to_mut().extend_from_slice(line);
        }
        Parser::new(&whole)
            .parse_dictionary_with_visitor(Read::default())
            .ok()?
    })
}

/// A dictionary whose members are directives.
#[derive(Debug, Default)]
struct Read {
    control: CacheControl,
    any: bool,
}

impl<'de> DictionaryVisitor<'de> for Read {
    type Out = Option<CacheControl>;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.any = true;
        Ok(Directive {
            control: &mut self.control,
            name: key.as_str(),
        })
    }

    fn finish(self) -> Result<Self::Out, Infallible> {
        Ok(self.any.then_some(self.control))
    }
}

struct Directive<'r, 'de> {
    control: &'r mut CacheControl,
    name: &'de str,
}

impl<'de> EntryVisitor<'de> for Directive<'_, 'de> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(move |value: BareItemFromInput<'de>| {
            let name = self.name.as_bytes();
            match value {
                // "no-store=?0" does not say it.
                BareItemFromInput::Boolean(false) => {}
                BareItemFromInput::Integer(number) => {
                    let seconds = u64::try_from(i64::from(number)).unwrap_or(0);
                    self.control
                        .note(name, Some(seconds.min(DELTA_SECONDS_MAX)));
                }
                // A lifetime that is no number is none; `private="x-a"` counts as the plain one.
                BareItemFromInput::Boolean(true) => self.control.note(name, None),
                _ => self.control.note(name, Some(0)),
            }
            // "Parameters received on directives are to be ignored" (RFC 9213 §2.1).
            Ok::<_, Infallible>(Ignored)
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        self.control.note(self.name.as_bytes(), Some(0));
        Ok(Ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<CacheControl> {
        let name = HeaderName::from_static("cdn-cache-control");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, HeaderValue::from_str(line).unwrap());
        }
        targeted(
            &headers,
            &[HeaderName::from_static("keep-cache-control"), name],
        )
    }

    #[test]
    fn directives_are_members_of_a_dictionary() {
        let said = read(&["max-age=600;x=1, must-revalidate", "stale-if-error=60"]).unwrap();
        assert_eq!((said.max_age, said.stale_if_error), (Some(600), Some(60)));
        assert!(said.must_revalidate && !said.no_store);
        let long = read(&["max-age=99999999999"]).unwrap();
        assert_eq!(long.max_age, Some(1 << 31));
        assert!(!read(&["no-store=?0, max-age=1"]).unwrap().no_store);
        assert!(read(&["private=\"x-a\""]).unwrap().private);
        assert!(read(&["private=(x y)"]).unwrap().private);
    }

    #[test]
    fn a_lifetime_of_the_wrong_type_is_none_at_all() {
        for line in [
            "max-age=\"600\"",
            "max-age=6.5",
            "max-age=-1",
            "max-age",
            "max-age=(1 2)",
        ] {
            assert_eq!(read(&[line]).unwrap().max_age, Some(0), "{line}");
        }
    }

    /// RFC 9213 §2.1.
    #[test]
    fn a_field_that_is_empty_or_malformed_is_as_if_it_were_not_there() {
        for lines in [
            &[""][..],
            &["max-age=600, &&&"],
            &["max-age =600"],
            &["MaX-aGe=600"],
            &[],
        ] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
    }

    /// RFC 9213 §2.2: the first of the list that is there counts, and no other.
    #[test]
    fn the_first_target_of_the_list_wins() {
        let mut headers = HeaderMap::new();
        headers.insert("b-cache-control", HeaderValue::from_static("max-age=2"));
        headers.insert("a-cache-control", HeaderValue::from_static("max-age=1"));
        let targets = ["a-cache-control", "b-cache-control"].map(HeaderName::from_static);
        assert_eq!(targeted(&headers, &targets).unwrap().max_age, Some(1));
        headers.insert("a-cache-control", HeaderValue::from_static("&"));
        assert_eq!(targeted(&headers, &targets).unwrap().max_age, Some(2));
    }
}
