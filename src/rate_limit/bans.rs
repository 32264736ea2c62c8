//! Heeds the bans that other instances have spoken.

use std::sync::Weak;

use crate::rate_limit::ban_talk::{Said, understand};
use crate::rate_limit::ledger::Ledger;
use crate::store::{Push, PushSink};

/// Notes in the ledger what is said of bans.
#[derive(Debug)]
pub(crate) struct BanSink {
    /// Weak, because the ledger has the pool, and the pool has this.
    pub(crate) ledger: Weak<Ledger>,
}

impl PushSink for BanSink {
    fn push(&self, push: Push<'_>) {
        let Push::Message { payload, .. } = push else {
            return;
        };
        let Some(ledger) = self.ledger.upgrade() else {
            return;
        };
        let Some(penalties) = &ledger.penalties else {
            return;
        };
        match understand(payload) {
            Some(Said::Ban { who, lasts }) => {
                penalties.ban(ledger.client(who), lasts, ledger.now());
            }
            Some(Said::Pardon { who }) => {
                penalties.pardon(ledger.client(who), ledger.now());
            }
            None => {}
        }
    }
}
