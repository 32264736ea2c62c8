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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Faults;
    use crate::identity::{Caller, RequestView};
    use crate::rate_limit::compiled::CompiledRule;
    use crate::rate_limit::mode::Mode;

    /// What a rule grants a tier: requests, seconds, at once.
    fn grants(rule: &Rule, tier: Option<&str>) -> (u32, u64, u32) {
        let rule = CompiledRule::new(rule, Mode::Exact).unwrap();
        let terms = &rule.plan(tier).terms;
        let at_once = terms.limit.remaining(0);
        let one = terms.limit.fill() / u64::from(at_once);
        let seconds = one * u64::from(terms.requests) / 1_000_000;
        (terms.requests, seconds, at_once)
    }

    #[test]
    fn every_preset_has_its_numbers() {
        for (rule, tier, numbers) in [
            (Rule::authentication("/a"), None, (5, 3600, 5)),
            (Rule::authentication("/a"), Some("basic"), (5, 3600, 5)),
            (Rule::authentication("/a"), Some("premium"), (15, 3600, 15)),
            (Rule::search("/a"), None, (50, 60, 10)),
            (Rule::search("/a"), Some("premium"), (50, 60, 10)),
            (Rule::search("/a"), Some("anonymous"), (15, 60, 3)),
            (Rule::crud_read("/a"), None, (100, 60, 100)),
            (Rule::crud_write("/a"), None, (20, 60, 20)),
            (Rule::crud_delete("/a"), None, (5, 60, 5)),
            (Rule::public("/a"), Some("basic"), (1000, 60, 1000)),
            (Rule::public("/a"), Some("anonymous"), (20, 60, 20)),
            (Rule::users(), None, (1000, 60, 1000)),
            (Rule::plans(), Some("free"), (100, 60, 100)),
            (Rule::plans(), Some("pro"), (1000, 60, 1000)),
            (Rule::plans(), Some("enterprise"), (10_000, 60, 10_000)),
            (Rule::plans(), Some("anonymous"), (20, 60, 20)),
            (Rule::plans(), Some("unheard of"), (20, 60, 20)),
        ] {
            assert_eq!(grants(&rule, tier), numbers, "{} {tier:?}", rule.name);
        }
    }

    #[test]
    fn every_preset_is_sound_and_speaks_of_what_it_is_for() {
        for (rule, name, spoken) in [
            (Rule::authentication("/a"), "authentication /a", "POST"),
            (
                Rule::search("/a"),
                "search /a",
                "GET HEAD POST PUT PATCH DELETE",
            ),
            (Rule::crud_read("/a"), "crud_read /a", "GET HEAD"),
            (Rule::crud_write("/a"), "crud_write /a", "POST PUT PATCH"),
            (Rule::crud_delete("/a"), "crud_delete /a", "DELETE"),
            (
                Rule::public("/a"),
                "public /a",
                "GET HEAD POST PUT PATCH DELETE",
            ),
        ] {
            assert_eq!(rule.name, name);
            let mut faults = Faults::new();
            rule.check("r", &[], &mut faults);
            faults.into_result().unwrap();
            let compiled = CompiledRule::new(&rule, Mode::Exact).unwrap();
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
                for path in ["/a", "/b"] {
                    let request = http::Request::builder().method(method).uri(path);
                    let request = request.body(()).unwrap();
                    let speaks = compiled.speaks_of(&RequestView::of(&request), || None);
                    let expected = path == "/a" && spoken.split(' ').any(|one| one == method);
                    assert_eq!(speaks, expected, "{name}: {method} {path}");
                }
            }
        }
        assert_eq!((Rule::users().route, Rule::plans().route), (None, None));
    }

    /// The tiers that presets and callers are of are the same.
    #[test]
    fn a_caller_of_no_tier_has_a_quota_in_every_preset() {
        let caller = Caller::new("a");
        for rule in [
            Rule::authentication("/a"),
            Rule::public("/a"),
            Rule::plans(),
        ] {
            let compiled = CompiledRule::new(&rule, Mode::Exact).unwrap();
            assert!(compiled.plan(Some(&caller.tier)).terms.requests > 0);
        }
    }
}
