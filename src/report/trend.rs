//! How a service does from day to day.
//!
//! Once in ten minutes, at midnight (UTC) and at the end, each instance adds what has been counted since to the
//! day's sums: in its own memory, and in Redis, where one hash per day holds those of all. Both are bounded by the
//! number of days: a day is 28 numbers.
//!
//! **Exactness.** What is added are differences to the last time, so nothing is added twice, and what was counted
//! between two times belongs to the day on which that began. While Redis is away, differences are kept and added
//! once it is back, to the days to which they belong. Where an answer is lost nobody knows whether Redis has
//! added; then it is not added again. So each difference is added **at most once**: after a lost answer a day may
//! lack what was counted in ten minutes, and never has anything twice. What an instance has counted since the last
//! time is lost where it is killed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::report::config::ReportConfig;
use crate::report::date::Date;
#[cfg(feature = "redis")]
use crate::report::days::Days;
use crate::report::sums::{Day, Sums};
#[cfg(feature = "redis")]
use crate::store::{RedisPool, RedisStatus};
use crate::task::Spawner;

/// The days so far. Cheap to clone.
#[derive(Clone)]
pub struct Trend {
    shared: Arc<Shared>,
}

struct Shared {
    config: ReportConfig,
    clock: Clock,
    metrics: Metrics,
    #[cfg(feature = "redis")]
    days: Option<Days>,
    state: Mutex<State>,
}

struct State {
    /// What had been counted when it was noted last, and on which day that was.
    last: Sums,
    day: Date,
    /// What this instance has counted on each day.
    here: BTreeMap<Date, Sums>,
    /// What Redis has not been told yet.
    untold: BTreeMap<Date, Sums>,
}

impl Trend {
    /// Days of what `metrics` counts from now on, in this process alone.
    #[must_use]
    pub fn new(config: &ReportConfig, metrics: Metrics, clock: Clock) -> Self {
        let (day, _) = Date::of(clock.wall());
        let state = State {
            last: Sums::of(&metrics.snapshot()),
            day,
            here: BTreeMap::new(),
            untold: BTreeMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                config: config.clone(),
                clock,
                metrics,
                #[cfg(feature = "redis")]
                days: None,
                state: Mutex::new(state),
            }),
        }
    }

    /// The same, of all instances in the Redis of `pool` together.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn shared(config: &ReportConfig, metrics: Metrics, clock: Clock, pool: &RedisPool) -> Self {
        let alone = Self::new(config, metrics, clock);
        let days = (pool.status() != RedisStatus::Disabled).then(|| {
            let kept = config.trend_days;
            Days::new(pool.clone(), kept)
        });
        match Arc::try_unwrap(alone.shared) {
            Ok(shared) => Self {
                shared: Arc::new(Shared { days, ..shared }),
            },
            Err(shared) => Self { shared },
        }
    }

    /// Adds up from now on, until the owner of `spawner` shuts down, which is the last time.
    pub fn start(&self, spawner: &Spawner) {
        let (trend, stopped) = (self.clone(), spawner.clone());
        spawner.spawn(async move {
            loop {
                let is_over = tokio::select! {
                    () = stopped.stopped() => true,
                    () = tokio::time::sleep(trend.pause()) => false,
                };
                trend.add_up().await;
                if is_over {
                    return;
                }
            }
        });
    }

    /// Until the next time, which is not after midnight.
    fn pause(&self) -> Duration {
        let (_, left) = Date::of(self.shared.clock.wall());
        // A little into the new day, so that it is the new day by every clock that is read.
        self.shared
            .config
            .trend_every
            .min(left + Duration::from_millis(5))
    }

    /// Notes what was counted since the last time, and tells Redis. By itself it happens once in
    /// `report.trend_every_ms`. One round trip where there is a Redis; dropping the future loses at most what was
    /// on its way.
    pub async fn add_up(&self) {
        self.note();
        #[cfg(feature = "redis")]
        self.tell().await;
    }

    /// The last `days` days, at most `report.trend_days`, oldest first and up to now; days without requests are
    /// there with zeros. With Redis those of all instances, where the others are up to
    /// `report.trend_every_ms` behind; without it, and while it is away, this instance's since its start.
    pub async fn days(&self, days: u32) -> Vec<Day> {
        self.note();
        let count = days.clamp(1, self.shared.config.trend_days);
        let (today, _) = Date::of(self.shared.clock.wall());
        let dates: Vec<_> = (0..count).rev().map(|back| today.before(back)).collect();
        #[cfg(feature = "redis")]
        if let Some(told) = self.told(&dates).await {
            let state = self.shared.state();
            let whole = dates.iter().zip(told).map(|(date, mut sums)| {
                sums.add(&state.untold.get(date).copied().unwrap_or_default());
                sums.day(*date, true)
            });
            return whole.collect();
        }
        let state = self.shared.state();
        let here = |date: &Date| state.here.get(date).copied().unwrap_or_default();
        dates
            .iter()
            .map(|date| here(date).day(*date, false))
            .collect()
    }

    fn note(&self) {
        let (today, _) = Date::of(self.shared.clock.wall());
        self.note_on(today);
    }

    fn note_on(&self, today: Date) {
        let now = Sums::of(&self.shared.metrics.snapshot());
        let mut state = self.shared.state();
        let more = now.since(&state.last);
        // A clock that was ahead at the last reading does not make a day of its own.
        let day = state.day.min(today);
        // Whoever has read the figures before somebody else who came here first has nothing to add.
        if !more.is_empty() {
            state.here.entry(day).or_default().add(&more);
            if self.shared.is_told() {
                state.untold.entry(day).or_default().add(&more);
            }
            state.last.add(&more);
        }
        state.day = today;
        // By their number and not by today: a clock that leaps ahead must not cost the days before.
        let kept = self.shared.config.trend_days as usize;
        let State { here, untold, .. } = &mut *state;
        for days in [here, untold] {
            while days.len() > kept {
                // But one that only a wrong clock has seen goes first.
                match days.last_key_value() {
                    Some((day, _)) if *day > today => days.pop_last(),
                    _ => days.pop_first(),
                };
            }
        }
    }

    #[cfg(feature = "redis")]
    async fn told(&self, dates: &[Date]) -> Option<Vec<Sums>> {
        let days = self.shared.days.as_ref()?;
        days.read(dates).await.ok()
    }

    #[cfg(feature = "redis")]
    async fn tell(&self) {
        let Some(days) = &self.shared.days else {
            return;
        };
        // Taken before it is sent: a future that is dropped on the way must not leave it to be sent again.
        let untold = std::mem::take(&mut self.shared.state().untold);
        if untold.is_empty() {
            return;
        }
        let refused = days.add(&untold).await;
        let mut state = self.shared.state();
        for (date, sums) in refused {
            state.untold.entry(date).or_default().add(&sums);
        }
    }
}

