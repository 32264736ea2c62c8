//! Connections that stay, over real sockets: an upgrade to another protocol, event streams, and what a stack
//! does with them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower_keep::clock::Clock;
use tower_keep::connections::ConnectionSlot;
use tower_keep::identity::RequestView;
use tower_keep::progress::ProgressUpdate;
use tower_keep::refusal::Refusal;
use tower_keep::response::refuse;
use tower_keep::{Keep, Profile};

/// Long enough that only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(20);

fn refused(refusal: Refusal) -> Response {
    refuse::<Body>(refusal).map(Body::new)
}

/// Answers 101 and sends back every byte, for as long as it may.
async fn echo(
    State(keep): State<Keep>,
    Path(tenant): Path<String>,
    mut request: Request,
) -> Response {
    let slot = match keep.connections().open_for(&tenant) {
        Ok(slot) => slot,
        Err(refusal) => return refused(refusal),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    keep.spawner().spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut piece = [0; 64];
        loop {
            let read = tokio::select! {
                () = slot.closed() => return,
                read = io.read(&mut piece) => read,
            };
            match read {
                Ok(count) if count > 0 => {
                    slot.touch();
                    io.write_all(&piece[..count]).await.unwrap();
                }
                _ => return,
            }
        }
    });
    let response = Response::builder().status(101);
    let response = response.header("connection", "upgrade");
    response
        .header("upgrade", "echo")
        .body(Body::empty())
        .unwrap()
}

/// An event stream that says hello and then nothing.
async fn quiet(State(keep): State<Keep>) -> Response {
    let hello = Frame::data(Bytes::from_static(b"data: hello\n\n"));
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(hello)]);
    let stream = futures_util::StreamExt::chain(stream, futures_util::stream::pending());
    let response = Response::builder().header("content-type", "text/event-stream");
    let response = response.body(StreamBody::new(stream)).unwrap();
    match keep.connections().open() {
        Ok(slot) => slot.around(response).map(Body::new),
        Err(refusal) => refused(refusal),
    }
}

async fn progress(State(keep): State<Keep>, request: Request) -> Response {
    let request = RequestView::of(&request);
    keep.progress().respond(&request, "export").into_response()
}

