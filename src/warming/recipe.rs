//! How something stored is made again: which key of which cache, for whom.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::encoding::{Place, encoded};

/// A key of a cache, by which what it stands for can be computed again, also by an instance that has never
/// seen it. Cheap to clone.
///
/// Its text is the cache and the key, or the cache, the tenant and the key, parted by colons; what is in them
/// is percent-encoded. No two recipes have the same text, and each has one.
///
/// ```
/// use tower_keep::warming::Recipe;
///
/// # fn main() -> Result<(), tower_keep::warming::RecipeError> {
/// let recipe = Recipe::new("reports", Some("acme"), "2026:01")?;
/// assert_eq!(recipe.to_string(), "reports:acme:2026%3A01");
/// assert_eq!("reports:acme:2026%3A01".parse(), Ok(recipe));
/// assert_eq!(Recipe::new("reports", None, "7")?.to_string(), "reports:7");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipe {
    cache: Arc<str>,
    tenant: Option<Arc<str>>,
    key: Arc<str>,
}

/// Why something is no recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// It does not name a cache.
    #[error("a recipe names its cache")]
    NoCache,
    /// Its text would have more than 2,048 bytes. Such a key is stored like any other, but nobody learns it.
    #[error("the text of a recipe has at most {TEXT_MAX} bytes")]
    TooLong,
    /// The text is not how a recipe is written.
    #[error("not a recipe: `cache:key` or `cache:tenant:key`, percent-encoded")]
    Malformed,
}

/// How many bytes the text of a recipe may have. A thousand of them are kept, here and in Redis.
const TEXT_MAX: usize = 2_048;

impl Recipe {
    /// The recipe for `key` of the cache named `cache`, for one tenant or for all.
    ///
    /// # Errors
    ///
    /// Without a cache's name, and when its text would have more than 2,048 bytes.
    pub fn new(
        cache: impl Into<Arc<str>>,
        tenant: Option<&str>,
        key: impl Into<Arc<str>>,
    ) -> Result<Self, RecipeError> {
        let (cache, tenant, key) = (cache.into(), tenant.map(Arc::from), key.into());
        if cache.is_empty() {
            return Err(RecipeError::NoCache);
        }
        // Before it is encoded: nothing gets shorter by that.
        let raw = cache.len() + tenant.as_deref().map_or(0, str::len) + key.len();
        let recipe = Self { cache, tenant, key };
        if raw > TEXT_MAX || recipe.to_string().len() > TEXT_MAX {
            return Err(RecipeError::TooLong);
        }
        Ok(recipe)
    }

    /// The cache's name.
    #[must_use]
    pub fn cache(&self) -> &str {
        &self.cache
    }

    /// Whose it is; `None` where it is the same for everybody.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The key's text.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encoded(&self.cache, Place::Name))?;
        if let Some(tenant) = &self.tenant {
            write!(f, ":{}", encoded(tenant, Place::Name))?;
        }
        write!(f, ":{}", encoded(&self.key, Place::Name))
    }
}

impl std::str::FromStr for Recipe {
    type Err = RecipeError;

    /// Reads what `Display` writes, and nothing else: a text that would be written differently is refused, or
    /// one key would be known by many names.
    fn from_str(text: &str) -> Result<Self, RecipeError> {
        if text.len() > TEXT_MAX {
            return Err(RecipeError::TooLong);
        }
        let parts: Vec<&str> = text.splitn(4, ':').collect();
        let (cache, tenant, key) = match *parts {
            [cache, key] => (cache, None, key),
            [cache, tenant, key] => (cache, Some(decoded(tenant)?), key),
            _ => return Err(RecipeError::Malformed),
        };
        let recipe = Self::new(decoded(cache)?, tenant.as_deref(), decoded(key)?)?;
        if recipe.to_string() == text {
            Ok(recipe)
        } else {
            Err(RecipeError::Malformed)
        }
    }
}

fn decoded(part: &str) -> Result<String, RecipeError> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| RecipeError::Malformed)?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nobody_and_a_tenant_without_a_name_are_two() {
        let nobody = Recipe::new("a", None, "b").unwrap();
        let nameless = Recipe::new("a", Some(""), "b").unwrap();
        assert_eq!(nobody.to_string(), "a:b");
        assert_eq!(nameless.to_string(), "a::b");
        assert_eq!("a::b".parse(), Ok(nameless));
        assert_eq!("a:".parse(), Recipe::new("a", None, ""));
    }

    #[test]
    fn what_is_no_recipe_is_refused_with_a_reason() {
        use RecipeError::{Malformed, NoCache, TooLong};
        for (text, reason) in [
            ("", Malformed),
            ("a", Malformed),
            ("a:b:c:d", Malformed),
            (":b", NoCache),
            ("a:%", Malformed),
            ("a:%4", Malformed),
            ("a:%61", Malformed), // an `a` is written as such
            ("a:%2f", Malformed), // digits are upper case
            ("a:%FF", Malformed), // no UTF-8
            ("a:b c", Malformed),
            ("a:ä", Malformed),
        ] {
            assert_eq!(text.parse::<Recipe>(), Err(reason), "{text}");
        }
        let long = "x".repeat(TEXT_MAX - 1);
        assert_eq!(format!("a:{long}").parse::<Recipe>(), Err(TooLong));
        assert_eq!(Recipe::new("a", None, long), Err(TooLong));
        // Three bytes for each when it is written.
        assert_eq!(Recipe::new("a", None, ":".repeat(700)), Err(TooLong));
        assert!(Recipe::new("a", None, ":".repeat(682)).is_ok());
    }

    proptest! {
        #[test]
        fn every_recipe_is_read_as_it_was_written(
            cache in ".{1,20}", tenant in proptest::option::of(".{0,20}"), key in "(.|[:%/\n\0]){0,20}",
        ) {
            let recipe = Recipe::new(cache, tenant.as_deref(), key).unwrap();
            prop_assert_eq!(recipe.to_string().parse(), Ok(recipe));
        }

        #[test]
        fn a_hostile_text_is_refused_or_is_the_one_text_of_its_recipe(text in "([ab:%]|%[0-9A-F]{2}|.){0,30}") {
            if let Ok(recipe) = text.parse::<Recipe>() {
                prop_assert_eq!(recipe.to_string(), text);
            }
        }
    }
}
