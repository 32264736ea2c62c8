//! Everything that is tested through real sockets, real processes or the source tree itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "tests fail by panicking, and their helpers are not an API"
)]

mod admin;
mod alerts;
mod breaker;
mod browser;
mod cache;
mod cache_body;
mod cache_compression;
mod cache_confirm;
mod cache_counts;
mod cache_flight;
mod cache_head;
mod cache_journal;
mod cache_keys;
mod cache_leave;
mod cache_model;
mod cache_policy_options;
mod cache_post;
mod cache_range;
mod cache_room;
mod cache_rules;
mod cache_sockets;
mod cache_tiers;
mod coherence;
mod coherency;
mod cold;
mod connections;
mod dashboard;
mod examples;
mod exports;
mod fleet;
mod full_layer;
mod guard;
mod house;
mod invalidation;
mod journal_fleet;
mod keep;
mod keep_redis;
mod lock;
mod metrics;
mod observability;
mod outbound;
mod outbound_fleet;
#[cfg(feature = "sqlx-postgres")]
mod postgres;
mod progress;
mod prometheus_text;
mod rate_limit;
mod rate_limit_fleet;
mod rate_limit_model;
mod rate_limit_reference;
mod rate_limit_rules;
mod rate_limit_who;
mod redis;
mod redis_helper;
mod report;
mod spans;
mod store;
mod store_faults;
mod store_shapes;
mod tiers;
mod tiers_faults;
mod tiers_keys;
mod tiers_races;
mod tiers_room;
mod tiers_time;
mod warming;
