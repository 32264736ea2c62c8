//! Fields whose value is a list (RFC 9110 §5.6.1).

use http::{HeaderMap, HeaderName};

/// The names of fields that all lines of `field` list, as `Connection` and `Vary` do. What is no name is
/// passed over: no message can have a field of it.
pub(crate) fn listed_names(
    headers: &HeaderMap,
    field: &HeaderName,
) -> impl Iterator<Item = HeaderName> {
    let lines = headers.get_all(field).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}
