//! One instance of a service that has nothing but tiers, and what it keeps there.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Journal, JournalConfig, JournalParts, JournalStatus};
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;
use tower_keep::tiers::{Tiers, TiersConfig, TiersParts};

/// A small value with something on the heap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) id: u64,
    pub(crate) title: String,
    pub(crate) text: String,
}

impl Report {
    /// One that takes up about so many bytes where it is written.
    pub(crate) fn new(id: u64, bytes: usize) -> Self {
        let title = format!("report {id}");
        // Nothing that would shrink to nothing.
        let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut letter = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'a' + (state % 26) as u8)
        };
        let text = (0..bytes.saturating_sub(title.len() + 24)).map(|_| letter());
        Self {
            id,
            title,
            text: text.collect(),
        }
    }
}

/// An instance, and what keeps it alive.
pub(crate) struct Stand {
    pub(crate) tiers: Tiers,
    pub(crate) pool: RedisPool,
    _tasks: Tasks,
}

/// Begins an instance; with a `url`, when it knows that what Redis has still holds.
pub(crate) async fn stand(url: Option<String>) -> Stand {
    let tasks = Tasks::new().expect("a runtime");
    let redis = RedisConfig {
        command_timeout: Duration::from_secs(5),
        url,
        ..RedisConfig::default()
    };
    let parts = StoreParts {
        scripts: [Journal::scripts(), Tiers::scripts()].concat(),
        ..StoreParts::new(tasks.spawner())
    };
    let (clock, events) = (Clock::system(), Events::none());
    let pool = match redis.url {
        Some(_) => RedisPool::new(&redis, &parts).expect("settings"),
        None => RedisPool::disabled(),
    };
    let parts = JournalParts {
        clock: clock.clone(),
        events: events.clone(),
        redis: pool.clone(),
        spawner: tasks.spawner(),
    };
    let config = JournalConfig::default();
    let journal = Journal::shared(&config, parts).expect("settings");
    while journal.status() != JournalStatus::Verified {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let parts = TiersParts {
        journal,
        clock,
        events,
        spawner: tasks.spawner(),
        redis: pool.clone(),
        cold: None,
        seal_keys: None,
    };
    let config = TiersConfig::default();
    Stand {
        tiers: Tiers::new(&config, parts).expect("settings"),
        pool,
        _tasks: tasks,
    }
}

/// What a future that has its answer already returns.
#[inline]
pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(output) = pin!(future).poll(&mut cx) else {
        unreachable!("a hit does not wait")
    };
    output
}
