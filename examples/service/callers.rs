//! Who is calling: API keys, and the login that gives one out.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tower_keep::identity::{Caller, RequestView};

use crate::problem::Problem;

/// Finds the caller behind `X-Api-Key`. Without a key, or with one that nobody has, a caller is known
/// by its address only, so that guessing keys gains it no quota.
///
/// This runs for every request, so the keys are in memory; a real service would refresh them there.
pub(crate) fn by_api_key() -> impl Fn(&RequestView<'_>) -> Option<Caller> + Send + Sync + 'static {
    let callers = HashMap::from(["basic", "premium", "admin"].map(|tier| {
        (
            format!("{tier}-key"),
            Caller::new(format!("user-{tier}")).tier(tier),
        )
    }));
    move |request| {
        let key = request.headers.get("x-api-key")?.to_str().ok()?;
        callers.get(key).cloned()
    }
}

/// A name and a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    user: String,
    password: String,
}

/// Gives the key of the basic tier to everybody who knows that the password is `demo`.
pub(crate) async fn login(
    credentials: Result<Json<Credentials>, JsonRejection>,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Session {
        user: String,
        api_key: &'static str,
    }
    let Json(credentials) = credentials?;
    if credentials.password != "demo" {
        let detail = "no such user, or another password";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    }
    let session = Json(Session {
        user: credentials.user,
        api_key: "basic-key",
    });
    Ok(([(header::CACHE_CONTROL, "no-store")], session).into_response())
}
