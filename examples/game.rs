//! A game with 20 ticks a second, on one thread and without a lock. `cargo run --release --example game`, then
//! `nc 127.0.0.1 7000` in two terminals and type `w`, `a`, `s` or `d`, each followed by return.
//!
//! A packet only notes what a player wants. The tick moves all players and sends the new field to all, if it has changed.
//! The world is what the one handler and the states of its sessions hold: no other thread ever sees it.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::time::{Duration, Instant};

use framewire::{CloseReason, Handled, Overflow, PacketHandler, Separator, Server, Session, SessionInfo};
use framewire::{ShardContext, SingleReactor, TimerId};

const TICK: TimerId = TimerId(0);
const PERIOD: Duration = Duration::from_millis(50);
const FIELD: (i32, i32) = (20, 10);
/// Of the packets of which only the latest is worth sending.
const FIELD_KEY: u64 = 0;
/// The longest line that a player may send, in bytes.
const MAX_LINE: usize = 80;

#[derive(Clone)]
struct Game {
    started: Instant,
    players: u32,
    /// Players have come or gone since the last tick.
    changed: bool,
}

/// The state of a session.
struct Player {
    number: u32,
    at: (i32, i32),
    /// Where to go in the next tick. The last wish counts, so sending more gains nothing.
    step: (i32, i32),
}

impl Player {
    /// Returns `true` if it has moved.
    fn tick(&mut self) -> bool {
        let (x, y) = std::mem::take(&mut self.step);
        let to = ((self.at.0 + x).clamp(0, FIELD.0 - 1), (self.at.1 + y).clamp(0, FIELD.1 - 1));
        std::mem::replace(&mut self.at, to) != to
    }
}

impl PacketHandler for Game {
    type State = Player;

    fn on_start(&mut self, shard: &mut ShardContext<'_, Player>) {
        let _ = shard.set_timer(TICK, PERIOD); // The only timer: there is room for it.
    }

    fn on_shard_timer(&mut self, shard: &mut ShardContext<'_, Player>, timer: TimerId) {
        // Counted from the start, so that ticks do not drift. One that comes too late is left out, not made up for.
        let since = self.started.elapsed();
        let tick = since.as_nanos() / PERIOD.as_nanos();
        let due = PERIOD.saturating_mul(u32::try_from(tick + 1).unwrap_or(u32::MAX));
        let _ = shard.set_timer(timer, due.saturating_sub(since));

        let mut changed = std::mem::take(&mut self.changed);
        let mut players = Vec::new();
        shard.each(|_, player| {
            changed |= player.tick();
            players.push((player.number, player.at));
        });
        if changed {
            players.sort_unstable();
            let shown = players.iter().map(|(number, (x, y))| format!(" {number}@{x},{y}"));
            let field = format!("tick {tick}:{}", shown.collect::<String>());
            shard.each(|session, _| {
                // A player that does not read as fast misses fields, and never the newest. An error means that it leaves.
                let _ = session.send_as(&field, Overflow::Latest(FIELD_KEY));
            });
        }
    }

    fn on_open(&mut self, _: &mut Session<'_>) -> Handled<Player> {
        self.players += 1;
        self.changed = true;
        Ok(Player { number: self.players, at: (FIELD.0 / 2, FIELD.1 / 2), step: (0, 0) })
    }

    fn on_packet(&mut self, session: &mut Session<'_>, player: &mut Player, line: &[u8]) -> Handled {
        match line {
            b"w" => player.step = (0, -1),
            b"a" => player.step = (-1, 0),
            b"s" => player.step = (0, 1),
            b"d" => player.step = (1, 0),
            _ => session.send("w, a, s or d")?,
        }
        Ok(())
    }

    fn on_closing(&mut self, _: &SessionInfo, _: &mut Player, _: &CloseReason) {
        self.changed = true;
    }
}

fn main() -> Result<(), framewire::ServeError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let running = Server::bind(addr)?
        .framing(Separator::lines().max(MAX_LINE))
        .strategy(SingleReactor::new())
        .stop_on_signal(Duration::from_secs(1))
        .spawn(Game { started: Instant::now(), players: 0, changed: false })?;
    running.local_addrs().iter().for_each(|addr| println!("listening on {addr}"));
    running.wait()
}
