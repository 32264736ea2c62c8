//! The auxiliary vector that the kernel gives every program.
//!
//! Pairs of machine words: a key and its value. Exact, and asks neither libc nor a guess.

use std::path::Path;

/// The vector's bytes.
#[derive(Debug)]
pub(crate) struct Auxv(Vec<u8>);

impl Auxv {
    /// Reads it; `None` if that is not possible.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        std::fs::read(path).ok().map(Self)
    }

    /// The bytes of a page.
    pub(crate) fn page_bytes(&self) -> Option<u64> {
        const AT_PAGESZ: usize = 6;
        self.value(AT_PAGESZ)
    }

    /// How many ticks of CPU time make a second.
    pub(crate) fn ticks_per_second(&self) -> Option<u64> {
        const AT_CLKTCK: usize = 17;
        self.value(AT_CLKTCK)
    }

    fn value(&self, wanted: usize) -> Option<u64> {
        const WORD: usize = size_of::<usize>();
        let (words, _) = self.0.as_chunks::<WORD>();
        let (pairs, _) = words.as_chunks::<2>();
        pairs
            .iter()
            .map(|pair| pair.map(usize::from_ne_bytes))
            .find(|[key, _]| *key == wanted)
            .map(|[_, value]| value as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_among_the_words_or_not_at_all() {
        let auxv = |words: &[usize]| Auxv(words.iter().flat_map(|w| w.to_ne_bytes()).collect());
        assert_eq!(auxv(&[16, 1, 6, 16384, 0, 0]).page_bytes(), Some(16384));
        assert_eq!(auxv(&[6, 17, 17, 100]).ticks_per_second(), Some(100));
        assert_eq!(auxv(&[16, 6, 0, 0]).page_bytes(), None);
        assert_eq!(Auxv(vec![6]).page_bytes(), None);
    }
}
