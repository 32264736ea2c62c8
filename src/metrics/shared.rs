//! What all routes share.

use std::time::Duration;

use crate::clock::Clock;
use crate::metrics::config::MetricsConfig;
use crate::metrics::slow::SlowRequests;

/// The clock, and what the settings say of every request.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) slow_request: Duration,
    pub(crate) server_timing: bool,
    pub(crate) response_time: bool,
    /// Whether there is a cache behind the layer that says in `Cache-Status` what it did.
    pub(crate) cache_tells: bool,
    pub(crate) slow: SlowRequests,
}

impl Shared {
    pub(crate) fn new(config: &MetricsConfig, clock: Clock) -> Self {
        Self {
            clock,
            slow_request: config.slow_request,
            server_timing: config.server_timing,
            response_time: config.response_time,
            cache_tells: true,
            slow: SlowRequests::new(config.slow_requests_kept),
        }
    }
}
