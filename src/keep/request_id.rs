//! A name for every request, in its fields and in those of its answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower_http::request_id::{
    MakeRequestId, PropagateRequestId, PropagateRequestIdLayer, RequestId, SetRequestId,
    SetRequestIdLayer,
};
use tower_layer::Layer;
use tower_service::Service;

/// A service whose requests and answers carry `X-Request-Id`.
pub type RequestIdService<S> = FitRequestId<SetRequestId<PropagateRequestId<S>, FreshRequestId>>;

/// Names requests that have no name, or none that can be kept, and has the answer carry the same one.
#[derive(Clone, Debug)]
pub(crate) struct RequestIdLayer {
    fresh: FreshRequestId,
}

impl RequestIdLayer {
    pub(crate) fn new() -> Self {
        Self {
            fresh: FreshRequestId::new(),
        }
    }
}

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIdService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let carried = PropagateRequestIdLayer::new(X_REQUEST_ID).layer(inner);
        let named = SetRequestIdLayer::new(X_REQUEST_ID, self.fresh.clone()).layer(carried);
        FitRequestId { inner: named }
    }
}

/// Takes away a client's name for its request that has no place in a log: empty, said twice, longer than
/// 128 bytes, or of other characters than visible ASCII.
#[derive(Clone, Debug)]
pub struct FitRequestId<S> {
    inner: S,
}

impl<S, ReqBody> Service<Request<ReqBody>> for FitRequestId<S>
where
    S: Service<Request<ReqBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> S::Future {
        if !is_fit(request.headers()) {
            request.headers_mut().remove(X_REQUEST_ID);
        }
        self.inner.call(request)
    }
}

fn is_fit(fields: &HeaderMap) -> bool {
    let mut names = fields.get_all(X_REQUEST_ID).iter();
    let Some(name) = names.next() else {
        return true;
    };
    let is_short = (1..=ID_BYTES_MAX).contains(&name.len());
    is_short && name.as_bytes().iter().all(u8::is_ascii_graphic) && names.next().is_none()
}

/// Makes names: 64 random bits for this stack and a number, in 32 hexadecimal digits. They are unique and
/// no secret, so nobody asks the system for randomness for each of them.
#[derive(Clone, Debug)]
pub struct FreshRequestId {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stack: u64,
    next: AtomicU64,
}

impl FreshRequestId {
    fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                stack: RandomState::new().hash_one("request ids"),
                next: AtomicU64::new(0),
            }),
        }
    }
}

impl MakeRequestId for FreshRequestId {
    fn make_request_id<B>(&mut self, _request: &Request<B>) -> Option<RequestId> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let mut name = [0; 32];
        let halves = [self.shared.stack, number];
        let digits = halves.iter().flat_map(|half| half.to_be_bytes());
        for (pair, byte) in name.chunks_exact_mut(2).zip(digits) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        HeaderValue::from_bytes(&name).ok().map(RequestId::new)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer than any format in use: a UUID has 36 characters, a W3C trace 55.
const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(names: &[&[u8]]) -> HeaderMap {
        let value = |name: &&[u8]| HeaderValue::from_bytes(name).unwrap();
        let named = names.iter().map(|name| (X_REQUEST_ID, value(name)));
        named.fold(HeaderMap::new(), |mut fields, (field, value)| {
            fields.append(field, value);
            fields
        })
    }

    #[test]
    fn only_names_that_fit_into_a_log_are_kept() {
        let long = [b'x'; 129];
        for (names, fit) in [
            (&[][..], true),
            (&[&b"a"[..]][..], true),
            (&[&long[..128]], true),
            (&[&long[..]], false),
            (&[b""], false),
            (&[b"a b"], false),
            (&[b"a\tb"], false),
            (&["\u{e9}".as_bytes()], false),
            (&[b"a", b"b"], false),
        ] {
            assert_eq!(is_fit(&fields(names)), fit, "{names:?}");
        }
    }

    #[test]
    fn names_are_of_one_form_and_differ_between_requests_and_stacks() {
        let (mut one, other) = (FreshRequestId::new(), FreshRequestId::new());
        let name = |fresh: &mut FreshRequestId| {
            let id = fresh.make_request_id(&Request::new(())).unwrap();
            id.header_value().to_str().unwrap().to_owned()
        };
        let names = [name(&mut one), name(&mut one.clone()), name(&mut { other })];
        assert!(names[0].ends_with("0000000000000000") && names[0].len() == 32);
        assert!(names[1].ends_with("0000000000000001"));
        assert_eq!(names[0][..16], names[1][..16]);
        assert_ne!(names[0][..16], names[2][..16]);
    }
}
