//! Shows whoever checks that instances agree what of the values in memory would be served.
//!
//! Of what is in Redis and in the cold store nothing is shown: it is judged anew by each reader, and nobody can
//! look through all of it.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

use crate::clock::Moment;
use crate::journal::{Journal, Probed, Seen, Temperature, Verdict, Wanted};
use crate::tiers::held::{ByBytes, Kept};
use crate::tiers::key::HotKey;
use crate::tiers::spaces::Spaces;

/// How many values are looked at before others get a turn: about 30 µs of them.
const SLICE: usize = 256;

/// How many values are looked at in all, 8 ms of them.
const LOOKS_MAX: usize = 65_536;

/// Looks at what is in memory, in no order, as far as the bound reaches.
pub(crate) async fn probe(
    hot: &Spaces<HotKey, Kept, ByBytes>,
    journal: &Journal,
    now: impl Fn() -> Moment + Send + Sync,
    wanted: &Wanted,
) -> Seen {
    let mut seen = Seen::of(Temperature::Hot);
    let mut looks = 0;
    for (_, space) in hot.all() {
        for (_, kept) in space.iter() {
            looks += 1;
            if looks > LOOKS_MAX {
                return seen;
            }
            if looks % SLICE == 0 {
                tokio::task::yield_now().await;
            }
            look(&kept, journal, now(), (wanted, &mut seen));
        }
    }
    seen
}

fn look(kept: &Kept, journal: &Journal, now: Moment, (wanted, seen): (&Wanted, &mut Seen)) {
    let meta = kept.meta();
    seen.worked(1);
    let ends = meta.life.fresh_until.min(meta.life.hot_until);
    let served =
        wanted.names(&meta.subject) && now < ends && meta.verdict(journal, now) == Verdict::Fresh;
    if !served {
        return;
    }
    let probed = Probed {
        key: hash_of(kept),
        born: meta.born,
        began: meta.began,
        // It may differ each time it is computed.
        value: None,
        lasts: ends.since(now),
    };
    seen.note(wanted, &meta.subject, &probed);
}

/// The same in every process.
fn hash_of(kept: &Kept) -> u64 {
    let mut state = FixedState::with_seed(0x0074_7970_6564).build_hasher();
    kept.meta().subject.hash_into(&mut state);
    state.finish()
}
