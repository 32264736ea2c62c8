//! A computed value on its way into the tiers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::journal::{Stamp, Temperature, Verdict};
#[cfg(not(feature = "redis"))]
use crate::tiers::absent::Lease;
use crate::tiers::cold::ColdEntry;
use crate::tiers::computed::Computed;
use crate::tiers::fault::CacheError;
use crate::tiers::frame::{Header, TAG_BYTES_MAX, TAGS_MAX, Writing, encode};
use crate::tiers::held::{Cached, Making};
#[cfg(feature = "redis")]
use crate::tiers::lease::Lease;
use crate::tiers::looking::{Quest, saving};
use crate::tiers::luck;
use crate::tiers::terms::{Ends, millis};
use crate::tiers::typed::Inner;

/// The journal's position, and the time, before a computation began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) born: Stamp,
    pub(crate) at: Moment,
}

/// A value in memory, and what is to be written of it, if anything is.
pub(crate) struct Arrived<T> {
    pub(crate) value: Cached<T>,
    pub(crate) entry: Option<Written>,
}

/// Whether an entry is for Redis, and by which right it takes the place of what is there.
#[derive(Default)]
pub(crate) struct Sharing {
    pub(crate) lease: Option<Lease>,
    pub(crate) shares: bool,
    /// The journal has just confirmed its stamp.
    pub(crate) confirmed: bool,
}

/// What is to be written to the tiers behind memory.
pub(crate) struct Written {
    header: Header,
    body: Vec<u8>,
}

