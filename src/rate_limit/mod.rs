//! Rate limiting.

mod gcra;
mod quota;
mod slot;
mod table;

pub use quota::{Quota, Requests};
