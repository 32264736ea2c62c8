//! PostgreSQL pools.

use ::sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::sqlx::database::Database;

impl Database {
    /// A PostgreSQL pool's numbers, for callers who set more of them or want
    /// `connect_lazy`, which waits for no server.
    #[must_use]
    pub fn postgres_options(&self) -> PgPoolOptions {
        self.pool_options()
    }

    /// A pool for `url` (`postgres://user:password@host/name`), with its first connection made.
    ///
    /// # Errors
    ///
    /// A URL that is none; a server that cannot be reached within `acquire_timeout`, or that refuses.
    pub async fn postgres(&self, url: &str) -> Result<PgPool, ::sqlx::Error> {
        let connect: PgConnectOptions = url.parse()?;
        self.postgres_options().connect_with(connect).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::Clock;
    use crate::database::DatabaseConfig;
    use crate::event::Events;

    use super::*;

    fn database() -> Database {
        let config = DatabaseConfig {
            acquire_timeout: Duration::from_millis(200),
            ..DatabaseConfig::default()
        };
        Database::new(&config, Clock::system(), Events::none()).unwrap()
    }

    #[test]
    fn a_pool_gets_the_profiles_numbers() {
        let options = database().postgres_options();
        assert_eq!(options.get_max_connections(), 3);
        assert_eq!(options.get_min_connections(), 0);
        assert_eq!(options.get_acquire_timeout(), Duration::from_millis(200));
        assert_eq!(options.get_idle_timeout(), Some(Duration::from_secs(300)));
        assert_eq!(options.get_max_lifetime(), Some(Duration::from_secs(1800)));
        assert!(options.get_test_before_acquire());
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up_in_time() {
        // Bound and never accepted: the connection is made by the kernel and then nothing comes.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "postgres://keep@{}/crm?sslmode=disable",
            silent.local_addr().unwrap()
        );
        let error = database().postgres(&url).await.unwrap_err();
        assert!(matches!(error, ::sqlx::Error::PoolTimedOut), "{error}");
        assert!(database().postgres("sqlite::memory:").await.is_err());
    }
}
