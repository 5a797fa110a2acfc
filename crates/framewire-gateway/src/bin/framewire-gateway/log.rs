//! The log, on standard error.

use std::io;

use tracing_subscriber::{
    Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{self, Format, Level};

/// The log as it runs.
pub(crate) struct Log(reload::Handle<LevelFilter, Registry>);

pub(crate) fn start(config: config::Log) -> Log {
    let (level, handle) = reload::Layer::new(filter(config.level));
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let lines = match config.format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(level).with(lines).init();
    Log(handle)
}

impl Log {
    pub(crate) fn set_level(&self, level: Level) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::error!(%error, "the level of the log stays");
        }
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
