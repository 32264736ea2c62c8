//! A stored answer as bytes, for the tiers behind memory.
//!
//! The length of the head (4 bytes, little end first), the head, and the content as it is sent. Where answers
//! of one URL differ by `Vary`, what stands under the URL's own name is the list of the fields they differ by,
//! and each answer stands under a name of its own.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::cache::fields::{FieldRules, stored_fields};
use crate::cache::say::CacheTags;
use crate::cache::status::{CACHE_STATUS, STATUS_PLACE};
use crate::cache::terms::Terms;
use crate::cache::vary::{Selector, VaryRules};

/// Tells an answer from the values of typed caches.
pub(crate) const ANSWER: u8 = 3;
/// And from the fields that answers differ by.
pub(crate) const FIELDS: u8 = 4;

/// Everything of an answer but its content and its stamp.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedHead {
    status: u16,
    headers: Vec<(String, Bytes)>,
    selector: Vec<(String, Option<Bytes>)>,
    terms: PackedTerms,
    /// When its head arrived, Unix time in ms.
    pub(crate) arrived_ms: u64,
    tags: Vec<String>,
    browser: Option<Bytes>,
}

/// [`Terms`] in microseconds.
#[derive(Debug, Serialize, Deserialize)]
struct PackedTerms {
    lifetime: u64,
    ttl: Option<u64>,
    initial_age: u64,
    always_validate: bool,
    stale_while_revalidate: u64,
    stale_if_error: u64,
    stale_if_disconnected: u64,
    may_be_stale: bool,
    for_everyone: bool,
}

/// The parts of an answer that travel.
pub(crate) struct Parts<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) selector: &'a Selector,
    pub(crate) terms: &'a Terms,
    pub(crate) arrived_ms: u64,
    pub(crate) tags: &'a CacheTags,
    pub(crate) browser: Option<&'a HeaderValue>,
}

/// The same, come back.
pub(crate) struct Unpacked {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) selector: Selector,
    pub(crate) terms: Terms,
    pub(crate) arrived_ms: u64,
    pub(crate) tags: CacheTags,
    pub(crate) browser: Option<HeaderValue>,
    pub(crate) content: Bytes,
}

/// An answer as bytes. `None` for one that cannot be written down.
pub(crate) fn packed(parts: &Parts<'_>, content: &[u8]) -> Option<Vec<u8>> {
    let value = |value: &HeaderValue| Bytes::copy_from_slice(value.as_bytes());
    let fields = parts.headers.iter();
    // What only has its place there is put there again.
    let is_place = |name: &HeaderName, value: &HeaderValue| {
        *name == AGE || *name == CACHE_STATUS && *value == STATUS_PLACE
    };
    let fields = fields.filter(|(name, value)| !is_place(name, value));
    let selector = parts.selector.parts();
    let head = PackedHead {
        status: parts.status.as_u16(),
        headers: fields
            .map(|(name, field)| (name.to_string(), value(field)))
            .collect(),
        selector: selector
            .map(|(name, sent)| (name.to_string(), sent.map(Bytes::copy_from_slice)))
            .collect(),
        terms: PackedTerms::of(parts.terms),
        arrived_ms: parts.arrived_ms,
        tags: parts
            .tags
            .tags()
            .iter()
            .map(|tag| tag.to_string())
            .collect(),
        browser: parts.browser.map(value),
    };
    let head = rmp_serde::to_vec(&head).ok()?;
    let mut bytes = Vec::with_capacity(4 + head.len() + content.len());
    bytes.extend_from_slice(&u32::try_from(head.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(content);
    Some(bytes)
}

/// The answer of these bytes; `None` if they are none.
pub(crate) fn unpacked(
    bytes: &Bytes,
    (fields, vary): (&FieldRules, VaryRules),
    now: SystemTime,
) -> Option<Unpacked> {
    let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let end = usize::try_from(len).ok()?.checked_add(4)?;
    let head: PackedHead = rmp_serde::from_slice(bytes.get(4..end)?).ok()?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in head.headers {
        headers.append(name_of(&name)?, HeaderValue::from_maybe_shared(value).ok()?);
    }
    let selector: Option<Vec<(HeaderName, Option<Bytes>)>> = head
        .selector
        .into_iter()
        .map(|(name, sent)| Some((name_of(&name)?, sent)))
        .collect();
    let browser = match head.browser {
        Some(value) => Some(HeaderValue::from_maybe_shared(value).ok()?),
        None => None,
    };
    let tags = CacheTags::new(&head.tags);
    tags.are_complete().then_some(())?;
    Some(Unpacked {
        status: StatusCode::from_u16(head.status).ok()?,
        headers: stored_fields(&headers, fields, now),
        selector: Selector::from_parts(selector?.into_iter(), vary),
        terms: head.terms.unpacked(),
        arrived_ms: head.arrived_ms,
        tags,
        browser,
        content: bytes.slice(end..),
    })
}

/// The names of fields as bytes.
pub(crate) fn packed_names(selector: &Selector) -> Vec<u8> {
    let names: Vec<&str> = selector.parts().map(|(name, _)| name.as_str()).collect();
    names.join(",").into_bytes()
}

/// And back.
pub(crate) fn unpacked_names(bytes: &[u8]) -> Option<Vec<HeaderName>> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.split(',').map(name_of).collect()
}

fn name_of(text: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).ok()
}

impl PackedTerms {
    fn of(terms: &Terms) -> Self {
        Self {
            lifetime: micros(terms.lifetime),
            ttl: terms.ttl.map(micros),
            // Rounded up, so that nothing gets younger on the way.
            initial_age: micros(terms.initial_age.saturating_add(Duration::from_nanos(999))),
            always_validate: terms.always_validate,
            stale_while_revalidate: micros(terms.stale_while_revalidate),
            stale_if_error: micros(terms.stale_if_error),
            stale_if_disconnected: micros(terms.stale_if_disconnected),
            may_be_stale: terms.may_be_stale,
            for_everyone: terms.for_everyone,
        }
    }

    fn unpacked(&self) -> Terms {
        Terms {
            lifetime: Duration::from_micros(self.lifetime),
            ttl: self.ttl.map(Duration::from_micros),
            initial_age: Duration::from_micros(self.initial_age),
            always_validate: self.always_validate,
            stale_while_revalidate: Duration::from_micros(self.stale_while_revalidate),
            stale_if_error: Duration::from_micros(self.stale_if_error),
            stale_if_disconnected: Duration::from_micros(self.stale_if_disconnected),
            may_be_stale: self.may_be_stale,
            for_everyone: self.for_everyone,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
