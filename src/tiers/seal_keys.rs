//! The keys that entries are sealed with.
//!
//! ```
//! use tower_keep::tiers::SealKeys;
//!
//! // From a secret store or the environment: `openssl rand -base64 32`. The first key seals, all open.
//! let keys: SealKeys = "2:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=, \
//!                       1:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
//!     .parse()?;
//! assert_eq!(keys.ids().collect::<Vec<_>>(), [2, 1]);
//! assert_eq!(format!("{keys:?}"), "SealKeys { ids: [2, 1] }");
//! assert!("1:too short".parse::<SealKeys>().is_err());
//! # Ok::<(), tower_keep::error::ConfigError>(())
//! ```
//!
//! # Rotation
//!
//! Deploy the new key behind the old one (`1:old, 2:new`), so that every instance can open what it seals;
//! then in front (`2:new, 1:old`); and once the longest lifetime has passed, without the old one. An entry
//! whose key is gone is a miss and costs a computation, nothing else, so a key that leaked can be dropped
//! at once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

use crate::error::ConfigError;

/// One to 16 keys of 32 bytes, by their ids. The first one seals, all of them open.
///
/// As text they are `id:key, id:key`, each key in base64 (either alphabet, padded or not) or as 64 hexadecimal
/// digits. They can be read by serde, from such a text, and not written; `Debug` shows the ids. They are
/// wiped from memory when dropped, which does not reach copies that a configuration's reader has made.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKeys {
    keys: Vec<(u32, Zeroizing<[u8; KEY_LEN]>)>,
}

impl SealKeys {
    /// A single key, which seals and opens. It should be 32 bytes of a random generator, never a password.
    ///
    /// The id is stored with every entry and says nothing of the key; an id is never given to another key.
    #[must_use]
    pub fn new(id: u32, key: [u8; 32]) -> Self {
        Self {
            keys: vec![(id, Zeroizing::new(key))],
        }
    }

    /// The same keys, and one more that only opens.
    ///
    /// # Errors
    ///
    /// If there is a key with this id, or there are 16.
    pub fn also_opening(mut self, id: u32, key: [u8; 32]) -> Result<Self, ConfigError> {
        if self.ids().any(|other| other == id) {
            return Err(fault(id, "must be the id of one key only"));
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(fault(id, "must be one of at most 16 keys"));
        }
        self.keys.push((id, Zeroizing::new(key)));
        Ok(self)
    }

    /// The ids, that of the sealing key first.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.keys.iter().map(|(id, _)| *id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8; KEY_LEN])> {
        self.keys.iter().map(|(id, key)| (*id, &**key))
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u32> = self.ids().collect();
        f.debug_struct("SealKeys").field("ids", &ids).finish()
    }
}

/// # Errors
///
/// Names what is wrong with which key, and never quotes one.
impl FromStr for SealKeys {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut keys: Option<Self> = None;
        for one in text.split(',') {
            let (id, key) = one
                .trim()
                .split_once(':')
                .ok_or_else(|| fault("(hidden)", "must read `id:key, id:key`"))?;
            let id: u32 = id
                .trim()
                .parse()
                .map_err(|_| fault("(hidden)", "must begin with an id, 0 to 4294967295"))?;
            let key = key_of(key.trim())
                .ok_or_else(|| fault(id, "must be 32 bytes, in base64 or hexadecimal"))?;
            // What stands in examples and is left there by mistake.
            if key.iter().all(|byte| *byte == key[0]) {
                return Err(fault(id, "must be random: `openssl rand -base64 32`"));
            }
            keys = Some(match keys {
                None => Self::new(id, *key),
                Some(keys) => keys.also_opening(id, *key)?,
            });
        }
        keys.ok_or_else(|| fault("(none)", "must be one key at least"))
    }
}

impl<'de> Deserialize<'de> for SealKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(de::Error::custom)
    }
}

fn fault(id: impl fmt::Display, allowed: &str) -> ConfigError {
    ConfigError::one("seal_keys", id, allowed)
}

fn key_of(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let bits = if text.len() == 2 * KEY_LEN { 4 } else { 6 };
    let digits = text.strip_suffix('=').unwrap_or(text);
    // 43 digits of base64 carry 258 bits; the last two are zero, or the text is another key's.
    let expected = if bits == 4 { 2 * KEY_LEN } else { 43 };
    if digits.len() != expected {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let (mut held, mut count, mut at) = (0_u32, 0_u32, 0);
    for digit in digits.bytes() {
        let value = if bits == 4 {
            char::from(digit).to_digit(16)?
        } else {
            base64_value(digit)?
        };
        held = held << bits | value;
        count += bits;
        if count >= 8 {
            count -= 8;
            *key.get_mut(at)? = (held >> count & 0xFF) as u8;
            held &= (1 << count) - 1;
            at += 1;
        }
    }
    (held == 0 && at == KEY_LEN).then_some(key)
}

fn base64_value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

const KEY_LEN: usize = 32;
/// More are a configuration that nobody has tidied up.
const KEYS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    /// The same key, by `xxd -r -p | base64`.
    const BASE64: &str = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";

    fn key() -> [u8; 32] {
        let half = [0_u8, 17, 34, 51, 68, 85, 102, 119];
        let mut key = [0; 32];
        for (at, byte) in key.iter_mut().enumerate() {
            let high = if at % 16 < 8 { 0 } else { 136 };
            *byte = half[at % 8] + high;
        }
        key
    }

    #[test]
    fn a_key_is_read_from_either_text() {
        let url_safe = BASE64.replace('/', "_");
        for text in [HEX, BASE64, BASE64.trim_end_matches('='), &url_safe] {
            let keys: SealKeys = format!(" 7 : {text} ").parse().unwrap();
            assert_eq!(keys, SealKeys::new(7, key()), "{text}");
        }
    }

    #[test]
    fn a_wrong_text_is_refused_and_never_quoted() {
        let short = &HEX[..62];
        let digit = HEX.replace("11", "1g");
        let loose = BASE64.replace("8=", "9=");
        let long = format!("{BASE64}=");
        let twice = format!("1:{HEX},1:{BASE64}");
        let zero = format!("1:{}", "0".repeat(64));
        let many: Vec<String> = (0..17).map(|id| format!("{id}:{HEX}")).collect();
        let wrong = [
            String::new(),
            HEX.to_owned(),
            format!("x:{HEX}"),
            format!("-1:{HEX}"),
            format!("4294967296:{HEX}"),
            format!("1:{short}"),
            format!("1:{digit}"),
            format!("1:{loose}"),
            format!("1:{long}"),
            format!("1:{HEX},"),
            twice,
            zero,
            many.join(","),
        ];
        for text in wrong {
            let error = text.parse::<SealKeys>().expect_err(&text).to_string();
            assert!(error.contains("seal_keys"), "{error}");
            assert!(
                !error.contains("2233") && !error.contains("EiM0"),
                "{error}"
            );
        }
    }

    #[test]
    fn serde_reads_keys_and_shows_none() {
        let text = format!("\"2:{BASE64}\"");
        let keys: SealKeys = serde_json::from_str(&text).unwrap();
        assert_eq!(keys, SealKeys::new(2, key()));
        assert_eq!(format!("{keys:?}"), "SealKeys { ids: [2] }");
        let error = serde_json::from_str::<SealKeys>(&text.replace("8=", "9=")).unwrap_err();
        assert!(!error.to_string().contains("EiM0"), "{error}");
    }
}
