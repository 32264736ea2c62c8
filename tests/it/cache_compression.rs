//! Compression around the cache, by tower-http's layer: outside of it, and between it and the service.

use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_keep::cache::CacheLayer;

use crate::cache_room::{Room, get_with, request, room, room_with};

const TAG: &str = "\"v1\"";
const GZIP: (&str, &str) = ("accept-encoding", "gzip");

fn page() -> String {
    "the same again, ".repeat(200)
}

/// An answer that was read to its end.
struct Seen {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    fn said(&self) -> &str {
        let said = self.field("cache-status").strip_prefix("keep; ");
        said.unwrap_or_default()
    }

    fn is_gzip(&self) -> bool {
        self.field("content-encoding") == "gzip"
    }

    /// What a client makes of it.
    fn text(&self) -> String {
        let mut text = String::new();
        if self.is_gzip() {
            gunzip(&self.body, &mut text);
        } else {
            text.push_str(std::str::from_utf8(&self.body).unwrap());
        }
        text
    }

    /// The fields of requests that its content depends on, in lower case.
    fn vary(&self) -> Vec<String> {
        let lines = self.headers.get_all("vary").iter();
        let members = lines.flat_map(|line| line.to_str().unwrap().split(','));
        members
            .map(|name| name.trim().to_ascii_lowercase())
            .collect()
    }
}

fn gunzip(bytes: &[u8], text: &mut String) {
    flate2::read::GzDecoder::new(bytes)
        .read_to_string(text)
        .unwrap();
}

async fn ask<S, B>(service: &S, request: Request<()>) -> Seen
where
    S: Service<Request<()>, Response = Response<B>, Error: std::fmt::Debug, Future: Send>
        + Clone
        + Send
        + Sync,
    B: Body<Data: Send> + Send,
    B::Error: std::fmt::Debug,
{
    let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (status, headers) = (parts.status, parts.headers);
    Seen {
        status,
        headers,
        body,
    }
}

/// A service that counts its calls, and answers a question for the tag of its page with a 304.
fn origin(
    calls: &Arc<AtomicUsize>,
) -> impl Service<
    Request<()>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    let calls = Arc::clone(calls);
    tower::service_fn(move |request: Request<()>| {
        calls.fetch_add(1, Ordering::SeqCst);
        let known = request.headers().get("if-none-match");
        let known = known.is_some_and(|known| known.as_bytes().ends_with(TAG.as_bytes()));
        let (status, body) = if known {
            (304, String::new())
        } else {
            (200, page())
        };
        async move {
            let response = Response::builder()
                .status(status)
                .header("cache-control", "max-age=60")
                .header("content-type", "text/plain")
                .header("etag", TAG)
                .body(Full::from(body))
                .unwrap();
            Ok::<_, Infallible>(response)
        }
    })
}

fn cache(room: &Room) -> CacheLayer {
    CacheLayer::new(room.cache.clone())
}

