//! SQLite pools.

use ::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};

use crate::sqlx::database::Database;

impl Database {
    /// A SQLite pool's numbers, for callers who set more of them.
    #[must_use]
    pub fn sqlite_options(&self) -> SqlitePoolOptions {
        self.pool_options()
    }

    /// A pool for `url` (`sqlite:crm.db?mode=rwc`), with its first connection made.
    ///
    /// Readers do not wait for the writer (write-ahead log, unless the URL says `mode=ro`), foreign
    /// keys hold, and whoever finds the database locked waits for it as long as for a connection.
    /// The file must lie on a local disk: the log does not work on a network share, which `/home` of
    /// an App Service is.
    ///
    /// A database in memory (`sqlite::memory:`) lives as long as its connection, so it gets a pool of
    /// one connection that never grows old.
    ///
    /// # Errors
    ///
    /// A URL that is none, a file that cannot be opened.
    pub async fn sqlite(&self, url: &str) -> Result<SqlitePool, ::sqlx::Error> {
        let mut connect = url
            .parse::<SqliteConnectOptions>()?
            .foreign_keys(true)
            .busy_timeout(self.config().acquire_timeout);
        let mut pool = self.sqlite_options();
        match Place::of(url) {
            Place::Memory => {
                pool = pool.max_connections(1).min_connections(1);
                pool = pool.idle_timeout(None).max_lifetime(None);
            }
            Place::File => connect = connect.journal_mode(SqliteJournalMode::Wal),
            Place::FixedFile => {}
        }
        pool.connect_with(connect).await
    }
}

/// Where the database of a URL lies.
#[derive(Debug, PartialEq)]
enum Place {
    Memory,
    File,
    /// A file that is not written to, so that its journal mode cannot be changed either.
    FixedFile,
}

