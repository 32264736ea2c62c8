//! Counting together with other instances through Redis.
//!
//! The local table holds what Redis last said about each bucket. It is never ahead of Redis, but for tokens
//! given back by others, so that what it denies Redis would deny: such a request costs Redis nothing. All
//! others are asked for, unless a lease holds tokens for them. Requests for the same buckets that come
//! while a question about them is under way go together with the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::event::{Event, Events};
use crate::rate_limit::ask::{Answer, Ask};
use crate::rate_limit::flights::{Boarding, Flights, Row};
use crate::rate_limit::leases::{Landed, Leases, Taken, fair};
use crate::rate_limit::outage::{Memory, Outage};
use crate::rate_limit::penalty::PenaltyBox;
use crate::rate_limit::question::{Landing, Route, Spot, Stop};
use crate::rate_limit::shared::Shared;
use crate::rate_limit::table::Table;
use crate::rate_limit::ticks::ticks;
use crate::store::StoreError;
use crate::task::Spawner;

/// The instance's part in the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: FleetParts,
    leases: Leases,
    flights: Arc<Flights<Landing>>,
    told: AtomicBool,
}

/// What a fleet goes by.
#[derive(Debug)]
pub(crate) struct FleetParts {
    pub(crate) shared: Shared,
    pub(crate) spawner: Spawner,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) table: Arc<Table>,
    pub(crate) penalties: Option<Arc<PenaltyBox>>,
    pub(crate) outage: Arc<Outage>,
}

impl Fleet {
    pub(crate) fn new(parts: FleetParts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                leases: Leases::new(LEASES_MAX),
                flights: Arc::new(Flights::new()),
                told: AtomicBool::new(false),
            }),
        }
    }

    /// Takes tokens that are held for the bucket, and sees to it that there will be more. Returns how many are
    /// left, and the end of the lease that they were taken from. `stop` tells the bucket, and whose ban is looked
    /// up along with it.
    pub(crate) fn take_held(
        &self,
        key: u64,
        now: u64,
        cost: u32,
        stop: impl FnOnce() -> (Stop, Option<Arc<str>>),
    ) -> Option<(u32, u64)> {
        let (taken, end) = self.inner.leases.take(key, now, cost);
        match taken {
            Taken::Held { left } => Some((left, end)),
            Taken::Low { left } => {
                let (stop, client) = stop();
                let route = Route {
                    stops: vec![stop],
                    at: now,
                    client,
                };
                self.refill(route);
                Some((left, end))
            }
            Taken::Missing => None,
        }
    }

    /// Takes tokens that are held for the bucket, without asking for more. Returns the end of their lease.
    pub(crate) fn take_last(&self, key: u64, now: u64, cost: u32) -> Option<u64> {
        let (taken, end) = self.inner.leases.take(key, now, cost);
        match taken {
            Taken::Held { .. } => Some(end),
            Taken::Low { .. } => {
                self.inner.leases.fail(key);
                Some(end)
            }
            Taken::Missing => None,
        }
    }

    /// Puts tokens back that [`take_held`](Self::take_held) has taken of a lease that ends then.
    pub(crate) fn put_back(&self, key: u64, cost: u32, end: u64) {
        self.inner.leases.put_back(key, cost, end);
    }

    /// Asks Redis about one request. The answer's channel ends without one where Redis cannot be asked.
    pub(crate) fn ask(&self, route: Route) -> Option<oneshot::Receiver<Landing>> {
        match self.inner.flights.board(route.key()) {
            Boarding::Lead(row, seats, receiver) => {
                self.take_off(row, route, seats);
                Some(receiver)
            }
            Boarding::Join(receiver) => Some(receiver),
            Boarding::Full => None,
        }
    }

    /// Gives tokens back that the answer has shown not to count.
    pub(crate) fn give_back(&self, stop: Stop, tokens: u32) {
        if let Some(end) = stop.held {
            return self.put_back(stop.key, tokens, end);
        }
        // Where Redis does not hear of it somebody goes without, and nobody gets too much.
        let shared = self.inner.parts.shared.clone();
        self.inner.parts.spawner.spawn(async move {
            let _ = shared.give_back(&[stop.part], &[tokens]).await;
        });
    }

    /// Charges tokens that were only known after the answer, to a bucket whose limit was looked at then: to
    /// Redis, or here if it does not answer. What Redis has charged is known here with its next answer.
    pub(crate) fn debit(&self, stop: Stop, at: u64, tokens: u32) {
        let inner = Arc::clone(&self.inner);
        self.inner.parts.spawner.spawn(async move {
            let parts = &inner.parts;
            if parts.shared.debit(&[stop.part], &[tokens]).await.is_err() {
                let now = ticks(&parts.clock);
                let limit = stop.limit.after(now.saturating_sub(at));
                parts.table.debit(stop.key, now, limit, tokens);
            }
        });
    }

    /// Forgets what nobody has used for a while.
    pub(crate) fn sweep(&self) {
        self.inner.leases.sweep(ticks(&self.inner.parts.clock));
    }

    fn refill(&self, route: Route) {
        match self.inner.flights.lead(route.key()) {
            Some(row) => self.take_off(row, route, Vec::new()),
            // The next request asks again.
            None => route
                .stops
                .iter()
                .for_each(|stop| self.inner.leases.fail(stop.key)),
        }
    }

    fn take_off(&self, row: Row<Landing>, route: Route, seats: Vec<oneshot::Sender<Landing>>) {
        let inner = Arc::clone(&self.inner);
        // After shutdown nothing is spawned: the row ends with the task that was refused.
        self.inner.parts.spawner.spawn(inner.fly(row, route, seats));
    }
}

