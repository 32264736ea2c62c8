//! The operator's endpoints of a running stack.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::admin::{AdminAuth, AdminEngines, AdminService, AdminSources};
use crate::error::ConfigError;
use crate::keep::gauges::{Row, show};
use crate::keep::parts::{Keep, is_ready};

impl Keep {
    /// The operator's endpoints, as a service that needs no framework; see [`admin`](crate::admin). Ask it beside
    /// the stack, not behind it, so that it answers while the stack sheds. It does not keep the stack's tasks
    /// running.
    #[must_use]
    pub fn admin_service(&self) -> AdminService {
        let auth = self.admin_access().clone().configured(&self.config().admin);
        AdminService::new(self.admin_sources(), auth)
    }

    /// The probes alone, whatever is configured: `GET /alive`, `/ready`, `/health`, `/metrics`. They belong beside the
    /// stack and not behind it, so that they answer while it sheds: `keep.probe_router().merge(app)`, where `app` has its
    /// layer. In the other order axum takes the fallback of this router for a service that has set none of its own, and
    /// requests for unknown paths are neither counted nor limited.
    #[cfg(feature = "axum")]
    pub fn probe_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        AdminService::new(self.admin_sources(), AdminAuth::none()).router()
    }

    /// The operator's endpoints: the [probes](Self::probe_router), and with `admin.token` or
    /// [`KeepBuilder::admin_auth`](crate::KeepBuilder::admin_auth) all those of [`admin`](crate::admin). To be nested under a prefix of its
    /// own beside the stack: `app.nest("/admin", keep.admin_router())`. Merged at the root, its `/report` or `/cache`
    /// would be those of the service as well, and axum panics at the second route of a path.
    #[cfg(feature = "axum")]
    pub fn admin_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        self.admin_service().router()
    }

    /// What the endpoints read, for an [`AdminService`] with sources of the service's own: engines, not the whole
    /// stack, because a router that is kept must not keep the tasks running.
    #[must_use]
    pub fn admin_sources(&self) -> AdminSources {
        let (guard, draining) = (self.guard().clone(), self.draining());
        let stopping = Arc::clone(&draining);
        let mut sources = AdminSources::new(self.metrics().clone(), self.health_board().clone());
        sources.ready = Arc::new(move || is_ready(&guard, &draining));
        sources.stopping = Arc::new(move || stopping.load(Ordering::Relaxed));
        sources.clock = self.clock().clone();
        sources.engines = Some(AdminEngines {
            guard: self.guard().clone(),
            connections: self.connections().clone(),
            breakers: self.breakers().clone(),
            database_slots: self.database_slots().clone(),
            limiter: self.limiter().clone(),
            invalidator: self.invalidator().clone(),
            coherency: self.coherency_engine().clone(),
            cache: self.http_cache().clone(),
            tiers: self.tiers().clone(),
            warmer: self.warmer().clone(),
        });
        let board = self.health_board().clone();
        sources.health_details = Some(Arc::new(move || json!(board.details())));
        let alerts = self.alerts().clone();
        sources.alerts = Some(Arc::new(
            move || json!({"states": alerts.states(), "recent": alerts.recent()}),
        ));
        let (whole, parts) = (self.downgrade(), self.downgrade());
        sources.report = Some(Arc::new(move |window| {
            json!(whole.upgrade().map(|keep| keep.report(window)))
        }));
        sources.report_text = Some(Arc::new(move |window| {
            let report = parts.upgrade().map(|keep| keep.report(window).to_string());
            report.unwrap_or_else(|| "the stack is gone".to_owned())
        }));
        #[cfg(feature = "redis")]
        {
            let redis = self.redis().clone();
            sources.redis = Some(Arc::new(move || of_redis(&redis)));
        }
        sources
    }
}

#[cfg(feature = "redis")]
fn of_redis(redis: &crate::store::RedisPool) -> serde_json::Value {
    use crate::store::RedisStatus;

    let figures = redis.figures();
    let (status, why) = match &figures.status {
        RedisStatus::Up => ("up", None),
        RedisStatus::Down { reason } => ("down", Some(reason.to_string())),
        RedisStatus::Disabled => ("disabled", None),
    };
    json!({
        "status": status,
        "why": why,
        "server": figures.server,
        "connections": figures.connections,
        "under_way": figures.under_way,
        "round_trip_ms": figures.round_trip.as_secs_f64() * 1e3,
        "refuses_writes": figures.refuses_writes,
    })
}

/// Registers the gauges of who was let in and who was not.
///
/// # Errors
///
/// When a gauge's name is refused.
pub(crate) fn start(keep: &Keep) -> Result<(), ConfigError> {
    show(keep.metrics(), keep.admin_access(), &ADMIN)
}

const ADMIN: [Row<AdminAuth>; 2] = [
    (
        "keep_admin_changes",
        "Changes that operators have made by hand so far.",
        |auth| auth.changes() as f64,
    ),
    (
        "keep_admin_denied",
        "Requests for details or changes that were turned away so far.",
        |auth| auth.denied() as f64,
    ),
];
