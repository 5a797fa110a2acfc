use std::path::PathBuf;

use clap::ValueEnum;

use super::args::BenchArgs;
use super::case::{Case, Kind};
use super::child::{Launch, Listens};
use super::error::BenchError;
use super::results::ContestantInfo;
use crate::contestants::{BuiltIn, Duty, go};

/// Built into the program only with the feature `bench`.
const OPTIONAL: [(&str, &str); 2] = [
    ("tokio", "tokio, a task per connection, tokio-util's LengthDelimitedCodec"),
    ("may", "may, a stackful coroutine per connection"),
];
const GO: (&str, &str) = ("go", "Go, a goroutine per connection, its standard library");

/// A server to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Contestant {
    pub name: String,
    pub about: String,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    BuiltIn(BuiltIn),
    Program(PathBuf),
    Command(String),
}

/// All contestants, and why some are missing.
#[derive(Debug)]
pub(crate) struct Roster {
    pub present: Vec<Contestant>,
    pub missing: Vec<ContestantInfo>,
}

impl Roster {
    /// Finds the contestants that are present; builds the Go server when it is wanted and Go is found.
    pub(crate) fn gather(args: &BenchArgs) -> Result<Self, BenchError> {
        let wants = |name: &str| args.contestants.is_empty() || args.contestants.iter().any(|n| n == name);
        let mut roster = Self { present: Vec::new(), missing: Vec::new() };
        for variant in BuiltIn::value_variants() {
            roster.add_built_in(*variant, args);
        }
        for (name, about) in OPTIONAL {
            if wants(name) && !roster.present.iter().any(|known| known.name == name) {
                roster.miss(name, about, "built without the feature `bench`");
            }
        }
        if wants(GO.0) {
            match go::build() {
                Ok(program) => roster.add(GO.0, GO.1, Source::Program(program)),
                Err(reason) => roster.miss(GO.0, GO.1, &reason.to_string()),
            }
        }
        for (name, command) in &args.server {
            if roster.present.iter().any(|known| known.name == *name) {
                return Err(BenchError::usage(format!("two servers have the name {name}")));
            }
            roster.add(name, &format!("`{command}`"), Source::Command(command.clone()));
        }
        roster.in_order_of(args)
    }

    fn add_built_in(&mut self, variant: BuiltIn, args: &BenchArgs) {
        let Some(value) = variant.to_possible_value() else { return };
        let name = value.get_name();
        let asked_for = args.contestants.iter().any(|wanted| wanted == name);
        // a faulty one takes part only when it is called by its name
        if asked_for || args.contestants.is_empty() && !variant.is_faulty() {
            let about = value.get_help().map(ToString::to_string).unwrap_or_default();
            self.add(name, &about, Source::BuiltIn(variant));
        }
    }

    fn add(&mut self, name: &str, about: &str, source: Source) {
        self.present.push(Contestant { name: name.to_owned(), about: about.to_owned(), source });
    }

    fn miss(&mut self, name: &str, about: &str, reason: &str) {
        self.missing.push(ContestantInfo {
            name: name.to_owned(),
            about: about.to_owned(),
            skipped: Some(reason.to_owned()),
        });
    }

    /// The order of `--contestants`, which must all be there; then the user's own servers.
    fn in_order_of(mut self, args: &BenchArgs) -> Result<Self, BenchError> {
        for name in &args.contestants {
            if let Some(ContestantInfo { skipped: Some(reason), .. }) =
                self.missing.iter().find(|missing| missing.name == *name)
            {
                return Err(BenchError::usage(format!("{name} cannot take part: {reason}")));
            }
            if !self.present.iter().any(|present| present.name == *name) {
                let known = known_names(args);
                return Err(BenchError::usage(format!("there is no contestant {name}; there are {known}")));
            }
        }
        let place = |contestant: &Contestant| {
            args.contestants.iter().position(|name| *name == contestant.name).unwrap_or(usize::MAX)
        };
        self.present.sort_by_key(place);
        Ok(self)
    }

    /// Returns how many run on a case.
    pub(crate) fn takers(&self, case: &Case, limit: Option<u64>) -> usize {
        self.present.iter().filter(|contestant| contestant.takes(case, limit)).count()
    }

