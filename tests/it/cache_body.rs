//! Bodies on their way through the cache: they stream, and only a whole one is stored.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tower_keep::event::{Event, Events, Recorder};

use crate::cache_room::{
    Broken, Cached, Pipe, Room, answer, ask, empty, full, get, piped, read, room, room_heard_by,
    room_with, send, text,
};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

/// A service whose every body is driven by the test through the pipe that comes out of the channel.
fn piping(
    room: &Room,
    fields: &'static [(&str, &str)],
) -> (Cached, tokio::sync::mpsc::UnboundedReceiver<Pipe>) {
    let (pipes, receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = room.answering(move |_| {
        let (pipe, body) = piped();
        let _ = pipes.send(pipe);
        answer(fields, body)
    });
    (service, receiver)
}

#[tokio::test]
async fn a_miss_streams_frame_by_frame_before_the_service_is_done() {
    let room = room();
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let response = send(&service, get("/")).await.unwrap();
    let pipe = pipes.recv().await.unwrap();
    let mut body = response.into_body();
    for piece in ["one", "two"] {
        pipe.send(piece);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
        assert!(room.cache.is_empty(), "not before the end");
    }
    drop(pipe);
    assert!(body.frame().await.is_none());
    let hit = ask(&service, get("/")).await;
    assert_eq!(
        (hit.text(), hit.said(), hit.field("content-length")),
        ("onetwo", "hit", "6")
    );
}

#[tokio::test]
async fn a_body_that_nobody_reads_to_its_end_leaves_nothing_behind() {
    for broken in [false, true] {
        let room = room();
        let (service, mut pipes) = piping(&room, &[MINUTE]);
        let mut body = send(&service, get("/")).await.unwrap().into_body();
        let pipe = pipes.recv().await.unwrap();
        pipe.send("half");
        body.frame().await.unwrap().unwrap();
        let mut next = Box::pin(ask(&service, get("/")));
        tokio::select! {
            biased;
            _ = &mut next => panic!("it waits for the first"),
            () = tokio::task::yield_now() => {}
        }
        if broken {
            pipe.break_off();
            assert_eq!(body.frame().await.unwrap().err(), Some(Broken));
        } else {
            drop(body);
        }
        // The one that waited takes over.
        let finish = async {
            let pipe = pipes.recv().await.unwrap();
            pipe.send("whole");
        };
        let (seen, ()) = tokio::join!(next, finish);
        assert_eq!(
            (seen.text(), seen.said()),
            ("whole", "fwd=uri-miss; stored")
        );
        assert_eq!(service.inner().calls(), 2);
        assert_eq!(ask(&service, get("/")).await.text(), "whole");
    }
}

#[tokio::test]
async fn a_body_beyond_the_bound_streams_through_and_leaves_a_marker() {
    let room = room_with(|config| config.body_bytes_max = 1024);
    for announces in [false, true] {
        let service = room.answering(move |_| {
            let length = if announces { "2048" } else { "" };
            let fields = [MINUTE, ("content-length", length)];
            answer(
                &fields[..1 + usize::from(announces)],
                full(vec![b'x'; 2048]),
            )
        });
        let path = if announces { "/announced" } else { "/hinted" };
        for said in ["fwd=uri-miss", "fwd=uri-miss"] {
            let seen = ask(&service, get(path)).await;
            assert_eq!((seen.body.len(), seen.said()), (2048, said));
        }
    }
    let (service, mut pipes) = piping(&room, &[MINUTE]);
    let mut body = send(&service, get("/streamed")).await.unwrap().into_body();
    let pipe = pipes.recv().await.unwrap();
    for _ in 0..5 {
        pipe.send(vec![b'x'; 500]);
        assert_eq!(
            body.frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .len(),
            500
        );
    }
    drop(pipe);
    assert!(body.frame().await.is_none());
    assert_eq!(room.cache.len(), 3);
    assert!(
        room.cache.bytes() < 3 * 512,
        "markers are small: {}",
        room.cache.bytes()
    );
}

#[tokio::test]
async fn a_body_exactly_at_the_bound_is_stored() {
    let room = room_with(|config| config.body_bytes_max = 1024);
    let service = room.answering(|_| text(&[MINUTE], vec![b'x'; 1024]));
    ask(&service, get("/")).await;
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
}

/// Such a body is broken off or runs over, whatever the stream says about its end.
#[tokio::test]
async fn a_body_of_another_length_than_announced_is_never_stored() {
    for (announced, pieces) in [
        ("10", &["hello"][..]),
        ("5", &["hello", "!"]),
        ("3", &["hello"]),
        ("5", &["hel", "lo!"]),
        ("5", &[]),
        ("0", &["hello"]),
        ("0", &["", "hello"]),
    ] {
        let room = room();
        let service = room.answering(move |_| {
            let (pipe, body) = piped();
            for piece in pieces {
                pipe.send(*piece);
            }
            answer(&[MINUTE, ("content-length", announced)], body)
        });
        assert_eq!(ask(&service, get("/")).await.text(), pieces.concat());
        let next = ask(&service, get("/")).await;
        assert_ne!(next.said(), "hit", "{announced} {pieces:?}");
        // One piece that is at its end with itself.
        let all = pieces.concat();
        let service = room.answering(move |_| {
            answer(&[MINUTE, ("content-length", announced)], full(all.clone()))
        });
        for _ in 0..2 {
            assert_ne!(
                ask(&service, get("/full")).await.said(),
                "hit",
                "{announced} {pieces:?}"
            );
        }
    }
}

/// hyper lets go of a body once as many bytes have passed as were announced.
#[tokio::test]
async fn a_body_that_is_let_go_once_it_is_complete_is_stored() {
    let room = room();
    let (service, mut pipes) = piping(&room, &[MINUTE, ("content-length", "5")]);
    let mut body = send(&service, get("/")).await.unwrap().into_body();
    pipes.recv().await.unwrap().send("hello");
    body.frame().await.unwrap().unwrap();
    assert!(room.cache.is_empty(), "more could come, or trailers");
    drop(body);
    assert_eq!(ask(&service, get("/")).await.said(), "hit");
}

#[tokio::test]
async fn an_answer_with_trailers_is_not_stored() {
    for fields in [&[MINUTE][..], &[MINUTE, ("content-length", "5")]] {
        let room = room();
        let service = room.answering(move |_| {
            let (pipe, body) = piped();
            pipe.send("hello");
            pipe.trailers();
            answer(fields, body)
        });
        for _ in 0..2 {
            let response = send(&service, get("/")).await.unwrap();
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["x-sum"], "1");
        }
        assert_eq!(service.inner().calls(), 2);
    }
}

