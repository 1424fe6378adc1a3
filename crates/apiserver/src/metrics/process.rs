//! What the kernel says of this process, under the names of every Prometheus client.

use std::fs;

/// Ticks of the kernel's clock in what it shows to programs, on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

pub fn write(out: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, which may hold anything, ends with the last parenthesis.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    // Numbered from 3 in proc(5): what follows the name is the state.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<f64>().ok()).unwrap_or(0.0);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_max = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64;
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            (field(14) + field(15)) / TICKS_PER_SECOND,
        ),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", open_max.unwrap_or(0.0)),
        ("process_open_fds", "gauge", "Number of open file descriptors.", open),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", field(24) * PAGE_BYTES),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            boot + field(22) / TICKS_PER_SECOND,
        ),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23)),
    ] {
        *out += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_knows_us() {
        let mut out = String::new();
        super::write(&mut out);
        let value = |name: &str| {
            out.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap_or_default()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6, "{out}");
        assert!(value("process_open_fds ") >= 3.0, "{out}");
        assert!(value("process_start_time_seconds ") > 1.6e9, "{out}");
    }
}
