//! The settings of penalties.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::rate_limit::penalty::PenaltyTerms;

const STRIKES: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// The longest ban, and the longest memory of strikes: 31 days.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// What happens to clients that do not heed a refusal.
///
/// Each request beyond a quota that is used up is a strike. A client with too many is banned: all that it
/// sends is refused, for less than the rules cost, until the ban ends. Each further ban lasts twice as long as
/// the one before, up to the longest. Strikes and bans fade with time.
///
/// In files: `{"strikes": 10, "strike_decay_ms": 60000, "ban_ms": 60000, "ban_max_ms": 3600000}`, of which
/// nothing must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PenaltyConfig {
    /// How many refused requests make a ban: 1 to 1,000,000.
    pub strikes: u32,
    /// In which time half as many strikes are forgotten: 1 s to 31 days. One of the bans that make the next
    /// one longer is forgotten in twice `ban_max`.
    #[serde(rename = "strike_decay_ms", with = "crate::config_time::millis")]
    pub strike_decay: Duration,
    /// How long the first ban lasts: 1 s to 31 days.
    #[serde(rename = "ban_ms", with = "crate::config_time::millis")]
    pub ban: Duration,
    /// How long the longest ban lasts: `ban` to 31 days.
    #[serde(rename = "ban_max_ms", with = "crate::config_time::millis")]
    pub ban_max: Duration,
}

impl Default for PenaltyConfig {
    /// A ban of a minute after 10 refused requests, and of up to an hour for those who go on.
    fn default() -> Self {
        Self {
            // A page that loads ten parts at once and is refused them all has not done it on purpose.
            strikes: 10,
            strike_decay: Duration::from_secs(60),
            ban: Duration::from_secs(60),
            ban_max: Duration::from_secs(3600),
        }
    }
}

impl PenaltyConfig {
    /// The same in ticks.
    pub(crate) fn terms(&self) -> PenaltyTerms {
        let ticks = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let half = u64::from(self.strikes.div_ceil(2).max(1));
        PenaltyTerms {
            strikes: self.strikes,
            strike_fades: (ticks(self.strike_decay) / half).max(1),
            ban: ticks(self.ban),
            ban_max: ticks(self.ban_max),
            relapse_fades: ticks(self.ban_max).saturating_mul(2),
        }
    }

    /// Notes every value that cannot be meant; the settings stand at `path`.
    pub(crate) fn check(&self, path: &str, faults: &mut Faults) {
        faults.within(format!("{path}.strikes"), self.strikes, STRIKES, "strikes");
        let shortest = Duration::from_secs(1);
        for (field, time, least) in [
            ("strike_decay_ms", self.strike_decay, shortest),
            ("ban_ms", self.ban, shortest),
            (
                "ban_max_ms",
                self.ban_max,
                self.ban.clamp(shortest, LONGEST),
            ),
        ] {
            faults.within_time(format!("{path}.{field}"), time, least..=LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named() {
        let second = Duration::from_secs(1);
        let sound = PenaltyConfig::default();
        for (config, fields) in [
            (sound, &[][..]),
            (
                PenaltyConfig {
                    strikes: 0,
                    strike_decay: Duration::ZERO,
                    ban: Duration::ZERO,
                    ban_max: Duration::ZERO,
                },
                &["strikes", "strike_decay_ms", "ban_ms", "ban_max_ms"],
            ),
            (
                PenaltyConfig {
                    strikes: 1_000_001,
                    strike_decay: LONGEST + second,
                    ban: LONGEST + second,
                    ban_max: LONGEST + second,
                },
                &["strikes", "strike_decay_ms", "ban_ms", "ban_max_ms"],
            ),
            (
                PenaltyConfig {
                    ban: sound.ban_max + second,
                    ..sound
                },
                &["ban_max_ms"],
            ),
            (
                PenaltyConfig {
                    ban_max: sound.ban,
                    ..sound
                },
                &[],
            ),
        ] {
            let mut faults = Faults::new();
            config.check("p", &mut faults);
            let error = faults.into_result().err();
            let found = error.iter().flat_map(|error| error.faults());
            let found: Vec<_> = found.map(|fault| &fault.field[2..]).collect();
            assert_eq!(found, fields, "{config:?}");
        }
    }

    #[test]
    fn files_say_what_differs() {
        let config: PenaltyConfig = serde_json::from_str(r#"{"strikes": 3}"#).unwrap();
        let built = PenaltyConfig {
            strikes: 3,
            ..PenaltyConfig::default()
        };
        assert_eq!(config, built);
        let text = serde_json::to_string(&built).unwrap();
        assert_eq!(
            text,
            r#"{"strikes":3,"strike_decay_ms":60000,"ban_ms":60000,"ban_max_ms":3600000}"#
        );
        assert_eq!(serde_json::from_str::<PenaltyConfig>(&text).unwrap(), built);
        assert!(serde_json::from_str::<PenaltyConfig>(r#"{"strike": 3}"#).is_err());
    }
}