#[tokio::test]
async fn an_empty_body_is_stored_without_being_read() {
    let room = room();
    let service = room.answering(|_| answer(&[MINUTE], empty()));
    drop(send(&service, get("/")).await.unwrap());
    let hit = ask(&service, get("/")).await;
    assert_eq!((hit.said(), hit.field("content-length")), ("hit", "0"));
}

#[tokio::test]
async fn a_204_gets_no_content_length() {
    let room = room();
    let service = room.answering(|_| {
        let mut response = answer(&[MINUTE], empty());
        *response.status_mut() = http::StatusCode::NO_CONTENT;
        response
    });
    ask(&service, get("/")).await;
    let hit = ask(&service, get("/")).await;
    assert_eq!((hit.said(), hit.field("content-length")), ("hit", ""));
}

/// The same chunk, over and over.
struct Repeating {
    chunk: Bytes,
    left: u64,
}

impl Body for Repeating {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}

#[tokio::test]
async fn a_gigabyte_passes_and_is_given_up_early() {
    let room = room();
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let source = chunk.clone();
    let service = room.answering(move |_| {
        let body = Repeating {
            chunk: source.clone(),
            left: 16 << 10,
        };
        Response::builder()
            .header(MINUTE.0, MINUTE.1)
            .body(body.boxed_unsync())
            .unwrap()
    });
    let mut body = send(&service, get("/")).await.unwrap().into_body();
    let (mut bytes, mut given_up_at) = (0_u64, None);
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        // Forwarded as it came, not copied.
        assert_eq!(data.as_ptr(), chunk.as_ptr());
        bytes += data.len() as u64;
        if given_up_at.is_none() && room.cache.len() == 1 {
            given_up_at = Some(bytes);
        }
    }
    assert_eq!(bytes, 1 << 30);
    let bound = room.cache.config().body_bytes_max;
    assert!(
        given_up_at.is_some_and(|at| at <= bound + (64 << 10)),
        "{given_up_at:?}"
    );
    assert!(room.cache.bytes() < 512);
}

#[tokio::test]
async fn a_flood_of_different_urls_stays_within_the_capacity() {
    let room = room_with(|config| {
        config.capacity_bytes = 4 << 20;
        config.body_bytes_max = 64 << 10;
    });
    let content = Bytes::from(vec![b'x'; 2000]);
    let service = room.answering(move |_| text(&[MINUTE], content.clone()));
    let mut most = 0;
    for i in 0..100_000 {
        ask(&service, get(&format!("/flood?{i}"))).await;
        most = most.max(room.cache.bytes());
    }
    assert!(most <= room.cache.capacity_bytes() + 4096, "{most}");
    assert!(
        most > room.cache.capacity_bytes() / 2,
        "it is used as well: {most}"
    );
}

#[derive(Default)]
struct CountsStored(AtomicUsize);

