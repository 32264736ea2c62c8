//! What an invalidation names, and what an entry can be named by.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;

use crate::pattern::Pattern;

/// Something that an invalidation names.
#[derive(Clone, Debug)]
pub enum Marker {
    /// All entries that carry this name: a key, a path or a tag, by its 64-bit hash. Two names that
    /// share a hash cost a spurious miss, never a stale answer.
    Name(u64),
    /// All entries whose key matches.
    Pattern(Arc<Pattern>),
    /// All entries.
    Everything,
}

impl Marker {
    /// The one entry of this key.
    #[must_use]
    pub fn key(key: &str) -> Self {
        Self::Name(name_hash(Kind::Key, key))
    }

    /// All entries that carry this tag.
    #[must_use]
    pub fn tag(tag: &str) -> Self {
        Self::Name(name_hash(Kind::Tag, tag))
    }

    /// All entries whose key matches the pattern.
    #[must_use]
    pub fn pattern(pattern: Pattern) -> Self {
        // A pattern without a star is a key, and a key is found by one look.
        match pattern.exact() {
            Some(key) => Self::key(key),
            None => Self::Pattern(Arc::new(pattern)),
        }
    }
}

/// What an entry can be invalidated by: its key and its tags.
#[derive(Clone, Debug)]
pub struct Subject {
    key: Arc<str>,
    /// The hash of the key, then those of the tags.
    names: Box<[u64]>,
}

impl Subject {
    /// The subject of this key and these tags.
    #[must_use]
    pub fn of(key: impl Into<Arc<str>>, tags: &[Arc<str>]) -> Self {
        Self::named(key, tags.iter().map(|tag| &**tag))
    }

    /// The same with tags that need not be kept.
    pub(crate) fn named(key: impl Into<Arc<str>>, tags: impl Iterator<Item: AsRef<str>>) -> Self {
        let key = key.into();
        let tags = tags.map(|tag| name_hash(Kind::Tag, tag.as_ref()));
        let names = std::iter::once(name_hash(Kind::Key, &key))
            .chain(tags)
            .collect();
        Self { key, names }
    }

    /// The key that patterns are compared with.
    #[must_use]
    pub const fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The hashes of all its names.
    #[must_use]
    pub fn names(&self) -> &[u64] {
        &self.names
    }
}

/// Keys and tags are two vocabularies: the tag `a` is not the key `a`.
#[derive(Clone, Copy, Debug, Hash)]
enum Kind {
    Key,
    Tag,
}

/// The seed is fixed, because markers are compared between entries stored at different times, and
/// later between processes. Whoever finds two names of one hash has found a spurious miss.
fn name_hash(kind: Kind, name: &str) -> u64 {
    FixedState::with_seed(0x6b65_6570).hash_one((kind as u8, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_not_a_key_of_the_same_text() {
        let (Marker::Name(key), Marker::Name(tag)) = (Marker::key("a"), Marker::tag("a")) else {
            panic!("names are names")
        };
        assert_ne!(key, tag);
    }

    #[test]
    fn a_pattern_without_a_star_is_a_key() {
        let exact = Marker::pattern(Pattern::parse(r"a\*b").unwrap());
        assert!(matches!(exact, Marker::Name(hash) if hash == name_hash(Kind::Key, "a*b")));
    }
}
