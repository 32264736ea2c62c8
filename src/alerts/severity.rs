//! How bad an alert is.

use serde::{Deserialize, Serialize};

/// How bad an alert is, the worse the greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody should look at it today.
    #[default]
    Warning,
    /// Somebody should look at it now.
    Critical,
    /// Somebody should be woken.
    Emergency,
}

impl Severity {
    /// `warning`, `critical`, `emergency`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Emergency => "emergency",
        }
    }

    /// The next worse one, if there is one.
    #[must_use]
    pub const fn worse(self) -> Option<Self> {
        match self {
            Self::Warning => Some(Self::Critical),
            Self::Critical => Some(Self::Emergency),
            Self::Emergency => None,
        }
    }
}
