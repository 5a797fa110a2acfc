//! How it ends: by itself, by an interrupt, or killed; and what it leaves behind.
#![cfg(target_os = "linux")]

use std::io::BufRead;
use std::process::Command;

use serde_json::Value;

use super::output::TWO;
use super::{PROGRAM, Place, json, rows, schema};

/// A benchmark that would take minutes; ends with the test.
struct Endless(std::process::Child);

impl Endless {
    fn start(place: &Place, more: &[&str]) -> Self {
        let args = "bench --load echo --connections 2 --duration 60 --repeats 1 --no-html --json -";
        let mut command = Command::new(PROGRAM);
        command.args(args.split_whitespace()).args(more).current_dir(&place.0);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        Self(command.spawn().expect("the program runs"))
    }

    /// Its server, once the load's connections have reached it.
    fn server(&self) -> u32 {
        eventually(|| children(self.0.id()).into_iter().find(|pid| is_connected(*pid)))
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.stop();
    }
}

fn children(of: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| parent(pid) == Some(of)).collect()
}

/// Whether the load's connections have reached a process: a listener and two more sockets.
fn is_connected(pid: u32) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count() >= 3
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "it did not happen within 30 s");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn kill(pid: u32) {
    signal("-KILL", pid);
}

fn signal(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success());
}

/// Starts a benchmark and interrupts it once `begun` is among what it says.
fn interrupted_when(place: &Place, args: &str, begun: &str) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("bench").args(args.split_whitespace()).current_dir(&place.0);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = Endless(command.spawn().expect("the program runs"));
    let mut said = std::io::BufReader::new(child.0.stderr.take().expect("its errors")).lines();
    assert!(said.any(|line| line.is_ok_and(|line| line.contains(begun))), "{begun}");
    signal("-INT", child.0.id());
    let table = std::io::read_to_string(child.0.stdout.take().expect("its output")).expect("text");
    // read to the end, so that it never writes into a closed pipe
    said.for_each(drop);
    (child.0.wait().expect("it ends").code(), table)
}

#[test]
fn an_interrupt_keeps_what_was_measured() {
    let place = Place::new("interrupt");
    let (status, table) =
        interrupted_when(&place, &format!("{TWO} --pipeline 1 --repeats 9000"), "round 3 of 9000");
    assert_eq!(status, Some(130));
    assert!(table.contains("note: interrupted") && table.contains("framewire-single"), "{table}");
    let results: Value = serde_json::from_str(&place.read("framewire-bench.json")).expect("JSON");
    assert_eq!(results["interrupted"], true);
    for row in rows(&results) {
        assert!(row["summary"]["rounds"].as_u64().is_some_and(|rounds| rounds >= 2), "{row}");
        assert!(row["error"].is_null(), "and nobody is blamed");
    }
    assert!(place.read("framewire-bench.html").contains("interrupted"));
    let schema = json(&place.bench(&["--schema"]));
    assert_eq!(schema::departures(&schema, &results), Vec::<String>::new());
}

#[test]
fn an_interrupt_before_anything_was_measured_leaves_no_file() {
    let place = Place::new("too-soon");
    let args = "--contestants std-threads --load echo --connections 2 --duration 60 --repeats 2";
    let (status, _) = interrupted_when(&place, args, "round 1 of 2");
    assert_eq!(status, Some(130));
    let left: Vec<_> = std::fs::read_dir(&place.0).expect("the place").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_server_that_is_killed_is_reported() {
    let place = Place::new("killed");
    let mut bench = Endless::start(&place, &["--contestants", "framewire-single", "--pipeline", "1"]);
    kill(bench.server());
    let results: Value = serde_json::from_reader(bench.0.stdout.take().expect("its output")).expect("JSON");
    assert_eq!(bench.0.wait().expect("it ends").code(), Some(1));
    let error = rows(&results).next().map(|row| row["error"].to_string()).unwrap_or_default();
    assert!(error.contains("the server ended by itself (signal: 9"), "{error}");
}

#[test]
fn a_benchmark_that_is_killed_leaves_no_server_behind() {
    let place = Place::new("orphans");
    let mut bench = Endless::start(&place, &["--contestants", "std-threads"]);
    let server = bench.server();
    bench.stop();
    eventually(|| (!is_alive(server)).then_some(()));
    let left: Vec<_> = std::fs::read_dir(&place.0).expect("the place").flatten().collect();
    assert!(left.is_empty(), "and no file: {left:?}");
}

#[test]
fn a_benchmark_that_is_killed_leaves_no_command_of_the_users_behind() {
    let place = Place::new("command");
    let server = format!("mine='{PROGRAM}' echo 127.0.0.1:{{port}}");
    let mut bench = Endless::start(&place, &["--contestants", "mine", "--server", &server]);
    // another test may take the port that was found for it: then the next case has the next keeper
    let (keeper, server) = eventually(|| {
        let server_of = |keeper| children(keeper).into_iter().find(|pid| is_connected(*pid));
        children(bench.0.id()).into_iter().find_map(|keeper| Some((keeper, server_of(keeper)?)))
    });
    bench.stop();
    eventually(|| (!is_alive(server) && !is_alive(keeper)).then_some(()));
}
