use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::results::Environment;
use crate::contestants::go;

/// The versions that this program was built from, where it was built with its own lock file.
const LOCK: &str = include_str!("../../../../Cargo.lock");
/// Of these, those that are compared.
const COMPARED: [&str; 4] = ["mio", "tokio", "tokio-util", "may"];

impl Environment {
    /// What can be told before anything ran.
    pub(crate) fn look(descriptor_limit: Option<u64>, go_takes_part: bool) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: since.as_secs(),
            seconds: 0.0,
            command: command(),
            framewire: env!("CARGO_PKG_VERSION").to_owned(),
            optimized: !cfg!(debug_assertions),
            os: std::env::consts::OS.to_owned(),
            kernel: read("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH.to_owned(),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(kibibytes),
            descriptor_limit,
            versions: versions(go_takes_part),
        }
    }
}

impl Environment {
    /// The machine in a line, the name of its CPU first.
    pub(crate) fn machine(&self) -> String {
        let cpu = self.cpu.as_deref().unwrap_or("CPU of unknown name");
        let kernel = self.kernel.as_deref().map(|kernel| format!(" {kernel}")).unwrap_or_default();
        format!("{cpu}, {} cores, {}{kernel}, {}, loopback", self.cores, self.os, self.architecture)
    }
}

/// The command line; of the program only its name, since its location matters to no other user.
fn command() -> Vec<String> {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    std::iter::once(name.unwrap_or(program)).chain(words).collect()
}

fn versions(go_takes_part: bool) -> Vec<(String, String)> {
    let locked = COMPARED.iter().filter_map(|name| Some((name.to_string(), locked_version(LOCK, name)?)));
    let go = go::version().filter(|_| go_takes_part).map(|version| ("go".to_owned(), short_go(&version)));
    locked.chain(go).collect()
}

/// `go version go1.22.1 linux/amd64` says three things too many.
fn short_go(line: &str) -> String {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix("go").filter(|v| !v.is_empty()));
    word.unwrap_or(line).to_owned()
}

fn locked_version(lock: &str, name: &str) -> Option<String> {
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(after.split_once('"')?.0.to_owned())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kibibytes(text: String) -> Option<u64> {
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(locked_version(LOCK, "mio").is_some_and(|version| version.starts_with("1.")));
        assert_eq!(locked_version(LOCK, "no-such-crate"), None);
    }

    #[test]
    fn the_version_of_go_is_a_number() {
        assert_eq!(short_go("go version go1.22.1 linux/amd64"), "1.22.1");
        assert_eq!(short_go("odd"), "odd");
    }
}
