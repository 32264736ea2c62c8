//! From a question to its answer on one node: over the command lane, or beside it when it is large.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool::managed::Object;
use redis::{Pipeline, Value};

use crate::clock::Moment;
use crate::store::classify::{self, Failure};
use crate::store::command::{Call, Command, Step};
use crate::store::deadline::within;
use crate::store::error::StoreError;
use crate::store::library::Library;
use crate::store::link::Link;
use crate::store::node::Node;
use crate::store::supervisor::load_as;

/// One answer of several.
pub(crate) type Answer = Result<Value, StoreError>;

/// Sends one command.
pub(crate) async fn run(node: &Node, command: &Command) -> Answer {
    let limits = node.limits();
    let link = node.link()?;
    if command.is_bulk(limits.bulk_bytes) {
        let mut alone = redis::pipe();
        alone.add_command(command.cmd().clone());
        let answers = beside(node, &link, &alone).await?;
        let answer = answers.into_iter().next().unwrap_or_default();
        return settled(node, &link, answer);
    }
    let answer = link.one(command.cmd(), limits.command_timeout).await;
    answer.map_err(|failure| node.settle(&link, failure))
}

/// Calls one script. Where the server has lost it, it is loaded again and called once more.
pub(crate) async fn call(node: &Node, call: &Call) -> Answer {
    let link = node.link()?;
    let asking = Asking::begin(node, &link);
    let cmd = asking.pack(call)?;
    let first = asking.one(&cmd).await?;
    if !is_missing(&first) {
        return settled(node, &link, first);
    }
    asking.reload().await?;
    settled(node, &link, asking.one(&cmd).await?)
}

/// Sends several at once. A script that the server has lost is loaded again, and only the steps that
/// missed it are sent once more: whatever else was in the batch has run.
pub(crate) async fn batch(
    node: &Node,
    steps: &[&Step],
    bulk: bool,
) -> Result<Vec<Answer>, StoreError> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let link = node.link()?;
    let asking = Asking::begin(node, &link);
    let mut answers = asking.many(steps, bulk).await?;
    let missing = |&at: &usize| answers.get(at).is_some_and(is_missing);
    let missed: Vec<usize> = (0..steps.len()).filter(missing).collect();
    if !missed.is_empty() {
        asking.reload().await?;
        let again: Vec<&Step> = missed.iter().map(|&at| steps[at]).collect();
        for (at, answer) in missed.into_iter().zip(asking.many(&again, bulk).await?) {
            answers[at] = answer;
        }
    }
    let settle = |answer| settled(node, &link, answer);
    Ok(answers.into_iter().map(settle).collect())
}

/// Sends a command, or calls a script.
pub(crate) async fn step(node: &Node, step: &Step, bulk: bool) -> Answer {
    match (step, bulk) {
        (Step::Command(command), false) => run(node, command).await,
        (Step::Call(script), false) => call(node, script).await,
        (_, true) => {
            let answers = batch(node, &[step], true).await?;
            answers.into_iter().next().unwrap_or(Err(StoreError::Lost))
        }
    }
}

/// Sends a step to the node that its slot is moving to, and that serves it only when told so.
pub(crate) async fn asking(node: &Node, step: &Step) -> Answer {
    let link = node.link()?;
    let asking = Asking::begin(node, &link);
    let mut commands = redis::pipe();
    commands.cmd("ASKING");
    commands.add_command(match step {
        Step::Command(command) => command.cmd().clone(),
        Step::Call(call) => asking.pack(call)?,
    });
    let mut answer = asking.second(&commands).await?;
    if is_missing(&answer) {
        asking.reload().await?;
        answer = asking.second(&commands).await?;
    }
    settled(node, &link, answer)
}

/// Whether the server does not know the script, so that nothing ran.
fn is_missing(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if Library::is_missing(error))
}

/// A refusal becomes an error, and the connection is given up if the refusal says so.
fn settled(node: &Node, link: &Link, answer: Value) -> Answer {
    classify::value(answer).map_err(|failure| node.settle(link, failure))
}

