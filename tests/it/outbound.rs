//! Remote quotas.
