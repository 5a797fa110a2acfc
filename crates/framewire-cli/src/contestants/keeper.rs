use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;

/// How long a kept command may take to end after a polite request.
const FAREWELL: Duration = Duration::from_millis(500);

/// A command of the user's, which must not outlive the benchmark.
#[derive(Debug, Args)]
pub(crate) struct KeepArgs {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Ends this process when standard input does: so a server never outlives the benchmark, however that ends.
pub(crate) fn end_with_stdin() {
    std::thread::spawn(|| {
        wait_for_end_of_stdin();
        std::process::exit(0);
    });
}

fn wait_for_end_of_stdin() {
    let mut byte = [0; 64];
    while let Ok(1..) = io::stdin().read(&mut byte) {}
}

/// Runs a command that knows nothing of us, says its process id, and ends it (and all that it started) with our input.
pub(crate) fn keep(args: &KeepArgs) -> io::Result<std::process::ExitCode> {
    let Some((program, rest)) = args.command.split_first() else { return Ok(2.into()) };
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null());
    // what the command says must not be taken for what the keeper says
    command.stdout(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child =
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    let pid = child.id();
    writeln!(io::stdout(), "pid {pid}")?;
    io::stdout().flush()?;
    std::thread::spawn(move || {
        wait_for_end_of_stdin();
        end_group(pid);
        std::process::exit(0);
    });
    let status = child.wait()?;
    // an error (no reader is left) is no reason to end before the rest of the group has ended
    let _ = writeln!(io::stderr(), "{program} ended ({status})");
    end_group(pid);
    Ok(1.into())
}

#[cfg(unix)]
fn end_group(pid: u32) {
    use nix::sys::signal::{Signal, killpg};
    let Ok(pid) = i32::try_from(pid) else { return };
    let group = nix::unistd::Pid::from_raw(pid);
    let _ = killpg(group, Signal::SIGTERM);
    let mut left = FAREWELL;
    let step = Duration::from_millis(10);
    while killpg(group, None).is_ok() && !left.is_zero() {
        std::thread::sleep(step);
        left = left.saturating_sub(step);
    }
    let _ = killpg(group, Signal::SIGKILL);
}

#[cfg(not(unix))]
fn end_group(pid: u32) {
    let _ = Command::new("taskkill").args(["/F", "/T", "/PID", &pid.to_string()]).status();
    std::thread::sleep(FAREWELL);
}
