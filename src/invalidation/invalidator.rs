//! The engine: rules and calls become records of the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::identity::{RequestView, ResponseView};
use crate::invalidation::begun::Begun;
use crate::invalidation::catalog::ChangedError;
use crate::invalidation::config::{Compiled, InvalidationConfig};
use crate::invalidation::invalidate::Invalidate;
use crate::invalidation::target::{Target, TargetError};
use crate::invalidation::variables::{Supplier, Variables};
use crate::journal::{Appending, Journal, Marker, Record};
use crate::pattern::Pattern;

/// Purges. Cheap to clone; all clones speak to one journal. See the
/// [module](crate::invalidation) for what entries are named by and for an example.
///
/// Each call is one record. When it returns, no entry that it names and whose computation began
/// before is served again by this process; it takes time by the number of targets, not of entries. What it
/// returns can be awaited: with a [`Receipt`](crate::journal::Receipt) no instance serves any of them
/// again, and with [`Pending`](crate::journal::Pending) they will not for long. Nothing is called back by
/// dropping it.
///
/// ```
/// # use tower_keep::{Keep, Profile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keep = Keep::builder(Profile::development()).build()?;
/// // After the commit:
/// let invalidator = keep.invalidator();
/// invalidator.purge_tag("contact:7")?.await?;
/// let searches = tower_keep::pattern::Pattern::parse("/search?*")?;
/// invalidator.softly().ban(&searches)?.await?; // stale, but better than nothing
/// invalidator.for_tenant("acme").purge("/reports").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Invalidator {
    shared: Arc<Shared>,
    keys_are_rewritten: bool,
    supplier: Option<Supplier>,
    manner: Manner,
}

/// How its records invalidate.
#[derive(Clone, Debug, Default)]
struct Manner {
    soft: bool,
    settle: Duration,
    tenant: Option<Arc<str>>,
}

#[derive(Debug)]
struct Shared {
    enabled: bool,
    rules: Compiled,
    journal: Journal,
    events: Events,
    warned_overfull: AtomicBool,
    warned_refused: AtomicBool,
}

impl Invalidator {
    /// An invalidator that writes to `journal`, which must be the one that the cache reads.
    ///
    /// `known_routes` are the path templates of the service, to find rules that speak of none of
    /// them; leave it empty where they are not known.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with any rule, all at once.
    pub fn new(
        config: &InvalidationConfig,
        known_routes: &[String],
        journal: Journal,
        events: Events,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        let rules = config.compile("invalidation", &mut faults);
        config.check_routes("invalidation", known_routes, &mut faults);
        faults.into_result()?;
        Ok(Self {
            keys_are_rewritten: false,
            supplier: None,
            manner: Manner {
                settle: config.settle,
                ..Manner::default()
            },
            shared: Arc::new(Shared {
                enabled: config.enabled,
                rules,
                journal,
                events,
                warned_overfull: AtomicBool::new(false),
                warned_refused: AtomicBool::new(false),
            }),
        })
    }

    /// The same for a cache that leaves parameters of a query out of its keys, or puts them in order: see
    /// [`CacheConfig::rewrites_keys`](crate::cache::CacheConfig::rewrites_keys). To purge a path with a query
    /// is to purge all of the path then. [`Keep`](crate::Keep) sees to it.
    #[must_use]
    pub const fn for_rewritten_keys(mut self, rewritten: bool) -> Self {
        self.keys_are_rewritten = rewritten;
        self
    }

    /// Supplies variables to rules, from a request and its answer: called when the answer's head is there
    /// and before it is released, for requests that a rule speaks of and that may have changed something.
    /// It runs on the request's thread and must not block. What the response's own [`Variables`] say comes
    /// before what it returns, and that before what the request says. If it panics, what can be named from
    /// the request alone is purged, and the panic goes on.
    ///
    /// With a closure, a request that a rule speaks of is copied, but for its body: its fields and
    /// extensions, until its answer is there.
    ///
    /// ```
    /// # use tower_keep::event::Events;
    /// # use tower_keep::invalidation::{InvalidationConfig, Invalidator};
    /// # use tower_keep::journal::{Journal, JournalConfig};
    /// use tower_keep::invalidation::Variables;
    ///
    /// #[derive(Clone)]
    /// struct Tenant(u64); // which a layer around this one leaves with each request
    ///
    /// # let journal = Journal::new(&JournalConfig::default(), Events::none())?;
    /// # let config = InvalidationConfig::default();
    /// let invalidator = Invalidator::new(&config, &[], journal, Events::none())?.variables(
    ///     |request, _response| match request.extensions.get::<Tenant>() {
    ///         Some(Tenant(id)) => Variables::new().set("tenant", id),
    ///         None => Variables::new(),
    ///     },
    /// );
    /// # let _ = invalidator;
    /// # Ok::<(), tower_keep::error::ConfigError>(())
    /// ```
    #[must_use]
    pub fn variables(
        self,
        supply: impl Fn(&RequestView<'_>, &ResponseView<'_>) -> Variables + Send + Sync + 'static,
    ) -> Self {
        self.supplied_by(Supplier::new(supply))
    }

