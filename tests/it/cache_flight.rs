//! Many requests for one missing answer: who asks the service, who waits, and for how long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, watch};
use tower::Service;
use tower_keep::journal::Marker;

use crate::cache_room::{
    Answer, Broken, Cached, Room, Seen, answer, ask, empty, get, get_with, piped, request, room,
    room_with, send, settle, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

/// A service that works until the gate opens.
fn gated(
    room: &Room,
    answer: impl Fn(&Request<()>) -> Answer + Send + Sync + 'static,
) -> (Cached, watch::Sender<bool>) {
    let (open, gate) = watch::channel(false);
    let service = room.before(move |request| {
        let (mut gate, answer) = (gate.clone(), answer(&request));
        Box::pin(async move {
            gate.wait_for(|open| *open).await.map_err(|_| Broken)?;
            answer
        })
    });
    (service, open)
}

fn spawn(service: &Cached, request: Request<()>) -> tokio::task::JoinHandle<Seen> {
    let service = service.clone();
    tokio::spawn(async move { ask(&service, request).await })
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_requests_one_reaches_the_service_and_all_are_answered() {
    let room = room();
    let (service, open) = gated(&room, |_| Ok(text(&[MINUTE], "hello")));
    let asking: Vec<_> = (0..1000).map(|_| spawn(&service, get("/"))).collect();
    settle().await;
    assert_eq!(service.inner().calls(), 1);
    open.send_replace(true);
    let mut collapsed = 0;
    for seen in asking {
        let seen = seen.await.unwrap();
        assert_eq!(seen.text(), "hello");
        collapsed += usize::from(seen.said() == "fwd=uri-miss; collapsed");
    }
    assert_eq!((service.inner().calls(), collapsed), (1, 999));
}

#[tokio::test(start_paused = true)]
async fn followers_of_a_stale_answer_are_told_so() {
    let room = room();
    let (service, open) = gated(&room, |_| Ok(text(&[MINUTE], "x")));
    open.send_replace(true);
    ask(&service, get("/")).await;
    room.pass_secs(61);
    open.send_replace(false);
    let asking = [spawn(&service, get("/")), spawn(&service, get("/"))];
    settle().await;
    open.send_replace(true);
    let [first, second] = asking;
    assert_eq!(first.await.unwrap().said(), "fwd=stale; stored");
    assert_eq!(second.await.unwrap().said(), "fwd=stale; collapsed");
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_leaves_exactly_one_follower_takes_over() {
    let room = room();
    let leading = Arc::new(AtomicUsize::new(0));
    let leads = Arc::clone(&leading);
    let (service, open) = gated(&room, move |request| {
        let who = request.headers()["x-who"].to_str().unwrap().parse();
        leads.store(who.unwrap(), Ordering::SeqCst);
        Ok(text(&[MINUTE], "hello"))
    });
    let asking: Vec<_> = (0..100)
        .map(|who: usize| spawn(&service, get_with("/", &[("x-who", &who.to_string())])))
        .collect();
    for calls in 1..4 {
        settle().await;
        assert_eq!(service.inner().calls(), calls);
        asking[leading.load(Ordering::SeqCst)].abort();
    }
    settle().await;
    open.send_replace(true);
    let mut answered = 0;
    for seen in asking {
        match seen.await {
            Ok(seen) => {
                assert_eq!(seen.text(), "hello");
                answered += 1;
            }
            Err(gone) => assert!(gone.is_cancelled()),
        }
    }
    assert_eq!((answered, service.inner().calls()), (97, 4));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_or_fails_frees_the_key() {
    let room = room();
    let calls = AtomicUsize::new(0);
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let service = room.before(move |_| {
        let (call, wait) = (calls.fetch_add(1, Ordering::SeqCst), Arc::clone(&wait));
        Box::pin(async move {
            wait.acquire().await.map_err(|_| Broken)?.forget();
            match call {
                0 => panic!("a handler's bug"),
                1 => Err(Broken),
                _ => Ok(answer(&[MINUTE], empty())),
            }
        })
    });
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { send(&service, get("/")).await.map(|_| ()) })
        })
        .collect();
    settle().await;
    assert_eq!(service.inner().calls(), 1);
    gate.add_permits(3);
    let mut ends = Vec::new();
    for end in asking {
        ends.push(match end.await {
            Ok(Ok(())) => "answered",
            Ok(Err(Broken)) => "failed",
            Err(_) => "panicked",
        });
    }
    ends.sort_unstable();
    assert_eq!(ends, ["answered", "failed", "panicked"]);
    assert_eq!(service.inner().calls(), 3);
}

/// Hit-for-miss: whoever waits for an answer that cannot be shared waits in vain.
#[tokio::test(start_paused = true)]
async fn answers_that_cannot_be_shared_do_not_queue() {
    for fields in [
        // Not to be stored at all.
        &[("cache-control", "no-store")][..],
        &[MINUTE, ("set-cookie", "a=1")],
        // Not whole, each time.
        &[MINUTE, ("content-length", "7")],
        // Stored, but each use has to be asked about.
        &[("cache-control", "no-cache"), ("etag", "\"a\"")],
        &[("etag", "\"a\"")],
        &[
            ("cache-control", "max-age=0"),
            ("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT"),
        ],
    ] {
        let room = room();
        let (service, open) = gated(&room, move |_| Ok(text(fields, "x")));
        for round in 0..3 {
            open.send_replace(false);
            let asking: Vec<_> = (0..50).map(|_| spawn(&service, get("/"))).collect();
            settle().await;
            let before = service.inner().calls();
            // The first round cannot know; as soon as one head is there, everybody does.
            let expected = if round == 0 { 1 } else { 50 + round * 50 };
            assert_eq!(before, expected, "{fields:?}, round {round}");
            open.send_replace(true);
            for seen in asking {
                assert_eq!(seen.await.unwrap().status, StatusCode::OK);
            }
            assert_eq!(service.inner().calls(), 50 + round * 50, "{fields:?}");
        }
    }
}

/// The head says that the answer cannot be shared; nobody waits for its body.
#[tokio::test(start_paused = true)]
async fn followers_go_on_as_soon_as_the_head_says_no() {
    let room = room();
    let (pipes, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = room.answering(move |_| {
        let (pipe, body) = piped();
        let _ = pipes.send(pipe);
        answer(&[("cache-control", "no-store")], body)
    });
    let slow = send(&service, get("/")).await.unwrap();
    let quick = spawn(&service, get("/"));
    settle().await;
    let _slow_pipe = receiver.recv().await.unwrap();
    drop(receiver.recv().await.unwrap());
    assert_eq!(quick.await.unwrap().status, StatusCode::OK);
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded_and_whoever_waited_in_vain_asks_itself() {
    let room = room_with(|config| config.flight_wait = Duration::from_millis(500));
    let (service, open) = gated(&room, |_| Ok(text(&[MINUTE], "x")));
    let leader = spawn(&service, get("/"));
    settle().await;
    let began = tokio::time::sleep(Duration::ZERO).deadline();
    let follower = spawn(&service, get("/"));
    while service.inner().calls() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waited = tokio::time::sleep(Duration::ZERO).deadline() - began;
    assert!(waited >= Duration::from_millis(500) && waited < Duration::from_millis(600));
    open.send_replace(true);
    assert_eq!(follower.await.unwrap().said(), "fwd=uri-miss; stored");
    leader.await.unwrap();
}

/// Each takes the wait for the next leader out of the same patience.
#[tokio::test(start_paused = true)]
async fn however_often_leaders_leave_nobody_waits_longer() {
    let room = room_with(|config| config.flight_wait = Duration::from_millis(500));
    let leading = Arc::new(AtomicUsize::new(0));
    let leads = Arc::clone(&leading);
    let (service, _open) = gated(&room, move |request| {
        let who = request.headers()["x-who"].to_str().unwrap().parse();
        leads.store(who.unwrap(), Ordering::SeqCst);
        Ok(text(&[MINUTE], "x"))
    });
    let asking: Vec<_> = (0..20)
        .map(|who: usize| spawn(&service, get_with("/", &[("x-who", &who.to_string())])))
        .collect();
    settle().await;
    for calls in 1..6 {
        assert_eq!(service.inner().calls(), calls);
        asking[leading.load(Ordering::SeqCst)].abort();
        settle().await;
        room.hand.advance(Duration::from_millis(99));
        tokio::time::sleep(Duration::from_millis(99)).await;
    }
    room.hand.advance(Duration::from_millis(10));
    tokio::time::sleep(Duration::from_millis(10)).await;
    settle().await;
    assert_eq!(
        service.inner().calls(),
        20,
        "all that are left ask by themselves"
    );
}

/// A client that reads one byte a minute must not make others wait for its answer.
#[tokio::test(start_paused = true)]
async fn a_leader_that_dawdles_holds_up_nobody_for_long() {
    let room = room();
    let (pipes, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = room.answering(move |_| {
        let (pipe, body) = piped();
        let _ = pipes.send(pipe);
        answer(&[MINUTE], body)
    });
    let _dawdling = send(&service, get("/")).await.unwrap();
    let _pipe = receiver.recv().await.unwrap();
    room.pass_secs(6);
    let began = tokio::time::sleep(Duration::ZERO).deadline();
    let next = spawn(&service, get("/"));
    let pipe = receiver.recv().await.unwrap();
    pipe.send("hello");
    drop(pipe);
    assert_eq!(next.await.unwrap().text(), "hello");
    let waited = tokio::time::sleep(Duration::ZERO).deadline() - began;
    assert!(waited < Duration::from_millis(10), "{waited:?}");
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
}

#[tokio::test(start_paused = true)]
async fn variants_do_not_queue_behind_each_other() {
    let room = room();
    let (service, open) = gated(&room, |_| Ok(text(&[MINUTE, ("vary", "x-v")], "x")));
    open.send_replace(true);
    ask(&service, get_with("/", &[("x-v", "first")])).await;
    open.send_replace(false);
    let asking: Vec<_> = (0..100)
        .map(|i| spawn(&service, get_with("/", &[("x-v", &(i % 10).to_string())])))
        .collect();
    settle().await;
    assert_eq!(service.inner().calls(), 1 + 10);
    open.send_replace(true);
    for seen in asking {
        seen.await.unwrap();
    }
    assert_eq!(service.inner().calls(), 1 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_follower_never_gets_what_was_invalidated_while_it_waited() {
    let room = room();
    let (service, open) = gated(&room, |_| Ok(text(&[MINUTE], "x")));
    let leader = spawn(&service, get("/"));
    settle().await;
    drop(room.cache.journal().append([Marker::tag("/")]));
    // It boards after the change was acknowledged.
    let follower = spawn(&service, get("/"));
    settle().await;
    open.send_replace(true);
    leader.await.unwrap();
    assert_eq!(follower.await.unwrap().said(), "fwd=uri-miss; stored");
    assert_eq!(service.inner().calls(), 2);
}

/// Polls a request `polls` times, then drops it, at every stage it can be at.
#[tokio::test(start_paused = true)]
async fn a_request_may_be_dropped_at_any_point() {
    let roles = "alone leader follower refresher validator change";
    for role in roles.split(' ') {
        for polls in 0..12 {
            drop_after(role, polls).await;
        }
    }
}

async fn drop_after(role: &str, polls: usize) {
    let room = room();
    let service = room.before(|request| Box::pin(work_a_little(request)));
    let path = match role {
        "refresher" => "/swr",
        "alone" => "/no",
        _ => "/",
    };
    if matches!(role, "refresher" | "validator" | "alone") {
        ask(&service, get(path)).await;
        room.pass_secs(61);
    }
    let leading = (role == "follower").then(|| Box::pin(ask(&service, get(path))));
    let method = if role == "change" { "POST" } else { "GET" };
    let dropped = Box::pin(async {
        let response = send(&service, request(method, path, &[])).await?;
        let mut body = response.into_body();
        while body.frame().await.transpose()?.is_some() {
            tokio::task::yield_now().await;
        }
        Ok::<_, Broken>(())
    });
    poll_and_drop(dropped, leading, polls);
    // Nobody is in the way: the next request is answered without a wait.
    let next = tokio::time::timeout(Duration::from_millis(1), ask(&service, get(path))).await;
    let next = next.unwrap_or_else(|_| panic!("{role} dropped after {polls}"));
    assert_eq!(next.text(), "hello", "{role} dropped after {polls}");
}

/// Polls one request, behind another if there is one, so many times, and then drops both.
fn poll_and_drop(
    mut dropped: impl Future + Unpin,
    mut leading: Option<impl Future + Unpin>,
    polls: usize,
) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut lead = |cx: &mut Context<'_>| {
        let leading = leading.as_mut();
        leading.is_some_and(|leading| Pin::new(leading).poll(cx).is_ready())
    };
    assert!(!lead(&mut cx), "it cannot be done at once");
    for _ in 0..polls {
        if Pin::new(&mut dropped).poll(&mut cx).is_ready() || lead(&mut cx) {
            break;
        }
    }
    drop(dropped);
}

/// Answers after a few turns, in a body of its own pace.
async fn work_a_little(request: Request<()>) -> Answer {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    let (pipe, body) = piped();
    pipe.send("hello");
    let line = match request.uri().path() {
        "/swr" => "max-age=60, stale-while-revalidate=60",
        "/no" => "no-store",
        _ => "max-age=60",
    };
    let mut response = answer(&[("cache-control", line), ("etag", "\"a\"")], body);
    if request.headers().contains_key("if-none-match") {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    Ok(response)
}

/// The slot that `poll_ready` reserved goes with the call, also where the call comes late.
#[tokio::test(start_paused = true)]
async fn followers_and_refreshes_call_the_service_that_was_ready() {
    #[derive(Debug)]
    struct Strict {
        ready: bool,
    }
    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self { ready: false }
        }
    }
    impl Service<Request<()>> for Strict {
        type Response = http::Response<crate::cache_room::Content>;
        type Error = Broken;
        type Future = crate::cache_room::Working;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(
                std::mem::take(&mut self.ready),
                "called without being ready"
            );
            Box::pin(async {
                tokio::task::yield_now().await;
                let line = "max-age=60, stale-while-revalidate=60";
                Ok(text(&[("cache-control", line)], "x"))
            })
        }
    }
    let room = room();
    let layer = tower_keep::cache::CacheLayer::new(room.cache.clone());
    let service = tower::Layer::layer(&layer, Strict { ready: false });
    let call = || tower::ServiceExt::oneshot(service.clone(), get("/"));
    let (leader, follower) = tokio::join!(
        async { drop(call().await.unwrap()) }, // hands the flight on
        call()
    );
    let () = leader;
    follower.unwrap().into_body().collect().await.unwrap();
    room.pass_secs(61);
    call().await.unwrap();
    settle().await;
    assert_eq!(call().await.unwrap().headers()["cache-status"], "keep; hit");
}

#[tokio::test]
async fn real_threads_agree_as_well() {
    let runtime = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let room = room();
            let service = room.before(|request| {
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok(text(&[MINUTE], request.uri().path().to_owned()))
                })
            });
            for round in 0..200 {
                let path = format!("/{round}");
                let asking: Vec<_> = (0..16).map(|_| spawn(&service, get(&path))).collect();
                for seen in asking {
                    assert_eq!(seen.await.unwrap().text(), path);
                }
                assert_eq!(service.inner().calls(), round + 1);
            }
        });
    });
    runtime.join().unwrap();
}

