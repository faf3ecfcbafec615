//! The calls of the API: each is said once, and both the router and the `OpenAPI` document are made from that.

use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter, on},
};
use serde::Serialize;
use serde_json::Value;

use super::server::Server;

/// One method of one path.
pub(super) struct Call {
    pub(super) method: Method,
    /// Parameters in braces; one name per kind of thing.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) credential: Credential,
    /// Names of parameters in the query; all may be left out.
    pub(super) query: &'static [&'static str],
    /// The body with nothing in it, from which its schema is made; `None` if no body is read.
    pub(super) takes: Option<Value>,
    handler: MethodRouter<Server>,
}

/// What a caller must prove itself with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// The master key or a user's session.
    Administrator,
    /// A host's session or the master key.
    Host,
    /// Nothing, or something in the path or the body.
    None,
}

impl Call {
    pub(super) fn delete<H: Handler<T, Server>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::DELETE, path, on(MethodFilter::DELETE, handler), summary)
    }

    pub(super) fn get<H: Handler<T, Server>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::GET, path, on(MethodFilter::GET, handler), summary)
    }

    pub(super) fn patch<H: Handler<T, Server>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::PATCH, path, on(MethodFilter::PATCH, handler), summary)
    }

    pub(super) fn post<H: Handler<T, Server>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::POST, path, on(MethodFilter::POST, handler), summary)
    }

    pub(super) fn put<H: Handler<T, Server>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::PUT, path, on(MethodFilter::PUT, handler), summary)
    }

    fn new(method: Method, path: &'static str, handler: MethodRouter<Server>, summary: &'static str) -> Self {
        Self { method, path, summary, credential: Credential::Administrator, query: &[], takes: None, handler }
    }

    /// Says who may call; administrators, unless this is said.
    pub(super) fn by(self, credential: Credential) -> Self {
        Self { credential, ..self }
    }

    /// Says what may be in the query.
    pub(super) fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    /// Says what the body is, by one with nothing in it; several are one body with the fields of all.
    pub(super) fn takes<T: Default + Serialize>(mut self) -> Self {
        let blank = serde_json::to_value(T::default()).unwrap_or_default();
        self.takes = Some(match (self.takes, blank) {
            (Some(Value::Object(mut fields)), Value::Object(more)) => {
                fields.extend(more);
                Value::Object(fields)
            }
            (_, blank) => blank,
        });
        self
    }
}

/// Makes the router.
pub(super) fn router(calls: Vec<Call>) -> Router<Server> {
    calls.into_iter().fold(Router::new(), |router, call| router.route(call.path, call.handler))
}
