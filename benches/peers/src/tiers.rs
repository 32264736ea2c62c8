//! The files of tower-keep that decide what stays in memory, as they are shipped: the public API would take a
//! request and an answer for every step of a trace.

#[path = "../../../src/tiers/bets.rs"]
pub(crate) mod bets;
#[path = "../../../src/tiers/door.rs"]
pub(crate) mod door;
#[path = "../../../src/tiers/hashed.rs"]
pub(crate) mod hashed;
#[path = "../../../src/tiers/shelf.rs"]
pub(crate) mod shelf;
#[path = "../../../src/tiers/uses.rs"]
pub(crate) mod uses;
#[path = "../../../src/tiers/worth.rs"]
pub(crate) mod worth;
