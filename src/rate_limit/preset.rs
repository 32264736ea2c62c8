//! Rules for what most services have: a login, a search, records that are read and written, plans.
//!
//! Each is an ordinary [`Rule`] to begin with; whatever differs is said as of any other. It is called by
//! what it is and its route (`search /notes/search`), so that one preset may serve several routes.

use std::time::Duration;

use http::Method;
use serde::Deserialize;

use crate::identity::{TIER_ANONYMOUS, TIER_ENTERPRISE, TIER_FREE, TIER_PREMIUM, TIER_PRO};
use crate::rate_limit::quota::Quota;
use crate::rate_limit::rule::Rule;
use crate::rate_limit::scope::Scope;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

impl Rule {
    /// A login, a registration, a password to be reset: 5 `POST`s an hour from one address, 15 from one where
    /// somebody of the tier `premium` has signed in.
    ///
    /// Every attempt counts. Where a wrong password is answered with a status of 400 or more,
    /// `.count(Count::Failures)` spares those who know theirs; where it is answered with a page it would
    /// count nothing at all.
    ///
    /// ```
    /// use tower_keep::rate_limit::{Count, Rule};
    ///
    /// let login = Rule::authentication("/login").count(Count::Failures);
    /// assert_eq!(login.name, "authentication /login");
    /// ```
    #[must_use]
    pub fn authentication(route: impl Into<String>) -> Self {
        Self::preset("authentication", Quota::requests(5).per(HOUR), route)
            .methods([Method::POST])
            .scope(Scope::Ip)
            .tier(TIER_PREMIUM, Quota::requests(15).per(HOUR))
    }

    /// A search: 50 a minute and 10 on top for a caller, 15 and 3 on top for an address nobody has signed
    /// in from.
    ///
    /// That is, `requests(50)` with a `burst(10)`: up to 10 at once after a pause, then one every 1.2 s, and so
    /// at most 60 within whatever minute. Whoever wants 50 at once says so: `burst(50)`.
    #[must_use]
    pub fn search(route: impl Into<String>) -> Self {
        let anonymous = Quota::requests(15).per(MINUTE).burst(3);
        Self::preset("search", Quota::requests(50).per(MINUTE).burst(10), route)
            .tier(TIER_ANONYMOUS, anonymous)
    }

    /// Records that are read: 100 `GET`s (or `HEAD`s) a minute per caller.
    #[must_use]
    pub fn crud_read(route: impl Into<String>) -> Self {
        Self::preset("crud_read", Quota::requests(100).per(MINUTE), route).methods([Method::GET])
    }

    /// Records that are written: 20 `POST`s, `PUT`s and `PATCH`es a minute per caller.
    #[must_use]
    pub fn crud_write(route: impl Into<String>) -> Self {
        Self::preset("crud_write", Quota::requests(20).per(MINUTE), route).methods([
            Method::POST,
            Method::PUT,
            Method::PATCH,
        ])
    }

    /// Records that are deleted: 5 `DELETE`s a minute per caller.
    #[must_use]
    pub fn crud_delete(route: impl Into<String>) -> Self {
        Self::preset("crud_delete", Quota::requests(5).per(MINUTE), route).methods([Method::DELETE])
    }

    /// A page for everybody: 20 a minute for an address nobody has signed in from, 1000 for a caller.
    #[must_use]
    pub fn public(route: impl Into<String>) -> Self {
        Self::preset("public", Quota::requests(1000).per(MINUTE), route)
            .tier(TIER_ANONYMOUS, Quota::requests(20).per(MINUTE))
    }

    /// The whole service: 1000 a minute per caller, or per address if nobody has signed in.
    #[must_use]
    pub fn users() -> Self {
        Self::new("users", Quota::requests(1000).per(MINUTE))
    }

    /// The whole service by plan: 100 a minute for `free`, 1000 for `pro`, 10,000 for `enterprise`, and 20 for
    /// `anonymous`, which is also what a caller of any other tier gets.
    #[must_use]
    pub fn plans() -> Self {
        let plans = [
            (TIER_ANONYMOUS, 20),
            (TIER_FREE, 100),
            (TIER_PRO, 1000),
            (TIER_ENTERPRISE, 10_000),
        ];
        Self::by_tier(
            "plans",
            plans.map(|(tier, requests)| (tier, Quota::requests(requests).per(MINUTE))),
        )
    }

    fn preset(kind: &str, quota: Quota, route: impl Into<String>) -> Self {
        let route = route.into();
        Self::new(format!("{kind} {route}"), quota).route(route)
    }
}

/// The presets as files name them.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Preset {
    Authentication,
    Search,
    CrudRead,
    CrudWrite,
    CrudDelete,
    Public,
    Users,
    Plans,
}

impl Preset {
    /// The rule, for this route.
    pub(crate) fn rule(self, route: Option<&str>) -> Result<Rule, &'static str> {
        let of_a_route: fn(String) -> Rule = match self {
            Self::Authentication => Rule::authentication,
            Self::Search => Rule::search,
            Self::CrudRead => Rule::crud_read,
            Self::CrudWrite => Rule::crud_write,
            Self::CrudDelete => Rule::crud_delete,
            Self::Public => Rule::public,
            Self::Users => return Ok(of_all(Rule::users(), route)),
            Self::Plans => return Ok(of_all(Rule::plans(), route)),
        };
        route
            .map(|route| of_a_route(route.to_owned()))
            .ok_or("missing field `route`, which this preset needs")
    }
}

/// A preset for the whole service, which may be narrowed down to a route nevertheless.
fn of_all(rule: Rule, route: Option<&str>) -> Rule {
    match route {
        Some(route) => rule.route(route),
        None => rule,
    }
}