impl Recorder for CountsStored {
    fn record(&self, event: &Event<'_>) {
        if matches!(event, Event::CacheStored { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A crawler that asks for everything once is answered, but what it asks for does not drive out what others ask
/// for often; and only what was stored is told to be.
#[tokio::test]
async fn a_flood_leaves_what_is_asked_for_often() {
    let stored = Arc::new(CountsStored::default());
    let told = Arc::clone(&stored);
    let room = room_heard_by(Events::to(vec![told]), |config| {
        config.capacity_bytes = 1 << 20;
        config.body_bytes_max = 256 << 10;
    });
    let content = Bytes::from(vec![b'x'; 1800]);
    let service = room.answering(move |_| text(&[MINUTE], content.clone()));
    for _ in 0..8 {
        for i in 0..300 {
            ask(&service, get(&format!("/often/{i}"))).await;
        }
    }
    assert_eq!(stored.0.load(Ordering::Relaxed), 300);
    let mut hits = 0;
    for i in 0..5000 {
        let answer = ask(&service, get(&format!("/flood?{i}"))).await;
        assert_eq!(
            (answer.body.len(), answer.said()),
            (1800, "fwd=uri-miss; stored")
        );
        let often = format!("/often/{}", i % 300);
        hits += usize::from(ask(&service, get(&often)).await.said() == "hit");
    }
    assert!(hits > 4500, "{hits} of 5000");
    let stored = stored.0.load(Ordering::Relaxed) - 300;
    assert!(stored < 5000, "{stored} are said to be stored");
    assert!(room.cache.bytes() <= room.cache.capacity_bytes());
    // What is out of date is worth nothing: a minute later what is new is let in, but for a few that bad luck
    // takes for less used than others that are new.
    room.hand.advance(Duration::from_secs(61));
    let mut hits = 0;
    for i in 0..500 {
        ask(&service, get(&format!("/later?{i}"))).await;
        hits += usize::from(ask(&service, get(&format!("/later?{i}"))).await.said() == "hit");
    }
    assert!(hits > 450, "{hits} of 500");
}

/// Markers of uncacheable URLs are weighed, too.
#[tokio::test]
async fn a_flood_of_uncacheable_urls_stays_within_the_capacity() {
    let room = room_with(|config| {
        config.capacity_bytes = 1 << 20;
        config.body_bytes_max = 64 << 10;
    });
    let service = room.answering(|_| answer(&[("cache-control", "no-store")], empty()));
    for i in 0..20_000 {
        ask(&service, get(&format!("/flood?{i}"))).await;
    }
    assert!(room.cache.bytes() <= room.cache.capacity_bytes() + 512);
}

#[tokio::test]
async fn a_smaller_capacity_holds_at_once() {
    let room = room();
    let content = Bytes::from(vec![b'x'; 100_000]);
    let service = room.answering(move |_| text(&[MINUTE], content.clone()));
    for i in 0..100 {
        ask(&service, get(&format!("/{i}"))).await;
    }
    let before = room.cache.bytes();
    assert!(before > 10_000_000);
    room.cache.set_capacity_bytes(2 << 20);
    assert!(room.cache.bytes() <= 2 << 20);
    assert!(!room.cache.is_empty(), "what fits stays");
    room.cache.restore_capacity();
    assert_eq!(
        room.cache.capacity_bytes(),
        room.cache.config().capacity_bytes
    );
    room.cache.clear();
    assert_eq!((room.cache.len(), room.cache.bytes()), (0, 0));
}

/// An item that outweighs its shard is refused whole: many large variants must not drive the URL out.
#[tokio::test]
async fn large_variants_give_way_to_each_other_instead_of_all_going() {
    let room = room_with(|config| {
        config.capacity_bytes = 1 << 20;
        config.body_bytes_max = 256 << 10;
        config.variants_max = 64;
    });
    let content = Bytes::from(vec![b'x'; 250 << 10]);
    let service = room.answering(move |_| text(&[MINUTE, ("vary", "x-v")], content.clone()));
    for v in 0..20 {
        let asked = || crate::cache_room::get_with("/", &[("x-v", &v.to_string())]);
        ask(&service, asked()).await;
        assert_eq!(ask(&service, asked()).await.said(), "hit", "{v}");
    }
}

/// Small frames of a large buffer are copied: what is stored weighs what it is.
#[tokio::test]
async fn nothing_stored_keeps_the_service_s_buffers_alive() {
    let room = room();
    let buffer = Bytes::from(vec![b'x'; 1 << 20]);
    let source = buffer.clone();
    let service = room.answering(move |_| {
        let (pipe, body) = piped();
        pipe.send(source.slice(..10));
        pipe.send(source.slice(10..20));
        answer(&[MINUTE], body)
    });
    assert_eq!(ask(&service, get("/")).await.body.len(), 20);
    drop(service);
    assert!(buffer.is_unique());
    assert_eq!(room.cache.len(), 1);
}

#[tokio::test]
async fn a_body_tells_its_size_as_the_service_does() {
    let room = room();
    let service = room.answering(|_| text(&[MINUTE], "hello"));
    for _ in 0..2 {
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(response.body().size_hint().exact(), Some(5));
        assert!(!response.body().is_end_stream());
        read(response).await.unwrap();
    }
}
