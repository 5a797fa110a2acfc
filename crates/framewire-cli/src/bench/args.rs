use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Options of `framewire bench`.
#[derive(Debug, Args)]
#[command(
    about = "Compare servers side by side on this machine",
    long_about = "Compare servers side by side on this machine.\n\n\
        Every contestant runs in a process of its own and echoes frames of 4 bytes of big-endian length and a payload \
        (in broadcasts, where only some take part, it passes them on to everybody). \
        One load generator talks to all of them in turn, round after round, and compares every byte that comes back. \
        Each figure is the median over the rounds and is printed with how far the farthest round was from it. Without \
        options this takes less than four minutes (with --quick a minute and a half), prints a table and writes \
        framewire-bench.html and framewire-bench.json. An interrupt (ctrl-c) keeps what was measured until then.",
    after_long_help = "\
Examples:
  framewire bench                  everything, with defaults
  framewire bench --quick          the same in less time, with wider spreads
  framewire bench --list           who takes part, and who does not and why
  framewire bench --load echo --connections 1,100,10000 --duration 2 --repeats 7
  framewire bench --load open --rate 20000,100000 --connections 1000
  framewire bench --load broadcast --subscribers 1000,10000 --in-flight 1,8
  framewire bench --server 'mine=./my-server --port {port}' --contestants go
  framewire bench --json - --no-html > results.json
  framewire bench --gateway target/release/framewire-gateway --connections 10000

Exit status: 0 when every contestant answered every message correctly, 1 when
one did not or could not be run, 2 when the options make no sense or the
machine lacks what they need, 130 when it was interrupted."
)]
pub(crate) struct BenchArgs {
    /// Who takes part, the first one being what the others are compared with; --list has the names [default: all that are present]
    #[arg(long, value_delimiter = ',', value_name = "NAMES", help_heading = "Contestants")]
    pub contestants: Vec<String>,
    /// A server of your own: it must listen on 127.0.0.1:{port} and echo frames; may be repeated
    #[arg(long, value_name = "NAME='COMMAND {port}'", value_parser = parse_server, help_heading = "Contestants")]
    pub server: Vec<(String, String)>,
    /// Measure this `framewire-gateway` instead: processor time of each message that it forwards between `--connections` clients and 3 servers, beside an echo of the first contestant; takes the first of `--sizes`, each of `--pipeline`, and prints a table only
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["list", "load", "quick"], help_heading = "Contestants")]
    pub gateway: Option<PathBuf>,
    /// Show who can take part, and who cannot and why
    #[arg(long, help_heading = "Contestants")]
    pub list: bool,

    /// Kinds of load [default: all]
    #[arg(long, value_delimiter = ',', value_name = "KINDS", help_heading = "Load")]
    pub load: Vec<LoadKind>,
    /// Connections; `open` takes the largest of these, `active` and `churn` the smallest
    #[arg(long, value_delimiter = ',', default_value = "10,1000", value_name = "LIST",
        value_parser = count, help_heading = "Load")]
    pub connections: Vec<usize>,
    /// Payload of a message, in bytes (up to 1048576) [default: 64, in `broadcast` 128]
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = size, help_heading = "Load")]
    pub sizes: Vec<usize>,
    /// Messages under way on each connection in a closed loop
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_name = "LIST",
        value_parser = count, help_heading = "Load")]
    pub pipeline: Vec<usize>,
    /// Messages per second in the open loop, over all connections
    #[arg(long, value_delimiter = ',', default_value = "20000", value_name = "LIST",
        value_parser = rate, help_heading = "Load")]
    pub rate: Vec<f64>,
    /// Silent connections in `idle` and `active`
    #[arg(long, value_delimiter = ',', default_value = "2000", value_name = "LIST",
        value_parser = count, help_heading = "Load")]
    pub idle: Vec<usize>,
    /// Connections that receive in `broadcast`; one of them sends
    #[arg(long, value_delimiter = ',', default_value = "1000", value_name = "LIST",
        value_parser = count, help_heading = "Load")]
    pub subscribers: Vec<usize>,
    /// Messages under way in `broadcast`: the next leaves when the oldest has come to everybody
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_name = "LIST",
        value_parser = count, help_heading = "Load")]
    pub in_flight: Vec<usize>,

    /// Seconds that are measured in each run, 0.01 or more; one that others disturb is done once more [default: what fits the time, 0.3 to 2]
    #[arg(long, value_name = "SECONDS", value_parser = window, help_heading = "Time")]
    pub duration: Option<Duration>,
    /// Seconds before that in which nothing is recorded
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = seconds, help_heading = "Time")]
    pub warm_up: Duration,
    /// Rounds: each contestant runs once in each, on every load [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Time")]
    pub repeats: Option<usize>,
    /// A minute and a half instead of four: shorter and fewer rounds, wider spreads
    #[arg(long, help_heading = "Time")]
    pub quick: bool,

    /// Cores of the servers, as in 0,2-5 [default: half of them]
    #[arg(long, value_name = "LIST", value_parser = cores, help_heading = "Machine")]
    pub server_cpus: Option<CoreList>,
    /// Cores of the load generator, one thread each [default: the other half]
    #[arg(long, value_name = "LIST", value_parser = cores, help_heading = "Machine")]
    pub load_cpus: Option<CoreList>,
    /// Pin nothing to any core
    #[arg(long, conflicts_with_all = ["server_cpus", "load_cpus"], help_heading = "Machine")]
    pub no_pin: bool,
    /// Port of the servers, one after the other [default: a free one each time]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Machine")]
    pub port: Option<u16>,
    /// Take fewer connections where the descriptor limit does not allow what was asked for
    #[arg(long, help_heading = "Machine")]
    pub fit: bool,

    /// Where the results go as JSON; `-` is standard output (the table then goes to standard error)
    #[arg(long, value_name = "FILE", default_value = "framewire-bench.json", help_heading = "Output")]
    pub json: PathBuf,
    /// Where the page goes
    #[arg(long, value_name = "FILE", default_value = "framewire-bench.html", help_heading = "Output")]
    pub html: PathBuf,
    /// Write no page
    #[arg(long, help_heading = "Output")]
    pub no_html: bool,
    /// Print the table of ratios in Markdown, and not the one with everything
    #[arg(long, help_heading = "Output")]
    pub markdown: bool,
    /// Print the JSON schema of the results and end
    #[arg(long, help_heading = "Output")]
    pub schema: bool,
}

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadKind {
    /// Closed loop: each connection sends again when a reply comes
    Echo,
    /// Open loop: messages leave by the clock; a stall shows in the latency of all that were due meanwhile
    Open,
    /// Closed loop on a few connections among many silent ones
    Active,
    /// Connect, one message, close
    Churn,
    /// One connection sends, and every connection receives
    Broadcast,
    /// Memory of silent connections
    Idle,
}

