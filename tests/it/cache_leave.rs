//! Clients that leave before their answer has ended: it is read on for others, within bounds, or let go.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tower_keep::journal::Marker;

use crate::cache_room::{
    Cached, Pipe, Room, Seen, answer, ask, get, get_with, piped, room_with, send, settle, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

fn finishing() -> Room {
    room_with(|config| {
        config.finish_when_left = true;
        config.flight_wait = Duration::from_secs(60);
    })
}

/// A service whose every body is driven by the test.
fn piping(room: &Room, fields: &'static [(&str, &str)]) -> (Cached, UnboundedReceiver<Pipe>) {
    let (pipes, receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = room.answering(move |_| {
        let (pipe, body) = piped();
        let _ = pipes.send(pipe);
        answer(fields, body)
    });
    (service, receiver)
}

/// A client that asks, reads the first piece, and leaves.
async fn leave(service: &Cached, pipes: &mut UnboundedReceiver<Pipe>, asked: Request<()>) -> Pipe {
    let mut body = send(service, asked).await.unwrap().into_body();
    let pipe = pipes.recv().await.unwrap();
    pipe.send("hel");
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "hel");
    drop(body);
    settle().await;
    pipe
}

fn spawn(service: &Cached, request: Request<()>) -> tokio::task::JoinHandle<Seen> {
    let service = service.clone();
    tokio::spawn(async move { ask(&service, request).await })
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_client_has_left_is_read_to_its_end_and_stored() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let pipe = leave(&service, &mut pipes, get("/")).await;
    assert_eq!(room.tasks.spawner().running(), 1);
    assert_eq!(
        room.cache.totals().flights,
        1,
        "others may wait for it still"
    );
    let waiting = spawn(&service, get("/"));
    settle().await;
    assert!(pipe.send("lo"), "somebody listens");
    drop(pipe);
    let seen = waiting.await.unwrap();
    assert_eq!(
        (seen.text(), seen.said()),
        ("hello", "fwd=uri-miss; collapsed")
    );
    let hit = ask(&service, get("/")).await;
    assert_eq!(
        (hit.text(), hit.said(), hit.field("content-length")),
        ("hello", "hit", "5")
    );
    assert_eq!(service.inner().calls(), 1);
    settle().await;
    assert_eq!(room.tasks.spawner().running(), 0);
    let totals = room.cache.totals();
    assert_eq!((totals.flights, totals.recorded_bytes), (0, 0));
}

/// hyper lets go of a body without having polled it, where the connection is gone.
#[tokio::test(start_paused = true)]
async fn so_is_one_of_which_the_client_has_read_nothing() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    drop(send(&service, get("/")).await.unwrap());
    let pipe = pipes.recv().await.unwrap();
    pipe.send("hello");
    drop(pipe);
    settle().await;
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
}

#[tokio::test(start_paused = true)]
async fn without_the_option_nobody_reads_on_and_the_flight_is_handed_on() {
    let room = room_with(|config| assert!(!config.finish_when_left, "the default"));
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let mut body = send(&service, get("/")).await.unwrap().into_body();
    let pipe = pipes.recv().await.unwrap();
    pipe.send("hel");
    body.frame().await.unwrap().unwrap();
    let waiting = spawn(&service, get("/"));
    settle().await;
    drop(body);
    assert!(!pipe.send("lo"), "nobody listens");
    assert_eq!(room.tasks.spawner().running(), 0);
    let next = pipes.recv().await.unwrap();
    next.send("whole");
    drop(next);
    let seen = waiting.await.unwrap();
    assert_eq!(
        (seen.text(), seen.said()),
        ("whole", "fwd=uri-miss; stored")
    );
}

/// What is not recorded is of use to nobody.
#[tokio::test(start_paused = true)]
async fn what_is_not_to_be_stored_is_let_go_with_its_client() {
    let room = finishing();
    for fields in [
        &[("cache-control", "no-store")][..],
        &[MINUTE, ("set-cookie", "a=1")],
    ] {
        let (service, mut pipes) = piping(&room, fields);
        let pipe = leave(&service, &mut pipes, get("/no")).await;
        assert!(!pipe.send("lo"), "{fields:?}");
    }
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let hers = get_with("/hers", &[("cookie", "a=1")]);
    assert!(!leave(&service, &mut pipes, hers).await.send("lo"));
    assert_eq!(room.tasks.spawner().running(), 0);
}

