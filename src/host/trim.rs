//! glibc's way to give memory back to the machine: the one unsafe call of this crate.
//!
//! glibc keeps what was freed for the next allocation, in the heap and in up to eight arenas per core,
//! and gives back only what lies at the heap's very end. After a cache has shed its entries most of
//! them are gaps in the middle; `malloc_trim` walks through all arenas and gives whole free pages back.

/// Gives free pages of the heap back to the machine, and returns whether there were any.
///
/// Walks through the whole heap under the allocator's locks: milliseconds for each 100 MiB, in which
/// other threads wait when they allocate. Not for an async worker.
#[expect(
    unsafe_code,
    reason = "the only door to glibc's allocator; behind a feature, and checked to be the only one"
)]
pub(crate) fn trim() -> bool {
    // SAFETY: the function takes a number and no pointer, may be called from any thread at any time
    // (its manual page: MT-Safe), and touches only memory that nobody owns. The zero asks it to keep
    // nothing in reserve at the heap's end.
    unsafe { libc::malloc_trim(0) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_gaps_is_given_back() {
        // Every second block stays, so that what is freed lies between others and not at the end.
        let mut blocks: Vec<_> = (0..4_000).map(|_| Some(vec![1_u8; 16 << 10])).collect();
        for block in blocks.iter_mut().step_by(2) {
            *block = None;
        }
        assert!(trim());
        assert!(blocks.iter().flatten().all(|block| block[0] == 1));
    }
}
