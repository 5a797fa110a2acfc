//! Style is a test: the floors of the house, the budgets of lines, and what else clippy cannot say.
//!
//! The rules are in `tidy/`, each a function over text with a test of its own that shows it failing; here they are held
//! against the library and, but for the floors, against the other packages of the workspace. Code for tests (`#[cfg(test)]`)
//! is free of the floors, and of nothing else. What clippy can say is in `Cargo.toml` and `clippy.toml`.

#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::{fs, path::Path};

use floors::Building;
use source::{Source, test_modules, tokens};

#[test]
fn no_module_uses_a_floor_above_its_own() {
    let building = Building::new(&read("src/lib.rs").text);
    expect_none(library().iter().flat_map(|source| building.breaches(source)));
}

#[test]
fn every_module_of_the_floors_is_in_the_tree() {
    let modules: Vec<_> = library().iter().map(Source::module).collect();
    expect_none(floors::unbuilt(&modules));
}

#[test]
fn the_root_shows_every_module_on_its_floor() {
    let root = read("src/lib.rs");
    expect_none([floors::misplaced(&root), floors::not_pictured(&root)].concat());
}

#[test]
fn only_the_third_floor_names_what_touches_the_world() {
    expect_none(library().iter().flat_map(rules::worldliness));
}

#[test]
fn files_and_functions_keep_their_budgets() {
    let all = everything();
    expect_none(
        all.iter().flat_map(|source| [rules::long_file(source), rules::long_functions(source)].concat()),
    );
}

#[test]
fn no_test_is_switched_off() {
    expect_none(everything().iter().flat_map(rules::ignored_tests));
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let members = fs::read_dir(root().join("crates")).expect("crates/ is there");
    let members = members.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    let manifests: Vec<_> = members.map(|member| format!("crates/{member}/Cargo.toml")).collect();
    assert!(manifests.len() > 1, "{manifests:?}");
    expect_none(manifests.iter().flat_map(|path| rules::own_lints(&read(path))));
    expect_none(rules::own_lints(&read("Cargo.toml")));
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
