//! What is changed by hand, and what is asked about somebody.

use std::net::{IpAddr, SocketAddr};

use http::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::auth::AdminAuth;
use crate::admin::intake::Unread;
use crate::admin::sources::AdminEngines;
use crate::identity::{Caller, PeerAddr, RequestView};
use crate::invalidation::Target;
use crate::pattern::Pattern;
use crate::rate_limit::Decision;
use crate::target::normal_form;
use crate::warming::Recipe;

/// What to purge. Everything that is named goes as one record.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Purge {
    keys: Vec<String>,
    paths: Vec<String>,
    tags: Vec<String>,
    patterns: Vec<String>,
    all: bool,
    tenant: Option<String>,
    soft: bool,
}

/// What to compute ahead of time.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Warm {
    recipes: Vec<String>,
    user: Option<String>,
}

/// Whose ban to end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unban {
    who: String,
}

/// Of whom to tell how they stand, and with which request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peek {
    pub(crate) who: String,
    #[serde(default)]
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) path: Option<String>,
    #[serde(default)]
    pub(crate) tier: Option<String>,
    #[serde(default)]
    pub(crate) tenant: Option<String>,
    /// Where a caller comes from, for rules that count by address.
    #[serde(default)]
    pub(crate) address: Option<String>,
}

/// Nothing but an object, for what needs no more said.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// What was done, or why it was not.
pub(crate) type Done = Result<Value, Unread>;

/// Purges, and waits until every instance has confirmed it, or until that takes too long. Cancelled, it is
/// carried out all the same.
///
/// # Errors
///
/// If something cannot be purged, or nothing is named. Nothing is purged then.
pub(crate) async fn purge(engines: &AdminEngines, auth: &AdminAuth, said: Purge) -> Done {
    let (targets, all) = (said.targets()?, said.all);
    note(auth, "purge", &said.words());
    let mut invalidator = engines.invalidator.clone();
    if said.soft {
        invalidator = invalidator.softly();
    }
    if let Some(tenant) = &said.tenant {
        invalidator = invalidator.for_tenant(tenant);
    }
    let appending = match all {
        true => invalidator.purge_everything(),
        false => invalidator.purge_all(&targets),
    };
    let named = if all {
        Value::Null
    } else {
        targets.len().into()
    };
    Ok(match appending.await {
        Ok(receipt) => json!({"confirmed": true, "targets": named, "seq": receipt.0.seq}),
        Err(pending) => {
            json!({"confirmed": false, "targets": named, "why": pending.to_string()})
        }
    })
}

/// Purges all that a tenant has, in memory and behind it.
///
/// # Errors
///
/// None; the tenant's name was read before.
pub(crate) async fn clear(engines: &AdminEngines, auth: &AdminAuth, tenant: &str) -> Done {
    note(auth, "clear", &format!("{tenant:?}"));
    Ok(match engines.invalidator.purge_tenant(tenant).await {
        Ok(receipt) => json!({"confirmed": true, "tenant": tenant, "seq": receipt.0.seq}),
        Err(pending) => {
            json!({"confirmed": false, "tenant": tenant, "why": pending.to_string()})
        }
    })
}

/// Has things computed in the background.
///
/// # Errors
///
/// If one of them is no recipe, or nothing is named. Nothing is computed then.
pub(crate) fn warm(engines: &AdminEngines, auth: &AdminAuth, said: &Warm) -> Done {
    bounded("recipes", said.recipes.len())?;
    let recipes = said.recipes.iter();
    let recipes: Vec<Recipe> = recipes
        .map(|text| text.parse().map_err(|wrong| unfit("recipes", text, wrong)))
        .collect::<Result<_, _>>()?;
    if recipes.is_empty() && said.user.is_none() {
        return Err(nothing("recipes or a user"));
    }
    let user = said.user.as_deref();
    note(
        auth,
        "warm",
        &format!("{} recipes, user {user:?}", recipes.len()),
    );
    let mut waiting = engines.warmer.warm_recipes(recipes);
    if let Some(user) = user {
        waiting += engines.warmer.warm_user(user);
    }
    Ok(json!({"waiting": waiting}))
}

