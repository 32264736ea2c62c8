//! The settings of the rate limiter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::identity::{ProxyHeader, TIER_ADMIN, TrustedProxies};
use crate::rate_limit::lists::Lists;
use crate::rate_limit::mode::Mode;
use crate::rate_limit::penalty_config::PenaltyConfig;
use crate::rate_limit::quota::{Quota, QuotaFields};
use crate::rate_limit::rule::{Rule, check_tiers, is_tier};

/// The name of the rule that applies to every request.
pub(crate) const DEFAULT_RULE: &str = "default";

/// Keys that the table may hold: at most 640 MiB.
const KEYS_MAX: std::ops::RangeInclusive<usize> = 16..=1 << 26;

/// Prefixes shorter than what the smallest provider is given would pool strangers.
const IPV6_PREFIX: std::ops::RangeInclusive<u8> = 32..=128;

/// Instances that may share the quotas.
const INSTANCES: std::ops::RangeInclusive<u32> = 1..=10_000;

/// Settings of the rate limiter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Whether requests are limited at all.
    pub enabled: bool,
    /// How many keys (callers, addresses, ..) per rule are kept apart at a time: 16 to 67,108,864.
    /// Fixes the memory: 10 bytes each, and as much again with a `penalty`, all of it from the start. Beyond, the ones that have used
    /// up the least are forgotten.
    pub keys_max: usize,
    /// Whether a new key that finds no room among keys in use is refused, instead of taking the place of the
    /// one that has used up the least.
    pub deny_when_full: bool,
    /// Whether the rule `default` exists: per caller, or per IP if nobody has signed in, for every
    /// request.
    pub default_rule: bool,
    /// The rule `default`: how many requests in a window.
    pub requests_max: u32,
    /// The rule `default`: the window, up to 31 days.
    #[serde(rename = "window_ms", with = "crate::config_time::millis")]
    pub window: Duration,
    /// The rule `default`: how many may come at once; as many as `requests_max` if not given.
    pub burst: Option<u32>,
    /// The rule `default`: other quotas by tier.
    pub tiers: BTreeMap<String, Quota>,
    /// Further rules.
    pub rules: Vec<Rule>,
    /// All tiers that callers may have, besides `anonymous`. If any are given, a rule for another one is a
    /// fault, and so is a rule without a quota of its own that lacks one of them.
    pub known_tiers: Vec<String>,
    /// Whether callers of the tier `admin` are never limited nor counted.
    pub admin_bypass: bool,
    /// Who is never limited nor counted: addresses, networks (`10.0.0.0/8`), `caller:NAME`, `tenant:NAME`,
    /// or `key:` with the first 32 hexadecimal digits of an API key's SHA-256. Names may be written as they
    /// are, or escaped as the limiter tells them.
    pub allow: Vec<String>,
    /// Who is never let in (403), written like `allow`, over which it wins.
    pub deny: Vec<String>,
    /// How those are banned who do not heed a refusal; nobody is if not given.
    pub penalty: Option<PenaltyConfig>,
    /// How a fleet counts together through Redis, for rules that do not say theirs.
    pub mode: Mode,
    /// How many instances share the quotas while Redis is away, 1 to 10,000: then each grants its part. If not
    /// given, as many as have lately been seen there.
    pub instances: Option<u32>,
    /// The networks of our own proxies, whose word about the client's address is taken:
    /// `10.0.0.0/8`, or an address alone.
    pub trusted_proxies: Vec<String>,
    /// Instead of networks: how many proxies every request has passed, 1 to 16. Only safe where the
    /// service and all but the outermost proxy are out of reach for clients.
    pub trusted_hops: Option<u8>,
    /// The field in which those proxies write the client's address.
    pub proxy_header: ProxyHeader,
    /// How many bits of an IPv6 address stand for one client: 32 to 128.
    pub ipv6_prefix: u8,
    /// Whether `RateLimit-Policy` and `RateLimit` are also in answers to requests that were let through, so that
    /// clients can slow down before they are refused. Refusals always carry them.
    pub quota_headers: bool,
    /// Whether answers that carry these also carry `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds).
    pub legacy_headers: bool,
    /// Whether answers to other origins name the limiter's fields in `Access-Control-Expose-Headers`, without
    /// which a page's script cannot read them.
    pub expose_headers: bool,
    /// Whether CORS preflights are counted. A browser sends them on its own account, and a page
    /// that is refused one cannot read why.
    ///
    /// Any client can write a request that looks like one: a service that does work for `OPTIONS`, such as
    /// one that hands everything on, should count them.
    pub preflight: bool,
}

