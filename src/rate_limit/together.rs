//! Decisions that a fleet makes together through Redis.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::rate_limit::bought::Bought;
use crate::rate_limit::charges::{Charge, Charges, FEW, is_nearer, nearest, take_all};
use crate::rate_limit::decision::Decision;
use crate::rate_limit::here::{self, Outcome};
use crate::rate_limit::ledger::{Ledger, SharedLedger};
use crate::rate_limit::mode::Mode;
use crate::rate_limit::question::{Landing, Route};
use crate::rate_limit::who::{Spared, Who};

/// What a fleet has decided, or a question under way.
pub(crate) enum Together {
    Now(Outcome),
    Later(Box<Asking>),
}

/// Decides about a request as far as is known here, and asks Redis for the rest.
pub(crate) fn decide(
    shared: &SharedLedger,
    ledger: &Arc<Ledger>,
    charges: &Charges<'_>,
    who: &impl Who,
    now: u64,
) -> Together {
    let (mut held, mut asked) = (Held::default(), Charges::default());
    let mut denied: Option<(&Charge<'_>, u64)> = None;
    let client = || ledger.penalties.as_ref().and_then(|_| who.client());
    for charge in charges.enforced() {
        let ahead = ledger.table.ahead(charge.key, now);
        let stop = || (Bought::new(charge, who, ledger).stop, client());
        let leased = charge.rule.mode == Mode::Leased;
        if leased && let Some(taken) = shared.fleet.take_held(charge.key, now, charge.cost, stop) {
            held.push(charge, ahead, taken);
            continue;
        }
        let wait = charge.limit.wait(ahead, charge.cost);
        // What others are given back is heard of only by asking.
        if wait == 0 || charge.rule.gives_back() {
            asked.push(*charge);
            continue;
        }
        // Or what a longer quota took before would be denied here for as long as that would have lasted.
        ledger.table.cut_back(charge.key, now, charge.limit);
        if denied.is_none_or(|(known, ahead)| known.limit.wait(ahead, known.cost) < wait) {
            denied = Some((charge, ahead));
        }
    }
    if let Some((charge, ahead)) = denied {
        held.put_back(shared);
        let decision = here::spoken(ledger, charge, (false, ahead), who, now);
        return Together::Now(Outcome {
            decision: Some(decision),
            items: Vec::new(),
        });
    }
    if asked.is_empty() {
        return Together::Now(held.pass(ledger, who, now));
    }
    let bought = |charge: &Charge<'_>| Bought::new(charge, who, ledger);
    let asking = Asking {
        receiver: None,
        ledger: Arc::clone(ledger),
        asked: asked.enforced().map(bought).collect(),
        held: held
            .all()
            .map(|(charge, end)| bought(charge).held(end))
            .collect(),
        watching: charges.watching().map(bought).collect(),
        client: client(),
        at: now,
    };
    asking.take_off(shared)
}

/// Decides alone while Redis is away: by what is still held, and by this instance's share of the rest. Nobody
/// is struck for it: a share is less than what clients were told.
pub(crate) fn decide_alone<'c>(
    shared: &SharedLedger,
    ledger: &Ledger,
    charges: impl Iterator<Item = &'c Charge<'c>>,
    who: &impl Who,
    now: u64,
) -> Outcome {
    let (mut held, mut own) = (Held::default(), Charges::default());
    for charge in charges {
        let (key, cost) = (charge.key, charge.cost);
        if charge.rule.mode == Mode::Leased
            && let Some(end) = shared.fleet.take_last(key, now, cost)
        {
            held.push(charge, ledger.table.ahead(key, now), (0, end));
            continue;
        }
        let (key, limit) = shared.outage.share(&ledger.table, (key, charge.limit), now);
        own.push(Charge {
            key,
            limit,
            ..*charge
        });
    }
    if own.is_empty() {
        return held.pass(ledger, who, now);
    }
    let mut outcome = here::decide(ledger, own.enforced(), &Spared(who), now);
    if outcome.passes() {
        let also = held.pass(ledger, who, now);
        outcome.items.extend(also.items);
    } else {
        held.put_back(shared);
    }
    outcome
}

