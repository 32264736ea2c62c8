//! Changing contacts: `POST /contacts`, `PUT` and `DELETE /contacts/{id}`.
//!
//! What the rules in `main.rs` cannot know from the path alone, the handlers say: which organization
//! a contact belongs to is only in the database, so they add `Invalidate` to their answers.

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use tower_keep::invalidation::Invalidate;

use crate::contacts::contact;
use crate::db::Crm;
use crate::page::{contact_tag, organization_tag};
use crate::problem::{Fault, Problem};

/// A contact as clients write it. A field that we do not know is an error, not a silent loss.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContactInput {
    organization_id: i64,
    name: String,
    email: String,
    phone: Option<String>,
    title: Option<String>,
}

/// Adds a contact.
pub(crate) async fn create(
    State(crm): State<Crm>,
    input: Result<Json<ContactInput>, JsonRejection>,
) -> Result<Response, Problem> {
    let input = input?.0.checked()?;
    let insert = sqlx::query_scalar(
        "INSERT INTO contacts (organization_id, name, email, phone, title)
         VALUES (?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(input.organization_id)
    .bind(&input.name)
    .bind(&input.email)
    .bind(&input.phone)
    .bind(&input.title)
    .fetch_one(&crm.pool);
    let id: i64 = crm.queries.timed("contacts.create", insert).await?;
    let changed = Extension(Invalidate::tag(&organization_tag(input.organization_id)));
    let location = [(header::LOCATION, format!("/contacts/{id}"))];
    // It is written: whatever becomes of the answer now, what it changed has to be said with it.
    Ok(match contact(&crm, id).await {
        Ok(body) => (StatusCode::CREATED, location, changed, Json(body)).into_response(),
        Err(problem) => (changed, problem).into_response(),
    })
}

/// Replaces a contact.
pub(crate) async fn update(
    State(crm): State<Crm>,
    id: Result<Path<i64>, PathRejection>,
    input: Result<Json<ContactInput>, JsonRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let input = input?.0.checked()?;
    let replace = replace(&crm, id, &input);
    let before: i64 = crm
        .queries
        .timed("contacts.update", replace)
        .await?
        .ok_or_else(|| Problem::not_found("contact", id))?;
    // A contact that moves house changes two organizations' pages; and the rule for this path knows of no other
    // address of the contact, such as /contacts/007.
    let changed = Invalidate::tag(&organization_tag(before))
        .and_tag(&organization_tag(input.organization_id))
        .and_tag(&contact_tag(id));
    // It is written: whatever becomes of the answer now, what it changed has to be said with it.
    Ok((Extension(changed), contact(&crm, id).await.map(Json)).into_response())
}

/// Removes a contact; its opportunities stay, without it.
pub(crate) async fn remove(
    State(crm): State<Crm>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let delete = sqlx::query_scalar("DELETE FROM contacts WHERE id = ? RETURNING organization_id")
        .bind(id)
        .fetch_optional(&crm.pool);
    let organization: i64 = crm
        .queries
        .timed("contacts.remove", delete)
        .await?
        .ok_or_else(|| Problem::not_found("contact", id))?;
    let changed = Invalidate::tag(&organization_tag(organization)).and_tag(&contact_tag(id));
    Ok((StatusCode::NO_CONTENT, Extension(changed)).into_response())
}

/// Writes the row and returns the organization it belonged to before; `None` if there is no such row.
///
/// The transaction takes the write lock at once: one that reads first and writes later can find that
/// somebody else wrote in between, and then SQLite refuses it without waiting.
async fn replace(crm: &Crm, id: i64, input: &ContactInput) -> Result<Option<i64>, sqlx::Error> {
    let mut transaction = crm.pool.begin_with("BEGIN IMMEDIATE").await?;
    let before: Option<i64> =
        sqlx::query_scalar("SELECT organization_id FROM contacts WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await?;
    if before.is_some() {
        input.update(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(before)
}

impl ContactInput {
    fn update(&self, id: i64) -> Query<'_, Sqlite, SqliteArguments> {
        sqlx::query(
            "UPDATE contacts
             SET organization_id = ?, name = ?, email = ?, phone = ?, title = ?,
                 version = version + 1
             WHERE id = ?",
        )
        .bind(self.organization_id)
        .bind(&self.name)
        .bind(&self.email)
        .bind(&self.phone)
        .bind(&self.title)
        .bind(id)
    }

    /// The input without the blanks around its fields, or all that is wrong with it.
    fn checked(mut self) -> Result<Self, Problem> {
        trim(&mut self.name);
        trim(&mut self.email);
        for optional in [&mut self.phone, &mut self.title] {
            if let Some(text) = optional {
                trim(text);
            }
            // An empty text says no more than none.
            if optional.as_deref() == Some("") {
                *optional = None;
            }
        }
        let mut faults = Vec::new();
        let mut need = |holds: bool, field, detail| {
            if !holds {
                faults.push(Fault::new(field, detail));
            }
        };
        need(
            self.organization_id > 0,
            "organization_id",
            "must be the id of an organization",
        );
        need(
            (1..=200).contains(&self.name.chars().count()),
            "name",
            "must have 1 to 200 characters",
        );
        need(
            is_email(&self.email),
            "email",
            "must be an address like ada@example.com",
        );
        need(
            short(self.phone.as_deref(), 40),
            "phone",
            "must have at most 40 characters",
        );
        need(
            short(self.title.as_deref(), 100),
            "title",
            "must have at most 100 characters",
        );
        if faults.is_empty() {
            Ok(self)
        } else {
            Err(Problem::unprocessable(faults))
        }
    }
}

fn trim(text: &mut String) {
    if text.trim().len() != text.len() {
        *text = text.trim().to_owned();
    }
}

fn short(text: Option<&str>, chars_max: usize) -> bool {
    text.is_none_or(|text| text.chars().count() <= chars_max)
}

/// Whether a text has the form of an address. Whether it is one, only a letter to it can tell.
fn is_email(text: &str) -> bool {
    let formed = |(name, host): (&str, &str)| !name.is_empty() && host.contains('.');
    let odd = |letter: char| letter.is_whitespace() || letter.is_control();
    text.len() <= 254 && !text.contains(odd) && text.split_once('@').is_some_and(formed)
}
