//! What can go wrong with what is kept of reports.

use crate::store::StoreError;

/// Why a baseline could not be kept, found or compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A baseline's name has 1 to 64 letters, digits, dots, dashes and underscores.
    #[error("{0:?} is no name of a baseline: 1 to 64 letters, digits, `.`, `-` and `_`")]
    Name(String),
    /// Redis did not take or give it.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is kept under this name is no baseline.
    #[error("what is kept is no baseline: {0}")]
    Unreadable(String),
    /// The baseline is of a version that this one does not know.
    #[error("a baseline of version {0}, and only up to {1} are known")]
    Version(u32, u32),
    /// Without Redis there are as many as there may be.
    #[error("there are {0} baselines already, which without Redis is the limit")]
    Full(usize),
}
