//! The slow page: `GET /reports/sales/{organization_id}`.
//!
//! The sums are real SQL over the opportunities. The rest of the slowness is modelled, and plainly
//! so: `REMOTE_WORK` stands for the exchange rates, credit checks and forecasts that reports in
//! real systems wait for.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;

use crate::contacts::OrganizationName;
use crate::db::Crm;
use crate::page::{Page, PageResult, contact_tag, organization_tag};
use crate::problem::Problem;

/// How long the services that a report would ask take to answer. A model, not work: see the top.
const REMOTE_WORK: Duration = Duration::from_millis(150);

/// Sales of one organization.
#[derive(Debug, Serialize)]
pub(crate) struct SalesReport {
    organization: OrganizationName,
    months: Vec<MonthAndStage>,
    largest_open: Vec<OpenDeal>,
}

#[derive(Debug, Serialize)]
struct MonthAndStage {
    month: String,
    stage: String,
    deals: i64,
    amount_cents: i64,
    largest_cents: i64,
}

#[derive(Debug, Serialize)]
struct OpenDeal {
    title: String,
    stage: String,
    amount_cents: i64,
    closes_on: String,
    contact: Option<String>,
    #[serde(skip)]
    contact_id: Option<i64>,
}

/// Reports an organization's sales by month and stage.
pub(crate) async fn sales(
    State(crm): State<Crm>,
    id: Result<Path<i64>, PathRejection>,
) -> PageResult<SalesReport> {
    let Path(id) = id?;
    let read = read(&crm, id);
    let report = crm
        .queries
        .timed("reports.sales", read)
        .await?
        .ok_or_else(|| Problem::not_found("organization", id))?;
    tokio::time::sleep(REMOTE_WORK).await;
    // A deal stays with its organization when the person behind it moves on to another one.
    let people: Vec<i64> = report
        .largest_open
        .iter()
        .filter_map(|deal| deal.contact_id)
        .collect();
    let page = Page::new(report, 300).tag(organization_tag(id));
    Ok(people
        .into_iter()
        .fold(page, |page, person| page.tag(contact_tag(person))))
}

async fn read(crm: &Crm, id: i64) -> Result<Option<SalesReport>, sqlx::Error> {
    let mut snapshot = crm.pool.begin().await?;
    let name: Option<String> = sqlx::query_scalar("SELECT name FROM organizations WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut *snapshot)
        .await?;
    let Some(name) = name else {
        return Ok(None);
    };
    let sums: Vec<(String, String, i64, i64, i64)> = sqlx::query_as(
        "SELECT substr(closes_on, 1, 7) AS month, stage,
                count(*), sum(amount_cents), max(amount_cents)
         FROM opportunities WHERE organization_id = ?
         GROUP BY month, stage ORDER BY month, stage",
    )
    .bind(id)
    .fetch_all(&mut *snapshot)
    .await?;
    let open: Vec<(String, String, i64, String, Option<String>, Option<i64>)> = sqlx::query_as(
        "SELECT d.title, d.stage, d.amount_cents, d.closes_on, c.name, c.id
         FROM opportunities d LEFT JOIN contacts c ON c.id = d.contact_id
         WHERE d.organization_id = ? AND d.stage NOT IN ('won', 'lost')
         ORDER BY d.amount_cents DESC, d.id LIMIT 5",
    )
    .bind(id)
    .fetch_all(&mut *snapshot)
    .await?;
    Ok(Some(SalesReport {
        organization: OrganizationName { id, name },
        months: sums.into_iter().map(MonthAndStage::from_row).collect(),
        largest_open: open.into_iter().map(OpenDeal::from_row).collect(),
    }))
}

impl MonthAndStage {
    fn from_row(
        (month, stage, deals, amount_cents, largest_cents): (String, String, i64, i64, i64),
    ) -> Self {
        Self {
            month,
            stage,
            deals,
            amount_cents,
            largest_cents,
        }
    }
}

impl OpenDeal {
    fn from_row(
        (title, stage, amount_cents, closes_on, contact, contact_id): (
            String,
            String,
            i64,
            String,
            Option<String>,
            Option<i64>,
        ),
    ) -> Self {
        Self {
            title,
            stage,
            amount_cents,
            closes_on,
            contact,
            contact_id,
        }
    }
}
