//! The rules that concern one file. Each answers with what breaks it; none with an empty list.

use super::floors::floor;
use super::source::{Source, Token, closing, follows, tokens, without_tests};

const MAX_FILE: usize = 500;
const MAX_FUNCTION: usize = 70;

/// No file is longer than 500 lines.
pub(crate) fn long_file(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let found = (lines > MAX_FILE).then(|| format!("{}: {lines} lines, {MAX_FILE} at most", source.path));
    found.into_iter().collect()
}

/// No function is longer than 70 lines, from its `fn` to its last brace.
pub(crate) fn long_functions(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.text);
    let mut found = Vec::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].text == "fn") {
        let Some(body) = body_of(&tokens, at) else { continue };
        let lines = tokens[closing(&tokens, body)].line - tokens[at].line + 1;
        if lines > MAX_FUNCTION {
            let (path, line, name) = (&source.path, tokens[at].line, &tokens[at + 1].text);
            found.push(format!("{path}:{line}: fn {name} has {lines} lines, {MAX_FUNCTION} at most"));
        }
    }
    found
}

/// No test is switched off.
pub(crate) fn ignored_tests(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.text);
    let ignored = (0..tokens.len()).filter(|at| attribute_has(&tokens, *at, "ignore"));
    ignored.map(|at| format!("{}:{}: a test that is switched off", source.path, tokens[at].line)).collect()
}

/// Only the third floor names the crates that touch the world. That nobody else reads the clock or starts a thread, clippy sees.
pub(crate) fn worldliness(source: &Source) -> Vec<String> {
    if floor(&source.module()) == Some(3) {
        return Vec::new();
    }
    let tokens = without_tests(&tokens(&source.text));
    let mut found = Vec::new();
    for world in ["mio", "socket2"] {
        let names =
            |at: &usize| follows(&tokens, *at, &[world, "::"]) || follows(&tokens, *at, &["use", world, ";"]);
        for at in (0..tokens.len()).filter(names) {
            found.push(format!("{}:{}: names {world}, which is for floor 3", source.path, tokens[at].line));
        }
    }
    found
}

/// A package holds to the lints of the workspace.
pub(crate) fn own_lints(manifest: &Source) -> Vec<String> {
    let taken = manifest.text.contains("\n[lints]\nworkspace = true\n");
    let found = (!taken).then(|| format!("{}: does not take the lints of the workspace", manifest.path));
    found.into_iter().collect()
}

/// An example begins by saying how it is run.
pub(crate) fn mute_example(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.starts_with("//!") && first.contains("cargo run");
    let found = (!says).then(|| format!("{}: its first line is no `//!` with a `cargo run`", source.path));
    found.into_iter().collect()
}

/// Some test starts the example of this name.
pub(crate) fn untested_example(name: &str, tests: &[Source]) -> Vec<String> {
    let starts = ["start", "run"].map(|how| format!("Program::{how}(\"{name}\""));
    let is_started = |test: &Source| starts.iter().any(|start| test.text.contains(start));
    let found =
        (!tests.iter().any(is_started)).then(|| format!("examples/{name}: no file in tests/ starts it"));
    found.into_iter().collect()
}

/// Where the body of the function at `at` opens; `None` for a declaration or a type.
fn body_of(tokens: &[Token], mut at: usize) -> Option<usize> {
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => return Some(at),
            ";" | "}" | ")" | "]" | "," | "=" => return None,
            "(" | "[" => at = closing(tokens, at) + 1,
            // The angle brackets of generics and the commas in them.
            "<" => at = behind_angles(tokens, at),
            "where" => return tokens[at..].iter().position(|token| token.text == "{").map(|body| at + body),
            _ => at += 1,
        }
    }
    None
}

