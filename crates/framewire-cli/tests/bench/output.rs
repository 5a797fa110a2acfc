//! What it prints and writes: figures with their rounds and spread, lines as it goes, pipes that are closed.

use std::process::{Command, Output};

use serde_json::Value;

use super::{PROGRAM, Place, json, text};

/// Two contestants and the fewest loads.
pub(crate) const TWO: &str =
    "--contestants framewire-single,std-threads --load echo --connections 2 --duration 0.05 --warm-up 0.01";

fn two(more: &str) -> Vec<String> {
    format!("{TWO} {more}").split_whitespace().map(str::to_owned).collect()
}

fn bench(place: &Place, args: &[String]) -> Output {
    place.bench(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_ratio_is_the_quotient_of_the_figures_beside_it_and_says_how_many_rounds_it_has() {
    let output = bench(&Place::new("ratio"), &two("--pipeline 1,4 --repeats 4 --no-html --json -"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let results = json(&output);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    for case in results["cases"].as_array().expect("cases") {
        let base = &case["rows"][0]["summary"]["cpu_ns"];
        for row in case["rows"].as_array().expect("rows") {
            let (ratio, cpu) = (&row["summary"]["ratio"], &row["summary"]["cpu_ns"]);
            let quotient = number(&cpu["median"]) / number(&base["median"]);
            assert!((number(&ratio["median"]) - quotient).abs() < 1e-9, "{ratio} is not {quotient}");
            assert!(number(&ratio["min"]) <= quotient + 1e-9 && quotient <= number(&ratio["max"]) + 1e-9);
            assert_eq!((&ratio["rounds"], &cpu["rounds"]), (&Value::from(4), &Value::from(4)));
            let runs = row["runs"].as_array().expect("runs");
            assert_eq!(runs.iter().filter(|run| run["left_out"].is_null()).count(), 4, "no round is dropped");
        }
    }
}

#[test]
fn one_round_has_no_spread_and_nothing_stands_out() {
    let place = Place::new("once");
    let output = bench(&place, &two("--repeats 1 --pipeline 1"));
    let (table, page) = (text(&output.stdout), place.read("framewire-bench.html"));
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(rows.len() == 3 && rows.iter().all(|row| !row.contains('±')), "{table}");
    assert!(page.contains("1 round of 0.05 s behind each figure"));
    assert!(!page.contains("class=\"best\"") && !page.contains("<span class=\"spread\">±"));
}

#[test]
fn the_table_fits_80_columns() {
    let output = bench(&Place::new("columns"), &two("--repeats 2 --load idle,open --idle 5 --rate 500"));
    let table = text(&output.stdout);
    assert!(table.contains("framewire-single"), "{table}");
    for line in table.lines().filter(|line| !line.starts_with("note") && !line.starts_with("skipped")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_ratios_can_be_had_in_markdown_with_the_name_of_the_cpu() {
    let output = bench(&Place::new("markdown"), &two("--repeats 2 --pipeline 1 --markdown --no-html"));
    let table = text(&output.stdout);
    let row =
        table.lines().find(|line| line.starts_with("| std-threads |")).unwrap_or_else(|| panic!("{table}"));
    assert!(row.contains('±'), "{row}");
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    assert!(table.contains(name.map_or("CPU of unknown name", |(_, name)| name.trim())), "{table}");
}

#[test]
fn without_a_terminal_each_load_of_each_round_is_a_line() {
    let output = bench(&Place::new("lines"), &two("--pipeline 1,4 --repeats 2 --no-html"));
    let said = text(&output.stderr);
    let of_rounds: Vec<_> = said.lines().filter(|line| line.contains("round ")).collect();
    let begins = ["round 1 of 2  Echo", "round 1 of 2  Echo", "round 2 of 2  Echo", "round 2 of 2  Echo"];
    assert!(
        of_rounds.len() == 4 && of_rounds.iter().zip(begins).all(|(line, begin)| line.contains(begin)),
        "{said}"
    );
}

/// Writing to this finds that the reader has gone.
#[cfg(unix)]
fn closed_pipe() -> std::process::Stdio {
    let mut reader = Command::new("true").stdin(std::process::Stdio::piped()).spawn().expect("true runs");
    let writer = reader.stdin.take().expect("its input");
    reader.wait().expect("it ends");
    writer.into()
}

#[test]
#[cfg(unix)]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let place = Place::new("pipe");
    for args in ["--list", "--schema", "--contestants nobody", &format!("{TWO} --repeats 1 --pipeline 1")] {
        let mut command = Command::new(PROGRAM);
        command.arg("bench").args(args.split_whitespace()).current_dir(&place.0);
        let status = command.stdout(closed_pipe()).stderr(closed_pipe()).status().expect("it runs");
        let expected = if args.ends_with("nobody") { 2 } else { 0 };
        assert_eq!(status.code(), Some(expected), "{args}");
    }
    assert!(place.read("framewire-bench.json").contains("std-threads"), "the files are written all the same");
}

#[test]
fn who_does_wrong_on_purpose_is_not_offered() {
    let output = Place::new("offer").bench(&["--contestants", "nobody", "--server", "mine=x {port}"]);
    let error = text(&output.stderr);
    assert!(!error.contains("faulty"), "{error}");
    for name in ["framewire-single", "std-threads", "tokio", "may", "go", "mine"] {
        assert!(error.contains(name), "{name}: {error}");
    }
}
