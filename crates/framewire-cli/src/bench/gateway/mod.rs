//! `framewire bench --gateway`: what a gateway costs for each message that it forwards, beside an echo server.
//!
//! ```text
//! drive clients ──▶ gateway ──▶ drive servers        an echo through the gateway: two messages forwarded
//! drive echo    ──▶ echo server                      an echo: the same system calls, and nothing else
//! ```
//!
//! All are processes of their own, the peers several, so that none needs more descriptors than it may have.

mod drive;
mod peers;
mod process;
mod servers;
mod wire;

pub(crate) use drive::{DriveArgs, drive};

use std::path::Path;
use std::time::Duration;

use super::args::BenchArgs;
use super::case::Kind;
use super::child::ServerChild;
use super::contestant::Roster;
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::machine::{Cores, Split};
use super::process::Process;
use super::progress;
use super::{Verdict, print};
use drive::Role;
use process::{Driver, Gateway};

/// Servers behind the gateway.
const SERVERS: usize = 3;
/// Virtual connections of each client.
const EACH: usize = 2;
/// Clients of one process.
const CLIENTS_EACH: usize = 5_000;

/// One in-flight setting: nanoseconds of processor time for a forwarded message and for an echo, by round.
struct Row {
    pipeline: usize,
    rounds: Vec<(f64, f64)>,
}

/// Measures `program`, a `framewire-gateway`, beside the first contestant.
pub(super) fn run(args: &BenchArgs, program: &Path) -> Result<Verdict, BenchError> {
    let interrupt = Interrupt::catch().map_err(BenchError::Interrupt)?;
    let roster = Roster::gather(args)?;
    let echo = roster.present.first().ok_or_else(|| BenchError::usage("nobody takes part"))?;
    let split = if args.no_pin {
        Split { server: Cores::anywhere(1), load: Cores::anywhere(1) }
    } else {
        Split::halves()
    };
    let own = split.load.list().unwrap_or_default();
    let clients = args.connections.iter().copied().max().unwrap_or(1);
    let size = args.sizes_or(64).first().copied().unwrap_or(64);

    let gateway = Gateway::start(program, &split.server, own)?;
    let server = ServerChild::start(&echo.launch(Kind::Echo, args.port)?, &split.server, own)?;
    let empty = gateway.process().memory();
    let _servers = Driver::start(Role::Servers, gateway.servers(), SERVERS, size)?;
    let mut through = start_all(Role::Clients, gateway.clients(), clients, size)?;
    let held = gateway.process().memory();
    let mut direct = start_all(Role::Echo, server.addr(), clients, size)?;

    let time = args.duration.unwrap_or(Duration::from_secs(1));
    let mut rows = Vec::new();
    'rows: for pipeline in args.pipeline.iter().copied() {
        rows.push(Row { pipeline, rounds: Vec::new() });
        for round in 1..=args.repeats.unwrap_or(5) {
            let forwarded = cost(gateway.process(), &mut through, pipeline, time)? / 2.0;
            let echoed = cost(Process::new(server.pid()), &mut direct, pipeline, time)?;
            progress::say(&format!(
                "round {round}, {pipeline} in flight: {forwarded:.0} ns a forwarded message, {echoed:.0} ns an echo"
            ));
            if let Some(row) = rows.last_mut() {
                row.rounds.push((forwarded, echoed));
            }
            if interrupt.came() {
                break 'rows;
            }
        }
    }
    let mut text = format!(
        "{clients} clients with {EACH} connections each, {SERVERS} servers, {size} bytes; an echo is one of {}\n",
        echo.name
    );
    if let Some((empty, held)) = empty.zip(held) {
        let each = held.saturating_sub(empty) / clients as u64;
        text.push_str(&format!("{each} bytes of memory for an idle client with its connections\n"));
    }
    rows.iter().for_each(|row| text.push_str(&row.render()));
    print(&text)?;
    Ok(if interrupt.came() { Verdict::Interrupted } else { Verdict::AllRight })
}

/// Starts so many clients, and waits until all are connected.
fn start_all(
    role: Role,
    to: std::net::SocketAddr,
    clients: usize,
    size: usize,
) -> Result<Vec<Driver>, BenchError> {
    let processes = clients.div_ceil(CLIENTS_EACH);
    let share = |index: usize| clients / processes + usize::from(index < clients % processes);
    (0..processes).map(|index| Driver::start(role, to, share(index), size)).collect()
}

/// Nanoseconds of the process's time for each reply.
fn cost(
    process: Process,
    drivers: &mut [Driver],
    pipeline: usize,
    time: Duration,
) -> Result<f64, BenchError> {
    let cpu =
        || process.cpu_ns().ok_or_else(|| BenchError::usage("this system does not tell processor times"));
    let before = cpu()?;
    drivers.iter_mut().try_for_each(|driver| driver.begin(pipeline, time))?;
    let mut replies = 0;
    for driver in drivers {
        replies += driver.replies()?;
    }
    Ok(cpu()?.saturating_sub(before) as f64 / replies.max(1) as f64)
}

impl Row {
    fn render(&self) -> String {
        let mut ratios: Vec<f64> = self.rounds.iter().map(|(forwarded, echoed)| forwarded / echoed).collect();
        ratios.sort_by(f64::total_cmp);
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let forwarded = median(self.rounds.iter().map(|round| round.0).collect());
        let echoed = median(self.rounds.iter().map(|round| round.1).collect());
        format!(
            "{:>4} in flight: {forwarded:.0} ns of processor time for a forwarded message, {echoed:.0} ns for an echo: \
             {:.2} x ({:.2} to {:.2}, {} rounds)\n",
            self.pipeline,
            median(ratios.clone()),
            ratios.first().copied().unwrap_or(f64::NAN),
            ratios.last().copied().unwrap_or(f64::NAN),
            self.rounds.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_of_the_ratios_and_their_ends() {
        let row = Row { pipeline: 16, rounds: vec![(100.0, 100.0), (300.0, 100.0), (90.0, 60.0)] };
        let text = row.render();
        assert!(text.starts_with("  16 in flight: 100 ns"), "{text}");
        assert!(text.ends_with("1.50 x (1.00 to 3.00, 3 rounds)\n"), "{text}");
    }
}
