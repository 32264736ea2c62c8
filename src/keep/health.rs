//! Health checks of the service's own, and the parts that do not tell by themselves.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::{ConfigError, Faults};
use crate::guard::Guard;
use crate::health::{HealthBoard, HealthCheck, HealthDetails, HealthStatus};
use crate::keep::engines::Ground;
use crate::keep::parts::Keep;

impl Keep {
    /// Adds a check that runs in the background from now on, until the stack is shut down or dropped.
    ///
    /// # Errors
    ///
    /// When its name is that of a component already, or a time of its is out of range.
    pub fn add_health_check(&self, check: HealthCheck) -> Result<(), ConfigError> {
        let checks = [check];
        let mut faults = Faults::new();
        self.check_names(&checks, &mut faults);
        faults.into_result()?;
        self.begin(&checks);
        Ok(())
    }

    fn check_names(&self, checks: &[HealthCheck], faults: &mut Faults) {
        let health = self.health_board().health();
        let there = health.components.keys().copied();
        let taken: Vec<_> = there.chain(TELL_THEMSELVES).collect();
        HealthCheck::check_all(checks, &taken, faults);
    }

    fn begin(&self, checks: &[HealthCheck]) {
        let (spawner, clock) = (self.spawner(), self.clock());
        let (config, board) = (&self.config().health, self.health_board());
        crate::health::start(checks, config, (&spawner, clock), board);
    }

    /// How everything is, with how old that is and since when: for the operator, not for strangers. Asks
    /// nobody, as [`health`](Self::health).
    #[must_use]
    pub fn health_details(&self) -> HealthDetails {
        self.health_board().details()
    }
}

/// Notes what is wrong with checks that are told before anything is built.
pub(crate) fn check(checks: &[HealthCheck], faults: &mut Faults) {
    HealthCheck::check_all(checks, &TELL_THEMSELVES, faults);
}

/// The board of a stack to be.
pub(crate) fn board(ground: &Ground) -> HealthBoard {
    let config = &ground.config.health;
    let drawn = || format!("{:08x}", RandomState::new().hash_one(0_u8) >> 32);
    let instance = config.instance.clone().unwrap_or_else(drawn);
    HealthBoard::of_instance(ground.clock.clone(), &instance, config.version.as_deref())
}

/// Starts the checks, and lets the board tell of the guard's queue.
pub(crate) fn start(keep: &Keep) {
    keep.begin(keep.health_checks());
    let config = &keep.config().guard;
    if config.enabled && config.queue > 0 {
        let (guard, board, places) = (
            keep.guard().clone(),
            keep.health_board().clone(),
            config.queue,
        );
        keep.spawner()
            .every(ROUND, move || tell_queue(&guard, &board, places));
    }
}

fn tell_queue(guard: &Guard, board: &HealthBoard, places: usize) {
    // A route's own queue is as short as its rule has made it, and full is what it may well be.
    let queued = guard.queued_for_all();
    let status = match queued.saturating_mul(5) >= places.saturating_mul(4) {
        true => HealthStatus::Degraded,
        false => HealthStatus::Healthy,
    };
    board.set("queue", status, format!("{queued} of {places} wait"));
}

/// What the board says of the queue is at most so old.
const ROUND: Duration = Duration::from_secs(1);

/// The components that say how they are by themselves.
const TELL_THEMSELVES: [&str; 7] = [
    "redis",
    "memory",
    "runtime",
    "invalidation",
    "circuits",
    "cold_store",
    "queue",
];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::clock::Clock;
    use crate::event::Events;
    use crate::guard::{GuardConfig, GuardRule, MemoryBounds, MemoryProbe};

    /// So that nobody is refused for it, however the machine is.
    struct NoMemory;

    impl MemoryProbe for NoMemory {
        fn used_bytes(&mut self) -> Option<u64> {
            None
        }

        fn bounds(&mut self) -> Option<MemoryBounds> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_that_for_the_slots_of_all() {
        let config = GuardConfig {
            slots: 2,
            queue: 5,
            rules: vec![GuardRule::new("/export").slots(1).queue(50)],
            ..GuardConfig::default()
        };
        let (clock, events) = (Clock::manual().0, Events::none());
        let guard = Guard::with_probe(&config, clock, events, Box::new(NoMemory)).unwrap();
        let ask = |path: &str| {
            let request = Request::builder().uri(path).body(()).unwrap();
            guard.admit_request(&request)
        };
        let board = HealthBoard::new();
        let told = || {
            tell_queue(&guard, &board, config.queue);
            let queue = board.health().components["queue"].clone();
            (queue.status, queue.detail)
        };
        let exports: Vec<_> = (0..21).map(|_| ask("/export")).collect();
        assert_eq!(guard.queued(), 20);
        assert_eq!(told(), (HealthStatus::Healthy, "0 of 5 wait".to_owned()));
        let others: Vec<_> = (0..5).map(|_| ask("/")).collect();
        assert_eq!(guard.queued(), 24);
        assert_eq!(told(), (HealthStatus::Degraded, "4 of 5 wait".to_owned()));
        drop((exports, others));
        assert_eq!(told(), (HealthStatus::Healthy, "0 of 5 wait".to_owned()));
    }
}