    /// The same, softly: what it names becomes stale instead of unusable. It is served while it is fetched
    /// anew, or where that fails, as far as its `stale-while-revalidate` and `stale-if-error` go.
    #[must_use]
    pub fn softly(&self) -> Self {
        let mut softly = self.clone();
        softly.manner.soft = true;
        softly
    }

    /// The same for the entries of one tenant; in the HTTP cache that is what
    /// [`KeepBuilder::cache_key`](crate::KeepBuilder::cache_key) says.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        let mut owned = self.clone();
        owned.manner.tenant = Some(tenant.into());
        owned
    }

    /// The same for data that is read from lagging replicas: what is computed within `settle` after an
    /// instance has heard of the invalidation is not stored there. At most a minute; the configuration's
    /// `settle_ms` if this is not called.
    #[must_use]
    pub fn settling(&self, settle: Duration) -> Self {
        let mut settling = self.clone();
        settling.manner.settle = settle;
        settling
    }

    /// Purges the one entry of this key: an exact path and query.
    pub fn purge(&self, key: &str) -> Appending {
        self.purge_all(&[Target::key(key)])
    }

    /// Makes the one entry of this key stale. See [`softly`](Self::softly).
    pub fn expire(&self, key: &str) -> Appending {
        self.softly().purge(key)
    }

    /// Purges the entries of this path, whatever their query. See [`Target::path`].
    pub fn purge_path(&self, path: &str) -> Appending {
        self.purge_all(&[Target::path(path)])
    }

    /// Purges the entries that carry this tag.
    ///
    /// # Errors
    ///
    /// If no entry can carry it; see [`Target::tag`]. Nothing is recorded then.
    pub fn purge_tag(&self, tag: &str) -> Result<Appending, TargetError> {
        Ok(self.purge_all(&[Target::tag(tag)?]))
    }

    /// Purges the entries whose key matches the pattern.
    ///
    /// # Errors
    ///
    /// If it is nothing but stars; [`purge_everything`](Self::purge_everything) says that plainly.
    pub fn ban(&self, pattern: &Pattern) -> Result<Appending, TargetError> {
        Ok(self.purge_all(&[Target::pattern(pattern)?]))
    }

    /// Purges all of these as one record: no reader sees half of it. Without targets there is no
    /// record, and the receipt is the journal's position.
    pub fn purge_all(&self, targets: &[Target]) -> Appending {
        let targets = targets.iter().cloned();
        let markers = targets.map(|target| target.marker(self.keys_are_rewritten));
        self.append(&markers.collect::<Vec<_>>())
    }

    /// Purges all that is old because `entity` changed, its cascade included, as one record. `variables` are
    /// those that the entity declares, as plain text; others are of no account, so that a configuration
    /// may do with less.
    ///
    /// # Errors
    ///
    /// If the configuration has no such entity, a variable is missing or empty, or a value makes a tag
    /// that no entry can carry. Nothing is recorded then.
    pub fn changed(
        &self,
        entity: &str,
        variables: &[(&str, &str)],
    ) -> Result<Appending, ChangedError> {
        let targets = self.shared.rules.catalog.targets(entity, variables)?;
        Ok(self.purge_all(&targets))
    }

    /// Purges the entries of a namespace: those of the HTTP cache are in
    /// [`HTTP_NAMESPACE`](crate::cache::HTTP_NAMESPACE).
    pub fn purge_namespace(&self, namespace: &str) -> Appending {
        self.append(&[Marker::namespace(namespace)])
    }

    /// Purges all that a tenant has.
    pub fn purge_tenant(&self, tenant: &str) -> Appending {
        self.for_tenant(tenant).append(&[Marker::Everything])
    }

    /// Purges every entry; of a tenant, if this is [`for`](Self::for_tenant) one.
    pub fn purge_everything(&self) -> Appending {
        self.append(&[Marker::Everything])
    }

    /// Whether the layer does anything.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.shared.enabled
    }

    /// Appends one record of these; none of none.
    pub(crate) fn append(&self, markers: &[Marker]) -> Appending {
        let Manner {
            soft,
            settle,
            tenant,
        } = &self.manner;
        let record = Record::of(markers).soft(*soft).settle(*settle);
        self.shared.journal.append(match tenant {
            Some(tenant) => record.of_tenant(tenant),
            None => record,
        })
    }

    /// The same with a closure that supplies variables.
    pub(crate) fn supplied_by(mut self, supplier: Supplier) -> Self {
        self.supplier = Some(supplier);
        self
    }

    /// What this request tells the rules that speak of it. Allocates nothing if none does.
    pub(crate) fn begin(&self, request: &RequestView<'_>) -> Begun {
        Begun::new(&self.shared.rules.plans, request, self.supplier.as_ref())
    }

    /// What the rules say that a request has made old, with `response` if it was answered.
    pub(crate) fn named_by(
        &self,
        begun: &Begun,
        response: Option<&ResponseView<'_>>,
    ) -> Vec<Marker> {
        let plans = &self.shared.rules.plans;
        let warn = |text: &str| self.shared.events.emit(Event::Warning { text });
        let targets = begun.targets(plans, self.supplier.as_ref(), response, warn);
        let targets = targets.into_iter();
        targets
            .map(|target| target.marker(self.keys_are_rewritten))
            .collect()
    }

    /// What a handler said is old, with the warnings that it calls for.
    pub(crate) fn said(&self, said: Invalidate) -> Vec<Marker> {
        if said.is_overfull() && first(&self.shared.warned_overfull) {
            let text = "a response named more than 64 targets to invalidate, so everything was \
                        purged; give what changes together a common tag";
            self.shared.events.emit(Event::Warning { text });
        }
        if let Some(why) = said.refused()
            && first(&self.shared.warned_refused)
        {
            let text = format!("a response named something to invalidate that is left out: {why}");
            self.shared.events.emit(Event::Warning { text: &text });
        }
        said.into_markers(self.keys_are_rewritten)
    }
}

