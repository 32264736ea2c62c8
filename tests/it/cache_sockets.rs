//! The cache behind a real server: axum applies the layer for every connection and route anew, and hyper
//! decides how a body is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_keep::cache::CacheLayer;

use crate::cache_room::{Room, room};

const MINUTE: [(&str, &str); 1] = [("cache-control", "max-age=60")];

/// A server for `router` behind the cache.
async fn serve(room: &Room, router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router.layer(CacheLayer::new(room.cache.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Sends these lines over a connection of its own and reads to the end.
async fn exchange(address: SocketAddr, lines: &[&str]) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n"));
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer.to_ascii_lowercase()
}

#[tokio::test]
async fn connections_and_routes_share_what_is_stored() {
    let room = room();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let handler = move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready((MINUTE, "hello"))
    };
    let router = Router::new()
        .route("/a", get(handler.clone()))
        .route("/b", get(handler));
    let address = serve(&room, router).await;
    for (path, status) in [
        ("/a", "cache-status: keep; fwd=uri-miss; stored"),
        ("/a", "cache-status: keep; hit"),
        ("/b", "cache-status: keep; fwd=uri-miss; stored"),
        ("/b", "cache-status: keep; hit"),
    ] {
        let answer = exchange(address, &[&format!("GET {path} HTTP/1.1"), "host: x"]).await;
        assert!(answer.contains(status), "{answer}");
        assert!(
            answer.contains("content-length: 5") && answer.ends_with("hello"),
            "{answer}"
        );
        assert_eq!(answer.matches("\r\ndate: ").count(), 1);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let head = exchange(address, &["HEAD /a HTTP/1.1", "host: x"]).await;
    assert!(
        head.contains("keep; hit") && head.contains("content-length: 5"),
        "{head}"
    );
    assert!(head.ends_with("\r\n\r\n"), "no content: {head}");
}

#[tokio::test]
async fn many_connections_at_once_cause_one_call() {
    let room = room();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let router = Router::new().route(
        "/",
        get(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            (MINUTE, "hello")
        }),
    );
    let address = serve(&room, router).await;
    let asking: Vec<_> = (0..64)
        .map(|_| {
            tokio::spawn(async move { exchange(address, &["GET / HTTP/1.1", "host: x"]).await })
        })
        .collect();
    for answer in asking {
        assert!(answer.await.unwrap().ends_with("hello"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// hyper stops polling a body once Content-Length bytes have passed, and asks some bodies nothing at all.
#[tokio::test]
async fn whatever_way_hyper_reads_a_body_it_is_stored_whole() {
    let room = room();
    let streamed = |announced: Option<usize>, pieces: usize| {
        move || async move {
            let (sender, mut frames) = tokio::sync::mpsc::channel::<Bytes>(1);
            tokio::spawn(async move {
                for _ in 0..pieces {
                    tokio::task::yield_now().await;
                    sender.send(Bytes::from(vec![b'x'; 1000])).await.unwrap();
                }
            });
            struct Frames<F>(F);
            impl<F> http_body::Body for Frames<F>
            where
                F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Bytes>> + Unpin,
            {
                type Data = Bytes;
                type Error = std::convert::Infallible;
                fn poll_frame(
                    mut self: std::pin::Pin<&mut Self>,
                    cx: &mut std::task::Context<'_>,
                ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>>
                {
                    (self.0)(cx).map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
                }
            }
            let body = Body::new(Frames(move |cx: &mut std::task::Context<'_>| {
                frames.poll_recv(cx)
            }));
            let mut response = (MINUTE, body).into_response();
            if let Some(length) = announced {
                response
                    .headers_mut()
                    .insert("content-length", length.into());
            }
            response
        }
    };
    let router = Router::new()
        .route("/whole", get(|| async { (MINUTE, vec![b'x'; 100_000]) }))
        .route("/empty", get(|| async { (MINUTE, "") }))
        .route("/announced", get(streamed(Some(50_000), 50)))
        .route("/announced-empty", get(streamed(Some(0), 0)))
        .route("/chunked", get(streamed(None, 50)));
    let address = serve(&room, router).await;
    for (path, len) in [
        ("/whole", 100_000),
        ("/empty", 0),
        ("/announced", 50_000),
        ("/announced-empty", 0),
        ("/chunked", 50_000),
    ] {
        let line = format!("GET {path} HTTP/1.1");
        exchange(address, &[&line, "host: x"]).await;
        let hit = exchange(address, &[&line, "host: x"]).await;
        let (head, body) = hit.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("keep; hit"), "{path}: {head}");
        assert!(
            head.contains(&format!("content-length: {len}")),
            "{path}: {head}"
        );
        assert_eq!(body.len(), len, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_midway_leaves_nothing_behind() {
    let room = room();
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let router = Router::new().route(
        "/",
        get(move |request: Request| async move {
            let _ = started.send(());
            if request.headers().contains_key("x-hang") {
                std::future::pending::<()>().await;
            }
            (MINUTE, "hello")
        }),
    );
    let address = serve(&room, router).await;
    let mut leaving = TcpStream::connect(address).await.unwrap();
    leaving
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-hang: 1\r\n\r\n")
        .await
        .unwrap();
    starts.recv().await.unwrap();
    let waiting = tokio::spawn(exchange_owned(address));
    drop(leaving);
    let answer = tokio::time::timeout(Duration::from_secs(4), waiting)
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

async fn exchange_owned(address: SocketAddr) -> String {
    exchange(address, &["GET / HTTP/1.1", "host: x"]).await
}

#[tokio::test]
async fn crafted_hosts_are_kept_apart_or_kept_out() {
    let room = room();
    async fn host(request: Request) -> Response {
        let host = request
            .headers()
            .get("host")
            .map(|host| host.as_bytes().to_vec());
        (MINUTE, host.unwrap_or_default()).into_response()
    }
    let address = serve(&room, Router::new().fallback(host)).await;
    let victims = ["GET /p HTTP/1.1", "host: victim.example"];
    // Each tries to have its own name stored under the victim's.
    for attack in [
        &["GET http://victim.example/p HTTP/1.1", "host: evil.example"][..],
        &[
            "GET /p HTTP/1.1",
            "host: victim.example",
            "host: evil.example",
        ],
        &[
            "GET /p HTTP/1.1",
            "host: evil.example",
            "host: victim.example",
        ],
        &[
            "GET http://victim.example@evil.example/p HTTP/1.1",
            "host: evil.example",
        ],
        &["GET /p HTTP/1.1", "host: evil.example/victim.example"],
        &["GET http://evil.example/p HTTP/1.1", "host: victim.example"],
    ] {
        exchange(address, attack).await;
        let answer = exchange(address, &victims).await;
        assert!(
            answer.ends_with("\r\n\r\nvictim.example"),
            "after {attack:?}: {answer}"
        );
        room.cache.clear();
    }
}
