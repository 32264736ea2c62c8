//! The example's rules and dashboard name only what a keep really shows.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tower::{Layer, ServiceExt};
use tower_keep::alerts::{AlertRule, AlertsConfig, Comparison, Measure};
use tower_keep::metrics::Metrics;
use tower_keep::{Keep, Profile};

use crate::exports::promtool;
use crate::metrics::record_one_of_each;
use crate::prometheus_text::Scrape;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/observability")
}

fn file(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// What an expression asks for: metrics with the matchers behind them, and the labels it sums by.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    metrics: Vec<(String, Vec<(String, String)>)>,
    by: BTreeSet<String>,
}

impl Asked {
    /// Reads PromQL as far as names go; what stands in quotes is a value.
    fn of(expression: &str) -> Self {
        let mut asked = Self::default();
        let mut rest = expression;
        while let Some(begin) = rest.find(|c: char| is_word(c) || c == '"') {
            rest = &rest[begin..];
            if let Some(text) = rest.strip_prefix('"') {
                rest = text.split_once('"').map_or("", |(_, after)| after);
                continue;
            }
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let word;
            (word, rest) = rest.split_at(end);
            let behind = rest.trim_start();
            if word == "by" && behind.starts_with('(') {
                let (labels, after) = behind[1..].split_once(')').unwrap();
                let labels = labels.split(',').map(|label| label.trim().to_owned());
                asked.by.extend(labels);
                rest = after;
            } else if word.starts_with("keep_") || word.starts_with("keep:") {
                let matchers;
                (matchers, rest) = matchers_of(rest);
                asked.metrics.push((word.to_owned(), matchers));
            }
        }
        asked
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// `{a="b",c=~"d"}` and what comes after it.
fn matchers_of(text: &str) -> (Vec<(String, String)>, &str) {
    let Some(mut rest) = text.strip_prefix('{') else {
        return (Vec::new(), text);
    };
    let mut matchers = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return (matchers, after);
        }
        let (label, after) = rest.split_once('"').unwrap();
        let (value, after) = after.split_once('"').unwrap();
        let equal = label.ends_with('=') && !label.ends_with("!=");
        let value = if equal { value } else { "" };
        let label = label.trim_end_matches(['=', '!', '~']).trim();
        matchers.push((label.to_owned(), value.to_owned()));
        rest = after;
    }
}

