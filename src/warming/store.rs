//! What is hot, remembered by Redis for all instances and for the one that starts next.
//!
//! It is one sorted set of recipes' texts. Weights halve with time, and nothing is touched for it: the score of
//! a member is **the moment at which it will weigh one**, in seconds since 1970 by the server's clock. So the
//! order of members never changes by waiting; and where instances have different half-lives, as during a
//! deployment, scores still compare.
//!
//! Instances tell what a key has gained since they told last, and the server adds it up. Whether a gain arrived
//! is unknown when the answer is lost; it is better told never than twice, since it is a guess anyway.
//!
//! Recipes are keys, and may name persons. They are gone a week after the last instance has told anything.

use std::time::Duration;

use crate::store::{Call, RedisPool, Script, StoreError};
use crate::warming::recipe::Recipe;

/// Where the hot set of all instances is. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HotSetStore {
    pool: RedisPool,
    key: String,
    half_life: Duration,
    keys_max: usize,
}

/// A recipe and its weight at the moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weighed {
    pub(crate) recipe: Recipe,
    pub(crate) weight: f64,
}

/// How many recipes may be told at once: a server is busy with them for about 0.4 ms.
pub(crate) const SAVE_MAX: usize = 100;

/// For how long the set is kept after something was told: over a long weekend.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What weighs more than 2 to the power of this was not told by anybody here. `SAVE` knows the number too.
const HALF_LIVES_MAX: f64 = 100.0;

/// What the pool has to be built with.
pub(crate) static SCRIPTS: [&Script; 2] = [&SAVE, &LOAD];

