//! Checks that what was invalidated is gone everywhere, by asking.
//!
//! The journal promises that; this is the measurement. Now and then an invalidation of this instance's own is
//! followed: once it is acknowledged, every instance is asked at 10 ms, 100 ms, 1 s, 10 s and 60 s what it
//! would serve of what was invalidated, under which stamp, and how far its mirror is. Whatever breaks an
//! [`Invariant`](crate::invalidation::Invariant) is an [`Event::CoherencyViolation`]. (After Meta's Polaris.)
//!
//! Off the way of requests: an invalidation that is not followed costs one load, one that is followed some
//! messages. An instance that is asked looks through its tiers in slices, and rests for a hundred times as
//! long as that took before it answers again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::invalidation::coherency_config::CoherencyConfig;
use crate::invalidation::findings::{CoherencyViolation, judge};
use crate::invalidation::tally::{CoherencyReport, Tally};
use crate::journal::{ASKED_MAX, Asked, Inquiry, Journal, Sample};
use crate::task::Spawner;

/// Follows invalidations. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Coherency {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: CoherencyConfig,
    journal: Journal,
    events: Events,
    /// The last samples that are acknowledged, oldest first.
    recent: Mutex<VecDeque<Sample>>,
    tally: Mutex<Tally>,
    /// How many are followed at a time.
    places: Arc<Semaphore>,
}

/// When an acknowledged invalidation is asked about.
const WINDOWS: [(&str, Duration); 5] = [
    ("10ms", Duration::from_millis(10)),
    ("100ms", Duration::from_millis(100)),
    ("1s", Duration::from_secs(1)),
    ("10s", Duration::from_secs(10)),
    ("60s", Duration::from_secs(60)),
];

/// What is asked for by hand.
const ON_DEMAND: &str = "on_demand";

/// How many samples are remembered, to be asked about on demand.
const RECENT_MAX: usize = ASKED_MAX;

/// How many are followed at a time; beyond that none is taken.
const FOLLOWED_MAX: usize = 64;

impl Coherency {
    /// A checker of `journal`. It does nothing before it is [started](Self::start).
    ///
    /// # Errors
    ///
    /// Names every setting that is out of range.
    pub fn new(
        config: &CoherencyConfig,
        journal: Journal,
        events: Events,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("invalidation.coherency", &mut faults);
        faults.into_result()?;
        let shared = Shared {
            config: config.clone(),
            journal,
            events,
            recent: Mutex::default(),
            tally: Mutex::default(),
            places: Arc::new(Semaphore::new(FOLLOWED_MAX)),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Begins to follow invalidations, until the spawner's owner shuts down. Does nothing
    /// where it is switched off, and where another follows those of this journal already.
    pub fn start(&self, spawner: &Spawner) {
        if !self.shared.config.enabled {
            return;
        }
        let every = self.shared.config.sample_every;
        let Some(mut samples) = self.shared.journal.samples(every) else {
            return;
        };
        let (checker, stopped, followers) = (self.clone(), spawner.clone(), spawner.clone());
        spawner.spawn(async move {
            let take = async {
                while let Some(sample) = samples.recv().await {
                    checker.clone().take(sample, &followers);
                }
            };
            tokio::select! {
                () = stopped.stopped() => {}
                () = take => {}
            }
        });
    }

    fn take(self, sample: Sample, spawner: &Spawner) {
        let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
            return;
        };
        let stopped = spawner.clone();
        spawner.spawn(async move {
            let _place = place;
            tokio::select! {
                () = stopped.stopped() => {}
                () = self.follow(sample) => {}
            }
        });
    }

    async fn follow(&self, sample: Sample) {
        self.shared.journal.until_everywhere(&sample).await;
        self.tally().samples += 1;
        {
            let mut recent = lock(&self.shared.recent);
            if recent.len() >= RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back(sample.clone());
        }
        let mut passed = Duration::ZERO;
        for (window, after) in WINDOWS {
            // From one to the next, so that a slow answer makes later ones later, never sooner.
            tokio::time::sleep(after.saturating_sub(passed)).await;
            passed = after;
            let asked = [sample.asked.clone()];
            if let Some(inquiry) = self.ask(sample.shard, &asked).await {
                self.conclude(window, (&asked, &inquiry), &mut Tally::default());
            }
        }
    }

    /// Asks every instance about the invalidations that were followed last, 64 at most, at once. Returns what
    /// that has shown, and nothing from before. Takes no longer than `answer_within_ms` for each of the
    /// journal's shards. Dropping it forgets the question.
    ///
    /// Without a sample there is nothing to ask about, and the report says that nothing was checked.
    pub async fn check(&self) -> CoherencyReport {
        let recent: Vec<Sample> = lock(&self.shared.recent).iter().cloned().collect();
        let mut shards: Vec<usize> = recent.iter().map(|sample| sample.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut now = Tally::default();
        for shard in shards {
            let of_shard = recent.iter().filter(|sample| sample.shard == shard);
            let mut asked: Vec<Asked> = of_shard.map(|sample| sample.asked.clone()).collect();
            // Of an incarnation that has ended nothing is left to be served.
            let newest = asked.last().map(|one| one.inc);
            asked.retain(|one| Some(one.inc) == newest);
            if let Some(inquiry) = self.ask(shard, &asked).await {
                now.samples += asked.len() as u64;
                self.conclude(ON_DEMAND, (&asked, &inquiry), &mut now);
            }
        }
        now.report()
    }

    /// What all checks so far have shown. Asks nobody.
    #[must_use]
    pub fn report(&self) -> CoherencyReport {
        self.tally().report()
    }

    /// The answers. `None` where the journal's past was lost meanwhile, so that there is nothing to say.
    async fn ask(&self, shard: usize, asked: &[Asked]) -> Option<Inquiry> {
        let within = self.shared.config.answer_within;
        let inquiry = self.shared.journal.inquire(shard, asked, within).await?;
        let here = inquiry.answers.first()?.inc;
        asked.iter().all(|one| one.inc == here).then_some(inquiry)
    }

    fn conclude(
        &self,
        window: &'static str,
        (asked, inquiry): (&[Asked], &Inquiry),
        now: &mut Tally,
    ) {
        let Inquiry { answers, silent } = inquiry;
        let findings = judge(asked, answers);
        let unclean = (0..asked.len())
            .filter(|at| findings.iter().any(|(_, of, _)| of == at))
            .count();
        let (checks, unclean) = (asked.len() as u64, unclean as u64);
        let mut all = self.tally();
        for tally in [&mut *all, now] {
            tally.probes += 1;
            tally.answers += answers.len() as u64;
            tally.silent += *silent as u64;
            tally.looks += answers.iter().map(|answer| answer.work).sum::<u64>();
            tally.checked(window, checks, checks - unclean);
            for (invariant, at, detail) in &findings {
                tally.found(CoherencyViolation {
                    invariant: *invariant,
                    window,
                    seq: asked.get(*at).map_or(0, |one| one.seq),
                    detail: detail.clone(),
                });
            }
        }
        drop(all);
        for _ in asked {
            self.shared.events.emit(Event::CoherencyChecked { window });
        }
        for (invariant, _, detail) in &findings {
            self.shared.events.emit(Event::CoherencyViolation {
                invariant: invariant.as_str(),
                window,
                detail,
            });
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.shared.tally)
    }
}

/// Counts and a list: a panic leaves none of them half-changed.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
