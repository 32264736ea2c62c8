//! The only file that reads time.
//!
//! A [`Clock`] is built once and cloned into every engine, because building one asks the processor
//! what its time stamp counter is worth: some 27 µs under a hypervisor, which a limiter that does it
//! for each refusal pays for each refusal. Reading it costs about 11 ns (`Instant::now`: 19 ns).
//!
//! Engines count in [`Moment`]s, nanoseconds since the clock was built: they fit an atomic, never go
//! back and know nothing of leap seconds. Wall time is for what HTTP writes down (`Date`, `Expires`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: nanoseconds since its [`Clock`] was built. Moments of two clocks do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the clock was built.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock was built.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `duration` later; saturates after 584 years.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(duration)))
    }

    /// The moment `duration` earlier, or the clock's first.
    #[must_use]
    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(duration)))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration's nanoseconds, saturating at `u64::MAX`.
const fn nanos_of(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 {
        u64::MAX
    } else {
        nanos as u64
    }
}

/// Reads time for everything in the crate. Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System {
        clock: quanta::Clock,
        /// Its counter when this was built.
        built: u64,
    },
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clock. Build it once: see the module's head for what building costs.
    #[must_use]
    pub fn system() -> Self {
        let clock = quanta::Clock::new();
        let built = clock.raw();
        Self {
            source: Source::System { clock, built },
        }
    }

    /// A clock that stands still until its [`ManualClock`] is advanced; for tests.
    #[must_use]
    pub fn manual() -> (Self, ManualClock) {
        let hand = ManualClock {
            nanos: Arc::default(),
        };
        (
            Self {
                source: Source::Manual(hand.clone()),
            },
            hand,
        )
    }

    /// Now, for measuring and for deadlines.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Moment {
        match &self.source {
            // One multiplication; as a `Duration` it would be divided into seconds and put together again.
            Source::System { clock, built } => Moment(clock.delta_as_nanos(*built, clock.raw())),
            Source::Manual(hand) => Moment(hand.nanos.load(Ordering::Relaxed)),
        }
    }

    /// The time of day, for fields like `Date`. A manual clock begins at 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        match &self.source {
            #[expect(clippy::disallowed_methods, reason = "this file owns the clock")]
            Source::System { .. } => SystemTime::now(),
            Source::Manual(hand) => {
                UNIX_EPOCH + MANUAL_BEGIN + Duration::from_nanos(hand.nanos.load(Ordering::Relaxed))
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// Moves a manual [`Clock`] on.
#[derive(Clone, Debug)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// Lets `duration` pass.
    pub fn advance(&self, duration: Duration) {
        self.nanos.fetch_add(nanos_of(duration), Ordering::Relaxed);
    }
}

/// 2026-01-01T00:00:00Z since the Unix epoch: where manual clocks begin their first day.
const MANUAL_BEGIN: Duration = Duration::from_secs(1_767_225_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_all_clones_follow() {
        let (clock, hand) = Clock::manual();
        let twin = clock.clone();
        let (began, day) = (clock.now(), clock.wall());
        hand.advance(Duration::from_secs(3));
        assert_eq!(twin.now().since(began), Duration::from_secs(3));
        assert_eq!(
            twin.wall().duration_since(day).unwrap(),
            Duration::from_secs(3)
        );
    }

    #[test]
    fn moments_saturate_instead_of_wrapping() {
        let late = Moment::from_nanos(u64::MAX - 1);
        assert_eq!(late.plus(Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(Moment::from_nanos(5).since(late), Duration::ZERO);
        assert_eq!(
            Moment::from_nanos(5).minus(Duration::MAX),
            Moment::default()
        );
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = Clock::system();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
