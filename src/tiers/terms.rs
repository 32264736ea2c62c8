//! How long a value lives, where: what options and settings come to. Pure rules over values.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::tiers::config::TiersConfig;
use crate::tiers::held::Life;
use crate::tiers::options::{EntryOptions, LIFE_MAX};

/// Options with nothing left open.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) ttl: Duration,
    ttl_negative: Duration,
    pub(crate) ttl_error: Duration,
    /// `None` where there is no tier behind, so that nobody else has it.
    pub(crate) hot: Option<Duration>,
    pub(crate) warm: Duration,
    pub(crate) cold: Duration,
    pub(crate) revalidate: Duration,
    pub(crate) error: Duration,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    jitter_percent: u8,
    beta: f32,
    pub(crate) tags: Arc<[Arc<str>]>,
}

/// The two clocks, read at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) moment: Moment,
    /// Unix time in milliseconds.
    pub(crate) wall_ms: u64,
}

/// When an entry ends, for those who read the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) fresh_until_ms: u64,
    pub(crate) stale_until_ms: u64,
}

impl Terms {
    /// What `options` come to. `alone`: there is no tier behind memory.
    pub(crate) fn of(options: &EntryOptions, config: &TiersConfig, alone: bool) -> Self {
        let or = |said: Option<Duration>, default: Duration| said.unwrap_or(default).min(LIFE_MAX);
        let ttl = or(options.ttl, config.ttl);
        Self {
            ttl,
            ttl_negative: or(options.ttl_negative, ttl),
            ttl_error: or(options.ttl_error, Duration::ZERO),
            hot: match (alone, options.ttl_hot) {
                (true, None) => None,
                (_, said) => Some(or(said, config.ttl_hot)),
            },
            warm: or(options.ttl_warm, config.ttl_warm),
            cold: or(options.ttl_cold, config.ttl_cold),
            revalidate: or(options.stale_while_revalidate, Duration::ZERO),
            error: or(options.stale_if_error, Duration::ZERO),
            soft_timeout: options.soft_timeout,
            hard_timeout: options.hard_timeout,
            jitter_percent: options.jitter_percent.unwrap_or(0),
            beta: options.early_refresh.unwrap_or(0.0),
            tags: options.tags.clone().unwrap_or_default(),
        }
    }

    /// How long past its life it is of any use.
    fn grace(&self) -> Duration {
        self.revalidate.max(self.error)
    }

    /// For how long a value is fresh that was just computed. `luck` is drawn from 0 to 1.
    pub(crate) fn fresh_for(&self, said: Option<Duration>, negative: bool, luck: f64) -> Duration {
        let ttl = match said {
            Some(said) => said.min(LIFE_MAX),
            None if negative => self.ttl_negative,
            None => self.ttl,
        };
        let jitter = f64::from(self.jitter_percent) / 100.0 * luck;
        ttl.mul_f64((1.0 - jitter).clamp(0.5, 1.0))
    }

    /// The life of a value that is fresh for so long from now on.
    pub(crate) fn life(&self, fresh_for: Duration, cost: Duration, now: Now) -> Life {
        self.until(now.moment.plus(fresh_for), cost, now)
    }

    /// The life of one that was stored elsewhere: no longer than it was there.
    pub(crate) fn life_again(&self, ends: Ends, cost: Duration, now: Now) -> Life {
        let fresh_until = moment(ends.fresh_until_ms, now);
        let mut life = self.until(fresh_until, cost, now);
        let stale_until = moment(ends.stale_until_ms, now);
        let grace = stale_until.since(fresh_until);
        life.revalidate = life.revalidate.min(grace);
        life.error = life.error.min(grace);
        life.hot_until = life.hot_until.min(stale_until);
        life
    }

    fn until(&self, fresh_until: Moment, cost: Duration, now: Now) -> Life {
        // A negative or endless `beta` is none.
        let beta = if self.beta.is_finite() {
            self.beta.clamp(0.0, BETA_MAX)
        } else {
            0.0
        };
        let early = cost.min(COST_MAX).mul_f32(beta);
        let early_from = match early {
            Duration::ZERO => fresh_until,
            early => fresh_until.minus(early.saturating_mul(EARLIEST)),
        };
        Life {
            fresh_until,
            early_from,
            early,
            revalidate: self.revalidate,
            error: self.error,
            hot_until: match self.hot {
                Some(hot) => now.moment.plus(hot),
                None => fresh_until.plus(self.grace()),
            },
        }
    }

    /// When a value ends that is fresh for so long from now on.
    pub(crate) fn ends(&self, fresh_for: Duration, now: Now) -> Ends {
        let fresh_until_ms = now.wall_ms.saturating_add(millis(fresh_for));
        Ends {
            fresh_until_ms,
            stale_until_ms: fresh_until_ms.saturating_add(millis(self.grace())),
        }
    }

    /// For how long it stays in Redis.
    pub(crate) fn warm_for(&self, ends: Ends, now: Now) -> Duration {
        let left = Duration::from_millis(ends.stale_until_ms.saturating_sub(now.wall_ms));
        left.min(self.warm)
    }

    /// Until when it stays in the cold store.
    pub(crate) fn cold_until(&self, ends: Ends, now: Now) -> u64 {
        let cap = now.wall_ms.saturating_add(millis(self.cold));
        ends.stale_until_ms.min(cap)
    }
}

