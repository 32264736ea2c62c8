//! A request's way through the limiter: who is it, which rules speak of it, is there anything left.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, header};

use crate::error::{ConfigError, Faults};
use crate::event::Event;
use crate::identity::{ProxyHeader, RequestView};
use crate::rate_limit::charges::{Charge, Charges};
use crate::rate_limit::compiled::CompiledRule;
use crate::rate_limit::config::RateLimitConfig;
use crate::rate_limit::decision::Decision;
use crate::rate_limit::gcra::Verdict;
use crate::rate_limit::here::{self, Outcome};
use crate::rate_limit::in_force::InForce;
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::lists::Listed;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::rules::{RuleInForce, Rules};
use crate::rate_limit::settle::Settlement;
use crate::rate_limit::subject::{Origin, Resolvers, Subject};
#[cfg(feature = "redis")]
use crate::rate_limit::together::{self, Asking, Together};
use crate::rate_limit::who::{Sender, Somebody, Who};

/// What all clones of a limiter share, with whatever resolvers.
pub(crate) struct Engine {
    pub(crate) enabled: bool,
    pub(crate) rules: InForce,
    pub(crate) origin: Origin,
    pub(crate) fixed: Fixed,
    /// The service's path templates; none if they are not known.
    pub(crate) known_routes: Vec<String>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) told_peer: AtomicBool,
    pub(crate) told_proxy: AtomicBool,
}

