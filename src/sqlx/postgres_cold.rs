//! The cold tier in a table of PostgreSQL.
//!
//! Every call is one statement with a fixed text, however many rows it is about: columns travel as arrays.
//! So the driver's cache of prepared statements holds four, there is no limit of parameters to meet, and a
//! call that is dropped leaves no transaction behind.

use std::sync::Arc;

use ::sqlx::AssertSqlSafe;
use ::sqlx::postgres::PgPool;
use bytes::Bytes;

use crate::sqlx::cold::{TableName, failed, in_order, rows, signed, storable};
use crate::tiers::{ColdEntry, ColdError, ColdFuture, ColdStore};

/// A [`ColdStore`] in a table of a PostgreSQL database. Cheap to clone.
///
/// It takes connections from the pool one call at a time and holds none in between. How long a call waits
/// for a connection is the pool's to say; see [`Database::postgres`](crate::sqlx::Database::postgres).
#[derive(Clone, Debug)]
pub struct PostgresCold {
    pool: PgPool,
    load: Arc<str>,
    store: Arc<str>,
    remove: Arc<str>,
    sweep: Arc<str>,
}

impl PostgresCold {
    /// A cold store in the table `keep_cold`, which is made if it is not there, in the first schema of the
    /// connection's search path.
    ///
    /// Several instances may do this at once. Where the table is there already, no right to make one is
    /// needed.
    ///
    /// # Errors
    ///
    /// A database that cannot be reached, or where the table cannot be made.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the table made or not, and nothing else.
    pub async fn new(pool: PgPool) -> Result<Self, ColdError> {
        Self::in_table(pool, &TableName::default()).await
    }

    /// The same in a table of another name: for services that share a database, and not their entries.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub async fn in_table(pool: PgPool, table: &TableName) -> Result<Self, ColdError> {
        create(&pool, table).await.map_err(failed)?;
        Ok(Self {
            pool,
            load: format!(
                "SELECT key, entry FROM \"{table}\" WHERE key = ANY($1) AND until_ms > $2"
            )
            .into(),
            store: format!(
                "INSERT INTO \"{table}\" (key, entry, until_ms) \
                 SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[]) \
                 ON CONFLICT (key) DO UPDATE SET entry = excluded.entry, until_ms = excluded.until_ms"
            )
            .into(),
            // Locked in the order in which `store` locks: see `rows`.
            remove: format!(
                "DELETE FROM \"{table}\" WHERE key IN \
                 (SELECT key FROM \"{table}\" WHERE key = ANY($1) ORDER BY key FOR UPDATE)"
            )
            .into(),
            // Rows that somebody holds are being replaced, or swept by another instance: let them be.
            sweep: format!(
                "DELETE FROM \"{table}\" WHERE until_ms <= $1 AND key IN \
                 (SELECT key FROM \"{table}\" WHERE until_ms <= $1 ORDER BY until_ms LIMIT $2 \
                 FOR UPDATE SKIP LOCKED)"
            )
            .into(),
        })
    }
}

/// Makes the table and its index, unless the table is there.
async fn create(pool: &PgPool, table: &TableName) -> Result<(), ::sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // `IF NOT EXISTS` does not keep two who make the same table at once from failing; this lock does.
    ::sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(CREATING)
        .execute(&mut *transaction)
        .await?;
    // And it asks for the right to make tables, also where there is nothing left to make.
    let is_there: bool = ::sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("\"{table}\""))
        .fetch_one(&mut *transaction)
        .await?;
    if !is_there {
        // Keys are compared byte by byte, so that their order is Rust's, and no new version of a language's
        // rules spoils the index. Frames come compressed: trying again would only cost time.
        let create = format!(
            "CREATE TABLE \"{table}\" (key TEXT COLLATE \"C\" PRIMARY KEY, \
             entry BYTEA NOT NULL, until_ms BIGINT NOT NULL); \
             ALTER TABLE \"{table}\" ALTER COLUMN entry SET STORAGE EXTERNAL; \
             CREATE INDEX \"{table}_until_ms\" ON \"{table}\" (until_ms)"
        );
        ::sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// The number of the lock under which tables are made: "keepcold", read as a number.
const CREATING: i64 = i64::from_be_bytes(*b"keepcold");

impl ColdStore for PostgresCold {
    fn load<'a>(&'a self, keys: &'a [Arc<str>], now_ms: u64) -> ColdFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            let asked = storable(keys);
            if asked.is_empty() {
                return Ok(vec![None; keys.len()]);
            }
            let found = ::sqlx::query_as(AssertSqlSafe(Arc::clone(&self.load)))
                .bind(asked)
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
            let keys: Vec<&str> = rows.iter().map(|row| &*row.key).collect();
            let frames: Vec<&[u8]> = rows.iter().map(|row| &row.bytes[..]).collect();
            let ends: Vec<i64> = rows.iter().map(|row| signed(row.until_ms)).collect();
            let stored = ::sqlx::query(AssertSqlSafe(Arc::clone(&self.store)))
                .bind(keys)
                .bind(frames)
                .bind(ends)
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
                .bind(keys)
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
