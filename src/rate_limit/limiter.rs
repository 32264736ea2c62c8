//! The limiter: rules, table and identity put together.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, header};

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::identity::{CallerResolver, RequestView, masked};
use crate::rate_limit::charges::{Charge, Charges, take_all};
use crate::rate_limit::compiled::CompiledRule;
use crate::rate_limit::config::RateLimitConfig;
use crate::rate_limit::decision::{Decision, Standing};
use crate::rate_limit::scope::Scope;
use crate::rate_limit::subject::{Origin, Owner, Subject};
use crate::rate_limit::table::Table;

/// Decides whether requests may pass. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct RateLimiter {
    inner: Arc<Inner>,
}

struct Inner {
    callers: CallerResolver,
    engine: Arc<Engine>,
}

/// What all clones share, with whatever resolver of callers.
struct Engine {
    enabled: bool,
    rules: Box<[CompiledRule]>,
    origin: Origin,
    table: Table,
    clock: Clock,
    events: Events,
    legacy_headers: bool,
    preflight: bool,
    told_peer: AtomicBool,
    told_proxy: AtomicBool,
}

/// A table that is never used needs no room.
const KEYS_DISABLED: usize = 16;

const TOLD_PEER: &str = "requests carry no peer address, so that they share one rate limit: serve \
    with `into_make_service_with_connect_info::<SocketAddr>()` (and the feature `axum`), or put \
    `PeerAddr` into their extensions";

const TOLD_PROXY: &str = "requests come from a private address and name another client, but no proxy \
    is trusted, so that all clients behind it share one rate limit: set `trusted_proxies` or \
    `trusted_hops`";

impl RateLimiter {
    /// A limiter by these settings. Where the service's path templates are known, rules may speak of
    /// no others; pass none if they are not.
    ///
    /// # Errors
    ///
    /// All faults of the settings.
    pub fn new(
        config: &RateLimitConfig,
        known_routes: &[String],
        clock: Clock,
        events: Events,
    ) -> Result<Self, ConfigError> {
        let room = "rate_limit";
        let mut faults = Faults::new();
        config.check(room, &mut faults);
        config.check_routes(room, known_routes, &mut faults);
        faults.into_result()?;
        // Checked above; the faults would be found a second time.
        let proxies = config.proxies(room, &mut Faults::new());
        let rules = config.all_rules();
        let rules = rules.iter().zip(0..).map(|(rule, number)| {
            CompiledRule::new(rule, number).map_err(|wrong| {
                ConfigError::one(format!("{room}.rules"), &rule.name, wrong.to_string())
            })
        });
        let keys_max = if config.enabled {
            config.keys_max
        } else {
            KEYS_DISABLED
        };
        let engine = Engine {
            enabled: config.enabled,
            rules: rules.collect::<Result<_, _>>()?,
            origin: Origin {
                proxies,
                ipv6_prefix: config.ipv6_prefix,
            },
            table: Table::new(keys_max, ticks(&clock)),
            clock,
            events,
            legacy_headers: config.legacy_headers,
            preflight: config.preflight,
            told_peer: AtomicBool::new(false),
            told_proxy: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                callers: CallerResolver::none(),
                engine: Arc::new(engine),
            }),
        })
    }

    /// The same limiter, which asks `callers` who has signed in. Counts together with this one.
    #[must_use]
    pub fn callers(&self, callers: CallerResolver) -> Self {
        Self {
            inner: Arc::new(Inner {
                callers,
                engine: Arc::clone(&self.inner.engine),
            }),
        }
    }

    /// Decides about a request and counts it if it may pass; `None` if no enforced rule speaks of
    /// it, the limiter is switched off, or it is a CORS preflight and those are not counted.
    ///
    /// Takes no lock that is held for long and waits for nothing; allocates only if more than four
    /// rules speak of the request, or the closures that name callers do.
    pub fn check(&self, request: &RequestView<'_>) -> Option<Decision> {
        let engine = &*self.inner.engine;
        if !engine.enabled || (!engine.preflight && is_preflight(request)) {
            return None;
        }
        let subject = Subject::of(*request, &self.inner.callers, &engine.origin);
        let matched = request.matched_template();
        let mut charges = Charges::default();
        for rule in &engine.rules {
            if rule.speaks_of(request, matched) {
                let tier = rule.has_tiers().then(|| subject.tier());
                let (tier, terms) = rule.terms(tier);
                let owner = subject.owner(&rule.scope);
                let key = owner.key(rule, tier, engine.table.hasher());
                let shadow = rule.shadow;
                charges.push(Charge { key, terms, shadow });
            }
        }
        engine.warn(request, &subject);
        engine.decide(&charges)
    }

    /// Decides about one request of `key` with the rule called `rule`, without HTTP; `None` if there
    /// is no such rule or the limiter is switched off. A rule that only watches says what it would
    /// have said.
    ///
    /// The key is whatever the rule's scope counts by, and shares its bucket with requests: the id of
    /// a caller, a tenant, an address, a custom name; for the scope `global` it means nothing. The
    /// quota is the rule's own, not a tier's.
    pub fn check_key(&self, rule: &str, key: &str) -> Option<Decision> {
        let engine = &*self.inner.engine;
        let rule = engine.rules.iter().find(|known| &*known.name == rule)?;
        if !engine.enabled {
            return None;
        }
        let owner = match &rule.scope {
            Scope::Caller => Owner::Caller(key),
            Scope::Tenant => Owner::Tenant(key),
            Scope::Global => Owner::Everybody,
            Scope::Custom(_) => Owner::Named(Cow::Borrowed(key)),
            Scope::Ip => key.parse().map_or(Owner::Named(Cow::Borrowed(key)), |ip| {
                Owner::Ip(masked(ip, engine.origin.ipv6_prefix))
            }),
        };
        let (tier, terms) = rule.terms(None);
        let key = owner.key(rule, tier, engine.table.hasher());
        let mut charges = Charges::default();
        charges.push(Charge {
            key,
            terms,
            shadow: false,
        });
        engine.decide(&charges)
    }

    /// Whether requests are limited at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.inner.engine.enabled
    }

    /// Bytes that the buckets take up: fixed when the limiter was built.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.inner.engine.table.bytes()
    }

    /// How many buckets in use had to make room for others since the limiter was built. If this
    /// grows in quiet times, `keys_max` is too small.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.inner.engine.table.evicted()
    }

    pub(crate) fn legacy_headers(&self) -> bool {
        self.inner.engine.legacy_headers
    }
}