/// Whether a value that is near its end is computed anew by whoever asks now: `now - delta * beta * ln(luck)`
/// is not before its end. `luck` is drawn from above 0 to 1.
pub(crate) fn is_early(life: &Life, now: Moment, luck: f64) -> bool {
    let lead = life.early.as_secs_f64() * -luck.max(f64::MIN_POSITIVE).ln();
    let left = life.fresh_until.since(now).as_secs_f64();
    lead >= left
}

/// The moment of a wall clock's time.
fn moment(wall_ms: u64, now: Now) -> Moment {
    let apart = Duration::from_millis(wall_ms.abs_diff(now.wall_ms));
    if wall_ms >= now.wall_ms {
        now.moment.plus(apart)
    } else {
        now.moment.minus(apart)
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// So many mean leads before its end, one draw in nine million computes a value anew: before that nobody draws.
const EARLIEST: u32 = 16;

const BETA_MAX: f32 = 100.0;

/// What took longer is not refreshed any earlier for it.
const COST_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now(seconds: u64) -> Now {
        Now {
            moment: Moment::default().plus(SECOND * u32::try_from(seconds).unwrap()),
            wall_ms: 1_000_000 + seconds * 1_000,
        }
    }

    fn terms(options: &EntryOptions) -> Terms {
        Terms::of(options, &TiersConfig::default(), false)
    }

    #[test]
    fn a_value_is_never_longer_fresh_for_being_moved() {
        let terms = terms(
            &EntryOptions::new()
                .ttl(SECOND * 100)
                .stale_while_revalidate(SECOND * 10)
                .stale_if_error(SECOND * 50),
        );
        let ends = terms.ends(SECOND * 100, now(0));
        assert_eq!(ends.stale_until_ms - ends.fresh_until_ms, 50_000);
        let life = terms.life_again(ends, SECOND, now(40));
        assert_eq!(life.fresh_until, now(100).moment);
        // Another instance whose options give less grace: the stored end counts.
        let short = Ends {
            stale_until_ms: ends.fresh_until_ms + 5_000,
            ..ends
        };
        let life = terms.life_again(short, SECOND, now(102));
        assert_eq!((life.revalidate, life.error), (SECOND * 5, SECOND * 5));
        assert_eq!(terms.warm_for(ends, now(0)), SECOND * 150);
        assert_eq!(terms.cold_until(ends, now(0)), ends.stale_until_ms);
    }

    #[test]
    fn caps_shorten_a_stay_and_not_a_life() {
        let terms = terms(&EntryOptions::new().ttl(SECOND * 86_400 * 30));
        let ends = terms.ends(terms.ttl, now(0));
        assert_eq!(terms.warm_for(ends, now(0)), SECOND * 3_600);
        assert_eq!(terms.cold_until(ends, now(0)), now(86_400).wall_ms);
        let life = terms.life(terms.ttl, SECOND, now(0));
        assert_eq!(life.hot_until, now(300).moment);
        assert!(life.fresh_until > now(86_400).moment);
        // Nobody else has it: it stays.
        let alone = Terms::of(
            &EntryOptions::new().ttl(SECOND * 86_400),
            &TiersConfig::default(),
            true,
        );
        assert_eq!(
            alone.life(alone.ttl, SECOND, now(0)).hot_until,
            now(86_400).moment
        );
    }

    #[test]
    fn odd_times_are_cut_to_what_can_be() {
        let terms = terms(
            &EntryOptions::new()
                .ttl(Duration::MAX)
                .early_refresh(f32::NAN),
        );
        assert_eq!(terms.ttl, LIFE_MAX);
        assert_eq!(terms.fresh_for(Some(Duration::MAX), false, 1.0), LIFE_MAX);
        assert_eq!(
            terms.fresh_for(Some(Duration::ZERO), false, 1.0),
            Duration::ZERO
        );
        assert_eq!(
            terms.life(SECOND, Duration::MAX, now(0)).early,
            Duration::ZERO
        );
    }

    #[test]
    fn jitter_only_shortens() {
        let terms = terms(&EntryOptions::new().ttl(SECOND * 100).jitter_percent(20));
        assert_eq!(terms.fresh_for(None, false, 0.0), SECOND * 100);
        assert_eq!(
            terms.fresh_for(None, false, 1.0).as_secs_f64().round(),
            80.0
        );
        let most = EntryOptions::new().ttl(SECOND * 100).jitter_percent(200);
        let most = Terms::of(&most, &TiersConfig::default(), false);
        assert_eq!(most.fresh_for(None, false, 1.0).as_secs_f64().round(), 50.0);
    }

    /// The share of those who are early is `exp(-left / (delta * beta))`.
    #[test]
    fn early_refreshes_come_as_often_as_the_paper_says() {
        let terms = terms(&EntryOptions::new().ttl(SECOND * 100).early_refresh(1.0));
        let life = terms.life(SECOND * 100, SECOND, now(0));
        assert_eq!(life.early_from, now(84).moment);
        for (left, share) in [(1, (-1.0_f64).exp()), (2, (-2.0_f64).exp())] {
            let draws = 10_000;
            let early = (1..=draws)
                .filter(|n| {
                    is_early(
                        &life,
                        now(100 - left).moment,
                        f64::from(*n) / f64::from(draws),
                    )
                })
                .count();
            let seen = early as f64 / f64::from(draws);
            assert!((seen - share).abs() < 0.001, "{left}: {seen} and {share}");
        }
        assert!(
            is_early(&life, now(100).moment, 1.0),
            "at its end for certain"
        );
    }
}
