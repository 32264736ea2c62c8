//! The warm tier of a crate that is built without Redis: there is none, and so nothing of it is ever called.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::journal::{Stamp, Subject, Verdict};
use crate::store::StoreError;

/// No Redis.
#[derive(Clone, Debug)]
pub(crate) enum Warm {}

/// Nothing was read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) bytes: Option<Bytes>,
    never: Warm,
}

/// Nobody has claimed anything.
#[derive(Debug)]
pub(crate) enum Claimed {
    #[expect(dead_code, reason = "there is no Redis to grant it")]
    Granted(Lease),
    #[expect(dead_code, reason = "there is no Redis to hold it")]
    Held(Duration),
    #[expect(dead_code, reason = "there is no Redis to fill it")]
    Filled,
}

/// No lease.
#[derive(Debug)]
pub(crate) enum Lease {}

impl Read {
    pub(crate) fn verdict(&self, _: Stamp, _: &Subject) -> Verdict {
        match self.never {}
    }
}

impl Warm {
    pub(crate) fn is_up(&self) -> bool {
        match *self {}
    }

    pub(crate) async fn read(&self, _: Arc<str>, _: Option<&str>) -> Result<Read, StoreError> {
        match *self {}
    }

    pub(crate) async fn read_many(
        &self,
        _: &[Arc<str>],
        _: Option<&str>,
    ) -> Result<Vec<Read>, StoreError> {
        match *self {}
    }

    pub(crate) async fn claim(
        &self,
        _: &Arc<str>,
        _: &Arc<str>,
        _: (&[u8], bool),
    ) -> Result<Claimed, StoreError> {
        match *self {}
    }

    pub(crate) async fn fill(
        &self,
        _: &Arc<str>,
        _: Option<Lease>,
        _: (&[u8], Duration, bool),
    ) -> Result<bool, StoreError> {
        match *self {}
    }
}

impl Lease {
    pub(crate) fn tended(self, _: Duration) -> Self {
        match self {}
    }

    pub(crate) fn lasts(&self) -> Duration {
        match *self {}
    }

    pub(crate) async fn extend(&self) -> Result<bool, StoreError> {
        match *self {}
    }
}
