//! Remote quotas.

mod clearance;
mod config;
mod desk;
#[cfg(feature = "redis")]
mod exchange;
mod fields;
mod future;
mod layer;
#[cfg(feature = "redis")]
mod lease;
mod ledger;
mod line;
mod list;
mod names;
#[cfg(feature = "redis")]
mod news;
mod quota;
mod remote;
mod remotes;
mod service;
mod standing;
#[cfg(feature = "redis")]
mod sync;
#[cfg(feature = "redis")]
mod ward;

pub use clearance::{Clearance, UnderWay, Waiting};
pub use config::QuotaConfig;
pub use future::QuotaFuture;
pub use layer::QuotaLayer;
pub use quota::RemoteQuota;
pub use service::QuotaService;
pub use standing::RemoteStanding;
#[cfg(feature = "redis")]
pub use sync::SCRIPTS;