/// A question under way, which may take two sendings but only one deadline.
struct Asking<'a> {
    node: &'a Node,
    link: &'a Link,
    began: Moment,
    /// How often the scripts had been loaded when it began.
    loads: u64,
}

impl<'a> Asking<'a> {
    fn begin(node: &'a Node, link: &'a Link) -> Self {
        Self {
            node,
            link,
            began: node.parts().access.clock.now(),
            loads: link.loads.load(Ordering::Acquire),
        }
    }

    fn left(&self) -> Duration {
        let spent = self.node.parts().access.clock.now().since(self.began);
        self.node.limits().command_timeout.saturating_sub(spent)
    }

    fn pack(&self, call: &Call) -> Result<redis::Cmd, StoreError> {
        let library = &self.node.parts().library;
        let packed = library.call(self.link.dialect, call);
        packed.ok_or(UNREGISTERED)
    }

    /// One command, whose answer may be a refusal.
    async fn one(&self, cmd: &redis::Cmd) -> Answer {
        let sent = self.link.raw(cmd, self.left()).await;
        sent.map_err(|failure| self.node.settle(self.link, failure))
    }

    /// Two commands, of which only the second one's answer matters.
    async fn second(&self, commands: &Pipeline) -> Answer {
        let sent = self.link.many(commands, self.left()).await;
        let answers = sent.map_err(|failure| self.node.settle(self.link, failure))?;
        Ok(answers.into_iter().nth(1).unwrap_or_default())
    }

    /// All steps in one round trip; the answers may be refusals.
    async fn many(&self, steps: &[&Step], bulk: bool) -> Result<Vec<Value>, StoreError> {
        let mut commands = Pipeline::with_capacity(steps.len());
        for step in steps {
            commands.add_command(match step {
                Step::Command(command) => command.cmd().clone(),
                Step::Call(call) => self.pack(call)?,
            });
        }
        if bulk {
            return beside(self.node, self.link, &commands).await;
        }
        let sent = self.link.many(&commands, self.left()).await;
        sent.map_err(|failure| self.node.settle(self.link, failure))
    }

    /// Loads the scripts again, unless somebody has done so since this question began.
    async fn reload(&self) -> Result<(), StoreError> {
        let work = async {
            let _loading = self.link.loading.lock().await;
            if self.link.loads.load(Ordering::Acquire) != self.loads {
                return Ok(());
            }
            let library = &self.node.parts().library;
            let limit = self.node.limits().command_timeout;
            let loaded = load_as(self.link, library, self.link.dialect, limit).await;
            self.link.loads.fetch_add(1, Ordering::Release);
            loaded.map(drop)
        };
        match within(self.left(), pin!(work)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => {
                let trip = Some(reason.clone());
                let error = StoreError::Unavailable(reason);
                Err(self.node.settle(self.link, Failure { error, trip }))
            }
            None => Err(StoreError::Timeout),
        }
    }
}

const UNREGISTERED: StoreError =
    StoreError::Unfit("the script is none of those that the pool was built with");

/// Sends on a connection beside the command lane, so that small answers do not queue behind large ones.
/// With a cap of one connection there is none, and the lane has to do.
async fn beside(node: &Node, link: &Link, commands: &Pipeline) -> Result<Vec<Value>, StoreError> {
    let limit = node.limits().bulk_timeout;
    if node.limits().connections < 2 {
        let sent = link.many(commands, limit).await;
        return sent.map_err(|failure| node.settle(link, failure));
    }
    let work = async {
        // Boxed, because opening a connection is a large future, and every command's would be as large.
        let held = Box::pin(node.reserve()).await?;
        let mut lane = held.lane.clone();
        let count = commands.len();
        let sending = pin!(lane.send_packed_commands(commands, 0, count));
        let sent = held.pulse.turn(limit, sending);
        sent.await.map_err(|failure| {
            // Only this connection is known to be of no use; the lane finds out for itself.
            drop(Object::take(held));
            failure.error
        })
    };
    within(limit, pin!(work))
        .await
        .unwrap_or(Err(StoreError::Timeout))
}