/// Enough to record an answer of a thousand bytes, half of it being for recordings, and too little to keep any.
const TOO_LITTLE: u64 = 2100;

/// A flight brings its answer to those that wait, whether or not it finds a place in the store.
#[tokio::test(start_paused = true)]
async fn ten_thousand_wait_for_one_answer_even_if_it_is_evicted_at_once() {
    for keeps in [true, false] {
        let room = room();
        if !keeps {
            room.cache.set_capacity_bytes(TOO_LITTLE);
        }
        let (service, open) = gated(&room, |_| Ok(text(&[MINUTE], "x".repeat(1000))));
        let asking: Vec<_> = (0..10_001).map(|_| spawn(&service, get("/"))).collect();
        settle().await;
        assert_eq!(service.inner().calls(), 1);
        open.send_replace(true);
        let mut collapsed = 0;
        for seen in asking {
            let seen = seen.await.unwrap();
            assert_eq!(seen.body.len(), 1000);
            collapsed += usize::from(seen.said() == "fwd=uri-miss; collapsed");
        }
        assert_eq!(
            (service.inner().calls(), collapsed),
            (1, 10_000),
            "keeps: {keeps}"
        );
        assert_eq!(room.cache.is_empty(), !keeps);
        let next = ask(&service, get("/")).await;
        assert_eq!(next.said() == "hit", keeps);
    }
}

