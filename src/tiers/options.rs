//! How long an entry lives, where, and what may happen at its end.

use std::sync::Arc;
use std::time::Duration;

/// Settings of entries: those of a cache, and over them those of a single call. What is not said here is as the
/// cache says, and what the cache does not say is as in [`TiersConfig`](crate::tiers::TiersConfig).
///
/// ```
/// use std::time::Duration;
/// use tower_keep::tiers::EntryOptions;
///
/// let options = EntryOptions::new()
///     .ttl(Duration::from_secs(300))
///     .stale_while_revalidate(Duration::from_secs(60))
///     .stale_if_error(Duration::from_secs(3600))
///     .soft_timeout(Duration::from_millis(100))
///     .tag("reports");
/// # let _ = options;
/// ```
///
/// Durations beyond ten years count as ten years. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct EntryOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) ttl_hot: Option<Duration>,
    pub(crate) ttl_warm: Option<Duration>,
    pub(crate) ttl_cold: Option<Duration>,
    pub(crate) ttl_negative: Option<Duration>,
    pub(crate) ttl_error: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) jitter_percent: Option<u8>,
    pub(crate) early_refresh: Option<f32>,
    pub(crate) tags: Option<Arc<[Arc<str>]>>,
}

/// Longer than anything is cached for, and short enough to be added to any date.
pub(crate) const LIFE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Tags of one entry. What has more is served and not stored: a purge by one of them would not reach it.
pub const ENTRY_TAGS_MAX: usize = 64;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl EntryOptions {
    /// Nothing said yet.
    pub const fn new() -> Self {
        Self {
            ttl: None,
            ttl_hot: None,
            ttl_warm: None,
            ttl_cold: None,
            ttl_negative: None,
            ttl_error: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            soft_timeout: None,
            hard_timeout: None,
            jitter_percent: None,
            early_refresh: None,
            tags: None,
        }
    }

    /// What a user's session holds: fresh for a day.
    pub const fn session() -> Self {
        Self::new().ttl(DAY)
    }

    /// A page of figures: five minutes, a minute longer while it is made anew, and an hour where that fails.
    pub const fn dashboard() -> Self {
        Self::new()
            .ttl(MINUTE.saturating_mul(5))
            .stale_while_revalidate(MINUTE)
            .stale_if_error(HOUR)
    }

    /// The result of a query: five minutes.
    pub const fn query_result() -> Self {
        Self::new().ttl(MINUTE.saturating_mul(5))
    }

    /// The answer of somebody else's API: fifteen minutes, another fifteen while it is fetched anew, and an
    /// hour where that fails.
    pub const fn api_response() -> Self {
        Self::new()
            .ttl(MINUTE.saturating_mul(15))
            .stale_while_revalidate(MINUTE.saturating_mul(15))
            .stale_if_error(HOUR)
    }

    /// What hardly ever changes: a day, and another one where it cannot be had.
    pub const fn platform_metadata() -> Self {
        Self::new()
            .ttl(DAY)
            .stale_while_revalidate(HOUR)
            .stale_if_error(DAY)
    }

    /// How much somebody may use: an hour.
    pub const fn quota() -> Self {
        Self::new().ttl(HOUR)
    }

    /// How a service is: thirty seconds, and never older.
    pub const fn health() -> Self {
        Self::new().ttl(Duration::from_secs(30))
    }

    /// How long it is fresh. Zero: it is computed for those who ask at the same time, and not stored.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long it stays in this process' memory at most. It is found in Redis afterwards, if it is still
    /// fresh. Zero: never.
    pub const fn ttl_hot(mut self, at_most: Duration) -> Self {
        self.ttl_hot = Some(at_most);
        self
    }

    /// How long it stays in Redis at most. Zero: it is never written there, and each instance computes it.
    pub const fn ttl_warm(mut self, at_most: Duration) -> Self {
        self.ttl_warm = Some(at_most);
        self
    }

    /// How long it stays in the cold store at most. Zero: it is never written there.
    pub const fn ttl_cold(mut self, at_most: Duration) -> Self {
        self.ttl_cold = Some(at_most);
        self
    }

    /// How long it is remembered that there is nothing: see
    /// [`Computed::negative`](crate::tiers::Computed::negative). Like `ttl` without it.
    pub const fn ttl_negative(mut self, ttl: Duration) -> Self {
        self.ttl_negative = Some(ttl);
        self
    }

    /// How long an error is remembered, in this process: whoever asks within this time is told of the same
    /// error, and nothing is computed. Zero, as by default: not at all.
    pub const fn ttl_error(mut self, ttl: Duration) -> Self {
        self.ttl_error = Some(ttl);
        self
    }

    /// For how long after its life it is still served while it is computed anew in the background (the idea of
    /// RFC 5861 §3).
    pub const fn stale_while_revalidate(mut self, grace: Duration) -> Self {
        self.stale_while_revalidate = Some(grace);
        self
    }

    /// For how long after its life it stands in where computing fails (the idea of RFC 5861 §4).
    pub const fn stale_if_error(mut self, grace: Duration) -> Self {
        self.stale_if_error = Some(grace);
        self
    }

    /// How long a caller waits for a computation while there is something stale that might stand in, as far
    /// as `stale_while_revalidate` or `stale_if_error` allow. The computation goes on, and its result is
    /// stored.
    pub const fn soft_timeout(mut self, patience: Duration) -> Self {
        self.soft_timeout = Some(patience);
        self
    }

    /// How long a computation may take; then it is dropped, and counts as failed.
    pub const fn hard_timeout(mut self, limit: Duration) -> Self {
        self.hard_timeout = Some(limit);
        self
    }

    /// Shortens each life by a random share of it, up to so many percent (at most 50), so that what was
    /// stored together does not end together.
    pub const fn jitter_percent(mut self, percent: u8) -> Self {
        self.jitter_percent = Some(if percent > 50 { 50 } else { percent });
        self
    }

    /// Computes it anew before its end, the more likely the nearer the end and the longer it takes (XFetch:
    /// Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015).
    /// `beta` is 1 as a rule; larger is earlier, and 0 is never.
    pub const fn early_refresh(mut self, beta: f32) -> Self {
        self.early_refresh = Some(beta);
        self
    }

    /// Adds a tag, by which it can be purged: at most [`ENTRY_TAGS_MAX`], of 1,024 bytes each.
    pub fn tag(self, tag: impl Into<Arc<str>>) -> Self {
        self.tags([tag])
    }

    /// Adds tags.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        let so_far = self.tags.iter().flat_map(|tags| tags.iter().cloned());
        self.tags = Some(so_far.chain(tags.into_iter().map(Into::into)).collect());
        self
    }

    /// These over those.
    pub(crate) fn over(&self, below: &Self) -> Self {
        let tags = match (&self.tags, &below.tags) {
            (Some(own), Some(below)) => Some(below.iter().chain(own.iter()).cloned().collect()),
            (own, below) => own.clone().or_else(|| below.clone()),
        };
        Self {
            ttl: self.ttl.or(below.ttl),
            ttl_hot: self.ttl_hot.or(below.ttl_hot),
            ttl_warm: self.ttl_warm.or(below.ttl_warm),
            ttl_cold: self.ttl_cold.or(below.ttl_cold),
            ttl_negative: self.ttl_negative.or(below.ttl_negative),
            ttl_error: self.ttl_error.or(below.ttl_error),
            stale_while_revalidate: self.stale_while_revalidate.or(below.stale_while_revalidate),
            stale_if_error: self.stale_if_error.or(below.stale_if_error),
            soft_timeout: self.soft_timeout.or(below.soft_timeout),
            hard_timeout: self.hard_timeout.or(below.hard_timeout),
            jitter_percent: self.jitter_percent.or(below.jitter_percent),
            early_refresh: self.early_refresh.or(below.early_refresh),
            tags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_says_goes_over_what_the_cache_says_and_tags_add_up() {
        let cache = EntryOptions::dashboard().tag("all");
        let call = EntryOptions::new().ttl(DAY).tags(["a", "b"]);
        let both = call.over(&cache);
        assert_eq!(both.ttl, Some(DAY));
        assert_eq!(both.stale_while_revalidate, Some(MINUTE));
        let tags: Vec<&str> = both
            .tags
            .iter()
            .flat_map(|tags| tags.iter().map(|tag| &**tag))
            .collect();
        assert_eq!(tags, ["all", "a", "b"]);
        assert_eq!(EntryOptions::new().over(&cache), cache);
    }
}
