//! User names and passwords that expire, such as the tokens of Microsoft Entra ID on Azure.
//!
//! A service hands a [`CredentialsProvider`] to
//! [`KeepBuilder::redis_credentials`](crate::KeepBuilder::redis_credentials). It is asked before the first
//! connection and again whenever the last answer is due for renewal; open connections then log in anew
//! without being closed.
//!
//! ```
//! use std::pin::Pin;
//! use std::time::Duration;
//!
//! use tower_keep::store::{Credentials, CredentialsError, CredentialsProvider};
//!
//! struct ManagedIdentity {
//!     object_id: String,
//! }
//!
//! impl CredentialsProvider for ManagedIdentity {
//!     fn fetch(
//!         &self,
//!     ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + '_>> {
//!         Box::pin(async {
//!             let (token, lifetime) = fetch_token("https://redis.azure.com/.default")
//!                 .await
//!                 .map_err(|error| CredentialsError::new(error.to_string()))?;
//!             // A quarter of its life is left for trying again, should the next request fail.
//!             Ok(Credentials::new(&self.object_id, token).refresh_after(lifetime / 4 * 3))
//!         })
//!     }
//! }
//! # async fn fetch_token(_: &str) -> Result<(String, Duration), std::fmt::Error> {
//! #     Ok((String::new(), Duration::ZERO))
//! # }
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Knows the user name and password to log in with, and fetches new ones when asked.
///
/// # Contract
///
/// - `fetch` may be called at any time, one call at a time. It is called from the background, never by a
///   request.
/// - It answers with credentials that are valid now. Handing out the same ones again is fine while they
///   are: keeping them in memory is not needed, because nobody asks before
///   [`refresh_after`](Credentials::refresh_after) has passed, except after the server refused them.
/// - The future may be dropped at any await, and is after 10 seconds. That counts as a failure.
/// - After a failure the credentials from before stay in use, and the next call comes after a pause that
///   grows from 1 second to 1 minute.
/// - It does not panic, and no secret stands in the words of its error.
pub trait CredentialsProvider: Send + Sync + 'static {
    /// Fetches credentials that are valid now.
    fn fetch(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + '_>>;
}

/// A user name and a password or token. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) refresh_after: Option<Duration>,
}

impl Credentials {
    /// Credentials that do not expire. The server's default user is called `default`.
    #[must_use]
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
            refresh_after: None,
        }
    }

    /// Asks for others after `time`, which should be well before these expire; at least 1 second passes.
    #[must_use]
    pub const fn refresh_after(mut self, time: Duration) -> Self {
        self.refresh_after = Some(time);
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("refresh_after", &self.refresh_after)
            .finish_non_exhaustive()
    }
}

/// Why there are no credentials. The words are shown in health and in a warning, so they hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialsError(String);

impl CredentialsError {
    /// An error of these words.
    #[must_use]
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_show_when_they_are_renewed_and_nothing_else() {
        let credentials = Credentials::new("somebody", "secret");
        let shown = format!("{:?}", credentials.refresh_after(Duration::from_secs(9)));
        assert!(shown.contains("9s"), "{shown}");
        assert!(!shown.contains("somebody") && !shown.contains("secret"));
    }
}
