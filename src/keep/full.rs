//! The five layers with tower-http's where they belong.

use std::any::Any;
use std::fmt;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode};
use http_body::Body;
use tower::layer::util::Identity;
use tower::util::{Either, option_layer};
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer, ResponseForPanic};
use tower_http::compression::{Compression, CompressionLayer, Predicate};
use tower_http::limit::{RequestBodyLimit, RequestBodyLimitLayer};
use tower_http::timeout::{Timeout, TimeoutLayer};
use tower_layer::Layer;

use crate::guard::{Guard, Pressure};
use crate::keep::parts::Keep;
use crate::keep::request_id::{RequestIdLayer, RequestIdService};
use crate::keep::stack::{KeepLayer, KeepService};
use crate::response::{LongLived, PROBLEM_JSON};

/// Request id > metrics > guard > rate limit > invalidation > cache > compression > time limit > caught
/// panics > body limit > the service.
///
/// A request's id is there before anything can refuse it, so that refusals carry it as well. Compression
/// lies inside of the cache, which then keeps one answer for each coding: a page is compressed once, not
/// for each hit. What follows costs only those whom the cache cannot serve: a timer for the time limit, a box
/// around each body for caught panics. The time limit lies outside of the panics, because a handler that
/// panics is done; the body limit is innermost, and says 413 before the handler has read anything.
///
/// See [`HttpConfig`](crate::http_config::HttpConfig) for what can be set and switched off.
#[derive(Clone, Debug)]
pub struct FullLayer {
    request_id: Either<RequestIdLayer, Identity>,
    keep: KeepLayer,
    compression: CompressionLayer<Worthwhile>,
    timeout: Either<TimeoutLayer, Identity>,
    catch_panic: CatchPanicLayer<PanicAnswer>,
    body_limit: RequestBodyLimitLayer,
}

/// A service behind the whole stack and tower-http's layers.
pub type FullService<S> =
    Either<RequestIdService<KeepService<FullInner<S>>>, KeepService<FullInner<S>>>;

/// What lies between the cache and the service.
type FullInner<S> = Compression<Either<Timeout<Caught<S>>, Caught<S>>, Worthwhile>;

type Caught<S> = CatchPanic<RequestBodyLimit<S>, PanicAnswer>;

impl Keep {
    /// The [five layers](Self::layer) and, in their places between them, tower-http's: request ids,
    /// compression, a time limit, caught panics and a body limit, as
    /// [`http`](crate::config::KeepConfig::http) says.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower::ServiceExt;
    /// use tower_keep::{Keep, Profile};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keep = Keep::builder(Profile::azure_b1())
    ///     .http(|http| http.timeout = Duration::from_secs(10))
    ///     .build()?;
    /// let broken = || async { if true { panic!("a mistake") } };
    /// let app = axum::Router::new()
    ///     .route("/broken", axum::routing::get(broken))
    ///     .layer(keep.full_layer());
    /// let request = http::Request::get("/broken").body(axum::body::Body::empty())?;
    /// let response = app.oneshot(request).await?;
    /// assert_eq!(response.status(), 500);
    /// assert_eq!(response.headers()["content-type"], "application/problem+json");
    /// assert!(response.headers().contains_key("x-request-id"));
    /// # Ok(()) }
    /// ```
    ///
    /// The time limit ends with the head of the answer; its body may take as long as it likes. A body that
    /// comes without a length is cut off at the limit while it is read, which axum's extractors turn into
    /// 413. A panic in a body, after the head is out, can only break the connection.
    #[must_use]
    pub fn full_layer(&self) -> FullLayer {
        let config = &self.config().http;
        let worthwhile = Worthwhile {
            on: config.compression,
            above_bytes: config.compress_above_bytes,
            guard: self.guard().clone(),
        };
        let timed = Some(config.timeout).filter(|timeout| !timeout.is_zero());
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let timeout = timed.map(|timeout| TimeoutLayer::with_status_code(unavailable, timeout));
        let body_bytes = Some(config.body_bytes_max).filter(|bytes| *bytes > 0);
        FullLayer {
            request_id: option_layer(config.request_id.then(RequestIdLayer::new)),
            keep: self.layer(),
            compression: CompressionLayer::new()
                .gzip(config.compression)
                .compress_when(worthwhile),
            timeout: option_layer(timeout),
            catch_panic: CatchPanicLayer::custom(PanicAnswer {
                catches: config.catch_panic,
            }),
            body_limit: RequestBodyLimitLayer::new(body_bytes.unwrap_or(usize::MAX)),
        }
    }
}

impl<S> Layer<S> for FullLayer {
    type Service = FullService<S>;

    fn layer(&self, service: S) -> FullService<S> {
        let caught = self.catch_panic.layer(self.body_limit.layer(service));
        let coded = self.compression.layer(self.timeout.layer(caught));
        self.request_id.layer(self.keep.layer(coded))
    }
}

