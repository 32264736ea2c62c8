//! Where the parts of a service say how they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

use crate::clock::{Clock, Moment};
use crate::health::details::{ComponentDetails, HealthDetails, HealthStatus};

/// How one part is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentHealth {
    /// How it is.
    pub status: HealthStatus,
    /// Why, for a person to read; left out of the JSON where there is nothing to say. `/health` leaves it out
    /// always. Do not put secrets here: `/health/detailed` shows it.
    #[serde(skip_serializing_if = "String::is_empty")]
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

    /// The statuses alone, for strangers: no versions, no figures, no words of an error.
    #[must_use]
    pub fn without_details(mut self) -> Self {
        for component in self.components.values_mut() {
            component.detail.clear();
        }
        self
    }
}

/// Where the parts of a service say how they are. Cheap to clone; all clones are one board.
#[derive(Clone, Debug, Default)]
pub struct HealthBoard {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    clock: Clock,
    began: Moment,
    instance: String,
    version: Option<String>,
    components: Mutex<BTreeMap<&'static str, Entry>>,
}

/// What the board knows of a part.
#[derive(Clone, Debug)]
struct Entry {
    status: HealthStatus,
    detail: String,
    checked: Moment,
    /// When it became what it is.
    since: Moment,
    took: Option<Duration>,
    failures: u32,
    /// How old this may become before it is doubted. What is told when it changes does not grow old.
    stale_after: Option<Duration>,
}

/// What a check has found out.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) status: HealthStatus,
    pub(crate) detail: String,
    pub(crate) took: Option<Duration>,
    /// How often in a row it has failed by now.
    pub(crate) failures: u32,
    pub(crate) stale_after: Duration,
}

impl HealthBoard {
    /// A board with nothing on it, which reads as healthy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A board that tells ages by `clock`, and says in its details that it is `instance` of this `version`.
    #[must_use]
    pub fn of_instance(clock: Clock, instance: &str, version: Option<&str>) -> Self {
        Self {
            shared: Arc::new(Shared {
                began: clock.now(),
                clock,
                instance: instance.to_owned(),
                version: version.map(str::to_owned),
                components: Mutex::default(),
            }),
        }
    }

