//! Style is a test: the floors of the house, the budgets of lines, and what the code must not have.
//!
//! The rules are in `tidy/`, each a function over text with a test of its own that shows it failing; here they are held
//! against the library and, but for the floors, against the other packages of the workspace. Code for tests (`#[cfg(test)]`)
//! is free of the floors and may read the clock, and of nothing else.

#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::{fs, path::Path};

use floors::Building;
use source::{Source, test_modules, tokens};

/// Files outside of the reactor that may do what is for the reactor, each for a reason.
const EXCUSED: [(&str, &str); 2] = [
    // A thread that is not the server's waits for a packet to be written.
    ("src/sync/ticket.rs", "reads the clock"),
    // A thread that is not the server's waits for the answer of the shards.
    ("src/server/handle.rs", "reads the clock"),
];

#[test]
fn no_module_uses_a_floor_above_its_own() {
    let root = read("src/lib.rs");
    let building = Building::new(&root.text);
    expect_none(library().iter().flat_map(|source| building.breaches(source)));
}

#[test]
fn only_the_reactor_touches_the_world() {
    expect_none(library().iter().flat_map(|source| rules::worldliness(source, &EXCUSED)));
}

#[test]
fn every_excuse_is_needed() {
    let library = library();
    for excuse in EXCUSED {
        let others: Vec<_> = EXCUSED.into_iter().filter(|other| *other != excuse).collect();
        let needed = library.iter().any(|source| !rules::worldliness(source, &others).is_empty());
        assert!(needed, "{excuse:?} is excused for nothing");
    }
}

#[test]
fn files_and_functions_keep_their_budgets() {
    let all = everything();
    expect_none(
        all.iter().flat_map(|source| [rules::long_file(source), rules::long_functions(source)].concat()),
    );
}

#[test]
fn nothing_is_unfinished_unsafe_or_switched_off() {
    expect_none(everything().iter().flat_map(rules::forbidden));
}

#[test]
fn every_relaxed_lint_has_a_reason() {
    expect_none(everything().iter().flat_map(rules::unreasoned_allows));
}

#[test]
fn every_example_says_how_it_is_run_and_is_run_by_a_test() {
    let tests: Vec<_> = sources("tests").into_iter().filter(|test| !test.path.contains("tidy")).collect();
    let mut breaches = Vec::new();
    for example in sources("examples") {
        let inner = example.path.trim_start_matches("examples/").trim_end_matches(".rs");
        let name = inner.trim_end_matches("/main");
        if name.contains('/') {
            continue;
        }
        breaches.append(&mut rules::mute_example(&example));
        breaches.append(&mut rules::untested_example(name, &tests));
    }
    expect_none(breaches);
}

fn expect_none(breaches: impl IntoIterator<Item = String>) {
    let breaches: Vec<_> = breaches.into_iter().collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

/// The files of the library proper: not its root, which re-exports from all floors, and not what is for tests alone.
fn library() -> Vec<Source> {
    let all = sources("src");
    let mut for_tests = Vec::new();
    for source in &all {
        for name in test_modules(&tokens(&source.text)) {
            for_tests.push([source.module(), vec![name]].concat());
        }
    }
    let is_for_tests = |source: &Source| for_tests.iter().any(|module| source.module().starts_with(module));
    let is_root = |source: &Source| source.path == "src/lib.rs";
    let library: Vec<_> =
        all.into_iter().filter(|source| !is_root(source) && !is_for_tests(source)).collect();
    assert!(library.len() > 40, "found only {} files", library.len());
    library
}

/// The files of every package.
fn everything() -> Vec<Source> {
    let all: Vec<_> =
        ["src", "tests", "examples", "benches", "crates"].into_iter().flat_map(sources).collect();
    for member in ["crates/framewire-cli/src/", "crates/framewire-cli/tests/", "crates/loom-models/tests/"] {
        assert!(all.iter().any(|source| source.path.starts_with(member)), "nothing found in {member}");
    }
    all
}

/// All Rust files below a directory of the workspace.
fn sources(dir: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(root().join(&dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
        for entry in entries {
            let entry = entry.expect("a directory can be read");
            let path = format!("{dir}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                dirs.push(path);
            } else if path.ends_with(".rs") {
                found.push(read(&path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(path: &str) -> Source {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Source { path: path.to_owned(), text }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
