//! Invalidation: what a write makes old is not served again, from before the writer hears of it.
//!
//! An [`Invalidator`] turns what the service says into records of the [journal](crate::journal).
//! It can be told by hand ([`Invalidator::purge_tag`] and its sisters), by a rule, or by a handler;
//! the [`InvalidateLayer`] does the latter two for a service.
//!
//! # What entries are named by
//!
//! An entry of the HTTP cache has its path and query as its key, `/contacts?page=2`, its path as a
//! tag, `/contacts`, and the tags that its handler gave it. So there are these kinds of target:
//!
//! | to purge | in a rule | by hand |
//! |---|---|---|
//! | one exact URL | `patterns`: one without a star | [`Invalidator::purge`] |
//! | a path with any query | `paths` | [`Invalidator::purge_path`] |
//! | what carries a tag | `tags` | [`Invalidator::purge_tag`] |
//! | what matches a pattern | `patterns` | [`Invalidator::ban`] |
//! | what is old with a change | `changes` | [`Invalidator::changed`] |
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
//! tags they go decoded, because a handler makes its tags from decoded values. All other values are
//! plain text: they go into tags as they are, and percent-encoded into paths and patterns, so that the
//! id `7/notes` is no path below the contact 7, and `7&all=1` no second parameter. A value is text and
//! nothing else: a `*` in it is no star of the pattern it goes into. In a pattern that begins neither
//! with `/` nor with a star, `{{tenant}}:*`, no value has a `:` either: it is written `%3A`.
//!
//! What a client writes otherwise than that, `%3A` for `:` in a path or `+` for a space in a query, is
//! another key. Where such values are to be expected, give what is stored a tag and purge the tag.
//!
//! Where a value is missing or empty, or the tag it makes is none ([`TargetError`]), the target is
//! left out and the rest of the rule stands; a [`Warning`](crate::event::Event::Warning) tells of
//! it once per rule, and once more of requests that ended without an answer. A pattern that grows over
//! [its bound](crate::pattern::PATTERN_BYTES_MAX) is cut there and ends in a star: it purges more,
//! not less.
//!
//! # Entities and cascades
//!
//! What is old when a contact changes need not be said in each rule that changes one. An entity says it
//! once, in its own variables, and says what changes along with it. A rule, or
//! [`Invalidator::changed`], says which entity changed and what its variables are:
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use tower_keep::event::Events;
//! use tower_keep::invalidation::{InvalidationConfig, InvalidationEntity};
//! use tower_keep::invalidation::{InvalidationRule, Invalidator};
//! use tower_keep::journal::{Checked, Journal, JournalConfig, Subject};
//!
//! let contact = InvalidationEntity::new(["id", "organization_id"])
//!     .paths(["/contacts/{{id}}"])
//!     .tags(["contact:{{id}}"])
//!     .cascade("organization", [("id", "{{organization_id}}")]);
//! let organization = InvalidationEntity::new(["id"])
//!     .paths(["/organizations/{{id}}"])
//!     .patterns(["/search?*organization={{id}}*"]);
//! let config = InvalidationConfig {
//!     rules: vec![
//!         // The path tells `id`; whose contact it was, the handler has to say.
//!         InvalidationRule::new("/contacts/{id}")
//!             .supplied(["organization_id"])
//!             .changes("contact", []),
//!         InvalidationRule::new("/organizations/{number}")
//!             .changes("organization", [("id", "{{number}}")]),
//!     ],
//!     entities: BTreeMap::from([
//!         ("contact".to_owned(), contact),
//!         ("organization".to_owned(), organization),
//!     ]),
//!     ..InvalidationConfig::default()
//! };
//! let journal = Journal::new(&JournalConfig::default(), Events::none())?;
//! let invalidator = Invalidator::new(&config, &[], journal.clone(), Events::none())?;
//!
//! // The same by hand, from a task that imports contacts.
//! let born = journal.position();
//! let page = Subject::of("/organizations/3?full", &["/organizations/3".into()]);
//! invalidator.changed("contact", &[("id", "7"), ("organization_id", "3")])?;
//! assert!(!journal.holds(born, &Checked::at(born), &page));
//! assert!(invalidator.changed("contact", &[("id", "7")]).is_err(), "whose contact was it?");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! or in a file:
//!
//! ```toml
//! [[invalidation.rules]]
//! route = "/contacts/{id}"
//! supplied = ["organization_id"]
//! changes = [{ entity = "contact" }]
//!
//! [invalidation.entities.contact]
//! variables = ["id", "organization_id"]
//! tags = ["contact:{{id}}"]
//! cascades = [{ entity = "organization", with = { id = "{{organization_id}}" } }]
//! ```
//!
//! `with` says what a variable of the other entity stands for; one that is left out has the value of
//! the same name. All of it is worked out when the [`Invalidator`] is built: an unknown entity or
//! variable, a variable without a value, a loop (`contact -> organization -> contact`) and more targets
//! than [`fan_out_max`](InvalidationConfig::fan_out_max) are faults, and what is reached on two ways is
//! named once. The whole cascade is one record. How much of it can be named is told when it happens: see
//! below.
//!
//! # Variables
//!
//! A variable that the path does not tell is declared in `supplied`. Who tells it is asked in this order:
//!
//! 1. the response, by [`Variables`] in its extensions,
//! 2. the closure of [`Invalidator::variables`], which sees the request and its response,
//! 3. the request, by [`Variables`] in its extensions, which an outer layer left there,
//! 4. the path, and for `{{header.x-name}}` the request's fields.
//!
//! A request that ends without an answer, because its client left or the service failed, has only the
//! last two. What cannot be named from them is not purged. Where that matters, call
//! [`Invalidator::changed`] right after the commit.
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
//! | 5xx of a [breaker](crate::breaker) between this layer and the service | not | the service was not called |
//! | 408 | carried out | a timeout below this layer drops a handler that may have committed |
//! | other 4xx | not | nothing was changed, and bad requests must not empty the cache |
//! | its future dropped: the client left, a timeout above | carried out | it may have committed |
//!
//! Only what is changed before the head is released is covered. A handler that writes while its
//! body is being sent, or leaves the write to a task, has to purge by hand when it is done. And
//! whoever drops a handler in the middle of its `COMMIT` does not learn when the database carries
//! it out: a read between the purge and that moment is stored as new.
//!
//! # Several instances
//!
//! With Redis the answer is held back until every instance has carried the record out, or has lost its lease,
//! at most for `journal.acknowledge_ms`: see [the journal](crate::journal). Then it goes on its way all the
//! same, and the invalidation is [`Pending`](crate::journal::Pending), which is counted. In a process alone
//! nothing is held back.
//!
//! # Handlers
//!
//! A handler that knows more than a rule puts [`Invalidate`] into the extensions of its response,
//! whatever the method and the status. It is said with the answer: if the client leaves after the handler
//! has committed and before its answer's head, only the rules are carried out. A handler to which that
//! matters calls the [`Invalidator`] right after its commit, without an await in between.
//!
//! That unsafe methods make their own URI old (RFC 9111 §4.4) is the cache's business, not a rule's.
//!
//! # Whether it works
//!
//! [`Coherency`] follows some of the invalidations and asks every instance what it would still serve of what
//! they name: `keep.coherency()` tells what that has shown, `keep.check_coherency().await` asks at once. It
//! checks each [`Invariant`]; what it finds is an event, a counter and a line in the log. Any store of entries
//! can take part: it is a [`Tier`](crate::journal::Tier).

mod begun;
mod cascade;
mod catalog;
mod coherency;
mod coherency_config;
mod config;
mod entity;
mod findings;
mod future;
mod invalidate;
mod invalidator;
mod layer;
mod naming;
mod plan;
mod reading;
mod rule;
mod service;
mod tally;
mod target;
mod value;
mod variables;
mod watch;

pub use catalog::ChangedError;
pub use coherency::Coherency;
pub use coherency_config::CoherencyConfig;
pub use config::InvalidationConfig;
pub use entity::{Cascade, InvalidationEntity};
pub use findings::{CoherencyViolation, Invariant};
pub use future::InvalidateFuture;
pub use invalidate::Invalidate;
pub use invalidator::Invalidator;
pub use layer::InvalidateLayer;
pub use rule::InvalidationRule;
pub use service::InvalidateService;
pub use tally::{CoherencyReport, CoherencyWindow};
pub use target::{Target, TargetError};
pub(crate) use variables::Supplier;
pub use variables::Variables;
