//! Figures by name: looked up without lock or allocation, bounded whatever the names are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

/// What counts for all names beyond the bound.
pub(crate) const OTHER: &str = "other";

type Rows<T> = HashMap<Arc<str>, Arc<T>, RandomState>;

/// A row of figures for each of the first so many names, and one named `other` for all the rest.
///
/// The map is copied when a new name turns up, which happens as often as there are names; reading it
/// is one atomic load and one lookup.
#[derive(Debug)]
pub(crate) struct Named<T> {
    rows: ArcSwap<Rows<T>>,
    /// Held while the map is copied, so that no copy is made twice.
    adding: Mutex<()>,
    names_max: usize,
}

impl<T: Default> Named<T> {
    /// No names yet, and at most `names_max` of them ever, `other` not counted.
    pub(crate) fn new(names_max: usize) -> Self {
        Self {
            rows: ArcSwap::default(),
            adding: Mutex::default(),
            names_max,
        }
    }

    /// Shows the row of `name` to `read`.
    #[inline]
    pub(crate) fn with<R>(&self, name: &str, read: impl FnOnce(&T) -> R) -> R {
        if let Some(row) = self.rows.load().get(name) {
            return read(row);
        }
        read(&self.add(name))
    }

    /// The row of `name` or, if there is no place for another, that of [`OTHER`].
    #[cold]
    pub(crate) fn add(&self, name: &str) -> Arc<T> {
        if let Some(row) = self.find(name) {
            return row;
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = self.find(name) {
            return row;
        }
        let mut rows = Rows::clone(&self.rows.load());
        let name = if rows.len() < self.names_max {
            name
        } else {
            OTHER
        };
        let row = Arc::<T>::default();
        rows.insert(name.into(), Arc::clone(&row));
        self.rows.store(Arc::new(rows));
        row
    }

    /// What `name` goes by: itself, or [`OTHER`] if it came too late for a row of its own.
    pub(crate) fn label<'a>(&self, name: &'a str) -> &'a str {
        match self.rows.load().contains_key(name) {
            true => name,
            false => OTHER,
        }
    }

    /// All rows, by name.
    pub(crate) fn rows(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let rows = self.rows.load();
        let mut rows: Vec<_> = rows
            .iter()
            .map(|(name, row)| (Arc::clone(name), Arc::clone(row)))
            .collect();
        rows.sort_by(|(one, _), (two, _)| one.cmp(two));
        rows
    }

    /// The row that is there for `name` already.
    fn find(&self, name: &str) -> Option<Arc<T>> {
        let rows = self.rows.load();
        let full = rows.len() >= self.names_max;
        let row = rows
            .get(name)
            .or_else(|| full.then(|| rows.get(OTHER)).flatten());
        row.map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn counts(named: &Named<AtomicU64>) -> Vec<(String, u64)> {
        let rows = named.rows();
        let row = |(name, count): &(Arc<str>, Arc<AtomicU64>)| {
            ((**name).to_owned(), count.load(Ordering::Relaxed))
        };
        rows.iter().map(row).collect()
    }

    fn count(named: &Named<AtomicU64>, name: &str) {
        named.with(name, |row| row.fetch_add(1, Ordering::Relaxed));
    }

    #[test]
    fn names_beyond_the_bound_share_one_row() {
        let named = Named::new(2);
        for name in ["b", "a", "c", "d", "a", "c"] {
            count(&named, name);
        }
        let expected = [("a", 2), ("b", 1), ("other", 3)].map(|(n, c)| (n.to_owned(), c));
        assert_eq!(counts(&named), expected);
    }

    #[test]
    fn a_name_that_happens_to_be_other_makes_no_second_row() {
        let named = Named::new(2);
        for name in ["other", "a", "b", "c"] {
            count(&named, name);
        }
        let expected = [("a", 1), ("other", 3)].map(|(n, c)| (n.to_owned(), c));
        assert_eq!(counts(&named), expected);
    }

    #[test]
    fn nothing_is_lost_while_many_threads_add_names() {
        let named = Named::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for name in 0..100 {
                        count(&named, &name.to_string());
                    }
                });
            }
        });
        let counts = counts(&named);
        assert_eq!(counts.len(), 100);
        assert!(counts.iter().all(|(_, count)| *count == 4));
    }
}
