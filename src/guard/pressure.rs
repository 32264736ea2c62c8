//! The levels of memory pressure, and how one follows another.
//!
//! Pure: the next level is a function of the present one and of a reading. It rises at once and falls
//! late, so that a process which hovers around a threshold does not evict and refill its cache with
//! every sample.

use std::sync::atomic::{AtomicU8, Ordering};

/// How near the process is to the end of its memory budget.
///
/// Ordered: `pressure >= Pressure::Severe` is the question "severe or worse". `Unknown` stands
/// lowest, because nobody should be refused for a reading that could not be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    /// There is no reading: another operating system, or `/proc` cannot be read.
    #[default]
    Unknown,
    /// Below 80 % of the budget.
    Normal,
    /// From 80 %: nothing should grow any more.
    Elevated,
    /// From 85 %: caches should give memory back.
    High,
    /// From 90 %: connections are closed after their answer, replay buffers should go.
    Severe,
    /// From 95 %: only critical routes are served, for 30 samples at a time unless the use still grows.
    Critical,
}

impl Pressure {
    /// The level's name in events and figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Severe => "severe",
            Self::Critical => "critical",
        }
    }

    /// The level after a reading of `used_bytes` out of `budget_bytes`; `Unknown` without a budget.
    ///
    /// # Rising
    ///
    /// At once, over as many levels as it takes: the threshold itself already belongs to the level.
    ///
    /// # Falling
    ///
    /// A level is left when the use is 5 points or more below its threshold, and then for the highest
    /// level below that still holds by the same rule.
    #[must_use]
    pub fn next(self, used_bytes: u64, budget_bytes: u64) -> Self {
        if budget_bytes == 0 {
            return Self::Unknown;
        }
        // Wide enough for any two numbers of bytes, so there is no rounding to argue about.
        let used = u128::from(used_bytes) * 100;
        let percent = |points: u8| u128::from(budget_bytes) * u128::from(points);
        let reached = highest(|threshold| used >= percent(threshold));
        let held = highest(|threshold| used > percent(threshold - HYSTERESIS));
        reached.max(self.min(held))
    }
}

/// The highest level whose threshold `is_so` says yes to.
fn highest(is_so: impl Fn(u8) -> bool) -> Pressure {
    LEVELS
        .iter()
        .rev()
        .find(|(threshold, _)| is_so(*threshold))
        .map_or(Pressure::Normal, |(_, level)| *level)
}

/// Keeps [`Pressure::Critical`] from lasting for ever.
///
/// Refusing requests frees nothing by itself: an allocator keeps what was once its own, so a use that
/// has reached the level may never fall, and whoever refused everybody until it did would do so until
/// the next restart. So after [`PATIENCE`] samples the level is taken down to `Severe`, for as long as
/// the use does not grow by another hundredth of the budget.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    samples: u32,
    /// The use that was accepted.
    settled: Option<u64>,
}

impl Patience {
    /// The level to show for `level`, which a reading of `used_bytes` has given.
    pub(crate) fn temper(
        &mut self,
        level: Pressure,
        used_bytes: u64,
        budget_bytes: u64,
    ) -> Pressure {
        if level != Pressure::Critical {
            // By the rule of the level itself: a use that hovers around its threshold has not left it.
            let left = u128::from(used_bytes) * 100 <= u128::from(budget_bytes) * 90;
            if left || self.settled.is_none() {
                *self = Self::default();
            }
            return level;
        }
        if let Some(settled) = self.settled {
            if used_bytes <= settled.saturating_add(budget_bytes / 100) {
                return Pressure::Severe;
            }
            *self = Self::default();
        }
        self.samples += 1;
        if self.samples > PATIENCE {
            self.settled = Some(used_bytes);
            return Pressure::Severe;
        }
        Pressure::Critical
    }
}

/// Raises a level while the machine itself runs short.
///
/// What others on the machine use is no fault of the process, but when the kernel has to swap for all of
/// them, memory that is given back early is worth more than memory that is given back at 85 %. So stalls
/// let the caches shrink sooner, and never more than that: connections are closed and requests refused
/// only for what the process itself uses.
///
/// # Rising
///
/// `Stalling` from 10 % of the time: [`Pressure::Elevated`] is shown as `High`. `Stuck` from 25 %:
/// `Normal` is shown as `Elevated` as well.
///
/// # Falling
///
/// `Stuck` is left below 15 %, `Stalling` below 5 %, or when there is no reading any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strain {
    #[default]
    Calm,
    Stalling,
    Stuck,
}

impl Strain {
    /// The strain after a reading of how much of the time something waited for memory.
    pub(crate) fn next(self, stalled_percent: Option<f32>) -> Self {
        let Some(percent) = stalled_percent else {
            return Self::Calm;
        };
        let above = |stalling: f32, stuck: f32| {
            if percent >= stuck {
                Self::Stuck
            } else if percent >= stalling {
                Self::Stalling
            } else {
                Self::Calm
            }
        };
        above(10.0, 25.0).max(self.min(above(5.0, 15.0)))
    }

    /// The level to show for `level`, which the process' own use has given.
    pub(crate) const fn temper(self, level: Pressure) -> Pressure {
        match (self, level) {
            (Self::Stalling | Self::Stuck, Pressure::Elevated) => Pressure::High,
            (Self::Stuck, Pressure::Normal) => Pressure::Elevated,
            _ => level,
        }
    }
}

/// Half a minute of samples at the default pace: long enough for what is under way to end.
const PATIENCE: u32 = 30;

/// A level that one thread sets and all read, for the price of one atomic load.
#[derive(Debug)]
pub(crate) struct PressureCell(AtomicU8);

