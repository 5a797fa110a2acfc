use std::fs;

/// What the kernel tells about a process. Everything is `None` where the system does not tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self::new(std::process::id())
    }

    /// CPU time of all its threads, those that have ended included; nanoseconds.
    pub(crate) fn cpu_ns(self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid).ok()?);
            let time = nix::time::clock_getcpuclockid(pid).ok()?.now().ok()?;
            let seconds = u64::try_from(time.tv_sec()).ok()?;
            Some(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).ok()?)
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Resident memory, shared pages by share (PSS); bytes. Plain resident memory where there is no such figure.
    pub(crate) fn memory(self) -> Option<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid));
        let pss = rollup.ok().and_then(|text| kibibytes(&text, "Pss:"));
        pss.or_else(|| {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
            kibibytes(&status, "VmRSS:")
        })
    }

    /// Context switches of the threads that are alive, both kinds.
    ///
    /// One file per thread is read: with very many threads that takes milliseconds, so it is called outside of the
    /// window in which CPU time is taken.
    pub(crate) fn context_switches(self) -> Option<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
        let of_task = |path: std::path::PathBuf| {
            let status = fs::read_to_string(path.join("status")).ok()?;
            Some(
                number(&status, "voluntary_ctxt_switches:")?
                    + number(&status, "nonvoluntary_ctxt_switches:")?,
            )
        };
        Some(tasks.flatten().filter_map(|task| of_task(task.path())).sum())
    }
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    Some(number(text, name)? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_name_and_kibibytes_become_bytes() {
        let text = "Rss:      100 kB\nPss:       12 kB\nPss_Dirty:  1 kB\n";
        assert_eq!(kibibytes(text, "Pss:"), Some(12 * 1024));
        assert_eq!(kibibytes(text, "Swap:"), None);
        let status = "voluntary_ctxt_switches:\t41\nnonvoluntary_ctxt_switches:\t1\n";
        assert_eq!(number(status, "voluntary_ctxt_switches:"), Some(41));
        assert_eq!(number(status, "nonvoluntary_ctxt_switches:"), Some(1));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_everything_about_this_process() {
        let own = Process::own();
        assert!(own.cpu_ns().is_some_and(|ns| ns > 0));
        assert!(own.memory().is_some_and(|bytes| bytes > 100_000));
        assert!(own.context_switches().is_some());
    }

    #[test]
    fn nothing_is_told_about_a_process_that_is_not_there() {
        let nobody = Process::new(u32::MAX - 1);
        assert_eq!((nobody.memory(), nobody.context_switches()), (None, None));
    }
}
