//! Rust text as far as the rules need it: without comments and literals, cut into tokens.

/// A source file, by its path from the root of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The path of the module that a file below `src` holds: `shard/mod.rs` is `[shard]`, `lib.rs` is `[]`.
    pub(crate) fn module(&self) -> Vec<String> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut module: Vec<_> = inner.split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            module.pop();
        }
        module
    }
}

/// A word, or a sign; a `::` is one sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The tokens of `text` outside of comments. A literal leaves one `""`, a lifetime nothing.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let code = mask(text);
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let len = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") || rest.starts_with("\"\"") {
                2
            } else {
                first.len_utf8()
            };
            let (token, behind) = rest.split_at(len);
            if !first.is_whitespace() {
                found.push(Token { text: token.to_owned(), line: number + 1 });
            }
            rest = behind;
        }
    }
    found
}

/// The tokens less the items that exist for tests only: what `#[cfg(test)]` or `#[cfg(all(test, …))]` stands before.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_test_gate(tokens, at) {
            at = end_of_item(tokens, at);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The modules that `tokens` declare in files of their own and for tests only.
pub(crate) fn test_modules(tokens: &[Token]) -> Vec<String> {
    let gates = (0..tokens.len()).filter(|at| is_test_gate(tokens, *at));
    let declared = gates.filter_map(|at| match &tokens[at..end_of_item(tokens, at)] {
        [.., keyword, name, end] if keyword.text == "mod" && end.text == ";" => Some(name.text.clone()),
        _ => None,
    });
    declared.collect()
}

/// Where the bracket that opens at `open` closes; the end of the text if it never does.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// Whether `tokens` go on at `at` with these.
pub(crate) fn follows(tokens: &[Token], at: usize, texts: &[&str]) -> bool {
    texts.iter().enumerate().all(|(n, text)| tokens.get(at + n).is_some_and(|token| token.text == *text))
}

fn is_test_gate(tokens: &[Token], at: usize) -> bool {
    let start = ["#", "[", "cfg", "("];
    if !follows(tokens, at, &start) {
        return false;
    }
    let condition = at + start.len();
    follows(tokens, condition, &["test", ")"])
        || (follows(tokens, condition, &["all", "("])
            && tokens[condition..closing(tokens, condition + 1)].iter().any(|token| token.text == "test"))
}

/// Behind the item that begins with the attribute at `at`.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => return closing(tokens, at) + 1,
            ";" => return at + 1,
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at
}

/// `text` with spaces for comments and `""` for literals, line by line as before.
fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let (len, stand_in) = match skipped(rest, in_word) {
            Some((len, stand_in)) => (len, Some(stand_in)),
            None => (first.len_utf8(), None),
        };
        let (this, behind) = rest.split_at(len);
        in_word = stand_in.is_none() && (first.is_alphanumeric() || first == '_');
        match stand_in {
            Some(stand_in) => {
                out.push_str(stand_in);
                out.extend(this.chars().filter(|c| *c == '\n'));
            }
            None => out.push(first),
        }
        rest = behind;
    }
    out
}

/// How long the comment or literal is that `rest` begins with, and what stands in for it.
fn skipped(rest: &str, in_word: bool) -> Option<(usize, &'static str)> {
    // Most of a text is neither, which the first byte tells.
    if !rest.starts_with(['/', '"', '\'', 'b', 'c', 'r']) {
        return None;
    }
    if rest.starts_with("//") {
        return Some((rest.find('\n').unwrap_or(rest.len()), " "));
    }
    if rest.starts_with("/*") {
        return Some((block_comment(rest), " "));
    }
    if rest.starts_with('"') {
        return Some((quoted(rest, 1, '"'), "\"\""));
    }
    if rest.starts_with('\'') {
        return Some(char_or_lifetime(rest));
    }
    if in_word {
        return None;
    }
    for prefix in ["b\"", "c\"", "b'"] {
        if rest.starts_with(prefix) {
            let quote = if prefix.ends_with('"') { '"' } else { '\'' };
            return Some((quoted(rest, 2, quote), "\"\""));
        }
    }
    let raw = ["br", "cr", "r"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let body = raw[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some((rest.len() - body.len() + len, "\"\""))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a literal whose content begins at `start` and ends at an unescaped `quote`.
fn quoted(rest: &str, start: usize, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip_while(|(at, _)| *at < start) {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// `'x'` and `'\n'` are literals, `'a` is a lifetime.
fn char_or_lifetime(rest: &str) -> (usize, &'static str) {
    let mut chars = rest.char_indices().skip(1);
    let (first, second) = (chars.next(), chars.next());
    match (first, second) {
        (Some((_, '\\')), _) | (_, Some((_, '\''))) => (quoted(rest, 1, '\''), "\"\""),
        _ => {
            let name = |(at, c): &(usize, char)| *at > 0 && !c.is_alphanumeric() && *c != '_';
            (rest.char_indices().find(name).map_or(rest.len(), |(at, _)| at), " ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_hide_what_they_hold() {
        let text = r###"
            // crate::a { "
            /* { /* nested */ " */ x = "}\"{" ; 'a' '"' '\'' b'{' r#"un"sa{fe"# br"{" c"{" ; fn f<'a>(b: &'a u8) {}
        "###;
        let expected = "x = \"\" ; \"\" \"\" \"\" \"\" \"\" \"\" \"\" ; fn f < > ( b : & u8 ) { }";
        assert_eq!(words(text), expected.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_counted_through_comments_and_literals() {
        let found = tokens("/* 1\n2 */ a\n\"3\n4\" b // c\nd");
        let lines: Vec<_> = found.iter().map(|token| (token.text.as_str(), token.line)).collect();
        assert_eq!(lines, [("a", 2), ("\"\"", 3), ("b", 4), ("d", 5)]);
    }

    #[test]
    fn items_for_tests_are_left_out_and_nothing_else() {
        let text = "a; #[cfg(test)] mod tests { b; { c } } d; #[cfg(all(unix, test))] #[path = \"x\"] mod e; f; \
                    #[cfg(not(test))] g; #[cfg(test)] fn h(x: [u8; 2]) -> u8 { 1 } i;";
        let kept: Vec<_> = without_tests(&tokens(text)).into_iter().map(|token| token.text).collect();
        let kept: Vec<_> =
            kept.iter().filter(|text| text.len() == 1 && text.starts_with(char::is_alphabetic)).collect();
        assert_eq!(kept, ["a", "d", "f", "g", "i"]);
        assert_eq!(test_modules(&tokens(text)), ["e"]);
    }

    #[test]
    fn a_file_is_a_module() {
        let module = |path: &str| Source::new(path, "").module().join("::");
        assert_eq!(module("src/lib.rs"), "");
        assert_eq!(module("src/shard/mod.rs"), "shard");
        assert_eq!(module("src/shard/input.rs"), "shard::input");
        assert_eq!(module("src/handler.rs"), "handler");
    }
}
