//! The cold tier in a table of SQLite.
//!
//! Every call is one statement with a fixed text, however many rows it is about: keys travel as one JSON
//! array, frames as one string of bytes with their places in it. So the driver's cache of prepared statements
//! holds four, and a call that is dropped leaves no transaction behind.

use std::sync::Arc;

use ::sqlx::AssertSqlSafe;
use ::sqlx::sqlite::SqlitePool;
use bytes::Bytes;

use crate::sqlx::cold::{TableName, failed, in_order, rows, signed, storable};
use crate::tiers::{ColdEntry, ColdError, ColdFuture, ColdStore};

/// A [`ColdStore`] in a table of a SQLite database. Cheap to clone.
///
/// It takes connections from the pool one call at a time and holds none in between. How long a call waits
/// for a connection, or for another writer, is the pool's to say; see
/// [`Database::sqlite`](crate::sqlx::Database::sqlite).
#[derive(Clone, Debug)]
pub struct SqliteCold {
    pool: SqlitePool,
    load: Arc<str>,
    store: Arc<str>,
    remove: Arc<str>,
    sweep: Arc<str>,
}

impl SqliteCold {
    /// A cold store in the table `keep_cold`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// A database that cannot be reached, or where the table cannot be made.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the table made or not, and nothing else.
    pub async fn new(pool: SqlitePool) -> Result<Self, ColdError> {
        Self::in_table(pool, &TableName::default()).await
    }

    /// The same in a table of another name: for services that share a database, and not their entries.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub async fn in_table(pool: SqlitePool, table: &TableName) -> Result<Self, ColdError> {
        let create = format!(
            "CREATE TABLE IF NOT EXISTS \"{table}\" (key TEXT NOT NULL PRIMARY KEY, \
             entry BLOB NOT NULL, until_ms INTEGER NOT NULL); \
             CREATE INDEX IF NOT EXISTS \"{table}_until_ms\" ON \"{table}\" (until_ms)"
        );
        let created = ::sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool);
        created.await.map_err(failed)?;
        Ok(Self {
            pool,
            load: format!(
                "SELECT key, entry FROM \"{table}\" \
                 WHERE key IN (SELECT value FROM json_each(?1)) AND until_ms > ?2"
            )
            .into(),
            // `WHERE true`, or SQLite would take `ON CONFLICT` for the condition of a join.
            store: format!(
                "INSERT INTO \"{table}\" (key, entry, until_ms) \
                 SELECT json_extract(value, '$[0]'), \
                 substr(?2, json_extract(value, '$[1]'), json_extract(value, '$[2]')), \
                 json_extract(value, '$[3]') FROM json_each(?1) WHERE true \
                 ON CONFLICT (key) DO UPDATE SET entry = excluded.entry, until_ms = excluded.until_ms"
            )
            .into(),
            remove: format!(
                "DELETE FROM \"{table}\" WHERE key IN (SELECT value FROM json_each(?1))"
            )
            .into(),
            sweep: format!(
                "DELETE FROM \"{table}\" WHERE rowid IN \
                 (SELECT rowid FROM \"{table}\" WHERE until_ms <= ?1 ORDER BY until_ms LIMIT ?2)"
            )
            .into(),
        })
    }
}

impl ColdStore for SqliteCold {
    fn load<'a>(&'a self, keys: &'a [Arc<str>], now_ms: u64) -> ColdFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            let asked = storable(keys);
            if asked.is_empty() {
                return Ok(vec![None; keys.len()]);
            }
            let found = ::sqlx::query_as(AssertSqlSafe(Arc::clone(&self.load)))
                .bind(json(&asked)?)
                .bind(signed(now_ms))
                .fetch_all(&self.pool);
            Ok(in_order(keys, found.await.map_err(failed)?))
        })
    }

    fn store<'a>(&'a self, entries: &'a [ColdEntry]) -> ColdFuture<'a, ()> {
        Box::pin(async move {
            let rows = rows(entries);
            if rows.is_empty() {
                return Ok(());
            }
            let mut frames = Vec::with_capacity(rows.iter().map(|row| row.bytes.len()).sum());
            let mut places = Vec::with_capacity(rows.len());
            for row in &rows {
                // `substr` counts from one.
                let begin = frames.len() + 1;
                frames.extend_from_slice(&row.bytes);
                places.push((&*row.key, begin, row.bytes.len(), signed(row.until_ms)));
            }
            let stored = ::sqlx::query(AssertSqlSafe(Arc::clone(&self.store)))
                .bind(json(&places)?)
                .bind(frames)
                .execute(&self.pool);
            stored.await.map_err(failed)?;
            Ok(())
        })
    }

    fn remove<'a>(&'a self, keys: &'a [Arc<str>]) -> ColdFuture<'a, ()> {
        Box::pin(async move {
            let keys = storable(keys);
            if keys.is_empty() {
                return Ok(());
            }
            let removed = ::sqlx::query(AssertSqlSafe(Arc::clone(&self.remove)))
                .bind(json(&keys)?)
                .execute(&self.pool);
            removed.await.map_err(failed)?;
            Ok(())
        })
    }

    fn sweep<'a>(&'a self, now_ms: u64, most: u32) -> ColdFuture<'a, u64> {
        Box::pin(async move {
            let swept = ::sqlx::query(AssertSqlSafe(Arc::clone(&self.sweep)))
                .bind(signed(now_ms))
                .bind(i64::from(most))
                .execute(&self.pool);
            Ok(swept.await.map_err(failed)?.rows_affected())
        })
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, ColdError> {
    serde_json::to_string(value).map_err(ColdError::new)
}

#[cfg(test)]
mod tests {
    use ::sqlx::sqlite::SqlitePoolOptions;

    use super::*;

    #[tokio::test]
    async fn no_call_reads_the_whole_table() {
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect("sqlite::memory:").await.unwrap();
        let store = SqliteCold::new(pool.clone()).await.unwrap();
        for sql in [&store.load, &store.store, &store.remove, &store.sweep] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan = ::sqlx::query_as(AssertSqlSafe(explain)).fetch_all(&pool);
            let plan: Vec<(i64, i64, i64, String)> = plan.await.unwrap();
            let steps: Vec<String> = plan.into_iter().map(|(.., step)| step).collect();
            let scans = steps.iter().any(|step| step == "SCAN keep_cold");
            assert!(!scans && !steps.is_empty(), "{sql}: {steps:#?}");
        }
    }
}
