//! The rules in force, which may be replaced while requests read them.

use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::rate_limit::rules::Rules;

/// Rules that can be replaced.
///
/// Most limiters keep those they were built with for as long as they live, so these are read without any
/// atomic step. Once others have taken their place, reading costs the two of an [`ArcSwap`].
pub(crate) struct InForce {
    first: Rules,
    later: OnceLock<ArcSwap<Rules>>,
    /// Held by whoever replaces them, or of two at the same time one would follow on rules that it never saw.
    turn: Mutex<()>,
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
            turn: Mutex::new(()),
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

    /// Puts in their place what `next` makes of them; one after the other.
    ///
    /// # Errors
    ///
    /// Those of `next`, and then they stay.
    pub(crate) fn replace<E>(
        &self,
        next: impl FnOnce(&Rules) -> Result<Rules, E>,
    ) -> Result<(), E> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(next(&self.load())?);
        let later = || ArcSwap::new(Arc::clone(&next));
        self.later.get_or_init(later).store(Arc::clone(&next));
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ConfigError;
    use crate::rate_limit::config::RateLimitConfig;
    use crate::rate_limit::quota::Quota;
    use crate::rate_limit::rule::Rule;

    fn so_many(rules: usize) -> Result<Rules, ConfigError> {
        let quota = Quota::requests(1).per(Duration::from_secs(60));
        let rules = (0..rules).map(|at| Rule::new(at.to_string(), quota));
        let config = RateLimitConfig {
            default_rule: false,
            rules: rules.collect(),
            ..RateLimitConfig::default()
        };
        Rules::new(&config, "rate_limit", None)
    }

    #[test]
    fn of_two_that_replace_them_at_the_same_time_none_is_lost() {
        let in_force = InForce::new(so_many(0).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let one_more = |before: &Rules| so_many(before.all.len() + 1);
                        in_force.replace(one_more).unwrap();
                    }
                });
            }
        });
        assert_eq!(in_force.load().all.len(), 100);
    }
}
