//! Devices that log in, are watched, and are reached by name. `cargo run --release --example iot_hub`, then
//! `nc 127.0.0.1 7000` and type `LOGIN kettle 5` or `LOGIN lamp 0`, then nothing, or `PONG`, or a reading; in another
//! terminal `nc 127.0.0.1 7001` and type `devices` or `push kettle boil`.
//!
//! A device has 10 s to log in. It announces after how many seconds it will have sent something, as in MQTT; after one
//! and a half times as long without a byte it is given up. A device that announces 0 is asked instead: it gets a `PING`
//! every 5 s, and is given up when it has answered none of three. One that logs in again takes the place of its old
//! connection, which may be dead without the hub knowing.
//!
//! Arguments choose the addresses of the devices and the operators, and then the 10 s and the 5 s, in milliseconds.
#![allow(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{error::Error, time::Duration};

use framewire::{
    Channels, CloseReason, Failure, Handled, Heartbeat, PacketHandler, Reactor, Separator, Server, Session,
    SessionInfo, WorkerPool, packet_fn,
};

const MAX_LINE: usize = 200;
const LOGIN_WITHIN: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(5);
const PINGS_WITHOUT_ANSWER: u16 = 3;
/// The longest keep-alive that a device may announce, in seconds.
const LONGEST: u64 = 3_600;
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Hub {
    /// A channel for each device, by name, with its session as the one member. All threads share them, and a device that
    /// has gone leaves no trace.
    devices: Channels,
    login_within: Duration,
    /// All sessions share its packet.
    ping: Heartbeat,
}

/// What is known of a device.
#[derive(Default)]
struct Device {
    /// Not yet, before it has logged in.
    name: Option<String>,
    readings: u64,
}

impl Hub {
    fn log_in(&self, session: &mut Session<'_>, device: &mut Device, line: &str) -> Handled {
        let ["LOGIN", name, keep_alive] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(Failure::because("no login"));
        };
        match keep_alive.parse()? {
            0 => session.set_heartbeat(self.ping.clone()),
            seconds @ 1..=LONGEST => session.set_idle_timeout(Duration::from_secs(seconds) * 3 / 2),
            _ => return Err(Failure::because("so long a keep-alive is none")),
        }
        let place = self.devices.get(name).max_members(1);
        for old in place.members() {
            place.kick(&old);
            let _ = old.close_with("it has logged in again"); // An error means that it is gone already.
        }
        // Fails if the device logs in twice at the same moment.
        place.join(&session.handle())?;
        // The deadline was for the login alone.
        session.set_max_age(None);
        device.name = Some(name.to_owned());
        Ok(session.send(format!("WELCOME {name}"))?)
    }
}

impl PacketHandler for Hub {
    type State = Device;

    fn on_open(&mut self, session: &mut Session<'_>) -> Handled<Device> {
        session.set_max_age(self.login_within);
        Ok(Device::default())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, device: &mut Device, packet: &[u8]) -> Handled {
        let line = std::str::from_utf8(packet)?;
        if device.name.is_none() {
            return self.log_in(session, device, line);
        }
        if line != "PONG" {
            device.readings += 1;
            session.send(format!("STORED {}", device.readings))?;
        }
        Ok(())
    }

    fn on_closing(&mut self, _: &SessionInfo, device: &mut Device, reason: &CloseReason) {
        let name = device.name.as_deref().unwrap_or("a stranger");
        println!("{name} leaves after {} readings: {reason}", device.readings);
    }
}

/// Replies to operators.
fn operate(devices: &Channels, session: &mut Session<'_>, line: &[u8]) -> Handled {
    let line = std::str::from_utf8(line)?;
    let reply = match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["devices"] => format!("{} devices", devices.len()),
        ["push", name, text] => match devices.find(name).map(|device| device.publish(text)).transpose()? {
            Some(1) => format!("sent to {name}"),
            _ => format!("{name} is not connected"),
        },
        _ => "devices | push NAME TEXT".to_owned(),
    };
    Ok(session.send(reply)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut addr = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let lines = Separator::lines().max(MAX_LINE);
    let devices = Server::bind(addr("127.0.0.1:7000"))?.framing(lines.clone());
    let operators = Server::bind(addr("127.0.0.1:7001"))?.framing(lines);
    let mut millis = |default: Duration| match args.next() {
        Some(arg) => arg.parse().map(Duration::from_millis),
        None => Ok(default),
    };
    let login_within = millis(LOGIN_WITHIN)?;
    let ping = Heartbeat::every(millis(PING_EVERY)?, "PING")?.lost_after(PINGS_WITHOUT_ANSWER);
    let known = Channels::new();
    operators.local_addrs().iter().for_each(|addr| println!("operators at {addr}"));
    let hub = Hub { devices: known.clone(), login_within, ping };
    let addrs = devices.local_addrs();
    let running = Reactor::new(WorkerPool::per_core())
        .service(devices, hub)
        .service(operators, packet_fn(move |session, line| operate(&known, session, line)))
        .stop_on_signal(GRACE)
        .spawn()?;
    addrs.iter().for_each(|addr| println!("listening on {addr}"));
    Ok(running.wait()?)
}
