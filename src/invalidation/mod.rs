//! Invalidation: what a write makes old is not served again, from before the writer hears of it.
//!
//! An [`Invalidator`] turns what the service says into records of the [journal](crate::journal).
//! It can be told by hand ([`Invalidator::purge_tag`] and its sisters), by a rule, or by a handler;
//! the [`InvalidateLayer`] does the latter two for a service.
//!
//! # What entries are named by
//!
//! An entry of the HTTP cache has its path and query as its key, `/contacts?page=2`, its path as a
//! tag, `/contacts`, and the tags that its handler gave it. So there are four kinds of target:
//!
//! | to purge | in a rule | by hand |
//! |---|---|---|
//! | one exact URL | `patterns`: one without a star | [`Invalidator::purge`] |
//! | a path with any query | `paths` | [`Invalidator::purge_path`] |
//! | what carries a tag | `tags` | [`Invalidator::purge_tag`] |
//! | what matches a pattern | `patterns` | [`Invalidator::ban`] |
//! | everything | not by a rule | [`Invalidator::purge_everything`] |
//!
//! # Rules
//!
//! A rule says which requests make what old. `{{name}}` stands for a variable of the rule's route,
//! `{{header.x-name}}` for a field of the request:
//!
//! ```
//! use tower_keep::event::Events;
//! use tower_keep::invalidation::{InvalidateLayer, Invalidator};
//! use tower_keep::invalidation::{InvalidationConfig, InvalidationRule};
//! use tower_keep::journal::{Checked, Journal, JournalConfig, Subject};
//!
//! let config = InvalidationConfig {
//!     rules: vec![
//!         InvalidationRule::new("/contacts/{id}")
//!             .methods(["PUT", "DELETE"])
//!             .paths(["/contacts/{{id}}", "/contacts"])
//!             .tags(["contact:{{id}}"])
//!             .patterns(["/search?*"]),
//!     ],
//!     ..InvalidationConfig::default()
//! };
//! let journal = Journal::new(&JournalConfig::default(), Events::none())?;
//! let routes = ["/contacts/{id}".to_owned()];
//! let invalidator = Invalidator::new(&config, &routes, journal.clone(), Events::none())?;
//! let layer = InvalidateLayer::new(invalidator.clone()); // around the service, outside the cache
//!
//! // By hand, where something changed without a request:
//! let born = journal.position();
//! let page = Subject::of("/contacts?page=2", &["/contacts".into()]);
//! invalidator.purge_path("/contacts");
//! assert!(!journal.holds(born, &Checked::at(born), &page));
//! # let _ = layer;
//! # Ok::<(), tower_keep::error::ConfigError>(())
//! ```
//!
//! The values of path variables go into paths and patterns in the normal form of the request's path
//! ([`normal_form`](crate::target::normal_form)), not percent-decoded, as keys and path tags are. Into
//! tags they go decoded, because a handler makes its tags from decoded values. A value is text and
//! nothing else: a `*` in it is no star of the pattern it goes into.
//!
//! Where a value is missing or empty, or the tag it makes is none ([`TargetError`]), the target is
//! left out and the rest of the rule stands; a [`Warning`](crate::event::Event::Warning) tells of
//! it once per rule. A pattern that grows over
//! [its bound](crate::pattern::PATTERN_BYTES_MAX) is cut there and ends in a star: it purges more,
//! not less.
//!
//! # When a rule is carried out
//!
//! As soon as the response's head is there and before anyone outside sees it, so that a client
//! that has its answer reads what it wrote. All that matching rules name, and what the handler
//! named, is one record: no reader sees half of it.
//!
//! | the request ends with | rules | because |
//! |---|---|---|
//! | 1xx, 2xx, 3xx | carried out | the handler did it |
//! | 5xx, an error | carried out | it may have committed before it failed |
//! | 408 | carried out | a timeout below this layer drops a handler that may have committed |
//! | other 4xx | not | nothing was changed, and bad requests must not empty the cache |
//! | its future dropped: the client left, a timeout above | carried out | it may have committed |
//!
//! Only what is changed before the head is released is covered. A handler that writes while its
//! body is being sent, or leaves the write to a task, has to purge by hand when it is done. And
//! whoever drops a handler in the middle of its `COMMIT` does not learn when the database carries
//! it out: a read between the purge and that moment is stored as new.
//!
//! # Handlers
//!
//! A handler that knows more than a rule puts [`Invalidate`] into the extensions of its response,
//! whatever the method and the status. It is said with the answer: if the client leaves after the handler
//! has committed and before its answer's head, only the rules are carried out. A handler to which that
//! matters calls the [`Invalidator`] right after its commit, without an await in between.
//!
//! That unsafe methods make their own URI old (RFC 9111 §4.4) is the cache's business, not a rule's.

mod config;
mod future;
mod invalidate;
mod invalidator;
mod layer;
mod plan;
mod rule;
mod service;
mod target;
mod watch;

pub use config::InvalidationConfig;
pub use future::InvalidateFuture;
pub use invalidate::Invalidate;
pub use invalidator::Invalidator;
pub use layer::InvalidateLayer;
pub use rule::InvalidationRule;
pub use service::InvalidateService;
pub use target::{Target, TargetError};