/// Adds to the weights of members, and forgets those that weigh least beyond so many.
///
/// keys: the set. args: the half-life in seconds, how many members there may be, for how many seconds it is
/// kept, then members and what each gained. Returns how many members there are.
static SAVE: Script = Script::new(
    "warming_save",
    r"
local half_life, gains = tonumber(args[1]), {}
for at = 4, #args, 2 do
    local gain = tonumber(args[at + 1])
    if not (gain and gain > 0 and gain < math.huge) then
        return redis.error_reply('ERR a gain is a positive number')
    end
    gains[#gains + 1] = { args[at], math.log(gain) / math.log(2) }
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local words = {}
for _, gain in ipairs(gains) do
    -- In half-lives from now, both; what somebody else has set to infinity must not stay there.
    local more, less = gain[2], redis.call('ZSCORE', keys[1], gain[1])
    if less then
        less = math.min((tonumber(less) - now) / half_life, 100)
        more, less = math.max(more, less), math.min(more, less)
        more = more + math.log(1 + 2 ^ (less - more)) / math.log(2)
    end
    words[#words + 1] = string.format('%.17g', now + half_life * more)
    words[#words + 1] = gain[1]
end
if #words > 0 then
    redis.call('ZADD', keys[1], unpack(words))
end
redis.call('ZREMRANGEBYRANK', keys[1], 0, -1 - args[2])
redis.call('EXPIRE', keys[1], args[3])
return redis.call('ZCARD', keys[1])
",
);

/// Reads what weighs most, greatest first.
///
/// keys: the set. args: how many. Returns members, each followed by its score, and at last the time.
static LOAD: Script = Script::reading(
    "warming_load",
    r"
local time = redis.call('TIME')
local found = redis.call('ZREVRANGE', keys[1], 0, args[1] - 1, 'WITHSCORES')
found[#found + 1] = string.format('%.17g', time[1] + time[2] / 1000000)
return found
",
);

impl HotSetStore {
    /// The set of all that have the same prefix in the Redis of `pool`, which must know [`SCRIPTS`]. At most
    /// `keys_max` are kept there, and their weights halve with each `half_life`.
    pub(crate) fn new(pool: RedisPool, half_life: Duration, keys_max: usize) -> Self {
        let key = pool.key("warming:hot");
        Self {
            pool,
            key,
            half_life,
            keys_max,
        }
    }

    /// Adds what recipes have gained, at most [`SAVE_MAX`] of them; gains that are no positive numbers are
    /// left out. One round trip.
    ///
    /// # Errors
    ///
    /// Those of the store, and [`StoreError::Unfit`] for more than so many. Where it
    /// [may have run](StoreError::may_have_run), tell it no second time.
    ///
    /// # Cancellation
    ///
    /// As if the answer was lost.
    pub(crate) async fn save(&self, gains: &[Weighed]) -> Result<(), StoreError> {
        if gains.len() > SAVE_MAX {
            return Err(StoreError::Unfit("too many recipes are told at once"));
        }
        let mut call = Call::new(&SAVE)
            .key(&self.key)
            .arg(self.half_life.as_secs_f64().to_string())
            .arg(self.keys_max)
            .arg(KEPT.as_secs());
        let numbers = |gain: &&Weighed| gain.weight > 0.0 && gain.weight.is_finite();
        for gain in gains.iter().filter(numbers) {
            let (text, weight) = (gain.recipe.to_string(), gain.weight.to_string());
            call = call.arg(text).arg(weight);
        }
        let _members: u64 = self.pool.call(&call).await?;
        Ok(())
    }

    /// The `count` recipes that weigh most, greatest first. What is there and no recipe is left out. One round
    /// trip, beside those of others if there is much to read.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn load(&self, count: usize) -> Result<Vec<Weighed>, StoreError> {
        let count = count.min(self.keys_max);
        if count == 0 {
            return Ok(Vec::new());
        }
        let call = Call::new(&LOAD).key(&self.key).arg(count);
        let found: Vec<Vec<u8>> = self.pool.call(&call).await?;
        let (pairs, time) = found.as_chunks();
        let now = time.first().and_then(|now| number(now));
        let now = now.ok_or(StoreError::Unreadable {
            expected: "the time",
            found: "something else",
        })?;
        let read = |[member, score]: &[Vec<u8>; 2]| {
            let text = std::str::from_utf8(member).ok()?;
            let half_lives = (number(score)? - now) / self.half_life.as_secs_f64();
            Some(Weighed {
                recipe: text.parse().ok()?,
                weight: half_lives.min(HALF_LIVES_MAX).exp2(),
            })
        };
        Ok(pairs.iter().filter_map(read).collect())
    }
}

fn number(bytes: &[u8]) -> Option<f64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::test_redis::TestRedis;
    use crate::store::{RedisConfig, StoreParts};
    use crate::task::Tasks;

    /// No test takes so long that a weight would change by it.
    const SLOW: Duration = Duration::from_secs(86_400);

    const KEY: &str = "keep:warming:hot";

    async fn open(server: &TestRedis, keys_max: usize) -> (HotSetStore, Tasks) {
        let tasks = Tasks::new().unwrap();
        let parts = StoreParts {
            scripts: SCRIPTS.to_vec(),
            ..StoreParts::new(tasks.spawner())
        };
        let config = RedisConfig {
            url: Some(server.url()),
            command_timeout: Duration::from_secs(5),
            ..RedisConfig::default()
        };
        let pool = RedisPool::new(&config, &parts).unwrap();
        assert!(pool.watch().until_up().await);
        (HotSetStore::new(pool, SLOW, keys_max), tasks)
    }

    fn weighed(key: &str, weight: f64) -> Weighed {
        let recipe = Recipe::new("reports", Some("acme"), key).unwrap();
        Weighed { recipe, weight }
    }

    /// Keys and weights, rounded to a hundredth.
    async fn read(store: &HotSetStore, count: usize) -> Vec<(String, f64)> {
        let all = store.load(count).await.unwrap();
        let rounded = |weight: f64| (weight * 100.0).round() / 100.0;
        (all.iter())
            .map(|one| (one.recipe.key().to_owned(), rounded(one.weight)))
            .collect()
    }

    fn expected(all: &[(&str, f64)]) -> Vec<(String, f64)> {
        all.iter()
            .map(|(key, weight)| ((*key).to_owned(), *weight))
            .collect()
    }

    #[tokio::test]
    async fn what_two_instances_tell_is_added_up_and_read_greatest_first() {
        let server = TestRedis::start();
        let (one, _tasks) = open(&server, 100).await;
        let (other, _others) = open(&server, 100).await;
        assert_eq!(read(&one, 9).await, []);
        let told = [
            weighed("a", 10.0),
            weighed("b:%", 15.0),
            weighed("tiny", 0.25),
        ];
        one.save(&told).await.unwrap();
        other.save(&[weighed("a", 10.0)]).await.unwrap();
        one.save(&[weighed("tiny", 0.25)]).await.unwrap();
        let all = [("a", 20.0), ("b:%", 15.0), ("tiny", 0.5)];
        assert_eq!(read(&other, 9).await, expected(&all));
        assert_eq!(read(&other, 1).await, expected(&all[..1]));
        assert_eq!(read(&other, 0).await, []);
        let left = server.raw().must(&["TTL", KEY]).integer();
        assert!((604_700..=604_800).contains(&left), "kept for {left} s");
    }

    #[tokio::test]
    async fn only_so_many_are_kept_and_the_least_go() {
        let server = TestRedis::start();
        let (store, _tasks) = open(&server, 3).await;
        for (key, weight) in [("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0), ("e", 5.0)] {
            store.save(&[weighed(key, weight)]).await.unwrap();
        }
        let all = [("e", 5.0), ("a", 4.0), ("b", 3.0)];
        assert_eq!(read(&store, 9).await, expected(&all));
        let many = vec![weighed("a", 1.0); SAVE_MAX + 1];
        let error = store.save(&many).await.unwrap_err();
        assert!(matches!(error, StoreError::Unfit(_)));
    }

    #[tokio::test]
    async fn a_weight_halves_with_each_half_life_of_the_servers_clock() {
        let server = TestRedis::start();
        let (store, _tasks) = open(&server, 100).await;
        let mut raw = server.raw();
        store.save(&[weighed("old", 64.0)]).await.unwrap();
        // Six half-lives ago it was.
        let member = weighed("old", 1.0).recipe.to_string();
        let age = (6 * SLOW.as_secs()).to_string();
        raw.must(&["ZINCRBY", KEY, &format!("-{age}"), &member]);
        store.save(&[weighed("new", 1.5)]).await.unwrap();
        let all = [("new", 1.5), ("old", 1.0)];
        assert_eq!(read(&store, 9).await, expected(&all));
        store.save(&[weighed("old", 2.0)]).await.unwrap();
        let all = [("old", 3.0), ("new", 1.5)];
        assert_eq!(read(&store, 9).await, expected(&all));
    }

    #[tokio::test]
    async fn what_somebody_else_has_put_there_does_no_harm() {
        let server = TestRedis::start();
        let (store, _tasks) = open(&server, 100).await;
        let mut raw = server.raw();
        let member = weighed("a", 1.0).recipe.to_string();
        for (score, member) in [("+inf", &*member), ("1e300", "no recipe"), ("-inf", "x:y")] {
            raw.must(&["ZADD", KEY, score, member]);
        }
        for weight in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            store.save(&[weighed("b", weight)]).await.unwrap();
        }
        store
            .save(&[weighed("a", 1.0), weighed("b", 2.0)])
            .await
            .unwrap();
        let all = store.load(9).await.unwrap();
        let keys: Vec<&str> = all.iter().map(|one| one.recipe.key()).collect();
        assert_eq!(keys, ["a", "b", "y"]);
        assert!(all.iter().all(|one| one.weight.is_finite()));
        raw.must(&["SET", KEY, "something else"]);
        let error = store.save(&[weighed("a", 1.0)]).await.unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"));
        assert!(store.load(9).await.is_err());
    }
}
