//! The machine: which cores there are, which are for servers and which for the load, and how busy other processes keep
//! them.

use std::fs;
use std::time::Instant;

/// The cores of one side, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores {
    list: Vec<usize>,
    pinned: bool,
}

impl Cores {
    /// These cores and no others.
    pub(crate) fn pinned(list: Vec<usize>) -> Self {
        Self { list, pinned: true }
    }

    /// Wherever the system puts it; `count` threads.
    pub(crate) fn anywhere(count: usize) -> Self {
        Self { list: (0..count.max(1)).collect(), pinned: false }
    }

    /// One thread per core.
    pub(crate) fn threads(&self) -> usize {
        self.list.len()
    }

    /// The core of thread `index`, if it is to be pinned.
    pub(crate) fn nth(&self, index: usize) -> Option<usize> {
        self.list.get(index % self.list.len().max(1)).copied().filter(|_| self.pinned)
    }

    /// The cores to pin to, if any.
    pub(crate) fn list(&self) -> Option<&[usize]> {
        self.pinned.then_some(&self.list)
    }
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.pinned {
            return write!(f, "any");
        }
        let names: Vec<_> = self.list.iter().map(ToString::to_string).collect();
        write!(f, "{}", names.join(","))
    }
}

/// Who runs where: the server under test on one part of the cores, the load on the other.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    pub server: Cores,
    pub load: Cores,
}

impl Split {
    /// Halves of the cores that this process may use, whole physical cores each; the server gets the first half.
    ///
    /// With one core, or where pinning is not possible, both run anywhere.
    pub(crate) fn halves() -> Self {
        let physical = physical_cores(&allowed_cores());
        let half = physical.len() / 2;
        match (physical.get(..half), physical.get(half..)) {
            (Some(server), Some(load)) if half > 0 && can_pin() => {
                Self { server: Cores::pinned(server.concat()), load: Cores::pinned(first_of_each(load)) }
            }
            _ => Self { server: Cores::anywhere(1), load: Cores::anywhere(1) },
        }
    }
}

/// One load thread per physical core: a sibling would only share it.
fn first_of_each(cores: &[Vec<usize>]) -> Vec<usize> {
    cores.iter().filter_map(|threads| threads.first().copied()).collect()
}

/// Groups the given cores by the physical core they belong to; a machine with one physical core is taken apart.
fn physical_cores(allowed: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for &core in allowed {
        let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let name = fs::read_to_string(path).unwrap_or_else(|_| core.to_string());
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) => members.push(core),
            None => groups.push((name, vec![core])),
        }
    }
    let groups: Vec<Vec<usize>> = groups.into_iter().map(|(_, members)| members).collect();
    if groups.len() > 1 { groups } else { allowed.iter().map(|&core| vec![core]).collect() }
}

/// Cores that this process may run on.
pub(crate) fn allowed_cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    if let Ok(set) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) {
        return (0..nix::sched::CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect();
    }
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

/// Returns `true` if this system lets a process choose its cores.
pub(crate) fn can_pin() -> bool {
    cfg!(target_os = "linux")
}

/// Puts the calling thread on these cores; what it starts from now on inherits them. Returns whether that was done.
pub(crate) fn pin_thread(cores: &[usize]) -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut set = nix::sched::CpuSet::new();
        for &core in cores {
            if set.set(core).is_err() {
                return false;
            }
        }
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = cores;
        false
    }
}

/// Descriptors that this process may have, after raising the soft limit to the hard one.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        // some systems answer "unlimited" and then refuse it
        let wanted = hard.min(1 << 20).max(soft);
        let raised = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
        Some(if raised { wanted } else { soft })
    }
    #[cfg(not(unix))]
    None
}

/// A moment of the machine's CPU accounting.
#[derive(Debug, Clone)]
pub(crate) struct Busy {
    at: Instant,
    /// Clock ticks that were not idle, over the watched cores; stolen ones included.
    ticks: Option<f64>,
}

/// Length of a tick of `/proc/stat`: user space has been told 100 a second on every Linux for decades.
const TICKS_PER_SECOND: f64 = 100.0;

impl Busy {
    /// Reads the ticks of `watched` cores, or of all that are allowed.
    pub(crate) fn now(watched: &[usize]) -> Self {
        let text = fs::read_to_string("/proc/stat").ok();
        Self { at: Instant::now(), ticks: text.map(|text| busy_ticks(&text, watched)) }
    }

    /// CPUs in use on average since `earlier`, by any process.
    pub(crate) fn since(&self, earlier: &Self) -> Option<f64> {
        let seconds = (self.at - earlier.at).as_secs_f64();
        Some((self.ticks? - earlier.ticks?) / TICKS_PER_SECOND / seconds.max(1e-9))
    }
}

fn busy_ticks(stat: &str, watched: &[usize]) -> f64 {
    stat.lines()
        .filter_map(|line| {
            // the line of all cores together has a blank where the others have their number
            let (core, fields) = line.strip_prefix("cpu")?.split_once(' ')?;
            let (core, fields): (usize, _) = (core.parse().ok()?, fields.split_whitespace());
            watched.contains(&core).then(|| {
                let ticks: Vec<f64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
                // user nice system idle iowait irq softirq steal
                ticks.iter().enumerate().filter(|(i, _)| ![3, 4].contains(i)).map(|(_, t)| t).sum::<f64>()
            })
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_ticks_leave_out_idle_waiting_and_other_cores() {
        let stat =
            "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 10 1 5 1000 7 2 3 4 0 0\ncpu1 1 0 0 500 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(busy_ticks(stat, &[0]), 25.0);
        assert_eq!(busy_ticks(stat, &[0, 1]), 26.0);
        assert_eq!(busy_ticks("nonsense", &[0]), 0.0);
    }

    #[test]
    fn the_two_halves_share_no_core() {
        let split = Split::halves();
        if let (Some(server), Some(load)) = (split.server.list(), split.load.list()) {
            assert!(server.iter().all(|core| !load.contains(core)));
            assert!(!server.is_empty() && !load.is_empty());
        }
    }

    #[test]
    fn cores_are_dealt_in_turn() {
        let cores = Cores::pinned(vec![2, 5]);
        assert_eq!((cores.nth(0), cores.nth(1), cores.nth(2)), (Some(2), Some(5), Some(2)));
        assert_eq!(Cores::anywhere(2).nth(1), None);
        assert_eq!(cores.to_string(), "2,5");
    }
}
