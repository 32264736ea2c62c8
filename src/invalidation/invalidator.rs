//! The engine: rules and calls become records of the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::identity::RequestView;
use crate::invalidation::config::InvalidationConfig;
use crate::invalidation::invalidate::Invalidate;
use crate::invalidation::plan::Plan;
use crate::invalidation::target::{Target, TargetError};
use crate::journal::{Appending, Journal, Marker};
use crate::pattern::Pattern;

/// Purges. Cheap to clone; all clones speak to one journal. See the
/// [module](crate::invalidation) for what entries are named by and for an example.
///
/// Each call is one record. When it returns, no entry that it names and whose computation began
/// before is served again; it takes time by the number of targets, not of entries.
#[derive(Clone, Debug)]
pub struct Invalidator {
    shared: Arc<Shared>,
    keys_are_rewritten: bool,
}

#[derive(Debug)]
struct Shared {
    enabled: bool,
    plans: Vec<Plan>,
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
        let plans = config.compile("invalidation", &mut faults);
        config.check_routes("invalidation", known_routes, &mut faults);
        faults.into_result()?;
        Ok(Self {
            keys_are_rewritten: false,
            shared: Arc::new(Shared {
                enabled: config.enabled,
                plans,
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

    /// Purges the one entry of this key: an exact path and query.
    pub fn purge(&self, key: &str) -> Appending {
        self.purge_all(&[Target::key(key)])
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
        let rewritten = self.keys_are_rewritten;
        let targets = targets.iter().cloned();
        let targets = targets.map(|one| if rewritten { one.rewritten() } else { one });
        self.append(&targets.map(Target::into_marker).collect::<Vec<_>>())
    }

    /// Purges every entry.
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
        self.shared.journal.append(markers)
    }

    /// What the rules say that this request makes old, once it is carried out. Allocates nothing
    /// if no rule matches.
    pub(crate) fn named_by(&self, request: &RequestView<'_>) -> Vec<Marker> {
        let mut markers = Vec::new();
        for plan in &self.shared.plans {
            if let Some(text) = plan.name(request, &mut markers) {
                self.shared.events.emit(Event::Warning { text: &text });
            }
        }
        markers
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
}
