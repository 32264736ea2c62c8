//! Whether a database answers.

use ::sqlx::Executor;
use ::sqlx::pool::Pool;

use crate::health::HealthCheck;
use crate::sqlx::database::Database;

impl Database {
    /// A check of the component `name` that asks `pool` for a connection and then `SELECT 1`.
    ///
    /// It takes one of the pool's few connections for as long as that lasts, and fails when there is none in time:
    /// then nobody else gets one either. Its wait and its query, `health.check`, are counted like all others.
    ///
    /// ```
    /// # use tower_keep::{Keep, Profile};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keep = Keep::builder(Profile::azure_b1()).build()?;
    /// let pool = keep.database().sqlite("sqlite::memory:").await?;
    /// keep.add_health_check(keep.database().health_check("database", &pool).required())?;
    /// # Ok(()) }
    /// ```
    pub fn health_check<DB>(&self, name: &'static str, pool: &Pool<DB>) -> HealthCheck
    where
        DB: ::sqlx::Database,
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let (database, pool) = (self.clone(), pool.clone());
        HealthCheck::new(name, move || {
            let (database, pool) = (database.clone(), pool.clone());
            async move {
                let mut connection = database.acquire(&pool).await?;
                let asked = (&mut *connection).execute("SELECT 1");
                database.timed("health.check", asked).await?;
                let (idle, open) = (pool.num_idle(), pool.size());
                let most = database.config().connections_max;
                Ok::<_, ::sqlx::Error>(format!(
                    "answers; {open} of {most} connections open, {idle} idle"
                ))
            }
        })
    }
}