/// Whoever is brought an answer that does not fit it, or that was purged meanwhile, asks for its own.
#[tokio::test(start_paused = true)]
async fn what_a_flight_brings_is_judged_like_what_is_stored() {
    let room = room();
    room.cache.set_capacity_bytes(TOO_LITTLE);
    let (service, open) = gated(&room, |request| {
        let v = request.headers()["x-v"].to_str().unwrap().to_owned();
        Ok(text(&[MINUTE, ("vary", "x-v")], v))
    });
    let asking: Vec<_> = (0..9)
        .map(|i| spawn(&service, get_with("/", &[("x-v", ["a", "b", "c"][i % 3])])))
        .collect();
    settle().await;
    assert_eq!(
        service.inner().calls(),
        1,
        "that they differ is not known yet"
    );
    open.send_replace(true);
    for (i, seen) in asking.into_iter().enumerate() {
        assert_eq!(seen.await.unwrap().text(), ["a", "b", "c"][i % 3]);
    }
}

/// A URL is marked for as long as its answers cannot be stored, and not much longer.
#[tokio::test]
async fn a_marked_url_that_can_be_stored_again_is_within_sixteen_requests() {
    let room = room_with(|config| config.pass_ttl = Duration::from_secs(600));
    let storable = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&storable);
    let service = room.answering(move |_| {
        let line = ["no-store", "max-age=60"][now.load(Ordering::SeqCst)];
        text(&[("cache-control", line)], "x")
    });
    for _ in 0..50 {
        assert_eq!(ask(&service, get("/")).await.said(), "fwd=uri-miss");
    }
    storable.store(1, Ordering::SeqCst);
    let mut asked = 0;
    while ask(&service, get("/")).await.said() != "fwd=uri-miss; stored" {
        asked += 1;
        assert!(asked < 16, "it is never looked at");
    }
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
    // Nothing of the mark is left: the next miss is one like any other.
    room.pass_secs(61);
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=stale; stored");
}

/// Most of what is asked for under a mark costs no more than passing it on.
#[tokio::test]
async fn of_a_marked_url_only_every_sixteenth_request_is_looked_at() {
    let room = room_with(|config| config.pass_ttl = Duration::from_secs(600));
    let first = AtomicUsize::new(0);
    let service = room.answering(move |_| {
        let line = ["no-store", "max-age=60"][first.fetch_add(1, Ordering::SeqCst).min(1)];
        text(&[("cache-control", line)], "x")
    });
    ask(&service, get("/")).await;
    for asked in 1..16 {
        assert_eq!(
            ask(&service, get("/")).await.said(),
            "fwd=uri-miss",
            "{asked}"
        );
    }
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn a_mark_that_has_run_down_is_as_none() {
    let room = room();
    let calls = AtomicUsize::new(0);
    let service = room.answering(move |_| {
        let line = ["no-store", "max-age=60"][calls.fetch_add(1, Ordering::SeqCst).min(1)];
        text(&[("cache-control", line)], "x")
    });
    ask(&service, get("/")).await;
    room.pass_secs(10);
    assert_eq!(ask(&service, get("/")).await.said(), "fwd=uri-miss; stored");
}
