//! On which terms a stored answer may be served, and what they mean at a certain age.
//!
//! Pure: age and wishes come in as values.

use std::time::Duration;

use crate::cache::control::CacheControl;

/// The terms on which a stored answer may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// How long it is fresh, counted in age.
    pub(crate) lifetime: Duration,
    /// The lifetime that the handler gave in code, which outlives a 304 that says nothing.
    pub(crate) ttl: Option<Duration>,
    /// Its age when it arrived (RFC 9111 §4.2.3, `corrected_initial_age`).
    pub(crate) initial_age: Duration,
    /// `no-cache`: each use needs the origin's word.
    pub(crate) always_validate: bool,
    /// How long past its life it may be served while it is refreshed.
    pub(crate) stale_while_revalidate: Duration,
    /// How long past its life it may be served when the origin fails.
    pub(crate) stale_if_error: Duration,
    /// How long past its life it may be served when there is no answer at all.
    pub(crate) stale_if_disconnected: Duration,
    /// Whether a client's `max-stale` is heard.
    pub(crate) may_be_stale: bool,
    /// Whether the origin said that credentials make no difference.
    pub(crate) for_everyone: bool,
}

/// What may be done with a stored answer of a certain age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and refresh it meanwhile (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Serve it because the client said it takes stale answers (RFC 9111 §5.2.1.2).
    StaleAccepted,
    /// Ask the origin because the client wants it (`no-cache`, `max-age`, `min-fresh`).
    Unwanted,
    /// Ask the origin because its life is over.
    Stale,
}

/// How an origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It answered 500, 502, 503 or 504.
    Error,
    /// It did not answer (RFC 9111 §4.2.4: "disconnected").
    Disconnected,
}

impl Terms {
    /// What may be done at `age` for a request of these directives (RFC 9111 §4.2, §4.2.4, §5.2.1).
    pub(crate) fn freshness(&self, age: Duration, request: &CacheControl) -> Freshness {
        if self.always_validate {
            return Freshness::Stale;
        }
        if request.no_cache {
            return Freshness::Unwanted;
        }
        // §5.2.1.1: "the client prefers a response whose age is less than or equal to .. max-age";
        // what `max-stale` grants counts from there, as it does from the end of the answer's life.
        let granted = request.max_stale.unwrap_or(0);
        let too_old = |limit: u64| age > Duration::from_secs(limit.saturating_add(granted));
        if request.max_age.is_some_and(too_old) {
            return Freshness::Unwanted;
        }
        // §5.2.1.3: "its freshness lifetime is no less than its current age plus the specified time".
        let too_short = |wish| self.lifetime < age.saturating_add(Duration::from_secs(wish));
        if request.min_fresh.is_some_and(too_short) {
            return Freshness::Unwanted;
        }
        // §4.2: "response_is_fresh = (freshness_lifetime > current_age)".
        if self.lifetime > age {
            return Freshness::Fresh;
        }
        let staleness = age.saturating_sub(self.lifetime);
        if self.may_be_stale
            && request
                .max_stale
                .is_some_and(|limit| staleness <= Duration::from_secs(limit))
        {
            return Freshness::StaleAccepted;
        }
        // §5.2.1.1: "Unless the max-stale request directive is also present, the client does not wish to
        // receive a stale response."
        if staleness < self.stale_while_revalidate && request.max_age.is_none() {
            return Freshness::StaleWhileRevalidate;
        }
        Freshness::Stale
    }

    /// Whether it will be served to anybody before the origin is asked again. If not, waiting for it
    /// is in vain: each request has to ask by itself.
    pub(crate) fn serves_others(&self) -> bool {
        let served = self.lifetime.saturating_add(self.stale_while_revalidate);
        !self.always_validate && served > self.initial_age
    }

    /// Whether an answer of this age may stand in for an origin that fails so (RFC 5861 §4, RFC 9111
    /// §4.2.4); `asked` is the request's `stale-if-error`.
    pub(crate) fn covers(&self, failure: Failure, age: Duration, asked: Option<u64>) -> bool {
        let staleness = age.saturating_sub(self.lifetime);
        let asked = asked.map(Duration::from_secs).filter(|_| self.may_be_stale);
        let window = self.stale_if_error.max(asked.unwrap_or_default());
        let window = match failure {
            Failure::Error => window,
            Failure::Disconnected => window.max(self.stale_if_disconnected),
        };
        !self.always_validate && staleness < window
    }

    /// How long past its life it is of any use without the origin's word.
    pub(crate) fn grace(&self) -> Duration {
        let failing = self.stale_if_error.max(self.stale_if_disconnected);
        self.stale_while_revalidate.max(failing)
    }

    /// Until which age it is fresh for whoever has no wishes: zero for what always needs the origin's word.
    pub(crate) fn fresh_until(&self) -> Duration {
        if self.always_validate {
            Duration::ZERO
        } else {
            self.lifetime
        }
    }
}
