//! How the parts of a service are, as they say themselves.
//!
//! Parts set their state when it changes; a probe only reads what is on the board. So a probe never
//! touches a database or a store, and takes the same time on a bad day as on a good one.

mod board;

pub use board::{ComponentHealth, Health, HealthBoard, HealthStatus};
