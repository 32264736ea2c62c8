//! The smallest service with a keep around it: one slow page, cached and limited.
//!
//! `cargo run --example minimal`, then, twice: `curl -i http://127.0.0.1:3000/slow`

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::response::IntoResponse;
use axum::{Router, http::header, routing::get};
use tower_keep::{Keep, Profile};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keep = Keep::builder(Profile::from_env()).env().build()?;
    let app = Router::new()
        .route("/slow", get(slow))
        .layer(keep.layer())
        .into_make_service_with_connect_info::<SocketAddr>();

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stopping = keep.clone();
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            tokio::signal::ctrl_c().await.unwrap_or_default();
            stopping.drain();
        })
        .await?;
    keep.shutdown().await;
    Ok(())
}

/// The handler says how long its answer holds; the keep does the rest.
async fn slow() -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(500)).await;
    (
        [(header::CACHE_CONTROL, "public, max-age=60")],
        "worth waiting for\n",
    )
}
