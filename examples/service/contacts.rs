//! Reading contacts: `GET /contacts?page=&q=` and `GET /contacts/{id}`.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use crate::db::{Crm, like_anywhere};
use crate::page::{Page, PageResult, organization_tag};
use crate::problem::Problem;

/// How many contacts a page of the list holds.
const CONTACTS_PER_PAGE: i64 = 50;
/// Nobody turns this many pages; a number beyond it is a mistake.
const PAGE_MAX: i64 = 100_000;
/// The longest text that is looked for, in characters.
const QUERY_CHARS_MAX: usize = 100;

/// A contact as clients see it.
#[derive(Debug, Serialize)]
pub(crate) struct Contact {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) phone: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) organization: OrganizationName,
    pub(crate) version: i64,
}

/// An organization, as far as it is named on other pages.
#[derive(Debug, Serialize)]
pub(crate) struct OrganizationName {
    pub(crate) id: i64,
    pub(crate) name: String,
}

impl FromRow<'_, SqliteRow> for Contact {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            email: row.try_get("email")?,
            phone: row.try_get("phone")?,
            title: row.try_get("title")?,
            organization: OrganizationName {
                id: row.try_get("organization_id")?,
                name: row.try_get("organization_name")?,
            },
            version: row.try_get("version")?,
        })
    }
}

/// What the list may be asked. Both are text, so that `?page=&q=` is the first page of all contacts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Listing {
    page: String,
    q: String,
}

/// One page of the list.
#[derive(Debug, Serialize)]
pub(crate) struct ContactList {
    page: i64,
    pages: i64,
    total: i64,
    contacts: Vec<Contact>,
}

/// Lists contacts whose name or email contains `q`, fifty a page.
pub(crate) async fn list(
    State(crm): State<Crm>,
    query: Result<Query<Listing>, QueryRejection>,
) -> PageResult<ContactList> {
    let Query(listing) = query?;
    let page = page_number(&listing.page)?;
    let pattern = like_anywhere(query_text(&listing.q)?);
    let count = sqlx::query_scalar(
        r"SELECT count(*) FROM contacts
          WHERE name LIKE ?1 ESCAPE '\' OR email LIKE ?1 ESCAPE '\'",
    )
    .bind(&pattern)
    .fetch_one(&crm.pool);
    let total: i64 = crm.queries.timed("contacts.count", count).await?;
    let rows = sqlx::query_as(
        r"SELECT * FROM contact_pages
          WHERE name LIKE ?1 ESCAPE '\' OR email LIKE ?1 ESCAPE '\'
          ORDER BY id LIMIT ?2 OFFSET ?3",
    )
    .bind(&pattern)
    .bind(CONTACTS_PER_PAGE)
    .bind((page - 1) * CONTACTS_PER_PAGE)
    .fetch_all(&crm.pool);
    let list = ContactList {
        page,
        pages: (total + CONTACTS_PER_PAGE - 1) / CONTACTS_PER_PAGE,
        total,
        contacts: crm.queries.timed("contacts.list", rows).await?,
    };
    // A change to any contact may move any list, so all lists share one tag.
    Ok(Page::new(list, 60).tag("contacts"))
}

/// Shows one contact.
///
/// The page is tagged with its organization although a change purges its path as well:
/// `/contacts/007` is the same contact under another address, and the tag reaches that too.
pub(crate) async fn show(
    State(crm): State<Crm>,
    id: Result<Path<i64>, PathRejection>,
) -> PageResult<Contact> {
    let Path(id) = id?;
    let contact = contact(&crm, id).await?;
    let (version, tag) = (contact.version, organization_tag(contact.organization.id));
    Ok(Page::new(contact, 60).version('c', id, version).tag(tag))
}

/// Reads one contact, or says that there is none.
pub(crate) async fn contact(crm: &Crm, id: i64) -> Result<Contact, Problem> {
    let row = sqlx::query_as("SELECT * FROM contact_pages WHERE id = ?")
        .bind(id)
        .fetch_optional(&crm.pool);
    let found = crm.queries.timed("contacts.show", row).await?;
    found.ok_or_else(|| Problem::not_found("contact", id))
}

/// The text a client looks for, without the blanks around it.
pub(crate) fn query_text(q: &str) -> Result<&str, Problem> {
    let text = q.trim();
    if text.chars().count() > QUERY_CHARS_MAX {
        let detail = format!("q has at most {QUERY_CHARS_MAX} characters");
        return Err(Problem::bad_request(detail));
    }
    Ok(text)
}

fn page_number(page: &str) -> Result<i64, Problem> {
    if page.is_empty() {
        return Ok(1);
    }
    match page.parse() {
        Ok(number @ 1..=PAGE_MAX) => Ok(number),
        _ => {
            let detail = format!("page is a number from 1 to {PAGE_MAX}");
            Err(Problem::bad_request(detail))
        }
    }
}