fn behind_angles(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "<" => depth += 1,
            ">" if at > 0 && tokens[at - 1].text == "-" => {}
            ">" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

fn attribute_has(tokens: &[Token], at: usize, word: &str) -> bool {
    follows(tokens, at, &["#", "["])
        && tokens[at..closing(tokens, at + 1)].iter().any(|token| token.text == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("src/shard/x.rs", text)
    }

    #[test]
    fn a_file_of_501_lines_is_too_long() {
        assert_eq!(long_file(&source(&"x\n".repeat(500))), Vec::<String>::new());
        assert_eq!(long_file(&source(&"x\n".repeat(501))), ["src/shard/x.rs: 501 lines, 500 at most"]);
    }

    #[test]
    fn a_function_of_71_lines_is_too_long_whatever_braces_it_quotes() {
        let function = |lines: usize| {
            let head = "fn f<F: Fn(u8) -> [u8; 2]>(\n    g: impl Fn() -> u8,\n) -> Option<u8>\nwhere\n    F: Sized,\n{\n";
            format!("fn short();\n{head}{}}}\n", "'{'; \"}\"; // }\n".repeat(lines - 7))
        };
        assert_eq!(long_functions(&source(&function(70))), Vec::<String>::new());
        let found = long_functions(&source(&function(71)));
        assert_eq!(found, ["src/shard/x.rs:2: fn f has 71 lines, 70 at most"]);
    }

    #[test]
    fn a_type_of_functions_has_no_body() {
        let text =
            format!("struct S {{ f: fn(u8) -> u8, g: Box<dyn Fn()> }} impl S {{ {} }}", "\n".repeat(90));
        assert_eq!(long_functions(&source(&text)), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_is_switched_off_is_found() {
        for text in [
            "#[ignore] fn f() {}",
            "#[ignore = \"slow\"] fn f() {}",
            "#[cfg_attr(windows, ignore)] fn f() {}",
        ] {
            assert_eq!(ignored_tests(&source(text)).len(), 1, "{text}");
        }
        let fine = "// #[ignore]\nfn f(ignore: u8) { \"#[ignore]\"; }";
        assert_eq!(ignored_tests(&source(fine)), Vec::<String>::new());
    }

    #[test]
    fn the_world_is_for_the_third_floor() {
        for text in ["use mio::Poll;", "use mio;", "fn f() { socket2::Socket::new() }"] {
            assert_eq!(worldliness(&source(text)).len(), 1, "{text}");
            for room in ["reactor", "runtime"] {
                let above = Source::new(&format!("src/{room}/x.rs"), text);
                assert_eq!(worldliness(&above), Vec::<String>::new(), "{text}");
            }
        }
        let test = source("#[cfg(test)] mod tests { use mio::Poll; }");
        assert_eq!(worldliness(&test), Vec::<String>::new());
    }

    #[test]
    fn a_package_with_lints_of_its_own_is_found() {
        let manifest = |text: &str| own_lints(&Source::new("Cargo.toml", text));
        assert_eq!(manifest("[package]\n\n[lints]\nworkspace = true\n"), Vec::<String>::new());
        assert_eq!(manifest("[package]\n").len(), 1);
        assert_eq!(manifest("[package]\n\n[lints.rust]\nunsafe_code = \"allow\"\n").len(), 1);
    }

    #[test]
    fn an_example_says_how_it_is_run_in_its_first_line() {
        assert_eq!(mute_example(&source("//! An echo. `cargo run --example echo`\n")), Vec::<String>::new());
        assert_eq!(mute_example(&source("// cargo run --example echo\n")).len(), 1);
        assert_eq!(mute_example(&source("//! An echo.\n//! cargo run\n")).len(), 1);
        assert_eq!(mute_example(&source("")).len(), 1);
    }

    #[test]
    fn an_example_that_no_test_starts_is_found() {
        let tests = [Source::new(
            "tests/examples.rs",
            "Program::start(\"echo\", &[]); Program::run(\"client\", &[]); \"chat\"",
        )];
        assert_eq!(untested_example("echo", &tests), Vec::<String>::new());
        assert_eq!(untested_example("client", &tests), Vec::<String>::new());
        assert_eq!(untested_example("chat", &tests), ["examples/chat: no file in tests/ starts it"]);
    }
}
