//! What a service tells the builder in code: who is calling, and what tells its answers apart.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::admin::Access;
use crate::alerts::{AlertHandler, AlertRule};
use crate::cache::KeyPart;
use crate::guard::Criticality;
use crate::health::HealthCheck;
use crate::identity::{ApiKeyResolver, Caller, CallerResolver, RequestView, ResponseView};
use crate::invalidation::{Supplier, Variables};
use crate::keep::builder::KeepBuilder;
use crate::rate_limit::RefusalWriter;

impl KeepBuilder {
    /// Supplies variables to the invalidation rules, from a request and its answer; see
    /// [`Invalidator::variables`](crate::invalidation::Invalidator::variables).
    ///
    /// ```
    /// # use tower_keep::invalidation::Variables;
    /// # use tower_keep::{Keep, Profile};
    /// #[derive(Clone)]
    /// struct Tenant(u64); // which a layer around the keep's leaves with each request
    ///
    /// let keep = Keep::builder(Profile::azure_b1()).invalidation_variables(|request, _response| {
    ///     match request.extensions.get::<Tenant>() {
    ///         Some(Tenant(id)) => Variables::new().set("tenant", id),
    ///         None => Variables::new(),
    ///     }
    /// });
    /// # let _ = keep;
    /// ```
    pub fn invalidation_variables(
        mut self,
        supply: impl Fn(&RequestView<'_>, &ResponseView<'_>) -> Variables + Send + Sync + 'static,
    ) -> Self {
        self.invalidation_variables = Some(Supplier::new(supply));
        self
    }

    /// Says who is calling, for limits per caller and tier. Asked once per request, on its thread:
    /// look into fields and extensions, not into a database.
    pub fn callers(
        mut self,
        resolve: impl Fn(&RequestView<'_>) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.callers = CallerResolver::new(resolve);
        self
    }

    /// Says with which API key a request was let in, for limits of the scope `api_key`. Asked at most once per
    /// request, on its thread. Whatever is returned is believed: check the key, or let whoever checks it
    /// leave an [`ApiKey`](crate::identity::ApiKey) in the request's extensions instead.
    pub fn api_keys(
        mut self,
        resolve: impl for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    ) -> Self {
        self.api_keys = ApiKeyResolver::new(resolve);
        self
    }

    /// Says how important a request is, where not everybody can be served: who waits the least, and who is
    /// served when memory is critical. Asked only then, on the request's thread; `None` leaves it to the rule
    /// of its route ([`GuardConfig::rules`](crate::guard::GuardConfig)).
    pub fn criticality(
        mut self,
        judge: impl Fn(&RequestView<'_>) -> Option<Criticality> + Send + Sync + 'static,
    ) -> Self {
        self.claims = self.claims.judge(judge);
        self
    }

    /// Hands what the rate limiter refuses to `write` before it is sent: it may change status, fields and body.
    /// It must not block.
    pub fn rate_limit_refusals(
        mut self,
        write: impl Fn(Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.refusals = RefusalWriter::new(write);
        self
    }

    /// Says what else than host, path and query tells stored answers apart: the tenant, say. `None` sends a
    /// request past the cache. Asked for each GET, HEAD and POST, on its thread.
    ///
    /// ```
    /// # use tower_keep::{Keep, Profile};
    /// let keep = Keep::builder(Profile::azure_b1()).cache_key(|request| {
    ///     let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
    ///     Some(tenant.into())
    /// });
    /// # let _ = keep;
    /// ```
    pub fn cache_key(
        mut self,
        part: impl Fn(&RequestView<'_>) -> Option<Arc<str>> + Send + Sync + 'static,
    ) -> Self {
        self.cache_key = Some(KeyPart::new(part));
        self
    }

    /// Adds a rule of alerts, in the place of a built-in one of its name.
    pub fn alert(mut self, rule: AlertRule) -> Self {
        self.config.alerts.rules.push(rule);
        self
    }

    /// Adds somebody who is told of alerts: a closure that returns a future, or a
    /// [`Webhook`](crate::alerts::Webhook). If it holds a clone of the `Keep`, neither is ever freed.
    pub fn on_alert(mut self, handler: impl AlertHandler) -> Self {
        self.alert_handlers.push(Box::new(handler));
        self
    }

    /// Says who may see details and change things at the operator's endpoints, beside those who bring the
    /// configured token along. Asked on the request's thread, which it must not block; see
    /// [`AdminAuth::asking`](crate::admin::AdminAuth::asking).
    ///
    /// ```
    /// # use tower_keep::admin::Access;
    /// # use tower_keep::{Keep, Profile};
    /// #[derive(Clone)]
    /// struct Operator; // which a layer around the endpoints leaves with requests of operators
    ///
    /// let keep = Keep::builder(Profile::azure_b1()).admin_auth(|request| {
    ///     match request.extensions.get::<Operator>() {
    ///         Some(Operator) => Access::Allow,
    ///         None => Access::Deny,
    ///     }
    /// });
    /// # let _ = keep;
    /// ```
    pub fn admin_auth(
        mut self,
        ask: impl Fn(&RequestView<'_>) -> Access + Send + Sync + 'static,
    ) -> Self {
        self.hooks.admin = self.hooks.admin.asking(ask);
        self
    }

    /// Gives the allocator's free memory back to the machine. Without it, what a cache evicts under memory
    /// pressure stays with the allocator, and the process is as large as before.
    ///
    /// Called while the pressure is high (from 85 % of the budget on): after caches have shrunk, then at most
    /// once in `guard.purge_every_ms` (30 s), never twice at once, and on a thread for blocking work, so it
    /// may take its time. What it has brought is told as
    /// [`MemoryRelieved`](crate::event::Event::MemoryRelieved); a panic is told as a warning.
    ///
    /// With the feature `glibc-trim`, on Linux with glibc, `malloc_trim` is the default. With other
    /// allocators it is three lines. jemalloc, by the crate `tikv-jemalloc-sys` (4096 stands for all arenas):
    ///
    /// ```ignore
    /// keep.purge_memory(|| unsafe {
    ///     let (none, name) = (std::ptr::null_mut(), c"arena.4096.purge");
    ///     tikv_jemalloc_sys::mallctl(name.as_ptr(), none, none.cast(), none, 0);
    /// })
    /// ```
    ///
    /// and mimalloc, by `libmimalloc-sys`:
    ///
    /// ```ignore
    /// keep.purge_memory(|| unsafe {
    ///     libmimalloc_sys::mi_collect(true);
    /// })
    /// ```
    pub fn purge_memory(mut self, purge: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.purge = Some(Arc::new(purge));
        self
    }

    /// Adds a check that runs in the background; see [`HealthCheck`]. What needs the built stack, such as its
    /// pools, is added with [`Keep::add_health_check`](crate::Keep::add_health_check) afterwards.
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.health_checks.push(check);
        self
    }
}
