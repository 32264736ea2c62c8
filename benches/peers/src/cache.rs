//! The files of tower-keep that decide what stays in memory, as they are shipped: the public API would take a
//! request and an answer for every step of a trace.

#[path = "../../../src/cache/bets.rs"]
pub(crate) mod bets;
#[path = "../../../src/cache/hashed.rs"]
pub(crate) mod hashed;
#[path = "../../../src/cache/shelf.rs"]
pub(crate) mod shelf;
#[path = "../../../src/cache/uses.rs"]
pub(crate) mod uses;
