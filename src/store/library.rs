//! All scripts of a service as one function library, with a twin of each for servers without functions.
//!
//! A server refuses one function name in two libraries, and while a service is upgraded its old and its
//! new version call the same server, for hours if need be. So the library and its functions carry a
//! version that is made of their text: what differs has another name and lives beside it, and what is
//! equal is equal whoever loads it. The twins are told apart by their hashes in the same way.

use redis::{Cmd, ServerError, ServerErrorKind};

use crate::error::{ConfigError, Faults};
use crate::store::command::Call;
use crate::store::script::Script;

/// How a server is asked to run scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `FUNCTION LOAD` and `FCALL`: Redis 7, Valkey. Replicas and restarted servers keep them.
    Functions,
    /// `SCRIPT LOAD` and `EVALSHA`, which any server knows unless it is forbidden.
    Scripts,
}

/// The scripts, checked and named.
#[derive(Debug)]
pub(crate) struct Library {
    name: String,
    code: String,
    /// Ordered by name.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    script: &'static Script,
    function: String,
    twin: String,
    twin_sha: String,
}

/// How much of the hash is in a name: 48 bits, as chance and not malice chooses the texts.
const VERSION_DIGITS: usize = 12;

impl Library {
    /// Checks the scripts and gives them their names. Their order does not matter.
    ///
    /// # Errors
    ///
    /// A fault for each name that is not lowercase letters, digits and `_`, or is there twice, and for
    /// each empty body. Whether a body is Lua only a server can tell.
    pub(crate) fn new(scripts: &[&'static Script], sharded: bool) -> Result<Self, ConfigError> {
        let mut scripts = scripts.to_vec();
        scripts.sort_by_key(|script| script.name());
        let mut faults = Faults::new();
        check(&scripts, &mut faults);
        faults.into_result()?;
        let publish = publish(sharded);
        let version = sha(&code("", publish, &scripts));
        let name = format!("keep_{}", version.get(..VERSION_DIGITS).unwrap_or(&version));
        let code = code(&name, publish, &scripts);
        let entries = scripts.into_iter().map(|script| {
            let twin = format!("{publish}local keys, args = KEYS, ARGV\n{}", script.body());
            Entry {
                script,
                function: function(&name, script),
                twin_sha: sha(&twin),
                twin,
            }
        });
        let entries = entries.collect();
        Ok(Self {
            name,
            code,
            entries,
        })
    }

    /// The library's name on the server: `keep_` and its version.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is nothing to load.
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What makes a server know all scripts, however many of them it knows already.
    pub(crate) fn load(&self, dialect: Dialect) -> Vec<Cmd> {
        match dialect {
            Dialect::Functions if self.is_empty() => Vec::new(),
            Dialect::Functions => {
                let mut load = redis::cmd("FUNCTION");
                load.arg("LOAD").arg("REPLACE").arg(&self.code);
                vec![load]
            }
            Dialect::Scripts => {
                let load = |entry: &Entry| {
                    let mut load = redis::cmd("SCRIPT");
                    load.arg("LOAD").arg(&entry.twin);
                    load
                };
                self.entries.iter().map(load).collect()
            }
        }
    }

    /// A call of a script; `None` if it is not one of these.
    pub(crate) fn call(&self, dialect: Dialect, call: &Call) -> Option<Cmd> {
        let (script, keys, args) = (call.script(), call.keys(), call.args());
        let entry = self.entry(script)?;
        let (name, target) = match dialect {
            Dialect::Functions if script.writes() => ("FCALL", &entry.function),
            Dialect::Functions => ("FCALL_RO", &entry.function),
            // EVALSHA_RO came with Redis 7, as functions did.
            Dialect::Scripts => ("EVALSHA", &entry.twin_sha),
        };
        // The rest is the command, the script and the number of keys.
        let bytes = 16 + target.len() + keys.size() + args.size();
        let mut call = Cmd::with_capacity(3 + keys.len() + args.len(), bytes);
        call.arg(name).arg(target).arg(keys.len());
        for word in keys.iter().chain(args.iter()) {
            call.arg(word);
        }
        Some(call)
    }

    fn entry(&self, script: &Script) -> Option<&Entry> {
        let by_name = |entry: &Entry| entry.script.name().cmp(script.name());
        let place = self.entries.binary_search_by(by_name).ok()?;
        let entry = self.entries.get(place)?;
        // The usual case is the same script, whose text need not be read.
        (std::ptr::eq(entry.script, script) || entry.script == script).then_some(entry)
    }

    /// Whether a call failed because the server does not know the script, or not any more. It did not
    /// run: load again and repeat it.
    pub(crate) fn is_missing(error: &ServerError) -> bool {
        match error.kind() {
            Some(ServerErrorKind::NoScript) => true,
            Some(ServerErrorKind::ResponseError) => error.details() == Some("Function not found"),
            _ => false,
        }
    }
}

fn check(sorted: &[&'static Script], faults: &mut Faults) {
    let mut before = None;
    for script in sorted {
        let name = script.name();
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(plain) {
            let allowed = "must be lowercase letters, digits and _, a letter first";
            faults.add("redis.scripts", format!("{name:?}"), allowed);
        }
        if before == Some(name) {
            let allowed = "is there twice: each script needs a name of its own";
            faults.add("redis.scripts", format!("{name:?}"), allowed);
        }
        if script.body().trim().is_empty() {
            faults.add("redis.scripts", format!("{name:?}"), "must have a body");
        }
        before = Some(name);
    }
}

fn function(library: &str, script: &Script) -> String {
    format!("{library}_{}", script.name())
}

/// What bodies publish with. A cluster's instances listen by `SSUBSCRIBE`, which only `SPUBLISH` reaches.
const fn publish(sharded: bool) -> &'static str {
    match sharded {
        true => "local function publish(c, p) return redis.call('SPUBLISH', c, p) end\n",
        false => "local function publish(c, p) return redis.call('PUBLISH', c, p) end\n",
    }
}

fn code(library: &str, publish: &str, scripts: &[&Script]) -> String {
    let mut code = format!("#!lua name={library}\n{publish}");
    for script in scripts {
        let flags = match script.writes() {
            true => "",
            false => ", flags={'no-writes'}",
        };
        code += &format!(
            "redis.register_function{{function_name='{}', callback=function(keys, args)\n{}\nend{flags}}}\n",
            function(library, script),
            script.body(),
        );
    }
    code
}

fn sha(text: &str) -> String {
    redis::Script::new(text).get_hash().to_owned()
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    static ECHO: Script = Script::new("echo", "return {keys[1], args[1]}");
    static READ: Script = Script::reading("read_2", "return redis.call('GET', keys[1]) -- or nil");
    const PUBLISH: &str = "local function publish(c, p) return redis.call('PUBLISH', c, p) end\n";

    fn library() -> Library {
        Library::new(&[&READ, &ECHO], false).unwrap()
    }

    #[track_caller]
    fn sent(cmd: &Cmd) -> Vec<String> {
        let words = cmd.args_iter().map(|arg| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("a cursor"),
        });
        words.collect()
    }

