//! What callers notice when Redis fails, in all the ways in which it can: each with a real server.
//!
//! Times are measured and printed, but never asserted tightly, so that a busy machine is no failure:
//! `cargo test --all-features --test it store_faults::table -- --ignored --nocapture`
//! prints them all.

mod bulk;
mod drill;
mod observer;
mod process;
mod report;
mod server;

use std::time::{Duration, Instant};

use tower_keep::store::{Command, DownKind, RedisStatus, StoreError};

use crate::redis::{Proxy, TestRedis};
use crate::store::{open, settings, until, until_up};
use crate::store_faults::drill::Drill;
use crate::store_faults::report::Report;

const BRIEF: Duration = Duration::from_millis(1_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_makes_nobody_wait() {
    show(process::sigstop(BRIEF).await).was_outage(&["nothing was answered", "no connection"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_missed_at_once_and_found_again() {
    show(process::sigkill(BRIEF).await).was_outage(&["refused", "closed the connection"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_given_up() {
    show(process::half_open(BRIEF).await).was_outage(&["nothing was answered"]);
    show(process::half_open_for_ever(BRIEF).await).was_outage(&["nothing was answered"]);
    show(process::forgotten(BRIEF).await).was_outage(&["nothing was answered"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_is_worse_than_none() {
    show(process::slow(BRIEF).await).was_outage(&["nothing was answered", "too late"]);
    show(process::slowish(BRIEF).await).holds();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_and_hanging_up_are_survived() {
    show(process::garbage(BRIEF).await).was_outage(&["not the Redis protocol"]);
    show(process::hung_up(BRIEF).await).was_outage(&["closed", "broken pipe", "reset"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_is_replaced() {
    show(server::client_kill(BRIEF).await).was_outage(&["closed the connection"]);
    let report = show(server::thrown_out(BRIEF).await);
    report.was_outage(&["closed the connection"]);
    // One in fifty milliseconds would be twenty; without a pause it is several hundred.
    assert!(report.trips < 60, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_makes_nobody_wait() {
    show(server::pause_all(BRIEF).await).was_outage(&["nothing was answered"]);
    show(server::pause_writes(BRIEF).await).was_outage(&["nothing was answered", "too late"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_is_waited_for_in_the_background() {
    show(server::loading(BRIEF).await).was_outage(&["LOADING"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_becomes_a_replica_is_given_up() {
    show(server::readonly(BRIEF).await).was_outage(&["READONLY", "a replica"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_and_the_old_primary_is_not() {
    for killed in [true, false] {
        let report = show(process::sentinel(settings, killed).await);
        report.was_outage(&["closed", "refused", "nothing was answered"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_read_from() {
    let report = show(server::out_of_memory(BRIEF).await);
    assert_eq!(report.trips, 0, "{report:#?}");
    let kinds: Vec<_> = report.errors.keys().collect();
    assert_eq!(kinds, ["Refused"], "{report:#?}");
    let report = show(server::lost_without_memory(BRIEF / 2).await);
    assert_eq!((report.trips, report.connections), (1, 1), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_makes_nobody_wait() {
    show(server::busy(BRIEF).await).was_outage(&["BUSY"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_knocked_at_until_it_has_a_place() {
    show(server::max_clients(BRIEF).await).was_outage(&["max number of clients"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_right_again_opens_again() {
    show(server::wrong_password(BRIEF).await).was_outage(&["WRONGPASS"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_forgets_nobody_notices() {
    show(server::flush_all(BRIEF).await).was_unnoticed();
    show(server::scripts_flushed(BRIEF).await).was_unnoticed();
    // Whoever flushes more often than once in a round trip can win ten times in a row. One call of three
    // was lost before there were ten.
    let report = show(server::scripts_flushed_madly(BRIEF).await);
    assert_eq!(report.trips, 0, "{report:#?}");
    assert!(report.failed * 20 <= report.succeeded, "{report:#?}");
    show(server::eviction(BRIEF).await).was_unnoticed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_piles_up_during_an_outage() {
    let report = show(process::outage(3 * BRIEF, 5_000).await);
    report.was_outage(&["nothing was answered"]);
    assert!(report.commands > 5_000, "{report:#?}");
    // 15,000 commands of 1 KiB, and what other tests in this process need meanwhile is in it, too.
    assert!(report.memory_kib < 64 << 10, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_knows_is_told_and_makes_nobody_wait() {
    let store = open(&settings(
        "redis://user:open-sesame@no-such-host.invalid:6379",
    ));
    let unresolved = |status: &RedisStatus| match status {
        RedisStatus::Down { reason } => reason.kind() == DownKind::Unresolved,
        _ => false,
    };
    until("told", || unresolved(&store.status())).await;
    let words = store.status().to_string();
    assert!(words.contains("no-such-host.invalid:6379"), "{words}");
    assert!(
        !words.contains("open-sesame") && !words.contains("user"),
        "{words}"
    );
    let mut late = 0;
    for _ in 0..1_000 {
        let begun = Instant::now();
        let error = store.run::<()>(&Command::new("PING")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        late += u32::from(begun.elapsed() > Duration::from_millis(1));
    }
    assert!(late < 50, "{late} of 1000 waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_pool_notices_by_itself() {
    let server = TestRedis::start();
    let store = open(&settings(&server.url()));
    until_up(&store).await;
    process::blocking(|| server.stop());
    until("the heartbeat stopped", || !store.status().is_up()).await;
    process::blocking(|| server.cont());
    until_up(&store).await;
    process::blocking(|| server.kill());
    until("the connection broke", || !store.status().is_up()).await;
    process::blocking(|| server.restart());
    until_up(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_does_not_wait_for_a_server_that_is_stopped() {
    let server = TestRedis::start();
    let store = open(&settings(&server.url()));
    until_up(&store).await;
    process::blocking(|| server.stop());
    until("noticed", || !store.status().is_up()).await;
    let begun = Instant::now();
    assert_eq!(store.tasks.shutdown(Duration::from_secs(5)).await, 0);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// Whoever goes away before the answer leaves nothing behind, and does no harm to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_go_away_are_not_missed() {
    let server = TestRedis::start();
    let drill = process::unhurried("callers go away", &server).await;
    drill.strike();
    for n in 0..2_000_u64 {
        let pool = drill.pool.clone();
        let get = Command::new("GET").key("caller:0");
        let caller = tokio::spawn(async move { pool.run::<Option<String>>(&get).await });
        tokio::time::timeout(Duration::from_micros(n % 700), caller)
            .await
            .ok();
        if n % 3 == 0 {
            let get = Command::new("GET").key("caller:0");
            let gone = drill.pool.run::<Option<String>>(&get);
            tokio::time::timeout(Duration::ZERO, gone).await.ok();
        }
    }
    drill.mend();
    show(drill.end().await).was_unnoticed();
}

/// The cap of one leaves no reserve, and all the same there is a way back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_cap_of_one_there_is_a_way_back() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let mut config = settings(&proxy.url());
    config.max_connections = 1;
    let (way, port) = (proxy.port(), server.port());
    let drill = Drill::begin("a cap of one", &config, way, &[port]).await;
    drill.strike();
    proxy.blackhole();
    tokio::time::sleep(BRIEF).await;
    drill.mend();
    proxy.forward();
    let report = show(drill.end().await);
    report.was_outage(&["nothing was answered"]);
    assert_eq!(report.connections, 1);
}

/// Its line, for whoever runs with `--nocapture`.
fn show(report: Report) -> Report {
    println!("{}", report.line());
    println!("    {:?} {:?}", report.errors, report.words);
    report
}

/// Prints all figures, with faults as long as an operator would see them: two minutes and a half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and prints a table instead of asserting"]
async fn table() {
    const LONG: Duration = Duration::from_secs(10);
    const SOME: Duration = Duration::from_secs(3);
    let mut lines = vec![
        process::sigstop(LONG).await.line(),
        process::sigkill(SOME).await.line(),
        process::half_open(LONG).await.line(),
        process::half_open_for_ever(SOME).await.line(),
        process::forgotten(SOME).await.line(),
        process::slow(SOME).await.line(),
        process::slowish(SOME).await.line(),
        process::garbage(SOME).await.line(),
        process::hung_up(SOME).await.line(),
        process::sentinel(settings, true).await.line(),
        process::sentinel(settings, false).await.line(),
    ];
    lines.extend([
        server::client_kill(SOME).await.line(),
        server::thrown_out(SOME).await.line(),
        server::pause_all(SOME).await.line(),
        server::pause_writes(SOME).await.line(),
        server::loading(SOME).await.line(),
        server::readonly(SOME).await.line(),
        server::out_of_memory(SOME).await.line(),
        server::lost_without_memory(SOME).await.line(),
        server::busy(SOME).await.line(),
        server::max_clients(SOME).await.line(),
        server::wrong_password(SOME).await.line(),
        server::flush_all(SOME).await.line(),
        server::scripts_flushed(SOME).await.line(),
        server::scripts_flushed_madly(SOME).await.line(),
        server::eviction(SOME).await.line(),
    ]);
    let minute = process::outage(Duration::from_secs(60), 1_000).await;
    lines.push(minute.line());
    println!("\n{}\n{}", Report::HEAD, lines.join("\n"));
}
