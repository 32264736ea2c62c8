//! Where the parts of a service say how they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use serde::Serialize;

/// How something is, the better the smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All is well.
    #[default]
    Healthy,
    /// It serves, but not as it should: slower, or from memory only.
    Degraded,
    /// It does not serve.
    Unhealthy,
}

/// How one part is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentHealth {
    /// How it is.
    pub status: HealthStatus,
    /// Why, for a person to read. Do not put secrets here: the health endpoint shows it.
    pub detail: String,
}

/// How all parts are, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The worst of the parts; healthy if there are none.
    pub status: HealthStatus,
    /// The parts, by name.
    pub components: BTreeMap<&'static str, ComponentHealth>,
}

impl Health {
    /// The status code for a probe: 503 for an unhealthy service, else 200. A degraded service still
    /// serves, and taking it out of rotation would help nobody.
    #[must_use]
    pub const fn http_status(&self) -> StatusCode {
        match self.status {
            HealthStatus::Healthy | HealthStatus::Degraded => StatusCode::OK,
            HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Where the parts of a service say how they are. Cheap to clone; all clones are one board.
#[derive(Clone, Debug, Default)]
pub struct HealthBoard {
    components: Arc<Mutex<BTreeMap<&'static str, ComponentHealth>>>,
}

impl HealthBoard {
    /// A board with nothing on it, which reads as healthy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `component` is now `status`, and why. Takes a lock for the length of one map
    /// insertion: meant for changes and tickers, not for every request.
    pub fn set(&self, component: &'static str, status: HealthStatus, detail: impl Into<String>) {
        let detail = detail.into();
        self.lock()
            .insert(component, ComponentHealth { status, detail });
    }

    /// What is on the board.
    #[must_use]
    pub fn health(&self) -> Health {
        let components = self.lock().clone();
        let worst = components.values().map(|component| component.status).max();
        Health {
            status: worst.unwrap_or_default(),
            components,
        }
    }

    /// An insertion that panics leaves the map as it was, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, ComponentHealth>> {
        self.components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_decides() {
        let board = HealthBoard::new();
        assert_eq!(board.health(), Health::default());
        for (status, worst, code) in [
            (HealthStatus::Healthy, HealthStatus::Healthy, 200),
            (HealthStatus::Degraded, HealthStatus::Degraded, 200),
            (HealthStatus::Unhealthy, HealthStatus::Unhealthy, 503),
            (HealthStatus::Healthy, HealthStatus::Healthy, 200),
        ] {
            board.set("database", HealthStatus::Healthy, "");
            board.clone().set("redis", status, "");
            assert_eq!(board.health().status, worst);
            assert_eq!(board.health().http_status(), code);
        }
    }

    #[test]
    fn the_summary_is_plain_json() {
        let board = HealthBoard::new();
        board.set("redis", HealthStatus::Degraded, "no connection since 12 s");
        board.set("cache", HealthStatus::Healthy, "");
        assert_eq!(
            serde_json::to_string(&board.health()).unwrap(),
            r#"{"status":"degraded","components":{"cache":{"status":"healthy","detail":""},"redis":{"status":"degraded","detail":"no connection since 12 s"}}}"#
        );
    }
}
