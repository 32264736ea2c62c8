//! What a handler can say in code about the caching of its answer, as response extensions.

use std::sync::Arc;
use std::time::Duration;

/// Tags by which the answer can be invalidated: at most 256, of 1 to 256 bytes each. An answer with more, or
/// with a tag that is longer or empty, is not stored: what could not be invalidated by one of its tags must not
/// be served again.
///
/// ```
/// # use tower_keep::cache::CacheTags;
/// let mut response = http::Response::new("Anna");
/// response.extensions_mut().insert(CacheTags::new(["contacts", "organization:7"]));
/// ```
///
/// With axum, return it as part of the response: `(Extension(CacheTags::new(["contacts"])), Json(..))`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheTags {
    tags: Arc<[Arc<str>]>,
    /// Whether there was one that cannot be kept.
    incomplete: bool,
}

impl CacheTags {
    /// These tags.
    pub fn new(tags: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut all = Self::default();
        let mut kept: Vec<Arc<str>> = Vec::new();
        for tag in tags {
            let tag = tag.as_ref();
            if !(1..=TAG_BYTES_MAX).contains(&tag.len()) {
                all.incomplete = true;
            } else if !kept.iter().any(|known| **known == *tag) {
                if kept.len() == TAGS_MAX {
                    all.incomplete = true;
                    break;
                }
                kept.push(tag.into());
            }
        }
        all.tags = kept.into();
        all
    }

    /// Both.
    pub(crate) fn and(&self, others: &Self) -> Self {
        if others.tags.iter().all(|tag| self.tags.contains(tag)) {
            let mut all = self.clone();
            all.incomplete |= others.incomplete;
            return all;
        }
        let mut all = Self::new(self.tags.iter().chain(&*others.tags));
        all.incomplete |= self.incomplete || others.incomplete;
        all
    }

    /// Whether all of them could be kept.
    pub(crate) const fn are_complete(&self) -> bool {
        !self.incomplete
    }

    /// The tags.
    #[must_use]
    pub fn tags(&self) -> &[Arc<str>] {
        &self.tags
    }
}

/// How long the answer is fresh here, whatever its fields tell others.
///
/// `no-store`, `private` and cookies still keep an answer out of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheFor(pub Duration);

/// The answer is not to be stored here, whatever its fields tell others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoStore;

/// How many tags one answer can have; each costs a look-up when the answer is judged anew.
pub const TAGS_MAX: usize = 256;

/// The longest tag.
pub const TAG_BYTES_MAX: usize = 256;
