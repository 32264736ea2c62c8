//! The content of a stored answer: as it came, or squeezed.

use bytes::Bytes;

/// Bytes in memory.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// As they are sent.
    Plain(Bytes),
    /// Compressed by LZ4, with the length of what it stands for.
    Squeezed { lz4: Bytes, len: usize },
}

impl Content {
    /// The content, compressed if it is longer than `squeeze_above` bytes (0: never) and gets a fifth
    /// shorter by it.
    pub(crate) fn of(bytes: Bytes, squeeze_above: u64) -> Self {
        let long = squeeze_above > 0 && bytes.len() as u64 > squeeze_above;
        match long.then(|| squeezed(&bytes)).flatten() {
            Some(squeezed) => squeezed,
            None => Self::Plain(bytes),
        }
    }

    /// What is sent: shared if it is plain, else unpacked anew (about a gigabyte a second).
    #[inline]
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Self::Plain(bytes) => bytes.clone(),
            // Cannot fail: it was unpacked once when it was stored.
            Self::Squeezed { lz4, len } => unpacked(lz4, *len).unwrap_or_default(),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Squeezed { len, .. } => *len,
        }
    }

    /// What it takes up.
    pub(crate) const fn weight(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Squeezed { lz4, .. } => lz4.len(),
        }
    }
}

fn squeezed(bytes: &Bytes) -> Option<Content> {
    let lz4 = lz4_flex::block::compress(bytes);
    let pays = lz4.len() < bytes.len() / 5 * 4;
    let sound = pays && unpacked(&lz4, bytes.len()).is_some_and(|again| again == *bytes);
    sound.then(|| Content::Squeezed {
        // To measure, so that it takes up no more than it is weighed by.
        lz4: lz4.into_boxed_slice().into(),
        len: bytes.len(),
    })
}

fn unpacked(lz4: &[u8], len: usize) -> Option<Bytes> {
    lz4_flex::block::decompress(lz4, len).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_long_and_gets_shorter_is_squeezed() {
        let text = Bytes::from("the same again, ".repeat(1000));
        let squeezed = Content::of(text.clone(), 1024);
        assert!(squeezed.weight() < text.len() / 10);
        assert_eq!(
            (squeezed.len(), squeezed.bytes()),
            (text.len(), text.clone())
        );
        assert!(matches!(Content::of(text.clone(), 0), Content::Plain(_)));
        assert!(matches!(Content::of(text, 1 << 20), Content::Plain(_)));
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        let noise: Vec<u8> = noise.take(20_000).collect();
        let noise = Content::of(noise.into(), 1024);
        assert!(matches!(noise, Content::Plain(_)));
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            bytes in prop::collection::vec(0u8..4, 0..4000),
            above in 0u64..3000,
        ) {
            let content = Content::of(bytes.clone().into(), above);
            prop_assert_eq!(content.bytes(), bytes);
        }
    }
}
