//! The rate limiter as one would write it down: exact numbers, a map of buckets, no tricks.
//!
//! A bucket is how much of its quota is used at some moment, in microseconds that it takes to grow back; one of
//! a calendar window is how many tokens are used of it. Everything else follows from asking the rules one by one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tower_keep::rate_limit::{Period, Quota};

const SECOND: i128 = 1_000_000;
const DAY: i128 = 86_400 * SECOND;

/// What is used of a bucket at most, in microseconds.
const LONGEST: i128 = 62 * DAY;

/// How many in what time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Rolling {
        requests: u32,
        per: Duration,
        burst: Option<u32>,
    },
    Calendar {
        requests: u32,
        period: Period,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Against {
    Ip,
    Caller,
    Tenant,
    ApiKey,
    Everybody,
    /// Whatever the field `x-name` says.
    Name,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Price {
    One,
    /// Whatever the request says.
    Weight,
    Told,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Counted {
    All,
    Failures,
    Successes,
}

#[derive(Clone, Debug)]
pub struct Ruled {
    pub name: &'static str,
    pub path: Option<&'static str>,
    pub against: Against,
    pub amount: Option<Amount>,
    pub tiers: BTreeMap<&'static str, Amount>,
    pub price: Price,
    pub counted: Counted,
    pub shadow: bool,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    pub path: &'static str,
    /// The client, IPv6 by its first 64 bits.
    pub ip: Option<&'static str>,
    pub caller: Option<Visitor>,
    pub key: Option<&'static str>,
    pub name: Option<&'static str>,
    pub weight: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    pub id: &'static str,
    pub tier: &'static str,
    pub tenant: Option<&'static str>,
}

/// What is said of a request by the rule that speaks for all.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub passes: bool,
    pub rule: String,
    pub limit: u32,
    pub remaining: u32,
    pub retry_after: Duration,
    pub reset_after: Duration,
}

/// Tells one bucket from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    pub rule: usize,
    pub whose: String,
    /// The tier whose quota it is, where people of several share an address or a name.
    tier: Option<&'static str>,
    /// The end of its window, if it has one.
    end: Option<i128>,
}

/// What a request takes from a bucket.
#[derive(Clone, Debug)]
pub struct Charge {
    pub bucket: Bucket,
    pub amount: Amount,
    pub cost: u32,
    /// When what was taken has grown back by itself.
    until: i128,
}

/// What the map holds of a bucket.
#[derive(Clone, Copy, Debug)]
struct Used {
    much: i128,
    at: i128,
}

pub struct Reference {
    pub rules: Vec<Ruled>,
    buckets: HashMap<Bucket, Used>,
    /// Which buckets were cut back to what these can have used, and not looked at since.
    pub cut: Vec<(Bucket, Amount)>,
    /// In microseconds since 2026-01-01T00:00:00Z.
    pub now: i128,
    /// What the rules have told of.
    pub events: Vec<String>,
}

impl Amount {
    pub fn quota(self) -> Quota {
        match self {
            Self::Rolling {
                requests,
                per,
                burst,
            } => {
                let quota = Quota::requests(requests).per(per);
                burst.map_or(quota, |burst| quota.burst(burst))
            }
            Self::Calendar { requests, period } => Quota::requests(requests).each(period),
        }
    }

    const fn requests(self) -> u32 {
        match self {
            Self::Rolling { requests, .. } | Self::Calendar { requests, .. } => requests,
        }
    }

    /// What one token is worth: the time in which it grows back, in whole microseconds, or itself.
    pub fn token(self) -> i128 {
        match self {
            Self::Rolling { requests, per, .. } => {
                let (per, requests) = (per.as_micros() as i128, i128::from(requests));
                (per + requests - 1) / requests
            }
            Self::Calendar { .. } => 1,
        }
    }

    /// What all that may come at once is worth.
    pub fn whole(self) -> i128 {
        let at_once = match self {
            Self::Rolling {
                requests, burst, ..
            } => burst.unwrap_or(requests),
            Self::Calendar { requests, .. } => requests,
        };
        self.token() * i128::from(at_once)
    }

    /// What a request of this cost is worth: never more than all.
    pub fn worth(self, cost: u32) -> i128 {
        (self.token() * i128::from(cost)).min(self.whole())
    }

    /// With debts.
    fn most(self) -> i128 {
        (2 * self.whole()).min(LONGEST)
    }

    /// Requests per microsecond as a fraction, and what may come at once.
    fn size(self) -> ((i128, i128), i128) {
        let per = match self {
            Self::Rolling { per, .. } => per.as_micros() as i128,
            Self::Calendar { period, .. } => match period {
                Period::Hour => DAY / 24,
                Period::Day => DAY,
                _ => 30 * DAY,
            },
        };
        ((i128::from(self.requests()), per), self.whole())
    }

    pub fn end(self, now: i128) -> Option<i128> {
        let Self::Calendar { period, .. } = self else {
            return None;
        };
        Some(match period {
            Period::Hour => (now / (DAY / 24) + 1) * (DAY / 24),
            Period::Day => (now / DAY + 1) * DAY,
            _ => months().find(|end| now < *end).unwrap(),
        })
    }
}

/// The ends of all months from January 2026 on.
fn months() -> impl Iterator<Item = i128> {
    let lengths = (2026..).flat_map(|year| {
        let february = if year % 4 == 0 { 29 } else { 28 };
        [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    });
    lengths.scan(0, |end, days| {
        *end += days * DAY;
        Some(*end)
    })
}

impl Ruled {
    /// The quota of all whose tier has none of its own: the rule's, or the smallest.
    fn base(&self) -> Amount {
        let smaller = |left: Amount, right: Amount| {
            let (((n, per), all), ((m, other), whole)) = (left.size(), right.size());
            let smaller = (m * per, whole) < (n * other, all);
            if smaller { right } else { left }
        };
        let smallest = || self.tiers.values().copied().reduce(smaller);
        self.amount.or_else(smallest).unwrap()
    }

    pub fn goes_by_calendar(&self) -> bool {
        matches!(self.base(), Amount::Calendar { .. })
    }

    fn speaks_of(&self, visit: &Visit) -> bool {
        self.path.is_none_or(|path| path == visit.path)
    }

    fn cost(&self, visit: &Visit) -> u32 {
        match self.price {
            Price::One | Price::Told => 1,
            Price::Weight => visit.weight,
            Price::Bytes => 0,
        }
    }

    /// Whose bucket a request is counted in, and whether that one is the same whatever the tier.
    fn whose(&self, visit: &Visit) -> (String, bool) {
        let caller = visit.caller;
        let known = match self.against {
            Against::Ip => None,
            Against::Caller => caller.map(|caller| (format!("caller {}", caller.id), true)),
            Against::Tenant => caller.map(|caller| match caller.tenant {
                Some(tenant) => (format!("tenant {tenant}"), true),
                None => (format!("caller {}", caller.id), true),
            }),
            Against::ApiKey => visit.key.map(|key| (format!("key {key}"), true)),
            Against::Everybody => Some(("everybody".to_owned(), false)),
            Against::Name => visit.name.map(|name| (format!("name {name}"), false)),
        };
        let address = || {
            visit
                .ip
                .map_or("nobody".to_owned(), |ip| format!("ip {ip}"))
        };
        known.unwrap_or_else(|| (address(), false))
    }
}

impl Reference {
    pub fn new(rules: Vec<Ruled>) -> Self {
        Self {
            rules,
            buckets: HashMap::new(),
            cut: Vec::new(),
            now: 0,
            events: Vec::new(),
        }
    }

    /// What all rules that speak of the visit would take, those that only watch or the others.
    fn charges(&self, visit: &Visit, shadow: bool) -> Vec<Charge> {
        let rules = self.rules.iter().enumerate();
        let speak = rules.filter(|(_, rule)| rule.shadow == shadow && rule.speaks_of(visit));
        let charge = |(at, rule): (usize, &Ruled)| {
            let tier = visit.caller.map_or("anonymous", |caller| caller.tier);
            let own = rule.tiers.get_key_value(tier);
            let amount = own.map_or_else(|| rule.base(), |(_, amount)| *amount);
            let (whose, whatever_the_tier) = rule.whose(visit);
            Charge {
                bucket: Bucket {
                    rule: at,
                    whose,
                    tier: own.map(|(tier, _)| *tier).filter(|_| !whatever_the_tier),
                    end: amount.end(self.now),
                },
                amount,
                cost: rule.cost(visit),
                until: 0,
            }
        };
        speak.map(charge).collect()
    }

    /// What one rule takes of somebody who is named.
    pub fn charge_of(&self, rule: usize, whose: String, cost: u32) -> Charge {
        let amount = self.rules[rule].base();
        Charge {
            bucket: Bucket {
                rule,
                whose,
                tier: None,
                end: amount.end(self.now),
            },
            amount,
            cost,
            until: 0,
        }
    }

    fn used(&self, charge: &Charge) -> i128 {
        let used = self.buckets.get(&charge.bucket).map_or(0, |used| {
            let drained = match charge.bucket.end {
                Some(_) => 0,
                None => self.now - used.at,
            };
            (used.much - drained).max(0)
        });
        used.min(charge.amount.most())
    }

    fn set(&mut self, charge: &Charge, much: i128) {
        let at = self.now;
        self.buckets
            .insert(charge.bucket.clone(), Used { much, at });
    }

    /// How long until a request of this cost fits, in microseconds.
    fn wait(&self, charge: &Charge) -> i128 {
        // What costs nothing passes as well only while there is something left.
        let least = charge.amount.worth(charge.cost).max(1);
        let lacks = (self.used(charge) + least - charge.amount.whole()).max(0);
        match charge.bucket.end {
            Some(end) if lacks > 0 => end - self.now,
            _ => lacks,
        }
    }

    fn say(&self, passes: bool, charge: &Charge) -> Said {
        let (used, amount) = (self.used(charge), charge.amount);
        let micros = |micros: i128| Duration::from_micros(micros.try_into().unwrap());
        let reset = match charge.bucket.end {
            Some(end) if used > 0 => end - self.now,
            _ => used,
        };
        let left = (amount.whole() - used).max(0) / amount.token();
        Said {
            passes,
            rule: self.rules[charge.bucket.rule].name.to_owned(),
            limit: amount.requests(),
            remaining: left.try_into().unwrap(),
            retry_after: micros(self.wait(charge)),
            reset_after: micros(reset),
        }
    }

    /// The charge that lasts longest of those that do not fit; the last of several.
    fn longest<'c>(&self, charges: &'c [Charge]) -> Option<&'c Charge> {
        let denied = charges.iter().filter(|charge| self.wait(charge) > 0);
        denied.max_by_key(|charge| self.wait(charge))
    }

    /// The charge of whose quota the smallest part remains, in whole tokens; the first of several.
    fn nearest<'c>(&self, charges: &'c [Charge]) -> Option<&'c Charge> {
        charges.iter().reduce(|known, other| {
            let left = |charge: &Charge| {
                let left = charge.amount.whole() - self.used(charge);
                left.max(0) / charge.amount.token()
            };
            let all = |charge: &Charge| charge.amount.whole() / charge.amount.token();
            let nearer = left(other) * all(known) < left(known) * all(other);
            if nearer { other } else { known }
        })
    }

    /// How the visit stands with the rules, taking nothing.
    pub fn peek(&self, visit: &Visit) -> Option<Said> {
        let charges = self.charges(visit, false);
        if let Some(charge) = self.longest(&charges) {
            return Some(self.say(false, charge));
        }
        self.nearest(&charges).map(|charge| self.say(true, charge))
    }

    /// Decides about the visit, and counts it if it passes. Returns what was charged as well.
    pub fn visit(&mut self, visit: &Visit) -> (Option<Said>, Vec<Charge>) {
        let (enforced, watching) = (self.charges(visit, false), self.charges(visit, true));
        self.decide(enforced, watching)
    }

    pub fn decide(
        &mut self,
        enforced: Vec<Charge>,
        watching: Vec<Charge>,
    ) -> (Option<Said>, Vec<Charge>) {
        if let Some(charge) = self.longest(&enforced).cloned() {
            for charge in &enforced {
                if self.wait(charge) > 0 {
                    self.set(charge, self.used(charge));
                    self.cut.push((charge.bucket.clone(), charge.amount));
                }
            }
            self.tell_denied(&charge, false);
            return (Some(self.say(false, &charge)), Vec::new());
        }
        let mut charged = Vec::new();
        for charge in enforced {
            charged.push(self.take(charge));
        }
        let spoken = self.nearest(&charged).map(|charge| self.say(true, charge));
        for charge in watching {
            if self.wait(&charge) > 0 {
                self.set(&charge, self.used(&charge));
                self.cut.push((charge.bucket.clone(), charge.amount));
                self.tell_denied(&charge, true);
            } else {
                charged.push(self.take(charge));
            }
        }
        (spoken, charged)
    }

    fn take(&mut self, charge: Charge) -> Charge {
        let used = self.used(&charge) + charge.amount.worth(charge.cost);
        self.set(&charge, used);
        let name = self.rules[charge.bucket.rule].name;
        self.events.push(format!("allowed {name}"));
        let until = self.now + used;
        Charge { until, ..charge }
    }

    fn tell_denied(&mut self, charge: &Charge, shadow: bool) {
        let name = self.rules[charge.bucket.rule].name;
        let watched = if shadow { "would be " } else { "" };
        self.events.push(format!("{watched}denied {name}"));
    }

    /// Whether the charge's window is still open.
    fn is_open(&self, charge: &Charge) -> bool {
        charge.bucket.end.is_none_or(|end| self.now < end)
    }

    pub fn give_back(&mut self, charge: &Charge, tokens: u32) {
        if self.is_open(charge) && tokens > 0 {
            // No more than has not grown back by itself.
            let lasts = match charge.bucket.end {
                Some(_) => i128::MAX,
                None => (charge.until - self.now).max(0),
            };
            let left = self.used(charge) - charge.amount.worth(tokens).min(lasts);
            self.set(charge, left.max(0));
        }
    }

    pub fn debit(&mut self, charge: &Charge, tokens: u32) {
        if self.is_open(charge) && tokens > 0 {
            let used = self.used(charge) + charge.amount.token() * i128::from(tokens);
            self.set(charge, used.min(charge.amount.most()));
        }
    }

    /// Settles what was charged by the head of an answer. What its body costs is left.
    pub fn settle(&mut self, charged: Vec<Charge>, failed: bool, told: Option<u32>) -> Vec<Charge> {
        let mut metered = Vec::new();
        for charge in charged {
            let rule = &self.rules[charge.bucket.rule];
            let counts = match rule.counted {
                Counted::All => true,
                Counted::Failures => failed,
                Counted::Successes => !failed,
            };
            match (rule.price, told) {
                _ if !counts => self.give_back(&charge, charge.cost),
                (Price::Told, Some(0)) => self.give_back(&charge, 1),
                (Price::Told, Some(all)) => self.debit(&charge, all - 1),
                (Price::Bytes, _) => metered.push(charge),
                _ => {}
            }
        }
        metered
    }
}
