//! From a question to its answer on one node: over the command lane, or beside it when it is large.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool::managed::Object;
use redis::{Pipeline, Value};

use crate::clock::Moment;
use crate::store::classify::{self, Failure};
use crate::store::command::{Call, Command, Manner, Step};
use crate::store::connect::Held;
use crate::store::deadline::within;
use crate::store::error::StoreError;
use crate::store::library::Library;
use crate::store::link::Link;
use crate::store::load::load_as;
use crate::store::node::Node;

/// One answer of several.
pub(crate) type Answer = Result<Value, StoreError>;

/// Sends one command.
pub(crate) async fn run(node: &Node, command: &Command, manner: Manner) -> Answer {
    let limit = node.limits().timeout(manner);
    let link = node.link()?;
    if manner.bulk {
        let mut alone = redis::pipe();
        alone.add_command(command.cmd().clone());
        let id = link.id;
        // Boxed here and below, as what is rare and large, so that no small command carries it.
        let answers = Box::pin(beside(node, link, &alone, limit)).await?;
        let answer = answers.into_iter().next().ok_or(StoreError::Lost)?;
        return settled(node, id, answer);
    }
    let answer = link.one(command.cmd(), limit).await;
    answer.map_err(|failure| node.settle(&link, failure))
}

/// Calls one script. Where the server has lost it, it is loaded again and called once more.
pub(crate) async fn call(node: &Node, call: &Call, manner: Manner) -> Answer {
    if manner.bulk {
        let step = Step::Call(call.clone());
        return Box::pin(alone(node, &step, manner)).await;
    }
    let mut question = Question::begin(node, manner);
    let mut answer = question.one(call).await?;
    for _ in 0..ROUNDS {
        if !is_missing(&answer) {
            break;
        }
        Box::pin(question.reload()).await?;
        answer = question.one(call).await?;
    }
    settled(node, question.lane, answer)
}

/// Sends several at once. A script that the server has lost is loaded again, and only the steps that
/// missed it are sent once more: whatever else was in the batch has run, and its answers stand whatever
/// becomes of those.
pub(crate) async fn batch(
    node: &Node,
    steps: &[&Step],
    manner: Manner,
) -> Result<Vec<Answer>, StoreError> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let mut question = Question::begin(node, manner);
    let first = question.many(steps).await?;
    let lane = question.lane;
    let mut answers: Vec<_> = first.into_iter().map(Ok).collect();
    for _ in 0..ROUNDS {
        let missing = missed(&answers);
        if missing.is_empty() {
            break;
        }
        let again: Vec<&Step> = missing.iter().map(|&at| steps[at]).collect();
        let sent = match Box::pin(question.reload()).await {
            Ok(()) => Box::pin(question.many(&again)).await,
            Err(error) => Err(error),
        };
        for (at, place) in missing.into_iter().enumerate() {
            answers[place] = match &sent {
                Ok(sent) => sent.get(at).cloned().ok_or(StoreError::Lost),
                Err(error) => Err(error.clone()),
            };
        }
    }
    let settle = |answer: Answer| settled(node, lane, answer?);
    Ok(answers.into_iter().map(settle).collect())
}

/// Sends a command, or calls a script.
pub(crate) async fn step(node: &Node, step: &Step, manner: Manner) -> Answer {
    match step {
        Step::Command(command) => run(node, command, manner).await,
        Step::Call(script) => call(node, script, manner).await,
    }
}

async fn alone(node: &Node, step: &Step, manner: Manner) -> Answer {
    let answers = batch(node, &[step], manner).await?;
    answers.into_iter().next().unwrap_or(Err(StoreError::Lost))
}

/// Sends a step to the node that its slot is moving to, and that serves it only when told so.
pub(crate) async fn asking(node: &Node, step: &Step, manner: Manner) -> Answer {
    let mut question = Question::begin(node, manner);
    let mut answer = question.asking(step).await?;
    if is_missing(&answer) {
        question.reload().await?;
        answer = question.asking(step).await?;
    }
    settled(node, question.lane, answer)
}

/// Whether the server does not know the script, so that nothing ran.
fn is_missing(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if Library::is_missing(error))
}

/// The places of the answers that say so.
fn missed(answers: &[Answer]) -> Vec<usize> {
    let missing = |answer: &Answer| answer.as_ref().is_ok_and(is_missing);
    let missed = answers.iter().enumerate();
    let missed = missed.filter(|(_, answer)| missing(answer));
    missed.map(|(at, _)| at).collect()
}

/// A refusal becomes an error, and where it says so the lane of this number is given up, if it is still
/// the one.
fn settled(node: &Node, lane: u64, answer: Value) -> Answer {
    classify::value(answer).map_err(|failure| match node.link() {
        Ok(link) if link.id == lane => node.settle(&link, failure),
        _ => failure.error,
    })
}

fn packed(node: &Node, link: &Link, step: &Step) -> Result<redis::Cmd, StoreError> {
    match step {
        Step::Command(command) => Ok(command.cmd().clone()),
        Step::Call(call) => packed_call(node, link, call),
    }
}

fn packed_call(node: &Node, link: &Link, call: &Call) -> Result<redis::Cmd, StoreError> {
    let library = &node.parts().library;
    library.call(link.dialect, call).ok_or(UNREGISTERED)
}

/// How often a script is loaded again for one question. Somebody may empty the library at any moment,
/// also between the loading and the call; only who does it all the time is noticed.
const ROUNDS: usize = 10;