impl Default for RateLimitConfig {
    /// 600 requests a minute per caller, for up to 100,000 callers (1 MB).
    fn default() -> Self {
        Self {
            enabled: true,
            keys_max: 100_000,
            deny_when_full: false,
            default_rule: true,
            requests_max: 600,
            window: Duration::from_secs(60),
            // Whoever sets `requests_max` alone must get that many at once, and no more.
            burst: None,
            tiers: BTreeMap::new(),
            rules: Vec::new(),
            known_tiers: Vec::new(),
            admin_bypass: false,
            allow: Vec::new(),
            deny: Vec::new(),
            penalty: None,
            mode: Mode::Exact,
            instances: None,
            trusted_proxies: Vec::new(),
            trusted_hops: None,
            proxy_header: ProxyHeader::XForwardedFor,
            ipv6_prefix: 64,
            quota_headers: true,
            legacy_headers: false,
            expose_headers: false,
            preflight: false,
        }
    }
}

impl RateLimitConfig {
    /// Notes every value that cannot be meant. `room` is the name of these settings within the
    /// whole.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        faults.within(format!("{room}.keys_max"), self.keys_max, KEYS_MAX, "keys");
        faults.within(
            format!("{room}.ipv6_prefix"),
            self.ipv6_prefix,
            IPV6_PREFIX,
            "bits",
        );
        let _ = self.proxies(room, faults);
        let _ = self.lists(room, faults);
        if let Some(penalty) = &self.penalty {
            penalty.check(&format!("{room}.penalty"), faults);
        }
        if let Some(instances) = self.instances {
            faults.within(
                format!("{room}.instances"),
                instances,
                INSTANCES,
                "instances",
            );
        }
        self.check_tier_names(room, faults);
        self.check_rules(room, faults);
    }

    /// Notes tiers that cannot be meant, and a bypass that nobody could ever use.
    fn check_tier_names(&self, room: &str, faults: &mut Faults) {
        let mut tiers = BTreeSet::new();
        for (at, tier) in self.known_tiers.iter().enumerate() {
            let field = || format!("{room}.known_tiers[{at}]");
            if !is_tier(tier) {
                let allowed = "must be a tier's name, of 1 to 64 bytes";
                faults.add(field(), format!("{tier:?}"), allowed);
            } else if !tiers.insert(tier.as_str()) {
                faults.add(field(), tier, "is named twice");
            }
        }
        if self.admin_bypass && !tiers.is_empty() && !tiers.contains(TIER_ADMIN) {
            let allowed = "is for callers of the tier admin, which is none of known_tiers";
            faults.add(format!("{room}.admin_bypass"), true, allowed);
        }
    }

    fn check_rules(&self, room: &str, faults: &mut Faults) {
        let mut names = BTreeSet::new();
        if self.default_rule {
            names.insert(DEFAULT_RULE);
            let fields = QuotaFields {
                requests: format!("{room}.requests_max"),
                per: format!("{room}.window_ms"),
                burst: format!("{room}.burst"),
            };
            self.default_quota().check(fields, faults);
            let default = self.default_quota();
            let known = (Some(&default), &*self.known_tiers);
            check_tiers(&self.tiers, known, room, faults);
        } else if !self.tiers.is_empty() {
            let tiers: Vec<&str> = self.tiers.keys().map(String::as_str).collect();
            let allowed = "are tiers of the default rule, which is switched off";
            faults.add(format!("{room}.tiers"), tiers.join(", "), allowed);
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let path = format!("{room}.rules[{at}]");
            rule.check(&path, &self.known_tiers, faults);
            if !names.insert(&rule.name) {
                let allowed = "must be another name than those of all other rules";
                faults.add(format!("{path}.name"), &rule.name, allowed);
            }
        }
    }

    /// Notes every rule whose route is not among `known_routes`; none are known if it is empty.
    pub(crate) fn check_routes(&self, room: &str, known_routes: &[String], faults: &mut Faults) {
        if known_routes.is_empty() {
            return;
        }
        for (at, rule) in self.rules.iter().enumerate() {
            if let Some(route) = &rule.route
                && !known_routes.contains(route)
            {
                let allowed = "unknown route: must be one of the service's path templates";
                faults.add(format!("{room}.rules[{at}].route"), route, allowed);
            }
        }
    }

    /// Whose word about the client's address is taken.
    pub(crate) fn proxies(&self, room: &str, faults: &mut Faults) -> TrustedProxies {
        TrustedProxies::from_config(
            room,
            &self.trusted_proxies,
            self.trusted_hops,
            self.proxy_header,
            faults,
        )
    }

    /// Who is let through or refused whatever the rules say.
    pub(crate) fn lists(&self, room: &str, faults: &mut Faults) -> Lists {
        Lists::from_config(room, &self.allow, &self.deny, self.admin_bypass, faults)
    }

    /// All rules, the one for every request included.
    pub(crate) fn all_rules(&self) -> Vec<Rule> {
        let mut rules = self.rules.clone();
        if self.default_rule {
            let mut default = Rule::new(DEFAULT_RULE, self.default_quota());
            default.tiers.clone_from(&self.tiers);
            rules.push(default);
        }
        rules
    }

    fn default_quota(&self) -> Quota {
        let quota = Quota::requests(self.requests_max).per(self.window);
        self.burst.map_or(quota, |burst| quota.burst(burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &RateLimitConfig) -> Vec<String> {
        let mut faults = Faults::new();
        config.check("rate_limit", &mut faults);
        let found = faults.into_result().err();
        found
            .iter()
            .flat_map(|error| error.faults())
            .map(|fault| fault.field.clone())
            .collect()
    }

    #[test]
    fn the_defaults_are_sound_and_read_from_nothing() {
        let config = RateLimitConfig::default();
        assert_eq!(faults(&config), [""; 0]);
        assert_eq!(
            serde_json::from_str::<RateLimitConfig>("{}").unwrap(),
            config
        );
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<RateLimitConfig>(&text).unwrap(),
            config
        );
        assert!(serde_json::from_str::<RateLimitConfig>(r#"{"window": 1}"#).is_err());
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let minute = Duration::from_secs(60);
        let quota = Quota::requests(1).per(minute);
        let config = RateLimitConfig {
            keys_max: 0,
            requests_max: 0,
            window: Duration::ZERO,
            burst: Some(0),
            tiers: BTreeMap::from([("free".to_owned(), Quota::requests(0).per(minute))]),
            rules: vec![
                Rule::new("a", quota),
                Rule::new("a", quota),
                Rule::new("default", quota),
            ],
            trusted_proxies: vec!["::/0".to_owned()],
            trusted_hops: Some(1),
            ipv6_prefix: 8,
            known_tiers: ["free", " ", "free"].map(str::to_owned).to_vec(),
            admin_bypass: true,
            allow: ["10.0.0.1", "0.0.0.0/0"].map(str::to_owned).to_vec(),
            deny: ["::/0", "10.0.0.1"].map(str::to_owned).to_vec(),
            penalty: Some(PenaltyConfig {
                strikes: 0,
                ..PenaltyConfig::default()
            }),
            instances: Some(0),
            ..RateLimitConfig::default()
        };
        assert_eq!(
            faults(&config),
            [
                "rate_limit.keys_max",
                "rate_limit.ipv6_prefix",
                "rate_limit.trusted_proxies[0]",
                "rate_limit.trusted_hops",
                "rate_limit.allow[1]",
                "rate_limit.deny[0]",
                "rate_limit.allow[0]",
                "rate_limit.penalty.strikes",
                "rate_limit.instances",
                "rate_limit.known_tiers[1]",
                "rate_limit.known_tiers[2]",
                "rate_limit.admin_bypass",
                "rate_limit.requests_max",
                "rate_limit.burst",
                "rate_limit.window_ms",
                "rate_limit.tiers.free.requests",
                "rate_limit.rules[1].name",
                "rate_limit.rules[2].name",
            ]
        );
    }

    #[test]
    fn everything_about_who_and_which_reads_from_a_file_and_comes_back() {
        let config: RateLimitConfig = toml::from_str(
            r#"
            known_tiers = ["free", "pro", "admin"]
            admin_bypass = true
            allow = ["10.0.0.0/8", "caller:probe"]
            deny = ["tenant:acme", "key:992621cb15795f3e17e7e637aad64ef2"]
            penalty = { strikes = 3 }
            mode = "leased"
            instances = 4
            expose_headers = true
            [tiers]
            free = { requests = 1, per_ms = 1000 }
            [[rules]]
            preset = "search"
            route = "/notes/search"
            [[rules]]
            name = "export"
            scope = "api_key"
            cost = "body_bytes"
            quota = { requests = 1000000, per_ms = 60000 }
            "#,
        )
        .unwrap();
        assert_eq!(faults(&config), [""; 0]);
        assert_eq!(config.penalty.unwrap().strikes, 3);
        assert_eq!((config.mode, config.instances), (Mode::Leased, Some(4)));
        assert_eq!(config.rules[0], Rule::search("/notes/search"));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<RateLimitConfig>(&text).unwrap(),
            config
        );
    }

    #[test]
    fn a_tier_that_nobody_knows_is_a_fault_of_every_rule_that_names_it() {
        let quota = Quota::requests(1).per(Duration::from_secs(1));
        let config = RateLimitConfig {
            known_tiers: vec!["free".to_owned()],
            tiers: BTreeMap::from([("fere".to_owned(), quota), ("anonymous".to_owned(), quota)]),
            rules: vec![
                Rule::new("a", quota).tier("pro", quota),
                Rule::by_tier("b", [("anonymous", quota)]),
            ],
            ..RateLimitConfig::default()
        };
        assert_eq!(
            faults(&config),
            [
                "rate_limit.tiers",
                "rate_limit.rules[0].tiers",
                "rate_limit.rules[1].tiers"
            ]
        );
    }

    #[test]
    fn tiers_of_a_rule_that_is_switched_off_contradict() {
        let config = RateLimitConfig {
            default_rule: false,
            requests_max: 0,
            tiers: BTreeMap::from([(
                "free".to_owned(),
                Quota::requests(1).per(Duration::from_secs(1)),
            )]),
            ..RateLimitConfig::default()
        };
        assert_eq!(faults(&config), ["rate_limit.tiers"]);
    }

    #[test]
    fn a_route_that_the_service_does_not_have_is_a_fault_where_its_routes_are_known() {
        let quota = Quota::requests(1).per(Duration::from_secs(1));
        let config = RateLimitConfig {
            rules: vec![
                Rule::new("a", quota).route("/a"),
                Rule::new("b", quota).route("/b"),
            ],
            ..RateLimitConfig::default()
        };
        let mut found = Faults::new();
        config.check_routes("rate_limit", &[], &mut found);
        assert!(found.is_empty());
        config.check_routes("rate_limit", &["/a".to_owned()], &mut found);
        let error = found.into_result().unwrap_err();
        assert_eq!(error.faults().len(), 1);
        assert_eq!(error.faults()[0].field, "rate_limit.rules[1].route");
        assert!(error.faults()[0].allowed.contains("unknown route"));
    }
}