async fn serve(keep: &Keep) -> SocketAddr {
    let app = Router::new()
        .route("/echo/{tenant}", get(echo))
        .route("/quiet", get(quiet))
        .route("/progress", get(progress))
        .layer(keep.layer())
        .with_state(keep.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A connection on which `path` was asked for, and what came up to `end`.
async fn ask(address: SocketAddr, path: &str, end: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: keep\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut read = String::new();
    while !read.contains(end) {
        let mut piece = [0; 1024];
        let count = timeout(DEADLINE, socket.read(&mut piece)).await;
        let count = count.unwrap().unwrap();
        assert!(count > 0, "it ended before {end:?}: {read:?}");
        read.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    (socket, read)
}

async fn upgraded(address: SocketAddr, tenant: &str) -> TcpStream {
    let (socket, head) = ask(address, &format!("/echo/{tenant}"), "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    socket
}

/// The status line of an answer that is refused, if it says all that it should.
async fn is_refused(address: SocketAddr, path: &str) {
    let (_, answer) = ask(address, path, "}").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    for part in [
        "retry-after: 5\r\n",
        "application/problem+json",
        "Too many connections",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
}

async fn eventually(what: &str, is_so: impl Fn() -> bool + Send + Sync) {
    let met = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(DEADLINE, met).await.is_ok(), "never {what}");
}

#[tokio::test]
async fn an_upgraded_connection_holds_its_slot_until_the_socket_is_gone() {
    let keep = Keep::builder(Profile::development()).build().unwrap();
    let address = serve(&keep).await;
    let mut socket = upgraded(address, "acme").await;
    for word in ["one", "two"] {
        socket.write_all(word.as_bytes()).await.unwrap();
        let mut back = [0; 3];
        timeout(DEADLINE, socket.read_exact(&mut back))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&back, word.as_bytes());
    }
    assert_eq!(keep.connections().open_count(), 1);
    // It is not work under way.
    eventually("out of the guard", || keep.guard().in_flight() == 0).await;
    drop(socket);
    eventually("given back", || keep.connections().open_count() == 0).await;
    assert_eq!(keep.connections().tenants(), 0);
}

#[tokio::test]
async fn the_limits_hold_over_all_sockets_and_per_tenant() {
    let keep = Keep::builder(Profile::development()).connections(|connections| {
        connections.connections_max = 3;
        connections.per_tenant_max = Some(2);
    });
    let keep = keep.build().unwrap();
    let address = serve(&keep).await;
    let first = upgraded(address, "acme").await;
    let _second = upgraded(address, "acme").await;
    is_refused(address, "/echo/acme").await;
    let _other = upgraded(address, "beta").await;
    is_refused(address, "/echo/gamma").await;
    is_refused(address, "/quiet").await;
    assert_eq!(keep.connections().open_count_of("acme"), 2);
    drop(first);
    eventually("given back", || keep.connections().open_count() == 2).await;
    let _again = upgraded(address, "acme").await;
    let text = keep.metrics().prometheus();
    for line in [
        "keep_connections_open 3",
        "keep_connections_tenants 2",
        "keep_connections_opened_total 4",
        "keep_connections_refused_total{why=\"tenant_full\"} 1",
        "keep_connections_refused_total{why=\"full\"} 2",
        "keep_connections_closed_total{why=\"ended\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn an_event_stream_gives_its_slot_back_when_its_client_goes_away() {
    let keep = Keep::builder(Profile::development())
        .guard(|guard| guard.slots = 1)
        .build()
        .unwrap();
    let address = serve(&keep).await;
    let (one, head) = ask(address, "/quiet", "hello").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // One slot of the guard is enough for both, because neither keeps it.
    let (two, _) = ask(address, "/quiet", "hello").await;
    assert_eq!(keep.connections().open_count(), 2);
    drop(one);
    eventually("given back", || keep.connections().open_count() == 1).await;
    drop(two);
    eventually("given back", || keep.connections().open_count() == 0).await;
}

#[tokio::test]
async fn watchers_of_progress_are_counted_and_refused() {
    let keep = Keep::builder(Profile::development())
        .connections(|connections| connections.connections_max = 1)
        .build()
        .unwrap();
    let address = serve(&keep).await;
    let job = keep.progress().open("export").unwrap();
    job.publish(ProgressUpdate::at(10.0)).unwrap();
    let (mut watcher, _) = ask(address, "/progress", "percent").await;
    assert_eq!(keep.connections().open_count(), 1);
    is_refused(address, "/progress").await;
    job.finish(ProgressUpdate::at(100.0)).unwrap();
    let mut rest = vec![0; 4096];
    let count = timeout(DEADLINE, watcher.read(&mut rest)).await;
    assert!(count.unwrap().unwrap() > 0);
    eventually("given back", || keep.connections().open_count() == 0).await;
}

/// The client's end of a connection whose slot was taken back.
async fn is_hung_up(mut socket: TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, socket.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "nobody hung up");
}

#[tokio::test]
async fn the_stack_hangs_up_on_those_that_are_silent_for_too_long() {
    let (clock, hand) = Clock::manual();
    let keep = Keep::builder(Profile::development()).clock(clock);
    let keep = keep.build().unwrap();
    let address = serve(&keep).await;
    let upgraded = upgraded(address, "acme").await;
    let (stream, _) = ask(address, "/quiet", "hello").await;
    hand.advance(Duration::from_secs(301));
    eventually("taken back", || keep.connections().open_count() == 0).await;
    is_hung_up(upgraded).await;
    drop(stream);
    let text = keep.metrics().prometheus();
    let line = "keep_connections_closed_total{why=\"stale\"} 2";
    assert!(text.contains(line), "{text}");
}

/// What such a process uses without doing anything is more than 95 % of so small a budget.
#[tokio::test]
async fn while_memory_is_critical_nobody_is_let_in_and_while_it_is_severe_the_idle_are_sent_home() {
    let (clock, hand) = Clock::manual();
    let keep = Keep::builder(Profile::development())
        .clock(clock)
        .guard(|guard| {
            guard.memory_budget_bytes = Some(16 << 20);
            guard.memory_sample = Duration::from_millis(10);
        })
        .cache(|cache| cache.enabled = false)
        .build()
        .unwrap();
    let refusal = keep.connections().open().unwrap_err();
    assert_eq!(refusal.name(), "memory_pressure");
    assert_eq!(keep.connections().open_count(), 0);
    // A level that cannot be left is taken down after a while.
    let mut slot = None;
    let met = async {
        while slot.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            slot = keep.connections().open().ok();
        }
    };
    timeout(DEADLINE, met).await.unwrap();
    hand.advance(Duration::from_secs(31));
    let slot: ConnectionSlot = slot.unwrap();
    timeout(DEADLINE, slot.closed()).await.unwrap();
    // The memory may have been sampled by another thread, after a purge, which then counts it a moment later.
    eventually("given back", || keep.connections().open_count() == 0).await;
}