    fn error(line: &str) -> ServerError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_library_registers_each_script_under_its_versioned_name() {
        let library = library();
        let name = library.name();
        assert!(name.strip_prefix("keep_").is_some_and(|version| {
            version.len() == 12 && version.bytes().all(|digit| digit.is_ascii_hexdigit())
        }));
        let expected = format!(
            "#!lua name={name}\n\
             local function publish(c, p) return redis.call('PUBLISH', c, p) end\n\
             redis.register_function{{function_name='{name}_echo', callback=function(keys, args)\n\
             return {{keys[1], args[1]}}\n\
             end}}\n\
             redis.register_function{{function_name='{name}_read_2', callback=function(keys, args)\n\
             return redis.call('GET', keys[1]) -- or nil\n\
             end, flags={{'no-writes'}}}}\n"
        );
        assert_eq!(library.code, expected);
    }

    #[test]
    fn the_version_is_the_texts_and_nothing_elses() {
        static OTHER_BODY: Script = Script::new("echo", "return {keys[1], args[2]}");
        static OTHER_NAME: Script = Script::new("echo2", "return {keys[1], args[1]}");
        static OTHER_KIND: Script = Script::reading("echo", "return {keys[1], args[1]}");
        let name = |scripts: &[&'static Script]| Library::new(scripts, false).unwrap().name;
        let here = name(&[&ECHO, &READ]);
        assert_eq!(here, name(&[&READ, &ECHO]));
        let others = [&OTHER_BODY, &OTHER_NAME, &OTHER_KIND].map(|other| name(&[other, &READ]));
        let mut all = [&others[..], &[here, name(&[&ECHO]), name(&[])]].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn a_cluster_is_published_to_by_slot() {
        let sharded = Library::new(&[&ECHO], true).unwrap();
        assert!(sharded.code.contains("'SPUBLISH'") && !sharded.code.contains("'PUBLISH'"));
        assert_ne!(
            sharded.name(),
            Library::new(&[&ECHO], false).unwrap().name()
        );
    }

    #[test]
    fn every_fault_is_found() {
        static EMPTY: Script = Script::new("empty", " \n ");
        static QUOTED: Script = Script::new("a'b", "return 1");
        static DIGIT: Script = Script::new("1a", "return 1");
        static CAPITAL: Script = Script::reading("Ab", "return 1");
        static NAMELESS: Script = Script::new("", "return 1");
        let scripts = [&ECHO, &EMPTY, &QUOTED, &DIGIT, &CAPITAL, &NAMELESS, &ECHO];
        let error = Library::new(&scripts, false).unwrap_err().to_string();
        for expected in [
            "redis.scripts = \"empty\": must have a body",
            "redis.scripts = \"a'b\": must be lowercase",
            "redis.scripts = \"1a\": must be lowercase",
            "redis.scripts = \"Ab\": must be lowercase",
            "redis.scripts = \"\": must be lowercase",
            "redis.scripts = \"echo\": is there twice",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(Library::new(&scripts, false).unwrap_err().faults().len(), 6);
    }

    #[test]
    fn functions_are_loaded_at_once_and_scripts_one_by_one() {
        let library = library();
        let functions = library.load(Dialect::Functions);
        assert_eq!(functions.len(), 1);
        let expected = ["FUNCTION", "LOAD", "REPLACE", &library.code];
        assert_eq!(sent(&functions[0]), expected);
        let scripts: Vec<_> = library.load(Dialect::Scripts).iter().map(sent).collect();
        let echo = format!("{PUBLISH}local keys, args = KEYS, ARGV\nreturn {{keys[1], args[1]}}");
        assert_eq!(scripts[0], ["SCRIPT", "LOAD", &echo]);
        assert_eq!(scripts.len(), 2);
    }

    #[test]
    fn without_scripts_nothing_is_loaded() {
        let library = Library::new(&[], true).unwrap();
        assert!(library.is_empty());
        assert_eq!(library.load(Dialect::Functions).len(), 0);
        assert_eq!(library.load(Dialect::Scripts).len(), 0);
    }

    #[test]
    fn a_call_is_made_in_the_servers_dialect() {
        let library = library();
        let name = library.name();
        let call = |dialect, script| {
            let call = Call::new(script).key("k").arg("a").arg("b");
            sent(&library.call(dialect, &call).unwrap())
        };
        let echo = format!("{name}_echo");
        assert_eq!(
            call(Dialect::Functions, &ECHO),
            ["FCALL", &echo, "1", "k", "a", "b"]
        );
        assert_eq!(call(Dialect::Functions, &READ)[0], "FCALL_RO");
        let twin = format!("{PUBLISH}local keys, args = KEYS, ARGV\nreturn {{keys[1], args[1]}}");
        let sha = sha(&twin);
        assert_eq!(
            call(Dialect::Scripts, &ECHO),
            ["EVALSHA", &sha, "1", "k", "a", "b"]
        );
        assert_eq!(call(Dialect::Scripts, &READ)[0], "EVALSHA");
        let bare = library.call(Dialect::Functions, &Call::new(&ECHO));
        let bare = bare.unwrap();
        assert_eq!(sent(&bare), ["FCALL", &echo, "0"]);
    }

    #[test]
    fn keys_and_arguments_are_sent_as_bytes() {
        let (key, arg) = (b"\0{\xff}", b"\r\n\x80");
        let call = Call::new(&ECHO).key(key).arg(arg);
        let call = library().call(Dialect::Scripts, &call).unwrap();
        let packed = call.get_packed_command();
        assert!(packed.ends_with(b"$1\r\n1\r\n$4\r\n\0{\xff}\r\n$3\r\n\r\n\x80\r\n"));
    }

    #[test]
    fn a_script_that_was_not_registered_cannot_be_called() {
        static STRANGE: Script = Script::new("strange", "return 1");
        static NAMESAKE: Script = Script::new("echo", "return 1");
        static EQUAL: Script = ECHO;
        for dialect in [Dialect::Functions, Dialect::Scripts] {
            let call = |script| library().call(dialect, &Call::new(script));
            assert!(call(&STRANGE).is_none() && call(&NAMESAKE).is_none());
            assert!(call(&ECHO).is_some() && call(&EQUAL).is_some());
        }
    }

    #[test]
    fn a_missing_script_is_told_from_other_troubles() {
        for line in [
            "NOSCRIPT No matching script. Please use EVAL.",
            "NOSCRIPT No matching script.",
            "ERR Function not found",
        ] {
            assert!(Library::is_missing(&error(line)), "{line}");
        }
        for line in [
            "ERR Function not found, said the script",
            "ERR",
            "OOM x",
            "NOPERM x",
        ] {
            assert!(!Library::is_missing(&error(line)), "{line}");
        }
    }
}
