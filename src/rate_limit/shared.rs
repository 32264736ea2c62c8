//! Buckets that all instances share: they live in Redis and go by its clock.
//!
//! A decision over any number of buckets is one script, so one round trip, and all or nothing. In a
//! cluster the buckets of one owner lie on one server; a decision over several owners asks all of them at
//! the same time, and gives back what was granted beyond what all agreed on.
//!
//! # Tokens taken in advance are never too many
//!
//! Let `full` be the time at which a bucket is full again, and `capacity` what it holds. A lease of `k`
//! tokens moves `full` on by `k` intervals, and these intervals are its own: charges only ever add to the
//! end, and nothing is given back from before the end of the latest lease. A holder uses a token only while
//! the token's interval is not over. So at any time the tokens that are held, by all holders together, have
//! no more intervals than lie between now and `full`, while the level of the bucket is what `capacity` has
//! beyond those:
//!
//! > level + tokens held ≤ capacity
//!
//! That sum grows by the quota's rate at most, and whatever passes takes from it. Hence whatever moment one
//! begins to count at, no more than `capacity` and what grows back since passes, however many instances
//! hold tokens and however many of them die. A holder counts from before it asked, so that the way back
//! shortens its time and never lengthens it. It may hold two leases of one bucket, but each has its own end.
//! Of a window of the calendar nothing grows back, and held tokens end with it.
//!
//! What this leaves open: clocks that run at another speed, a server that loses its data or whose clock is
//! put forward, and a quota that is changed while tokens of the old one are held.
//!
//! # Ghosts
//!
//! A `take` or a `debit` whose answer was lost may have been charged, and the tokens that it took in
//! advance are nobody's. That is the strict side: somebody waits longer, nobody gets too much. For the same
//! reason a `give_back` is never repeated. Bans and announcements may be repeated at will.

use std::time::Duration;

use crate::rate_limit::ask::{Answer, Ask, Part, Told};
use crate::rate_limit::ban_talk::CHANNEL;
use crate::rate_limit::script::{self, ANNOUNCE, BAN, SETTLE, Settle, TAKE};
use crate::store::{Batch, Call, Command, RedisPool, Replies, Script, StoreError};
use crate::task::Spawner;

/// What the pool has to be built with.
pub(crate) static SCRIPTS: [&Script; 4] = [&TAKE, &SETTLE, &BAN, &ANNOUNCE];

/// No ban and no announcement lasts longer, so that all times can be reckoned with.
const LASTS_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The limiter's way to Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pool: RedisPool,
    spawner: Spawner,
}

/// The parts of a decision that one server decides about, by their places among all parts.
struct Share<'a> {
    ban: Option<&'a str>,
    places: Vec<usize>,
}

impl Shared {
    /// Buckets in the Redis of a pool that knows the [`SCRIPTS`]. What nobody waits for is spawned.
    pub(crate) const fn new(pool: RedisPool, spawner: Spawner) -> Self {
        Self { pool, spawner }
    }

    /// Decides about requests and charges them, unless the owner named in `ban` is banned.
    ///
    /// One round trip; in a cluster a second one for tokens in advance from several owners' buckets.
    ///
    /// # Errors
    ///
    /// Those of the store; see the file's head for what may have been charged then. Where only some servers
    /// of a cluster answered, theirs is given back.
    ///
    /// # Cancellation
    ///
    /// As if the answer was lost.
    pub(crate) async fn take(&self, ask: &Ask, ban: Option<&str>) -> Result<Answer, StoreError> {
        let shares = self.shares(&ask.parts, ban);
        match shares.as_slice() {
            [] => Ok(nobody_asked(ask)),
            [only] => {
                let parts: Vec<&Part> = ask.parts.iter().collect();
                let call = script::take(&self.pool, &TAKE, (ask.requests, only.ban), &parts);
                read(&self.pool.call::<Vec<u64>>(&call).await?, parts.len())
            }
            several => Box::pin(self.agree(ask, several)).await,
        }
    }

    /// Gives tokens back, so many to each part. From before the end of a lease, and to a window that is
    /// over, nothing is.
    ///
    /// # Errors
    ///
    /// Those of the store. Not to be repeated.
    pub(crate) async fn give_back(&self, parts: &[Part], tokens: &[u32]) -> Result<(), StoreError> {
        self.settle(Settle::Back, parts, tokens).await
    }

