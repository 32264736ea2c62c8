//! The engine: what remotes are known to allow.

use std::borrow::Cow;
use std::sync::Arc;

use http::Request;

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::identity::RequestView;
use crate::outbound::clearance::{Clearance, UnderWay};
use crate::outbound::config::QuotaConfig;
use crate::outbound::desk::Desk;
use crate::outbound::names::RemoteNames;
use crate::outbound::remotes::Remotes;
use crate::outbound::standing::RemoteStanding;

/// The quotas of remote services, learned from what they answer. Cheap to clone; all clones share what
/// they know. See the [module](crate::outbound).
///
/// A [`QuotaLayer`](crate::outbound::QuotaLayer) asks it for a client made of Tower services. Without
/// one:
///
/// ```
/// # use tower_keep::clock::Clock;
/// # use tower_keep::event::Events;
/// # use tower_keep::outbound::{QuotaConfig, RemoteQuota};
/// # async fn send() -> Result<http::Response<()>, std::io::Error> { Ok(http::Response::new(())) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let quota = RemoteQuota::new(&QuotaConfig::default(), Clock::system(), Events::none())?;
///
/// let under_way = quota.ask("api.example.com").granted().await.map_err(|no| no.to_string())?;
/// match send().await {
///     Ok(response) => under_way.answered(response.status(), response.headers()),
///     Err(_) => under_way.failed(),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RemoteQuota {
    enabled: bool,
    names: RemoteNames,
    pub(crate) desk: Arc<Desk>,
    pub(crate) remotes: Arc<Remotes>,
}

impl RemoteQuota {
    /// An engine that knows nothing yet. Waits are timed by Tokio.
    ///
    /// # Errors
    ///
    /// Names every setting that cannot be meant.
    pub fn new(config: &QuotaConfig, clock: Clock, events: Events) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("outbound", &mut faults);
        faults.into_result()?;
        Ok(Self {
            enabled: config.enabled,
            names: RemoteNames::default(),
            desk: Arc::new(Desk::new(config, clock, events)),
            remotes: Arc::new(Remotes::new(config.remotes_max)),
        })
    }

    /// Says which remote a request goes to, instead of its host and port: where one host has several
    /// quotas (for each token, for each resource), or several hosts have one. Requests of which it says
    /// `None` are sent untouched. The name's first 255 bytes count.
    ///
    /// The name is shown in events and refusals, and in Redis if it is shared: no secrets.
    #[must_use]
    pub fn remotes<F>(mut self, name: F) -> Self
    where
        F: for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        self.names = RemoteNames::by(name);
        self
    }

    /// Asks whether a request may be sent to the remote of this name. If it may, it is counted at once.
    ///
    /// Must be called within a Tokio runtime with time, for the case that it has to wait.
    pub fn ask(&self, remote: &str) -> Clearance {
        if self.enabled {
            Clearance::of(self.remotes.at(remote, &self.desk))
        } else {
            Clearance::Go(UnderWay::uncounted())
        }
    }

    /// Asks for a request.
    pub(crate) fn ask_for<B>(&self, request: &Request<B>) -> Clearance {
        match self.names.of(request) {
            Some(remote) if self.enabled => self.ask(&remote),
            _ => Clearance::Go(UnderWay::uncounted()),
        }
    }

    /// What is known of the remote of this name, if it is kept in mind.
    #[must_use]
    pub fn standing(&self, remote: &str) -> Option<RemoteStanding> {
        self.remotes.find(remote).map(|remote| remote.standing())
    }

    /// How many remotes are kept in mind.
    #[must_use]
    pub fn known(&self) -> usize {
        self.remotes.len()
    }

    /// How many requests wait, for all remotes together.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.desk.waiting()
    }
}
