//! Any bytes as an entry in Redis: read without a panic, and never as something that was not written.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert!(tower_keep::tiers::frame_holds(bytes));
});
