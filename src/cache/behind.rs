//! Answers in Redis and in the cold store: looked for where memory has none, and written there once they are
//! stored.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;

use crate::cache::content::Content;
use crate::cache::control::CacheControl;
use crate::cache::engine::Cache;
use crate::cache::entry::{Entry, Head};
use crate::cache::key::CacheKey;
use crate::cache::packed::{ANSWER, FIELDS, Parts, packed, packed_names, unpacked, unpacked_names};
use crate::cache::tags::subject;
use crate::cache::terms::Freshness;
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::event::Event;
use crate::tiers::{Claiming, Header, Lease, Spot, Stored, Tiers, Turn};

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
    entry: Option<Arc<Entry>>,
    /// Where it would be.
    spot: Spot,
    /// The beginning of what is there and of no use.
    unfit: Vec<u8>,
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
        let mut looked = self.look_once(tiers, key, fields).await;
        let mut old = None;
        if let Some(entry) = younger(looked.entry.take(), stale) {
            if self.is_served(&entry) {
                return Behind::Found(entry);
            }
            old = Some(entry);
        }
        let mut claiming = Claiming::begin(tiers, &looked.spot.place);
        loop {
            match claiming.next(&looked.unfit).await {
                Turn::Compute(lease) => {
                    let writing = Writing {
                        lease: Some(lease),
                        place: Some(looked.spot.place),
                        others: false,
                    };
                    return Behind::Ask(writing, old);
                }
                Turn::Alone => {
                    return Behind::Ask(Writing::beside_others(), old);
                }
                Turn::Look => {
                    let place = looked.spot.place;
                    looked = self.look_once(tiers, key, fields).await;
                    let entry = younger(looked.entry.take(), stale);
                    if let Some(entry) = entry.filter(|entry| self.is_served(entry)) {
                        return Behind::Found(entry);
                    }
                    // It is known by now which answers there are.
                    if looked.spot.place != place {
                        claiming = Claiming::begin(tiers, &looked.spot.place);
                    }
                }
            }
        }
    }

    /// Whether it is served unasked, fresh or while it is refreshed.
    fn is_served(&self, entry: &Entry) -> bool {
        let age = entry.age(self.clock().now());
        let freshness = entry.terms.freshness(age, &CacheControl::default());
        matches!(
            freshness,
            Freshness::Fresh | Freshness::StaleWhileRevalidate
        )
    }

    async fn look_once(&self, tiers: &Tiers, key: &CacheKey, fields: &HeaderMap) -> Looked {
        let spot = spot_of(tiers, key, None);
        let max = tiers
            .config()
            .http_body_bytes_max
            .saturating_add(HEAD_BYTES_MAX);
        let mut sought = tiers.seek(&spot, max).await;
        let mut looked = Looked {
            entry: None,
            spot,
            unfit: std::mem::take(&mut sought.beginning),
        };
        let Some(stored) = sought.stored else {
            return looked;
        };
        let stored = if stored.header.codec == FIELDS {
            let Some(names) = unpacked_names(&stored.body) else {
                return looked;
            };
            let asked = Selector::asked(names, fields, self.vary_rules());
            looked.spot = spot_of(tiers, key, Some(&asked));
            let sought = tiers.seek(&looked.spot, max).await;
            looked.unfit = sought.beginning;
            sought.stored
        } else {
            Some(stored)
        };
        looked.entry = stored.and_then(|stored| self.restored(tiers, key, &stored, fields));
        looked
    }

    /// Takes an answer into memory that came from behind it, if it holds and fits the request.
    fn restored(
        &self,
        tiers: &Tiers,
        key: &CacheKey,
        stored: &Stored,
        fields: &HeaderMap,
    ) -> Option<Arc<Entry>> {
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
        if !tiers.verdict(stored, &subject).holds() || !read.selector.fits(fields) {
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
        terms.initial_age = terms.initial_age.saturating_add(ago - now.since(arrived));
        let head = Head {
            status: read.status,
            headers: read.headers,
            selector: read.selector,
            terms,
            arrived,
            born: stored.header.stamp,
            // As far as this process knows; it was elsewhere.
            began: now,
            subject,
            tags: read.tags,
            browser: read.browser,
        };
        let content = Content::of(read.content, self.config().compress_above_bytes);
        Some(self.put(key.clone(), head.with_content(content, None)))
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
        let own = spot_of(tiers, key, None);
        if entry.selector.is_empty() {
            let lease = lease.filter(|_| place.as_ref() == Some(&own.place));
            tiers
                .store(&own, (&header, &body), lasts, (lease, !others))
                .await;
            return;
        }
        let at = spot_of(tiers, key, Some(&entry.selector));
        let of_it = lease.take_if(|_| place.as_ref() == Some(&at.place));
        tiers
            .store(&at, (&header, &body), lasts, (of_it, !others))
            .await;
        header.codec = FIELDS;
        let names = packed_names(&entry.selector);
        tiers
            .store(&own, (&header, &names), lasts, (lease, !others))
            .await;
    }
}

/// What was found, if memory has nothing as young.
fn younger(found: Option<Arc<Entry>>, stale: Option<&Entry>) -> Option<Arc<Entry>> {
    found.filter(|found| {
        stale.is_none_or(|stale| {
            found.fresh_until > stale.fresh_until.plus(Duration::from_millis(2))
        })
    })
}

/// Where the answers of a key are, or the one of a variant.
fn spot_of(tiers: &Tiers, key: &CacheKey, variant: Option<&Selector>) -> Spot {
    let (_, authority) = key.part_and_authority();
    let mut text = format!("{authority}\n{}", key.target());
    if let Some(selector) = variant {
        text.push('\n');
        text.push_str(&selector.fingerprint());
    }
    tiers.spot(key.part(), ROOM, &text)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What answers are filed under.
const ROOM: &str = "http";

/// A head is a few kilobytes; servers accept no more than this.
const HEAD_BYTES_MAX: u64 = 1 << 20;
