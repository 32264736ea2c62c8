//! A small customer file (CRM) on SQLite, behind the whole stack.
//!
//! ```text
//! cargo run --release --example service --features axum,sqlx-sqlite
//! ```
//!
//! Everything the crate has to do with it is in this file: the ten lines of [`main`] that build a
//! [`Keep`] and put its layer around the routes, and the rules below them. The other files are the
//! service itself: handlers which say `Cache-Control`, name tags, and know nothing of layers.

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
mod stand_in;

use std::error::Error;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::db::Crm;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The ten lines. All faults of the configuration come at once, and before anything runs.
    let crm = Crm::open(&tower_keep::sqlx::Database::new(&Default::default(), Default::default(), tower_keep::event::Events::none())?).await?;
    let app = routes(crm.clone());

    server::serve(app).await?;
    crm.close().await;
    Ok(())
}

fn routes(crm: Crm) -> Router {
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
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        // No body that this service understands is larger.
        .layer(DefaultBodyLimit::max(16 * 1024))
        .with_state(crm)
}