/// Clients that ask and leave must not keep a service busy without end.
#[tokio::test(start_paused = true)]
async fn no_more_than_thirty_two_are_read_on_at_once() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let mut left = Vec::new();
    for i in 0..40 {
        left.push(leave(&service, &mut pipes, get(&format!("/{i}"))).await);
    }
    assert_eq!(room.tasks.spawner().running(), 32);
    let heard = left.iter().map(|pipe| pipe.send("l"));
    let heard: Vec<bool> = heard.collect();
    assert!(heard[..32].iter().all(|heard| *heard), "the first ones");
    assert!(heard[32..].iter().all(|heard| !heard), "and no others");
    // Whoever is done makes room for another.
    let done = left.swap_remove(0);
    done.send("o");
    drop(done);
    settle().await;
    assert_eq!(room.cache.stored(None, "", "/0")[0].body_bytes, 5);
    let another = leave(&service, &mut pipes, get("/another")).await;
    assert!(another.send("lo"));
    assert!(!leave(&service, &mut pipes, get("/more")).await.send("lo"));
    drop((left, another));
    settle().await;
    assert_eq!(room.tasks.spawner().running(), 0);
    assert_eq!(room.cache.totals().recorded_bytes, 0);
}

/// A body that never ends is somebody's stream of events, or a service that hangs.
#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_let_go_at_its_deadline_and_the_flight_handed_on() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let pipe = leave(&service, &mut pipes, get("/")).await;
    tokio::time::advance(Duration::from_secs(30)).await;
    let waiting = spawn(&service, get("/"));
    settle().await;
    assert!(pipe.send("lo, lo, "), "it goes on");
    tokio::time::advance(Duration::from_secs(29)).await;
    settle().await;
    assert!(pipe.send("lo, "));
    assert_eq!(service.inner().calls(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    settle().await;
    assert!(!pipe.send("lo"), "let go");
    assert_eq!(service.inner().calls(), 2, "the one that waited leads now");
    let next = pipes.recv().await.unwrap();
    next.send("whole");
    drop(next);
    assert_eq!(waiting.await.unwrap().text(), "whole");
    assert_eq!(room.tasks.spawner().running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_when_nobody_reads_it_leaves_nothing_behind() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let pipe = leave(&service, &mut pipes, get("/")).await;
    let waiting = spawn(&service, get("/"));
    settle().await;
    pipe.break_off();
    let next = pipes.recv().await.unwrap();
    next.send("whole");
    drop(next);
    assert_eq!(waiting.await.unwrap().text(), "whole");
    assert_eq!(service.inner().calls(), 2);
}

/// Once it is clear that nothing will be stored, nobody is there to read for.
#[tokio::test(start_paused = true)]
async fn a_body_that_outgrows_its_bound_when_nobody_reads_it_is_let_go() {
    let room = room_with(|config| {
        config.finish_when_left = true;
        config.body_bytes_max = 1024;
    });
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let pipe = leave(&service, &mut pipes, get("/")).await;
    assert!(pipe.send(vec![b'x'; 1000]));
    settle().await;
    assert!(pipe.send(vec![b'x'; 1000]));
    settle().await;
    assert!(!pipe.send(vec![b'x'; 1000]), "it is read on for nothing");
    assert_eq!(room.tasks.spawner().running(), 0);
    let totals = room.cache.totals();
    assert_eq!((totals.urls, totals.recorded_bytes), (1, 0), "a marker");
}

/// Shorter or longer than announced is no answer, whoever reads it.
#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_announced_is_not_stored_by_being_read_on() {
    for rest in ["l", "lo!"] {
        let room = finishing();
        let (service, mut pipes) = piping(&room, &[MINUTE, ("content-length", "5")]);
        let pipe = leave(&service, &mut pipes, get("/")).await;
        pipe.send(rest);
        drop(pipe);
        settle().await;
        assert!(room.cache.stored(None, "", "/").is_empty(), "{rest}");
    }
}

/// It was born before the purge.
#[tokio::test(start_paused = true)]
async fn what_was_purged_after_its_client_left_is_not_served() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let pipe = leave(&service, &mut pipes, get("/")).await;
    drop(room.cache.journal().append([Marker::tag("/")]));
    pipe.send("lo");
    drop(pipe);
    settle().await;
    let next = spawn(&service, get("/"));
    let pipe = pipes.recv().await.unwrap();
    pipe.send("new");
    drop(pipe);
    let next = next.await.unwrap();
    assert_eq!((next.text(), next.said()), ("new", "fwd=uri-miss; stored"));
}