#[test]
fn expressions_are_read_for_their_names() {
    let asked =
        Asked::of(r#"sum by (a, le) (rate(keep_x_bucket{le="3.0",job=~"$job"}[5m])) / keep:y > 0"#);
    let matchers = [("le", "3.0"), ("job", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let metrics = vec![
        ("keep_x_bucket".to_owned(), matchers.to_vec()),
        ("keep:y".to_owned(), Vec::new()),
    ];
    let by = ["a", "le"].map(str::to_owned).into();
    assert_eq!(asked, Asked { metrics, by });
}

/// Everything on, every event told, and requests of all classes.
async fn everything() -> Scrape {
    let keep = Keep::builder(Profile::production()).routes(["/a/{b}"]);
    // Nobody is there: its figures are shown all the same.
    #[cfg(feature = "redis")]
    let keep = keep.redis(|redis| redis.url = Some("redis://127.0.0.1:1".into()));
    let keep = keep.build().unwrap();
    let service = tower::service_fn(|request: Request<()>| async move {
        let status = request.uri().path().trim_start_matches("/a/").to_owned();
        let answer = Response::builder().status(&*status);
        let by_cache = match &*status {
            "200" => "keep; hit",
            _ => "keep; fwd=uri-miss",
        };
        let answer = answer.header("cache-status", by_cache);
        Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).unwrap())
    });
    let service = keep.metrics_layer().layer(service);
    for status in [200, 304, 404, 503] {
        let request = Request::builder().uri(format!("/a/{status}"));
        service
            .clone()
            .oneshot(request.body(()).unwrap())
            .await
            .unwrap();
    }
    let metrics: &Metrics = keep.metrics();
    record_one_of_each(metrics);
    let scrape = Scrape::of(&metrics.prometheus());
    keep.shutdown().await;
    scrape
}

/// Prometheus adds these to whatever it scrapes.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

/// Notes what is asked for and is not there.
fn missing(asked: &Asked, scrape: &Scrape, recorded: &BTreeSet<String>) -> Vec<String> {
    let mut missing = Vec::new();
    let mut all: BTreeSet<&str> = OF_THE_TARGET.into();
    for (metric, matchers) in &asked.metrics {
        let Some(labels) = scrape.labels().get(metric) else {
            if !recorded.contains(metric) {
                missing.push(metric.clone());
            }
            continue;
        };
        all.extend(labels.iter().map(String::as_str));
        for (label, value) in matchers {
            let known = OF_THE_TARGET.contains(&&**label) || labels.contains(label);
            let there = || {
                let pair = format!("{label}={value:?}");
                scrape
                    .series(metric)
                    .iter()
                    .any(|series| series.contains(&pair))
            };
            let told = ["le", "status", "outcome"].contains(&&**label) && !value.is_empty();
            if !known || (told && !there()) {
                missing.push(format!("{metric}{{{label}={value:?}}}"));
            }
        }
    }
    let of_sums = asked.by.iter().filter(|label| !all.contains(&***label));
    missing.extend(of_sums.map(|label| format!("by ({label})")));
    missing
}

/// The rules of a file, each with its lines; comments are left out.
fn rules(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let text: Vec<_> = lines.collect();
    let text = text.join("\n");
    text.split("\n      - ")
        .skip(1)
        .map(str::to_owned)
        .collect()
}

fn recorded(rules: &[String]) -> BTreeSet<String> {
    let names = rules
        .iter()
        .filter_map(|rule| rule.strip_prefix("record: "));
    names
        .filter_map(|rule| rule.lines().next())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn the_rules_ask_for_what_is_there() {
    let scrape = everything().await;
    let text = file("keep.rules.yml");
    let rules = rules(&text);
    assert!(rules.len() > 15, "{}", rules.len());
    let recorded = recorded(&rules);
    for rule in &rules {
        let asked = Asked::of(rule);
        let missing = missing(&asked, &scrape, &recorded);
        assert!(missing.is_empty(), "{missing:?} in {rule}");
    }
    // What the rules are tried with has to be what a keep shows, or they are tried with nothing.
    let tried = Asked::of(&file("keep.rules.test.yml").replace('\'', " "));
    assert_eq!(missing(&tried, &scrape, &recorded), Vec::<String>::new());
}

/// Those that only Prometheus can tell, or that no built-in rule watches.
const BESIDES: [&str; 3] = ["KeepDown", "KeepConnectionsRefused", "KeepFilesRunningOut"];

/// `hit_ratio_low` is `KeepHitRatioLow`.
fn alert_name(rule: &AlertRule) -> String {
    let parts = rule.name.split('_').map(|part| {
        let (first, rest) = part.split_at(1);
        first.to_uppercase() + rest
    });
    parts.fold("Keep".to_owned(), |name, part| name + &part)
}

/// What stands behind a field of a rule.
fn field<'a>(rule: &'a str, name: &str) -> &'a str {
    let mut lines = rule.lines().map(str::trim);
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {rule}"))
}

/// How many have to wait for a profile's rule to fire.
fn queue_long(profile: Profile) -> f64 {
    let keep = Keep::builder(profile).build().unwrap();
    let states = keep.alerts().states();
    let found = states.iter().find(|state| &*state.rule == "queue_long");
    found.unwrap().threshold
}