/// Whether an answer is worth the time and the memory that compressing it takes.
#[derive(Clone)]
pub struct Worthwhile {
    on: bool,
    above_bytes: u64,
    guard: Guard,
}

impl Predicate for Worthwhile {
    fn should_compress<B: Body>(&self, response: &Response<B>) -> bool {
        self.on
            && self.is_large(response)
            && is_text(response)
            && response.extensions().get::<LongLived>().is_none()
            // A compressor takes some 300 KB for as long as its answer goes on.
            && self.guard.pressure() < Pressure::Severe
    }
}

impl Worthwhile {
    /// What does not say how long it is counts as large.
    fn is_large<B: Body>(&self, response: &Response<B>) -> bool {
        let said = || {
            let length = response.headers().get(CONTENT_LENGTH)?;
            length.to_str().ok()?.parse().ok()
        };
        let length = response.body().size_hint().exact().or_else(said);
        length.is_none_or(|length| length > 0 && length >= self.above_bytes)
    }
}

/// Whether the content is of a kind that is not as short as it gets, and may be held back a little.
fn is_text<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.map_or(&b""[..], |kind| kind.as_bytes());
    let begins = |with: &&str| {
        let head = kind.get(..with.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(with.as_bytes()))
    };
    TEXT_AFTER_ALL.iter().any(begins) || !CODED.iter().any(begins)
}

/// Kinds that are compressed by themselves, or that must reach the client piece by piece.
const CODED: [&str; 10] = [
    "text/event-stream",
    "image/",
    "video/",
    "audio/",
    "font/woff",
    "application/grpc",
    "application/zip",
    "application/gzip",
    "application/zstd",
    "application/pdf",
];

/// Members of those families that are text.
const TEXT_AFTER_ALL: [&str; 2] = ["image/svg+xml", "application/grpc-web"];

impl fmt::Debug for Worthwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worthwhile")
            .field("on", &self.on)
            .field("above_bytes", &self.above_bytes)
            .finish_non_exhaustive()
    }
}

/// Answers a panic, or lets it go on.
#[derive(Clone, Copy, Debug)]
pub struct PanicAnswer {
    catches: bool,
}

impl ResponseForPanic for PanicAnswer {
    type ResponseBody = String;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send + 'static>) -> Response<String> {
        if !self.catches {
            std::panic::resume_unwind(panic);
        }
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        // What it was is for the log; a client is not told of it.
        tracing::error!(target: "tower_keep", panic = text.unwrap_or("?"), "the service panicked");
        let mut response = Response::new(PANICKED.to_owned());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        response
    }
}

const PANICKED: &str = r#"{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"Something went wrong while the answer was made."}"#;

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;
    use crate::clock::Clock;
    use crate::event::Events;
    use crate::guard::GuardConfig;

    fn worthwhile() -> Worthwhile {
        let config = GuardConfig::default();
        Worthwhile {
            on: true,
            above_bytes: 1024,
            guard: Guard::new(&config, Clock::system(), Events::none()).unwrap(),
        }
    }

    #[test]
    fn only_large_texts_are_worth_it() {
        for (kind, length, worth) in [
            ("application/json", 1024, true),
            ("application/json", 1023, false),
            ("", 5000, true),
            ("text/html; charset=utf-8", 5000, true),
            ("text/event-stream", 5000, false),
            ("Text/Event-Stream; x=y", 5000, false),
            ("image/png", 5000, false),
            ("image/svg+xml", 5000, true),
            ("application/grpc", 5000, false),
            ("application/grpc-web+proto", 5000, true),
            ("application/zip", 5000, false),
            ("video/mp4", 5000, false),
        ] {
            let body = Full::<bytes::Bytes>::from(vec![b'x'; length]);
            let response = Response::builder().header(CONTENT_TYPE, kind);
            let response = response.body(body).unwrap();
            let worthwhile = worthwhile();
            assert_eq!(
                worthwhile.should_compress(&response),
                worth,
                "{kind} {length}"
            );
            let off = Worthwhile {
                on: false,
                ..worthwhile
            };
            assert!(!off.should_compress(&response));
        }
        let mut stays = Response::new(Full::<bytes::Bytes>::from(vec![b'x'; 5000]));
        stays.extensions_mut().insert(LongLived);
        assert!(!worthwhile().should_compress(&stays));
    }

    #[test]
    fn a_panic_that_is_not_caught_goes_on_as_it_was() {
        let on = std::panic::catch_unwind(|| {
            PanicAnswer { catches: false }.response_for_panic(Box::new("as it was"))
        });
        let panic = on.map(drop).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"as it was"));
    }

    #[test]
    fn what_panicked_is_not_told_to_the_client() {
        let mut answer = PanicAnswer { catches: true };
        let response = answer.response_for_panic(Box::new("a secret"));
        assert_eq!(response.status(), 500);
        assert!(!response.body().contains("secret"));
        let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!(problem["status"], 500);
    }
}
