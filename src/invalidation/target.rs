//! What can be purged, checked before anything is done with it.

use crate::cache::TAG_BYTES_MAX;
use crate::journal::Marker;
use crate::pattern::Pattern;
use crate::target::normal_form;

/// One thing to purge: a key, a path, a tag or a pattern.
///
/// Small and without a lifetime: names are kept as hashes.
#[derive(Clone, Debug)]
pub struct Target {
    marker: Marker,
    /// For a key with a query, its path: where queries are rewritten before they are keys, the key as it was
    /// written may be no entry's.
    path: Option<Marker>,
}

/// Why something cannot be purged. No entry is named by it, or every entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The tag has no text.
    #[error("an empty tag names nothing")]
    EmptyTag,
    /// The tag is longer than [`TAG_BYTES_MAX`].
    #[error("a tag has at most {TAG_BYTES_MAX} bytes, this one has {bytes}")]
    TagTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The tag holds a control character.
    #[error("a tag holds no control characters")]
    ControlInTag,
    /// The tag begins with `/`, as only the tags do that entries carry for their paths.
    #[error("a tag does not begin with `/`: purge a path as a path")]
    TagIsPath,
    /// The pattern consists of stars.
    #[error("the pattern matches everything: purge everything by the call that says so")]
    MatchesEverything,
}

impl Target {
    /// The one entry of this key; for the HTTP cache an exact path and query, `/contacts?page=2`. Where the
    /// cache leaves parameters out of its keys or puts them in order, all entries of the path.
    #[must_use]
    pub fn key(key: &str) -> Self {
        let key = normal_form(key);
        let path = key.split_once('?').map(|(path, _)| Marker::tag(path));
        Self {
            marker: Marker::key(&key),
            path,
        }
    }

    const fn of(marker: Marker) -> Self {
        Self { marker, path: None }
    }

    /// The entries of this path, whatever their query. What follows a `?` or `#` is left out, and a
    /// missing `/` at the beginning is put there.
    #[must_use]
    pub fn path(path: &str) -> Self {
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let path = normal_form(&path[..end]);
        if path.starts_with('/') {
            Self::of(Marker::tag(&path))
        } else {
            Self::of(Marker::tag(&format!("/{path}")))
        }
    }

    /// The entries that carry this tag.
    ///
    /// # Errors
    ///
    /// Where no entry can carry it: it is empty, longer than [`TAG_BYTES_MAX`], begins with `/` or
    /// holds a control character.
    pub fn tag(tag: &str) -> Result<Self, TargetError> {
        if tag.is_empty() {
            return Err(TargetError::EmptyTag);
        }
        if tag.len() > TAG_BYTES_MAX {
            return Err(TargetError::TagTooLong { bytes: tag.len() });
        }
        if tag.chars().any(char::is_control) {
            return Err(TargetError::ControlInTag);
        }
        if tag.starts_with('/') {
            return Err(TargetError::TagIsPath);
        }
        Ok(Self::of(Marker::tag(tag)))
    }

    /// The entries whose key matches this pattern.
    ///
    /// # Errors
    ///
    /// [`TargetError::MatchesEverything`] for a pattern of nothing but stars. It is more often a
    /// forgotten value than a wish.
    pub fn pattern(pattern: &Pattern) -> Result<Self, TargetError> {
        if pattern.is_everything() {
            return Err(TargetError::MatchesEverything);
        }
        // Without a star it is a key, for which there is more to know.
        Ok(match pattern.exact() {
            Some(key) => Self::key(key),
            None => Self::of(Marker::pattern(pattern.clone().of_targets())),
        })
    }

    /// What the journal records; `rewritten` says whether queries are rewritten before they are keys.
    pub(crate) fn marker(self, rewritten: bool) -> Marker {
        if rewritten {
            self.rewritten().marker
        } else {
            self.marker
        }
    }

    /// The same where a query is rewritten before it is a part of a key: all of the path.
    pub(crate) fn rewritten(self) -> Self {
        match self.path {
            Some(path) => Self::of(path),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(target: &Target) -> u64 {
        let Marker::Name(hash) = target.clone().marker(false) else {
            panic!("{target:?} is no name")
        };
        hash
    }

    #[test]
    fn what_names_nothing_or_everything_says_why() {
        for (tag, why) in [
            (String::new(), TargetError::EmptyTag),
            ("x".repeat(257), TargetError::TagTooLong { bytes: 257 }),
            ("a\nb".to_owned(), TargetError::ControlInTag),
            ("\u{85}".to_owned(), TargetError::ControlInTag),
            ("/contacts".to_owned(), TargetError::TagIsPath),
        ] {
            assert_eq!(Target::tag(&tag).unwrap_err(), why, "{tag:?}");
        }
        for text in ["*", "***"] {
            let pattern = Pattern::parse(text).unwrap();
            let why = Target::pattern(&pattern).unwrap_err();
            assert_eq!(why, TargetError::MatchesEverything);
        }
        assert!(Target::tag(&"x".repeat(256)).is_ok());
        assert!(Target::tag("organisation:ä b/c").is_ok());
    }

    #[test]
    fn a_path_is_named_without_its_query() {
        let plain = Target::path("/contacts");
        for same in ["/contacts?page=2", "/contacts#top", "contacts"] {
            assert_eq!(name(&Target::path(same)), name(&plain), "{same}");
        }
        assert_ne!(name(&Target::path("/contacts/")), name(&plain));
        assert_ne!(name(&Target::key("/contacts")), name(&plain));
        let rewritten = Target::key("/contacts?page=2").rewritten();
        assert_eq!(name(&rewritten), name(&plain), "the whole path");
        let key = Target::key("/contacts");
        assert_eq!(name(&key.clone().rewritten()), name(&key));
    }
}
