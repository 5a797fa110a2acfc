//! `framewire bench --gateway` as a user runs it, with the gateway of this workspace.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_framewire")).arg("bench").args(args).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Builds the gateway, if that was not done yet, and returns where it is.
fn gateway() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "framewire-gateway", "--bin", "framewire-gateway"])
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", text(&built.stderr));
    let deps = std::env::current_exe().expect("a path");
    let target = deps.parent().and_then(|deps| deps.parent()).expect("a directory");
    target.with_file_name("debug").join("framewire-gateway")
}

#[test]
fn a_gateway_is_measured_beside_an_echo_and_every_reply_is_compared() {
    let gateway = gateway();
    let output = bench(&[
        "--gateway",
        gateway.to_str().expect("a text"),
        "--connections",
        "20",
        "--pipeline",
        "1,3",
        "--repeats",
        "2",
        "--duration",
        "0.05",
        "--no-pin",
    ]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}{}", text(&output.stderr));
    let first = "20 clients with 2 connections each, 3 servers, 64 bytes; an echo is one of framewire-single";
    assert!(table.starts_with(first), "{table}");
    for row in ["   1 in flight: ", "   3 in flight: "] {
        let line = table.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("{table}"));
        assert!(line.ends_with(", 2 rounds)") && !line.contains("NaN") && !line.contains(" 0 ns"), "{line}");
    }
}

#[test]
fn what_is_no_gateway_is_named() {
    for (program, why) in [("/nowhere/gateway", "No such file"), ("echo", "clients at ")] {
        let output = bench(&["--gateway", program, "--connections", "1", "--no-pin"]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(program) && error.contains(why), "{error}");
    }
}