#[tokio::test(start_paused = true)]
async fn a_part_is_read_on_like_a_whole() {
    let room = finishing();
    let (pipes, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = room.answering(move |_| {
        let (pipe, body) = piped();
        let _ = pipes.send(pipe);
        let mut response = answer(&[MINUTE, ("content-range", "bytes 0-4/10")], body);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response
    });
    let asked = || get_with("/", &[("range", "bytes=0-4")]);
    let pipe = leave(&service, &mut receiver, asked()).await;
    pipe.send("lo");
    drop(pipe);
    settle().await;
    let hit = ask(&service, asked()).await;
    assert_eq!((hit.text(), hit.said()), ("hello", "hit"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_go_of_all_that_is_read_on() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let pipe = leave(&service, &mut pipes, get("/")).await;
    let aborted = room.tasks.shutdown(Duration::from_secs(1)).await;
    assert_eq!(aborted, 1);
    assert!(!pipe.send("lo"), "let go");
    let totals = room.cache.totals();
    assert_eq!((totals.flights, totals.recorded_bytes), (0, 0));
    // From then on nobody reads on, and nobody waits for what will not come.
    assert!(!leave(&service, &mut pipes, get("/")).await.send("lo"));
    assert_eq!(room.cache.totals().flights, 0);
    assert!(room.cache.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_gives_what_is_read_on_the_time_it_has() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let pipe = leave(&service, &mut pipes, get("/")).await;
    let finish = async {
        settle().await;
        pipe.send("lo");
        drop(pipe);
    };
    let (aborted, ()) = tokio::join!(room.tasks.shutdown(Duration::from_secs(1)), finish);
    assert_eq!(aborted, 0);
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
}

/// The client that stays is sent what it always was.
#[tokio::test(start_paused = true)]
async fn whoever_stays_notices_nothing() {
    let room = finishing();
    let service = room.answering(|_| text(&[MINUTE], "hello"));
    for said in ["fwd=uri-miss; stored", "hit"] {
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(5));
        assert!(!http_body::Body::is_end_stream(response.body()));
        let seen = crate::cache_room::read(response).await.unwrap();
        assert_eq!((seen.text(), seen.said()), ("hello", said));
    }
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let mut body = send(&service, get("/streamed")).await.unwrap().into_body();
    let pipe = pipes.recv().await.unwrap();
    for piece in ["one", "two"] {
        pipe.send(piece);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece, "as it comes");
    }
    pipe.trailers();
    drop(pipe);
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert!(body.frame().await.is_none());
    assert_eq!(room.tasks.spawner().running(), 0);
}

/// The answer to a POST that a GET will be sent is worth as much.
#[tokio::test(start_paused = true)]
async fn the_answer_to_a_post_is_read_on_as_well() {
    let room = finishing();
    let (service, mut pipes) = piping(&room, &[MINUTE, ("content-location", "/")]);
    let post = crate::cache_room::request("POST", "/", &[]);
    let pipe = leave(&service, &mut pipes, post).await;
    pipe.send("lo");
    drop(pipe);
    settle().await;
    assert_eq!(ask(&service, get("/")).await.text(), "hello");
}

/// A process that ends drops its connections and their bodies when nothing can be started any more.
#[test]
fn a_runtime_that_ends_under_a_client_s_feet_is_no_trouble() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (room, pipe) = runtime.block_on(async {
        let room = finishing();
        let (service, mut pipes) = piping(&room, &[MINUTE]);
        let body = send(&service, get("/")).await.unwrap().into_body();
        tokio::spawn(async move {
            let _body = body;
            std::future::pending::<()>().await;
        });
        let pipe = pipes.recv().await.unwrap();
        (room, pipe)
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    assert!(!pipe.send("lo"), "let go");
    let totals = room.cache.totals();
    assert_eq!((totals.flights, totals.recorded_bytes), (0, 0));
}
