//! What a handler can say in code about the caching of its answer, as response extensions.

use std::sync::Arc;
use std::time::Duration;

/// Tags by which the answer can be invalidated. The first 64 count; a tag has at most 256 bytes, and
/// longer or empty ones are passed over.
///
/// ```
/// # use tower_keep::cache::CacheTags;
/// let mut response = http::Response::new("Anna");
/// response.extensions_mut().insert(CacheTags::new(["contacts", "organization:7"]));
/// ```
///
/// With axum, return it as part of the response: `(Extension(CacheTags::new(["contacts"])), Json(..))`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheTags(Arc<[Arc<str>]>);

impl CacheTags {
    /// These tags.
    pub fn new(tags: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let sound = |tag: &Arc<str>| !tag.is_empty() && tag.len() <= TAG_BYTES_MAX;
        let tags = tags
            .into_iter()
            .map(|tag| Arc::<str>::from(tag.as_ref()))
            .filter(sound);
        Self(tags.take(TAGS_MAX).collect())
    }

    /// The tags.
    #[must_use]
    pub fn tags(&self) -> &[Arc<str>] {
        &self.0
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
pub const TAGS_MAX: usize = 64;

/// The longest tag.
pub const TAG_BYTES_MAX: usize = 256;
