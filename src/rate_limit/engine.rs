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
use crate::rate_limit::config::RateLimitConfig;
use crate::rate_limit::decision::Decision;
use crate::rate_limit::direct::{self, Bucket};
use crate::rate_limit::here::{self, Outcome};
use crate::rate_limit::in_force::InForce;
use crate::rate_limit::ledger::Ledger;
use crate::rate_limit::lists::Listed;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::rules::{RuleInForce, Rules};
use crate::rate_limit::scope::Scope;
use crate::rate_limit::settle::Settlement;
use crate::rate_limit::subject::{Origin, Resolvers, Subject};
#[cfg(feature = "redis")]
use crate::rate_limit::together::{self, Asking, Together};
use crate::rate_limit::who::{Sender, Somebody, Who};

/// What all clones of a limiter share, with whatever resolvers.
pub(crate) struct Engine {
    pub(crate) enabled: bool,
    /// Whether nobody else counts along, and nobody is banned.
    pub(crate) is_alone: bool,
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

/// A request that is to be decided about.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a RequestView<'a>,
    pub(crate) resolvers: &'a Resolvers,
    /// Whether somebody is told how the caller stands if it may pass. Where nobody is, a decision may be left
    /// out: keeping hold of what it says costs more than the rest of it.
    pub(crate) is_told: bool,
}

/// What became of a request so far.
pub(crate) enum Begun {
    /// Decided. Nothing is said where no rule speaks of it, or nobody wants to know why it may pass.
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
    pub(crate) fn begin(&self, asked: &Asked<'_>) -> Begun {
        if !self.enabled {
            return Begun::Done(None, None);
        }
        let rules = self.rules.load();
        match self.begin_directly(&rules, asked) {
            Some(begun) => begun,
            None => self.begin_at_large(&rules, asked),
        }
    }

    fn begin_at_large(&self, rules: &Rules, asked: &Asked<'_>) -> Begun {
        let request = asked.request;
        let subject = Subject::of(*request, asked.resolvers, &self.origin);
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
        let charges = self.charges(rules, &subject, request, now);
        if let Some(address) = subject.asked_address() {
            self.warn(request, address.map(|address| address.peer));
        }
        self.decide(&charges, &who, now)
    }

    /// Decides by a look at one bucket, if there is no more to it: no lists, no bans, nobody else who counts, and
    /// one rule that speaks of the request and counts by caller or address. So it is for most requests of most
    /// services without Redis. Else `None`, and nothing was counted.
    fn begin_directly(&self, rules: &Rules, asked: &Asked<'_>) -> Option<Begun> {
        if !self.is_alone || !rules.lists.are_empty() {
            return None;
        }
        let request = asked.request;
        let mut speaking = rules.speaking_of(request);
        let known = speaking.next().filter(|known| known.is_direct())?;
        let (rule, plan) = (&known.rule, &known.rule.base);
        if rule.has_tiers() || speaking.next().is_some() {
            return None;
        }
        if !rules.preflight && is_preflight(request) {
            return Some(Begun::Done(None, None));
        }
        let caller = match rule.scope {
            Scope::Caller => asked.resolvers.callers.caller(request),
            Scope::Ip => None,
            _ => return None,
        };
        let owner = match &caller {
            Some(caller) => Owner::Caller(&caller.id),
            None => self.owner_by_address(request),
        };
        let (ledger, now) = (&*self.ledger, self.ledger.now());
        let key = owner.key(rule, plan, ledger.table.hasher()) ^ known.generation;
        let (key, limit) = ledger.current(key, &plan.terms, now);
        let cost = rule.cost.before(request);
        let bucket = Bucket {
            rule,
            plan,
            key,
            limit,
            cost,
        };
        let verdict = direct::count(ledger, bucket, (&owner, self.origin.ipv6_prefix), now);
        if verdict.is_allow() && !asked.is_told {
            return Some(Begun::Done(None, None));
        }
        let decision = Decision::of(verdict, &plan.terms, limit, cost);
        Some(Begun::Done(Some(decision), None))
    }

    fn owner_by_address(&self, request: &RequestView<'_>) -> Owner<'static> {
        let address = self.origin.address(request);
        self.warn(request, address.map(|address| address.peer));
        address.map_or(Owner::Unknown, |address| Owner::Ip(address.client))
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
        self.ledger.doubt(who, now);
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
        let mut charges = Charges::default();
        for known in rules.speaking_of(request) {
            let rule = &known.rule;
            let tier = rule.has_tiers().then(|| subject.tier());
            let owner = subject.owner(&rule.scope);
            let cost = rule.cost.before(request);
            charges.push(self.charge(known, (&owner, tier), cost, now));
        }
        charges
    }

    fn charge<'r>(
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
            table.hand_over(of_old, key, now, |ahead| limit.carry(old_limit, ahead));
            #[cfg(feature = "redis")]
            if let Some(shared) = &self.ledger.shared {
                let (old, new) = ((of_old, old_limit), (key, limit));
                shared.outage.carry(table, old, new, now);
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

    /// Tells what makes clients indistinguishable, of a request that was counted by its peer's address.
    fn warn(&self, request: &RequestView<'_>, peer: Option<IpAddr>) {
        let Some(peer) = peer else {
            self.ledger.events.emit(Event::PeerUnknown);
            self.warn_once(&self.told_peer, TOLD_PEER);
            return;
        };
        if is_private(peer)
            && self.origin.proxies.trusts_nobody()
            && !self.told_proxy.load(Ordering::Relaxed)
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
