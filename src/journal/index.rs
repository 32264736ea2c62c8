//! Patterns that were invalidated, and when.

use std::sync::Arc;

use crate::pattern::Pattern;

/// A list for now.
#[derive(Debug)]
pub(crate) struct PatternIndex {
    patterns: Vec<(u64, Option<u64>, Arc<Pattern>)>,
    max: usize,
}

impl PatternIndex {
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            patterns: Vec::new(),
            max,
        }
    }
    pub(crate) fn insert(
        &mut self,
        seq: u64,
        tenant: Option<u64>,
        pattern: &Arc<Pattern>,
    ) -> Option<u64> {
        let known = self
            .patterns
            .iter_mut()
            .find(|(_, of, p)| *of == tenant && p == pattern);
        match known {
            Some(known) => known.0 = known.0.max(seq),
            None => self.patterns.push((seq, tenant, Arc::clone(pattern))),
        }
        if self.patterns.len() > self.max {
            self.patterns.sort_by_key(|(seq, ..)| *seq);
            let half = self.patterns.len() / 2;
            return self.patterns.drain(..half).map(|(seq, ..)| seq).max();
        }
        None
    }
    pub(crate) fn any_younger(&self, born: u64, tenant: Option<u64>, key: &str) -> bool {
        self.patterns
            .iter()
            .any(|(seq, of, p)| *seq > born && (of.is_none() || *of == tenant) && p.matches(key))
    }
    pub(crate) fn forget_until(&mut self, until: u64) {
        self.patterns.retain(|(seq, ..)| *seq > until);
    }
    pub(crate) fn clear(&mut self) {
        self.patterns.clear();
    }
    pub(crate) fn len(&self) -> usize {
        self.patterns.len()
    }
    pub(crate) fn bytes(&self) -> usize {
        self.patterns.len() * 100
    }
}
