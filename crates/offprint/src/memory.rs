//! The most memory that a process has held at once, where the system tells (Linux).

use std::process;

/// Peak resident memory of a process in bytes, since its start or since [`forget_peak`].
pub fn peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// [`peak`] of this process.
pub fn own_peak() -> Option<u64> {
    peak(process::id())
}

/// Makes this process's peak start again from what it holds now. Without the right to do so the old one stays.
pub fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_stays_when_memory_is_freed() {
        let before = own_peak().unwrap();
        let held = vec![1u8; 64 << 20];
        assert!(held.iter().all(|&byte| byte == 1));
        drop(held);
        assert!(own_peak().unwrap() >= before + (32 << 20));
        assert_eq!(peak(u32::MAX), None);
    }
}
