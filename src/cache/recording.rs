//! An answer that is being recorded while it streams to its client.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};

use crate::cache::behind::Writing;
use crate::cache::content::Content;
use crate::cache::engine::Cache;
use crate::cache::entry::Head;
use crate::cache::key::CacheKey;
use crate::cache::landing::{Landing, Pilot};
use crate::cache::part::Part;
use crate::response::decimal;
use crate::task::Spawner;

/// The head of the answer, and the frames so far. Dropping it stores nothing and hands the flight on.
#[derive(Debug)]
pub(crate) struct Recording {
    cache: Cache,
    key: CacheKey,
    head: Head,
    part: Option<Part>,
    pilot: Option<Pilot>,
    /// How it is written behind memory, if it is.
    writing: Option<Writing>,
    /// Copied piece by piece: a frame may be a small slice of a large buffer, and there may be many.
    content: Vec<u8>,
    held: Held,
    /// Whether the next answer of this URL will hardly be of use either, should this one not be.
    lasting: bool,
    len: u64,
    /// What Content-Length says.
    announced: Option<u64>,
}

/// A recording's share of the memory for recordings.
#[derive(Debug)]
struct Held {
    cache: Cache,
    bytes: u64,
}

impl Held {
    /// Holds `bytes` in all. Returns whether there is room.
    fn reach(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let fits = more == 0 || self.cache.hold(more);
        self.bytes += if fits { more } else { 0 };
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.cache.release(self.bytes);
    }
}

/// One of the answers that are read to their end although nobody waits.
#[derive(Debug)]
pub(crate) struct Place(Cache);

impl Place {
    fn of(cache: &Cache) -> Option<Self> {
        let place = Self(cache.clone());
        // Counted before it is compared, and given back by the drop.
        (cache.finishing().fetch_add(1, Ordering::Relaxed) < FINISHING_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.finishing().fetch_sub(1, Ordering::Relaxed);
    }
}

impl Recording {
    /// A recording of the answer with this head, or of a part of it.
    pub(crate) fn new(
        cache: Cache,
        key: CacheKey,
        (head, part): (Head, Option<Part>),
        (pilot, writing): (Option<Pilot>, Option<Writing>),
    ) -> Self {
        let announced =
            part.map_or_else(|| announced(&head.headers), |part| Some(part.span.bytes()));
        let held = Held {
            cache: cache.clone(),
            bytes: 0,
        };
        Self {
            held,
            lasting: true,
            cache,
            key,
            head,
            part,
            pilot,
            writing,
            content: Vec::new(),
            len: 0,
            announced,
        }
    }

    /// Keeps a piece. Returns whether the whole still fits.
    pub(crate) fn add(&mut self, data: &Bytes) -> bool {
        let most = self.cache.config().body_bytes_max;
        self.len = self.len.saturating_add(data.len() as u64);
        if self.len > most {
            return false;
        }
        self.make_room(data.len());
        if !self.held.reach(self.content.capacity() as u64) {
            // There is no room now. There may be for the next one.
            self.lasting = false;
            return false;
        }
        self.content.extend_from_slice(data);
        true
    }

    /// Grows by doubling, and no further than what is announced. Not to that at once: a client that asks for
    /// large answers and does not read them would hold memory that nothing is in yet.
    fn make_room(&mut self, more: usize) {
        let (len, capacity) = (self.content.len(), self.content.capacity());
        let needed = len.saturating_add(more);
        if needed <= capacity {
            return;
        }
        let announced = self
            .announced
            .and_then(|announced| usize::try_from(announced).ok());
        let most = announced.unwrap_or(usize::MAX).max(needed);
        let target = needed.max(capacity.saturating_mul(2)).min(most);
        self.content.reserve_exact(target - len);
    }

    pub(crate) fn is_as_long_as_announced(&self) -> bool {
        self.announced == Some(self.len)
    }

    /// Whether it is finished without its client.
    pub(crate) fn is_finished_alone(&self) -> bool {
        self.cache.config().finish_when_left && self.cache.spawner().is_some()
    }

    /// Who reads on, a place among those that do, and for how long. `None` if there are too many.
    pub(crate) fn finishing(&self) -> Option<(Spawner, Place, Duration)> {
        let spawner = self.cache.spawner()?.clone();
        let place = Place::of(&self.cache)?;
        Some((spawner, place, UNATTENDED_MAX))
    }

    /// The body has ended well: stores the answer and lets the followers look again.
    pub(crate) fn commit(self: Box<Self>) {
        if self
            .announced
            .is_some_and(|announced| announced != self.len)
        {
            // Shorter or longer than announced is no answer, whatever the stream says, and the next one
            // will hardly be better.
            return self.give_up();
        }
        let Self {
            cache,
            key,
            mut head,
            part,
            pilot,
            writing,
            content,
            len,
            ..
        } = *self;
        if part.is_some() {
            // Each answer that is made from it says of its own part which it is.
            head.headers.remove(CONTENT_RANGE);
            head.headers.remove(CONTENT_LENGTH);
        } else if may_have_content(head.status) {
            // A HEAD that is answered from this entry has no body to tell the length by.
            head.headers.insert(CONTENT_LENGTH, decimal(len));
        }
        // To measure, so that no entry takes up more than it is weighed by.
        let bytes = Bytes::from(content.into_boxed_slice());
        // What is coded already is as short as it gets, and a part is cut and joined as it is.
        let squeezable = part.is_none() && !head.headers.contains_key(CONTENT_ENCODING);
        let above = cache.config().compress_above_bytes;
        let content = Content::of(bytes, if squeezable { above } else { 0 });
        let part = part.filter(|part| !part.is_whole());
        if part.is_none() && head.status == StatusCode::PARTIAL_CONTENT {
            head.status = StatusCode::OK;
            head.headers.insert(CONTENT_LENGTH, decimal(len));
        }
        let for_whom = pilot.as_ref().filter(|pilot| pilot.has_passengers());
        let for_whom = for_whom.map(|_| key.clone());
        let entry = match writing {
            None => cache.put(key, head.with_content(content, part)),
            Some(writing) => {
                let entry = cache.put(key.clone(), head.with_content(content, part));
                cache.write_behind(&key, &entry, writing);
                entry
            }
        };
        if let Some(pilot) = pilot {
            pilot.land(Landing::Stored(entry, for_whom));
        }
    }

    /// The answer is not one that can be stored: remembers that, and sends the followers on.
    pub(crate) fn give_up(self: Box<Self>) {
        let Self {
            cache,
            key,
            pilot,
            lasting,
            ..
        } = *self;
        if lasting {
            let now = cache.clock().now();
            cache.pass(key, now);
        }
        if let Some(pilot) = pilot {
            pilot.land(Landing::Unusable);
        }
    }
}

/// The one length that a head announces, if it does.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Clients that ask and leave must not keep a service busy without end.
const FINISHING_MAX: usize = 32;

/// How long an answer is fetched that no client waits for.
pub(crate) const UNATTENDED_MAX: Duration = Duration::from_secs(60);

/// RFC 9110 §6.4.1: these never have content, and no Content-Length either (§8.6).
fn may_have_content(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}
