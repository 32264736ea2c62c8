//! The limiter: what applications hold.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::identity::{ApiKeyResolver, CallerResolver, RequestView};
use crate::rate_limit::calendar::Calendar;
use crate::rate_limit::check::Check;
use crate::rate_limit::config::RateLimitConfig;
use crate::rate_limit::decision::Decision;
use crate::rate_limit::engine::{Asked, Begun, Engine, Fixed};
use crate::rate_limit::in_force::{InForce, Reading};
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::one::RuleLimiter;
use crate::rate_limit::owner::client_text;
use crate::rate_limit::penalty::PenaltyBox;
use crate::rate_limit::rules::Rules;
use crate::rate_limit::subject::{Origin, Resolvers};
use crate::rate_limit::table::Table;
use crate::rate_limit::ticks::ticks;
use crate::rate_limit::top::{TopEntry, TopList};
use crate::rate_limit::writer::RefusalWriter;

/// Decides whether requests may pass. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct RateLimiter {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    resolvers: Resolvers,
    writer: RefusalWriter,
    engine: Arc<Engine>,
}

/// How these settings are called in faults.
const ROOM: &str = "rate_limit";

/// A table that is never used needs no room.
const KEYS_DISABLED: usize = 16;

impl RateLimiter {
    /// A limiter by these settings, which counts in memory. Where the service's path templates are known,
    /// rules may speak of no others; pass none if they are not.
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
        check(config, known_routes)?;
        let ledger = Arc::new(books(config, clock, events));
        Self::with(config, known_routes, ledger)
    }

    /// A limiter on these books, by settings that were checked.
    pub(crate) fn with(
        config: &RateLimitConfig,
        known_routes: &[String],
        ledger: Arc<Ledger>,
    ) -> Result<Self, ConfigError> {
        let engine = Engine {
            enabled: config.enabled,
            is_alone: config.enabled && !ledger.is_shared() && ledger.penalties.is_none(),
            rules: InForce::new(Rules::new(config, ROOM, None)?),
            origin: Origin {
                // The faults were found when the configuration was checked.
                proxies: config.proxies(ROOM, &mut Faults::new()),
                ipv6_prefix: config.ipv6_prefix,
            },
            fixed: Fixed::of(config),
            known_routes: known_routes.to_vec(),
            ledger,
            told_peer: AtomicBool::new(false),
            told_proxy: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                resolvers: Resolvers::default(),
                writer: RefusalWriter::default(),
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

    /// The same limiter, whose layer writes refusals by `writer`. Counts together with this one.
    #[must_use]
    pub fn refusals(&self, writer: RefusalWriter) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.writer = writer;
        Self {
            inner: Arc::new(inner),
        }
    }

    fn asking(&self, resolvers: Resolvers) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.resolvers = resolvers;
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Decides about a request and counts it if it may pass; `None` if no enforced rule speaks of
    /// it, it is on the list of those who are never limited, the limiter is switched off, or it is a CORS
    /// preflight and those are not counted.
    ///
    /// Counted is when this is called; what is returned is ready at once where memory has the answer, and
    /// else waits for Redis: for one round trip of at most `redis.command_timeout`, or for two where one about
    /// the same buckets was under way already (in a cluster, where the buckets have several owners, for four). Dropping it takes nothing
    /// back. In memory it takes no lock that is held for long, and allocates only if more than four rules
    /// speak of the request, or the closures that name callers do.
    ///
    /// What a rule counts by the answer is left to the layer: here such a request stays counted as it came.
    pub fn check(&self, request: &RequestView<'_>) -> Check {
        Check::new(self.begin(request, true))
    }

    /// The rule called `name`, to count with it what is not a request; `None` if there is no such rule.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<RuleLimiter> {
        RuleLimiter::new(&self.inner.engine, name)
    }

    /// How a request would stand with the rules, without counting anything: by what this instance knows, which
    /// in a fleet is what Redis has last told it. Lists and bans are not looked at.
    #[must_use]
    pub fn peek(&self, request: &RequestView<'_>) -> Option<Decision> {
        self.inner.engine.peek(request, &self.inner.resolvers)
    }

    /// Replaces the rules, the lists and what answers say, while requests come. Buckets are kept: of a rule
    /// whose quota has changed the same part stays used up, so that nobody gets a fresh burst.
    ///
    /// # Errors
    ///
    /// All faults of the settings, and those that cannot be changed while the limiter runs: `enabled`,
    /// `keys_max`, `deny_when_full`, the proxies, `ipv6_prefix`, `instances`, `penalty`. Then all stays as it was.
    pub fn reconfigure(&self, config: &RateLimitConfig) -> Result<(), ConfigError> {
        let engine = &self.inner.engine;
        check(config, &engine.known_routes)?;
        engine.check_unchanged(config, ROOM)?;
        engine.rules.replace(|before| {
            let now = engine.ledger.now();
            Rules::new(config, ROOM, Some((before, now)))
        })
    }

    /// Those who press hardest against their limits, at most 64: the most refused first. Counts are of the
    /// last minutes, and of this instance.
    #[must_use]
    pub fn top(&self, count: usize) -> Vec<TopEntry> {
        let ledger = &self.inner.engine.ledger;
        ledger.top.first(count, ledger.now())
    }

    /// Bans somebody for so long, at most 62 days: here at once, and on all instances as soon as they hear of
    /// it. A ban that lasts longer stays. `who` is a caller or an address, as [`TopEntry::who`] writes it or as
    /// people do: `caller:alice`, `203.0.113.7`, `ip:2001:db8::/64`.
    ///
    /// Returns whether it is banned now: not if `who` is neither, nor where penalties are not configured.
    #[must_use = "nobody is banned where penalties are not configured"]
    pub fn ban(&self, who: &str, lasts: Duration) -> bool {
        let engine = &self.inner.engine;
        let who = client_text(who, engine.origin.ipv6_prefix);
        who.is_some_and(|who| engine.ledger.ban(&who, lasts))
    }

    /// Ends a ban, here at once and elsewhere as soon as it is heard of, and forgets its strikes and those of
    /// former bans. Returns whether this instance knew of a ban.
    #[expect(
        clippy::must_use_candidate,
        reason = "a pardon is asked for its effect"
    )]
    pub fn unban(&self, who: &str) -> bool {
        let engine = &self.inner.engine;
        let who = client_text(who, engine.origin.ipv6_prefix);
        who.is_some_and(|who| engine.ledger.pardon(&who))
    }

    /// How long somebody is still banned, as far as this instance knows; `who` as in [`ban`](Self::ban). Nothing
    /// where nobody is banned.
    #[must_use]
    pub fn banned(&self, who: &str) -> Option<Duration> {
        let engine = &self.inner.engine;
        let who = client_text(who, engine.origin.ipv6_prefix)?;
        let ledger = &engine.ledger;
        ledger.banned(|| Some(ledger.client(&who)), ledger.now())
    }

    /// Whether requests are limited at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.inner.engine.enabled
    }

    /// Bytes that the buckets take up, with those of penalties if they are configured: fixed when the limiter
    /// was built.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        let ledger = &self.inner.engine.ledger;
        let penalties = ledger
            .penalties
            .as_ref()
            .map_or(0, |penalties| penalties.bytes());
        ledger.table.bytes() + penalties
    }

    /// How many buckets in use had to make room for others since the limiter was built. If this
    /// grows in quiet times, `keys_max` is too small.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.inner.engine.ledger.table.evicted()
    }

    /// Decides as far as that can be done without waiting; `is_told` says whether somebody wants to know how a
    /// caller stands that may pass.
    pub(crate) fn begin(&self, request: &RequestView<'_>, is_told: bool) -> Begun {
        let resolvers = &self.inner.resolvers;
        self.inner.engine.begin(&Asked {
            request,
            resolvers,
            is_told,
        })
    }

    pub(crate) fn writer(&self) -> &RefusalWriter {
        &self.inner.writer
    }

    pub(crate) fn rules(&self) -> Reading<'_> {
        self.inner.engine.rules.load()
    }
}