impl Engine {
    fn decide(&self, charges: &Charges<'_>) -> Option<Decision> {
        let now = ticks(&self.clock);
        let taken = take_all(&self.table, now, charges.enforced());
        if let Some((charge, verdict)) = taken
            && !verdict.is_allow()
        {
            self.events.emit(Event::RateLimitDenied {
                rule: &charge.terms.rule,
                shadow: false,
            });
            return Some(Decision::Deny(Standing::of(charge.terms, verdict)));
        }
        for charge in charges.enforced() {
            let rule = &*charge.terms.rule;
            self.events.emit(Event::RateLimitAllowed { rule });
        }
        // Rules that watch see only what the others let through, as they would if enforced.
        for charge in charges.watching() {
            let rule = &*charge.terms.rule;
            let verdict = self.table.charge(charge.key, now, charge.terms.limit);
            self.events.emit(match verdict.is_allow() {
                true => Event::RateLimitAllowed { rule },
                false => Event::RateLimitDenied { rule, shadow: true },
            });
        }
        taken.map(|(charge, verdict)| Decision::Allow(Standing::of(charge.terms, verdict)))
    }

    /// Tells what makes clients indistinguishable.
    fn warn(&self, request: &RequestView<'_>, subject: &Subject<'_>) {
        if subject.lacks_peer() {
            self.events.emit(Event::PeerUnknown);
            self.warn_once(&self.told_peer, TOLD_PEER);
        }
        if self.origin.proxies.trusts_nobody()
            && !self.told_proxy.load(Ordering::Relaxed)
            && subject.asked_peer().is_some_and(is_private)
            && (request.headers.contains_key("x-forwarded-for")
                || request.headers.contains_key(header::FORWARDED))
        {
            self.warn_once(&self.told_proxy, TOLD_PROXY);
        }
    }

    fn warn_once(&self, told: &AtomicBool, text: &str) {
        if !told.load(Ordering::Relaxed) && !told.swap(true, Ordering::Relaxed) {
            self.events.emit(Event::Warning { text });
        }
    }
}

/// Now, in the table's ticks.
fn ticks(clock: &Clock) -> u64 {
    clock.now().as_nanos() / 1000
}

/// Fetch standard, "CORS-preflight request": a preflight is an `OPTIONS` request with `Origin` and
/// `Access-Control-Request-Method`.
fn is_preflight(request: &RequestView<'_>) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether an address is one that proxies in the same network have.
const fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = &*self.inner.engine;
        let rules = engine.rules.iter().map(|rule| &*rule.name);
        f.debug_struct("RateLimiter")
            .field("enabled", &engine.enabled)
            .field("rules", &rules.collect::<Vec<_>>())
            .field("table", &engine.table)
            .finish_non_exhaustive()
    }
}
