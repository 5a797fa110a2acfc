//! Who may use whom: a module uses its own floor and those below.

use std::collections::HashMap;

use super::source::{Source, Token, closing, follows, tokens, without_tests};

/// The floors, lowest first; `a::b` where a child stands on another floor than its parent. Customers of the public interface
/// that are packages of their own, as the command line is, need no entry: the compiler holds them to it.
pub(crate) const FLOORS: [&[&str]; 6] = [
    // 0, bytes: no socket, no clock, no thread.
    &[
        "framing",
        "wire",
        "encode",
        "buffer",
        "addr",
        "contained",
        "error",
        "id",
        "limits",
        "metrics",
        "slots",
        "sync",
        "time",
        "timer_wheel",
        "testing::collector",
        "testing::law",
    ],
    // 1, one session as a machine.
    &["handler", "session"],
    // 2, many sessions as a machine.
    &["shard", "strategy"],
    // 3, the world: polls, sockets, the clock, threads.
    &["reactor", "runtime"],
    // 4, the facade.
    &["server", "client", "blocking", "testing"],
    // 5, customers of the public interface.
    &["gateway", "cluster"],
];

/// Where modules stand, and what the crate's root re-exports from them.
#[derive(Debug)]
pub(crate) struct Building {
    exports: HashMap<String, Vec<String>>,
}

impl Building {
    /// `root` is the text of `lib.rs`.
    pub(crate) fn new(root: &str) -> Self {
        let tokens = tokens(root);
        let mut exports = HashMap::new();
        for at in 0..tokens.len() {
            if follows(&tokens, at, &["pub", "use"]) {
                for path in paths_at(&tokens, at + 2, &[]) {
                    if let Some(name) = path.last() {
                        exports.insert(name.clone(), path.clone());
                    }
                }
            }
        }
        Self { exports }
    }

    /// The floor of a module, by the longest entry that its path begins with.
    pub(crate) fn floor(&self, path: &[String]) -> Option<usize> {
        let entry = |len: usize| {
            let prefix = path.get(..len)?.join("::");
            FLOORS.iter().position(|floor| floor.contains(&prefix.as_str()))
        };
        (1..=path.len()).rev().find_map(entry)
    }

    /// What `source` uses of a floor above its own, or of none. Tests may look anywhere: they are on the top of the house.
    pub(crate) fn breaches(&self, source: &Source) -> Vec<String> {
        let module = source.module();
        let Some(own) = self.floor(&module) else {
            return vec![format!("{}: stands on no floor; give it one in tests/tidy/floors.rs", source.path)];
        };
        let mut breaches = Vec::new();
        for (line, path) in used_paths(&without_tests(&tokens(&source.text)), &module) {
            let exported = path.first().and_then(|name| self.exports.get(name));
            let shown = path.join("::");
            match self.floor(exported.unwrap_or(&path)) {
                Some(floor) if floor <= own => {}
                Some(floor) => breaches.push(format!(
                    "{}:{line}: floor {own} uses {shown}, which is on floor {floor}",
                    source.path
                )),
                None if path.is_empty() || shown == "*" => {
                    breaches.push(format!("{}:{line}: uses all of the crate's root", source.path));
                }
                None => breaches.push(format!("{}:{line}: {shown} stands on no floor", source.path)),
            }
        }
        breaches
    }
}

/// Every path in `tokens` that begins with `crate`, `self` or `super`, from the root, in `use` and elsewhere.
fn used_paths(tokens: &[Token], module: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut used = Vec::new();
    let mut here = module.to_vec();
    // For each open brace, whether it belongs to an inline module.
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        let is_path = matches!(text, "crate" | "self" | "super") && follows(tokens, at + 1, &["::"]);
        if is_path {
            for path in paths_at(tokens, at, &here) {
                used.push((tokens[at].line, path));
            }
            at = end_of_path(tokens, at);
            continue;
        }
        if text == "mod" && follows(tokens, at + 2, &["{"]) {
            here.push(tokens[at + 1].text.clone());
            braces.push(true);
            at += 3;
            continue;
        }
        match text {
            "{" => braces.push(false),
            "}" if braces.pop() == Some(true) => drop(here.pop()),
            _ => {}
        }
        at += 1;
    }
    used
}

