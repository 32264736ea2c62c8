//! A small customer file (CRM) on SQLite, behind the whole stack.
//!
//! ```text
//! cargo run --release --example service
//! REDIS_URL=redis://127.0.0.1:6379 cargo run --release --example service
//! KEEP_ADMIN_TOKEN=open-sesame-please cargo run --release --example service  # http://127.0.0.1:3000/admin/dashboard
//! ```
//!
//! All that the crate has to do with it is in this file: the lines of `run` that build a `Keep`
//! and put its layer around the routes, and the two lists of rules below. The other files are the
//! service: handlers that say `Cache-Control`, name tags, and know nothing of layers.
//!
//! With `REDIS_URL` there is a pool of connections to Redis, watched over: rate limits are counted there, by
//! all instances together, what one changes no other serves (`pair.sh`), and the service has commands of its own
//! (`visits.rs`). What one instance has fetched the others find there.

mod callers;
mod contacts;
mod db;
mod edits;
mod organizations;
mod page;
mod problem;
mod reports;
mod search;
mod seed;
mod server;
mod visits;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::routing::{get, post};
use tower_keep::alerts::{Alert, AlertError};
use tower_keep::guard::{Criticality, GuardConfig, GuardRule};
use tower_keep::invalidation::{InvalidationConfig, InvalidationRule};
use tower_keep::rate_limit::{Quota, RateLimitConfig, Rule, Scope};
use tower_keep::{Keep, Profile};

use crate::db::Crm;
use crate::visits::Visits;

#[tokio::main]
async fn main() -> ExitCode {
    // Printed by hand, because what `main` returns is printed for programmers.
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    // What the environment says comes last, so that an operator can overrule what is written here.
    let keep = Keep::builder(Profile::from_env())
        .routes(ROUTES)
        .callers(callers::by_api_key())
        .guard(places)
        .rate_limit(quotas)
        .invalidation(consequences)
        // Or a `Webhook`, which takes any HTTP client.
        .on_alert(async |alert: Alert| {
            let (severity, turn) = (alert.severity.name(), alert.state.name());
            eprintln!("{severity} {turn}: {}", alert.detail);
            Ok::<(), AlertError>(())
        })
        .env()
        .build()?;
    let crm = Crm::open(keep.database()).await?;
    let app = routes(crm.clone(), Visits::new(keep.redis().clone()))
        .layer(keep.layer())
        // They must be answered when everything else is refused, so they stand outside.
        .merge(keep.probe_router())
        .nest("/admin", keep.admin_router());

    let stopping = keep.clone();
    let served = server::serve(app, move || stopping.drain()).await;
    keep.shutdown().await;
    crm.close().await;
    Ok(served?)
}

/// The routes that rules may speak of: with them, a rule for a mistyped one stops the start.
const ROUTES: [&str; 7] = [
    "/contacts",
    "/contacts/{id}",
    "/organizations/{id}",
    "/reports/sales/{organization_id}",
    "/search",
    "/login",
    "/visits",
];

/// Who is served first where not everybody can be: reports are for the office and can wait, and four at once are
/// all that the database should bear.
fn places(guard: &mut GuardConfig) {
    let report = GuardRule::new("/reports/sales/{organization_id}");
    guard.rules = vec![
        report
            .criticality(Criticality::Sheddable)
            .slots(4)
            .queue(16),
        GuardRule::new("/login").criticality(Criticality::Critical),
    ];
}

/// How often who may ask: a rule for everybody, by tier, and two for what costs more.
fn quotas(limits: &mut RateLimitConfig) {
    let minute = Duration::from_secs(60);
    let per_minute = |count| Quota::requests(count).per(minute);
    // Callers without a key, by their address.
    (limits.requests_max, limits.window, limits.burst) = (300, minute, None);
    for (tier, count) in [("basic", 60), ("premium", 600), ("admin", 6_000)] {
        limits.tiers.insert(tier.to_owned(), per_minute(count));
    }
    // By address whoever is signed in, so that nobody guesses passwords faster for having a key.
    let login = Rule::new("login", per_minute(5)).route("/login");
    limits
        .rules
        .push(login.methods([Method::POST]).scope(Scope::Ip));
    let report = Rule::new("report", per_minute(30)).route("/reports/sales/{organization_id}");
    limits.rules.push(report);
}

/// What a change makes old, as far as its path tells; the rest the handlers say (`edits.rs`).
fn consequences(changes: &mut InvalidationConfig) {
    changes.rules = vec![
        InvalidationRule::new("/contacts/{id}")
            .methods(["PUT", "DELETE"])
            .paths(["/contacts/{{id}}"])
            .tags(["contacts", "contact:{{id}}"])
            .patterns(["/search*"]),
        InvalidationRule::new("/contacts")
            .methods(["POST"])
            .tags(["contacts"])
            .patterns(["/search*"]),
    ];
}

fn routes(crm: Crm, visits: Visits) -> Router {
    let counter = Router::new().route("/visits", get(visits::count));
    Router::new()
        .route("/contacts", get(contacts::list).post(edits::create))
        .route(
            "/contacts/{id}",
            get(contacts::show).put(edits::update).delete(edits::remove),
        )
        .route("/organizations/{id}", get(organizations::show))
        .route("/reports/sales/{organization_id}", get(reports::sales))
        .route("/search", get(search::search))
        .route("/login", post(callers::login))
        .merge(counter.with_state(visits))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        // No body that this service understands is larger.
        .layer(DefaultBodyLimit::max(16 * 1024))
        .with_state(crm)
}
