//! The figures of all instances together.
//!
//! Every ten seconds each instance puts down what it has counted since the last time, and with a Redis it also
//! leaves that there, with what the minute and the five minutes that are not yet full have come to: one batch of
//! commands, three times some ten bytes for each route that was used, kept for as long as a
//! [`Window`](crate::metrics::Window) may ask for it. [`Fleet::window`] reads what all have left and adds it up. Histograms are added
//! bucket by bucket, so a percentile of the fleet is one of all requests, not a mean of percentiles.
//!
//! | promise | how |
//! |---|---|
//! | exact | what is left is a count of a stretch of time, under its instance and its number: left twice it counts once, also where the clock was set meanwhile |
//! | bounded | some 32 entries for each instance, gone by themselves 70 minutes after the last |
//! | late by | at most ten seconds; an instance that could not reach Redis leaves the rest once it can |
//! | an instance that is gone | counts for as long as the window reaches back, all but its last ten seconds |
//!
//! What an instance has counted since its last step is not told when it ends, and what a Redis loses that keeps
//! nothing on disk is not told again: then the window covers less, and says so.
//!
//! Instances find each other's counts by the time of day, so their clocks should agree to some seconds. Only
//! instances of the same version of this crate are added up, because only those count the same things. Without
//! Redis, or while it is away, the figures are this instance's own and say so.

mod engine;
#[cfg(feature = "redis")]
mod left;

pub use engine::{Fleet, FleetFigures};
