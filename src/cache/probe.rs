//! Shows whoever checks that instances agree what of the hot tier would be served.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;
use http::header::ETAG;

use crate::cache::entry::{ELSEWHERE, Entry};
use crate::cache::hot::{HotTier, Slot};
use crate::cache::key::CacheKey;
use crate::clock::Moment;
use crate::journal::{Journal, Probed, Seen, Temperature, Verdict, Wanted};

/// How many URLs are looked at before others get a turn: about 30 µs of them.
const SLICE: usize = 256;

/// How many URLs are looked at in all, 8 ms of them.
const LOOKS_MAX: usize = 65_536;

/// Longer content is not hashed.
const HASHED_MAX: usize = 64 << 10;

/// Bytes that are hashed, or unpacked, in the time of one look.
const BYTES_PER_LOOK: usize = 256;

/// Looks at what is stored, in no order, as far as the bound reaches.
pub(crate) async fn probe(
    hot: &HotTier,
    journal: &Journal,
    now: impl Fn() -> Moment + Send + Sync,
    wanted: &Wanted,
) -> Seen {
    let mut seen = Seen::of(Temperature::Hot);
    for (at, (key, slot)) in hot.iter().take(LOOKS_MAX).enumerate() {
        if at % SLICE == SLICE - 1 {
            tokio::task::yield_now().await;
        }
        look((&key, &slot), journal, &now, (wanted, &mut seen));
    }
    seen
}

fn look(
    (key, slot): (&CacheKey, &Slot),
    journal: &Journal,
    now: &(impl Fn() -> Moment + Send + Sync),
    (wanted, seen): (&Wanted, &mut Seen),
) {
    for entry in slot.entries() {
        seen.worked(1);
        if !wanted.names(&entry.subject) {
            continue;
        }
        let now = now();
        if entry.verdict(journal, now) != Verdict::Fresh {
            continue;
        }
        let value = value(entry);
        if value.is_some() {
            seen.worked((entry.content.len() / BYTES_PER_LOOK) as u64);
        }
        let probed = Probed {
            key: hash_of(key, entry),
            born: entry.born,
            began: (entry.began != ELSEWHERE).then_some(entry.began),
            value,
            lasts: entry.fresh_until.since(now),
        };
        seen.note(wanted, &entry.subject, &probed);
    }
}

/// The same in every process, unlike the hash that the key carries.
fn hash_of(key: &CacheKey, entry: &Entry) -> u64 {
    let mut state = SEED.build_hasher();
    (key.part_and_authority(), key.target()).hash(&mut state);
    entry.selector.hash(&mut state);
    state.finish()
}

/// Only a strong validator promises that the bytes are the same (RFC 9110 §8.8.1): other answers may well
/// differ each time they are made.
fn value(entry: &Entry) -> Option<(u64, u64)> {
    let tag = entry.headers.get(ETAG)?.as_bytes();
    if tag.starts_with(b"W/") || entry.part.is_some() || entry.content.len() > HASHED_MAX {
        return None;
    }
    let hash = |bytes: &[u8]| SEED.hash_one(bytes);
    Some((hash(tag), hash(&entry.content.bytes())))
}

const SEED: FixedState = FixedState::with_seed(0x0074_6965_7273);
