//! Reading organizations: `GET /organizations/{id}`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;

use crate::db::Crm;
use crate::page::{Page, PageResult, organization_tag};
use crate::problem::Problem;

/// An organization with the people there.
#[derive(Debug, Serialize)]
pub(crate) struct Organization {
    id: i64,
    name: String,
    industry: String,
    city: String,
    contacts: Vec<Person>,
    version: i64,
}

#[derive(Debug, Serialize)]
struct Person {
    id: i64,
    name: String,
    title: Option<String>,
}

/// Shows one organization.
pub(crate) async fn show(
    State(crm): State<Crm>,
    id: Result<Path<i64>, PathRejection>,
) -> PageResult<Organization> {
    let Path(id) = id?;
    let read = read(&crm, id);
    let organization = crm
        .queries
        .timed("organizations.show", read)
        .await?
        .ok_or_else(|| Problem::not_found("organization", id))?;
    let version = organization.version;
    Ok(Page::new(organization, 60)
        .version('o', id, version)
        .tag(organization_tag(id)))
}

/// Both reads see one state of the database, so that the version is that of the people listed.
async fn read(crm: &Crm, id: i64) -> Result<Option<Organization>, sqlx::Error> {
    let mut snapshot = crm.pool.begin().await?;
    let row: Option<(String, String, String, i64)> =
        sqlx::query_as("SELECT name, industry, city, version FROM organizations WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut *snapshot)
            .await?;
    let Some((name, industry, city, version)) = row else {
        return Ok(None);
    };
    let people: Vec<(i64, String, Option<String>)> = sqlx::query_as(
        "SELECT id, name, title FROM contacts WHERE organization_id = ? ORDER BY name, id",
    )
    .bind(id)
    .fetch_all(&mut *snapshot)
    .await?;
    let contacts = people
        .into_iter()
        .map(|(id, name, title)| Person { id, name, title })
        .collect();
    Ok(Some(Organization {
        id,
        name,
        industry,
        city,
        contacts,
        version,
    }))
}
