//! What goes wrong, as problem details (RFC 9457): every answer of 400 and above looks the same.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer that tells the client what it did wrong, or that we did.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<Fault>,
}

/// One thing wrong with one field of a body.
#[derive(Debug, Serialize)]
pub(crate) struct Fault {
    field: &'static str,
    detail: &'static str,
}

impl Fault {
    pub(crate) const fn new(field: &'static str, detail: &'static str) -> Self {
        Self { field, detail }
    }
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// 400: the target or its query is not what it should be.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    pub(crate) fn not_found(what: &str, id: i64) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {id}"))
    }

    /// 422: the body was read, but what it says cannot be.
    pub(crate) fn unprocessable(errors: Vec<Fault>) -> Self {
        Self {
            errors,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "some fields are not valid",
            )
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            title: &'static str,
            status: u16,
            detail: String,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            errors: Vec<Fault>,
        }
        let body = Body {
            title: self.status.canonical_reason().unwrap_or("Problem"),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (self.status, Json(body)).into_response();
        let fields = response.headers_mut();
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.status {
            // RFC 9110 §15.5.2: a 401 names a way to sign in.
            StatusCode::UNAUTHORIZED => {
                let way = HeaderValue::from_static(r#"ApiKey realm="crm""#);
                fields.insert(header::WWW_AUTHENTICATE, way);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// The client learns no more than that it was not its fault; the details go to the log.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::PoolTimedOut = error {
            return Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the database is busy, come back in a moment",
            );
        }
        if let Some(refused) = error.as_database_error() {
            if refused.is_unique_violation() {
                let detail = "another contact has this email address";
                return Self::new(StatusCode::CONFLICT, detail);
            }
            if refused.is_foreign_key_violation() {
                let fault = Fault::new("organization_id", "there is no such organization");
                return Self::unprocessable(vec![fault]);
            }
        }
        eprintln!("database: {error}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "something went wrong here",
        )
    }
}

/// A body that is no JSON and one that is the wrong JSON are one thing to a client: 422. Too large
/// (413), of another type (415) and broken off (400) stay what they are.
impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let status = match rejection {
            JsonRejection::JsonSyntaxError(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ref other => other.status(),
        };
        Self::new(status, rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), "an id is a whole number")
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// 404 for paths that are no route.
pub(crate) async fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

/// 405 for methods that a route does not have; axum adds `Allow`.
pub(crate) async fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "the Allow field lists what can be done here",
    )
}
