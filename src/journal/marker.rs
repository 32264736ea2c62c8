//! What an invalidation names, and what an entry can be named by.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::FixedState;

use crate::pattern::Pattern;

/// Something that an invalidation names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// All entries that carry this name: a key, a path, a tag, a namespace or a tenant, by its 64-bit
    /// hash. Two names that share a hash cost a spurious miss, never a stale answer.
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

    /// All entries of this namespace.
    #[must_use]
    pub fn namespace(namespace: &str) -> Self {
        Self::Name(name_hash(Kind::Namespace, namespace))
    }

    /// All entries of this tenant.
    #[must_use]
    pub fn tenant(tenant: &str) -> Self {
        Self::Name(Tenant::of(tenant).0)
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

/// A tenant, by the hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tenant(pub(crate) u64);

impl Tenant {
    pub(crate) fn of(name: &str) -> Self {
        Self(name_hash(Kind::Tenant, name))
    }

    /// In which of so many shards what it has is kept.
    pub(crate) const fn shard(self, shards: usize) -> usize {
        // No larger than the number of shards, so it fits.
        if shards > 1 {
            (self.0 % shards as u64) as usize
        } else {
            0
        }
    }

    /// The name of something that this tenant alone has.
    pub(crate) const fn own(self, name: u64) -> u64 {
        // Both are hashes already; what is left is to make one of two, whose order counts.
        let folded = (name ^ self.0.rotate_left(29)) as u128 * 0x9e37_79b9_7f4a_7c15;
        (folded ^ (folded >> 64)) as u64
    }
}

/// What an entry can be invalidated by: its key, its tags, its namespace and its tenant.
#[derive(Clone, Debug)]
pub struct Subject {
    key: Arc<str>,
    /// The hash of the key, then those of the tags and of the namespace.
    names: Box<[u64]>,
    tenant: Option<Tenant>,
}

impl Subject {
    /// The subject of this key and these tags.
    #[must_use]
    pub fn of(key: impl Into<Arc<str>>, tags: &[Arc<str>]) -> Self {
        Self::named(key, tags.iter().map(|tag| &**tag), None)
    }

    /// The same with tags that need not be kept, in a namespace.
    pub(crate) fn named(
        key: impl Into<Arc<str>>,
        tags: impl Iterator<Item: AsRef<str>>,
        namespace: Option<&str>,
    ) -> Self {
        let key = key.into();
        let tags = tags.map(|tag| name_hash(Kind::Tag, tag.as_ref()));
        let names = std::iter::once(name_hash(Kind::Key, &key))
            .chain(tags)
            .chain(namespace.map(|space| name_hash(Kind::Namespace, space)))
            .collect();
        Self {
            key,
            names,
            tenant: None,
        }
    }

    /// The same in a namespace: one more name, for
    /// [`purge_namespace`](crate::invalidation::Invalidator::purge_namespace).
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        let mut names = self.names.into_vec();
        names.push(name_hash(Kind::Namespace, namespace));
        Self {
            names: names.into(),
            ..self
        }
    }

    /// The same for a tenant: what is invalidated for that tenant alone concerns it as well.
    #[must_use]
    pub fn of_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(Tenant::of(tenant));
        self
    }

    /// The key that patterns are compared with.
    #[must_use]
    pub const fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The hashes of its names, the tenant's aside.
    #[must_use]
    pub fn names(&self) -> &[u64] {
        &self.names
    }

    /// Hashes whose it is and its key, alike in every process.
    pub(crate) fn hash_into(&self, state: &mut impl Hasher) {
        (self.tenant, &self.key).hash(state);
    }

    pub(crate) const fn tenant(&self) -> Option<Tenant> {
        self.tenant
    }
}

/// These are vocabularies of their own: the tag `a` is not the key `a`.
#[derive(Clone, Copy, Debug, Hash)]
enum Kind {
    Key,
    Tag,
    Namespace,
    Tenant,
}

/// The seed is fixed, because markers are compared between entries stored at different times and by
/// different processes. Whoever finds two names of one hash has found a spurious miss.
fn name_hash(kind: Kind, name: &str) -> u64 {
    FixedState::with_seed(0x6b65_6570).hash_one((kind as u8, name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_name_means_one_thing_in_each_vocabulary() {
        let all = [
            Marker::key("a"),
            Marker::tag("a"),
            Marker::namespace("a"),
            Marker::tenant("a"),
        ];
        let hashes = all.map(|marker| match marker {
            Marker::Name(hash) => hash,
            Marker::Pattern(_) | Marker::Everything => panic!("names are names"),
        });
        assert_eq!(HashSet::from(hashes).len(), 4);
    }

    #[test]
    fn a_pattern_without_a_star_is_a_key() {
        let exact = Marker::pattern(Pattern::parse(r"a\*b").unwrap());
        assert_eq!(exact, Marker::key("a*b"));
    }

    #[test]
    fn hashes_stay_what_they_are_between_versions_of_this_crate() {
        // Instances of two versions share one journal while a service is rolled out.
        assert_eq!(Marker::key("/contacts/7"), Marker::Name(KEY_HASH));
        assert_eq!(Tenant::of("acme").own(KEY_HASH), OWN_HASH);
    }

    const KEY_HASH: u64 = 14_917_537_521_145_117_142;
    const OWN_HASH: u64 = 1_689_332_770_848_911_167;

    #[test]
    fn what_one_tenant_has_is_not_what_another_has() {
        let (acme, zeta) = (Tenant::of("acme"), Tenant::of("zeta"));
        let names: Vec<u64> = (0..1_000)
            .map(|n| name_hash(Kind::Tag, &n.to_string()))
            .collect();
        let own = |tenant: Tenant| names.iter().map(move |name| tenant.own(*name));
        let all: HashSet<u64> = own(acme)
            .chain(own(zeta))
            .chain(names.iter().copied())
            .collect();
        assert_eq!(all.len(), 3_000);
    }
}