impl<T: Send + Sync + 'static> Inner<T> {
    /// A computation begins: whatever is invalidated from now on is younger.
    pub(crate) fn begin(&self) -> Begun {
        Begun {
            born: self.position(),
            at: self.clock.now(),
        }
    }

    /// Loses the race that nearly every cache loses, where a test wants to see whether that is seen.
    #[cfg(feature = "fault-injection")]
    fn late(&self, mut begun: Begun) -> Begun {
        if self.journal.stamps_late() {
            begun.born = self.position();
        }
        begun
    }

    /// Takes a value into memory that a computation has come to. The tiers behind will have it if it `shares`.
    pub(crate) fn arrived(
        &self,
        quest: &Quest,
        computed: Computed<T>,
        (begun, took): (Begun, Duration),
        shares: bool,
    ) -> Arrived<T> {
        #[cfg(feature = "fault-injection")]
        let begun = self.late(begun);
        let Computed {
            value,
            ttl,
            tags,
            negative,
            stored,
        } = computed;
        let now = self.tiers.now();
        let tags: Vec<Arc<str>> = quest.terms.tags.iter().cloned().chain(tags).collect();
        let subject = self.subject(&quest.text, tags.iter());
        let fresh_for = quest.terms.fresh_for(ttl, negative, luck::unit());
        let stores = stored
            && fresh_for > Duration::ZERO
            && can_be_reached(&tags)
            // What a lagging replica may have supplied is for those who wait now.
            && self.journal.has_settled(begun.at, &subject);
        // How large it is, its bytes tell; where nobody wants them, nobody makes them.
        let body = stores.then(|| self.codec.encode(&value)).transpose();
        if body.is_err() {
            self.unreadable(Temperature::Hot, "encode");
        }
        // Of what cannot be written, nobody knows what it takes up.
        let stores = stores && (body.is_ok() || self.can_weigh());
        let body = body.ok().flatten();
        let size = body.as_ref().map_or(size_of::<T>(), Vec::len);
        let fits = size as u64 <= self.tiers.config().value_bytes_max;
        if !fits {
            self.tally.too_large.one();
        }
        let making = Making {
            born: begun.born,
            subject,
            life: quest.terms.life(fresh_for, took, now),
            began: Some(begun.at),
            cost: took,
            value_bytes: self.weight(&value, size),
            saving: if shares { saving(size) } else { nanos(took) },
            tally: Arc::clone(&self.tally),
            tags: tags.clone().into(),
        };
        let value = Cached::new(value, making);
        let holds = value.meta().verdict(&self.journal, now.moment) != Verdict::Gone;
        let stores = stores && fits && holds;
        if stores {
            self.keep(&quest.text, value.kept());
        }
        let ends = quest.terms.ends(fresh_for, now);
        let entry = body.filter(|_| stores).map(|body| Written {
            header: self.header((begun.born, took), ends, (negative, tags)),
            body,
        });
        Arrived { value, entry }
    }

    fn header(
        &self,
        (stamp, cost): (Stamp, Duration),
        ends: Ends,
        (negative, tags): (bool, Vec<Arc<str>>),
    ) -> Header {
        Header {
            stamp,
            made_ms: self.tiers.now().wall_ms,
            fresh_until_ms: ends.fresh_until_ms,
            stale_until_ms: ends.stale_until_ms,
            cost_us: u32::try_from(cost.as_micros()).unwrap_or(u32::MAX),
            codec: self.codec.id(),
            negative,
            tags,
        }
    }

    /// Has other instances find what the cold store has kept.
    pub(crate) async fn share(&self, quest: &Quest, value: &Cached<T>) {
        let Ok(body) = self.codec.encode(value) else {
            return;
        };
        let (meta, now) = (value.meta(), self.tiers.now());
        let life = meta.life;
        let left = life.fresh_until.since(now.moment);
        let fresh_until_ms = now.wall_ms.saturating_add(millis(left));
        let ends = Ends {
            fresh_until_ms,
            stale_until_ms: fresh_until_ms.saturating_add(millis(life.revalidate.max(life.error))),
        };
        let entry = Written {
            header: self.header((meta.born, meta.cost), ends, (false, meta.tags.to_vec())),
            body,
        };
        if let Some(entry) = self.framed(quest, &entry) {
            let sharing = Sharing {
                confirmed: true,
                ..Sharing::default()
            };
            self.fill(quest, (&entry, ends), sharing).await;
        }
    }

    /// Writes an entry to the tiers behind memory.
    pub(crate) async fn write(&self, quest: &Quest, entry: Written, sharing: Sharing) {
        // Whoever has not met the journal yet cannot say for others how old it is.
        if entry.header.stamp.inc == 0 {
            return;
        }
        let cold = self
            .tiers
            .cold()
            .filter(|_| quest.terms.cold > Duration::ZERO);
        let shares = sharing.shares && self.tiers.warm().is_some();
        if !shares && cold.is_none() {
            return;
        }
        let ends = Ends {
            fresh_until_ms: entry.header.fresh_until_ms,
            stale_until_ms: entry.header.stale_until_ms,
        };
        let Some(framed) = self.framed(quest, &entry) else {
            return;
        };
        if shares {
            self.fill(quest, (&framed, ends), sharing).await;
        }
        if let Some(cold) = cold {
            // A queue that is full drops its oldest, and counts it.
            let _ = cold.behind.offer(ColdEntry {
                key: Arc::clone(&quest.place),
                bytes: Bytes::from(framed),
                until_ms: quest.terms.cold_until(ends, self.tiers.now()),
            });
        }
    }

    /// The bytes of an entry.
    fn framed(&self, quest: &Quest, entry: &Written) -> Option<Vec<u8>> {
        let squeeze_above = self.tiers.config().compress_above_bytes;
        let how = Writing {
            squeeze_above: usize::try_from(squeeze_above).unwrap_or(usize::MAX),
            seals: self.tiers.seals().filter(|_| self.sealed),
        };
        encode(&entry.header, &quest.identity, &entry.body, &how).ok()
    }

    async fn fill(&self, quest: &Quest, (entry, ends): (&[u8], Ends), sharing: Sharing) {
        let Some(warm) = self.tiers.warm().filter(|warm| warm.is_up()) else {
            return;
        };
        let lasts = quest.terms.warm_for(ends, self.tiers.now());
        if millis(lasts) > 0 {
            // Where Redis goes away meanwhile, others compute for themselves.
            let entry = (entry, lasts, sharing.confirmed);
            let _ = warm.fill(&quest.place, sharing.lease, entry).await;
        }
    }

    /// Remembers for a while that computing it fails, in this process.
    pub(crate) fn remember(
        &self,
        quest: &Quest,
        error: &CacheError,
        (begun, lasts): (Begun, Duration),
    ) {
        // What is fresh, and was to be computed early, or is stale and may stand in, is of more use.
        if self.has_value(&quest.text) {
            return;
        }
        let mut terms = quest.terms.clone();
        (terms.revalidate, terms.error) = (Duration::ZERO, Duration::ZERO);
        let making = Making {
            born: begun.born,
            subject: self.subject(&quest.text, quest.terms.tags.iter()),
            life: terms.life(lasts, Duration::ZERO, self.tiers.now()),
            began: Some(begun.at),
            cost: Duration::ZERO,
            value_bytes: error.to_string().len(),
            saving: 0,
            tally: Arc::clone(&self.tally),
            tags: Arc::default(),
        };
        self.keep(&quest.text, Cached::new(error.clone(), making).kept());
    }
}

/// Whether a purge by any of the tags would reach what has them.
fn can_be_reached(tags: &[Arc<str>]) -> bool {
    tags.len() <= TAGS_MAX && tags.iter().all(|tag| tag.len() <= TAG_BYTES_MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
