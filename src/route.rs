//! Which requests a rule speaks of: a path template and a set of methods.
//!
//! Templates are axum's: `/contacts/{id}`, `/files/{*path}`. The matching itself is `matchit`'s, the
//! router inside axum, so that a template means here what it means there. Every rule owns its own
//! matcher, because several rules may well speak of the same path.

use std::sync::Arc;

use http::Method;

use crate::identity::RequestView;

/// A path template with the methods it stands for.
#[derive(Clone, Debug)]
pub struct Route {
    template: Arc<str>,
    /// Empty: any method.
    methods: Vec<Method>,
    matcher: matchit::Router<()>,
}

/// What the variables of a template stood for, in the order of the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathVars<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl Route {
    /// A route for `template` and `methods`; no methods means all of them.
    ///
    /// # Errors
    ///
    /// Says in words what is wrong with the template.
    pub fn new(template: &str, methods: &[Method]) -> Result<Self, String> {
        if !template.starts_with('/') {
            return Err("must be a path template that begins with `/`".to_owned());
        }
        let mut matcher = matchit::Router::new();
        matcher
            .insert(template, ())
            .map_err(|error| format!("is no path template: {error}"))?;
        Ok(Self {
            template: template.into(),
            methods: methods.to_vec(),
            matcher,
        })
    }

    /// The template as it was given.
    #[must_use]
    pub const fn template(&self) -> &Arc<str> {
        &self.template
    }

    /// Whether the request's method and path are this route's.
    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.allows(request.method) && self.matcher.at(request.uri.path()).is_ok()
    }

    /// The path's variables if the request is this route's.
    #[must_use]
    pub fn vars<'a>(&'a self, request: &RequestView<'a>) -> Option<PathVars<'a>> {
        if !self.allows(request.method) {
            return None;
        }
        let found = self.matcher.at(request.uri.path()).ok()?;
        Some(PathVars {
            pairs: found.params.iter().collect(),
        })
    }

    /// The names of the template's variables.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        variables(&self.template)
    }

    fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }
}

impl<'a> PathVars<'a> {
    /// What the variable `name` stood for, as it was in the path (not percent-decoded).
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.pairs
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }
}

/// The `{name}` and `{*name}` of a template; `{{` and `}}` stand for the braces themselves.
fn variables(template: &str) -> Vec<String> {
    let plain = template.replace("{{", "").replace("}}", "");
    plain
        .split('{')
        .skip(1)
        .filter_map(|part| part.split_once('}'))
        .map(|(name, _)| name.trim_start_matches('*').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str) -> http::Request<()> {
        http::Request::builder()
            .method(method)
            .uri(path)
            .body(())
            .unwrap()
    }

    #[test]
    fn a_route_matches_by_method_and_template() {
        let route = Route::new("/contacts/{id}", &[Method::PUT, Method::DELETE]).unwrap();
        let put = request(Method::PUT, "/contacts/7?x=1");
        let vars = route.vars(&RequestView::of(&put)).unwrap();
        assert_eq!(vars.value("id"), Some("7"));
        assert_eq!(vars.value("other"), None);
        assert!(!route.matches(&RequestView::of(&request(Method::GET, "/contacts/7"))));
        assert!(!route.matches(&RequestView::of(&request(Method::PUT, "/contacts/7/notes"))));
    }

    #[test]
    fn no_methods_means_any() {
        let route = Route::new("/files/{*path}", &[]).unwrap();
        let odd = Method::from_bytes(b"PURGE").unwrap();
        assert!(route.matches(&RequestView::of(&request(odd, "/files/a/b"))));
    }

    #[test]
    fn a_template_that_is_none_says_why() {
        assert!(
            Route::new("contacts", &[])
                .unwrap_err()
                .contains("begins with `/`")
        );
        assert!(
            Route::new("/a/{", &[])
                .unwrap_err()
                .contains("no path template")
        );
    }

    #[test]
    fn variables_are_listed_without_braces_and_stars() {
        assert_eq!(
            Route::new("/o/{org}/f/{*rest}", &[]).unwrap().variables(),
            ["org", "rest"]
        );
        assert!(Route::new("/plain", &[]).unwrap().variables().is_empty());
    }
}
