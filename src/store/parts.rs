//! What a pool stands on.

use std::sync::Arc;

use crate::clock::Clock;
use crate::event::Events;
use crate::store::credentials::CredentialsProvider;
use crate::store::script::Script;
use crate::task::Spawner;

/// What a pool stands on.
#[derive(Clone)]
pub struct StoreParts {
    /// Measures round trips and windows.
    pub clock: Clock,
    /// Hears when Redis comes and goes.
    pub events: Events,
    /// Runs the supervisor, which ends with its owner.
    pub spawner: Spawner,
    /// The scripts that will be called.
    pub scripts: Vec<&'static Script>,
    /// Where user and password come from, if they expire; else they are in the settings.
    pub credentials: Option<Arc<dyn CredentialsProvider>>,
}

impl StoreParts {
    /// The machine's clock; nobody listens, no scripts, and the login of the settings.
    #[must_use]
    pub fn new(spawner: Spawner) -> Self {
        Self {
            clock: Clock::system(),
            events: Events::none(),
            spawner,
            scripts: Vec::new(),
            credentials: None,
        }
    }
}
