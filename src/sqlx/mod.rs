//! Database pools with a small host's numbers, and queries that are timed.
//!
//! The pools are `sqlx`'s own, so everything that works on them works here; this room only sets
//! their numbers, and measures what a caller names. With the feature `sqlx-sqlite`:
//!
//! ```
//! # use tower_keep::{clock::Clock, database::DatabaseConfig, event::Events};
//! use tower_keep::sqlx::Database;
//!
//! # #[cfg(feature = "sqlx-sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let database = Database::new(&DatabaseConfig::default(), Clock::system(), Events::none())?;
//! let pool = database.sqlite("sqlite::memory:").await?;
//! let query = sqlx::query_scalar("SELECT 6 * 7").fetch_one(&pool);
//! let answer: i64 = database.timed("answer", query).await?;
//! assert_eq!(answer, 42);
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlx-sqlite"))]
//! # fn main() {}
//! ```

mod cold;
mod database;
mod health;
#[cfg(feature = "sqlx-postgres")]
mod postgres;
#[cfg(feature = "sqlx-postgres")]
mod postgres_cold;
#[cfg(feature = "sqlx-sqlite")]
mod sqlite;
#[cfg(feature = "sqlx-sqlite")]
mod sqlite_cold;

pub use cold::TableName;
pub use database::Database;
#[cfg(feature = "sqlx-postgres")]
pub use postgres_cold::PostgresCold;
#[cfg(feature = "sqlx-sqlite")]
pub use sqlite_cold::SqliteCold;
