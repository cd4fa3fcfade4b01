//! How much memory there is for a run, as far as Linux says; elsewhere nothing is refused.

use std::fs;
use std::path::{Path, PathBuf};

use super::InferError;

/// Refuses what needs more bytes than there are: free in the machine, left by the control groups, and left of `most`, which is all that the
/// process may have.
///
/// # Errors
/// [`InferError::Memory`] with both numbers.
pub(super) fn afford(needed: u64, most: Option<u64>) -> Result<(), InferError> {
    let left = most.zip(resident_bytes()).map(|(most, resident)| most.saturating_sub(resident));
    match [available_bytes(), left].into_iter().flatten().min() {
        Some(room) if room < needed => Err(InferError::Memory { needed_mb: needed.div_ceil(1 << 20), free_mb: room >> 20 }),
        _ => Ok(()),
    }
}

/// What of this process is in memory, bytes; none where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    bytes_in("/proc/self/status", "VmRSS:")
}

/// The most of this process that has been in memory so far, bytes; none where the system does not say.
pub(crate) fn peak_bytes() -> Option<u64> {
    bytes_in("/proc/self/status", "VmHWM:")
}

/// The machine's memory, bytes; none where the system does not say.
pub(crate) fn machine_bytes() -> Option<u64> {
    bytes_in("/proc/meminfo", "MemTotal:")
}

/// Memory of the machine that is free or can be freed, bytes; none where the system does not say.
pub(crate) fn free_bytes() -> Option<u64> {
    bytes_in("/proc/meminfo", "MemAvailable:")
}

/// What this process may still take before the machine or a control group of it runs out.
fn available_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = control_groups(&groups, Path::new("/sys/fs/cgroup")).into_iter().filter_map(|group| left_in(&group));
    free_bytes().into_iter().chain(left).min()
}

fn bytes_in(file: &str, name: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string(file).ok()?, name)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The folders of this process's control group (version 2: the line `0::/PATH`) and of all above it: each has a limit of its own.
fn control_groups(groups: &str, root: &Path) -> Vec<PathBuf> {
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let own = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_))).then(|| root.join(path));
    own.into_iter()
        .flat_map(|own| own.ancestors().map(Path::to_owned).collect::<Vec<_>>())
        .take_while(|group| group.starts_with(root))
        .collect()
}

/// What a control group may still take: its limit without what it has, where what files have in memory can be given up.
fn left_in(group: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let most = number("memory.max")?; // `max`, or no such file: no limit
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files = ["active_file ", "inactive_file "].map(|name| stat.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()));
    let given_up: u64 = files.into_iter().flatten().sum();
    Some(most.saturating_sub(number("memory.current")?.saturating_sub(given_up)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Coded;

    #[test]
    fn a_limit_of_any_group_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a.slice/memory.max", "1000\n");
        write("a.slice/memory.current", "700\n");
        write("a.slice/memory.stat", "anon 400\nfile 300\ninactive_file 100\nactive_file 150\n");
        write("a.slice/b.service/memory.max", "max\n");
        write("a.slice/b.service/memory.current", "600\n");
        let groups = control_groups("1:name=x:/y\n0::/a.slice/b.service\n", root.path());
        assert_eq!(groups.iter().map(|group| left_in(group)).collect::<Vec<_>>(), [None, Some(550), None]);
        assert!(control_groups("0::/../outside\n", root.path()).is_empty());
        assert_eq!(control_groups("0::/\n", root.path()), [root.path()]);
        assert!(control_groups("3:memory:/old\n", root.path()).is_empty());
    }

    #[test]
    fn more_than_there_is_is_refused_with_both_numbers() {
        assert_eq!(kilobytes("MemTotal: 9 kB\nMemAvailable:      12 kB\n", "MemAvailable:"), Some(12 << 10));
        assert!(afford(0, None).is_ok() && afford(1 << 20, Some(u64::MAX)).is_ok());
        if resident_bytes().is_none() {
            return; // no Linux: nothing is known, and nothing refused
        }
        let error = afford(1 << 60, None).unwrap_err();
        assert_eq!(error.code(), "infer.memory");
        assert!(error.to_string().contains("1099511627776 MB"), "{error}");
        assert!(afford(1 << 20, Some(1)).unwrap_err().to_string().contains("0 MB are"));
    }
}
