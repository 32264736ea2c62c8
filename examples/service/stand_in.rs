//! Stands in for the crate's upper floors until they are there.
#![expect(
    clippy::unused_self,
    clippy::needless_pass_by_value,
    clippy::unused_async,
    reason = "stand-in"
)]
pub(crate) mod cache {
    #[derive(Clone, Debug)]
    pub(crate) struct CacheTags;
    impl CacheTags {
        pub(crate) fn new(_tags: impl IntoIterator<Item = String>) -> Self {
            Self
        }
    }
}
pub(crate) mod invalidation {
    #[derive(Clone, Debug)]
    pub(crate) struct Invalidate;
    impl Invalidate {
        pub(crate) fn tag(_tag: &str) -> Self {
            Self
        }
        pub(crate) fn and_tag(self, _tag: &str) -> Self {
            self
        }
    }
}
pub(crate) mod identity {
    pub(crate) use ::tower_keep::identity::RequestView;
    #[derive(Clone, Debug)]
    pub(crate) struct Caller;
    impl Caller {
        pub(crate) fn new(_id: &str) -> Self {
            Self
        }
        pub(crate) fn tier(self, _tier: &str) -> Self {
            self
        }
    }
}
pub(crate) mod sqlx {
    use ::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
    #[derive(Clone, Debug)]
    pub(crate) struct Database;
    impl Database {
        pub(crate) async fn sqlite(&self, url: &str) -> Result<::sqlx::SqlitePool, ::sqlx::Error> {
            let options: SqliteConnectOptions = url.parse()?;
            SqlitePoolOptions::new()
                .max_connections(3)
                .connect_with(
                    options
                        .journal_mode(SqliteJournalMode::Wal)
                        .foreign_keys(true),
                )
                .await
        }
        pub(crate) async fn timed<T>(
            &self,
            _name: &'static str,
            query: impl Future<Output = T>,
        ) -> T {
            query.await
        }
    }
}
