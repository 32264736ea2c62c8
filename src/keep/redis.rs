//! Redis, as health and metrics tell of it.

use std::time::Duration;

use crate::error::ConfigError;
use crate::health::{HealthBoard, HealthStatus};
use crate::keep::parts::Keep;
use crate::store::{RedisFigures, RedisPool, RedisStatus};

/// Figures on the board are at most this old; a change of state is there at once.
const ROUND: Duration = Duration::from_secs(1);

/// Follows the pool's state, and registers its gauges.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    let (pool, board) = (keep.redis().clone(), keep.health_board().clone());
    tell(&pool.figures(), &board);
    if pool.status() == RedisStatus::Disabled {
        return Ok(());
    }
    let (stopped, followed) = (keep.spawner(), pool.clone());
    let ending = Ending(board);
    keep.spawner().spawn(async move {
        tokio::select! {
            () = stopped.stopped() => {}
            () = follow(&followed, &ending.0) => {}
        }
    });
    register_gauges(keep, &pool)
}

/// Whoever still reads the board afterwards, through a router that was kept, is not told that Redis is up.
struct Ending(HealthBoard);

impl Drop for Ending {
    fn drop(&mut self) {
        let words = "down: the stack was shut down";
        self.0.set("redis", HealthStatus::Degraded, words);
    }
}

async fn follow(pool: &RedisPool, board: &HealthBoard) {
    let mut status = pool.watch();
    let mut rounds = tokio::time::interval(ROUND);
    loop {
        tokio::select! {
            changed = status.changed() => if changed.is_none() { return },
            _ = rounds.tick() => {}
        }
        tell(&pool.figures(), board);
    }
}

fn tell(figures: &RedisFigures, board: &HealthBoard) {
    let (status, detail) = match (&figures.status, &figures.refuses_writes) {
        (RedisStatus::Up, None) => (HealthStatus::Healthy, up(figures)),
        (RedisStatus::Up, Some(code)) => (
            HealthStatus::Degraded,
            format!("{}, takes no writes: {code}", up(figures)),
        ),
        (down @ RedisStatus::Down { .. }, _) => (HealthStatus::Degraded, down.to_string()),
        (RedisStatus::Disabled, _) => (HealthStatus::Healthy, RedisStatus::Disabled.to_string()),
    };
    board.set("redis", status, detail);
}

fn up(figures: &RedisFigures) -> String {
    let server = figures.server.as_deref().unwrap_or("redis");
    let connections = match figures.connections {
        1 => "1 connection".to_owned(),
        more => format!("{more} connections"),
    };
    format!(
        "up: {server}, {connections}, round trip {} us",
        figures.round_trip.as_micros()
    )
}

fn register_gauges(keep: &Keep, pool: &RedisPool) -> Result<(), ConfigError> {
    let metrics = keep.metrics();
    let up = pool.clone();
    metrics.gauge(
        "keep_redis_up",
        "Whether commands are sent to Redis.",
        move || f64::from(u8::from(up.status().is_up())),
    )?;
    let open = pool.clone();
    metrics.gauge(
        "keep_redis_connections",
        "Open connections to Redis.",
        move || open.figures().connections as f64,
    )?;
    let waiting = pool.clone();
    metrics.gauge(
        "keep_redis_under_way",
        "Commands that wait for Redis.",
        move || waiting.figures().under_way as f64,
    )?;
    let trip = pool.clone();
    metrics.gauge(
        "keep_redis_round_trip_seconds",
        "The last heartbeat's round trip.",
        move || trip.figures().round_trip.as_secs_f64(),
    )
}