    /// Charges tokens after the fact, so many to each part: beyond what the bucket holds, up to as much
    /// again. A window that is over is not charged but the one that runs.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn debit(&self, parts: &[Part], tokens: &[u32]) -> Result<(), StoreError> {
        self.settle(Settle::Debit, parts, tokens).await
    }

    /// Bans an owner for so long; never shortens a ban.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn ban(&self, owner: &str, lasts: Duration) -> Result<(), StoreError> {
        let call = Call::new(&BAN).key(script::ban_key(&self.pool, owner));
        self.pool.call(&call.arg(millis(lasts))).await
    }

    /// Ends a ban.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn unban(&self, owner: &str) -> Result<(), StoreError> {
        let del = Command::new("DEL").key(script::ban_key(&self.pool, owner));
        self.pool.run(&del).await
    }

    /// Says something to all instances about bans.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn say(&self, message: String) -> Result<(), StoreError> {
        let channel = self.pool.key(CHANNEL);
        self.pool.publish(channel, message).await.map(drop)
    }

    /// Says that this instance lives for `ttl` more. Returns how many do, this one included.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn announce(&self, instance: &str, ttl: Duration) -> Result<u32, StoreError> {
        let call = Call::new(&ANNOUNCE).key(script::instances_key(&self.pool));
        self.pool.call(&call.arg(instance).arg(millis(ttl))).await
    }

    /// Says that this instance ends.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        let key = script::instances_key(&self.pool);
        let leave = Command::new("ZREM").key(key).arg(instance);
        self.pool.run(&leave).await
    }

    /// Who decides about what: one server about everything, but in a cluster each owner's about its own.
    fn shares<'a>(&self, parts: &'a [Part], ban: Option<&'a str>) -> Vec<Share<'a>> {
        let mut shares: Vec<Share<'a>> = Vec::new();
        if parts.is_empty() && ban.is_none() {
            return shares;
        }
        if !self.pool.is_cluster() {
            let places = (0..parts.len()).collect();
            return vec![Share { ban, places }];
        }
        let mut owners: Vec<&str> = Vec::new();
        if let Some(owner) = ban {
            owners.push(owner);
            let places = Vec::new();
            shares.push(Share { ban, places });
        }
        for (place, part) in parts.iter().enumerate() {
            let known = owners.iter().position(|owner| **owner == *part.owner);
            match known.and_then(|known| shares.get_mut(known)) {
                Some(share) => share.places.push(place),
                None => {
                    owners.push(&part.owner);
                    let places = vec![place];
                    shares.push(Share { ban: None, places });
                }
            }
        }
        shares
    }

    /// Asks several servers at once, and takes back what not all of them granted.
    async fn agree(&self, ask: &Ask, shares: &[Share<'_>]) -> Result<Answer, StoreError> {
        // In advance is taken only once all agree: what lies before a lease could not be given back.
        let bare = without_lease(&ask.parts);
        let answers = self.ask_all(ask.requests, &bare, shares).await?;
        let all = answers.iter().map(granted).min().unwrap_or(0);
        let mut told = vec![NOTHING; ask.parts.len()];
        let mut surplus = Vec::new();
        for (share, answer) in shares.iter().zip(&answers) {
            let beyond = granted(answer) - all;
            let known = answer.as_ref().map_or(&[][..], |answer| &answer.told);
            for (&place, &known) in share.places.iter().zip(known) {
                let (Some(part), Some(slot)) = (bare.get(place), told.get_mut(place)) else {
                    continue;
                };
                *slot = known;
                let tokens = beyond.saturating_mul(part.cost);
                if tokens > 0 {
                    slot.ahead = slot.ahead.saturating_sub(part.worth_of(tokens));
                    let (window, part) = (known.window, part.clone());
                    surplus.push((Part { window, ..part }, tokens));
                }
            }
        }
        self.return_soon(surplus);
        let mut banned = None;
        for answer in answers {
            banned = banned.or(answer?.banned);
        }
        if banned.is_some() {
            told.clear();
        } else if all == ask.requests {
            self.advance(&ask.parts, &mut told).await;
        }
        Ok(Answer {
            granted: all,
            told,
            banned,
        })
    }

    /// Asks each server about its share; the errors are each server's own.
    async fn ask_all(
        &self,
        requests: u32,
        parts: &[Part],
        shares: &[Share<'_>],
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let mut batch = Batch::new();
        for share in shares {
            let asked = (requests, share.ban);
            let parts: Vec<&Part> = share
                .places
                .iter()
                .filter_map(|&at| parts.get(at))
                .collect();
            batch = batch.call(script::take(&self.pool, &TAKE, asked, &parts));
        }
        let mut replies: Replies = self.pool.run_all(&batch).await?;
        let read = |share: &Share<'_>| read(&replies.read::<Vec<u64>>()?, share.places.len());
        Ok(shares.iter().map(read).collect())
    }

    /// Takes tokens in advance from buckets of several owners. Where that fails there are none.
    async fn advance(&self, parts: &[Part], told: &mut [Told]) {
        let (mut places, mut wanting) = (Vec::new(), Vec::new());
        for (place, part) in parts.iter().enumerate().filter(|(_, part)| part.lease > 0) {
            places.push(place);
            let (hint, debt) = (0, 0);
            let part = part.clone();
            wanting.push(Part { hint, debt, ..part });
        }
        if wanting.is_empty() {
            return;
        }
        let shares = self.shares(&wanting, None);
        let Ok(answers) = self.ask_all(0, &wanting, &shares).await else {
            return;
        };
        for (share, answer) in shares.iter().zip(answers) {
            let known = answer.map_or_else(|_| Vec::new(), |answer| answer.told);
            for (&at, known) in share.places.iter().zip(known) {
                let slot = places.get(at).and_then(|&place| told.get_mut(place));
                if let Some(slot) = slot {
                    *slot = known;
                }
            }
        }
    }

    /// Gives back what was charged for requests that others denied. Nobody waits for it.
    fn return_soon(&self, surplus: Vec<(Part, u32)>) {
        if surplus.is_empty() {
            return;
        }
        let shared = self.clone();
        self.spawner.spawn(async move {
            let (parts, tokens): (Vec<Part>, Vec<u32>) = surplus.into_iter().unzip();
            if let Err(error) = shared.give_back(&parts, &tokens).await {
                tracing::debug!(target: "tower_keep", %error, "denied requests remain charged");
            }
        });
    }

    async fn settle(&self, way: Settle, parts: &[Part], tokens: &[u32]) -> Result<(), StoreError> {
        let call = |share: &Share<'_>| {
            let at = share.places.iter();
            let parts: Vec<(&Part, u32)> = at
                .filter_map(|&at| Some((parts.get(at)?, *tokens.get(at)?)))
                .collect();
            script::settle(&self.pool, &SETTLE, way, &parts)
        };
        match self.shares(parts, None).as_slice() {
            [] => Ok(()),
            [only] => self.pool.call(&call(only)).await,
            several => {
                let batch = several.iter().map(call).fold(Batch::new(), Batch::call);
                self.pool
                    .run_all(&batch)
                    .await?
                    .try_for_each(|reply| reply.map(drop))
            }
        }
    }
}

