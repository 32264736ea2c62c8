//! What is done to a rule's lease inside of Redis.
//!
//! The lease is a string that expires: the name of the instance that speaks about the rule, and ` over` behind it
//! once it has said that it is over.

use crate::store::Script;

/// What the pool has to be built with.
pub(crate) static SCRIPTS: [&Script; 1] = [&ASK];

/// Asks for the lease of a rule in one step, so that no other instance's is written over. The arguments are the
/// instance's name, for how many milliseconds, and what it has to say: `fires`; `still`, where it fires and the
/// speaker has said that it is over; `over`.
///
/// Answers 1 where the lease is the instance's own from now on, 2 where another one has said that it is over, and
/// 0 where it fires for another one.
pub(crate) static ASK: Script = Script::new(
    "alerts_ask",
    r"
local held, name, word = redis.call('GET', keys[1]), args[1], args[3]
local holder, over = held, false
if held and string.sub(held, -5) == ' over' then
    holder, over = string.sub(held, 1, -6), true
end
if holder and holder ~= name and not (over and word == 'still') then
    return over and 2 or 0
end
redis.call('SET', keys[1], word == 'over' and name .. ' over' or name, 'PX', args[2])
return 1
",
);
