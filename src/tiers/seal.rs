//! Encryption at rest: what leaves the process can be read by nobody who has no key, and made by nobody.
//!
//! The cipher is XChaCha20-Poly1305. Its nonce has 24 bytes, so that nonces may be drawn at random by any
//! number of instances and for ever: two alike among 2^80 are less likely than one in 2^32. AES-GCM with
//! its 12 bytes is as safe for 2^32 entries per key, which one busy cache writes within a month.
//! AES-GCM-SIV would do as well, but reads everything twice, and is slow where the processor lacks
//! instructions for AES, as small ARM hosts do.
//!
//! Sealed bytes, little endian: the key's id (4 bytes), the nonce (24), the encrypted bytes, the
//! authentication tag (16).

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

#[cfg(feature = "encryption")]
use chacha20poly1305::{
    AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce, aead::common::Generate,
};

#[cfg(feature = "encryption")]
use crate::tiers::seal_keys::SealKeys;

/// Keys made ready: the first one seals, all of them open. Without the feature `encryption` there are none.
#[cfg(feature = "encryption")]
pub(crate) struct Seals {
    first: (u32, XChaCha20Poly1305),
    others: Vec<(u32, XChaCha20Poly1305)>,
}

/// Keys made ready. Without the feature `encryption` there are none.
#[cfg(not(feature = "encryption"))]
#[derive(Debug)]
pub(crate) enum Seals {}

/// The system has no random numbers to give, or there is too much to seal; nothing is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsealable;

/// What stands before the encrypted bytes: id and nonce.
pub(crate) const BEFORE: usize = 28;
/// What stands behind them.
pub(crate) const BEHIND: usize = 16;

#[cfg(feature = "encryption")]
impl Seals {
    pub(crate) fn of(keys: &SealKeys) -> Option<Self> {
        let mut ready = keys.iter().map(|(id, key)| {
            let key: &Key = key.into();
            (id, XChaCha20Poly1305::new(key))
        });
        let first = ready.next()?;
        Some(Self {
            first,
            others: ready.collect(),
        })
    }

    /// Seals what `frame` holds behind `at` + [`BEFORE`], in place: the bytes between are the id's and the
    /// nonce's, and the tag is appended. `bound` is not encrypted, and has to be the same when it is opened.
    pub(crate) fn seal(
        &self,
        bound: Vec<u8>,
        frame: &mut Vec<u8>,
        at: usize,
    ) -> Result<(), Unsealable> {
        let (id, cipher) = &self.first;
        let nonce = XNonce::try_generate().map_err(|_| Unsealable)?;
        let (_, sealed) = frame.split_at_mut_checked(at).ok_or(Unsealable)?;
        let (before, plain) = sealed.split_at_mut_checked(BEFORE).ok_or(Unsealable)?;
        let (id_at, nonce_at) = before.split_at_mut_checked(4).ok_or(Unsealable)?;
        id_at.copy_from_slice(&id.to_le_bytes());
        nonce_at.copy_from_slice(&nonce);
        let bound = with_id(bound, *id);
        let tag = cipher.encrypt_inout_detached(&nonce, &bound, plain.into());
        frame.extend_from_slice(&tag.map_err(|_| Unsealable)?);
        Ok(())
    }

    /// What was sealed. `None` if none of the keys has the id, if it was sealed with another key or bound
    /// to something else, or if a byte was changed since.
    pub(crate) fn open(&self, bound: Vec<u8>, sealed: &[u8]) -> Option<Vec<u8>> {
        let (id, sealed) = sealed.split_first_chunk()?;
        let (nonce, sealed) = sealed.split_first_chunk::<24>()?;
        let (hidden, tag) = sealed.split_last_chunk::<BEHIND>()?;
        let (nonce, tag): (&XNonce, &Tag) = (nonce.into(), tag.into());
        let id = u32::from_le_bytes(*id);
        let mut all = std::iter::once(&self.first).chain(&self.others);
        let (_, cipher) = all.find(|(of, _)| *of == id)?;
        let mut plain = hidden.to_vec();
        let bound = with_id(bound, id);
        let opened = cipher.decrypt_inout_detached(nonce, &bound, plain.as_mut_slice().into(), tag);
        opened.is_ok().then_some(plain)
    }
}