    /// What this instance is called.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.shared.instance
    }

    /// Notes that `component` is now `status`, and why. Takes a lock for the length of one map
    /// insertion: meant for changes and tickers, not for every request.
    pub fn set(&self, component: &'static str, status: HealthStatus, detail: impl Into<String>) {
        let detail = detail.into();
        self.put(component, |entry| {
            entry.status = status;
            entry.detail = detail;
        });
    }

    /// Notes what a check has found out.
    pub(crate) fn found(&self, component: &'static str, finding: Finding) {
        self.put(component, |entry| {
            entry.status = finding.status;
            entry.detail = finding.detail;
            entry.took = finding.took;
            entry.failures = finding.failures;
            entry.stale_after = Some(finding.stale_after);
        });
    }

    fn put(&self, component: &'static str, change: impl FnOnce(&mut Entry)) {
        let now = self.shared.clock.now();
        let mut components = self.lock();
        let entry = components.entry(component).or_insert_with(|| Entry {
            status: HealthStatus::Healthy,
            detail: String::new(),
            checked: now,
            since: now,
            took: None,
            failures: 0,
            stale_after: None,
        });
        let before = entry.status;
        change(entry);
        entry.checked = now;
        if entry.status != before {
            entry.since = now;
        }
    }

    /// What is on the board. Costs a copy of it, a microsecond or two.
    #[must_use]
    pub fn health(&self) -> Health {
        let now = self.shared.clock.now();
        let of = |(name, entry): (&&'static str, &Entry)| {
            let (status, detail) = entry.at(now);
            (*name, ComponentHealth { status, detail })
        };
        let components: BTreeMap<_, _> = self.lock().iter().map(of).collect();
        let worst = components.values().map(|component| component.status).max();
        Health {
            status: worst.unwrap_or_default(),
            components,
        }
    }

    /// What is on the board, with how old it is: for the operator, not for strangers. Costs as much as
    /// [`health`](Self::health).
    #[must_use]
    pub fn details(&self) -> HealthDetails {
        let now = self.shared.clock.now();
        let of = |(name, entry): (&&'static str, &Entry)| {
            let (status, detail) = entry.at(now);
            let details = ComponentDetails {
                status,
                detail,
                checked_ago: now.since(entry.checked),
                took: entry.took,
                since: now.since(entry.since),
                failures: entry.failures,
            };
            (*name, details)
        };
        let components: BTreeMap<_, _> = self.lock().iter().map(of).collect();
        let worst = components.values().map(|component| component.status).max();
        HealthDetails {
            status: worst.unwrap_or_default(),
            instance: self.shared.instance.clone(),
            version: self.shared.version.clone(),
            keep_version: env!("CARGO_PKG_VERSION"),
            uptime: now.since(self.shared.began),
            components,
        }
    }

    /// An insertion that panics leaves the map as it was, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Entry>> {
        self.shared
            .components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// How it is as far as that is known `now`.
    fn at(&self, now: Moment) -> (HealthStatus, String) {
        let age = now.since(self.checked);
        if self.stale_after.is_none_or(|limit| age <= limit) {
            return (self.status, self.detail.clone());
        }
        let status = self.status.max(HealthStatus::Degraded);
        let (age, last) = (age.as_secs(), &self.detail);
        (status, format!("no result for {age} s; the last: {last}"))
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
            assert_eq!(board.details().status, worst);
            assert_eq!(board.health().http_status(), code);
        }
    }

    #[test]
    fn the_summary_is_plain_json_and_says_as_little_as_wanted() {
        let board = HealthBoard::new();
        board.set("redis", HealthStatus::Degraded, "no connection since 12 s");
        board.set("cache", HealthStatus::Healthy, "");
        assert_eq!(
            serde_json::to_string(&board.health()).unwrap(),
            r#"{"status":"degraded","components":{"cache":{"status":"healthy"},"redis":{"status":"degraded","detail":"no connection since 12 s"}}}"#
        );
        assert_eq!(
            serde_json::to_string(&board.health().without_details()).unwrap(),
            r#"{"status":"degraded","components":{"cache":{"status":"healthy"},"redis":{"status":"degraded"}}}"#
        );
    }

    #[test]
    fn details_tell_how_long_a_part_has_been_what_it_is() {
        let (clock, hand) = Clock::manual();
        let board = HealthBoard::of_instance(clock, "a1", Some("1.2.3"));
        let seconds = Duration::from_secs;
        hand.advance(seconds(5));
        board.set("redis", HealthStatus::Degraded, "down");
        hand.advance(seconds(3));
        board.set("redis", HealthStatus::Degraded, "down still");
        hand.advance(seconds(2));
        let details = board.details();
        assert_eq!(details.uptime, seconds(10));
        let redis = &details.components["redis"];
        assert_eq!((redis.since, redis.checked_ago), (seconds(5), seconds(2)));
        board.set("redis", HealthStatus::Healthy, "up");
        assert_eq!(board.details().components["redis"].since, seconds(0));
        let json = serde_json::to_value(board.details()).unwrap();
        assert_eq!(json["instance"], "a1");
        assert_eq!(json["version"], "1.2.3");
        assert_eq!(json["uptime_ms"], 10_000);
        assert_eq!(json["components"]["redis"]["failures"], 0);
        assert!(json["components"]["redis"]["took_ms"].is_null());
    }

    #[test]
    fn a_result_that_grows_old_is_doubted_and_what_was_told_is_not() {
        let (clock, hand) = Clock::manual();
        let board = HealthBoard::of_instance(clock, "a1", None);
        board.set("told", HealthStatus::Healthy, "");
        board.found(
            "checked",
            Finding {
                status: HealthStatus::Healthy,
                detail: "all well".to_owned(),
                took: None,
                failures: 0,
                stale_after: Duration::from_secs(60),
            },
        );
        hand.advance(Duration::from_secs(60));
        assert_eq!(board.health().status, HealthStatus::Healthy);
        hand.advance(Duration::from_secs(1));
        let health = board.health();
        assert_eq!(health.components["told"].status, HealthStatus::Healthy);
        let checked = &health.components["checked"];
        assert_eq!(checked.status, HealthStatus::Degraded);
        assert_eq!(checked.detail, "no result for 61 s; the last: all well");
    }
}
