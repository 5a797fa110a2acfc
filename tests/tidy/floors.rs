//! Who may use whom: a module uses its own floor and those below.

use std::collections::HashMap;

use super::source::{Source, Token, closing, follows, tokens, without_tests};

/// The floors, lowest first; `a::b` where a child stands on another floor than its parent. A module that is listed is there, and a
/// module that is there is listed. Customers of the public interface are packages of their own: the compiler holds them to it.
pub(crate) const FLOORS: [&[&str]; 5] = [
    // 0, bytes: no socket, no clock, no thread.
    &[
        "framing",
        "wire",
        "buffer",
        "timer_wheel",
        "sync",
        "addr",
        "contained",
        "decode",
        "deflate",
        "encode",
        "formats",
        "error",
        "events",
        "id",
        "limits",
        "log",
        "metrics",
        "slots",
        "time",
        "testing::collector",
        "testing::law",
    ],
    // 1, one session as a machine.
    &["session", "layer", "tls", "websocket", "handler", "dial"],
    // 2, many sessions as a machine.
    &["shard", "strategy"],
    // 3, the world: polls, sockets, the clock, threads.
    &["reactor", "runtime"],
    // 4, the facade.
    &["server", "channel", "blocking", "testing", "guide"],
];

/// The floor of a module, by the longest entry that its path begins with.
pub(crate) fn floor(path: &[String]) -> Option<usize> {
    let entry = |len: usize| {
        let prefix = path.get(..len)?.join("::");
        FLOORS.iter().position(|floor| floor.contains(&prefix.as_str()))
    };
    (1..=path.len()).rev().find_map(entry)
}

/// What is listed and has no file.
pub(crate) fn unbuilt(modules: &[Vec<String>]) -> Vec<String> {
    let stands = |listed: &&str| modules.iter().any(|module| module.join("::") == **listed);
    let missing = FLOORS.into_iter().flatten().filter(|listed| !stands(listed));
    missing.map(|listed| format!("{listed}: is on a floor in tests/tidy/floors.rs and not in src/")).collect()
}

/// Where `lib.rs` declares a module elsewhere than below the heading of its floor, as in `// Floor 0: bytes.`.
pub(crate) fn misplaced(root: &Source) -> Vec<String> {
    let (mut heading, mut gated, mut misplaced) = (None, false, Vec::new());
    for (number, line) in root.text.lines().enumerate() {
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("// Floor ") {
            heading = rest.split(':').next().and_then(|floor| floor.parse().ok());
        }
        let declared = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ");
        if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
            if !gated && (heading.is_none() || floor(&[name.to_owned()]) != heading) {
                misplaced.push(format!("{}:{}: {name} is not of that floor", root.path, number + 1));
            }
        }
        gated = line == "#[cfg(test)]";
    }
    misplaced
}

/// Which modules the picture of the floors in a text leaves out. It is a block whose lines begin with the number of a floor, or go
/// on with the one before, as in `1  session   session · handler`.
pub(crate) fn not_pictured(source: &Source) -> Vec<String> {
    let lines = source.text.lines().map(|line| line.strip_prefix("//! ").unwrap_or(line));
    let top = format!("{}  ", FLOORS.len() - 1);
    let picture = lines.skip_while(|line| !line.starts_with(&top)).take_while(|line| *line != "```");
    let mut shown: [Vec<&str>; FLOORS.len()] = Default::default();
    let mut floor = None;
    for line in picture {
        floor = line.split(' ').next().and_then(|number| number.parse().ok()).or(floor);
        if let Some(shown) = floor.and_then(|floor: usize| shown.get_mut(floor)) {
            shown.extend(line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        }
    }
    let mut missing = Vec::new();
    for (floor, (modules, shown)) in FLOORS.iter().zip(&shown).enumerate() {
        let rooms = modules.iter().filter(|module| !module.contains("::"));
        missing.extend(rooms.filter(|room| !shown.contains(room)).map(|room| {
            format!("{}: the picture of the floors does not show {room} on floor {floor}", source.path)
        }));
    }
    missing
}

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

    /// What `source` uses of a floor above its own, or of none. Tests may look anywhere: they are on the top of the house.
    pub(crate) fn breaches(&self, source: &Source) -> Vec<String> {
        let module = source.module();
        let Some(own) = floor(&module) else {
            return vec![format!("{}: stands on no floor; give it one in tests/tidy/floors.rs", source.path)];
        };
        let mut breaches = Vec::new();
        for (line, path) in used_paths(&without_tests(&tokens(&source.text)), &module) {
            let exported = path.first().and_then(|name| self.exports.get(name));
            let shown = path.join("::");
            match floor(exported.unwrap_or(&path)) {
                Some(used) if used <= own => {}
                Some(used) => breaches.push(format!(
                    "{}:{line}: floor {own} uses {shown}, which is on floor {used}",
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
    fn a_module_that_is_listed_and_not_there_is_found() {
        let all: Vec<Vec<String>> = FLOORS
            .into_iter()
            .flatten()
            .map(|listed| listed.split("::").map(str::to_owned).collect())
            .collect();
        assert_eq!(unbuilt(&all), Vec::<String>::new());
        for missing in 0..all.len() {
            let others: Vec<_> = all
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != missing)
                .map(|(_, module)| module.clone())
                .collect();
            let found = unbuilt(&others);
            assert!(found.len() == 1 && found[0].starts_with(&all[missing].join("::")), "{found:?}");
        }
    }

    #[test]
    fn a_module_that_is_declared_below_the_heading_of_another_floor_is_found() {
        let root = |text: &str| misplaced(&Source::new("src/lib.rs", text));
        let fine = "// Floor 0: bytes.\npub mod framing;\nmod id;\n\n// Floor 1: one.\nmod session;\n\n#[cfg(test)]\nmod sim;\n";
        assert_eq!(root(fine), Vec::<String>::new());
        assert_eq!(
            root("// Floor 0: bytes.\nmod session;\n"),
            ["src/lib.rs:2: session is not of that floor"]
        );
        assert_eq!(root("// Floor 0: bytes.\nmod attic;\n").len(), 1);
        assert_eq!(root("mod id;\n").len(), 1);
    }

    #[test]
    fn a_module_that_the_picture_of_the_floors_leaves_out_is_found() {
        let picture = |two: &str, one: &str| {
            let rooms = |floor: usize| FLOORS[floor].join(" · ");
            let text = format!(
                "//! ```text\n//! 4  facade  {}\n//! 3  world  {}\n//! 2  shard  {two}\n//! 1  session  {one}\n\
                 //! 0  bytes  framing\n//!           {}\n//! ```\n//! strategy\n",
                rooms(4),
                rooms(3),
                rooms(0),
            );
            not_pictured(&Source::new("src/lib.rs", &text))
        };
        assert_eq!(
            picture("shard · strategy: many", "session · layer · tls · websocket · handler · dial"),
            Vec::<String>::new()
        );
        assert_eq!(
            picture("shard", "session · layer · tls · websocket · handler · dial · strategy"),
            ["src/lib.rs: the picture of the floors does not show strategy on floor 2"]
        );
    }

    #[test]
    fn a_child_may_stand_lower_than_its_parent() {
        assert_eq!(breaches("src/testing/law.rs", "use crate::framing::Framing;"), Vec::<String>::new());
        assert_eq!(breaches("src/testing/law.rs", "use super::sim::Network;").len(), 1);
    }
}
