//! The rules that concern one file. Each answers with what breaks it; none with an empty list.

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

/// Nothing is left undone, switched off or unsafe.
pub(crate) fn forbidden(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let what = match token.text.as_str() {
            "todo" | "unimplemented" if follows(&tokens, at + 1, &["!"]) => "unfinished code",
            "unsafe" => "unsafe code",
            "#" if attribute_has(&tokens, at, "ignore") => "a test that is switched off",
            _ => continue,
        };
        found.push(format!("{}:{}: {what}", source.path, token.line));
    }
    found
}

/// Whoever relaxes a lint says why, in the attribute.
pub(crate) fn unreasoned_allows(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.text);
    let relaxes = |at: &usize| {
        matches!(tokens[*at].text.as_str(), "allow" | "expect")
            && follows(&tokens, *at + 1, &["("])
            && (follows(&tokens, at.saturating_sub(2), &["#", "["])
                || follows(&tokens, at.saturating_sub(3), &["#", "!", "["])
                || follows(&tokens, at.saturating_sub(1), &[","]) && in_cfg_attr(&tokens, *at))
    };
    let reasonless =
        |at: &usize| !tokens[*at..closing(&tokens, *at + 1)].iter().any(|token| token.text == "reason");
    let found = (0..tokens.len()).filter(relaxes).filter(reasonless);
    found
        .map(|at| format!("{}:{}: a lint is relaxed without a reason", source.path, tokens[at].line))
        .collect()
}

/// What only the reactor may do, and the word for it.
const WORLDLY: [(&str, &[&str]); 12] = [
    ("names mio", &["mio", "::"]),
    ("names mio", &["use", "mio", ";"]),
    ("names socket2", &["socket2", "::"]),
    ("names socket2", &["use", "socket2", ";"]),
    ("reads the clock", &["Instant", "::", "now"]),
    ("reads the clock", &["SystemTime", "::", "now"]),
    ("reads the clock", &[".", "elapsed", "("]),
    ("starts a thread", &["thread", "::", "spawn"]),
    ("starts a thread", &["thread", "::", "scope"]),
    ("starts a thread", &["thread", "::", "Builder"]),
    ("sleeps", &["thread", "::", "sleep"]),
    ("sleeps", &["thread", "::", "park_timeout"]),
];

/// Only the reactor touches the world: polls, sockets, clock, threads. `excused` are pairs of a file and what it may do.
pub(crate) fn worldliness(source: &Source, excused: &[(&str, &str)]) -> Vec<String> {
    if ["src/reactor/", "src/runtime/"].iter().any(|room| source.path.starts_with(room)) {
        return Vec::new();
    }
    let tokens = without_tests(&tokens(&source.text));
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        for (what, signs) in WORLDLY {
            if follows(&tokens, at, signs) && !excused.contains(&(source.path.as_str(), what)) {
                found.push(format!("{}:{}: {what}, which is for the reactor", source.path, token.line));
            }
        }
    }
    found
}

/// An example begins by saying how it is run.
pub(crate) fn mute_example(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.starts_with("//!") && first.contains("cargo run");
    let found = (!says).then(|| format!("{}: its first line is no `//!` with a `cargo run`", source.path));
    found.into_iter().collect()
}

/// Some test runs, or includes, the example of this name.
pub(crate) fn untested_example(name: &str, tests: &[Source]) -> Vec<String> {
    let (quoted, path) = (format!("\"{name}\""), format!("examples/{name}"));
    let tested = tests.iter().any(|test| test.text.contains(&quoted) || test.text.contains(&path));
    let found = (!tested).then(|| format!("examples/{name}: no file in tests/ runs it"));
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

/// Whether the token at `at` stands within a `cfg_attr(…)`.
fn in_cfg_attr(tokens: &[Token], at: usize) -> bool {
    let open = tokens[..at].iter().rposition(|token| token.text == "cfg_attr");
    open.is_some_and(|open| closing(tokens, open + 1) > at)
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
    fn unfinished_unsafe_and_ignored_code_is_found() {
        for text in [
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"later\") }",
            "unsafe fn f() {}",
            "#[ignore] fn f() {}",
            "#[ignore = \"slow\"] fn f() {}",
            "#[cfg_attr(windows, ignore)] fn f() {}",
        ] {
            assert_eq!(forbidden(&source(text)).len(), 1, "{text}");
        }
        let fine = "#![forbid(unsafe_code)] // todo!() unsafe\nfn todo(ignore: u8) { \"#[ignore] unsafe\"; }";
        assert_eq!(forbidden(&source(fine)), Vec::<String>::new());
    }

    #[test]
    fn a_lint_that_is_relaxed_without_a_reason_is_found() {
        for text in [
            "#[allow(dead_code)] fn f() {}",
            "#![allow(dead_code, unused)]",
            "#[expect(dead_code)] fn f() {}",
            "#[cfg_attr(test, allow(dead_code))] fn f() {}",
        ] {
            assert_eq!(unreasoned_allows(&source(text)).len(), 1, "{text}");
        }
        let fine = "#[allow(dead_code, reason = \"x\")] fn f() { a.allow(b); g(c, expect(d)); }";
        assert_eq!(unreasoned_allows(&source(fine)), Vec::<String>::new());
    }

    #[test]
    fn the_world_is_for_the_reactor() {
        for text in [
            "use mio::Poll;",
            "use mio;",
            "fn f() { socket2::Socket::new() }",
            "fn f() { let now = std::time::Instant::now(); }",
            "fn f() { start.elapsed(); }",
            "use std::thread; fn f() { thread::spawn(g); }",
            "fn f() { std::thread::sleep(d); }",
        ] {
            assert_eq!(worldliness(&source(text), &[]).len(), 1, "{text}");
            let reactor = Source::new("src/reactor/x.rs", text);
            assert_eq!(worldliness(&reactor, &[]), Vec::<String>::new(), "{text}");
        }
        let clock = source("fn f() { Instant::now(); }");
        assert_eq!(worldliness(&clock, &[("src/shard/x.rs", "reads the clock")]), Vec::<String>::new());
        assert_eq!(worldliness(&clock, &[("src/shard/x.rs", "sleeps")]).len(), 1);
        let test = source("#[cfg(test)] mod tests { fn f() { Instant::now(); } }");
        assert_eq!(worldliness(&test, &[]), Vec::<String>::new());
    }

    #[test]
    fn an_example_says_how_it_is_run_in_its_first_line() {
        assert_eq!(mute_example(&source("//! An echo. `cargo run --example echo`\n")), Vec::<String>::new());
        assert_eq!(mute_example(&source("// cargo run --example echo\n")).len(), 1);
        assert_eq!(mute_example(&source("//! An echo.\n//! cargo run\n")).len(), 1);
        assert_eq!(mute_example(&source("")).len(), 1);
    }

    #[test]
    fn an_example_that_no_test_names_is_found() {
        let tests = [Source::new("tests/examples.rs", "run(\"echo\"); include!(\"../examples/law.rs\");")];
        assert_eq!(untested_example("echo", &tests), Vec::<String>::new());
        assert_eq!(untested_example("law", &tests), Vec::<String>::new());
        assert_eq!(untested_example("chat", &tests), ["examples/chat: no file in tests/ runs it"]);
    }
}
