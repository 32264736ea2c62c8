//! A PostgreSQL server for tests, on a free loopback port and in a folder of its own.
//!
//! Nothing here uses or needs a server that runs already. One server serves all tests of a program, because
//! making one takes seconds: [`TestPostgres::shared`]; tests keep apart by the names of their tables. It ends
//! with the program, also with one that is killed, since what ends it is the breaking of a pipe.
//!
//! `TEST_POSTGRES_BIN` names another folder with `initdb` and `postgres` than the newest that is installed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod programs;
mod server;

pub use server::TestPostgres;
