//! A command of the service's own to Redis: `GET /visits` counts who looked, over all instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use tower_keep::store::{Command, RedisPool};

/// Counts together with the other instances, and by itself while Redis is away.
#[derive(Clone)]
pub(crate) struct Visits {
    redis: RedisPool,
    here: Arc<AtomicU64>,
}

/// The count, and who did the counting.
#[derive(Serialize)]
struct Count {
    visits: u64,
    counted_by: &'static str,
}

impl Visits {
    pub(crate) fn new(redis: RedisPool) -> Self {
        Self {
            redis,
            here: Arc::default(),
        }
    }
}

/// One more visit. Without Redis this costs nothing but a look at the pool: nobody waits for it.
pub(crate) async fn count(State(visits): State<Visits>) -> impl IntoResponse {
    let here = visits.here.fetch_add(1, Ordering::Relaxed) + 1;
    // Where the answer is lost, the visit may have been counted all the same. Here that does no harm.
    let one_more = Command::new("INCR").key(visits.redis.key("visits"));
    let count = match visits.redis.run(&one_more).await {
        Ok(visits) => Count {
            visits,
            counted_by: "redis",
        },
        Err(_) => Count {
            visits: here,
            counted_by: "this instance",
        },
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(count))
}