/// The id is bound as well: it tells the keys apart, so it is not to be changed by others either.
#[cfg(feature = "encryption")]
fn with_id(mut bound: Vec<u8>, id: u32) -> Vec<u8> {
    bound.extend_from_slice(&id.to_le_bytes());
    bound
}

#[cfg(feature = "encryption")]
impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seals").finish_non_exhaustive()
    }
}

#[cfg(not(feature = "encryption"))]
impl Seals {
    pub(crate) fn seal(&self, _: Vec<u8>, _: &mut Vec<u8>, _: usize) -> Result<(), Unsealable> {
        match *self {}
    }

    pub(crate) fn open(&self, _: Vec<u8>, _: &[u8]) -> Option<Vec<u8>> {
        match *self {}
    }
}

#[cfg(test)]
#[cfg(feature = "encryption")]
mod tests {
    use super::*;

    fn seals(keys: &SealKeys) -> Seals {
        Seals::of(keys).unwrap()
    }

    fn sealed(seals: &Seals, bound: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; BEFORE];
        frame.extend_from_slice(plain);
        seals.seal(bound.to_vec(), &mut frame, 0).unwrap();
        assert_eq!(frame.len(), BEFORE + plain.len() + BEHIND);
        frame
    }

    #[test]
    fn the_first_key_seals_and_every_one_opens() {
        let old = seals(&SealKeys::new(1, [1; 32]));
        let both = SealKeys::new(2, [2; 32]).also_opening(1, [1; 32]).unwrap();
        let both = seals(&both);
        let before = sealed(&old, b"k", b"secret");
        let after = sealed(&both, b"k", b"secret");
        assert_eq!((before[0], after[0]), (1, 2));
        assert_eq!(
            both.open(b"k".to_vec(), &before).as_deref(),
            Some(&b"secret"[..])
        );
        assert_eq!(
            both.open(b"k".to_vec(), &after).as_deref(),
            Some(&b"secret"[..])
        );
        assert_eq!(old.open(b"k".to_vec(), &after), None, "an id it has not");
        let other = seals(&SealKeys::new(1, [3; 32]));
        assert_eq!(other.open(b"k".to_vec(), &before), None, "another key's id");
    }

    #[test]
    fn two_seals_of_the_same_are_not_the_same_and_show_nothing() {
        let seals = seals(&SealKeys::new(1, [1; 32]));
        let secret = [b's'; 64];
        let (one, two) = (sealed(&seals, b"", &secret), sealed(&seals, b"", &secret));
        assert_ne!(one[4..BEFORE], two[4..BEFORE]);
        assert_ne!(one[BEFORE..], two[BEFORE..]);
        assert!(!one.windows(4).any(|part| part == b"ssss"));
    }

    #[test]
    fn nothing_opens_that_was_changed_cut_or_bound_to_something_else() {
        // Two ids of one key, so that the id's own bits are under guard as well.
        let keys = SealKeys::new(1, [1; 32]).also_opening(0, [1; 32]).unwrap();
        let seals = seals(&keys);
        let whole = sealed(&seals, b"key", b"secret");
        assert!(seals.open(b"key".to_vec(), &whole).is_some());
        assert_eq!(seals.open(b"kex".to_vec(), &whole), None);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seals.open(b"key".to_vec(), &flipped), None, "bit {bit}");
        }
        for len in 0..whole.len() {
            assert_eq!(seals.open(b"key".to_vec(), &whole[..len]), None);
        }
    }

    /// draft-irtf-cfrg-xchacha-03 A.3.1: the cipher is the one that other programs know by this name.
    #[test]
    fn the_cipher_is_the_one_of_the_draft() {
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + at as u8);
        let bound = [
            0x50, 0x51, 0x52, 0x53, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7,
        ];
        let mut text =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
            for the future, sunscreen would be it."
                .to_vec();
        let cipher = XChaCha20Poly1305::new((&key).into());
        let nonce: &XNonce = (&nonce).into();
        let tag = cipher.encrypt_inout_detached(nonce, &bound, text.as_mut_slice().into());
        let tag = tag.unwrap();
        assert_eq!(text[..4], [0xBD, 0x6D, 0x17, 0x9D]);
        assert_eq!(tag[..4], [0xC0, 0x87, 0x59, 0x24]);
    }
}
