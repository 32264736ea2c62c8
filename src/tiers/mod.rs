//! What is stored, and where: in this process, in Redis, and on a medium that outlives it.

mod bets;
pub(crate) mod flight;
pub(crate) mod hashed;
pub(crate) mod shelf;
pub(crate) mod uses;
