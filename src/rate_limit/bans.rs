//! Heeds the bans that other instances have spoken.

use std::sync::Weak;

use crate::rate_limit::ban_talk::{Heard, Said, understand};
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
        let Some(ledger) = self.ledger.upgrade() else {
            return;
        };
        let Some(penalties) = &ledger.penalties else {
            return;
        };
        let payload = match push {
            Push::Message { payload, .. } => payload,
            // What was said until now was missed. There is no list of bans to go through: whoever is banned
            // and comes is asked about.
            Push::Subscribed { .. } => return penalties.miss(),
            _ => return,
        };
        let Some(Heard { speaker, said }) = understand(payload) else {
            return;
        };
        match said {
            _ if ledger.is_speaker(speaker) => {}
            Said::Ban { who, lasts } => ledger.heed_ban(who, lasts),
            Said::Pardon { who } => ledger.heed_pardon(who),
        }
    }
}