impl Shared {
    #[cfg(feature = "redis")]
    const fn is_told(&self) -> bool {
        self.days.is_some()
    }

    #[cfg(not(feature = "redis"))]
    #[expect(clippy::unused_self, reason = "with Redis it is asked for")]
    const fn is_told(&self) -> bool {
        false
    }

    /// Nothing that is done under the lock leaves anything half done, so poison is ignored.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trend")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::event::{Event, Recorder};
    use crate::metrics::MetricsConfig;
    use crate::task::Tasks;

    const HOUR: Duration = Duration::from_secs(3600);

    fn trend(days: u32) -> (Trend, Metrics, ManualClock) {
        let (clock, hand) = Clock::manual();
        let metrics = Metrics::new(&MetricsConfig::default(), clock.clone()).unwrap();
        let config = ReportConfig {
            trend_days: days,
            ..ReportConfig::default()
        };
        (Trend::new(&config, metrics.clone(), clock), metrics, hand)
    }

    fn hit(metrics: &Metrics, times: u64) {
        for _ in 0..times {
            metrics.record(&Event::CacheHit { stale: false });
        }
    }

    #[tokio::test]
    async fn what_is_counted_belongs_to_the_day_on_which_it_was() {
        let (trend, metrics, hand) = trend(30);
        hit(&metrics, 2);
        hand.advance(HOUR * 24);
        trend.add_up().await;
        hit(&metrics, 3);
        let days = trend.days(3).await;
        let told: Vec<_> = days.iter().map(|day| (&*day.date, day.hits)).collect();
        assert_eq!(
            told,
            [("2025-12-31", 0), ("2026-01-01", 2), ("2026-01-02", 3)]
        );
        assert!(days.iter().all(|day| !day.of_all));
        assert_eq!(trend.days(3).await, days, "reading adds nothing");
        assert_eq!(days[2].hit_ratio, Some(1.0));
    }

    #[tokio::test]
    async fn memory_is_bounded_by_the_days() {
        let (trend, metrics, hand) = trend(3);
        for _ in 0..10 {
            hit(&metrics, 1);
            hand.advance(HOUR * 24);
            trend.add_up().await;
        }
        assert_eq!(trend.shared.state().here.len(), 3);
        assert_eq!(trend.days(400).await.len(), 3);
        assert_eq!(trend.days(0).await.len(), 1);
    }

    /// A manual clock does not go back; the day that was noted does.
    #[tokio::test]
    async fn a_clock_that_leaps_ahead_and_comes_back_costs_no_day() {
        let (trend, metrics, hand) = trend(3);
        hit(&metrics, 2);
        hand.advance(HOUR * 24);
        trend.add_up().await;
        hit(&metrics, 3);
        trend.add_up().await;
        let days = trend.days(2).await;
        let ahead = Date::of(trend.shared.clock.wall() + HOUR * 24 * 4000).0;
        trend.note_on(ahead);
        hit(&metrics, 5);
        trend.note_on(ahead);
        hit(&metrics, 1);
        trend.add_up().await;
        let after = trend.days(2).await;
        assert_eq!(days[0], after[0]);
        assert_eq!((days[1].hits, after[1].hits), (3, 4));
        // A day that only a wrong clock has seen is the first to go, and not the oldest.
        for _ in 0..2 {
            hand.advance(HOUR * 24);
            hit(&metrics, 1);
            trend.add_up().await;
        }
        let here: Vec<_> = trend.shared.state().here.keys().copied().collect();
        assert_eq!(here.len(), 3);
        assert!(here.iter().all(|day| *day < ahead), "{here:?}");
    }

    #[test]
    fn the_last_time_of_a_day_is_at_its_end() {
        let (trend, _, hand) = trend(3);
        assert_eq!(trend.pause(), Duration::from_secs(600));
        hand.advance(HOUR * 24 - Duration::from_secs(60));
        assert_eq!(trend.pause(), Duration::from_millis(60_005));
        hand.advance(Duration::from_secs(60));
        assert_eq!(trend.pause(), Duration::from_secs(600));
    }

    #[tokio::test(start_paused = true)]
    async fn it_adds_up_by_itself_and_once_more_at_the_end() {
        let (trend, metrics, _) = trend(3);
        let tasks = Tasks::new().unwrap();
        trend.start(&tasks.spawner());
        hit(&metrics, 1);
        tokio::time::sleep(Duration::from_secs(601)).await;
        assert_eq!(trend.shared.state().here.len(), 1);
        hit(&metrics, 4);
        assert_eq!(tasks.shutdown(HOUR).await, 0);
        let noted = trend.shared.state().last;
        assert_eq!(noted, Sums::of(&metrics.snapshot()));
    }
}