/// All faults of the settings.
pub(crate) fn check(config: &RateLimitConfig, known_routes: &[String]) -> Result<(), ConfigError> {
    let mut faults = Faults::new();
    config.check(ROOM, &mut faults);
    config.check_routes(ROOM, known_routes, &mut faults);
    faults.into_result()
}

/// Empty books, kept by this instance alone.
pub(crate) fn books(config: &RateLimitConfig, clock: Clock, events: Events) -> Ledger {
    let keys_max = if config.enabled {
        config.keys_max
    } else {
        KEYS_DISABLED
    };
    let now = ticks(&clock);
    let penalties = config.penalty.as_ref().filter(|_| config.enabled);
    Ledger {
        table: Arc::new(Table::new(keys_max, !config.deny_when_full, now)),
        calendar: Calendar::new(),
        penalties: penalties
            .map(|penalty| Arc::new(PenaltyBox::new(penalty.terms(), keys_max, now))),
        top: TopList::default(),
        clock,
        events,
        #[cfg(feature = "redis")]
        shared: None,
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimiter")
            .field(&self.inner.engine)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::future::Future;
    use std::net::{IpAddr, SocketAddr};
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use http::{Method, Request};

    use super::*;
    use crate::clock::ManualClock;
    use crate::event::{Event, Recorder};
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

    /// What memory has the answer to.
    fn now(check: impl Future<Output = Option<Decision>>) -> Option<Decision> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(check).poll(&mut context) {
            Poll::Ready(decision) => decision,
            Poll::Pending => panic!("waits"),
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
            .take_while(|_| now(limiter.check(&view)).is_some_and(|d| d.is_allow()))
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
        let denied = now(limiter.check(&RequestView::of(&login))).unwrap();
        let standing = denied.standing().unwrap();
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
            assert!(now(alone.check(&RequestView::of(&request))).is_none());
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
            let _ = now(limiter.check(&RequestView::of(&request)));
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
            assert!(now(limiter.check(&RequestView::of(&options))).is_some());
            let headers = options.headers_mut();
            headers.insert("origin", "https://a.test".parse().unwrap());
            headers.insert("access-control-request-method", "PUT".parse().unwrap());
            let counted = now(limiter.check(&RequestView::of(&options))).is_some();
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
        let allows = |rule: &str, key: &str| {
            let limiter = limiter.rule(rule).unwrap();
            let mut check = limiter.check_key(key, 1);
            let known = check.is_allow().unwrap();
            // Whoever asks twice is told twice.
            assert_eq!(now(&mut check).unwrap().is_allow(), known);
            assert_eq!(now(&mut check).unwrap().is_allow(), known);
            assert_eq!(check.is_allow(), Some(known));
            known
        };
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
        assert!(limiter.rule("none").is_none());
    }

    #[test]
    fn a_limiter_that_is_switched_off_lets_everything_be() {
        let config = RateLimitConfig {
            enabled: false,
            keys_max: 1_000_000,
            ..only(vec![Rule::new("r", at_once(1))])
        };
        let (limiter, _hand, heard) = limiter(&config);
        assert!(now(limiter.check(&RequestView::of(&from("203.0.113.7", "/")))).is_none());
        assert!(now(limiter.rule("r").unwrap().check_key("a", 1)).is_none());
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