/// A question under way, which may take several sendings but only one deadline.
struct Question<'a> {
    node: &'a Node,
    manner: Manner,
    began: Moment,
    /// On which lane it was sent last, and how often the scripts had been loaded there by then.
    lane: u64,
    loads: u64,
}

impl<'a> Question<'a> {
    fn begin(node: &'a Node, manner: Manner) -> Self {
        Self {
            node,
            manner,
            began: node.parts().access.clock.now(),
            lane: 0,
            loads: 0,
        }
    }

    fn left(&self) -> Duration {
        let spent = self.node.parts().access.clock.now().since(self.began);
        self.node
            .limits()
            .timeout(self.manner)
            .saturating_sub(spent)
    }

    /// The lane as it is now, which is about to be used.
    fn lane(&mut self) -> Result<Arc<Link>, StoreError> {
        let link = self.node.link()?;
        self.lane = link.id;
        self.loads = link.loads.load(Ordering::Acquire);
        Ok(link)
    }

    /// One call, whose answer may be a refusal.
    async fn one(&mut self, call: &Call) -> Answer {
        let link = self.lane()?;
        let cmd = packed_call(self.node, &link, call)?;
        let sent = link.raw(&cmd, self.left()).await;
        sent.map_err(|failure| self.node.settle(&link, failure))
    }

    /// All steps in one round trip; the answers may be refusals.
    async fn many(&mut self, steps: &[&Step]) -> Result<Vec<Value>, StoreError> {
        let link = self.lane()?;
        let mut commands = Pipeline::with_capacity(steps.len());
        for step in steps {
            commands.add_command(packed(self.node, &link, step)?);
        }
        if self.manner.bulk {
            return Box::pin(beside(self.node, link, &commands, self.left())).await;
        }
        let sent = link.many(&commands, self.left()).await;
        sent.map_err(|failure| self.node.settle(&link, failure))
    }

    /// One step, served although its slot is on its way; its answer may be a refusal.
    async fn asking(&mut self, step: &Step) -> Answer {
        let link = self.lane()?;
        let mut commands = redis::pipe();
        commands.cmd("ASKING");
        commands.add_command(packed(self.node, &link, step)?);
        let sent = link.many(&commands, self.left()).await;
        let answers = sent.map_err(|failure| self.node.settle(&link, failure))?;
        answers.into_iter().nth(1).ok_or(StoreError::Lost)
    }

    /// Loads the scripts again, unless somebody has done so since this question was sent.
    async fn reload(&self) -> Result<(), StoreError> {
        let link = self.node.link()?;
        if link.id != self.lane {
            return Ok(());
        }
        let work = async {
            let _loading = link.loading.lock().await;
            if link.loads.load(Ordering::Acquire) != self.loads {
                return Ok(());
            }
            let library = &self.node.parts().library;
            let limit = self.node.limits().command_timeout;
            let loaded = load_as(&link, library, link.dialect, limit).await;
            link.loads.fetch_add(1, Ordering::Release);
            loaded.map(drop)
        };
        match within(self.left(), pin!(work)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => {
                let trip = Some(reason.clone());
                let error = StoreError::Unavailable(reason);
                Err(self.node.settle(&link, Failure { error, trip }))
            }
            None => Err(StoreError::Timeout),
        }
    }
}

const UNREGISTERED: StoreError =
    StoreError::Unfit("the script is none of those that the pool was built with");

/// Sends on a connection beside the command lane, so that small answers do not queue behind large ones.
/// With a cap of one connection there is none, and the lane has to do.
///
/// The lane is let go of meanwhile: should it be given up, its place under the cap is needed for the next
/// one sooner than a large answer comes. Whoever still waits for a connection then waits no more.
async fn beside(
    node: &Node,
    link: Arc<Link>,
    commands: &Pipeline,
    limit: Duration,
) -> Result<Vec<Value>, StoreError> {
    if node.limits().connections < 2 {
        let sent = link.many(commands, limit).await;
        return sent.map_err(|failure| node.settle(&link, failure));
    }
    let lane = Arc::clone(&link.pulse);
    drop(link);
    let _place = node.queue_beside()?;
    let work = async {
        let held = tokio::select! {
            held = node.reserve() => held?,
            () = lane.ended() => return Err(StoreError::Unavailable(lane.reason())),
        };
        let borrowed = Borrowed(Some(held));
        let answers = borrowed.send(limit, commands).await?;
        // Where the lane was given up meanwhile, this connection may lead to the wrong server.
        if !lane.is_dead() {
            borrowed.give_back();
        }
        Ok(answers)
    };
    let answers = within(limit, pin!(work)).await;
    answers.unwrap_or(Err(StoreError::Timeout))
}

/// A connection of the reserve. Unless it is given back it is closed: after a failure it is of no use,
/// and where nobody waited for its answer the next one would wait for two.
struct Borrowed(Option<Held>);

impl Borrowed {
    async fn send(&self, limit: Duration, commands: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let Some(held) = &self.0 else {
            return Err(StoreError::Lost);
        };
        let (mut lane, count) = (held.lane.clone(), commands.len());
        let sending = pin!(lane.send_packed_commands(commands, 0, count));
        let sent = held.pulse.turn(limit, sending).await;
        // Only this connection is known to be of no use; the lane finds out for itself.
        sent.map_err(|failure| failure.error)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            drop(Object::take(held));
        }
    }
}
