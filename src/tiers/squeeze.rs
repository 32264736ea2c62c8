//! LZ4 for what leaves the process: a few kilobytes take about a microsecond either way.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

/// LZ4 makes at most 255 bytes out of one: a run is drawn out by bytes that count for 255 each.
const RATIO_MAX: usize = 255;

/// `plain` compressed, if it is longer than `above` bytes (0: never) and gets a fifth shorter by it.
pub(crate) fn squeezed(plain: &[u8], above: usize) -> Option<Vec<u8>> {
    if above == 0 || plain.len() <= above {
        return None;
    }
    let lz4 = lz4_flex::block::compress(plain);
    let pays = lz4.len().saturating_mul(5) <= plain.len().saturating_mul(4);
    pays.then_some(lz4)
}

/// What `lz4` stands for, if that is exactly `len` bytes. Nothing is allocated for a length that so few
/// bytes cannot stand for; a bound on `len` itself is the caller's.
pub(crate) fn unsqueezed(lz4: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > lz4.len().saturating_mul(RATIO_MAX) {
        return None;
    }
    let mut plain = vec![0; len];
    let written = lz4_flex::block::decompress_into(lz4, &mut plain).ok()?;
    (written == len).then_some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_long_and_gets_a_fifth_shorter_is_squeezed() {
        let text = b"the same again, ".repeat(100);
        assert!(squeezed(&text, 1024).is_some_and(|lz4| lz4.len() < text.len() / 10));
        assert_eq!(squeezed(&text, text.len()), None);
        assert_eq!(squeezed(&text, 0), None);
        let mut mostly = noise(4096);
        assert_eq!(squeezed(&mostly, 1024), None);
        // A seventh of it can be squeezed: not worth unpacking it on every read.
        mostly[..600].fill(0);
        assert_eq!(squeezed(&mostly, 1024), None);
        mostly[..1200].fill(0);
        assert!(squeezed(&mostly, 1024).is_some());
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        noise.take(len).collect()
    }

    #[test]
    fn a_length_that_is_not_its_own_is_refused() {
        let text = b"the same again, ".repeat(100);
        let lz4 = squeezed(&text, 1).unwrap();
        assert_eq!(unsqueezed(&lz4, text.len()).as_ref(), Some(&text));
        for wrong in [0, 1, text.len() - 1, text.len() + 1, 1 << 40, usize::MAX] {
            assert_eq!(unsqueezed(&lz4, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_longest_run_is_within_the_ratio() {
        let run = vec![7; 1 << 20];
        let lz4 = squeezed(&run, 1).unwrap();
        assert!(lz4.len() * RATIO_MAX >= run.len());
        assert_eq!(unsqueezed(&lz4, run.len()), Some(run));
    }

    proptest! {
        #[test]
        fn whatever_bytes_are_unsqueezed_none_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            len in 0_usize..5000,
        ) {
            let plain = unsqueezed(&bytes, len);
            prop_assert!(plain.is_none_or(|plain| plain.len() == len));
        }
    }
}
