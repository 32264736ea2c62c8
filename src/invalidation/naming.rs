//! What a template names once its variables have values.

use std::collections::BTreeMap;
use std::fmt;

use crate::encoding::Place;
use crate::invalidation::target::Target;
use crate::invalidation::value::Value;
use crate::pattern::{PATTERN_BYTES_MAX, Part, Pattern, Template, escape};

/// What kind of thing a template names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A path with any query.
    Path,
    /// A tag.
    Tag,
    /// A pattern over keys.
    Pattern,
}

/// What the variables of an entity stand for, told in variables of whoever changes it.
pub(crate) type Values = BTreeMap<Box<str>, Box<[Part]>>;

/// A target by its template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    kind: Kind,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    /// Written as it has to be already.
    Text(String),
    Value {
        variable: Box<str>,
        place: Place,
    },
}

/// Why a template names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unnamed {
    #[error("`{0}` had no value")]
    NoValue(Box<str>),
    #[error("{0}")]
    Refused(String),
}

impl Named {
    /// What `template` names, where its variables are replaced by `values`; all of them have one.
    /// Without `values` they stay.
    ///
    /// What `values` say is text and nothing else, as if it had come with a request.
    pub(crate) fn new(kind: Kind, template: &Template, values: Option<&Values>) -> Self {
        let mut named = Self {
            kind,
            pieces: Vec::new(),
        };
        let mut before = String::new();
        for part in template.parts() {
            match part {
                Part::Literal(text) => {
                    before.push_str(text);
                    named.push(text);
                }
                Part::Variable(name) => {
                    let place = place(kind, &before);
                    match values.and_then(|values| values.get(name)) {
                        Some(parts) => parts.iter().for_each(|part| named.put(part, place)),
                        None => named.put(part, place),
                    }
                }
            }
        }
        named
    }

    /// The names of its variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value { variable, .. } => Some(&**variable),
            Piece::Text(_) => None,
        })
    }

    /// What it names with these values.
    pub(crate) fn target<'v>(
        &self,
        value: impl Fn(&str) -> Option<Value<'v>>,
    ) -> Result<Target, Unnamed> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(own) => text.push_str(own),
                Piece::Value { variable, place } => {
                    let value = value(variable).filter(|value| !value.is_empty());
                    let value = value.ok_or_else(|| Unnamed::NoValue(variable.clone()))?;
                    text.push_str(&self.written(&value, *place));
                }
            }
        }
        match self.kind {
            Kind::Path => Ok(Target::path(&text)),
            Kind::Tag => Target::tag(&text).map_err(|why| Unnamed::Refused(why.to_string())),
            Kind::Pattern => {
                let pattern = Pattern::parse(&within_bound(text)).map_err(Unnamed::Refused)?;
                Target::pattern(&pattern).map_err(|why| Unnamed::Refused(why.to_string()))
            }
        }
    }

    /// A part of a value: its text is written as a value's.
    fn put(&mut self, part: &Part, place: Place) {
        match part {
            Part::Literal(text) => {
                let text = self.written(&Value::text(text), place);
                self.push(&text);
            }
            Part::Variable(name) => self.pieces.push(Piece::Value {
                variable: name.clone(),
                place,
            }),
        }
    }

    fn written(&self, value: &Value<'_>, place: Place) -> String {
        let text = value.at(place);
        match self.kind {
            Kind::Pattern => escape(&text).into_owned(),
            Kind::Path | Kind::Tag => text.into_owned(),
        }
    }

    /// Texts one after the other are one, so that what is named alike is alike.
    fn push(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }
}

/// As the template would be written.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Value { variable, .. } => write!(f, "{{{{{variable}}}}}"),
        })
    }
}

/// Where a value stands behind the text `before`.
fn place(kind: Kind, before: &str) -> Place {
    match kind {
        Kind::Path => Place::Path,
        Kind::Tag => Place::Tag,
        // Keys of requests begin with `/`, so this is none's.
        Kind::Pattern if !before.starts_with(['/', '*']) => Place::Name,
        Kind::Pattern if before.contains('?') || before.ends_with(['=', '&']) => Place::Query,
        Kind::Pattern => Place::Path,
    }
}

