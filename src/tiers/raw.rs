//! Entries behind memory for a room that has a form of its own for them: the HTTP cache.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::event::Event;
use crate::journal::{Checked, Stamp, Subject, Temperature, Verdict};
#[cfg(not(feature = "redis"))]
use crate::tiers::absent::Lease;
use crate::tiers::claiming::Unfit;
use crate::tiers::cold::ColdEntry;
use crate::tiers::engine::Tiers;
use crate::tiers::frame::{Header, Writing, decode, encode};
#[cfg(feature = "redis")]
use crate::tiers::lease::Lease;
#[cfg(feature = "redis")]
use crate::tiers::looking::TELLING;
use crate::tiers::place::hashed_place;
use crate::tiers::terms::millis;

/// Where an entry is.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) place: Arc<str>,
    identity: Arc<str>,
    #[cfg(feature = "redis")]
    tenant: Option<Arc<str>>,
}

/// What is stored at a spot.
pub(crate) struct Stored {
    pub(crate) header: Header,
    pub(crate) body: Bytes,
    pub(crate) from: Temperature,
    judge: Judge,
}

enum Judge {
    #[cfg(feature = "redis")]
    Read(crate::tiers::warm::Read),
    Mirror,
}

/// What looking came to.
pub(crate) struct Sought {
    pub(crate) stored: Option<Stored>,
    /// What Redis has, if it is of no use.
    pub(crate) unfit: Unfit,
    /// Redis could not be asked.
    pub(crate) is_away: bool,
}

impl Sought {
    fn nothing(is_away: bool) -> Self {
        Self {
            stored: None,
            unfit: Unfit::default(),
            is_away,
        }
    }
}

impl Tiers {
    /// The spot of an entry of a room of its own. The text may be anything.
    pub(crate) fn spot(&self, tenant: Option<&str>, room: &str, text: &str) -> Spot {
        let identity = match tenant {
            Some(tenant) => format!("{}:{tenant}/{room}:{text}", tenant.len()),
            None => format!("{room}:{text}"),
        };
        Spot {
            place: hashed_place(self.prefix(), room, &identity),
            identity: identity.into(),
            #[cfg(feature = "redis")]
            tenant: tenant.map(Into::into),
        }
    }

    /// Looks in Redis, and, if that has nothing, in the cold store.
    pub(crate) async fn seek(&self, spot: &Spot, body_max: u64) -> Sought {
        let sought = self.seek_warm(spot, body_max).await;
        if sought.stored.is_some() {
            return sought;
        }
        Sought {
            stored: self.seek_cold(spot, body_max).await,
            ..sought
        }
    }

    #[cfg(not(feature = "redis"))]
    #[expect(clippy::unused_async, reason = "the twin with Redis waits")]
    pub(crate) async fn seek_warm(&self, _: &Spot, _: u64) -> Sought {
        Sought::nothing(true)
    }

    /// Looks in Redis.
    #[cfg(feature = "redis")]
    pub(crate) async fn seek_warm(&self, spot: &Spot, body_max: u64) -> Sought {
        let Some(warm) = self.warm() else {
            return Sought::nothing(true);
        };
        let place = Arc::clone(&spot.place);
        let Ok(read) = warm.read(place, spot.tenant.as_deref()).await else {
            return Sought::nothing(true);
        };
        let mut sought = Sought::nothing(false);
        if let Some(bytes) = read.bytes.clone() {
            let beginning = bytes.get(..bytes.len().min(TELLING));
            sought.unfit.beginning = beginning.unwrap_or_default().to_vec();
            let opened = self.opened(spot, (&bytes, Temperature::Warm), body_max);
            sought.unfit.is_unreadable = opened.is_none();
            sought.stored = opened.map(|(header, body)| Stored {
                header,
                body,
                from: Temperature::Warm,
                judge: Judge::Read(read),
            });
        }
        sought
    }

    async fn seek_cold(&self, spot: &Spot, body_max: u64) -> Option<Stored> {
        let bytes = self.cold()?.read(&spot.place, self.now().wall_ms).await?;
        let (header, body) = self.opened(spot, (&bytes, Temperature::Cold), body_max)?;
        Some(Stored {
            header,
            body,
            from: Temperature::Cold,
            judge: Judge::Mirror,
        })
    }

    fn opened(
        &self,
        spot: &Spot,
        (bytes, from): (&Bytes, Temperature),
        body_max: u64,
    ) -> Option<(Header, Bytes)> {
        let max = usize::try_from(body_max).unwrap_or(usize::MAX);
        let opened = decode(bytes, &spot.identity, None, max);
        opened
            .map_err(|why| {
                self.emit(Event::EntryUnreadable {
                    tier: from.as_str(),
                    why: why.as_str(),
                });
            })
            .ok()
    }

    /// What is to be said of something that was found.
    pub(crate) fn verdict(&self, stored: &Stored, subject: &Subject) -> Verdict {
        let stamp: Stamp = stored.header.stamp;
        // Whoever wrote it had not met the journal: nobody knows what was invalidated since.
        if stamp.inc == 0 {
            return Verdict::Gone;
        }
        match &stored.judge {
            #[cfg(feature = "redis")]
            Judge::Read(read) => read.verdict(stamp, subject),
            Judge::Mirror => {
                let checked = Checked::at(stamp);
                self.journal()
                    .judge(stamp, &checked, subject, self.moment())
            }
        }
    }

    /// Writes an entry for as long, to Redis (unless `shares` says that others are at it) and to the cold store.
    pub(crate) async fn store(
        &self,
        spot: &Spot,
        (header, body): (&Header, &[u8]),
        lasts: Duration,
        (lease, shares): (Option<Lease>, bool),
    ) {
        if header.stamp.inc == 0 {
            return;
        }
        let squeeze_above = self.config().compress_above_bytes;
        let how = Writing {
            squeeze_above: usize::try_from(squeeze_above).unwrap_or(usize::MAX),
            seals: None,
        };
        let Ok(entry) = encode(header, &spot.identity, body, &how) else {
            return;
        };
        let warm = lasts.min(self.config().ttl_warm);
        if let Some(redis) = self.warm().filter(|warm| shares && warm.is_up()) {
            // Where Redis goes away meanwhile, others ask for themselves.
            let _ = redis.fill(&spot.place, lease, (&entry, warm, false)).await;
        }
        if let Some(cold) = self.cold() {
            let cold_for = lasts.min(self.config().ttl_cold);
            // A queue that is full drops its oldest, and counts it.
            let _ = cold.behind.offer(ColdEntry {
                key: Arc::clone(&spot.place),
                bytes: Bytes::from(entry),
                until_ms: self.now().wall_ms.saturating_add(millis(cold_for)),
            });
        }
    }
}