/// Refuses what is beyond this instance's share while instances tell what they have let through without
/// Redis, whatever Redis would say.
pub(crate) fn held_back(
    shared: &SharedLedger,
    ledger: &Ledger,
    charges: &Charges<'_>,
    who: &impl Who,
    now: u64,
) -> Option<Outcome> {
    let mut own = Charges::default();
    for charge in charges.enforced() {
        let bucket = (charge.key, charge.limit);
        let (key, limit) = shared.outage.settling_share(&ledger.table, bucket, now);
        own.push(Charge {
            key,
            limit,
            ..*charge
        });
    }
    let (charge, verdict) = take_all(&ledger.table, now, own.enforced())?;
    (!verdict.is_allow()).then(|| Outcome {
        decision: Some(here::spoken(
            ledger,
            charge,
            (false, verdict.ahead()),
            &Spared(who),
            now,
        )),
        items: Vec::new(),
    })
}

/// The charges of a request whose tokens were here.
#[derive(Default)]
struct Held<'a> {
    charges: Charges<'a>,
    /// When the lease of each ends: of the first few without allocating.
    ends: [u64; FEW],
    more_ends: Vec<u64>,
    /// The one that is nearest to its end, and how far ahead it lies.
    nearest: Option<(Charge<'a>, u64)>,
}

impl<'a> Held<'a> {
    fn push(&mut self, charge: &Charge<'a>, ahead: u64, (left, end): (u32, u64)) {
        match self.ends.get_mut(self.charges.count()) {
            Some(place) => *place = end,
            None => self.more_ends.push(end),
        }
        self.charges.push(*charge);
        // What is held still counts as used in the shared bucket, but not for whoever asks here.
        let ahead = charge.limit.refund(ahead, left);
        let nearer =
            |known: (Charge<'_>, u64)| is_nearer((charge.limit, ahead), (known.0.limit, known.1));
        if self.nearest.is_none_or(nearer) {
            self.nearest = Some((*charge, ahead));
        }
    }

    /// Each with the end of its lease. Only enforced ones were pushed.
    fn all(&self) -> impl Iterator<Item = (&Charge<'a>, u64)> {
        let ends = self.ends.iter().chain(&self.more_ends).copied();
        self.charges.enforced().zip(ends)
    }

    fn put_back(&self, shared: &SharedLedger) {
        for (charge, end) in self.all() {
            shared.fleet.put_back(charge.key, charge.cost, end);
        }
    }

    /// The request goes on.
    fn pass(&self, ledger: &Ledger, who: &impl Who, now: u64) -> Outcome {
        let Some((charge, ahead)) = &self.nearest else {
            return Outcome::default();
        };
        ledger.tell_allowed(self.charges.enforced());
        let late = self.all().filter(|(charge, _)| charge.rule.settles);
        let items = late.map(|(charge, end)| Bought::new(charge, who, ledger).held(end).item(now));
        Outcome {
            items: items.collect(),
            decision: Some(here::spoken(ledger, charge, (true, *ahead), who, now)),
        }
    }
}

/// A request that waits for Redis. Dropped, it stays counted.
#[derive(Debug)]
pub(crate) struct Asking {
    receiver: Option<oneshot::Receiver<Landing>>,
    ledger: Arc<Ledger>,
    asked: Vec<Bought>,
    held: Vec<Bought>,
    /// The rules that only watch.
    watching: Vec<Bought>,
    client: Option<Arc<str>>,
    at: u64,
}

impl Asking {
    fn take_off(mut self, shared: &SharedLedger) -> Together {
        let route = Route {
            stops: self
                .asked
                .iter()
                .map(|bought| bought.stop.clone())
                .collect(),
            at: self.at,
            client: self.client.clone(),
        };
        self.receiver = shared.fleet.ask(route);
        match self.receiver {
            Some(_) => Together::Later(Box::new(self)),
            None => Together::Now(self.alone(self.at)),
        }
    }