/// The paths of the tree (`a::{b, c::d}`) that begins at `at`, within the module `base`.
fn paths_at(tokens: &[Token], mut at: usize, base: &[String]) -> Vec<Vec<String>> {
    let mut path = base.to_vec();
    let mut first = true;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "crate" if first => path.clear(),
            "self" => {}
            "super" => drop(path.pop()),
            "{" => return branches(tokens, at, &path),
            name => path.push(name.to_owned()),
        }
        first = false;
        if !follows(tokens, at + 1, &["::"]) {
            break;
        }
        at += 2;
    }
    vec![path]
}

fn branches(tokens: &[Token], open: usize, base: &[String]) -> Vec<Vec<String>> {
    let end = closing(tokens, open);
    let mut paths = Vec::new();
    let mut at = open + 1;
    while at < end {
        paths.append(&mut paths_at(tokens, at, base));
        at = end_of_path(tokens, at);
        while at < end && tokens[at].text != "," {
            at += 1;
        }
        at += 1;
    }
    paths
}

fn end_of_path(tokens: &[Token], mut at: usize) -> usize {
    loop {
        if follows(tokens, at, &["{"]) {
            return closing(tokens, at) + 1;
        }
        if !follows(tokens, at + 1, &["::"]) {
            return at + 1;
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        let root = "mod server; pub use server::{Server, ServerHandle}; pub use id::SessionId;";
        Building::new(root).breaches(&Source::new(path, text))
    }

    #[test]
    fn what_is_on_the_same_floor_or_below_may_be_used() {
        let text = "use crate::{buffer::Outbox, handler::PacketHandler, id::{Key, SessionId as Id}}; use super::view;";
        assert_eq!(breaches("src/session/shard_core.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_higher_floor_is_found_however_it_is_named() {
        for text in [
            "use crate::shard::Shard;",
            "use crate::{id::Key, shard::{Shard, Command}};",
            "use super::super::shard;",
            "fn f() { crate::reactor::run() }",
            "mod inner { use super::super::super::reactor::run; }",
            "fn f(server: &crate::Server) {}",
            "pub(crate) use crate::testing::sim::Network;",
        ] {
            assert!(!breaches("src/session/shard_core.rs", text).is_empty(), "{text}");
        }
        let both = breaches("src/session/shard_core.rs", "\nuse crate::{shard::A, reactor::B};");
        assert_eq!(
            both,
            [
                "src/session/shard_core.rs:2: floor 1 uses shard::A, which is on floor 2",
                "src/session/shard_core.rs:2: floor 1 uses reactor::B, which is on floor 3"
            ]
        );
    }

    #[test]
    fn documentation_and_tests_may_look_up() {
        let text = "/// See [`Server`](crate::Server) and crate::reactor::x.\nfn f() {}\n\
                    #[cfg(test)] mod tests { use crate::server::Server; }";
        assert_eq!(breaches("src/id.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_module_without_a_floor_is_found() {
        assert_eq!(breaches("src/attic.rs", "").len(), 1);
        assert_eq!(breaches("src/server/mod.rs", "use crate::attic::Box;").len(), 1);
        assert_eq!(breaches("src/server/mod.rs", "use crate::*;").len(), 1);
    }

    #[test]
    fn a_child_may_stand_lower_than_its_parent() {
        assert_eq!(breaches("src/testing/law.rs", "use crate::framing::Framing;"), Vec::<String>::new());
        assert_eq!(breaches("src/testing/law.rs", "use super::sim::Network;").len(), 1);
    }
}
