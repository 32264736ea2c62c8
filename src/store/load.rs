//! Makes a server know the scripts.

use std::time::Duration;

use crate::store::classify::Failure;
use crate::store::library::{Dialect, Library};
use crate::store::link::Link;
use crate::store::status::DownReason;

/// Loads the scripts, as functions where the server has them and lets us.
pub(crate) async fn load(
    link: &Link,
    library: &Library,
    limit: Duration,
) -> Result<Dialect, DownReason> {
    if library.is_empty() {
        return Ok(Dialect::Functions);
    }
    for dialect in [Dialect::Functions, Dialect::Scripts] {
        match load_as(link, library, dialect, limit).await? {
            Loaded::Yes => return Ok(dialect),
            Loaded::NotHere => {}
        }
    }
    // What needs no script works all the same, and a call says why it does not.
    tracing::warn!(target: "tower_keep", "redis takes the scripts neither as functions nor as scripts");
    Ok(Dialect::Scripts)
}

/// Whether this server takes scripts in a dialect.
pub(crate) enum Loaded {
    Yes,
    NotHere,
}

/// Loads all scripts in one dialect; also when the server has lost them.
pub(crate) async fn load_as(
    link: &Link,
    library: &Library,
    dialect: Dialect,
    limit: Duration,
) -> Result<Loaded, DownReason> {
    for cmd in library.load(dialect) {
        match link.one(&cmd, limit).await {
            Ok(_) => {}
            Err(Failure {
                trip: Some(reason), ..
            }) => return Err(reason),
            Err(Failure { error, .. }) => {
                let library = library.name();
                tracing::debug!(target: "tower_keep", library, ?dialect, %error, "not loaded");
                return Ok(Loaded::NotHere);
            }
        }
    }
    Ok(Loaded::Yes)
}