/// Keys that hold leases at a time.
const LEASES_MAX: usize = 8192;

/// A question under way.
struct Asked {
    ask: Ask,
    /// When it was asked, in ticks.
    at: u64,
    /// What each stop has to do with it beside its part of the question.
    aside: Vec<Aside>,
}

struct Aside {
    /// What was told of the use of this instance's share.
    memory: Memory,
    /// Whether this is the one question that takes tokens in advance.
    leases: bool,
}

impl Inner {
    /// Asks for the first, and for those who gather meanwhile, until nobody does or Redis does not answer.
    async fn fly(
        self: Arc<Self>,
        mut row: Row<Landing>,
        route: Route,
        first: Vec<oneshot::Sender<Landing>>,
    ) {
        let mut seats = first;
        loop {
            let asked = self.prepare(&route, seats.len());
            let answer = self.parts.shared.take(&asked.ask, route.client.as_deref());
            match answer.await {
                Ok(answer) => self.land(&route, &asked, &answer, seats),
                Err(error) => {
                    self.call_off(&route, &asked);
                    self.warn(&error);
                    return;
                }
            }
            let Some(next) = row.next() else {
                return;
            };
            seats = next;
        }
    }

    /// The question for so many requests; for none, it is one for tokens in advance.
    fn prepare(&self, route: &Route, requests: usize) -> Asked {
        let now = ticks(&self.parts.clock);
        let mut aside = Vec::with_capacity(route.stops.len());
        let parts = route.stops.iter().map(|stop| {
            let limit = stop.limit.after(now.saturating_sub(route.at));
            let memory = self
                .parts
                .outage
                .remember(&self.parts.table, (stop.key, limit), now);
            let mut part = stop.part.clone();
            // What others have given back must not come again by what was known here before.
            part.hint = if stop.gives_back { 0 } else { memory.hint };
            part.debt = memory.debt;
            let wants = || self.leases.want(stop.key, now, requests == 0);
            let want = stop.leased.then(wants).flatten();
            if let Some(want) = want {
                let remaining = limit.remaining(self.parts.table.ahead(stop.key, now));
                part.lease = want.min(fair(limit, remaining, self.parts.outage.instances()));
            }
            aside.push(Aside {
                memory,
                leases: want.is_some(),
            });
            part
        });
        let parts = parts.collect();
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        Asked {
            ask: Ask { requests, parts },
            at: now,
            aside,
        }
    }

