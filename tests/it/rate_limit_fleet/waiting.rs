//! Requests that wait for Redis: none for long, none for ever, and nothing is left of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_keep::identity::RequestView;

use super::{Instance, SECOND, SLACK, TIMEOUT, at_once, brisk, by, only};
use crate::redis::{Proxy, TestRedis};
use crate::store::{patient, until};

fn is_quiet(instance: &Instance) -> bool {
    instance.says("by_key: {}, waiting: 0")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_who_wait_for_a_stopped_server_are_all_answered() {
    for same in [true, false] {
        let server = TestRedis::start();
        let config = only([at_once("r", 20_000)]);
        let instance = Arc::new(Instance::join(&brisk(&server.url()), &config).await);
        tokio::task::block_in_place(|| server.stop());
        let began = Instant::now();
        let tasks: Vec<_> = (0..10_000)
            .map(|n| {
                let instance = Arc::clone(&instance);
                tokio::spawn(async move {
                    let caller = if same {
                        "alice".to_owned()
                    } else {
                        n.to_string()
                    };
                    instance.passes(&caller).await
                })
            })
            .collect();
        let mut passed = 0;
        for task in tasks {
            passed += usize::from(task.await.unwrap());
        }
        let waited = began.elapsed();
        assert_eq!(passed, 10_000);
        assert!(waited < TIMEOUT + SLACK, "{waited:?}");
        until("nobody waits", || is_quiet(&instance)).await;
        tokio::task::block_in_place(|| server.cont());
        instance.counts_together().await;
        assert!(instance.passes("bob").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_while_waiting_leaves_nothing_behind() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let config = only([at_once("r", 1000), at_once("s", 2000)]);
    let instance = Instance::join(&patient(&proxy.url()), &config).await;
    proxy.hang();
    let request = by("alice");
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let check = instance.limiter.check(&RequestView::of(&request));
        waiting.push(tokio::spawn(check));
    }
    until("they wait", || instance.says("waiting: 99")).await;
    for one in &waiting {
        one.abort();
    }
    for one in waiting {
        assert!(one.await.unwrap_err().is_cancelled());
    }
    proxy.forward();
    until("nobody waits", || is_quiet(&instance)).await;
    // The one question under way was charged; the others were never asked.
    let mut raw = server.raw();
    assert_eq!(super::bucket::used(&mut raw, "caller:alice", "r", 1000), 1);
    assert!(instance.passes("alice").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_the_waiting() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let config = only([at_once("r", 1000)]);
    let instance = Instance::join(&patient(&proxy.url()), &config).await;
    proxy.hang();
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let request = by(&format!("{}", n % 10));
            tokio::spawn(instance.limiter.check(&RequestView::of(&request)))
        })
        .collect();
    until("they wait", || instance.says("waiting: 90")).await;
    let began = Instant::now();
    instance.tasks.shutdown(Duration::from_millis(100)).await;
    for one in waiting {
        assert!(one.await.unwrap().unwrap().is_allow());
    }
    // The commands would have waited for 5 s.
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    assert!(is_quiet(&instance));
    assert!(instance.passes("late").await);
}
