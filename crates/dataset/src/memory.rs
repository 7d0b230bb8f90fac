//! How much memory is free: of the machine, or of the container that limits it.

use std::fs::read_to_string;
use std::path::Path;

/// Bytes that this process may still take without pushing others out; `None` where the system
/// does not tell, which is everywhere but on Linux.
pub(super) fn available() -> Option<u64> {
    let machine = meminfo(&read_to_string("/proc/meminfo").ok()?)?;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(group_limit(Path::new("/sys/fs/cgroup"), &groups).map_or(machine, |g| g.min(machine)))
}

/// The line `MemAvailable:   16077020 kB` of `/proc/meminfo`, in bytes.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// The lowest limit of the control groups that `groups`, the text of `/proc/self/cgroup`, names
/// (`0::/path` of version 2, `4:memory:/path` of version 1), and of those around them.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (kind, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (root, file) = match kind {
            "" => (root.to_path_buf(), "memory.max"),
            _ => (root.join("memory"), "memory.limit_in_bytes"),
        };
        let is_memory = kind.is_empty() || kind.split(',').any(|k| k == "memory");
        let relative = Path::new(path.trim_start_matches('/')).to_path_buf();
        // In a container the path may be that of the host: then only the root is there.
        let around: Vec<_> = relative.ancestors().map(|p| root.join(p).join(file)).collect();
        around.into_iter().filter(move |_| is_memory)
    });
    // Version 2 says "max" where there is none, version 1 a number beyond any memory.
    limits.filter_map(|file| read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_in_bytes() {
        let text = "MemTotal:       24683900 kB\nMemAvailable:   16077020 kB\nSwapFree: 0 kB\n";
        assert_eq!(meminfo(text), Some(16_077_020 << 10));
        assert_eq!(meminfo("MemTotal: 5 kB\n"), None);
        assert_eq!(meminfo("MemAvailable: much kB\n"), None);
    }

    #[test]
    fn the_lowest_limit_around_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(group_limit(dir.path(), "0::/user/job\n"), None);
        write("user/memory.max", "4096\n");
        write("user/job/memory.max", "max\n");
        assert_eq!(group_limit(dir.path(), "0::/user/job\n"), Some(4096));
        assert_eq!(group_limit(dir.path(), "0::/elsewhere\n"), None);
        write("memory/memory.limit_in_bytes", "1024\n");
        assert_eq!(group_limit(dir.path(), "4:cpu:/a\n7:memory,x:/docker/b\n"), Some(1024));
        assert_eq!(group_limit(dir.path(), "nonsense"), None);
    }
}
