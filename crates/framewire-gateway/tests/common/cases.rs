//! The cases of the wire protocol, which are files of bytes.

/// Who does what in a [`conversation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    ClientSends,
    ClientReceives,
    ServerSends,
    ServerReceives,
}

/// Frames that end the link of the endpoint that sends them.
pub(crate) fn broken() -> Vec<Vec<u8>> {
    lines(include_str!("../wire/broken.txt")).map(bytes).collect()
}

/// What a client, a server and the gateway say to each other.
pub(crate) fn conversation() -> Vec<(Step, Vec<u8>)> {
    let step = |line: &str| {
        let (who, rest) = line.split_at_checked("client >".len()).expect("a step");
        let step = match who {
            "client >" => Step::ClientSends,
            "client <" => Step::ClientReceives,
            "server >" => Step::ServerSends,
            "server <" => Step::ServerReceives,
            other => panic!("{other} in {line}"),
        };
        (step, bytes(rest))
    };
    lines(include_str!("../wire/conversation.txt")).map(step).collect()
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// The bytes at the beginning of a line; a word that is not of them begins the comment, which two spaces set off.
fn bytes(line: &str) -> Vec<u8> {
    let digits: String = line.trim_start().split("  ").next().unwrap_or_default().split(' ').collect();
    assert!(digits.len() >= 8 && digits.len() % 2 == 0, "{line}");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}
