//! The descriptors of this process.

/// Raises the limit of descriptors as far as it goes. Returns how many sessions fit in beside so many `spare` ones, at
/// most as many as are wanted.
#[cfg(unix)]
pub(crate) fn within_descriptors(wanted: usize, spare: usize) -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    wanted.min(usize::try_from(raised).unwrap_or(usize::MAX).saturating_sub(spare))
}

#[cfg(not(unix))]
pub(crate) fn within_descriptors(wanted: usize, _spare: usize) -> usize {
    wanted
}
