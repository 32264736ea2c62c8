//! The database: one SQLite file, its schema, and what every query has in common.

use std::path::{Path, PathBuf};

use sqlx::SqlitePool;
use tower_keep::sqlx::Database;

use crate::seed;

/// The customers' file: a pool of connections, and the keep's stopwatch for queries. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Crm {
    /// Connections, as many as the profile says: three on a small host.
    pub(crate) pool: SqlitePool,
    /// Times queries by name, so that `/metrics` shows them and slow ones are told.
    pub(crate) queries: Database,
    file: PathBuf,
    /// A file that was made for this run goes away with it.
    temporary: bool,
}

impl Crm {
    /// Opens `DATABASE_PATH`, or a temporary file without it, and fills it if it is empty.
    ///
    /// # Errors
    ///
    /// Those of the file system and of SQLite.
    pub(crate) async fn open(queries: &Database) -> Result<Self, sqlx::Error> {
        let named = std::env::var_os("DATABASE_PATH").filter(|path| !path.is_empty());
        let temporary = named.is_none();
        let file = named.map_or_else(temporary_file, PathBuf::from);
        if temporary {
            // A process that was killed may have left its file, and its number may be ours now.
            remove(&file);
        }
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let crm = Self {
            pool: queries.sqlite(&url).await?,
            queries: queries.clone(),
            file,
            temporary,
        };
        crm.fill().await?;
        Ok(crm)
    }

    /// The schema and the seed in one transaction: the file is either filled or as it was.
    async fn fill(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let filled: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *transaction)
            .await?;
        if filled != 0 {
            return Ok(());
        }
        sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
        seed::fill(&mut transaction).await?;
        sqlx::raw_sql(AFTER_SEED).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Closes the connections, and removes the file if it was made for this run.
    pub(crate) async fn close(self) {
        self.pool.close().await;
        if self.temporary {
            remove(&self.file);
        }
    }
}

/// A text as a `LIKE` pattern that finds it anywhere, for `LIKE ? ESCAPE '\'`: in what a user typed,
/// `%` and `_` are a percent sign and an underscore.
pub(crate) fn like_anywhere(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

fn temporary_file() -> PathBuf {
    std::env::temp_dir().join(format!("tower-keep-crm-{}.sqlite", std::process::id()))
}

/// Removes the file and the two that SQLite keeps beside it. What is not there need not go.
fn remove(file: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(end);
        let _ = std::fs::remove_file(PathBuf::from(path));
    }
}

/// Ids of contacts are never given twice (`AUTOINCREMENT`): an `ETag` made of id and version names one
/// state of one contact for ever.
const TABLES: &str = "
CREATE TABLE organizations (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    industry TEXT NOT NULL,
    city TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE TABLE contacts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id INTEGER NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE,
    phone TEXT,
    title TEXT,
    version INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE TABLE opportunities (
    id INTEGER PRIMARY KEY,
    organization_id INTEGER NOT NULL REFERENCES organizations (id),
    contact_id INTEGER REFERENCES contacts (id) ON DELETE SET NULL,
    title TEXT NOT NULL,
    stage TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    closes_on TEXT NOT NULL
) STRICT;
CREATE VIEW contact_pages AS
    SELECT c.id, c.name, c.email, c.phone, c.title, c.version, c.organization_id,
           o.name AS organization_name
    FROM contacts c JOIN organizations o ON o.id = c.organization_id;
";

/// Indexes and triggers come after the rows, because building them once is cheaper than keeping them
/// for each row. An organization's page lists its contacts, so its version moves with theirs; a
/// trigger sees to that, so that no query can forget it.
const AFTER_SEED: &str = "
CREATE INDEX contacts_by_organization ON contacts (organization_id);
CREATE INDEX opportunities_by_organization ON opportunities (organization_id, closes_on);
CREATE INDEX opportunities_by_contact ON opportunities (contact_id);
CREATE TRIGGER contact_added AFTER INSERT ON contacts BEGIN
    UPDATE organizations SET version = version + 1 WHERE id = new.organization_id;
END;
CREATE TRIGGER contact_changed AFTER UPDATE ON contacts BEGIN
    UPDATE organizations SET version = version + 1
    WHERE id IN (old.organization_id, new.organization_id);
END;
CREATE TRIGGER contact_removed AFTER DELETE ON contacts BEGIN
    UPDATE organizations SET version = version + 1 WHERE id = old.organization_id;
END;
PRAGMA user_version = 1;
";
