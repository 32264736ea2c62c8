//! Answers in Redis and in the cold store: looked for where memory has none, and written there once they are
//! stored.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;

use crate::cache::content::Content;
use crate::cache::control::CacheControl;
use crate::cache::engine::Cache;
use crate::cache::entry::{ELSEWHERE, Entry, Head};
use crate::cache::key::CacheKey;
use crate::cache::packed::{ANSWER, FIELDS, Parts, packed, packed_names, unpacked, unpacked_names};
use crate::cache::tags::subject;
use crate::cache::terms::Freshness;
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::event::Event;
use crate::journal::Verdict;
use crate::tiers::{Claiming, Header, Lease, Spot, Stored, Tiers, Turn, Unfit, millis};

/// What the tiers behind memory say.
#[derive(Debug)]
pub(crate) enum Behind {
    /// This is stored, and may be served to whoever has no wishes of its own.
    Found(Arc<Entry>),
    /// Ask the service, which may confirm this.
    Ask(Writing, Option<Arc<Entry>>),
}

/// How the service's answer is to be written behind memory.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    /// The right to write it, where others wait for that.
    lease: Option<Lease>,
    /// Where the lease is.
    place: Option<Arc<str>>,
    /// Others are at it, and write it to Redis.
    others: bool,
}

impl Writing {
    /// Others wait for it.
    fn under(lease: Lease, place: Arc<str>, at_most: Duration) -> Self {
        Self {
            // By way of an option, because without Redis nothing comes after a lease.
            lease: Some(lease).map(|lease| lease.tended(at_most)),
            place: Some(place),
            others: false,
        }
    }

    /// Somebody else writes it to Redis, or nobody can.
    pub(crate) fn beside_others() -> Self {
        Self {
            others: true,
            ..Self::default()
        }
    }
}

/// What was found at the end of a look.
struct Looked {
    found: Option<Restored>,
    /// Where it would be.
    spot: Spot,
    /// What is there and of no use.
    unfit: Unfit,
    is_away: bool,
}

/// An answer from behind memory, which is not in memory yet.
struct Restored {
    entry: Entry,
    /// Whether it was expired before its time.
    expired: bool,
}

impl Restored {
    /// Whether it arrived after what memory has.
    fn is_younger(&self, than: Option<&Entry>) -> bool {
        // Others write milliseconds down.
        than.is_none_or(|old| self.entry.arrived > old.arrived.plus(Duration::from_millis(2)))
    }

    /// Whether it is served unasked at `now`, fresh or while it is refreshed.
    fn is_served(&self, now: Moment) -> bool {
        let (entry, age) = (&self.entry, self.entry.age(now));
        // What was expired is as old as what has just reached the end of its life, at least.
        let age = if self.expired {
            age.max(entry.terms.lifetime)
        } else {
            age
        };
        let freshness = entry.terms.freshness(age, &CacheControl::default());
        matches!(
            freshness,
            Freshness::Fresh | Freshness::StaleWhileRevalidate
        )
    }
}

impl Cache {
    /// Looks behind memory for what a request is to be sent, and if there is nothing, comes to terms with other
    /// instances about who asks the service. `stale` is what memory has: something is found if it is younger.
    /// Dropping it gives up what it has come to.
    pub(crate) async fn look_behind(
        &self,
        tiers: &Tiers,
        key: &CacheKey,
        fields: &HeaderMap,
        stale: Option<&Entry>,
    ) -> Behind {
        // Half of what others wait for this one: the rest is the service's.
        let patience = tiers.config().lease_wait.min(self.flight_wait() / 2);
        let mut looked = self.look_once(tiers, key, fields).await;
        let mut old = None;
        if let Some(found) = looked.found.take().filter(|found| found.is_younger(stale)) {
            let is_served = found.is_served(self.clock().now());
            let entry = self.put(key.clone(), found.entry);
            if is_served {
                return Behind::Found(entry);
            }
            old = Some(entry);
        }
        let mut claiming = Claiming::with_patience(tiers, &looked.spot.place, patience);
        loop {
            if looked.is_away {
                return Behind::Ask(Writing::beside_others(), old);
            }
            match claiming.next(&looked.unfit).await {
                Turn::Compute(lease) => {
                    // A client that reads a byte a second must not hold all instances up.
                    let at_most = self.flight_wait();
                    let writing = Writing::under(lease, looked.spot.place, at_most);
                    return Behind::Ask(writing, old);
                }
                Turn::Alone => return Behind::Ask(Writing::beside_others(), old),
                Turn::Look => {
                    let place = looked.spot.place;
                    looked = self.look_once(tiers, key, fields).await;
                    let found = looked.found.take();
                    let found = found.filter(|found| {
                        found.is_younger(old.as_deref().or(stale))
                            && found.is_served(self.clock().now())
                    });
                    if let Some(found) = found {
                        return Behind::Found(self.put(key.clone(), found.entry));
                    }
                    // It is known by now which answers there are.
                    if looked.spot.place != place {
                        claiming = Claiming::with_patience(tiers, &looked.spot.place, patience);
                    }
                }
            }
        }
    }