    /// Says who would take part in a broadcast with more descriptors.
    pub(crate) fn note_kept_out(&self, case: &Case, limit: Option<u64>, notes: &mut Vec<String>) {
        let kept_out = |who: &&Contestant| who.takes(case, None) && !who.takes(case, limit);
        notes.extend(self.present.iter().filter(kept_out).map(|who| {
            let needed = case.descriptors(who.descriptors_each());
            format!("{} takes no part where it would need {needed} descriptors: {}", who.name, case.title())
        }));
    }

    /// Returns all contestants as they are shown in the results.
    pub(crate) fn infos(&self) -> Vec<ContestantInfo> {
        let present = self.present.iter().map(|contestant| ContestantInfo {
            name: contestant.name.clone(),
            about: contestant.about.clone(),
            skipped: None,
        });
        present.chain(self.missing.iter().cloned()).collect()
    }
}

/// All that can be asked for: those that do wrong on purpose are for tests.
fn known_names(args: &BenchArgs) -> String {
    let built_in = BuiltIn::value_variants().iter().filter(|variant| !variant.is_faulty());
    let mut names: Vec<String> = built_in
        .filter_map(|variant| Some(variant.to_possible_value()?.get_name().to_owned()))
        .chain(OPTIONAL.iter().map(|(name, _)| (*name).to_owned()))
        .chain([GO.0.to_owned()])
        .chain(args.server.iter().map(|(name, _)| name.clone()))
        .collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names.join(", ")
}

impl Contestant {
    /// Descriptors that it needs for each connection.
    pub(crate) fn descriptors_each(&self) -> u64 {
        match self.source {
            Source::BuiltIn(variant) => variant.descriptors_each(),
            Source::Program(_) | Source::Command(_) => 1,
        }
    }

    /// Returns `true` if it can do what the case asks for. In a broadcast that are those that know how to (a server of
    /// the user's own only echoes), and have the descriptors: the number of subscribers is not for the neediest to say.
    pub(crate) fn takes(&self, case: &Case, limit: Option<u64>) -> bool {
        case.kind != Kind::Broadcast || self.broadcasts() && self.fits(case, limit)
    }

    fn broadcasts(&self) -> bool {
        match self.source {
            Source::BuiltIn(variant) => variant.broadcasts(),
            Source::Program(_) => true,
            Source::Command(_) => false,
        }
    }

    fn fits(&self, case: &Case, limit: Option<u64>) -> bool {
        limit.is_none_or(|limit| case.descriptors(self.descriptors_each()) <= limit)
    }

    /// How to start it for a kind of load; `port` is where it must listen, or a free one is found.
    pub(crate) fn launch(&self, kind: Kind, port: Option<u16>) -> Result<Launch, BenchError> {
        let duty = if kind == Kind::Broadcast { Duty::Broadcast } else { Duty::Echo };
        if let Some(port) = port {
            check_free(port)?;
        }
        let own = || std::env::current_exe().map_err(BenchError::NoSelf);
        let at = port.unwrap_or(0).to_string();
        Ok(match &self.source {
            Source::BuiltIn(_) => Launch {
                program: own()?,
                args: ["serve-contestant", &self.name, "--port", &at, "--duty", duty.name()]
                    .map(String::from)
                    .to_vec(),
                listens: Listens::Says,
            },
            Source::Program(program) => Launch {
                program: program.clone(),
                args: ["-port", &at, "-duty", duty.name()].map(String::from).to_vec(),
                listens: Listens::Says,
            },
            Source::Command(command) => {
                let port = port.map_or_else(free_port, Ok)?;
                let words = shlex::split(command).unwrap_or_default();
                let words = words.iter().map(|word| word.replace("{port}", &port.to_string()));
                Launch {
                    program: own()?,
                    args: ["keep", "--"].map(String::from).into_iter().chain(words).collect(),
                    listens: Listens::At(port),
                }
            }
        })
    }
}

fn check_free(port: u16) -> Result<(), BenchError> {
    std::net::TcpListener::bind(("127.0.0.1", port))
        .map(drop)
        .map_err(|source| BenchError::Port { port, source })
}

/// A port that was free a moment ago: all that can be had for a server that must be told.
fn free_port() -> Result<u16, BenchError> {
    let error = |source| BenchError::Port { port: 0, source };
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(error)?;
    Ok(listener.local_addr().map_err(error)?.port())
}