impl BenchArgs {
    /// The sizes that were given, or the one that a kind of load has by itself.
    pub(crate) fn sizes_or(&self, default: usize) -> Vec<usize> {
        if self.sizes.is_empty() { vec![default] } else { self.sizes.clone() }
    }
}

/// Cores named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CoreList(pub Vec<usize>);

fn parse_server(text: &str) -> Result<(String, String), String> {
    let (name, command) = text.split_once('=').ok_or("expected NAME='COMMAND {port}'")?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(format!("a name is letters, digits, '-', '_' and '.', which {name:?} is not"));
    }
    if !command.contains("{port}") {
        return Err("the command must say {port} where the port goes".into());
    }
    match shlex::split(command) {
        Some(words) if !words.is_empty() => Ok((name.to_owned(), command.to_owned())),
        _ => Err(format!("{command:?} has an open quote or no word")),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(number @ 1..=10_000_000) => Ok(number),
        _ => Err("expected a whole number from 1 to 10000000".into()),
    }
}

fn size(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(number) if number <= crate::contestants::MAX_FRAME => Ok(number),
        _ => Err("expected bytes, from 0 to 1048576".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse() {
        Ok(number) if (1.0..=1e9).contains(&number) => Ok(number),
        _ => Err("expected messages per second, from 1 to 1000000000".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds, from 0 to 3600".into()),
    }
}

/// A window without any length would measure nothing, and the kernel counts in hundredths.
fn window(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds, from 0.01 to 3600".into()),
    }
}

fn cores(text: &str) -> Result<CoreList, String> {
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("{text:?} is no core number"));
    let mut list = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((from, to)) => list.extend(number(from)?..=number(to)?.min(4095)),
            None => list.push(number(part)?),
        }
    }
    if list.is_empty() { Err("no core".into()) } else { Ok(CoreList(list)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_a_name_and_a_place_for_the_port() {
        assert_eq!(parse_server("a=b {port}").unwrap(), ("a".into(), "b {port}".into()));
        for wrong in ["b {port}", "=b {port}", "a=b", "a=", "a b=c {port}", "a='b {port}"] {
            assert!(parse_server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cores_are_lists_of_numbers_and_ranges() {
        assert_eq!(cores("0,2-4").unwrap(), CoreList(vec![0, 2, 3, 4]));
        assert!(cores("").is_err());
        assert!(cores("4-2").is_err());
        assert!(cores("x").is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!(count("0").is_err());
        assert_eq!(count("10_000"), Ok(10_000));
        assert!(size("1048577").is_err());
        assert!(rate("0").is_err());
        assert!(rate("NaN").is_err());
        assert!(seconds("-1").is_err());
        assert_eq!(seconds("0"), Ok(Duration::ZERO), "without a warm-up");
        assert!(window("0").is_err(), "but not without a window");
        assert!(window("inf").is_err());
    }
}
