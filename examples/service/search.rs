//! Finding by name: `GET /search?q=`.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use crate::contacts::{Contact, OrganizationName, query_text};
use crate::db::{Crm, like_anywhere};
use crate::page::{Page, PageResult};
use crate::problem::Problem;

/// How many of each kind are shown.
const FOUND_MAX: i64 = 20;

/// What to look for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Search {
    q: String,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    q: String,
    contacts: Vec<Contact>,
    organizations: Vec<OrganizationName>,
}

/// Finds contacts and organizations whose name contains `q`.
///
/// The page has no tag: a rule in `main.rs` purges `/search*` as a whole, because which searches a
/// changed name would be found by cannot be told.
pub(crate) async fn search(
    State(crm): State<Crm>,
    query: Result<Query<Search>, QueryRejection>,
) -> PageResult<Found> {
    let Query(search) = query?;
    let q = query_text(&search.q)?;
    if q.chars().count() < 2 {
        return Err(Problem::bad_request("q needs 2 characters or more"));
    }
    let pattern = like_anywhere(q);
    let contacts = sqlx::query_as(
        r"SELECT * FROM contact_pages WHERE name LIKE ? ESCAPE '\' ORDER BY name, id LIMIT ?",
    )
    .bind(&pattern)
    .bind(FOUND_MAX)
    .fetch_all(&crm.pool);
    let contacts = crm.queries.timed("search.contacts", contacts).await?;
    let organizations = sqlx::query_as(
        r"SELECT id, name FROM organizations WHERE name LIKE ? ESCAPE '\' ORDER BY name, id LIMIT ?",
    )
    .bind(&pattern)
    .bind(FOUND_MAX)
    .fetch_all(&crm.pool);
    let organizations: Vec<(i64, String)> = crm
        .queries
        .timed("search.organizations", organizations)
        .await?;
    let found = Found {
        q: q.to_owned(),
        contacts,
        organizations: organizations
            .into_iter()
            .map(|(id, name)| OrganizationName { id, name })
            .collect(),
    };
    Ok(Page::new(found, 30))
}
