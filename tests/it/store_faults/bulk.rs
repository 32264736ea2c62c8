//! Large commands have a longer deadline, and must not keep the small ones from coming back.

use std::time::Duration;

use tokio::task::JoinHandle;
use tower_keep::store::{Command, RedisPool, StoreError};

use crate::redis::{Proxy, TestRedis};
use crate::store::{Store, open, settings, until, until_up};

const LARGE: usize = 1 << 20;

fn large() -> Command {
    Command::new("GET").key("large").bulk()
}

/// A large command.
fn asked(store: &Store) -> JoinHandle<Result<Vec<u8>, StoreError>> {
    let pool = store.pool.clone();
    tokio::spawn(async move {
        let range = Command::new("GETRANGE").key("large").arg(0).arg(-1);
        pool.run::<Vec<u8>>(&range.bulk()).await
    })
}

/// A large command that the server has answered, while its answer is long in coming: returns when no
/// more than its beginning is there, and nothing passes any more.
async fn stuck(
    store: &Store,
    server: &TestRedis,
    proxy: &Proxy,
) -> JoinHandle<Result<Vec<u8>, StoreError>> {
    let mut raw = server.raw();
    let mut answered = || {
        let stats = raw.must(&["INFO", "commandstats"]);
        stats.line("cmdstat_getrange")
    };
    let before = answered();
    // A third of a second for all of it.
    proxy.delay(Duration::from_millis(20));
    let asked = asked(store);
    until("answered", || answered() != before).await;
    proxy.blackhole();
    asked
}

/// A pool behind a proxy, with a large value and a connection for such.
async fn with_large(proxy: &Proxy, bulk_timeout: Duration) -> Store {
    let mut config = settings(&proxy.url());
    config.bulk_timeout = bulk_timeout;
    let store = open(&config);
    until_up(&store).await;
    let set = Command::new("SET").key("large").arg(vec![7_u8; LARGE]);
    store.run::<()>(&set).await.unwrap();
    store
}

/// A small command that is answered no more, so that the connection is given up.
async fn trip(pool: &RedisPool) {
    let get = Command::new("GET").key("small");
    while pool.run::<Option<String>>(&get).await.is_ok() {}
    until("given up", || !pool.status().is_up()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_commands_that_hang_do_not_hold_up_the_way_back() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let store = with_large(&proxy, Duration::from_secs(60)).await;
    let hanging = stuck(&store, &server, &proxy).await;
    // These wait for the connection that the other one has.
    let queued: Vec<_> = (0..8).map(|_| asked(&store)).collect();
    trip(&store).await;
    proxy.forward();
    until_up(&store).await;
    for one in queued {
        let error = one.await.unwrap().unwrap_err();
        let nothing_sent = matches!(error, StoreError::Unavailable(_));
        assert!(nothing_sent && !error.may_have_run(), "{error:?}");
    }
    assert!(!hanging.is_finished());
    hanging.abort();
    let _ = hanging.await;
    let value = store.run::<Vec<u8>>(&large()).await.unwrap();
    assert_eq!(value.len(), LARGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_large_answer_never_came_is_not_used_again() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let store = with_large(&proxy, Duration::from_millis(700)).await;
    for waits in [true, false] {
        let caller = stuck(&store, &server, &proxy).await;
        trip(&store).await;
        if waits {
            assert_eq!(caller.await.unwrap().unwrap_err(), StoreError::Timeout);
        } else {
            caller.abort();
            let _ = caller.await;
        }
        proxy.forward();
        until_up(&store).await;
        for _ in 0..3 {
            let value = store.run::<Vec<u8>>(&large()).await.unwrap();
            assert_eq!(value.len(), LARGE);
        }
        assert!(server.clients_named("tower-keep") <= 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_large_answer_nobody_wants_is_not_used_again() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let store = with_large(&proxy, Duration::from_secs(5)).await;
    for _ in 0..20 {
        let pool = store.pool.clone();
        let caller = tokio::spawn(async move { pool.run::<Vec<u8>>(&large()).await });
        until("under way", || store.figures().connections == 2).await;
        caller.abort();
        let value = store.run::<Vec<u8>>(&large()).await.unwrap();
        assert_eq!(value.len(), LARGE);
        assert!(server.clients_named("tower-keep") <= 2);
    }
    assert!(store.status().is_up());
}
