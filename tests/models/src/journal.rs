//! The journal's mirror as it is shipped, with everything that it is made of.

#[path = "../../../src/journal/index.rs"]
pub(crate) mod index;
#[path = "../../../src/journal/marker.rs"]
pub(crate) mod marker;
#[path = "../../../src/journal/mirror.rs"]
pub(crate) mod mirror;
#[path = "../../../src/journal/pieces.rs"]
pub(crate) mod pieces;
#[path = "../../../src/journal/record.rs"]
pub(crate) mod record;
#[path = "../../../src/journal/settling.rs"]
pub(crate) mod settling;
#[path = "../../../src/journal/shard.rs"]
pub(crate) mod shard;
#[path = "../../../src/journal/stamp.rs"]
pub(crate) mod stamp;
#[path = "../../../src/journal/standing.rs"]
pub(crate) mod standing;
#[path = "../../../src/journal/tables.rs"]
pub(crate) mod tables;
#[path = "../../../src/journal/times.rs"]
pub(crate) mod times;
