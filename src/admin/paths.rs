//! Which endpoints there are, who may ask them, and how.

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Alive,
    Ready,
    Health,
    Metrics,
    HealthDetailed,
    Report,
    Alerts,
    Slow,
    Cache,
    Limiter,
    Journal,
    Tenants,
    Dashboard,
    DashboardData,
    DashboardEvents,
    Purge,
    Warm,
    Unban,
    Peek,
    Clear,
}

/// For whom an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// For everybody: platforms and scrapers.
    Probe,
    /// The dashboard's page, which holds nothing secret: for everybody where there is a token to be asked for.
    Page,
    /// Shows names, routes and callers: with authorisation.
    Detail,
    /// Changes something: with authorisation.
    Change,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its path, in which `{id}` stands for one segment.
    pub(crate) path: &'static str,
    pub(crate) place: Place,
    pub(crate) class: Class,
    /// The field `Allow`.
    pub(crate) allow: &'static str,
}

impl Row {
    /// Whether the method is one of those allowed.
    pub(crate) fn allows(&self, method: &http::Method) -> bool {
        let mut methods = self.allow.split(", ");
        methods.any(|allowed| allowed == method.as_str())
    }
}

/// The endpoint at `path`, with the segment that stands for `{id}`. What is not written like that is none:
/// neither with another slash, nor with dots or percent signs.
pub(crate) fn find(path: &str) -> Option<(Row, Option<&str>)> {
    if let Some(row) = ROWS.iter().find(|row| row.path == path) {
        // The template itself is no path: a client sends braces encoded.
        return (row.place != Place::Clear).then_some((*row, None));
    }
    let id = path.strip_prefix("/tenants/")?.strip_suffix("/clear")?;
    let row = ROWS.iter().find(|row| row.place == Place::Clear)?;
    (!id.is_empty() && !id.contains('/')).then_some((*row, Some(id)))
}

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

const fn row(path: &'static str, place: Place, class: Class, allow: &'static str) -> Row {
    Row {
        path,
        place,
        class,
        allow,
    }
}

/// All endpoints.
pub(crate) const ROWS: [Row; 20] = [
    row("/alive", Place::Alive, Class::Probe, READ),
    row("/ready", Place::Ready, Class::Probe, READ),
    row("/health", Place::Health, Class::Probe, READ),
    row("/metrics", Place::Metrics, Class::Probe, READ),
    row(
        "/health/detailed",
        Place::HealthDetailed,
        Class::Detail,
        READ,
    ),
    row("/report", Place::Report, Class::Detail, READ),
    row("/alerts", Place::Alerts, Class::Detail, READ),
    row("/slow", Place::Slow, Class::Detail, READ),
    row("/cache", Place::Cache, Class::Detail, READ),
    row("/limiter", Place::Limiter, Class::Detail, READ),
    row("/journal", Place::Journal, Class::Detail, READ),
    row("/tenants", Place::Tenants, Class::Detail, READ),
    row("/dashboard", Place::Dashboard, Class::Page, READ),
    row("/dashboard/data", Place::DashboardData, Class::Detail, READ),
    row(
        "/dashboard/events",
        Place::DashboardEvents,
        Class::Detail,
        READ,
    ),
    row(
        "/limiter/peek",
        Place::Peek,
        Class::Detail,
        "GET, HEAD, POST",
    ),
    row("/cache/purge", Place::Purge, Class::Change, WRITE),
    row("/cache/warm", Place::Warm, Class::Change, WRITE),
    row("/limiter/unban", Place::Unban, Class::Change, WRITE),
    row("/tenants/{id}/clear", Place::Clear, Class::Change, WRITE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_and_nothing_that_only_looks_like_one() {
        for row in ROWS {
            let path = row.path.replace("{id}", "acme");
            let (found, id) = find(&path).unwrap();
            assert_eq!(found.place, row.place);
            assert_eq!(id, (row.place == Place::Clear).then_some("acme"));
            for other in [
                format!("{path}/"),
                format!("/{path}"),
                format!("{path}x"),
                format!("/x/..{path}"),
                path.to_uppercase(),
                path.replace('a', "%61"),
            ] {
                if other != path {
                    assert!(find(&other).is_none_or(|(row, _)| row.place == Place::Clear));
                }
            }
        }
        for path in [
            "",
            "/",
            "*",
            "//",
            "/tenants//clear",
            "/tenants/clear",
            "/tenants/a/b/clear",
            "/tenants/{id}/clear",
            "/tenants/../clear/",
            "/dashboard/../alive",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