impl Place {
    fn of(url: &str) -> Self {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let says = |setting| query.split('&').any(|pair| pair == setting);
        if path.ends_with(":memory:") || says("mode=memory") {
            Self::Memory
        } else if says("mode=ro") || says("immutable=true") || says("immutable=1") {
            Self::FixedFile
        } else {
            Self::File
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::Clock;
    use crate::database::DatabaseConfig;
    use crate::event::Events;

    use super::*;

    fn database(change: impl FnOnce(&mut DatabaseConfig)) -> Database {
        let mut config = DatabaseConfig::default();
        change(&mut config);
        Database::new(&config, Clock::system(), Events::none()).unwrap()
    }

    async fn pragma(pool: &SqlitePool, name: &'static str) -> String {
        let sql = match name {
            "journal_mode" => "SELECT journal_mode FROM pragma_journal_mode",
            "foreign_keys" => "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys",
            _ => "SELECT CAST(timeout AS TEXT) FROM pragma_busy_timeout",
        };
        ::sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
    }

    /// A path that is gone again at the end of the test.
    struct TempFile(std::path::PathBuf);

    impl TempFile {
        fn new(name: &str) -> Self {
            let file = format!("tower-keep-{}-{name}.db", std::process::id());
            Self(std::env::temp_dir().join(file))
        }

        fn url(&self, mode: &str) -> String {
            format!("sqlite:{}?mode={mode}", self.0.display())
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            for suffix in ["", "-wal", "-shm"] {
                let mut path = self.0.clone().into_os_string();
                path.push(suffix);
                let _ = std::fs::remove_file(path);
            }
        }
    }

    #[test]
    fn where_a_database_lies_is_read_from_its_url() {
        for (url, place) in [
            ("sqlite::memory:", Place::Memory),
            ("sqlite://:memory:", Place::Memory),
            ("sqlite:shared?cache=shared&mode=memory", Place::Memory),
            ("sqlite:a.db", Place::File),
            ("sqlite:///var/a.db?mode=rwc", Place::File),
            ("sqlite:a.db?mode=ro", Place::FixedFile),
            ("sqlite:a.db?immutable=1", Place::FixedFile),
        ] {
            assert_eq!(Place::of(url), place, "{url}");
        }
    }

    #[tokio::test]
    async fn a_file_gets_the_profiles_numbers() {
        let file = TempFile::new("numbers");
        let database = database(|config| config.acquire_timeout = Duration::from_millis(1500));
        let pool = database.sqlite(&file.url("rwc")).await.unwrap();
        assert_eq!(pragma(&pool, "journal_mode").await, "wal");
        assert_eq!(pragma(&pool, "foreign_keys").await, "1");
        assert_eq!(pragma(&pool, "busy_timeout").await, "1500");
        assert_eq!(pool.options().get_max_connections(), 3);
        assert_eq!(
            pool.options().get_acquire_timeout(),
            Duration::from_millis(1500)
        );
        assert_eq!(
            pool.options().get_idle_timeout(),
            Some(Duration::from_secs(300))
        );
        assert_eq!(
            pool.options().get_max_lifetime(),
            Some(Duration::from_secs(1800))
        );
        pool.close().await;
    }

    #[tokio::test]
    async fn foreign_keys_hold_on_every_connection() {
        let file = TempFile::new("keys");
        let database = database(|_| {});
        let pool = database.sqlite(&file.url("rwc")).await.unwrap();
        let schema = "CREATE TABLE a (id INTEGER PRIMARY KEY); \
                      CREATE TABLE b (a INTEGER REFERENCES a (id))";
        ::sqlx::raw_sql(schema).execute(&pool).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut connection = pool.acquire().await.unwrap();
            let orphan = ::sqlx::query("INSERT INTO b VALUES (7)").execute(&mut *connection);
            let error = database.timed("orphan", orphan).await.unwrap_err();
            assert!(
                error
                    .as_database_error()
                    .unwrap()
                    .is_foreign_key_violation(),
                "{error}"
            );
            held.push(connection);
        }
        drop(held);
        pool.close().await;
    }

    #[tokio::test]
    async fn a_full_pool_says_no_within_the_timeout() {
        let file = TempFile::new("full");
        let database = database(|config| config.connections_max = 1);
        let pool = database.sqlite(&file.url("rwc")).await.unwrap();
        let held = pool.acquire().await.unwrap();
        // Paused only now: the timeout bounds the making of a connection too, which takes real time.
        tokio::time::pause();
        let second = tokio::time::timeout(Duration::from_secs(4), pool.acquire());
        let error = second.await.unwrap().unwrap_err();
        tokio::time::resume();
        assert!(matches!(error, ::sqlx::Error::PoolTimedOut), "{error}");
        drop(held);
        pool.close().await;
    }

    #[tokio::test]
    async fn a_database_in_memory_outlives_every_timeout() {
        let database = database(|_| {});
        let pool = database.sqlite("sqlite::memory:").await.unwrap();
        assert_eq!(pool.options().get_max_connections(), 1);
        assert_eq!(pool.options().get_idle_timeout(), None);
        assert_eq!(pool.options().get_max_lifetime(), None);
        ::sqlx::raw_sql("CREATE TABLE t (x)")
            .execute(&pool)
            .await
            .unwrap();
        let count = ::sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&pool);
        let count: i64 = database.timed("count", count).await.unwrap();
        assert_eq!(count, 0);
    }

    #[tokio::test]
    async fn a_file_can_be_read_only_and_must_exist_unless_asked_for() {
        let file = TempFile::new("fixed");
        let database = database(|_| {});
        assert!(database.sqlite(&file.url("rw")).await.is_err());
        assert!(database.sqlite("postgres://localhost/x").await.is_err());
        // Made with a rollback journal, so that asking for the log would be a write.
        let made: SqliteConnectOptions = file.url("rwc").parse().unwrap();
        let made = SqlitePoolOptions::new().connect_with(made).await.unwrap();
        ::sqlx::raw_sql("CREATE TABLE t (x)")
            .execute(&made)
            .await
            .unwrap();
        made.close().await;
        let pool = database.sqlite(&file.url("ro")).await.unwrap();
        let write = ::sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&pool)
            .await;
        assert!(write.is_err());
        pool.close().await;
    }
}
