//! Values of a type of your own, cached: computed once, purged by tag, apart for each tenant, served stale while
//! they are made anew. It says what happens, and ends by itself.
//!
//! `cargo run --example typed_cache`, in memory; with `REDIS_URL=redis://127.0.0.1:6379` in Redis as well, where
//! a second run finds what the first one has computed.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_keep::clock::Clock;
use tower_keep::journal::JournalStatus;
use tower_keep::tiers::{CacheError, Cached, Computed, EntryOptions, TypedCache};
use tower_keep::{Keep, Profile};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Report {
    week: u8,
    sales: u64,
}

/// A database that takes its time.
#[derive(Clone, Default)]
struct Database(Arc<AtomicU64>);

impl Database {
    async fn report(self, week: u8) -> Result<Computed<Report>, CacheError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sales = u64::from(week) * 1_000;
        let report = Report { week, sales };
        // Only now is it known what it depends on.
        Ok(Computed::new(report).tag(format!("week:{week}")))
    }

    fn asked(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keep = Keep::builder(Profile::from_env())
        // The first instance of a fleet waits a second for those that were before, until its purges are certain.
        .journal(|journal| journal.acknowledge_within = Duration::from_secs(5))
        .env()
        .build()?;
    // A service does not wait for Redis: whatever comes before is computed, and kept in memory.
    if keep.redis().watch().until_up().await {
        while keep.journal().status() != JournalStatus::Verified {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let reports = keep
        .cache::<Report>("report")
        .options(EntryOptions::dashboard().tag("reports"));
    let database = Database::default();
    computing(&reports, &database).await?;
    purging(&reports, &database).await?;
    tenants(&reports, &database).await?;
    stale(&reports, &database).await?;
    many(&reports, &database).await?;

    let stats = keep.cache_stats();
    println!(
        "in all: {} hits in memory, {} in Redis, {} computed, {} stale; {:?} of computing saved",
        stats.hits_hot, stats.hits_warm, stats.computed, stats.served_stale, stats.saved
    );
    keep.shutdown().await;
    Ok(())
}

/// What a service asks for, wherever it needs a report: where it comes from is none of its business.
async fn report(
    reports: &TypedCache<Report>,
    database: &Database,
    week: u8,
) -> Result<Cached<Report>, CacheError> {
    let database = database.clone();
    let options = EntryOptions::new();
    let compute = move || database.report(week);
    reports
        .get_or_compute(("weekly", week), &options, compute)
        .await
}

/// A hundred callers at once: one asks the database, and the next one finds the value in memory.
async fn computing(reports: &TypedCache<Report>, database: &Database) -> Result<(), CacheError> {
    let clock = Clock::system();
    let began = clock.now();
    let all = (0..100).map(|_| report(reports, database, 7));
    for found in futures_util::future::join_all(all).await {
        assert_eq!(found?.week, 7);
    }
    let took = clock.now().since(began);
    println!(
        "100 callers at once: {} computed in {} ms",
        database.asked(),
        took.as_millis()
    );
    let began = clock.now();
    let found = report(reports, database, 7).await?;
    let took = clock.now().since(began);
    println!("again: sales of {} in {took:?}", found.sales);
    Ok(())
}

/// Whoever changes something says so, and nobody is served what was computed before.
async fn purging(reports: &TypedCache<Report>, database: &Database) -> Result<(), Box<dyn Error>> {
    let before = database.asked();
    reports.purge(("weekly", 7)).await?;
    report(reports, database, 7).await?;
    println!("purged by its key: {} computed", database.asked() - before);
    let before = database.asked();
    reports.purge_tag("week:7").await?;
    report(reports, database, 7).await?;
    println!("purged by its tag: {} computed", database.asked() - before);
    Ok(())
}

/// The same key means something else for each tenant, and what one purges the other keeps.
async fn tenants(reports: &TypedCache<Report>, database: &Database) -> Result<(), Box<dyn Error>> {
    let (acme, globex) = (reports.for_tenant("acme"), reports.for_tenant("globex"));
    let one = report(&acme, database, 7).await?;
    let other = report(&globex, database, 7).await?;
    println!("two tenants: a value for each {}", !one.ptr_eq(&other));
    acme.purge_all().await?;
    println!(
        "one has purged: it has a value {}, the other {}",
        acme.peek(("weekly", 7)).is_some(),
        globex.peek(("weekly", 7)).is_some()
    );
    Ok(())
}

/// Past its life it is served at once, and computed anew behind the caller's back.
async fn stale(reports: &TypedCache<Report>, database: &Database) -> Result<(), Box<dyn Error>> {
    let first = report(reports, database, 8).await?;
    // As if its five minutes were over.
    reports.expire(("weekly", 8)).await?;
    let second = report(reports, database, 8).await?;
    println!("expired: still served {}", second.ptr_eq(&first));
    while report(reports, database, 8).await?.ptr_eq(&first) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("a moment later there is a new one");
    Ok(())
}

/// Many with one question.
async fn many(reports: &TypedCache<Report>, database: &Database) -> Result<(), Box<dyn Error>> {
    for week in 1..=3 {
        report(reports, database, week).await?;
    }
    let asked = (1..=5_u8).map(|week| ("weekly", week));
    let found = reports.get_many(asked).await;
    let weeks: Vec<u8> = found.iter().flatten().map(|report| report.week).collect();
    println!("of the weeks 1 to 5 there are {weeks:?}");
    Ok(())
}