/// Fills the template with harmless values, to see what its own text does.
///
/// # Errors
///
/// Says in words why it names nothing, or everything.
pub(crate) fn try_out(kind: Kind, template: &Template) -> Result<(), String> {
    let text = template.fill(|_| Some("x".into())).unwrap_or_default();
    match kind {
        Kind::Tag => Target::tag(&text).map(drop).map_err(|why| why.to_string()),
        Kind::Path if !text.starts_with('/') => Err("a path must begin with `/`".to_owned()),
        Kind::Path if text.contains(['?', '#']) => {
            Err("a path has no query: entries are purged whatever their query".to_owned())
        }
        Kind::Path if text.contains('*') => {
            Err("a path has no stars: write it among the `patterns`".to_owned())
        }
        Kind::Path => Ok(()),
        Kind::Pattern => {
            let pattern = Pattern::parse(&text)?;
            Target::pattern(&pattern).map_err(|why| why.to_string())?;
            if template.parts().windows(2).any(takes_an_escape) {
                return Err("a `\\` before `{{` would unmake the escape of the value".to_owned());
            }
            Ok(())
        }
    }
}

/// Whether the first part ends in a `\` that would escape what the second begins with. For the id `*`, which
/// is filled in as `\*`, that leaves a star.
fn takes_an_escape(parts: &[Part]) -> bool {
    let [Part::Literal(text), Part::Variable(_)] = parts else {
        return false;
    };
    let escapes = text.bytes().rev().take_while(|byte| *byte == b'\\');
    escapes.count() % 2 == 1
}