    /// Nobody answered.
    fn alone(&self, now: u64) -> Outcome {
        let Some(shared) = &self.ledger.shared else {
            return Outcome::default();
        };
        let later = now.saturating_sub(self.at);
        let asked: Vec<Charge<'_>> = self
            .asked
            .iter()
            .map(|bought| bought.after(later))
            .collect();
        let held: Vec<Charge<'_>> = self.held.iter().map(|bought| bought.after(later)).collect();
        let mut outcome = decide_alone(shared, &self.ledger, asked.iter(), self, now);
        if outcome.passes() {
            self.ledger.tell_allowed(held.iter());
            let late = self.held.iter().filter(|bought| bought.rule.settles);
            outcome
                .items
                .extend(late.map(|bought| bought.item(self.at)));
        } else {
            self.put_back(shared);
        }
        outcome
    }

    fn land(&self, landing: &Landing) -> Outcome {
        let (now, ledger) = (landing.at, &*self.ledger);
        let later = now.saturating_sub(self.at);
        let asked: Vec<Charge<'_>> = self
            .asked
            .iter()
            .map(|bought| bought.after(later))
            .collect();
        let held: Vec<Charge<'_>> = self.held.iter().map(|bought| bought.after(later)).collect();
        if !landing.granted
            && let Some(shared) = &ledger.shared
        {
            self.put_back(shared);
        }
        if let Some(left) = landing.banned {
            return self.banned(left);
        }
        let known = asked
            .iter()
            .zip(landing.spots.iter().map(|spot| spot.ahead));
        if !landing.granted {
            let longest =
                known.max_by_key(|(charge, ahead)| charge.limit.wait(*ahead, charge.cost));
            let decision = longest
                .map(|(charge, ahead)| here::spoken(ledger, charge, (false, ahead), self, now));
            let items = Vec::new();
            return Outcome { decision, items };
        }
        let here = held
            .iter()
            .map(|charge| (charge, ledger.table.ahead(charge.key, now)));
        let decision = nearest(known.chain(here))
            .map(|(charge, ahead)| here::spoken(ledger, charge, (true, ahead), self, now));
        ledger.tell_allowed(asked.iter().chain(&held));
        let charged = self.asked.iter().zip(&*landing.spots);
        let charged = charged.filter(|(bought, _)| bought.rule.settles);
        let items = charged.map(|(bought, spot)| bought.item_of(self.at, spot, landing.behind));
        let held = self.held.iter().filter(|bought| bought.rule.settles);
        let items = items.chain(held.map(|bought| bought.item(self.at)));
        Outcome {
            decision,
            items: items.collect(),
        }
    }

    fn banned(&self, left: Duration) -> Outcome {
        self.ledger.tell_shut_out("banned");
        Outcome {
            decision: Some(Decision::Banned { retry_after: left }),
            items: Vec::new(),
        }
    }

    /// The books that were asked for.
    pub(crate) const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn put_back(&self, shared: &SharedLedger) {
        for bought in &self.held {
            let (stop, end) = (&bought.stop, bought.stop.held.unwrap_or(0));
            shared.fleet.put_back(stop.key, stop.part.cost, end);
        }
    }
}

impl Who for Asking {
    fn owner(&self, charge: &Charge<'_>) -> Arc<str> {
        let mut all = self.asked.iter().chain(&self.held);
        let owner = all.find(|bought| Arc::ptr_eq(&bought.rule, charge.rule));
        owner.map_or_else(|| "".into(), |bought| Arc::clone(&bought.stop.part.owner))
    }

    fn client(&self) -> Option<Arc<str>> {
        self.client.clone()
    }
}

impl Future for Asking {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.get_mut();
        let Some(receiver) = &mut this.receiver else {
            return Poll::Pending;
        };
        let answer = ready!(Pin::new(receiver).poll(cx));
        this.receiver = None;
        let mut outcome = match answer {
            Ok(landing) => this.land(&landing),
            Err(_) => this.alone(this.ledger.now()),
        };
        if outcome.passes() {
            let now = this.ledger.now();
            let later = now.saturating_sub(this.at);
            let watching = this.watching.iter().map(|bought| bought.after(later));
            let watching: Vec<Charge<'_>> = watching.collect();
            here::watch(&this.ledger, watching.iter(), &mut outcome.items, now);
        }
        Poll::Ready(outcome)
    }
}
