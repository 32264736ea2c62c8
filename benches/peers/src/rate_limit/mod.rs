//! The rate limiter against governor and the layers that are made of it.
//!
//! - `decision`: one question to the engine, without HTTP.
//! - `layer`: a request through the layer and a service that does nothing.
//! - `memory`: what keys cost, and what a flood of new ones does.
//! - `redis`: what a fleet's decisions take, in time and in commands.
//!
//! Goals are printed beside what was measured, as `GOAL <case> <what> <figure> <= <goal> met|MISSED`.

mod decision;
mod goal;
mod keys;
mod layer;
mod memory;
mod redis;
mod turns;

pub(crate) use decision::run as decision;
pub(crate) use layer::run as layer;
pub(crate) use memory::run as memory;
pub(crate) use redis::run as redis;
