//! What the program is told: a file in TOML, and arguments that take the place of what stands there.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    time::Duration,
};

use framewire_gateway::{Dialect, Gateway, GatewayLimits, Keys, KeysError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The whole configuration. What a file leaves out is as `--print-config` shows it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Threads beside the one that accepts.
    pub(crate) workers: usize,
    /// Each worker accepts for itself, with `SO_REUSEPORT`.
    pub(crate) reuse_port: bool,
    /// How long virtual connections are closed for, one after the other, before the program ends, in seconds.
    pub(crate) drain: f64,
    /// What links then have to take what waits for them, in seconds.
    pub(crate) grace: f64,
    pub(crate) clients: Clients,
    pub(crate) servers: Vec<Servers>,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
    pub(crate) limits: Limits,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Clients {
    pub(crate) listen: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Servers {
    pub(crate) listen: String,
    pub(crate) dialect: DialectName,
    /// A file with a key on each line.
    pub(crate) keys: PathBuf,
    /// Takes servers with an empty key: every peer.
    pub(crate) open_to_all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DialectName {
    #[default]
    Md5,
    HmacSha256,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    /// Off if it is empty.
    pub(crate) listen: String,
    /// The page needs no log-in: without this, only addresses of this machine are taken.
    pub(crate) open_to_network: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) level: Level,
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// [`GatewayLimits`], with times in seconds.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) max_length: u32,
    pub(crate) clients: usize,
    pub(crate) servers: usize,
    pub(crate) connections_per_client: usize,
    pub(crate) connections_per_server: usize,
    pub(crate) dials_per_second: u32,
    pub(crate) strays_per_second: u32,
    pub(crate) connection_queue: usize,
    pub(crate) client_queue: usize,
    pub(crate) server_queue: usize,
    pub(crate) thread_queue: usize,
    pub(crate) handshake: f64,
    pub(crate) ping_interval: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 0,
            reuse_port: false,
            drain: 5.0,
            grace: 5.0,
            clients: Clients::default(),
            servers: vec![Servers::default()],
            admin: Admin::default(),
            log: Log::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self { listen: vec!["127.0.0.1:7000".into()] }
    }
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7001".into(),
            dialect: DialectName::default(),
            keys: PathBuf::new(),
            open_to_all: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let limits = GatewayLimits::default();
        Self {
            max_length: limits.max_length,
            clients: limits.clients,
            servers: limits.servers,
            connections_per_client: limits.connections_per_client,
            connections_per_server: limits.connections_per_server,
            dials_per_second: limits.dials_per_second,
            strays_per_second: limits.strays_per_second,
            connection_queue: limits.connection_queue,
            client_queue: limits.client_queue,
            server_queue: limits.server_queue,
            thread_queue: limits.thread_queue,
            handshake: limits.handshake.as_secs_f64(),
            ping_interval: limits.ping_interval.as_secs_f64(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    /// `source` names the line and shows it.
    #[error("{path}: {source}")]
    Syntax { path: String, source: Box<toml::de::Error> },
    #[error("{option}: {value} is no number of seconds from 0.001 to 86400")]
    Seconds { option: &'static str, value: f64 },
    #[error("servers at {listen}: {source}")]
    Keys { listen: String, source: KeysError },
    #[error(
        "servers at {0}: there is no file of keys; give one with `keys`, or take every peer with `open_to_all`"
    )]
    NoKeys(String),
    #[error("reuse_port gives each worker a listener of its own, but there are no workers: give at least 1")]
    NobodyAccepts,
    #[error("there is no address for servers: give at least one [[servers]]")]
    NoServers,
    #[error(
        "the status page at {0} could be read by everybody who reaches this machine; allow that with `open_to_network`"
    )]
    OpenPage(String),
}

impl Config {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Syntax { path: name, source: Box::new(source) })
    }

    /// Returns the gateway that is asked for.
    pub(crate) fn gateway(&self) -> Result<Gateway, ConfigError> {
        let mut gateway = Gateway::new().workers(self.workers).limits(self.limits.limits()?);
        if self.reuse_port {
            if self.workers == 0 {
                return Err(ConfigError::NobodyAccepts);
            }
            gateway = gateway.reuse_port();
        }
        for listen in &self.clients.listen {
            gateway = gateway.clients(listen);
        }
        if self.servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        for servers in &self.servers {
            gateway = gateway.servers(&servers.listen, servers.dialect.dialect(), servers.keys()?);
        }
        if let Some(page) = self.admin.page()? {
            gateway = gateway.admin(page);
        }
        self.drain()?;
        self.grace()?;
        Ok(gateway)
    }

    pub(crate) fn drain(&self) -> Result<Duration, ConfigError> {
        if self.drain == 0.0 { Ok(Duration::ZERO) } else { seconds("drain", self.drain) }
    }

    pub(crate) fn grace(&self) -> Result<Duration, ConfigError> {
        seconds("grace", self.grace)
    }
}

