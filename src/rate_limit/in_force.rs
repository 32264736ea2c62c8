//! The rules in force, which may be replaced while requests read them.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};

use crate::rate_limit::rules::Rules;

/// Rules that can be replaced.
///
/// Most limiters keep those they were built with for as long as they live, so these are read without any
/// atomic step. Once others have taken their place, reading costs the two of an [`ArcSwap`].
pub(crate) struct InForce {
    first: Rules,
    later: OnceLock<ArcSwap<Rules>>,
}

/// The rules as they were when this was made.
pub(crate) enum Reading<'a> {
    First(&'a Rules),
    Later(Guard<Arc<Rules>>),
}

impl InForce {
    pub(crate) const fn new(first: Rules) -> Self {
        Self {
            first,
            later: OnceLock::new(),
        }
    }

    #[inline]
    pub(crate) fn load(&self) -> Reading<'_> {
        match self.later.get() {
            None => Reading::First(&self.first),
            Some(later) => Reading::Later(later.load()),
        }
    }

    /// Whether they are still those that the limiter was built with.
    #[inline]
    pub(crate) fn are_first(&self) -> bool {
        self.later.get().is_none()
    }

    pub(crate) fn store(&self, next: Rules) {
        let next = Arc::new(next);
        let later = || ArcSwap::new(Arc::clone(&next));
        self.later.get_or_init(later).store(Arc::clone(&next));
    }
}

impl Deref for Reading<'_> {
    type Target = Rules;

    #[inline]
    fn deref(&self) -> &Rules {
        match self {
            Self::First(rules) => rules,
            Self::Later(rules) => rules,
        }
    }
}