    /// Notes the answer, and tells everybody who waits.
    fn land(
        &self,
        route: &Route,
        asked: &Asked,
        answer: &Answer,
        seats: Vec<oneshot::Sender<Landing>>,
    ) {
        let now = ticks(&self.parts.clock);
        let stops = route.stops.iter().zip(&asked.ask.parts).zip(&asked.aside);
        let spots = stops
            .zip(&answer.told)
            .map(|(((stop, part), aside), told)| {
                let mut limit = stop.limit.after(now.saturating_sub(route.at));
                // Around midnight the server's window may be another one than ours.
                let grows_back = limit.ends_in() == 0;
                let same = grows_back || told.window == part.window;
                if !same {
                    limit = limit.ending(self.until(told.window));
                }
                let ahead = limit.ahead_of(told.ahead);
                if same {
                    // From before it was asked, so that what is known here is never more than Redis knows. Or
                    // each question would carry the time of the one before as used, and nothing would
                    // grow back while questions follow each other.
                    let known = match grows_back {
                        true => ahead.saturating_sub(now.saturating_sub(asked.at)),
                        false => ahead,
                    };
                    let (table, bucket) = (&self.parts.table, (stop.key, limit));
                    let landed = (&aside.memory, known);
                    self.parts.outage.landed(table, bucket, landed, now);
                    table.put(stop.key, now, known);
                } else {
                    self.parts.outage.untold(stop.key, &aside.memory);
                }
                if aside.leases {
                    let landed = Landed {
                        asked_at: asked.at,
                        ahead,
                        interval: limit.interval(),
                        tokens: if same { told.leased } else { 0 },
                    };
                    self.leases.land(stop.key, now, landed);
                } else if stop.leased {
                    self.leases.pace(stop.key, now);
                }
                let leased = limit.interval().saturating_mul(u64::from(told.leased));
                Spot {
                    ahead,
                    until: asked.at.saturating_add(ahead).saturating_sub(leased),
                    window: told.window,
                }
            });
        let spots: Arc<[Spot]> = spots.collect();
        if let Some(left) = answer.banned {
            self.heed(route, left, now);
        }
        if answer.told.is_empty() {
            self.call_off(route, asked);
        }
        for (place, seat) in seats.into_iter().enumerate() {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            let landing = Landing {
                granted: place < answer.granted,
                behind: answer.granted.saturating_sub(place).saturating_sub(1),
                spots: Arc::clone(&spots),
                at: now,
                banned: answer.banned,
            };
            // Who has gone away meanwhile stays counted.
            let _ = seat.send(landing);
        }
    }

    /// Notes that the client is banned, also where it was let through by tokens that were held for it.
    fn heed(&self, route: &Route, left: Duration, now: u64) {
        let (Some(penalties), Some(client)) = (&self.parts.penalties, &route.client) else {
            return;
        };
        penalties.heed(self.parts.table.client(client), left, now);
        for stop in route.stops.iter().filter(|stop| stop.part.owner == *client) {
            self.leases.drop_all(stop.key);
        }
    }

    /// Tells once of a Redis that is there and does not serve: nothing else would.
    fn warn(&self, error: &StoreError) {
        let told = &self.told;
        if !error.is_unavailable() && !told.swap(true, Ordering::Relaxed) {
            let text = format!(
                "rate limits are not shared, because Redis refuses: {error}. Each instance grants its share."
            );
            self.parts.events.emit(Event::Warning { text: &text });
        }
    }

    /// Ticks until a time of day.
    fn until(&self, end: u64) -> u64 {
        let wall = self.parts.clock.wall().duration_since(UNIX_EPOCH);
        let left = Duration::from_secs(end).saturating_sub(wall.unwrap_or_default());
        u64::try_from(left.as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes that the question has changed nothing, and that no tokens are on their way.
    fn call_off(&self, route: &Route, asked: &Asked) {
        for (stop, aside) in route.stops.iter().zip(&asked.aside) {
            self.parts.outage.untold(stop.key, &aside.memory);
            if aside.leases {
                self.leases.fail(stop.key);
            }
        }
    }
}
