//! What threads share: the standard library's atomics and locks, under one name.
//!
//! The files that take them from here are also built by `tests/models`, which puts in their place those of
//! a model checker and tries every order in which threads may come. Nothing else is different there.

#[cfg(feature = "redis")]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32};
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
pub(crate) use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(feature = "redis")]
pub(crate) use tokio::sync::oneshot;
