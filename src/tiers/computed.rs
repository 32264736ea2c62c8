//! What a computation comes to.

use std::sync::Arc;
use std::time::Duration;

/// A value that was just computed, with what only the computation knows of it. A plain value is one as well:
/// `|| async { Ok(report) }`.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::tiers::Computed;
///
/// let page = Computed::new("page 1").tag("author:7").ttl(Duration::from_secs(60));
/// let nobody: Computed<Option<u32>> = Computed::optional(None);
/// # let _ = (page, nobody);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Computed<T> {
    pub(crate) value: T,
    pub(crate) ttl: Option<Duration>,
    pub(crate) tags: Vec<Arc<str>>,
    pub(crate) negative: bool,
    pub(crate) stored: bool,
}

impl<T> Computed<T> {
    /// The value, to be stored as the options say.
    pub const fn new(value: T) -> Self {
        Self {
            value,
            ttl: None,
            tags: Vec::new(),
            negative: false,
            stored: true,
        }
    }

    /// How long it is fresh, in place of what the options say.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Adds a tag to those of the options.
    pub fn tag(mut self, tag: impl Into<Arc<str>>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds tags to those of the options.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Says that this tells of nothing: it lives for `ttl_negative`.
    pub const fn negative(mut self) -> Self {
        self.negative = true;
        self
    }

    /// Says that this is for those who wait for it now, and is not stored.
    pub const fn unstored(mut self) -> Self {
        self.stored = false;
        self
    }
}

impl<T> Computed<Option<T>> {
    /// Something, or that there is nothing, which lives for `ttl_negative`.
    pub const fn optional(value: Option<T>) -> Self {
        let negative = value.is_none();
        let mut computed = Self::new(value);
        computed.negative = negative;
        computed
    }
}

impl<T> From<T> for Computed<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