    async fn look_once(&self, tiers: &Tiers, key: &CacheKey, fields: &HeaderMap) -> Looked {
        let spot = self.spot_of(tiers, key, None);
        let max = tiers.config().http_body_bytes_max;
        let max = max.saturating_add(HEAD_BYTES_MAX);
        let mut sought = tiers.seek(&spot, max).await;
        let mut spot = spot;
        let is_list = |stored: &Stored| stored.header.codec == FIELDS;
        if let Some(stored) = sought.stored.take_if(|stored| is_list(stored))
            && let Some(names) = unpacked_names(&stored.body)
        {
            let asked = Selector::asked(names, fields, self.vary_rules());
            spot = self.spot_of(tiers, key, Some(&asked));
            sought = tiers.seek(&spot, max).await;
        }
        let stored = sought.stored;
        Looked {
            found: stored.and_then(|stored| self.restored(tiers, key, &stored, fields)),
            spot,
            unfit: sought.unfit,
            is_away: sought.is_away,
        }
    }

    /// An answer from behind memory, if it holds and fits the request.
    fn restored(
        &self,
        tiers: &Tiers,
        key: &CacheKey,
        stored: &Stored,
        fields: &HeaderMap,
    ) -> Option<Restored> {
        if stored.header.codec != ANSWER {
            return None;
        }
        let (now, wall) = (self.clock().now(), self.clock().wall());
        let Some(read) = unpacked(&stored.body, (self.field_rules(), self.vary_rules()), wall)
        else {
            self.emit(Event::EntryUnreadable {
                tier: stored.from.as_str(),
                why: "value",
            });
            return None;
        };
        let subject = subject(key, &read.tags);
        let verdict = tiers.verdict(stored, &subject);
        if !verdict.holds() || !read.selector.fits(fields) {
            return None;
        }
        self.emit(Event::TierHit {
            tier: stored.from.as_str(),
        });
        let wall_ms = wall.duration_since(UNIX_EPOCH).map_or(0, millis);
        let ago = Duration::from_millis(wall_ms.saturating_sub(read.arrived_ms));
        let mut terms = read.terms;
        let arrived = now.minus(ago);
        // What arrived before this clock began is as old as it is.
        terms.initial_age = terms
            .initial_age
            .saturating_add(ago.saturating_sub(now.since(arrived)));
        let head = Head {
            status: read.status,
            headers: read.headers,
            selector: read.selector,
            terms,
            arrived,
            born: stored.header.stamp,
            began: ELSEWHERE,
            subject,
            tags: read.tags,
            browser: read.browser,
        };
        let content = Content::of(compact(read.content), self.config().compress_above_bytes);
        Some(Restored {
            entry: head.with_content(content, None),
            expired: verdict == Verdict::Expired,
        })
    }