/// Ends a ban.
///
/// # Errors
///
/// None: of somebody that nobody can be, nobody was banned.
pub(crate) fn unban(engines: &AdminEngines, auth: &AdminAuth, said: &Unban) -> Done {
    note(auth, "unban", &format!("{:?}", said.who));
    let was_banned = engines.limiter.unban(&said.who);
    Ok(json!({"who": shortened(&said.who), "was_banned": was_banned}))
}

/// How somebody stands with the limits, without counting anything.
///
/// # Errors
///
/// If the method, the path, or who is meant is none.
pub(crate) fn peek(engines: &AdminEngines, said: &Peek) -> Done {
    let request = said.request()?;
    let limiter = &engines.limiter;
    let banned = limiter.banned(&said.who);
    let decision = limiter.peek(&RequestView::of(&request));
    let standing = decision.as_ref().and_then(Decision::standing);
    Ok(json!({
        "who": shortened(&said.who),
        "banned_for_ms": banned.map(|left| left.as_millis() as u64),
        "allowed": decision.as_ref().map(|it| it.is_allow() && banned.is_none()),
        "standing": standing.map(|standing| json!({
            "rule": standing.rule(),
            "limit": standing.limit(),
            "remaining": standing.remaining(),
            "reset_after_ms": standing.reset_after().as_millis() as u64,
            "retry_after_ms": standing.retry_after().as_millis() as u64,
        })),
    }))
}

impl Purge {
    fn targets(&self) -> Result<Vec<Target>, Unread> {
        let count = [&self.keys, &self.paths, &self.tags, &self.patterns];
        let count = count.iter().map(|names| names.len()).sum();
        bounded("targets", count)?;
        if count == 0 && !self.all {
            return Err(nothing("keys, paths, tags, patterns or all"));
        }
        let mut targets = Vec::with_capacity(count);
        targets.extend(self.keys.iter().map(|key| Target::key(key)));
        targets.extend(self.paths.iter().map(|path| Target::path(path)));
        for tag in &self.tags {
            targets.push(Target::tag(tag).map_err(|wrong| unfit("tags", tag, wrong))?);
        }
        for text in &self.patterns {
            let pattern = Pattern::parse(text).map_err(|wrong| unfit("patterns", text, wrong))?;
            let target = Target::pattern(&pattern);
            targets.push(target.map_err(|wrong| unfit("patterns", text, wrong))?);
        }
        Ok(targets)
    }

    /// What is purged, in words for the log.
    fn words(&self) -> String {
        let Self {
            keys,
            paths,
            tags,
            patterns,
            all,
            tenant,
            soft,
        } = self;
        format!(
            "all {all}, keys {keys:?}, paths {paths:?}, tags {tags:?}, patterns {patterns:?}, \
             tenant {tenant:?}, soft {soft}"
        )
    }
}

impl Peek {
    /// A request as somebody would send it, as far as the limits look at it.
    fn request(&self) -> Result<Request<()>, Unread> {
        let path = self.path.as_deref().unwrap_or("/");
        if !path.starts_with('/') {
            return Err(unfit("path", path, "must begin with a slash"));
        }
        let method = self.method.as_deref().unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|wrong| unfit("method", method, wrong))?;
        let mut request = Request::builder()
            .method(method)
            .uri(&*normal_form(path))
            .body(())
            .map_err(|wrong| unfit("path", path, wrong))?;
        let extensions = request.extensions_mut();
        let address = self.who.strip_prefix("ip:").unwrap_or(&self.who);
        let address = address
            .split_once('/')
            .map_or(address, |(address, _)| address);
        if let Some(id) = self.who.strip_prefix("caller:").filter(|id| !id.is_empty()) {
            if id.starts_with('#') {
                let why = "is the digest of a long name, which only bans are told by";
                return Err(unfit("who", &self.who, why));
            }
            if let Some(from) = &self.address {
                let wrong = |wrong| unfit("address", from, wrong);
                let ip = from.parse::<IpAddr>().map_err(wrong)?;
                extensions.insert(PeerAddr(SocketAddr::new(ip, 0)));
            }
            let id = percent_encoding::percent_decode_str(id);
            let mut caller = Caller::new(id.decode_utf8_lossy());
            if let Some(tier) = &self.tier {
                caller = caller.tier(tier.as_str());
            }
            if let Some(tenant) = &self.tenant {
                caller = caller.tenant(tenant.as_str());
            }
            extensions.insert(caller);
        } else if let Ok(ip) = address.parse() {
            extensions.insert(PeerAddr(SocketAddr::new(ip, 0)));
        } else {
            let allowed = "must be `caller:ID`, `ip:ADDRESS` or an address";
            return Err(unfit("who", &self.who, allowed));
        }
        Ok(request)
    }
}

