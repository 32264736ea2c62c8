//! Who is told.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use crate::alerts::alert::Alert;

/// Why a handler could not tell it on. Its words go to the log.
pub type AlertError = Box<dyn Error + Send + Sync>;

/// Is told of alerts: writes a mail, calls a webhook, opens a ticket.
///
/// Every closure is one that takes an [`Alert`] and returns a future of a `Result`:
///
/// ```
/// use tower_keep::alerts::{Alert, AlertError};
/// use tower_keep::{Keep, Profile};
///
/// let keep = Keep::builder(Profile::azure_b1()).on_alert(async |alert: Alert| {
///     println!("{}", alert.detail);
///     Ok::<(), AlertError>(())
/// });
/// # let _ = keep;
/// ```
///
/// # Contract
///
/// - `tell` is called from a task of the handler's own, one call at a time, in the order of the alerts.
/// - Each call has `alerts.handler_timeout_ms`; then its future is dropped, at whatever await it is.
/// - A call that fails, panics or takes too long is made again after one and after two seconds, and then given
///   up, so an alert may be told twice.
/// - It does not block its thread.
pub trait AlertHandler: Send + Sync + 'static {
    /// Tells `alert` on.
    fn tell(
        &self,
        alert: Alert,
    ) -> Pin<Box<dyn Future<Output = Result<(), AlertError>> + Send + '_>>;
}

impl<F, Told, E> AlertHandler for F
where
    F: Fn(Alert) -> Told + Send + Sync + 'static,
    Told: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<AlertError>,
{
    fn tell(
        &self,
        alert: Alert,
    ) -> Pin<Box<dyn Future<Output = Result<(), AlertError>> + Send + '_>> {
        let told = self(alert);
        Box::pin(async { told.await.map_err(Into::into) })
    }
}
