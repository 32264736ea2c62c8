//! The host that a request is sent to.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderMap, Uri};

/// Host and port, in lower case (RFC 3986 §3.2.2: "the host subcomponent is case-insensitive"), and
/// without the password that may stand before them.
pub(crate) fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        // Whoever drives a connection by hand sends the path alone, and the host in its field.
        None => headers.get(HOST)?.to_str().ok()?,
    };
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    (!host.is_empty()).then_some(Cow::Borrowed(host))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_host_is_in_lower_case_with_its_port_and_without_a_password() {
        for (uri, host, expected) in [
            ("https://api.example.com/v1", "", Some("api.example.com")),
            (
                "https://API.Example.com:8443/v1",
                "",
                Some("api.example.com:8443"),
            ),
            ("http://user:secret@[::1]:80/", "", Some("[::1]:80")),
            ("http://one.test/", "other.test", Some("one.test")),
            ("/v1", "Api.example.com", Some("api.example.com")),
            ("/v1", "", None),
        ] {
            let request = Request::get(uri).header(HOST, host).body(()).unwrap();
            let name = authority(request.uri(), request.headers());
            assert_eq!(name.as_deref(), expected, "{uri} {host}");
        }
    }
}
