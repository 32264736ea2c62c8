//! What goes wrong.

use std::process::Command;
use std::time::Duration;

use super::chance::Chance;
use super::fleet::Fleet;

/// One way in which things go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the primary; the replica is promoted.
    Kill,
    /// The same, and the replica has missed the last moments, with what was acknowledged in them.
    KillUnreplicated,
    /// SIGSTOP to the primary; the replica is promoted, and it never goes on.
    HangAndPromote,
    /// SIGSTOP to the primary, for less time than a command may take.
    HangBriefly,
    /// SIGSTOP to the primary, for longer than a command may take, or a lease.
    HangLong,
    /// SIGSTOP to a worker, from far less than a lease to far more.
    HangWorker,
    /// SIGKILL to a worker.
    KillWorker,
    /// All ordinary clients lose their connections.
    CutCommands,
    /// All subscribers do.
    CutSubscribers,
    /// `FLUSHALL`.
    Flush,
    /// Too little memory for a while, and the least used is thrown out.
    Squeeze,
    /// The journal is thrown out alone: its hash or its stream.
    Evict,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Kill,
        Self::KillUnreplicated,
        Self::HangAndPromote,
        Self::HangBriefly,
        Self::HangLong,
        Self::HangWorker,
        Self::KillWorker,
        Self::CutCommands,
        Self::CutSubscribers,
        Self::Flush,
        Self::Squeeze,
        Self::Evict,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL, promotion",
            Self::KillUnreplicated => "SIGKILL, promotion with loss",
            Self::HangAndPromote => "SIGSTOP, promotion",
            Self::HangBriefly => "SIGSTOP, brief",
            Self::HangLong => "SIGSTOP, long",
            Self::HangWorker => "SIGSTOP of a worker",
            Self::KillWorker => "SIGKILL of a worker",
            Self::CutCommands => "CLIENT KILL TYPE normal",
            Self::CutSubscribers => "CLIENT KILL TYPE pubsub",
            Self::Flush => "FLUSHALL",
            Self::Squeeze => "maxmemory, allkeys-lru",
            Self::Evict => "the journal evicted",
        }
    }

    /// Whether another server is the primary afterwards.
    pub fn promotes(self) -> bool {
        matches!(
            self,
            Self::Kill | Self::KillUnreplicated | Self::HangAndPromote
        )
    }

    /// All of them, in an order by chance.
    pub fn shuffled(chance: &mut Chance) -> Vec<Self> {
        let mut deck = Self::ALL.to_vec();
        for at in (1..deck.len()).rev() {
            deck.swap(at, chance.below(at as u64 + 1) as usize);
        }
        deck
    }

    /// Happens, and is over when this returns.
    pub fn happen(self, fleet: &mut Fleet, chance: &mut Chance) {
        let primary = fleet.servers.primary();
        let old = primary.port();
        match self {
            Self::Kill => {
                primary.kill();
                fleet.promote(old);
            }
            Self::KillUnreplicated => {
                // To nowhere, so that nothing of what follows reaches it.
                let nowhere = ["REPLICAOF", "127.0.0.1", "1"];
                fleet.servers.replica().raw().must(&nowhere);
                pause(chance, 300..900);
                primary.kill();
                fleet.promote(old);
            }
            Self::HangAndPromote => {
                primary.stop();
                fleet.promote(old);
            }
            Self::HangBriefly | Self::HangLong => {
                primary.stop();
                let brief = self == Self::HangBriefly;
                pause(chance, if brief { 5..80 } else { 150..1_800 });
                primary.cont();
            }
            Self::HangWorker => {
                let at = any_worker(fleet, chance);
                let pid = fleet.workers[at].pid();
                signal(pid, "STOP");
                let brief = chance.one_in(2);
                pause(chance, if brief { 20..400 } else { 400..2_500 });
                signal(pid, "CONT");
            }
            Self::KillWorker => {
                let at = any_worker(fleet, chance);
                fleet.replace(at);
            }
            Self::CutCommands => drop(primary.raw().must(&["CLIENT", "KILL", "TYPE", "normal"])),
            Self::CutSubscribers => drop(primary.raw().must(&["CLIENT", "KILL", "TYPE", "pubsub"])),
            Self::Flush => drop(primary.raw().must(&["FLUSHALL"])),
            Self::Squeeze => {
                let mut raw = primary.raw();
                let memory = raw.must(&["INFO", "memory"]);
                let number = |name| -> u64 {
                    let line = memory.line(name).expect("a line");
                    line.parse().expect("a number")
                };
                // Everything beyond half of what is stored has to go, and then some.
                let room = number("used_memory") - number("used_memory_dataset") / 2;
                raw.must(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
                raw.must(&["CONFIG", "SET", "maxmemory", &room.to_string()]);
                pause(chance, 300..1_500);
                raw.must(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Self::Evict => {
                let part = if chance.one_in(2) { "m" } else { "j" };
                primary
                    .raw()
                    .must(&["DEL", &format!("keep:{{cj:0}}:{part}")]);
            }
        }
    }
}

fn any_worker(fleet: &Fleet, chance: &mut Chance) -> usize {
    chance.below(fleet.workers.len() as u64) as usize
}

fn pause(chance: &mut Chance, millis: std::ops::Range<u64>) {
    let millis = millis.start + chance.below(millis.end - millis.start);
    std::thread::sleep(Duration::from_millis(millis));
}

/// Through the shell, whose own `kill` is there also where the program of that name is not.
fn signal(pid: u32, name: &str) {
    let order = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &order]).status();
    assert!(status.expect("there is a shell").success(), "{order}");
}