impl PressureCell {
    pub(crate) const fn new(pressure: Pressure) -> Self {
        Self(AtomicU8::new(pressure as u8))
    }

    #[inline]
    pub(crate) fn load(&self) -> Pressure {
        match self.0.load(Ordering::Relaxed) {
            1 => Pressure::Normal,
            2 => Pressure::Elevated,
            3 => Pressure::High,
            4 => Pressure::Severe,
            5 => Pressure::Critical,
            _ => Pressure::Unknown,
        }
    }

    pub(crate) fn store(&self, pressure: Pressure) {
        self.0.store(pressure as u8, Ordering::Relaxed);
    }
}

/// Where each level begins, in percent of the budget. On a B1 the kernel swaps from some 86 % of the
/// machine on and restarts cascade at 93 %, while the budget is a part of the machine: at 95 % of it
/// there is still room to answer the critical routes.
const LEVELS: [(u8, Pressure); 4] = [
    (80, Pressure::Elevated),
    (85, Pressure::High),
    (90, Pressure::Severe),
    (95, Pressure::Critical),
];

/// How many points below its threshold a level is left.
const HYSTERESIS: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Pressure::{Critical, Elevated, High, Normal, Severe, Unknown};
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_five_points_late() {
        for (before, used, after) in [
            (Normal, 0, Normal),
            (Normal, 799, Normal),
            (Normal, 800, Elevated),
            (Normal, 849, Elevated),
            (Normal, 850, High),
            (Normal, 900, Severe),
            (Normal, 950, Critical),
            (Normal, 5000, Critical),
            (Elevated, 751, Elevated),
            (Elevated, 750, Normal),
            (High, 801, High),
            (High, 800, Elevated),
            (High, 751, Elevated),
            (High, 750, Normal),
            (Severe, 851, Severe),
            (Severe, 850, High),
            (Critical, 901, Critical),
            (Critical, 900, Severe),
            (Critical, 860, Severe),
            (Critical, 820, High),
            (Critical, 100, Normal),
            (Unknown, 760, Normal),
            (Unknown, 960, Critical),
        ] {
            assert_eq!(before.next(used, 1000), after, "{before:?} at {used}");
        }
    }

    #[test]
    fn without_a_budget_nothing_is_known() {
        for before in [Unknown, Normal, Critical] {
            assert_eq!(before.next(1, 0), Unknown);
        }
    }

    #[test]
    fn unknown_is_never_severe_or_worse() {
        assert!(Unknown < Normal && Normal < Elevated && Elevated < High);
        assert!(High < Severe && Severe < Critical);
    }

    #[test]
    fn a_cell_gives_back_what_was_stored() {
        let cell = PressureCell::new(Unknown);
        for level in [Unknown, Normal, Elevated, High, Severe, Critical] {
            cell.store(level);
            assert_eq!(cell.load(), level, "{}", level.name());
        }
    }

    #[test]
    fn strain_rises_at_once_and_falls_late() {
        use Strain::{Calm, Stalling, Stuck};
        for (before, percent, after) in [
            (Calm, Some(9.99), Calm),
            (Calm, Some(10.0), Stalling),
            (Calm, Some(25.0), Stuck),
            (Stalling, Some(5.0), Stalling),
            (Stalling, Some(4.99), Calm),
            (Stalling, Some(24.9), Stalling),
            (Stuck, Some(15.0), Stuck),
            (Stuck, Some(14.9), Stalling),
            (Stuck, Some(0.0), Calm),
            (Stuck, None, Calm),
        ] {
            assert_eq!(before.next(percent), after, "{before:?} at {percent:?}");
        }
    }

    #[test]
    fn strain_lets_caches_shrink_sooner_and_refuses_nobody() {
        for (strain, shown) in [
            (
                Strain::Calm,
                [Unknown, Normal, Elevated, High, Severe, Critical],
            ),
            (
                Strain::Stalling,
                [Unknown, Normal, High, High, Severe, Critical],
            ),
            (
                Strain::Stuck,
                [Unknown, Elevated, High, High, Severe, Critical],
            ),
        ] {
            let levels = [Unknown, Normal, Elevated, High, Severe, Critical];
            assert_eq!(
                levels.map(|level| strain.temper(level)),
                shown,
                "{strain:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_steady_use_is_a_steady_level(start in 0_u64..1200, used in 0_u64..1200) {
            let once = Unknown.next(start, 1000).next(used, 1000);
            prop_assert_eq!(once.next(used, 1000), once);
            prop_assert!(once >= Unknown.next(used, 1000), "never below what the use has reached");
        }

        #[test]
        fn no_number_overflows(used: u64, budget: u64) {
            let _ = Critical.next(used, budget);
        }
    }

    #[test]
    fn a_critical_level_that_cannot_be_left_is_taken_down_until_the_use_grows() {
        let mut patience = Patience::default();
        let mut show = |used| patience.temper(Critical, used, 1_000);
        for _ in 0..30 {
            assert_eq!(show(960), Critical);
        }
        for used in [960, 955, 970] {
            assert_eq!(show(used), Severe, "{used}");
        }
        for _ in 0..30 {
            assert_eq!(show(971), Critical, "it grows");
        }
        assert_eq!(show(971), Severe);
        assert_eq!(patience.temper(Severe, 949, 1_000), Severe, "hovering");
        assert_eq!(patience.temper(Critical, 950, 1_000), Severe);
        assert_eq!(patience.temper(High, 860, 1_000), High);
        assert_eq!(patience.temper(Critical, 960, 1_000), Critical, "anew");
    }
}
