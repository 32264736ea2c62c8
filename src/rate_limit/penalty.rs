//! Strikes and bans: what becomes of a client that goes on although it was refused.
//!
//! Each refusal is a strike. Strikes fade with time; a client that collects more of them than it may is
//! banned, for twice as long each time it comes back to it, and the memory of former bans fades, too. All
//! three are buckets in a table of fixed size beside the limiter's: strikes and former bans fill up and
//! drain like quotas, and a ban is one whose time has not passed. So a flood of clients cannot make it
//! grow, and whoever is driven out of a full table has the least left to serve.

use std::time::Duration;

use crate::rate_limit::gcra::Limit;
use crate::rate_limit::slot::FILL_MAX;
use crate::rate_limit::table::Table;
use crate::sync::{AtomicU64, Ordering};

/// What tells a client's three buckets apart; odd numbers without pattern.
const STRIKES: u64 = 0x9e37_79b9_7f4a_7c15;
const BAN: u64 = 0xc2b2_ae3d_27d4_eb4f;
const RELAPSES: u64 = 0x1656_67b1_9e37_79f9;
#[cfg(feature = "redis")]
const SURE: u64 = 0xff51_afd7_ed55_8ccd;

/// For how long a ban is believed before Redis is asked about it, in ticks.
#[cfg(feature = "redis")]
const BELIEVED_FOR: u64 = 10_000_000;

/// For how long a ban that another instance has spoken is believed without asking again.
#[cfg(feature = "redis")]
const HEEDED_FOR: Duration = Duration::from_secs(5);

/// Doublings of a ban; more would exceed any limit.
const DOUBLINGS_MAX: u32 = 20;

/// When a ban comes and how long it lasts, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PenaltyTerms {
    /// How many refusals are forgiven, and in what time one of them is forgotten.
    pub(crate) strikes: u32,
    pub(crate) strike_fades: u64,
    /// The first ban, and the longest.
    pub(crate) ban: u64,
    pub(crate) ban_max: u64,
    /// In what time one ban is forgotten.
    pub(crate) relapse_fades: u64,
}

/// Who has collected strikes, and who is banned.
#[derive(Debug)]
pub(crate) struct PenaltyBox {
    table: Table,
    terms: PenaltyTerms,
    /// When the last ban will have ended: before there was one, and long after, this is all that is read.
    last_end: AtomicU64,
    /// How often something may have been said of bans that was not heard, times two.
    #[cfg(feature = "redis")]
    missed: AtomicU64,
}

impl PenaltyBox {
    pub(crate) fn new(terms: PenaltyTerms, keys_max: usize, now: u64) -> Self {
        Self {
            table: Table::new(keys_max, true, now),
            terms,
            last_end: AtomicU64::new(0),
            #[cfg(feature = "redis")]
            missed: AtomicU64::new(0),
        }
    }

    /// Bytes that the table takes up.
    pub(crate) const fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Whether anybody is banned.
    pub(crate) fn bans_anybody(&self, now: u64) -> bool {
        now < self.last_end.load(Ordering::Relaxed)
    }

    /// How long the client is still banned.
    pub(crate) fn banned(&self, client: u64, now: u64) -> Option<Duration> {
        let left = self.table.ahead(client ^ BAN, now);
        (left > 0).then(|| Duration::from_micros(left))
    }

    /// Notes that the client was refused. Says so if it is banned for it, and for how long.
    pub(crate) fn strike(&self, client: u64, now: u64) -> Option<Duration> {
        let strikes = Limit::new(self.terms.strike_fades, self.terms.strikes);
        let forgiven = self.table.charge(client ^ STRIKES, now, strikes, 1);
        if forgiven.is_allow() {
            return None;
        }
        // Taken by one of those who come at the same time; for the others it is one strike again.
        if self.table.take(client ^ STRIKES, now) == 0 {
            return None;
        }
        // As many as the table can remember.
        let most = (FILL_MAX / self.terms.relapse_fades.max(1)).clamp(1, DOUBLINGS_MAX.into());
        let relapses = Limit::new(self.terms.relapse_fades.min(FILL_MAX), most as u32);
        let before = self.table.ahead(client ^ RELAPSES, now);
        let doublings = before
            .div_ceil(self.terms.relapse_fades.max(1))
            .min(u64::from(DOUBLINGS_MAX));
        self.table.charge(client ^ RELAPSES, now, relapses, 1);
        let lasts = self.terms.ban.saturating_mul(1 << doublings);
        let lasts = Duration::from_micros(lasts.min(self.terms.ban_max));
        self.ban(client, lasts, now);
        Some(lasts)
    }

