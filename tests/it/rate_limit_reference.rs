//! The rate limiter as one would write it down: exact numbers, a map of buckets, no tricks.
//!
//! A bucket is how much of its quota is used at some moment, in microseconds that it takes to grow back; one of
//! a calendar window is how many tokens are used of it. Everything else follows from asking the rules one by one.

mod amount;
mod ruled;

use std::collections::HashMap;
use std::time::Duration;

pub use amount::Amount;
pub use ruled::{Against, Counted, Price, Ruled, Visit, Visitor};

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

/// What became of charges when the head of the answer was there.
#[derive(Debug, Default)]
pub struct Settled {
    pub given_back: Vec<Charge>,
    /// Those that the body will be charged to.
    pub metered: Vec<Charge>,
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
    /// In microseconds since 2026-01-01T00:00:00Z.
    pub now: i128,
    /// What the rules have told of.
    pub events: Vec<String>,
}

impl Reference {
    pub fn new(rules: Vec<Ruled>) -> Self {
        Self {
            rules,
            buckets: HashMap::new(),
            now: 0,
            events: Vec::new(),
        }
    }

    /// What all rules that speak of the visit would take: those that are enforced, and those that only watch.
    pub fn charges(&self, visit: &Visit) -> (Vec<Charge>, Vec<Charge>) {
        let rules = self.rules.iter().enumerate();
        let speak = rules.filter(|(_, rule)| rule.speaks_of(visit));
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
        let charges = speak.map(charge);
        charges.partition(|charge| !self.rules[charge.bucket.rule].shadow)
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
        let (charges, _) = self.charges(visit);
        if let Some(charge) = self.longest(&charges) {
            return Some(self.say(false, charge));
        }
        self.nearest(&charges).map(|charge| self.say(true, charge))
    }

    /// Decides about a request, and counts it if it passes. Returns what was charged as well.
    pub fn decide(
        &mut self,
        enforced: Vec<Charge>,
        watching: Vec<Charge>,
    ) -> (Option<Said>, Vec<Charge>) {
        if let Some(charge) = self.longest(&enforced).cloned() {
            for charge in &enforced {
                if self.wait(charge) > 0 {
                    self.set(charge, self.used(charge));
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

    fn give_back(&mut self, charge: &Charge) {
        if self.is_open(charge) && charge.cost > 0 {
            // No more than has not grown back by itself.
            let lasts = match charge.bucket.end {
                Some(_) => i128::MAX,
                None => (charge.until - self.now).max(0),
            };
            let left = self.used(charge) - charge.amount.worth(charge.cost).min(lasts);
            self.set(charge, left.max(0));
        }
    }

    pub fn debit(&mut self, charge: &Charge, tokens: u32) {
        if self.is_open(charge) && tokens > 0 {
            let used = self.used(charge) + charge.amount.token() * i128::from(tokens);
            self.set(charge, used.min(charge.amount.most()));
        }
    }

    /// Settles what was charged by the head of an answer.
    pub fn settle(&mut self, charged: Vec<Charge>, failed: bool, told: Option<u32>) -> Settled {
        let mut settled = Settled::default();
        for charge in charged {
            let rule = &self.rules[charge.bucket.rule];
            let counts = match rule.counted {
                Counted::All => true,
                Counted::Failures => failed,
                Counted::Successes => !failed,
            };
            match (rule.price, told) {
                _ if !counts => settled.given_back.push(charge),
                (Price::Told, Some(0)) => settled.given_back.push(charge),
                (Price::Told, Some(all)) => self.debit(&charge, all - 1),
                (Price::Bytes, _) => settled.metered.push(charge),
                _ => {}
            }
        }
        for charge in &settled.given_back {
            self.give_back(charge);
        }
        settled
    }
}