impl Servers {
    pub(crate) fn keys(&self) -> Result<Keys, ConfigError> {
        if self.open_to_all {
            return Ok(Keys::open_to_all());
        }
        if self.keys.as_os_str().is_empty() {
            return Err(ConfigError::NoKeys(self.listen.clone()));
        }
        Keys::read(&self.keys).map_err(|source| ConfigError::Keys { listen: self.listen.clone(), source })
    }
}

impl DialectName {
    fn dialect(self) -> Dialect {
        match self {
            Self::Md5 => Dialect::Md5,
            Self::HmacSha256 => Dialect::HmacSha256,
        }
    }
}

impl Admin {
    fn page(&self) -> Result<Option<&str>, ConfigError> {
        let is_local = || {
            let Ok(mut addrs) = self.listen.to_socket_addrs() else {
                return self.listen.starts_with("unix:");
            };
            addrs.all(|addr: SocketAddr| match addr.ip() {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => ip.is_loopback(),
            })
        };
        match self.listen.as_str() {
            "" => Ok(None),
            listen if self.open_to_network || is_local() => Ok(Some(listen)),
            listen => Err(ConfigError::OpenPage(listen.to_owned())),
        }
    }
}

impl Limits {
    pub(crate) fn limits(&self) -> Result<GatewayLimits, ConfigError> {
        Ok(GatewayLimits {
            max_length: self.max_length,
            clients: self.clients,
            servers: self.servers,
            connections_per_client: self.connections_per_client,
            connections_per_server: self.connections_per_server,
            dials_per_second: self.dials_per_second,
            strays_per_second: self.strays_per_second,
            connection_queue: self.connection_queue,
            client_queue: self.client_queue,
            server_queue: self.server_queue,
            thread_queue: self.thread_queue,
            handshake: seconds("limits.handshake", self.handshake)?,
            ping_interval: seconds("limits.ping_interval", self.ping_interval)?,
        })
    }
}

fn seconds(option: &'static str, value: f64) -> Result<Duration, ConfigError> {
    if (0.001..=86_400.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(ConfigError::Seconds { option, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_printed_is_what_is_read() {
        let printed = toml::to_string(&Config::default()).unwrap();
        let read = parse(&printed).unwrap();
        assert_eq!(toml::to_string(&read).unwrap(), printed);
        assert_eq!(read.limits.limits().unwrap(), GatewayLimits::default());
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let unknown = parse("workers = 2\n[limits]\nmax_lenght = 5\n").unwrap_err();
        assert!(unknown.contains("line 3") && unknown.contains("max_lenght"), "{unknown}");
        let kind = parse("workers = \"two\"\n").unwrap_err();
        assert!(kind.contains("line 1"), "{kind}");
    }

    #[test]
    fn what_would_open_the_gateway_has_to_be_asked_for_by_name() {
        let without_keys = Config::default();
        assert!(matches!(without_keys.gateway(), Err(ConfigError::NoKeys(_))));
        let open = "[[servers]]\nopen_to_all = true\n";
        assert!(parse(open).unwrap().gateway().is_ok());
        let page =
            |listen: &str| parse(&format!("[admin]\nlisten = \"{listen}\"\n{open}")).unwrap().gateway();
        for local in ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/run/page"] {
            assert!(page(local).is_ok(), "{local}");
        }
        for everywhere in ["0.0.0.0:7002", "[::]:7002", "192.0.2.1:7002"] {
            assert!(matches!(page(everywhere), Err(ConfigError::OpenPage(_))), "{everywhere}");
        }
        assert!(matches!(parse("servers = []").unwrap().gateway(), Err(ConfigError::NoServers)));
    }

    #[test]
    fn listeners_of_each_worker_need_workers() {
        let with = |workers: usize| {
            let text = format!("reuse_port = true\nworkers = {workers}\n[[servers]]\nopen_to_all = true\n");
            parse(&text).unwrap().gateway()
        };
        assert!(matches!(with(0), Err(ConfigError::NobodyAccepts)));
        assert!(with(1).is_ok());
    }

    #[test]
    fn times_are_checked() {
        for value in ["0", "-1", "nan", "1e9"] {
            let text = format!("[limits]\nhandshake = {value}{}\n", if value == "0" { ".0" } else { "" });
            let error = parse(&text).unwrap().limits.limits().unwrap_err().to_string();
            assert!(error.starts_with("limits.handshake: "), "{error}");
        }
    }
}