    /// Bans the client for so long; a ban that lasts longer stays.
    pub(crate) fn ban(&self, client: u64, lasts: Duration, now: u64) {
        let ticks = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
        let ticks = ticks.min(FILL_MAX);
        self.table.raise(client ^ BAN, now, ticks);
        self.last_end
            .fetch_max(now.saturating_add(ticks), Ordering::Relaxed);
    }

    /// Bans a client that Redis says is banned, unless that is known.
    #[cfg(feature = "redis")]
    pub(crate) fn heed(&self, client: u64, left: Duration, now: u64) {
        if self.banned(client, now).is_none() {
            self.ban(client, left.min(HEEDED_FOR), now);
            // It was told just now.
            self.is_doubtful(client, now);
        }
    }

    /// The longest ban that is spoken for strikes.
    #[cfg(feature = "redis")]
    pub(crate) const fn ban_max(&self) -> Duration {
        Duration::from_micros(self.terms.ban_max)
    }

    /// Whether a ban was neither told nor doubted for a while, or something may have been missed since: says so
    /// once. What another thread does at the same time costs one question more.
    #[cfg(feature = "redis")]
    pub(crate) fn is_doubtful(&self, client: u64, now: u64) -> bool {
        let key = client ^ SURE.wrapping_mul(self.missed.load(Ordering::Relaxed) | 1);
        let doubtful = self.table.ahead(key, now) == 0;
        if doubtful {
            self.table.raise(key, now, BELIEVED_FOR);
        }
        doubtful
    }

    /// Notes that something may have been said of bans which was not heard.
    #[cfg(feature = "redis")]
    pub(crate) fn miss(&self) {
        self.missed.fetch_add(2, Ordering::Relaxed);
    }

    /// Forgets the client's ban, its strikes and its former bans. Says whether it was banned.
    pub(crate) fn pardon(&self, client: u64, now: u64) -> bool {
        self.table.take(client ^ STRIKES, now);
        self.table.take(client ^ RELAPSES, now);
        self.table.take(client ^ BAN, now) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// A hash, as clients are known by.
    const SHE: u64 = 0x3c6e_f372_fe94_f82b;

    fn penalties() -> PenaltyBox {
        let terms = PenaltyTerms {
            strikes: 3,
            strike_fades: 10 * SECOND,
            ban: 60 * SECOND,
            ban_max: 200 * SECOND,
            relapse_fades: 3600 * SECOND,
        };
        PenaltyBox::new(terms, 64, 0)
    }

    fn secs(secs: u64) -> Option<Duration> {
        Some(Duration::from_secs(secs))
    }

    #[test]
    fn who_goes_on_is_banned_and_longer_each_time() {
        let penalties = penalties();
        let mut now = 0;
        for lasts in [60, 120, 200, 200] {
            for _ in 0..3 {
                assert_eq!(penalties.strike(SHE, now), None);
                assert_eq!(penalties.banned(SHE, now), None);
            }
            assert_eq!(penalties.strike(SHE, now), secs(lasts));
            assert_eq!(penalties.banned(SHE, now), secs(lasts));
            assert_eq!(
                penalties.banned(SHE.rotate_left(9), now),
                None,
                "others are not"
            );
            now += lasts * SECOND - 1;
            assert!(penalties.banned(SHE, now).is_some());
            now += 1;
            assert_eq!(penalties.banned(SHE, now), None);
        }
        // Long afterwards all is forgotten.
        now += 5 * 3600 * SECOND;
        for _ in 0..3 {
            assert_eq!(penalties.strike(SHE, now), None);
        }
        assert_eq!(penalties.strike(SHE, now), secs(60));
    }

    #[test]
    fn who_is_refused_now_and_then_is_never_banned() {
        let penalties = penalties();
        for round in 0..1000 {
            assert_eq!(penalties.strike(SHE, round * 10 * SECOND), None);
        }
    }

    #[test]
    fn a_pardon_ends_the_ban_and_its_history() {
        let penalties = penalties();
        penalties.ban(SHE, Duration::from_secs(3600), 0);
        assert_eq!(penalties.banned(SHE, 0), secs(3600));
        assert!(penalties.pardon(SHE, 0));
        assert!(!penalties.pardon(SHE, 0));
        assert_eq!(penalties.banned(SHE, 0), None);
    }

    #[test]
    fn a_flood_of_clients_does_not_grow_it_nor_free_the_banned() {
        let penalties = penalties();
        penalties.ban(1 << 40, Duration::from_secs(3600), 0);
        for client in 0..100_000_u64 {
            penalties.strike(client.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0);
        }
        assert!(penalties.banned(1 << 40, 0).is_some());
    }
}
