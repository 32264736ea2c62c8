//! Sends a batch of requests through a service and reads the answers to their end.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{Request, Response};
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use crate::traffic::Traffic;

/// Requests one after the other, as one connection sends them. Returns how many bytes the answers had.
pub(crate) async fn drive<S, B>(service: &mut S, traffic: &mut Traffic, requests: usize) -> u64
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Debug,
    B: HttpBody<Data = Bytes>,
    B::Error: Debug,
{
    let mut bytes = 0;
    for _ in 0..requests {
        let request = traffic.next();
        let ready = poll_fn(|cx| service.poll_ready(cx)).await;
        assert!(ready.is_ok(), "never ready: {ready:?}");
        match service.call(request).await {
            Ok(response) => bytes += drain(response).await,
            // An aborted measurement is better than one of errors.
            Err(error) => unreachable!("these services do not fail: {error:?}"),
        }
    }
    bytes
}

/// Reads the body as a server does, piece by piece.
async fn drain<B>(response: Response<B>) -> u64
where
    B: HttpBody<Data = Bytes>,
    B::Error: Debug,
{
    let (head, body) = response.into_parts();
    std::hint::black_box(&head);
    let mut body = pin!(body);
    let mut bytes = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(error) => unreachable!("these bodies do not break off: {error:?}"),
        }
    }
    bytes
}

/// Clones the service for every request, as hyper-util does for `axum::serve`.
#[derive(Clone)]
pub(crate) struct AsServed<S>(pub(crate) S);

impl<S> Service<Request<Body>> for AsServed<S>
where
    S: Service<Request<Body>, Error = Infallible> + Clone,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Oneshot<S, Request<Body>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.clone().oneshot(request)
    }
}