/// Whether this is the first time.
fn first(told: &AtomicBool) -> bool {
    !told.swap(true, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalidation::entity::InvalidationEntity;
    use crate::invalidation::rule::InvalidationRule;
    use crate::journal::{Checked, JournalConfig, Stamp, Subject};

    fn invalidator() -> (Invalidator, Journal) {
        let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
        let config = InvalidationConfig::default();
        let twin = journal.clone();
        let invalidator = Invalidator::new(&config, &[], twin, Events::none()).unwrap();
        (invalidator, journal)
    }

    /// In memory it is known at once.
    fn at(appending: &Appending) -> Stamp {
        appending.now().unwrap().unwrap().0
    }

    #[test]
    fn each_call_purges_what_it_names_and_leaves_the_rest() {
        type Call = fn(&Invalidator) -> Appending;
        let calls: [(Call, [bool; 4]); 5] = [
            (
                |this| this.purge("/contacts?page=2"),
                [false, true, true, true],
            ),
            (
                |this| this.purge_path("/contacts"),
                [false, false, true, true],
            ),
            (
                |this| this.purge_tag("contact:7").unwrap(),
                [true, true, false, true],
            ),
            (
                |this| this.ban(&Pattern::parse("/contacts*").unwrap()).unwrap(),
                [false, false, false, true],
            ),
            (|this| this.purge_everything(), [false; 4]),
        ];
        let entries = [
            Subject::of("/contacts?page=2", &["/contacts".into()]),
            Subject::of("/contacts", &["/contacts".into()]),
            Subject::of("/contacts/7", &["/contacts/7".into(), "contact:7".into()]),
            Subject::of("/health", &["/health".into()]),
        ];
        for (place, (call, expected)) in calls.iter().enumerate() {
            let (invalidator, journal) = invalidator();
            let born = journal.position();
            assert_eq!(at(&call(&invalidator)).seq, 1);
            for (entry, holds) in entries.iter().zip(expected) {
                let held = journal.holds(born, &Checked::at(born), entry);
                assert_eq!(held, *holds, "call {place} on {}", entry.key());
            }
        }
    }

    #[test]
    fn many_targets_are_one_record_and_none_are_none() {
        let (invalidator, journal) = invalidator();
        let targets = [
            Target::path("/a"),
            Target::tag("b").unwrap(),
            Target::key("/c"),
        ];
        assert_eq!(at(&invalidator.purge_all(&targets)).seq, 1);
        assert_eq!(at(&invalidator.purge_all(&[])), journal.position());
        assert_eq!(journal.position().seq, 1);
    }

    #[test]
    fn what_is_refused_records_nothing() {
        let (invalidator, journal) = invalidator();
        assert_eq!(
            invalidator.purge_tag("").unwrap_err(),
            TargetError::EmptyTag
        );
        let stars = Pattern::parse("*").unwrap();
        let refused = invalidator.ban(&stars).unwrap_err();
        assert_eq!(refused, TargetError::MatchesEverything);
        assert_eq!(journal.position().seq, 0);
    }

    #[test]
    fn faults_of_rules_and_unknown_routes_are_told_together() {
        let config = InvalidationConfig {
            rules: vec![
                InvalidationRule::new("/a").tags(["{{x}}"]),
                InvalidationRule::new("/b").tags(["b"]),
            ],
            ..InvalidationConfig::default()
        };
        let (_, journal) = invalidator();
        let routes = ["/a".to_owned()];
        let error = Invalidator::new(&config, &routes, journal, Events::none()).unwrap_err();
        let fields: Vec<_> = error.faults().iter().map(|fault| &*fault.field).collect();
        let expected = [
            "invalidation.rules[0].tags[0]",
            "invalidation.rules[1].route",
        ];
        assert_eq!(fields, expected);
    }

    /// A contact, its organization and, where its kind is told, its region.
    fn of_contacts(fan_out_max: usize) -> (Invalidator, Journal) {
        let entities = [
            (
                "contact",
                InvalidationEntity::new(["id", "organization_id"])
                    .paths(["/contacts/{{id}}"])
                    .tags(["contact:{{id}}"])
                    .cascade("organization", [("id", "{{organization_id}}")]),
            ),
            (
                "organization",
                InvalidationEntity::new(["id"])
                    .patterns(["/organizations/{{id}}/*"])
                    .cascade("region", [("name", "eu")]),
            ),
            (
                "region",
                InvalidationEntity::new(["name"]).tags(["region:{{name}}"]),
            ),
        ];
        let config = InvalidationConfig {
            fan_out_max,
            entities: entities
                .map(|(name, entity)| (name.to_owned(), entity))
                .into(),
            ..InvalidationConfig::default()
        };
        let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
        let twin = journal.clone();
        let invalidator = Invalidator::new(&config, &[], twin, Events::none()).unwrap();
        (invalidator, journal)
    }

    #[test]
    fn a_change_by_hand_purges_its_whole_cascade_as_one_record() {
        let (invalidator, journal) = of_contacts(4);
        let born = journal.position();
        let given = [("organization_id", "3"), ("id", "a/b ä"), ("unknown", "")];
        let receipt = invalidator.changed("contact", &given).unwrap();
        assert_eq!((at(&receipt).seq, journal.position().seq), (1, 1));
        for (key, tag, holds) in [
            (
                "/contacts/a%2Fb%20%C3%A4",
                "/contacts/a%2Fb%20%C3%A4",
                false,
            ),
            ("/contacts/a", "/contacts/a", true),
            ("/x", "contact:a/b ä", false),
            ("/organizations/3/contacts", "", false),
            ("/organizations/33/contacts", "", true),
            ("/x", "region:eu", false),
            ("/x", "region:us", true),
        ] {
            let subject = Subject::of(key, &[tag.into()]);
            let held = journal.holds(born, &Checked::at(born), &subject);
            assert_eq!(held, holds, "{key} {tag}");
        }
    }

    #[test]
    fn a_change_that_cannot_be_named_in_full_says_why_and_records_nothing() {
        let (invalidator, journal) = of_contacts(256);
        let long = "x".repeat(300);
        let cases: [(&str, &[(&str, &str)], &str); 5] = [
            (
                "contacts",
                &[("id", "7")],
                "there is no entity \"contacts\"",
            ),
            (
                "contact",
                &[("id", "7")],
                "needs the variable \"organization_id\"",
            ),
            (
                "contact",
                &[("id", ""), ("organization_id", "3")],
                "the variable \"id\" of the entity \"contact\" is empty",
            ),
            (
                "contact",
                &[("id", "a\nb"), ("organization_id", "3")],
                "names \"contact:{{id}}\": a tag holds no control",
            ),
            (
                "contact",
                &[("id", &long), ("organization_id", "3")],
                "at most 256 bytes",
            ),
        ];
        for (entity, variables, says) in cases {
            let error = invalidator.changed(entity, variables).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        assert_eq!(journal.position().seq, 0);
    }

    #[test]
    fn an_exact_pattern_of_a_rule_purges_the_path_where_queries_are_rewritten() {
        for (rewritten, holds) in [(false, true), (true, false)] {
            let (_, journal) = invalidator();
            let config = InvalidationConfig {
                entities: [(
                    "a".to_owned(),
                    InvalidationEntity::new([""; 0]).patterns(["/a?b=1&utm=2"]),
                )]
                .into(),
                ..InvalidationConfig::default()
            };
            let born = journal.position();
            let invalidator = Invalidator::new(&config, &[], journal.clone(), Events::none());
            let invalidator = invalidator.unwrap().for_rewritten_keys(rewritten);
            drop(invalidator.changed("a", &[]).unwrap());
            let subject = Subject::of("/a?b=1", &["/a".into()]);
            let held = journal.holds(born, &Checked::at(born), &subject);
            assert_eq!(held, holds, "rewritten: {rewritten}");
        }
    }
}
