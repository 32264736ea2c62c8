//! One stored answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::cache::content::Content;
use crate::cache::fields::weight;
use crate::cache::part::Part;
use crate::cache::range::{Wanted, wanted};
use crate::cache::say::CacheTags;
use crate::cache::terms::Terms;
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::journal::{Checked, Journal, Stamp, Subject, Verdict};
use crate::response::decimal;
use crate::tiers::Uses;

/// A stored answer with everything that decides whether it may be served.
///
/// In the order of the fields: what a hit reads stands together, for a hit that is not in the processor's
/// cache takes as long as it touches lines of memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Entry {
    /// Until when it is fresh for whoever has no wishes of its own.
    pub(crate) fresh_until: Moment,
    /// When its head arrived.
    pub(crate) arrived: Moment,
    /// Its age then, as in its terms.
    initial_age: Duration,
    /// The journal's position before the origin was asked.
    pub(crate) born: Stamp,
    pub(crate) checked: Checked,
    /// How often it was served: for people to look at, so a lost count does not matter.
    hits: AtomicU64,
    /// How often its slot was asked for, as far as that decides what stays.
    pub(crate) uses: Uses,
    pub(crate) selector: Selector,
    pub(crate) status: StatusCode,
    pub(crate) for_everyone: bool,
    /// All of the answer, which clients are sent with its own `Cache-Control`.
    pub(crate) is_plain: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
    /// Which part of the answer the content is; `None` for all of it.
    pub(crate) part: Option<Part>,
    pub(crate) terms: Terms,
    pub(crate) subject: Subject,
    pub(crate) tags: CacheTags,
    /// When its computation began, after `born` was read; [`ELSEWHERE`] if that was in another process.
    pub(crate) began: Moment,
    /// What clients are told instead of its `Cache-Control`.
    pub(crate) browser: Option<HeaderValue>,
    bytes: usize,
}

/// Everything of an entry but its content.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) selector: Selector,
    pub(crate) terms: Terms,
    pub(crate) arrived: Moment,
    pub(crate) born: Stamp,
    pub(crate) began: Moment,
    pub(crate) subject: Subject,
    pub(crate) tags: CacheTags,
    pub(crate) browser: Option<HeaderValue>,
}

impl Head {
    /// The entry of this head and `content`, which is all of it or a `part`.
    pub(crate) fn with_content(self, content: Content, part: Option<Part>) -> Entry {
        let Self {
            status,
            headers,
            selector,
            terms,
            arrived,
            born,
            began,
            subject,
            tags,
            browser,
        } = self;
        let names = size_of_val(subject.names()) + subject.key().len();
        let tag_bytes = tags.tags().iter().map(|tag| tag.len() + TAG_OVERHEAD);
        let bytes = size_of::<Entry>()
            + content.weight()
            + weight(&headers)
            + names
            + tag_bytes.sum::<usize>()
            + selector.bytes();
        let lives = terms.fresh_until().saturating_sub(terms.initial_age);
        Entry {
            status,
            headers,
            content,
            is_plain: part.is_none() && browser.is_none(),
            part,
            selector,
            arrived,
            fresh_until: arrived.plus(lives),
            initial_age: terms.initial_age,
            for_everyone: terms.for_everyone,
            terms,
            born,
            began,
            checked: Checked::at(born),
            subject,
            tags,
            browser,
            hits: AtomicU64::new(0),
            uses: Uses::default(),
            bytes,
        }
    }
}

impl Entry {
    /// The same answer with another part of its content; all of it, if that is what the part is.
    pub(crate) fn with_more(self, content: Content, part: Part) -> Self {
        let mut headers = self.headers;
        let status = if part.is_whole() {
            headers.insert(CONTENT_LENGTH, decimal(part.complete));
            StatusCode::OK
        } else {
            self.status
        };
        let head = Head {
            status,
            headers,
            selector: self.selector,
            terms: self.terms,
            arrived: self.arrived,
            born: self.born,
            began: self.began,
            subject: self.subject,
            tags: self.tags,
            browser: self.browser,
        };
        head.with_content(content, Some(part).filter(|part| !part.is_whole()))
    }

    /// Stamped with what it is not. Wrong on purpose.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn stamped_late(mut self, late: bool, now: Stamp) -> Self {
        if late {
            (self.born, self.checked) = (now, Checked::at(now));
        }
        self
    }

    /// RFC 9111 §4.2.3, `current_age`.
    #[inline]
    pub(crate) fn age(&self, now: Moment) -> Duration {
        self.initial_age.saturating_add(now.since(self.arrived))
    }

    /// What the journal says of it at `now`.
    #[inline]
    pub(crate) fn verdict(&self, journal: &Journal, now: Moment) -> Verdict {
        journal.judge(self.born, &self.checked, &self.subject, now)
    }

    /// What it takes up, in bytes: content, fields, and the structures around them.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The length of the whole answer, of which this may be a part.
    pub(crate) fn whole_len(&self) -> u64 {
        self.part
            .map_or(self.content.len() as u64, |part| part.complete)
    }

    /// What of it a request of these fields wants. A part that lacks some of it is of no use: `None`.
    pub(crate) fn wanted(&self, request: &HeaderMap) -> Option<Wanted> {
        // RFC 9110 §14.2: a range is of a success only ("if the .. result would be a 200 (OK)").
        if self.part.is_none() && self.status != StatusCode::OK {
            return Some(Wanted::Whole);
        }
        let wanted = wanted(request, &self.headers, self.whole_len());
        match (&wanted, self.part) {
            (Wanted::Whole, Some(_)) => None,
            (Wanted::Spans(spans), Some(part)) if !spans.iter().all(|span| part.holds(*span)) => {
                None
            }
            _ => Some(wanted),
        }
    }

    /// Whether the origin can be asked whether it still holds (RFC 9110 §8.8).
    pub(crate) fn validates(&self) -> Option<()> {
        let has = |name| self.headers.contains_key(name);
        (has(ETAG) || has(LAST_MODIFIED)).then_some(())
    }

    #[inline]
    pub(crate) fn count_hit(&self) {
        // Not an addition: that would make the processors of all threads agree on it.
        let hits = self.hits.load(Ordering::Relaxed);
        self.hits.store(hits.wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

/// No computation of this process begins with its clock.
pub(crate) const ELSEWHERE: Moment = Moment::from_nanos(0);

/// A pointer, a length and two counts beside a tag's text.
const TAG_OVERHEAD: usize = 32;
