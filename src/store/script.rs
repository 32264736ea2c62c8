//! stub
/// stub
#[derive(Debug)]
pub struct Script {
    pub(crate) name: &'static str,
    pub(crate) body: &'static str,
    pub(crate) reads: bool,
}
impl Script {
    /// stub
    pub const fn new(name: &'static str, body: &'static str) -> Self {
        Self {
            name,
            body,
            reads: false,
        }
    }
    /// stub
    pub const fn reading(name: &'static str, body: &'static str) -> Self {
        Self {
            name,
            body,
            reads: true,
        }
    }
}
