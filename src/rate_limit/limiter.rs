//! The limiter: rules, table and identity put together.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, header};

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::identity::{ApiKeyResolver, CallerResolver, ProxyHeader, RequestView};
use crate::rate_limit::charges::{Charge, Charges, take_all};
use crate::rate_limit::compiled::CompiledRule;
use crate::rate_limit::config::RateLimitConfig;
use crate::rate_limit::decision::{Decision, Standing};
use crate::rate_limit::owner::Owner;
use crate::rate_limit::subject::{Origin, Resolvers, Subject};
use crate::rate_limit::table::Table;

/// Decides whether requests may pass. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct RateLimiter {
    inner: Arc<Inner>,
}

struct Inner {
    resolvers: Resolvers,
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
        let rules = rules.iter().map(|rule| {
            CompiledRule::new(rule, config.mode)
                .map_err(|wrong| ConfigError::one(format!("{room}.rules"), &rule.name, wrong))
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
                resolvers: Resolvers::default(),
                engine: Arc::new(engine),
            }),
        })
    }

    /// The same limiter, which asks `callers` who has signed in. Counts together with this one.
    #[must_use]
    pub fn callers(&self, callers: CallerResolver) -> Self {
        self.asking(Resolvers {
            callers,
            ..self.inner.resolvers.clone()
        })
    }

    /// The same limiter, which asks `api_keys` for the key that a request was let in with. Counts together
    /// with this one.
    #[must_use]
    pub fn api_keys(&self, api_keys: ApiKeyResolver) -> Self {
        self.asking(Resolvers {
            api_keys,
            ..self.inner.resolvers.clone()
        })
    }

    fn asking(&self, resolvers: Resolvers) -> Self {
        Self {
            inner: Arc::new(Inner {
                resolvers,
                engine: Arc::clone(&self.inner.engine),
            }),
        }
    }

    /// Decides about a request and counts it if it may pass; `None` if no enforced rule speaks of
    /// it, the limiter is switched off, or it is a CORS preflight and those are not counted.
    ///
    /// Takes no lock that is held for long and waits for nothing; allocates only if more than four
    /// rules speak of the request, or the closures that name callers do.
    #[must_use]
    pub fn check(&self, request: &RequestView<'_>) -> Option<Decision> {
        let engine = &*self.inner.engine;
        if !engine.enabled || (!engine.preflight && is_preflight(request)) {
            return None;
        }
        let subject = Subject::of(*request, &self.inner.resolvers, &engine.origin);
        let matched = request.matched_template();
        let mut charges = Charges::default();
        for rule in &engine.rules {
            if rule.speaks_of(request, matched) {
                let tier = rule.has_tiers().then(|| subject.tier());
                let plan = rule.plan(tier);
                let owner = subject.owner(&rule.scope);
                let key = owner.key(rule, plan, engine.table.hasher());
                charges.push(Charge {
                    key,
                    terms: &plan.terms,
                    shadow: rule.shadow,
                });
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
    #[must_use]
    pub fn check_key(&self, rule: &str, key: &str) -> Option<Decision> {
        let engine = &*self.inner.engine;
        let rule = engine.rules.iter().find(|known| &*known.name == rule)?;
        if !engine.enabled {
            return None;
        }
        let owner = Owner::of_key(&rule.scope, key, engine.origin.ipv6_prefix);
        let plan = rule.plan(None);
        let key = owner.key(rule, plan, engine.table.hasher());
        let mut charges = Charges::default();
        charges.push(Charge {
            key,
            terms: &plan.terms,
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
            && [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded]
                .iter()
                .any(|header| request.headers.contains_key(header.name()))
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::time::Duration;

    use http::Request;

    use super::*;
    use crate::clock::ManualClock;
    use crate::event::Recorder;
    use crate::identity::{Caller, PeerAddr};
    use crate::rate_limit::quota::Quota;
    use crate::rate_limit::rule::Rule;
    use crate::rate_limit::scope::Scope;

    const MINUTE: Duration = Duration::from_secs(60);

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Recorder for Heard {
        fn record(&self, event: &Event<'_>) {
            let text = match event {
                Event::Warning { .. } => "Warning".to_owned(),
                other => format!("{other:?}"),
            };
            self.0.lock().unwrap().push(text);
        }
    }

    fn at_once(count: u32) -> Quota {
        Quota::requests(count).per(MINUTE)
    }

    fn only(rules: Vec<Rule>) -> RateLimitConfig {
        RateLimitConfig {
            keys_max: 1000,
            default_rule: false,
            rules,
            ..RateLimitConfig::default()
        }
    }

    fn limiter(config: &RateLimitConfig) -> (RateLimiter, ManualClock, Arc<Heard>) {
        let (clock, hand) = Clock::manual();
        let heard = Arc::new(Heard::default());
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let limiter = RateLimiter::new(config, &[], clock, events).unwrap();
        (limiter, hand, heard)
    }

    fn from(peer: &str, path: &str) -> Request<()> {
        let mut request = Request::get(path).body(()).unwrap();
        let peer: IpAddr = peer.parse().unwrap();
        let peer = SocketAddr::new(peer, 1234);
        request.extensions_mut().insert(PeerAddr(peer));
        request
    }

    fn by(caller: Caller) -> Request<()> {
        let mut request = from("203.0.113.7", "/");
        request.extensions_mut().insert(caller);
        request
    }

    /// How many of up to 50 such requests pass at once.
    fn passes(limiter: &RateLimiter, request: &Request<()>) -> usize {
        let view = RequestView::of(request);
        (0..50)
            .take_while(|_| limiter.check(&view).is_some_and(|d| d.is_allow()))
            .count()
    }

    #[test]
    fn a_denial_by_one_rule_charges_no_other() {
        let config = only(vec![
            Rule::new("wide", at_once(10)),
            Rule::new("login", at_once(2)).route("/login"),
        ]);
        let (limiter, hand, heard) = limiter(&config);
        let login = from("203.0.113.7", "/login");
        assert_eq!(passes(&limiter, &login), 2);
        let denied = limiter.check(&RequestView::of(&login)).unwrap();
        let standing = denied.standing();
        assert_eq!(
            (standing.rule(), standing.limit(), standing.remaining()),
            ("login", 2, 0)
        );
        assert_eq!(standing.retry_after(), MINUTE / 2);
        assert_eq!(standing.reset_after(), MINUTE);
        assert_eq!(
            heard.0.lock().unwrap().last().unwrap(),
            "RateLimitDenied { rule: \"login\", shadow: false }"
        );
        assert_eq!(passes(&limiter, &from("203.0.113.7", "/other")), 8);
        hand.advance(MINUTE);
        assert_eq!(passes(&limiter, &login), 2);
    }

    #[test]
    fn a_tier_has_its_own_quota_and_a_change_of_plans_is_no_fresh_start() {
        let config = only(vec![
            Rule::new("r", at_once(4))
                .tier("premium", at_once(12))
                .tier("anonymous", at_once(1)),
        ]);
        let (limiter, _hand, _heard) = limiter(&config);
        assert_eq!(passes(&limiter, &by(Caller::new("a"))), 4);
        assert_eq!(passes(&limiter, &by(Caller::new("a").tier("premium"))), 0);
        assert_eq!(passes(&limiter, &by(Caller::new("b").tier("premium"))), 12);
        assert_eq!(
            passes(&limiter, &by(Caller::new("c").tier("unheard of"))),
            4
        );
        assert_eq!(passes(&limiter, &from("203.0.113.7", "/")), 1);
    }

    #[test]
    fn plans_behind_one_address_do_not_use_up_each_others_quota() {
        let rule = Rule::new("r", at_once(4)).scope(Scope::Ip);
        let config = only(vec![rule.tier("premium", at_once(12))]);
        let (limiter, _hand, _heard) = limiter(&config);
        assert_eq!(passes(&limiter, &from("203.0.113.7", "/")), 4);
        assert_eq!(passes(&limiter, &by(Caller::new("a").tier("premium"))), 12);
        assert_eq!(passes(&limiter, &by(Caller::new("b").tier("premium"))), 0);
    }

    #[test]
    fn every_scope_counts_what_it_says_and_falls_back_to_the_address() {
        let acme = |id: &str| by(Caller::new(id).tenant("acme"));
        let keyed = |key: &str| {
            let mut request = from("203.0.113.7", "/");
            request.headers_mut().insert("x-key", key.parse().unwrap());
            request
        };
        let by_key = Scope::custom(|request| {
            let key = request.headers.get("x-key")?;
            key.to_str().ok().map(Cow::Borrowed)
        });
        for (scope, same, other) in [
            (
                Scope::Caller,
                [by(Caller::new("a")), by(Caller::new("a"))],
                by(Caller::new("b")),
            ),
            (Scope::Tenant, [acme("a"), acme("b")], by(Caller::new("a"))),
            (
                Scope::Tenant,
                [by(Caller::new("a")), by(Caller::new("a"))],
                by(Caller::new("b")),
            ),
            (
                Scope::Ip,
                [by(Caller::new("a")), keyed("k")],
                from("203.0.113.8", "/"),
            ),
            (by_key.clone(), [keyed("k"), keyed("k")], keyed("l")),
            (
                by_key,
                [keyed("\u{e4}"), from("203.0.113.7", "/")],
                keyed("k"),
            ),
            (
                Scope::Ip,
                [
                    from("2001:db8:1:2::1", "/"),
                    from("2001:db8:1:2:ffff::", "/"),
                ],
                from("2001:db8:1:3::1", "/"),
            ),
        ] {
            let config = only(vec![Rule::new("r", at_once(3)).scope(scope.clone())]);
            let (limiter, _hand, _heard) = limiter(&config);
            assert_eq!(passes(&limiter, &same[0]), 3, "{scope:?}");
            assert_eq!(passes(&limiter, &same[1]), 0, "{scope:?}");
            assert_eq!(passes(&limiter, &other), 3, "{scope:?}");
        }
        let config = only(vec![Rule::new("r", at_once(3)).scope(Scope::Global)]);
        let (limiter, _hand, _heard) = limiter(&config);
        assert_eq!(passes(&limiter, &from("203.0.113.7", "/")), 3);
        assert_eq!(passes(&limiter, &by(Caller::new("a"))), 0);
    }

    #[test]
    fn the_resolver_says_who_it_is() {
        let (limiter, _hand, _heard) = limiter(&only(vec![Rule::new("r", at_once(2))]));
        let knowing = limiter.callers(CallerResolver::new(|request| {
            request.uri.query().map(Caller::new)
        }));
        assert_eq!(passes(&knowing, &from("203.0.113.7", "/?a")), 2);
        assert_eq!(passes(&knowing, &from("203.0.113.8", "/?a")), 0);
        assert_eq!(passes(&knowing, &from("203.0.113.7", "/?b")), 2);
        // Both count in the same table.
        assert_eq!(passes(&knowing, &from("203.0.113.7", "/")), 2);
        assert_eq!(passes(&limiter, &from("203.0.113.7", "/")), 0);
    }

    #[test]
    fn a_rule_that_watches_tells_but_never_denies() {
        let config = only(vec![
            Rule::new("new", at_once(1)).shadow(true),
            Rule::new("old", at_once(3)),
        ]);
        let (limiter, _hand, heard) = limiter(&config);
        let request = from("203.0.113.7", "/");
        assert_eq!(passes(&limiter, &request), 3);
        let shadow = |shadow| format!("RateLimitDenied {{ rule: \"new\", shadow: {shadow} }}");
        let heard = heard.0.lock().unwrap();
        // Two of the three; the fourth was denied by the other rule and not looked at.
        assert_eq!(
            heard.iter().filter(|event| **event == shadow(true)).count(),
            2
        );
        assert!(!heard.contains(&shadow(false)));
        drop(heard);
        let (alone, _hand, _heard) =
            self::limiter(&only(vec![Rule::new("new", at_once(1)).shadow(true)]));
        for _ in 0..3 {
            assert!(alone.check(&RequestView::of(&request)).is_none());
        }
    }

    #[test]
    fn requests_without_a_peer_share_a_bucket_and_warn_once() {
        let (limiter, _hand, heard) = limiter(&only(vec![Rule::new("r", at_once(2))]));
        let nobody = Request::get("/").header("x-forwarded-for", "1.2.3.4");
        let nobody = nobody.body(()).unwrap();
        assert_eq!(passes(&limiter, &nobody), 2);
        assert_eq!(
            passes(&limiter, &Request::get("/other").body(()).unwrap()),
            0
        );
        let heard = heard.0.lock().unwrap();
        let count = |text: &str| heard.iter().filter(|event| *event == text).count();
        assert_eq!((count("PeerUnknown"), count("Warning")), (4, 1));
    }

    #[test]
    fn a_proxy_that_nobody_trusts_is_told_of_once() {
        let (limiter, _hand, heard) = limiter(&only(vec![Rule::new("r", at_once(9))]));
        let ask = |peer: &str, fields: bool| {
            let mut request = from(peer, "/");
            if fields {
                let headers = request.headers_mut();
                headers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
            }
            let _ = limiter.check(&RequestView::of(&request));
            let heard = heard.0.lock().unwrap();
            heard.iter().filter(|event| *event == "Warning").count()
        };
        assert_eq!(ask("10.0.0.1", false), 0);
        assert_eq!(ask("203.0.113.7", true), 0);
        assert_eq!(ask("10.0.0.1", true), 1);
        assert_eq!(ask("169.254.1.1", true), 1);
    }

    #[test]
    fn preflights_are_counted_by_option() {
        for preflight in [false, true] {
            let config = RateLimitConfig {
                preflight,
                ..only(vec![Rule::new("r", at_once(2))])
            };
            let (limiter, _hand, _heard) = limiter(&config);
            let mut options = from("203.0.113.7", "/");
            *options.method_mut() = Method::OPTIONS;
            // Plain `OPTIONS` is a request like any other.
            assert!(limiter.check(&RequestView::of(&options)).is_some());
            let headers = options.headers_mut();
            headers.insert("origin", "https://a.test".parse().unwrap());
            headers.insert("access-control-request-method", "PUT".parse().unwrap());
            let counted = limiter.check(&RequestView::of(&options)).is_some();
            assert_eq!(counted, preflight);
        }
    }

    #[test]
    fn keys_without_http_share_the_buckets_of_requests() {
        let config = only(vec![
            Rule::new("callers", at_once(3)),
            Rule::new("addresses", at_once(9)).scope(Scope::Ip),
            Rule::new("all", at_once(20)).scope(Scope::Global),
        ]);
        let (limiter, _hand, _heard) = limiter(&config);
        let allows = |rule: &str, key: &str| limiter.check_key(rule, key).unwrap().is_allow();
        assert_eq!(passes(&limiter, &by(Caller::new("a"))), 3);
        assert!(!allows("callers", "a"));
        assert!(allows("callers", "b"));
        assert_eq!(
            (0..20)
                .filter(|_| allows("addresses", "203.0.113.7"))
                .count(),
            6
        );
        assert!(allows("addresses", "no address"));
        assert_eq!(
            (0..50).filter(|at| allows("all", &at.to_string())).count(),
            17
        );
        assert!(limiter.check_key("none", "a").is_none());
    }

    #[test]
    fn a_limiter_that_is_switched_off_lets_everything_be() {
        let config = RateLimitConfig {
            enabled: false,
            keys_max: 1_000_000,
            ..only(vec![Rule::new("r", at_once(1))])
        };
        let (limiter, _hand, heard) = limiter(&config);
        assert!(
            limiter
                .check(&RequestView::of(&from("203.0.113.7", "/")))
                .is_none()
        );
        assert!(limiter.check_key("r", "a").is_none());
        assert!(!limiter.is_enabled());
        assert!(limiter.table_bytes() < 1000);
        assert!(heard.0.lock().unwrap().is_empty());
    }

    #[test]
    fn faults_of_settings_and_routes_come_together() {
        let config = RateLimitConfig {
            keys_max: 1,
            ..only(vec![Rule::new("r", at_once(1)).route("/a")])
        };
        let known = ["/b".to_owned()];
        let error = RateLimiter::new(&config, &known, Clock::system(), Events::none());
        let error = error.unwrap_err();
        let fields = error.faults().iter().map(|fault| fault.field.as_str());
        assert_eq!(
            fields.collect::<Vec<_>>(),
            ["rate_limit.keys_max", "rate_limit.rules[0].route"]
        );
    }
}
