//! `framewire-gateway`: virtual connections between very many clients and a few servers.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program speaks there")]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]
#![forbid(unsafe_code)]

mod config;
mod log;
mod signals;

use std::{fmt::Display, path::PathBuf, process::ExitCode};

use clap::Parser;
use framewire_gateway::RunningGateway;

use config::{Config, ConfigError, DialectName, Format, Level};
use signals::{Signal, Signals};

/// Exit status of a configuration that cannot be used; also that of wrong arguments.
const MISCONFIGURED: u8 = 2;
/// Exit status of addresses that cannot be bound, or threads that cannot be started.
const NOT_STARTED: u8 = 3;
/// Exit status of a gateway that has failed while it ran, or did not end in time.
const FAILED: u8 = 1;

/// Holds very many clients and a few servers, one connection each, and carries virtual connections between them.
///
/// SIGTERM and SIGINT: closes the virtual connections, spread over --drain seconds, and ends; a second one ends it at
/// once. SIGHUP: reads the configuration again, and takes keys, limits and the level of the log from it without dropping
/// a link. Exit status: 0 after a clean end, 1 if it failed while running, 2 if the configuration is wrong, 3 if it could
/// not start.
#[derive(Debug, Parser)]
#[command(name = "framewire-gateway", version, max_term_width = 110)]
struct Args {
    /// A configuration file; the other arguments take the place of what stands there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect to: host:port or unix:/path; may be given several times
    #[arg(long, value_name = "ADDR")]
    clients: Vec<String>,
    /// Where servers connect to; may be given several times, all with the same keys and dialect
    #[arg(long, value_name = "ADDR")]
    servers: Vec<String>,
    /// A file with the keys of servers, one on each line; `hex:` before a key in hexadecimal
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Take every peer as a server: the empty key is valid
    #[arg(long, conflicts_with = "keys")]
    open_to_all: bool,
    /// How servers prove their key
    #[arg(long, value_enum, value_name = "NAME")]
    dialect: Option<DialectName>,
    /// Where the status page is; off by default, and only on this machine unless the file says otherwise
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Threads beside the one that accepts; 0: one thread does everything
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Each worker accepts for itself (SO_REUSEPORT, TCP only)
    #[arg(long)]
    reuse_port: bool,
    /// Seconds over which virtual connections are closed before the program ends
    #[arg(long, value_name = "SECONDS")]
    drain: Option<f64>,
    /// What is logged, on standard error
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// How it is logged
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Print the configuration that would be used, every default included, and end
    #[arg(long)]
    print_config: bool,
}

impl Args {
    /// Returns the configuration of the file, with the arguments in it.
    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
        if !self.clients.is_empty() {
            config.clients.listen.clone_from(&self.clients);
        }
        if !self.servers.is_empty() {
            let first = config.servers.first().cloned().unwrap_or_default();
            let at = |listen: &String| config::Servers { listen: listen.clone(), ..first.clone() };
            config.servers = self.servers.iter().map(at).collect();
        }
        for servers in &mut config.servers {
            if let Some(keys) = &self.keys {
                servers.keys.clone_from(keys);
                servers.open_to_all = false;
            }
            servers.open_to_all |= self.open_to_all;
            servers.dialect = self.dialect.unwrap_or(servers.dialect);
        }
        if let Some(listen) = &self.admin {
            config.admin.listen.clone_from(listen);
        }
        config.workers = self.workers.unwrap_or(config.workers);
        config.reuse_port |= self.reuse_port;
        config.drain = self.drain.unwrap_or(config.drain);
        config.log.level = self.log_level.unwrap_or(config.log.level);
        config.log.format = self.log_format.unwrap_or(config.log.format);
        Ok(config)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => return fail(MISCONFIGURED, error),
    };
    if args.print_config {
        return match toml::to_string(&config) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(MISCONFIGURED, error),
        };
    }
    run(&args, &config)
}

fn run(args: &Args, config: &Config) -> ExitCode {
    let gateway = match config.gateway() {
        Ok(gateway) => gateway,
        Err(error) => return fail(MISCONFIGURED, error),
    };
    let log = log::start(config.log);
    // Before the first thread, so that all threads leave the signals to this one.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return fail(NOT_STARTED, format_args!("cannot wait for signals: {error}")),
    };
    let running = match gateway.spawn() {
        Ok(running) => running,
        Err(error) => return fail(NOT_STARTED, error),
    };
    running.client_addrs().iter().for_each(|addr| println!("clients at {addr}"));
    running.server_addrs().iter().for_each(|addr| println!("servers at {addr}"));
    running.admin_addrs().iter().for_each(|addr| println!("page at http://{addr}/"));
    loop {
        match signals.wait() {
            Signal::Reload => reload(args, &running, &log),
            Signal::Stop => return stop(config, running, &mut signals),
        }
    }
}

/// Takes keys, limits and the level of the log from the configuration as it is now. One that cannot be used changes
/// nothing.
fn reload(args: &Args, running: &RunningGateway, log: &log::Log) {
    let read = args.config().and_then(|config| {
        let keys = config.servers.iter().map(config::Servers::keys).collect::<Result<Vec<_>, _>>()?;
        Ok((config.limits.limits()?, keys, config.log.level))
    });
    match read {
        Ok((limits, keys, level)) => {
            running.set_limits(limits);
            keys.into_iter().enumerate().for_each(|(address, keys)| running.set_keys(address, keys));
            log.set_level(level);
            tracing::info!("keys, limits and the level of the log were read again");
        }
        Err(error) => tracing::error!(%error, "the configuration cannot be used: nothing is changed"),
    }
}

fn stop(config: &Config, running: RunningGateway, signals: &mut Signals) -> ExitCode {
    let (Ok(drain), Ok(grace)) = (config.drain(), config.grace()) else { return FAILED.into() };
    tracing::info!(?drain, ?grace, "ending");
    signals.end_at_the_next(running.handle());
    running.drain(drain);
    match running.stop(grace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, error),
    }
}

fn fail(status: u8, error: impl Display) -> ExitCode {
    eprintln!("framewire-gateway: {error}");
    status.into()
}
