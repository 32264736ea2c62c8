//! Faults of a configuration: each names its field, the value it met and what would have been right.
//!
//! Checking collects [`Fault`]s instead of stopping at the first, so that whoever starts a service
//! for the first time mends the whole configuration in one go.

use std::fmt;

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting, as a path through the configuration (`cache.capacity_bytes`) or the name of the
    /// environment variable that carried the value.
    pub field: String,
    /// The value that was met, as text.
    pub value: String,
    /// What is allowed, in words: a range with units, or the forms that parse.
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.field, self.value, self.allowed)
    }
}

/// Why a configuration was refused: every fault that was found in it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    faults: Vec<Fault>,
}

impl ConfigError {
    /// An error of a single fault.
    #[must_use]
    pub fn one(
        field: impl Into<String>,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        let mut faults = Faults::new();
        faults.add(field, value, allowed);
        Self {
            faults: faults.found,
        }
    }

    /// All faults, in the order in which they were found.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid configuration")?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// The same as `Display`: an error that `main` returns is printed by its `Debug`, and whoever starts a
/// service should read there what to mend.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The faults found so far.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    found: Vec<Fault>,
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `field` holds `value` where only `allowed` would do.
    pub fn add(
        &mut self,
        field: impl Into<String>,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) {
        let (field, value, allowed) = (field.into(), value.to_string(), allowed.into());
        self.found.push(Fault {
            field,
            value,
            allowed,
        });
    }

    /// Notes a fault unless `value` lies in `range`; `unit` is said with the range.
    pub fn within<T>(
        &mut self,
        field: impl Into<String>,
        value: T,
        range: std::ops::RangeInclusive<T>,
        unit: &str,
    ) where
        T: PartialOrd + fmt::Display,
    {
        if !range.contains(&value) {
            let allowed = format!("must be {} to {} {unit}", range.start(), range.end());
            self.add(field, value, allowed.trim_end());
        }
    }

    /// Notes a fault unless the duration lies in `range`, both ends included.
    pub fn within_time(
        &mut self,
        field: impl Into<String>,
        value: std::time::Duration,
        range: std::ops::RangeInclusive<std::time::Duration>,
    ) {
        if !range.contains(&value) {
            let allowed = format!("must be {:?} to {:?}", range.start(), range.end());
            self.add(field, format!("{value:?}"), allowed);
        }
    }

    /// Takes over the faults of an error that another check has made, but for those known already.
    pub fn absorb(&mut self, error: ConfigError) {
        for fault in error.faults {
            if !self.found.contains(&fault) {
                self.found.push(fault);
            }
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was found as an error, for where something surely was.
    #[must_use]
    pub fn into_error(self) -> ConfigError {
        ConfigError { faults: self.found }
    }

    /// `Ok` if nothing was found.
    ///
    /// # Errors
    ///
    /// All faults as one [`ConfigError`].
    pub fn into_result(self) -> Result<(), ConfigError> {
        if self.found.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { faults: self.found })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named_with_field_value_and_range() {
        let mut faults = Faults::new();
        faults.within("guard.slots", 0, 1..=10_000, "slots");
        faults.within("cache.shards", 4, 1..=8, "");
        faults.add("redis.url", "htp://x", "must begin with redis://");
        let error = faults.into_result().unwrap_err();
        assert_eq!(error.faults().len(), 2);
        assert_eq!(
            error.to_string(),
            "invalid configuration\n  guard.slots = 0: must be 1 to 10000 slots\n  \
             redis.url = htp://x: must begin with redis://"
        );
    }
}
