use std::fs;

/// Returns how many more descriptors this process may open, if the system says so (Linux).
pub(crate) fn descriptors_left() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    soft_limit(&limits)?.checked_sub(open)
}

/// The soft limit in the text of `/proc/self/limits`; `None` when there is none.
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax processes 5 6 processes\nMax open files   1024   4096   files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit("Max open files   unlimited   unlimited   files\n"), None);
        assert_eq!(soft_limit(""), None);
    }
}
