//! An answer that is being recorded while it streams to its client.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::cache::engine::Cache;
use crate::cache::entry::{Entry, compact};
use crate::cache::flight::{Landing, Pilot};
use crate::cache::key::CacheKey;
use crate::cache::policy::Terms;
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::journal::{Checked, Stamp, Subject};

/// The head of the answer, and the frames so far. Dropping it stores nothing and hands the flight on.
#[derive(Debug)]
pub(crate) struct Recording {
    cache: Cache,
    key: CacheKey,
    head: Head,
    pilot: Option<Pilot>,
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

/// Everything of an entry but its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) selector: Selector,
    pub(crate) terms: Terms,
    pub(crate) arrived: Moment,
    pub(crate) born: Stamp,
    pub(crate) subject: Subject,
}

impl Head {
    /// The entry of this head and `body`.
    pub(crate) fn with_body(self, body: Bytes) -> Entry {
        let Self {
            status,
            headers,
            selector,
            terms,
            arrived,
            born,
            subject,
        } = self;
        let (headers, checked) = (compact(&headers), Checked::at(born));
        Entry {
            status,
            headers,
            body,
            selector,
            terms,
            arrived,
            born,
            checked,
            subject,
        }
    }
}

impl Recording {
    pub(crate) fn new(cache: Cache, key: CacheKey, head: Head, pilot: Option<Pilot>) -> Self {
        let announced = announced(&head.headers);
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
            pilot,
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
        let announced = self.announced.filter(|announced| *announced <= most);
        if !self.held.reach(self.len.max(announced.unwrap_or(0))) {
            // There is no room now. There may be for the next one.
            self.lasting = false;
            return false;
        }
        if self.content.is_empty() {
            // Most answers are one piece, or say how long they are.
            let announced = announced.and_then(|announced| usize::try_from(announced).ok());
            self.content
                .reserve_exact(announced.unwrap_or(0).max(data.len()));
        }
        self.content.extend_from_slice(data);
        true
    }

    pub(crate) fn is_as_long_as_announced(&self) -> bool {
        self.announced == Some(self.len)
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
            pilot,
            content,
            len,
            ..
        } = *self;
        // To measure, so that no entry takes up more than it is weighed by.
        let body = Bytes::from(content.into_boxed_slice());
        if may_have_content(head.status) {
            // A HEAD that is answered from this entry has no body to tell the length by.
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
        cache.put(key, head.with_body(body));
        if let Some(pilot) = pilot {
            pilot.land(Landing::Stored);
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

/// RFC 9110 §6.4.1: these never have content, and no Content-Length either (§8.6).
fn may_have_content(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}