#[tokio::test]
async fn the_alerts_are_the_built_in_ones() {
    let text = file("keep.rules.yml");
    let mut alerts = BTreeMap::new();
    for rule in rules(&text) {
        if let Some(name) = rule.strip_prefix("alert: ") {
            alerts.insert(name.lines().next().unwrap().to_owned(), rule);
        }
    }
    for rule in AlertsConfig::default().in_force() {
        let name = alert_name(&rule);
        let alert = alerts.remove(&name);
        let alert = alert.unwrap_or_else(|| panic!("no {name}"));
        let expression = field(&alert, "expr").to_owned() + " ";
        let side = match rule.comparison {
            Comparison::Above => '>',
            Comparison::Below => '<',
        };
        let limit = match rule.measure {
            // Yes or no.
            Measure::RedisDown | Measure::JournalUnverified => " == 0 ".to_owned(),
            // The file cannot know `guard.queue`.
            Measure::QueueDepth => format!(" {side} {} ", queue_long(Profile::production())),
            _ => format!(" {side} {} ", rule.threshold),
        };
        assert!(expression.contains(&limit), "{limit} in {alert}");
        // How many there have to be, of what the ratio itself is of.
        let guard = (rule.least_count > 0).then(|| format!("5m >= {} ", rule.least_count));
        match guard {
            Some(guard) => assert!(expression.ends_with(&guard), "{guard} in {alert}"),
            None => assert!(!expression.contains(">="), "{alert}"),
        }
        let lasting = rule.lasting.as_secs();
        let lasting = match lasting % 60 {
            0 => format!("{}m", lasting / 60),
            _ => format!("{lasting}s"),
        };
        assert_eq!(field(&alert, "for"), lasting, "{name}");
        assert_eq!(field(&alert, "severity"), rule.severity.name(), "{name}");
    }
    // What the file says of the other profiles.
    assert_eq!(queue_long(Profile::azure_b1()), 102.0);
    assert_eq!(queue_long(Profile::staging()), 160.0);
    let mut left: Vec<_> = alerts.keys().map(String::as_str).collect();
    left.sort_by_key(|name| BESIDES.iter().position(|other| other == name));
    assert_eq!(left, BESIDES);
}

#[tokio::test]
async fn the_dashboard_asks_for_what_is_there() {
    let scrape = everything().await;
    let dashboard: Value = serde_json::from_str(&file("dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    expressions_of(&dashboard, &mut expressions);
    assert!(expressions.len() > 60, "{}", expressions.len());
    let mut shown = BTreeMap::<String, usize>::new();
    for expression in &expressions {
        let asked = Asked::of(expression);
        let missing = missing(&asked, &scrape, &BTreeSet::new());
        assert!(missing.is_empty(), "{missing:?} in {expression}");
        assert!(!asked.metrics.is_empty(), "{expression}");
        for (metric, _) in asked.metrics {
            *shown.entry(metric).or_default() += 1;
        }
    }
    for part in [
        "keep_http_requests_total",
        "keep_http_request_duration_seconds_bucket",
        "keep_cache_hits_total",
        "keep_rate_limit_denied_total",
        "keep_guard_queued",
        "keep_memory_used_bytes",
        "keep_redis_up",
        "keep_journal_verified",
        "keep_database_wait_seconds_bucket",
        "keep_connections_open",
    ] {
        assert!(shown.contains_key(part), "{part}");
    }
}

fn expressions_of(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "definition" => {
                        found.push(text.to_owned())
                    }
                    _ => expressions_of(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions_of(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard: Value = serde_json::from_str(&file("dashboard.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource");
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        }
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "two panels at {x}, {y}");
            }
        }
    }
}

/// Where Prometheus' own tool is installed, it has the last word.
#[test]
fn prometheus_takes_the_files_and_the_alerts_fire() {
    let path = |name: &str| folder().join(name).to_str().unwrap().to_owned();
    for arguments in [
        ["check", "rules", &path("keep.rules.yml")],
        ["check", "config", &path("prometheus.yml")],
        ["test", "rules", &path("keep.rules.test.yml")],
    ] {
        if let Some((right, said)) = promtool(&arguments, "") {
            assert!(right, "promtool {arguments:?} says: {said}");
        }
    }
}