/// The settings that cannot be changed while a limiter runs, as they would be written.
pub(crate) struct Fixed([(&'static str, String); 9]);

impl Fixed {
    pub(crate) fn of(config: &RateLimitConfig) -> Self {
        Self([
            ("enabled", config.enabled.to_string()),
            ("keys_max", config.keys_max.to_string()),
            ("deny_when_full", config.deny_when_full.to_string()),
            ("trusted_proxies", format!("{:?}", config.trusted_proxies)),
            ("trusted_hops", format!("{:?}", config.trusted_hops)),
            ("proxy_header", format!("{:?}", config.proxy_header)),
            ("ipv6_prefix", config.ipv6_prefix.to_string()),
            ("instances", format!("{:?}", config.instances)),
            ("penalty", format!("{:?}", config.penalty)),
        ])
    }
}

/// What became of a request so far.
pub(crate) enum Begun {
    /// Decided, or no rule speaks of it.
    Done(Option<Decision>, Option<Box<Settlement>>),
    /// Redis is asked.
    #[cfg(feature = "redis")]
    Asking(Box<Asking>),
}

const TOLD_PEER: &str = "requests carry no peer address, so that they share one rate limit: serve \
    with `into_make_service_with_connect_info::<SocketAddr>()` (and the feature `axum`), or put \
    `PeerAddr` into their extensions";

const TOLD_PROXY: &str = "requests come from a private address and name another client, but no proxy \
    is trusted, so that all clients behind it share one rate limit: set `trusted_proxies` or \
    `trusted_hops`";

impl Engine {
    /// Decides about a request as far as that can be done without waiting.
    pub(crate) fn begin(&self, request: &RequestView<'_>, resolvers: &Resolvers) -> Begun {
        if !self.enabled {
            return Begun::Done(None, None);
        }
        let rules = self.rules.load();
        let subject = Subject::of(*request, resolvers, &self.origin);
        let now = self.ledger.now();
        let who = Sender {
            subject: &subject,
            ipv6_prefix: self.origin.ipv6_prefix,
        };
        match rules.lists.judge(&subject) {
            Listed::Neither => {}
            Listed::Allowed => return Begun::Done(None, None),
            Listed::Denied => {
                self.ledger.tell_shut_out("deny_listed");
                return Begun::Done(Some(Decision::DenyListed), None);
            }
        }
        let client = || who.hash(self.ledger.table.hasher());
        if let Some(retry_after) = self.ledger.banned(client, now) {
            return self.shut_out(&who, retry_after, now);
        }
        // Only from rules: who is not let in is not let in by looking like a browser.
        if !rules.preflight && is_preflight(request) {
            return Begun::Done(None, None);
        }
        let charges = self.charges(&rules, &subject, request, now);
        self.warn(request, &subject);
        match charges.only().filter(|charge| self.is_plain(charge.rule)) {
            Some(only) => Begun::Done(Some(self.count(only, &who, now)), None),
            None => self.decide(&charges, &who, now),
        }
    }

    /// Whether a look at one bucket is all there is to a decision with this rule as it was when the limiter was
    /// built.
    pub(crate) fn is_direct(&self, rule: &CompiledRule) -> bool {
        let bans = self.ledger.penalties.is_some();
        self.enabled && !bans && self.is_plain(rule) && rule.base.terms.period.is_none()
    }

    /// Counts a request of `owner` with a rule that [is direct](Self::is_direct).
    #[inline]
    pub(crate) fn count_direct(
        &self,
        rule: &Arc<CompiledRule>,
        owner: &Owner<'_>,
        cost: u32,
    ) -> Verdict {
        let (ledger, plan, now) = (&*self.ledger, &rule.base, self.ledger.now());
        let (key, limit) = (
            owner.key(rule, plan, ledger.table.hasher()),
            plan.terms.limit,
        );
        let verdict = ledger.table.charge(key, now, limit, cost);
        match verdict {
            Verdict::Allow { ahead } if !limit.is_near(ahead) => {
                let rule = &*rule.name;
                ledger.events.emit(Event::RateLimitAllowed { rule });
            }
            // Whoever is out of the ordinary is described, which all others need not wait for.
            _ => {
                let bucket = &plan.bucket;
                let charge = Charge {
                    key,
                    rule,
                    plan,
                    limit,
                    cost,
                    bucket,
                };
                self.tell_direct(&charge, verdict, owner, now);
            }
        }
        verdict
    }

    #[cold]
    fn tell_direct(&self, charge: &Charge<'_>, verdict: Verdict, owner: &Owner<'_>, now: u64) {
        let who = Somebody {
            owner: owner.clone(),
            ipv6_prefix: self.origin.ipv6_prefix,
        };
        self.tell(charge, verdict, &who, now);
    }

    /// Decides about a request of `owner` with one rule.
    pub(crate) fn begin_one(&self, known: &RuleInForce, owner: Owner<'_>, cost: u32) -> Begun {
        if !self.enabled {
            return Begun::Done(None, None);
        }
        let now = self.ledger.now();
        let charge = self.charge(known, (&owner, None), cost, now);
        let who = Somebody {
            owner,
            ipv6_prefix: self.origin.ipv6_prefix,
        };
        let client = || who.client().map(|client| self.ledger.client(&client));
        if let Some(retry_after) = self.ledger.banned(client, now) {
            return self.shut_out(&who, retry_after, now);
        }
        let mut charges = Charges::default();
        charges.push(charge);
        self.decide(&charges, &who, now)
    }

    #[cfg_attr(
        not(feature = "redis"),
        expect(unused_variables, reason = "nobody else could have lifted the ban")
    )]
    fn shut_out(&self, who: &impl Who, retry_after: Duration, now: u64) -> Begun {
        self.ledger.tell_shut_out("banned");
        #[cfg(feature = "redis")]
        self.ledger.doubt(who, retry_after, now);
        Begun::Done(Some(Decision::Banned { retry_after }), None)
    }

    /// Notes which settings would have to be others than those that the limiter was built with.
    pub(crate) fn check_unchanged(
        &self,
        config: &RateLimitConfig,
        room: &str,
    ) -> Result<(), ConfigError> {
        let mut faults = Faults::new();
        let fixed = Fixed::of(config);
        for ((name, new), (_, old)) in fixed.0.iter().zip(&self.fixed.0) {
            if new != old {
                let allowed = format!("cannot be changed while the limiter runs: is {old}");
                faults.add(format!("{room}.{name}"), new, allowed);
            }
        }
        faults.into_result()
    }

    /// How a request stands with the rules that speak of it, nearest to its end first; charges nothing.
    pub(crate) fn peek(
        &self,
        request: &RequestView<'_>,
        resolvers: &Resolvers,
    ) -> Option<Decision> {
        let rules = self.rules.load();
        let subject = Subject::of(*request, resolvers, &self.origin);
        let now = self.ledger.now();
        if !self.enabled || (!rules.preflight && is_preflight(request)) {
            return None;
        }
        let charges = self.charges(&rules, &subject, request, now);
        here::look(&self.ledger, charges.enforced(), now)
    }

    /// Whether a rule is decided about here and now, and has nothing to do once the answer is there.
    #[inline]
    fn is_plain(&self, rule: &CompiledRule) -> bool {
        !self.ledger.is_shared() && !rule.shadow && !rule.settles
    }

    /// Counts a request with a single plain rule: what [`decide`](Self::decide) would do, without asking one by
    /// one about all that there is not.
    fn count(&self, charge: &Charge<'_>, who: &impl Who, now: u64) -> Decision {
        let (table, limit) = (&self.ledger.table, charge.limit);
        let verdict = table.charge(charge.key, now, limit, charge.cost);
        self.tell(charge, verdict, who, now);
        Decision::of(verdict, charge.terms(), limit, charge.cost)
    }

    /// Tells what became of a request with a single rule.
    fn tell(&self, charge: &Charge<'_>, verdict: Verdict, who: &impl Who, now: u64) {
        match verdict {
            Verdict::Allow { ahead } => {
                self.ledger.tell_allowed([charge].into_iter());
                if charge.limit.is_near(ahead) {
                    self.ledger.note(charge, who, false, now);
                }
            }
            Verdict::Deny { .. } => self.ledger.tell_denied(charge, who, now),
        }
    }

    fn decide(&self, charges: &Charges<'_>, who: &impl Who, now: u64) -> Begun {
        #[cfg(feature = "redis")]
        if let Some(shared) = &self.ledger.shared {
            // First, because one who sees that Redis is back sees that debts are being told.
            let up = shared.outage.is_up();
            if shared.outage.is_settling(now)
                && let Some(denied) = together::held_back(shared, &self.ledger, charges, who, now)
            {
                return self.done(charges, denied, now);
            }
            let decided = if up {
                together::decide(shared, &self.ledger, charges, who, now)
            } else {
                let all = charges.enforced();
                Together::Now(together::decide_alone(shared, &self.ledger, all, who, now))
            };
            return match decided {
                Together::Now(outcome) => self.done(charges, outcome, now),
                Together::Later(asking) => Begun::Asking(asking),
            };
        }
        let outcome = here::decide(&self.ledger, charges.enforced(), who, now);
        self.done(charges, outcome, now)
    }

    fn done(&self, charges: &Charges<'_>, mut outcome: Outcome, now: u64) -> Begun {
        if outcome.passes() {
            here::watch(&self.ledger, charges.watching(), &mut outcome.items, now);
        }
        let (decision, settlement) = outcome.finish(&self.ledger);
        Begun::Done(decision, settlement)
    }

    /// The charges of a request with all rules that speak of it.
    fn charges<'r>(
        &self,
        rules: &'r Rules,
        subject: &Subject<'_>,
        request: &RequestView<'_>,
        now: u64,
    ) -> Charges<'r> {
        let matched = request.matched_template();
        let mut charges = Charges::default();
        for known in &rules.all {
            let rule = &known.rule;
            if rule.speaks_of(request, matched) {
                let tier = rule.has_tiers().then(|| subject.tier());
                let owner = subject.owner(&rule.scope);
                let cost = rule.cost.before(request);
                charges.push(self.charge(known, (&owner, tier), cost, now));
            }
        }
        charges
    }

    #[inline]
    pub(crate) fn charge<'r>(
        &self,
        known: &'r RuleInForce,
        (owner, tier): (&Owner<'_>, Option<&str>),
        cost: u32,
        now: u64,
    ) -> Charge<'r> {
        let (rule, table) = (&known.rule, &self.ledger.table);
        let plan = rule.plan(tier);
        let key = owner.key(rule, plan, table.hasher()) ^ known.generation;
        let (key, limit) = self.ledger.current(key, &plan.terms, now);
        for former in known.former.iter().filter(|former| now < former.until) {
            let old = former.plan(tier);
            let of_old = owner.key(&former.rule, old, table.hasher()) ^ former.generation;
            let (of_old, old_limit) = self.ledger.current(of_old, &old.terms, now);
            let ahead = table.take(of_old, now);
            if ahead > 0 {
                table.raise(key, now, limit.carry(old_limit, ahead));
            }
        }
        Charge {
            key,
            rule,
            plan,
            limit,
            cost,
            bucket: owner.bucket(rule, plan),
        }
    }

    /// Tells what makes clients indistinguishable.
    fn warn(&self, request: &RequestView<'_>, subject: &Subject<'_>) {
        if subject.lacks_peer() {
            self.ledger.events.emit(Event::PeerUnknown);
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
            self.ledger.events.emit(Event::Warning { text });
        }
    }
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

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules.load();
        let rules = rules.all.iter().map(|known| &*known.rule.name);
        f.debug_struct("Engine")
            .field("enabled", &self.enabled)
            .field("rules", &rules.collect::<Vec<_>>())
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}
