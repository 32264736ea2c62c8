//! What a stored answer can be invalidated by.

use http::{Extensions, HeaderMap};

use crate::cache::engine::Cache;
use crate::cache::key::{CacheKey, path};
use crate::cache::plan::RoutePlan;
use crate::cache::say::{CacheTags, TAG_BYTES_MAX};
use crate::journal::Subject;
use crate::target::normal_form;

/// The tags of an answer: those of its route, those that the handler gave in code, and those that its
/// `Surrogate-Key` and `Cache-Tag` fields list, separated by spaces or commas.
pub(crate) fn tags_of(
    cache: &Cache,
    extensions: &Extensions,
    headers: &HeaderMap,
    route: Option<&RoutePlan>,
) -> CacheTags {
    let said = extensions.get::<CacheTags>().cloned();
    let of_route = route.map(RoutePlan::tags);
    let all = match (of_route, said) {
        (Some(route), Some(said)) => route.and(&said),
        (Some(tags), None) => tags.clone(),
        (None, said) => said.unwrap_or_default(),
    };
    if lists_tags(cache, headers) {
        all.and(&listed(cache, headers))
    } else {
        all
    }
}

/// Whether an answer has a field that lists tags.
pub(crate) fn lists_tags(cache: &Cache, headers: &HeaderMap) -> bool {
    let mut fields = cache.tag_fields().iter();
    fields.any(|name| headers.contains_key(name))
}

fn listed(cache: &Cache, headers: &HeaderMap) -> CacheTags {
    let lines = cache
        .tag_fields()
        .iter()
        .flat_map(|name| headers.get_all(name));
    // A tag is text; one that is not could not be named by a purge.
    let texts = lines.map(|line| std::str::from_utf8(line.as_bytes()).unwrap_or(NO_TAG));
    CacheTags::new(texts.flat_map(|line| {
        let tags = line.split([',', ' ', '\t']);
        tags.filter(|tag| !tag.is_empty())
    }))
}

/// What an answer can be invalidated by: its target, its path and its tags, the namespace of the HTTP cache,
/// and where there is a part of the key besides host and target, that as its tenant.
pub(crate) fn subject(key: &CacheKey, tags: &CacheTags) -> Subject {
    let target = normal_form(key.target());
    let names = std::iter::once(path(&target)).chain(tags.tags().iter().map(|tag| &**tag));
    let subject = Subject::named(&*target, names, Some(HTTP_NAMESPACE));
    match key.part() {
        Some(tenant) => subject.of_tenant(tenant),
        None => subject,
    }
}

/// The namespace of everything in the HTTP cache. An invalidation of this namespace leaves alone what is
/// stored under others.
pub const HTTP_NAMESPACE: &str = "http";

/// Too long to be kept, so that whoever has it is not stored.
const NO_TAG: &str = match std::str::from_utf8(&[b'?'; TAG_BYTES_MAX + 1]) {
    Ok(text) => text,
    Err(_) => "",
};
