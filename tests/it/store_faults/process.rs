//! Faults of the server's process and of the way to it.

use std::time::Duration;

use tower_keep::store::RedisConfig;

use crate::redis::{Proxy, TestRedis, TestSentinel};
use crate::store::settings;
use crate::store_faults::drill::Drill;
use crate::store_faults::report::Report;

/// Does something that blocks.
pub(super) fn blocking<T>(deed: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(deed)
}

pub(super) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A server, a drill that connects to it directly.
pub(super) async fn direct(fault: &'static str, server: &TestRedis) -> Drill {
    let port = server.port();
    Drill::begin(fault, &settings(&server.url()), port, &[port]).await
}

/// The same with callers who would wait for two seconds, where nobody is to notice anything: a machine
/// that stalls is no fault of anybody's.
pub(super) async fn unhurried(fault: &'static str, server: &TestRedis) -> Drill {
    let mut config = settings(&server.url());
    config.command_timeout = Duration::from_secs(2);
    let port = server.port();
    Drill::begin(fault, &config, port, &[port]).await
}

/// A drill that connects through a proxy.
async fn through(fault: &'static str, server: &TestRedis, proxy: &Proxy) -> Drill {
    let config = settings(&proxy.url());
    Drill::begin(fault, &config, proxy.port(), &[server.port()]).await
}

pub(super) async fn sigstop(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = direct("SIGSTOP", &server).await;
    drill.strike();
    blocking(|| server.stop());
    pause(length).await;
    drill.mend();
    blocking(|| server.cont());
    drill.end().await
}

pub(super) async fn sigkill(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = direct("SIGKILL and restart", &server).await;
    drill.strike();
    blocking(|| server.kill());
    pause(length).await;
    drill.mend();
    blocking(|| server.restart());
    drill.end().await
}

/// Nothing passes for a while, and then what hung goes on.
pub(super) async fn half_open(length: Duration) -> Report {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let drill = through("half-open TCP", &server, &proxy).await;
    drill.strike();
    proxy.hang();
    pause(length).await;
    drill.mend();
    proxy.forward();
    drill.end().await
}

/// As if a firewall had forgotten every connection there is, also those that were made meanwhile.
pub(super) async fn half_open_for_ever(length: Duration) -> Report {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let drill = through("half-open TCP, old ways stay dead", &server, &proxy).await;
    drill.strike();
    proxy.blackhole();
    pause(length).await;
    proxy.blackhole();
    drill.mend();
    proxy.forward();
    drill.end().await
}

/// Only the connections that are there die; new ones work at once.
pub(super) async fn forgotten(_: Duration) -> Report {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let drill = through("half-open TCP, new ways work at once", &server, &proxy).await;
    drill.strike();
    proxy.blackhole();
    drill.mend();
    proxy.forward();
    crate::store::until("noticed", || drill.failed() > 0).await;
    drill.mend();
    drill.end().await
}

pub(super) async fn slow(length: Duration) -> Report {
    delayed("slow replies, 200 ms", length, Duration::from_millis(200)).await
}

pub(super) async fn slowish(length: Duration) -> Report {
    delayed(
        "slow replies, 30 ms each",
        length,
        Duration::from_millis(30),
    )
    .await
}

async fn delayed(fault: &'static str, length: Duration, by: Duration) -> Report {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let drill = through(fault, &server, &proxy).await;
    drill.strike();
    proxy.delay(by);
    pause(length).await;
    drill.mend();
    proxy.forward();
    drill.end().await
}

pub(super) async fn garbage(length: Duration) -> Report {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let drill = through("protocol garbage", &server, &proxy).await;
    drill.strike();
    proxy.garbage();
    pause(length).await;
    drill.mend();
    proxy.forward();
    drill.end().await
}

/// Whoever connects is hung up on.
pub(super) async fn hung_up(length: Duration) -> Report {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let drill = through("hung up on", &server, &proxy).await;
    drill.strike();
    proxy.refuse();
    blocking(|| proxy.cut());
    pause(length).await;
    drill.mend();
    proxy.forward();
    drill.end().await
}

pub(super) async fn sentinel(config: impl Fn(&str) -> RedisConfig, killed: bool) -> Report {
    let fleet = blocking(TestSentinel::start);
    let old = fleet.primary();
    let servers = [old.port(), fleet.replica().port()];
    let fault = match killed {
        true => "Sentinel failover, SIGKILL",
        false => "Sentinel failover, SIGSTOP",
    };
    let drill = Drill::begin(fault, &config(&fleet.url()), old.port(), &servers).await;
    drill.strike();
    blocking(|| if killed { old.kill() } else { old.stop() });
    let new = blocking(|| fleet.await_other_primary(old));
    drill.mend_at(Some(new.port()));
    // The old primary comes back, and takes itself for the primary for some time.
    blocking(|| if killed { old.restart() } else { old.cont() });
    let key = "written:to:whom";
    crate::store::until("written to the new one", || {
        drill.pool.status().is_up() && drill.failed() > 0
    })
    .await;
    let set = tower_keep::store::Command::new("SET").key(key).arg("x");
    let mut wrote = drill.pool.run::<()>(&set).await;
    for _ in 0..100 {
        if wrote.is_ok() {
            break;
        }
        pause(Duration::from_millis(20)).await;
        wrote = drill.pool.run::<()>(&set).await;
    }
    wrote.unwrap();
    let there = blocking(|| new.raw().must(&["GET", key]));
    assert_eq!(there.text(), "x", "written to another server");
    drill.end().await
}

/// Nobody is there for so long, while this many commands a second are tried. What piles up?
pub(super) async fn outage(length: Duration, per_second: u32) -> Report {
    let server = TestRedis::start();
    let drill = direct("outage under load", &server).await;
    drill.strike();
    // Stopped, not killed: this is where commands could pile up.
    blocking(|| server.stop());
    crate::store::until("noticed", || !drill.pool.status().is_up()).await;
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    let began = std::time::Instant::now();
    let mut failed = 0_u32;
    while began.elapsed() < length {
        beat.tick().await;
        // Each is a task of its own, as a request would be.
        let burst = (0..per_second / 100).map(|n| {
            let pool = drill.pool.clone();
            let set = tower_keep::store::Command::new("SET").key(format!("piled:{n}"));
            tokio::spawn(async move { pool.run::<()>(&set.arg(vec![7_u8; 1024])).await })
        });
        for one in burst.collect::<Vec<_>>() {
            failed += u32::from(one.await.unwrap().is_err());
        }
    }
    assert!(failed > 0);
    drill.mend();
    blocking(|| server.cont());
    let mut report = drill.end().await;
    report.commands = failed;
    report
}
