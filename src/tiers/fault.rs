//! Why there is no value.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no value. Cheap to clone: everybody who waited for one computation gets the same.
///
/// What ails Redis, the cold store or stored bytes is never among it: those are misses.
#[derive(Clone, Debug)]
pub struct CacheError {
    /// In one word, so that a result which is none of them is small: every hit hands one on.
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    Failed(Box<dyn Error + Send + Sync>),
    Panicked,
    TimedOut(Duration),
    Busy,
    Nested(Arc<str>),
    KeyTooLong(usize),
}

/// The longest key, in bytes, as it is written.
pub const KEY_BYTES_MAX: usize = 64 << 10;

impl CacheError {
    fn of(kind: Kind) -> Self {
        Self {
            kind: Arc::new(kind),
        }
    }

    pub(crate) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(Kind::Failed(error.into()))
    }

    pub(crate) fn panicked() -> Self {
        Self::of(Kind::Panicked)
    }

    pub(crate) fn timed_out(after: Duration) -> Self {
        Self::of(Kind::TimedOut(after))
    }

    pub(crate) fn busy() -> Self {
        Self::of(Kind::Busy)
    }

    pub(crate) fn nested(key: Arc<str>) -> Self {
        Self::of(Kind::Nested(key))
    }

    pub(crate) fn key_too_long(bytes: usize) -> Self {
        Self::of(Kind::KeyTooLong(bytes))
    }

    /// The computation's own error, if it is of this type.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match &*self.kind {
            Kind::Failed(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// Whether the computation itself returned an error.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(*self.kind, Kind::Failed(_))
    }

    /// Whether the computation panicked.
    #[must_use]
    pub fn is_panicked(&self) -> bool {
        matches!(*self.kind, Kind::Panicked)
    }

    /// Whether it took longer than the hard timeout.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(*self.kind, Kind::TimedOut(_))
    }

    /// Whether computations of others took longer than anybody waits.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(*self.kind, Kind::Busy)
    }

    /// Whether a computation asked for the value that it was to compute.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        matches!(*self.kind, Kind::Nested(_))
    }

    /// Whether the key is longer than [`KEY_BYTES_MAX`].
    #[must_use]
    pub fn is_key_too_long(&self) -> bool {
        matches!(*self.kind, Kind::KeyTooLong(_))
    }
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.kind {
            Kind::Failed(_) => f.write_str("the computation failed"),
            Kind::Panicked => f.write_str("the computation panicked"),
            Kind::TimedOut(after) => write!(f, "the computation took longer than {after:?}"),
            Kind::Busy => f.write_str("others compute it, and take longer than anybody waits"),
            Kind::Nested(key) => {
                write!(
                    f,
                    "the computation of `{key}` asked for `{key}`, and would wait for itself"
                )
            }
            Kind::KeyTooLong(bytes) => {
                write!(f, "a key of {bytes} bytes is longer than {KEY_BYTES_MAX}")
            }
        }
    }
}

impl Error for CacheError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &*self.kind {
            Kind::Failed(error) => Some(&**error),
            _ => None,
        }
    }
}
