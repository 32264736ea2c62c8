//! Alerts as JSON to a URL, by the service's own HTTP client.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use tower_service::Service;

use crate::alerts::alert::Alert;
use crate::alerts::handler::{AlertError, AlertHandler};
use crate::error::ConfigError;

/// Sends each alert as a `POST` of `application/json`; the shape is told at [`Alert`]. An answer of 2xx is success,
/// and whatever else there is of the answer is not read.
///
/// The client is any tower service, such as hyper-util's with a connector for TLS, or one with a
/// [`QuotaLayer`](crate::outbound::QuotaLayer) around it:
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower_keep::alerts::Webhook;
/// use tower_keep::{Keep, Profile};
///
/// # fn main() -> Result<(), tower_keep::error::ConfigError> {
/// let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
/// let webhook = Webhook::new("http://alerts.internal/hooks/7", client)?;
/// let keep = Keep::builder(Profile::azure_b1()).on_alert(webhook);
/// # let _ = keep;
/// # Ok(()) }
/// ```
pub struct Webhook<C, B> {
    url: Uri,
    headers: HeaderMap,
    /// Cloned for each alert. A mutex, because a service need not be shared between threads.
    client: Mutex<C>,
    body: PhantomData<fn() -> B>,
}

impl<C, B> Webhook<C, B> {
    /// A handler that posts to `url`, which has a scheme and a host.
    ///
    /// # Errors
    ///
    /// When it has not, or is no URL at all. The error does not quote it: there may be a secret in it.
    pub fn new(url: &str, client: C) -> Result<Self, ConfigError>
    where
        C: Service<Request<B>>,
    {
        let parsed = url.parse::<Uri>().ok();
        let fits = |url: &Uri| url.scheme().is_some() && url.host().is_some();
        let Some(url) = parsed.filter(fits) else {
            let allowed = "must be a URL with scheme and host: https://alerts.internal/hooks/7";
            return Err(ConfigError::one("webhook.url", "(hidden)", allowed));
        };
        Ok(Self {
            url,
            headers: HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )]),
            client: Mutex::new(client),
            body: PhantomData,
        })
    }

    /// Sends a field along, such as `Authorization`, in the place of one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl<C, B, R> AlertHandler for Webhook<C, B>
where
    C: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<AlertError>,
    B: From<Bytes> + Send + 'static,
{
    fn tell(
        &self,
        alert: Alert,
    ) -> Pin<Box<dyn Future<Output = Result<(), AlertError>> + Send + '_>> {
        let mut client = {
            let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
            client.clone()
        };
        Box::pin(async move {
            let mut request = Request::new(B::from(serde_json::to_vec(&alert)?.into()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.url.clone();
            request.headers_mut().clone_from(&self.headers);
            poll_fn(|cx| client.poll_ready(cx))
                .await
                .map_err(Into::into)?;
            let answered = client.call(request).await.map_err(Into::into)?;
            match answered.status() {
                status if status.is_success() => Ok(()),
                status => Err(format!("the webhook answered {status}").into()),
            }
        })
    }
}

impl<C, B> fmt::Debug for Webhook<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths of webhooks are often their only secret.
        f.debug_struct("Webhook")
            .field("host", &self.url.host())
            .finish_non_exhaustive()
    }
}
