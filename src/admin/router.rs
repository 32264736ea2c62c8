//! The endpoints for axum.

use axum::Router;

use crate::admin::service::AdminService;

impl AdminService {
    /// A router for these endpoints, to be merged or nested. It needs nothing of the application's state.
    ///
    /// Where nobody is let in it has the probes alone. With authorisation it has all of them, `/report`, `/cache`
    /// and `/slow` among them, which an application may have as well: nest it then, as in
    /// `app.nest("/admin", keep.admin_router())`.
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        self.rows().fold(Router::new(), |router, row| {
            router.route_service(row.path, self.clone())
        })
    }
}
