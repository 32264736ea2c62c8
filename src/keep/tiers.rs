//! The tiers, as health and metrics tell of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::error::ConfigError;
use crate::health::{HealthBoard, HealthStatus};
use crate::keep::gauges::{Row, show};
use crate::keep::parts::Keep;
use crate::task::Spawner;
use crate::tiers::{ColdFigures, Tiers};

/// What the board says of the cold store is at most so old.
const ROUND: Duration = Duration::from_secs(1);

/// Tells the board how the cold store is, if there is one, and registers the tiers' gauges.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let (tiers, board) = (keep.tiers().clone(), keep.health_board().clone());
    if let Some(figures) = tiers.cold_figures() {
        let mut failures = figures.failures;
        tell(&board, &figures, false);
        keep.spawner().every(ROUND, move || {
            let Some(figures) = tiers.cold_figures() else {
                return;
            };
            tell(&board, &figures, figures.failures > failures);
            failures = figures.failures;
        });
    }
    show(keep.metrics(), keep.tiers(), &TIERS)?;
    let hits = HotHits {
        tiers: keep.tiers().clone(),
        spawner: keep.spawner(),
        last: AtomicU64::new(0),
        adds_up: AtomicBool::new(false),
    };
    show(keep.metrics(), &Arc::new(hits), &HITS)
}

/// Hits in memory are counted with their values, where it costs next to nothing, so adding them up looks at all
/// values.
#[derive(Debug)]
struct HotHits {
    tiers: Tiers,
    spawner: Spawner,
    /// What it came to the last time.
    last: AtomicU64,
    /// Whether somebody is at it.
    adds_up: AtomicBool,
}

/// So many values are looked at in some ten microseconds. More are not, by whoever has requests to answer.
const FEW: usize = 2_000;

impl HotHits {
    /// Where there are many values, what it came to when it was read the last time: they are looked at on another
    /// thread meanwhile.
    fn read(self: &Arc<Self>) -> f64 {
        if self.tiers.len() <= FEW {
            self.add_up();
        } else if !self.adds_up.swap(true, Ordering::Relaxed) {
            let this = Arc::clone(self);
            self.spawner.spawn_blocking(move || this.add_up());
        }
        self.last.load(Ordering::Relaxed) as f64
    }

    fn add_up(&self) {
        let hits = self.tiers.stats().hits_hot;
        self.last.fetch_max(hits, Ordering::Relaxed);
        self.adds_up.store(false, Ordering::Relaxed);
    }
}

const HITS: [Row<Arc<HotHits>>; 1] = [(
    "keep_tiers_hot_hits",
    "Values of typed caches that were served from memory so far; of many values, when this was read before.",
    |hits| hits.read(),
)];

fn tell(board: &HealthBoard, figures: &ColdFigures, fails: bool) {
    let status = match fails {
        true => HealthStatus::Degraded,
        false => HealthStatus::Healthy,
    };
    let (waiting, dropped) = (figures.waiting, figures.dropped);
    let words = match (fails, waiting) {
        (true, waiting) => {
            format!("cannot be written; {waiting} wait, {dropped} were dropped so far")
        }
        (false, 0) => "all is written".to_owned(),
        (false, waiting) => format!("{waiting} wait to be written"),
    };
    board.set("cold_store", status, words);
}

const TIERS: [Row<Tiers>; 4] = [
    (
        "keep_tiers_bytes",
        "Memory taken up by values of typed caches.",
        |tiers| tiers.bytes() as f64,
    ),
    (
        "keep_tiers_entries",
        "Values of typed caches in memory.",
        |tiers| tiers.len() as f64,
    ),
    (
        "keep_cold_waiting",
        "Entries that wait to be written to the cold store.",
        |tiers| tiers.cold_figures().unwrap_or_default().waiting as f64,
    ),
    (
        "keep_cold_dropped",
        "Entries that were never written to the cold store.",
        |tiers| tiers.cold_figures().unwrap_or_default().dropped as f64,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use crate::tiers::{CacheError, EntryOptions};

    #[tokio::test]
    async fn hits_of_many_values_are_added_up_elsewhere() {
        let keep = Keep::builder(Profile::development()).build().unwrap();
        let cache = keep.cache::<u64>("numbers");
        let ask = async |number: usize| {
            let compute = || async { Ok::<_, CacheError>(7) };
            let number = number.to_string();
            let options = EntryOptions::new().ttl(Duration::from_secs(60));
            cache.get_or_compute(&number, &options, compute).await
        };
        let read = || keep.metrics().gauge_value("keep_tiers_hot_hits");
        for _ in 0..3 {
            ask(0).await.unwrap();
        }
        assert_eq!(read(), Some(2.0), "few are looked at at once");
        for number in 0..=FEW {
            ask(number).await.unwrap();
        }
        assert!(keep.tiers().len() > FEW);
        assert_eq!(read(), Some(2.0), "what it was the last time");
        let patience = async {
            while read() != Some(3.0) {
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(10), patience);
        found.await.unwrap();
    }
}
