//! Who may look closer, and change things.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// The settings of the operator's endpoints. The token shows up in no error, log or `Debug` output; like the
/// password of Redis it is written by `KeepConfig::to_value`, which is there to be read again.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// What a request for details or for a change has to bring along: `Authorization: Bearer` and this. 16 to
    /// 512 visible ASCII characters, for instance by `openssl rand -hex 32`; `KEEP_ADMIN_TOKEN` in the
    /// environment. Without it, and without a closure
    /// ([`KeepBuilder::admin_auth`](crate::KeepBuilder::admin_auth)), there are no such endpoints.
    pub token: Option<String>,
}

impl AdminConfig {
    /// Notes a token that could be guessed, or that no request can bring along.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        if self.token.is_some() && self.fit_token().is_none() {
            let allowed = format!("must be {TOKEN_MIN} to {TOKEN_MAX} visible ASCII characters");
            faults.add(format!("{room}.token"), "(hidden)", allowed);
        }
    }

    /// The token, if it is one that cannot be guessed and can be brought along.
    pub(crate) fn fit_token(&self) -> Option<&str> {
        let is_fit = |token: &&str| {
            (TOKEN_MIN..=TOKEN_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        self.token.as_deref().filter(is_fit)
    }
}

impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminConfig")
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .finish()
    }
}

/// At one guess in a nanosecond, 16 letters and digits hold out for a million million years.
const TOKEN_MIN: usize = 16;

/// So that comparing a guess costs next to nothing.
pub(crate) const TOKEN_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_could_be_guessed_or_sent_by_nobody_is_a_fault_that_does_not_show_it() {
        for (token, fits) in [
            (None, true),
            (Some("0123456789abcdef".to_owned()), true),
            (Some("x".repeat(512)), true),
            (Some(String::new()), false),
            (Some("0123456789abcde".to_owned()), false),
            (Some("0123456789 abcdef".to_owned()), false),
            (Some("0123456789abcdéf".to_owned()), false),
            (Some("0123456789abcdef\n".to_owned()), false),
            (Some("x".repeat(513)), false),
        ] {
            let config = AdminConfig { token };
            let mut faults = Faults::new();
            config.check("admin", &mut faults);
            let found = faults.into_result();
            assert_eq!(config.fit_token().is_some(), fits && config.token.is_some());
            assert_eq!(found.is_ok(), fits, "{:?}", config.token);
            let shown = format!("{config:?} {found:?}");
            assert!(!shown.contains("0123456789"), "{shown}");
        }
    }
}
