use std::num::NonZeroU64;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValuesRef};

use crate::show::Show;
use crate::spec::{self, FramingSpec};
use crate::target::Target;

/// Options of `framewire probe`.
#[derive(Debug, Args)]
#[command(
    about = "Talk to a framed port: each line of input is sent as a packet, each packet is shown as a line",
    after_help = format!("{}\n\n{STATUS}", spec::HELP),
    after_long_help = format!("{}\n\n{LONG_HELP}\n\n{STATUS}", spec::HELP)
)]
pub(crate) struct ProbeArgs {
    /// Whom to talk to: host:port, [v6]:port or unix:/path
    pub(crate) addr: Target,
    /// How packets are cut from the stream, both ways
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) framing: FramingSpec,
    #[command(flatten)]
    pub(crate) packets: Packets,
    /// Lines of standard input are hex
    #[arg(long, conflicts_with_all = [Packets::TEXT, Packets::HEX])]
    pub(crate) hex_input: bool,
    /// How packets are shown
    #[arg(long, value_enum, default_value_t = Show::Text)]
    pub(crate) show: Show,
    /// Show at most so many bytes of each packet [default: all, with --trace 256]
    #[arg(long, value_name = "BYTES")]
    pub(crate) show_bytes: Option<usize>,
    /// Show what is sent (>) and received (<), with seconds since the start and lengths
    #[arg(short, long)]
    pub(crate) trace: bool,
    /// End after so many packets; fewer are an error
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<NonZeroU64>,
    /// Leave this side open when the input has ended, instead of telling the peer
    #[arg(short, long)]
    pub(crate) keep_open: bool,
    /// How long to wait for the peer when the input has ended [default: 3, with --keep-open for ever]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) wait: Option<Duration>,
    /// Most bytes of a packet, both ways [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max: Option<usize>,
}

const LONG_HELP: &str = "\
Examples:
  framewire probe 127.0.0.1:7000 --framing u32-be
  echo hello | framewire probe 127.0.0.1:7000 -f lines
  framewire probe 127.0.0.1:7000 -f lines --send PING --trace --keep-open -n 1
  framewire probe 127.0.0.1:7000 -f varint --send-hex '08 96 01' --show hex

Packets go to standard output, everything else to standard error. It ends
when the peer does, when --count packets have come, or when --wait has passed
since its own input ended. At that end it closes its own direction, which the
peer sees as the end of the stream; --keep-open leaves it open.

A line of input that is no packet is reported and left out.";

const STATUS: &str = "\
Exit status:
  0  all went well: the peer ended, --count packets came, or --wait passed
  1  the peer broke the framing or the connection, stopped within a frame, or
     sent fewer packets than --count
  2  this side: no connection, a wrong option, or input (not typed at a
     terminal) that is no packet";

/// How long to wait after the end of the input, unless told.
const WAIT: Duration = Duration::from_secs(3);

impl ProbeArgs {
    /// How long to wait for the peer after the end of the input; `None` for ever.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.wait.or((!self.keep_open).then_some(WAIT))
    }

    /// The framing with its maximum.
    pub(crate) fn framing(&self) -> FramingSpec {
        let framing = self.framing.clone();
        match self.max {
            Some(max) => framing.max(max),
            None => framing,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "that is no number of seconds".to_owned())
}

/// What `--send` and `--send-hex` ask for, in the order in which they were given.
#[derive(Debug, Clone)]
pub(crate) struct Packets(pub(crate) Vec<Vec<u8>>);

impl Packets {
    const TEXT: &str = "send";
    const HEX: &str = "send_hex";
}

impl Args for Packets {
    fn augment_args(command: Command) -> Command {
        let text = Arg::new(Self::TEXT)
            .long("send")
            .value_name("TEXT")
            .allow_hyphen_values(true)
            .action(ArgAction::Append)
            .help("Send this text as a packet instead of reading standard input; may be repeated");
        let hex = Arg::new(Self::HEX)
            .long("send-hex")
            .value_name("HEX")
            .action(ArgAction::Append)
            .value_parser(crate::hex::decode)
            .help("The same in hex, as in 6364, '63 64', 63:64 or 0x63,0x64; both may alternate");
        command.arg(text).arg(hex)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Packets {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let texts = placed(matches, Self::TEXT, matches.get_many::<String>(Self::TEXT));
        let hexes = placed(matches, Self::HEX, matches.get_many::<Vec<u8>>(Self::HEX));
        let mut packets: Vec<_> = texts.map(|(place, text)| (place, text.clone().into_bytes())).collect();
        packets.extend(hexes.map(|(place, bytes)| (place, bytes.clone())));
        packets.sort_by_key(|(place, _)| *place);
        Ok(Self(packets.into_iter().map(|(_, packet)| packet).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an option, with their places on the command line.
fn placed<'a, T: 'a>(
    matches: &'a ArgMatches,
    id: &str,
    values: Option<ValuesRef<'a, T>>,
) -> impl Iterator<Item = (usize, &'a T)> {
    matches.indices_of(id).into_iter().flatten().zip(values.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        args: ProbeArgs,
    }

    fn parsed(args: &[&str]) -> ProbeArgs {
        Probe::try_parse_from([&["probe", "localhost:7", "-f", "u8"], args].concat()).unwrap().args
    }

    #[test]
    fn a_probe_waits_for_a_while_for_ever_or_as_told() {
        assert_eq!(parsed(&[]).patience(), Some(WAIT));
        assert_eq!(parsed(&["--keep-open"]).patience(), None);
        for args in [&["--wait", "0.5"][..], &["--keep-open", "--wait", "0.5"]] {
            assert_eq!(parsed(args).patience(), Some(Duration::from_millis(500)));
        }
    }

    #[test]
    fn packets_keep_the_order_of_their_options() {
        let args = ["--send-hex", "00", "--send", "a", "--show", "hex", "--send-hex=01", "--send="];
        assert_eq!(parsed(&args).packets.0, [&b"\0"[..], b"a", b"\x01", b""]);
        assert!(parsed(&[]).packets.0.is_empty());
    }
}