/// Counts a change, and tells the service's log what an operator does, and not by which token: before it is done, so
/// that one whose operator leaves meanwhile is counted and told as well. Names in `what` are quoted, so that
/// none of them begins a new line.
fn note(auth: &AdminAuth, change: &'static str, what: &str) {
    auth.count_change();
    let what = shortened(what);
    tracing::info!(target: "tower_keep", change, %what, "changed by an operator");
}

fn bounded(field: &str, count: usize) -> Result<(), Unread> {
    if count <= NAMED_MAX {
        return Ok(());
    }
    let words = format!("`{field}`: at most {NAMED_MAX} at once, these are {count}");
    Err((StatusCode::BAD_REQUEST, words))
}

fn nothing(of: &str) -> Unread {
    (StatusCode::BAD_REQUEST, format!("name {of}"))
}

fn unfit(field: &str, text: &str, wrong: impl std::fmt::Display) -> Unread {
    let text = shortened(text);
    let words = format!("`{field}`: {text:?}: {wrong}");
    (StatusCode::BAD_REQUEST, words)
}

/// As much of a text as is worth reading.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

const SHOWN: usize = 200;

/// How much can be named in one request.
const NAMED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_purged_is_named_and_nothing_is_purged() {
        let many = vec!["t".to_owned(); NAMED_MAX + 1];
        for (said, words) in [
            (json!({}), "name keys"),
            (json!({"tags": [""]}), "`tags`: \"\": an empty tag"),
            (json!({"tags": ["ok", "/x"]}), "`tags`: \"/x\""),
            (json!({"patterns": ["**"]}), "`patterns`: \"**\""),
            (json!({"keys": many}), "at most 1000"),
        ] {
            let said: Purge = serde_json::from_value(said).unwrap();
            let (status, found) = said.targets().unwrap_err();
            assert_eq!(status, 400);
            assert!(found.contains(words), "{found}");
        }
        let whole = json!({"keys": ["/a?b"], "paths": ["/a"], "tags": ["t"], "patterns": ["/x/*"]});
        let said: Purge = serde_json::from_value(whole).unwrap();
        assert_eq!(said.targets().unwrap().len(), 4);
    }

    #[test]
    fn somebody_is_a_caller_or_an_address() {
        for (who, fits) in [
            ("caller:alice", true),
            ("caller:a%40b", true),
            ("ip:203.0.113.7", true),
            ("203.0.113.7", true),
            ("ip:2001:db8::/64", true),
            ("caller:#0f1e2d3c4b5a69788796a5b4c3d2e1f0", false),
            ("caller:", false),
            ("", false),
            ("alice", false),
            ("ip:", false),
        ] {
            let said: Peek = serde_json::from_value(json!({"who": who})).unwrap();
            assert_eq!(said.request().is_ok(), fits, "{who}");
        }
        for (field, text) in [
            ("path", "no slash"),
            ("path", ""),
            ("method", "G T"),
            ("address", "nowhere"),
        ] {
            let said = json!({"who": "caller:alice", field: text});
            let said: Peek = serde_json::from_value(said).unwrap();
            assert_eq!(said.request().unwrap_err().0, 400, "{field} {text}");
        }
    }
}