    /// Writes an answer behind memory, in the background.
    pub(crate) fn write_behind(&self, key: &CacheKey, entry: &Arc<Entry>, writing: Writing) {
        let (Some(tiers), Some(spawner)) = (self.tiers().cloned(), self.spawner()) else {
            return;
        };
        let max = tiers.config().http_body_bytes_max;
        if entry.part.is_some()
            || entry.content.len() as u64 > max
            || !entry.terms.serves_others() && entry.validates().is_none()
        {
            return;
        }
        let (cache, key, entry) = (self.clone(), key.clone(), Arc::clone(entry));
        spawner.spawn(async move {
            cache.write(&tiers, &key, &entry, writing).await;
        });
    }

    async fn write(&self, tiers: &Tiers, key: &CacheKey, entry: &Entry, writing: Writing) {
        let (now, wall) = (self.clock().now(), self.clock().wall());
        let wall_ms = wall.duration_since(UNIX_EPOCH).map_or(0, millis);
        let ms_ago = |moment: Moment| wall_ms.saturating_sub(millis(now.since(moment)));
        let parts = Parts {
            status: entry.status,
            headers: &entry.headers,
            selector: &entry.selector,
            terms: &entry.terms,
            arrived_ms: ms_ago(entry.arrived),
            tags: &entry.tags,
            browser: entry.browser.as_ref(),
        };
        let content: Bytes = entry.content.bytes();
        let Some(body) = packed(&parts, &content) else {
            return;
        };
        let fresh_for = entry.fresh_until.since(now);
        let useful = fresh_for + entry.terms.grace();
        // What has a validator is of use until nobody asks any more.
        let lasts = match entry.validates() {
            Some(()) => tiers.config().ttl_cold,
            None => useful,
        };
        let fresh_until_ms = wall_ms.saturating_add(millis(fresh_for));
        let mut header = Header {
            stamp: entry.born,
            made_ms: wall_ms,
            fresh_until_ms,
            stale_until_ms: fresh_until_ms.saturating_add(millis(lasts - fresh_for.min(lasts))),
            cost_us: u32::try_from(entry.arrived.since(entry.began).as_micros())
                .unwrap_or(u32::MAX),
            codec: ANSWER,
            negative: false,
            // Its own are in its head: there may be more than a header holds.
            tags: Vec::new(),
        };
        let Writing {
            mut lease,
            place,
            others,
        } = writing;
        let own = self.spot_of(tiers, key, None);
        if entry.selector.is_empty() {
            let lease = lease.filter(|_| place.as_ref() == Some(&own.place));
            tiers
                .store(&own, (&header, &body), lasts, (lease, !others))
                .await;
            return;
        }
        let at = self.spot_of(tiers, key, Some(&entry.selector));
        let of_it = lease.take_if(|_| place.as_ref() == Some(&at.place));
        tiers
            .store(&at, (&header, &body), lasts, (of_it, !others))
            .await;
        header.codec = FIELDS;
        let names = packed_names(&entry.selector);
        // One that is neither's is given back: the fields have changed.
        let of_own = lease.take_if(|_| place.as_ref() == Some(&own.place));
        tiers
            .store(&own, (&header, &names), lasts, (of_own, !others))
            .await;
    }

    /// Where the answers of a key are, or the one of a variant: by the settings that decide which request an
    /// answer is for, too. Others must not find what was stored by these.
    fn spot_of(&self, tiers: &Tiers, key: &CacheKey, variant: Option<&Selector>) -> Spot {
        let (_, authority) = key.part_and_authority();
        let settings = self.fingerprint();
        let mut text = format!("{settings:016x}\n{authority}\n{}", key.target());
        if let Some(selector) = variant {
            text.push('\n');
            text.push_str(&selector.fingerprint());
        }
        tiers.spot(key.part(), ROOM, &text)
    }
}

/// Content that does not hold on to much more than itself.
fn compact(content: Bytes) -> Bytes {
    // What it is a slice of has the head of the answer as well, some kilobytes.
    if content.len() < 16 << 10 {
        Bytes::copy_from_slice(&content)
    } else {
        content
    }
}

/// What answers are filed under.
const ROOM: &str = "http";

/// A head is a few kilobytes; servers accept no more than this.
const HEAD_BYTES_MAX: u64 = 1 << 20;
