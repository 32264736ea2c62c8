//! stub
use crate::error::ConfigError;
use crate::store::command::Call;
use crate::store::script::Script;
pub(crate) struct Library {
    scripts: Vec<&'static Script>,
}
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialect {
    Functions,
    Scripts,
}
impl Library {
    pub(crate) fn new(s: &[&'static Script]) -> Result<Self, ConfigError> {
        Ok(Self {
            scripts: s.to_vec(),
        })
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.scripts.is_empty()
    }
    pub(crate) fn load(&self, _: Dialect) -> Vec<redis::Cmd> {
        let mut code = String::from("#!lua name=keep_stub\n");
        for s in &self.scripts {
            code.push_str(&format!(
                "redis.register_function('keep_{}', function(keys, args) {} end)\n",
                s.name, s.body
            ));
        }
        let mut c = redis::cmd("FUNCTION");
        c.arg("LOAD").arg("REPLACE").arg(code);
        vec![c]
    }
    pub(crate) fn call(&self, _: Dialect, call: &Call) -> Option<redis::Cmd> {
        self.scripts
            .iter()
            .find(|s| std::ptr::eq(**s, call.script()))?;
        let mut c = redis::cmd("FCALL");
        c.arg(format!("keep_{}", call.script().name))
            .arg(call.keys().len());
        for k in call.keys() {
            c.arg(k);
        }
        for a in call.args() {
            c.arg(a);
        }
        Some(c)
    }
    pub(crate) fn is_missing(&self, e: &redis::ServerError) -> bool {
        e.details()
            .is_some_and(|d| d.contains("Function not found"))
    }
}