/// One answer is stored, and each client is sent it as it likes: memory for one, work for each hit.
#[tokio::test]
async fn outside_of_the_cache_one_stored_answer_serves_all_codings() {
    let (room, calls) = (room(), Arc::default());
    let service = CompressionLayer::new().layer(cache(&room).layer(origin(&calls)));
    for (asked, gzip, said) in [
        (&[GZIP][..], true, "fwd=uri-miss; stored"),
        (&[], false, "hit"),
        (&[GZIP], true, "hit"),
        (&[("accept-encoding", "br, gzip;q=0.5")], true, "hit"),
        (&[("accept-encoding", "identity")], false, "hit"),
    ] {
        let seen = ask(&service, get_with("/", asked)).await;
        assert_eq!((seen.is_gzip(), seen.said()), (gzip, said), "{asked:?}");
        assert_eq!(seen.text(), page(), "{asked:?}");
        // Caches further out must know that it depends on this.
        assert_eq!(seen.vary(), ["accept-encoding"], "{asked:?}");
        assert_eq!(seen.field("content-length").is_empty(), gzip, "{asked:?}");
        assert!(seen.body.len() < 400 || !gzip, "{}", seen.body.len());
    }
    let stored = room.cache.stored(None, "", "/");
    assert_eq!((stored.len(), stored[0].body_bytes), (1, page().len()));
    assert!(stored[0].vary.is_empty(), "it depends on nothing here");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// What is kept squeezed is unpacked before it is coded for the client.
#[tokio::test]
async fn what_is_kept_squeezed_is_coded_from_what_was_sent() {
    let room = room_with(|config| config.compress_above_bytes = 100);
    let service = CompressionLayer::new().layer(cache(&room).layer(origin(&Arc::default())));
    for asked in [&[GZIP][..], &[], &[GZIP]] {
        assert_eq!(ask(&service, get_with("/", asked)).await.text(), page());
    }
    let stored = room.cache.stored(None, "", "/");
    assert!(
        stored[0].bytes < page().len(),
        "it is squeezed: {}",
        stored[0].bytes
    );
}

/// RFC 9110 §13.1.2: "A recipient MUST use the weak comparison function", so that a tag that was weakened for a
/// coded answer is known again.
#[tokio::test]
async fn a_client_that_has_it_in_any_coding_is_told_so_outside_and_inside() {
    for inside in [false, true] {
        for known in [TAG, "W/\"v1\"", "\"v0\", W/\"v1\""] {
            for coding in [GZIP, ("accept-encoding", "identity")] {
                let (room, calls) = (room(), Arc::default());
                let asked = || get_with("/", &[coding, ("if-none-match", known)]);
                let plain = || get_with("/", &[coding]);
                let case = format!("inside: {inside}, {known}, {coding:?}");
                let seen = if inside {
                    let service = cache(&room).layer(CompressionLayer::new().layer(origin(&calls)));
                    ask(&service, plain()).await;
                    ask(&service, asked()).await
                } else {
                    let service = CompressionLayer::new().layer(cache(&room).layer(origin(&calls)));
                    ask(&service, plain()).await;
                    ask(&service, asked()).await
                };
                assert_eq!(seen.status, StatusCode::NOT_MODIFIED, "{case}");
                assert_eq!((seen.said(), seen.body.len()), ("hit", 0), "{case}");
                for name in ["content-encoding", "content-length", "content-type"] {
                    assert_eq!(seen.field(name), "", "{case}: {name}");
                }
                assert_eq!(seen.field("etag"), TAG, "{case}");
                assert_eq!(calls.load(Ordering::SeqCst), 1, "{case}");
            }
        }
    }
}

/// Both are stored, each for whoever takes it: work once, and memory for each coding.
#[tokio::test]
async fn inside_of_the_cache_each_coding_is_an_answer_of_its_own() {
    let (room, calls) = (room(), Arc::default());
    let service = cache(&room).layer(CompressionLayer::new().layer(origin(&calls)));
    let none = ("accept-encoding", "identity");
    for (asked, gzip, said) in [
        (&[GZIP][..], true, "fwd=uri-miss; stored"),
        (&[], false, "fwd=vary-miss; stored"),
        (&[GZIP], true, "hit"),
        (&[], false, "hit"),
        (&[("accept-encoding", "GZIP")], true, "hit"),
        (&[none], false, "fwd=vary-miss; stored"),
        (&[GZIP], true, "hit"),
    ] {
        let seen = ask(&service, get_with("/", asked)).await;
        assert_eq!((seen.is_gzip(), seen.said()), (gzip, said), "{asked:?}");
        assert_eq!(seen.text(), page(), "{asked:?}");
        assert_eq!(seen.vary(), ["accept-encoding"], "{asked:?}");
        if said == "hit" {
            assert_eq!(seen.field("content-length"), seen.body.len().to_string());
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(room.cache.stored(None, "", "/").len(), 3);
}

/// What is coded already is as short as it gets.
#[tokio::test]
async fn what_the_service_has_coded_is_not_squeezed_once_more() {
    let room = room_with(|config| config.compress_above_bytes = 10);
    let service = cache(&room).layer(CompressionLayer::new().layer(origin(&Arc::default())));
    let miss = ask(&service, get_with("/", &[GZIP])).await;
    let hit = ask(&service, get_with("/", &[GZIP])).await;
    assert_eq!((hit.said(), &hit.body), ("hit", &miss.body));
    assert_eq!(
        room.cache.stored(None, "", "/")[0].body_bytes,
        miss.body.len()
    );
}

/// RFC 9110 §14.1: a range is of the representation that was selected, with its coding.
#[tokio::test]
async fn a_range_is_cut_from_the_coding_that_the_client_takes() {
    let (room, calls) = (room(), Arc::default());
    let service = cache(&room).layer(CompressionLayer::new().layer(origin(&calls)));
    let coded = ask(&service, get_with("/", &[GZIP])).await;
    ask(&service, get_with("/", &[])).await;
    let range = ("range", "bytes=10-19");
    let of_coded = ask(&service, get_with("/", &[GZIP, range])).await;
    assert_eq!(
        (of_coded.status, of_coded.said()),
        (StatusCode::PARTIAL_CONTENT, "hit")
    );
    assert_eq!(
        (of_coded.is_gzip(), &of_coded.body[..]),
        (true, &coded.body[10..20])
    );
    let len = coded.body.len();
    assert_eq!(
        of_coded.field("content-range"),
        format!("bytes 10-19/{len}")
    );
    let of_plain = ask(&service, get_with("/", &[range])).await;
    assert_eq!(
        (of_plain.is_gzip(), &of_plain.body[..]),
        (false, &page().as_bytes()[10..20])
    );
    let len = page().len();
    assert_eq!(
        of_plain.field("content-range"),
        format!("bytes 10-19/{len}")
    );
    // All of it in two parts is all of it.
    let rest = ask(&service, get_with("/", &[GZIP, ("range", "bytes=20-")])).await;
    let first = ask(&service, get_with("/", &[GZIP, ("range", "bytes=0-19")])).await;
    let mut text = String::new();
    gunzip(&[first.body, rest.body].concat(), &mut text);
    assert_eq!(text, page());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// A part is never coded: nobody could put it together again.
#[tokio::test]
async fn outside_of_the_cache_a_part_is_sent_as_it_was_cut() {
    let room = room();
    let service = CompressionLayer::new().layer(cache(&room).layer(origin(&Arc::default())));
    ask(&service, get_with("/", &[GZIP])).await;
    let asked = [GZIP, ("range", "bytes=100-999")];
    let seen = ask(&service, get_with("/", &asked)).await;
    assert_eq!(
        (seen.status, seen.is_gzip()),
        (StatusCode::PARTIAL_CONTENT, false)
    );
    assert_eq!(&seen.body[..], &page().as_bytes()[100..1000]);
    let beyond = ask(&service, get_with("/", &[GZIP, ("range", "bytes=99999-")])).await;
    assert_eq!((beyond.status.as_u16(), beyond.is_gzip()), (416, false));
}

/// A 304 confirms the coding that was asked about, and does not change which one it is.
#[tokio::test]
async fn each_coding_is_confirmed_by_itself() {
    let (room, calls) = (room(), Arc::default());
    let service = cache(&room).layer(CompressionLayer::new().layer(origin(&calls)));
    for asked in [&[GZIP][..], &[]] {
        ask(&service, get_with("/", asked)).await;
    }
    room.pass_secs(61);
    for (asked, gzip) in [(&[GZIP][..], true), (&[], false), (&[GZIP], true)] {
        let seen = ask(&service, get_with("/", asked)).await;
        assert_eq!((seen.is_gzip(), seen.text()), (gzip, page()), "{asked:?}");
        assert_eq!(seen.vary(), ["accept-encoding"], "{asked:?}");
        let hit = ask(&service, get_with("/", asked)).await;
        assert_eq!(
            (hit.said(), hit.is_gzip(), hit.text()),
            ("hit", gzip, page())
        );
    }
    assert_eq!(
        calls.load(Ordering::SeqCst),
        4,
        "two pages and two confirmations"
    );
}

/// A HEAD is told of the coding that a GET would be sent.
#[tokio::test]
async fn a_head_is_answered_with_the_length_of_the_coding_it_takes() {
    let room = room();
    let service = cache(&room).layer(CompressionLayer::new().layer(origin(&Arc::default())));
    let coded = ask(&service, get_with("/", &[GZIP])).await.body.len();
    ask(&service, get_with("/", &[])).await;
    for (asked, gzip, len) in [(&[GZIP][..], true, coded), (&[], false, page().len())] {
        let seen = ask(&service, request("HEAD", "/", asked)).await;
        assert_eq!((seen.said(), seen.is_gzip()), ("hit", gzip));
        assert_eq!(
            (seen.field("content-length"), seen.body.len()),
            (&*len.to_string(), 0)
        );
    }
}

/// The compression before the service may say of a HEAD what holds for the plain page only.
#[tokio::test]
async fn a_head_that_goes_on_spoils_no_coding() {
    let room = room();
    let service = cache(&room).layer(CompressionLayer::new().layer(origin(&Arc::default())));
    for asked in [&[GZIP][..], &[]] {
        ask(&service, get_with("/", asked)).await;
    }
    room.pass_secs(61);
    for asked in [&[GZIP][..], &[]] {
        ask(&service, request("HEAD", "/", asked)).await;
        for (asked, gzip) in [(&[GZIP][..], true), (&[], false)] {
            let seen = ask(&service, get_with("/", asked)).await;
            assert_eq!(
                (seen.is_gzip(), seen.text()),
                (gzip, page()),
                "{}",
                seen.said()
            );
        }
    }
}