/// How many requests a server let through; none if it did not answer.
fn granted(answer: &Result<Answer, StoreError>) -> u32 {
    answer.as_ref().map_or(0, |answer| answer.granted)
}

const NOTHING: Told = Told {
    ahead: 0,
    leased: 0,
    window: 0,
};

/// Without a bucket there is nothing to decide.
const fn nobody_asked(ask: &Ask) -> Answer {
    Answer {
        granted: ask.requests,
        told: Vec::new(),
        banned: None,
    }
}

fn without_lease(parts: &[Part]) -> Vec<Part> {
    let bare = |part: &Part| {
        let (lease, part) = (0, part.clone());
        Part { lease, ..part }
    };
    parts.iter().map(bare).collect()
}

fn millis(time: Duration) -> u64 {
    let millis = time.min(LASTS_MAX).as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX).max(1)
}

/// Reads what [`TAKE`] returned for so many parts.
///
/// # Errors
///
/// [`StoreError::Unreadable`] if it cannot have returned that.
pub(crate) fn read(reply: &[u64], parts: usize) -> Result<Answer, StoreError> {
    const ODD: StoreError = StoreError::Unreadable {
        expected: "what the buckets decided",
        found: "other numbers",
    };
    let [granted, banned, told @ ..] = reply else {
        return Err(ODD);
    };
    let count = |number: u64| u32::try_from(number).map_err(|_| ODD);
    let granted = count(*granted)?;
    if *banned > 0 {
        return Ok(Answer {
            granted,
            told: Vec::new(),
            banned: Some(Duration::from_millis(*banned)),
        });
    }
    let (told, rest) = told.as_chunks::<3>();
    if told.len() != parts || !rest.is_empty() {
        return Err(ODD);
    }
    let one = |&[ahead, leased, window]: &[u64; 3]| {
        let leased = count(leased)?;
        Ok(Told {
            ahead,
            leased,
            window,
        })
    };
    let told = told.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Answer {
        granted,
        told,
        banned: None,
    })
}