/// A pattern that has grown too long, cut and ended with a star. Leaving it out would keep old
/// answers; what it matches too much are only misses.
fn within_bound(mut pattern: String) -> String {
    if pattern.len() <= PATTERN_BYTES_MAX {
        return pattern;
    }
    pattern.truncate(pattern.floor_char_boundary(PATTERN_BYTES_MAX - 1));
    let escapes = pattern.bytes().rev().take_while(|byte| *byte == b'\\');
    // An odd one has lost the character that it escaped, and must not take the star instead.
    if escapes.count() % 2 == 1 {
        pattern.pop();
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Events;
    use crate::journal::{Checked, Journal, JournalConfig, Subject};

    /// Whether an entry of `key` with `tag` survives what `named` names for `id`.
    fn survives(named: &Named, id: &Value<'_>, key: &str, tag: &str) -> bool {
        let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
        let born = journal.position();
        let Ok(target) = named.target(|_| Some(id.borrowed())) else {
            return true;
        };
        drop(journal.append([target.marker(false)]));
        let path = key.split('?').next().unwrap();
        let subject = Subject::of(key, &[path.into(), tag.into()]);
        journal.holds(born, &Checked::at(born), &subject)
    }

    fn named(kind: Kind, text: &str) -> Named {
        Named::new(kind, &Template::parse(text).unwrap(), None)
    }

    #[test]
    fn a_template_reads_as_it_was_written() {
        let text = "/a/{{ id }}?x={{header.x-y}}&*";
        let named = named(Kind::Pattern, text);
        assert_eq!(named.to_string(), "/a/{{id}}?x={{header.x-y}}&*");
        assert_eq!(named.variables().collect::<Vec<_>>(), ["id", "header.x-y"]);
    }

    #[test]
    fn a_target_whose_value_is_missing_or_empty_or_makes_no_tag_says_so() {
        let tag = named(Kind::Tag, "{{id}}");
        let missing = tag.target(|_| None).unwrap_err();
        assert_eq!(missing, Unnamed::NoValue("id".into()));
        let empty = tag.target(|_| Some(Value::text(""))).unwrap_err();
        assert_eq!(empty, Unnamed::NoValue("id".into()));
        for text in ["/x", "a\nb", &"x".repeat(257)] {
            let refused = tag.target(|_| Some(Value::text(text))).unwrap_err();
            assert!(matches!(refused, Unnamed::Refused(_)), "{text}: {refused}");
        }
    }

    #[test]
    fn a_value_stands_where_the_text_before_it_says() {
        for (kind, before, expected) in [
            (Kind::Tag, "/a?b=", Place::Tag),
            (Kind::Path, "/a/", Place::Path),
            (Kind::Pattern, "/a/", Place::Path),
            (Kind::Pattern, "*/a/", Place::Path),
            (Kind::Pattern, "/a?b=", Place::Query),
            (Kind::Pattern, "/a?b=/c/", Place::Query),
            (Kind::Pattern, "*&b=", Place::Query),
            (Kind::Pattern, "", Place::Name),
            (Kind::Pattern, "cache:search:*:", Place::Name),
        ] {
            assert_eq!(place(kind, before), expected, "{kind:?} {before}");
        }
    }

    /// `\\{{id}}` with the id `*` would be `\\\*`: a backslash and a star.
    #[test]
    fn a_backslash_before_a_value_is_a_fault_because_it_would_unmake_its_escape() {
        for (text, is_right) in [
            (r"/a\{{id}}", false),
            (r"/a\\{{id}}", true),
            (r"/a\\\{{id}}*", false),
            (r"/a\*{{id}}", true),
            (r"{{id}}\*", true),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(
                try_out(Kind::Pattern, &template).is_ok(),
                is_right,
                "{text}"
            );
        }
    }

    #[test]
    fn a_pattern_that_is_cut_still_matches_what_it_was_for() {
        for length in 1020..1030 {
            for char in ["\\", "*", "ä"] {
                let text = escape(&char.repeat(length)).into_owned();
                let whole = Pattern::parse(&within_bound(text)).unwrap();
                assert!(whole.matches(&char.repeat(length)), "{length} {char}");
                assert!(!whole.matches("z"));
            }
        }
    }

    proptest! {
        /// Ids made of all that has a meaning anywhere. Keys are written as a client writes them: each
        /// part of a path and of a query encoded.
        #[test]
        fn a_hostile_value_never_purges_what_is_anothers(
            id in r"([ab7]|[*\\:/?#&=+;%{}. ]|\{\{id\}\}|%2[aF]|\.\.){1,4}",
            other in r"([ab7]|[*\\:/?#&=+;%{}. ]|\{\{id\}\}|%2[aF]|\.\.){1,4}",
        ) {
            let (value, is_same) = (Value::text(&id), id == other);
            let at = |place| Value::text(&other).at(place).into_owned();
            let (path, query, name) = (at(Place::Path), at(Place::Query), at(Place::Name));
            for (kind, template, key, tag) in [
                (Kind::Path, "/c/{{id}}", format!("/c/{path}?x"), ""),
                (Kind::Tag, "c:{{id}}", "/x".to_owned(), &*format!("c:{other}")),
                (Kind::Pattern, "/c/{{id}}", format!("/c/{path}"), ""),
                (Kind::Pattern, "/c/{{id}}/*", format!("/c/{path}/n?x"), ""),
                (Kind::Pattern, "/s?*&id={{id}}&*", format!("/s?q=1&id={query}&z"), ""),
                (Kind::Pattern, "/s?id={{id}}*&z", format!("/s?id={query}&z"), ""),
                (Kind::Pattern, "t:{{id}}:*", format!("t:{name}:x"), ""),
                (Kind::Pattern, "cache:search:*:{{id}}", format!("cache:search:q:{name}"), ""),
            ] {
                let survived = survives(&named(kind, template), &value, &key, tag);
                // `{{id}}*` is every id that begins so, which is what was asked for.
                if !(template.contains("}}*") && other.starts_with(&*id)) {
                    prop_assert_eq!(survived, !is_same, "{} on {}", template, key);
                }
            }
        }
    }
}
