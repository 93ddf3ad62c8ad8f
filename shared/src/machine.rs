//! Asks MLX and the operating system what runs this process, and how much memory it takes.

use std::path::Path;

use anyhow::{Context, Result};
use console::machine::{Machine, Versions};
use mlx_rs::{Device, DeviceType, Stream, memory, with_stream};
use sysinfo::{CpuRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::{ffi, kernels};

mod roof;

/// mlx-rs and mlx-sys as Cargo.lock pins them; a test compares.
const MLX_RS: &str = "0.33.0";
const MLX_SYS: &str = "0.7.0";

/// Memory bandwidth in GB/s (10⁹) as Apple states it in the technical specifications of its Macs and
/// in its announcements, by the name that macOS gives the chip and, where two versions share that
/// name, the number of CPU cores. Published, not measured; a chip that is missing here is unknown.
const APPLE_BANDWIDTH: &[(&str, Option<usize>, f64)] = &[
    ("Apple M1", None, 68.0),
    ("Apple M2", None, 100.0),
    ("Apple M3 Max", Some(16), 400.0),
    ("Apple M3 Ultra", None, 819.0),
    ("Apple M4", None, 120.0),
    ("Apple M4 Pro", None, 273.0),
    ("Apple M4 Max", Some(16), 546.0),
    ("Apple M5", None, 153.0),
];

/// Looks at the machine; takes a few milliseconds.
///
/// # Errors
///
/// If MLX has no default device, or the operating system does not tell about its memory.
pub fn detect() -> Result<Machine> {
    let mut system = System::new().context("asking the system about CPU and memory")?;
    system.refresh_memory();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let (device, backend) = device_and_backend()?;
    let chip = chip_name(&system);
    let cores = system.cpus().len();
    let bandwidth_bytes_per_s = published_bandwidth(&chip, cores);
    let accelerator = if backend == "cuda" {
        ffi::device_text("device_name")
    } else {
        None
    };
    Ok(Machine {
        name: accelerator.unwrap_or(chip),
        device: device.to_owned(),
        backend: backend.to_owned(),
        ram_bytes: ram_limit(&mut system),
        os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        cores,
        bandwidth_bytes_per_s,
        bandwidth_is_measured: false,
        products: kernels::describe(backend),
    })
}

/// The machine with its bandwidth, which is measured where it is a CPU: a third of a second, in the first
/// eight runs only.
pub fn with_roof(machine: Machine) -> Machine {
    match roof::measured(&machine) {
        Some(measured) => Machine {
            bandwidth_bytes_per_s: Some(measured),
            bandwidth_is_measured: true,
            ..machine
        },
        None => machine,
    }
}

/// The versions that decide how fast the same code is, from the library and the lock file.
///
/// # Errors
///
/// If MLX does not tell its version.
pub fn versions() -> Result<Versions> {
    Ok(Versions {
        mlx: ffi::version()?,
        mlx_rs: MLX_RS.to_owned(),
        mlx_sys: MLX_SYS.to_owned(),
    })
}

/// Most bytes that MLX has held at once since the start or [`reset_peak`].
///
/// # Errors
///
/// If MLX does not tell.
pub fn peak_bytes() -> Result<u64> {
    Ok(memory::peak_memory().context("asking MLX for its peak memory")? as u64)
}

/// Bytes that arrays hold now; MLX's cache of freed buffers is not counted.
///
/// # Errors
///
/// If MLX does not tell.
pub fn active_bytes() -> Result<u64> {
    Ok(memory::active_memory().context("asking MLX for its active memory")? as u64)
}

/// Makes [`peak_bytes`] start again from what is held now.
///
/// # Errors
///
/// If MLX refuses.
pub fn reset_peak() -> Result<()> {
    memory::reset_peak_memory().context("resetting MLX's peak memory")
}

/// Runs a loop of steps with MLX's default stream, asked for once.
///
/// mlx-rs asks MLX for the default device and for its stream at each operation. That is four objects
/// made and freed in some 0.2 µs, several hundred times in a step. Not for loading: MLX reads files on
/// the CPU's stream only.
pub fn on_one_stream<T>(steps: impl FnOnce() -> T) -> T {
    with_stream(&Stream::new(), steps)
}

/// Whether the system may find more room on a disk than [`free_bytes`] says: macOS deletes what it calls
/// purgeable when somebody writes.
pub(crate) const MAKES_ROOM: bool = cfg!(target_os = "macos");

/// Bytes that this user can still write to the file system that a path is on, if it tells.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    // Some that are reached over a network know of no blocks at all.
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether MLX works on a GPU. If it does not say, then not.
pub(crate) fn on_gpu() -> bool {
    let kind = Device::try_default().and_then(|device| device.get_type());
    matches!(kind, Ok(DeviceType::Gpu))
}

/// The default device and the backend behind it.
fn device_and_backend() -> Result<(&'static str, &'static str)> {
    let device = Device::try_default().context("asking MLX for its default device")?;
    Ok(
        match device
            .get_type()
            .context("asking MLX for the kind of its default device")?
        {
            DeviceType::Cpu => ("cpu", "cpu"),
            DeviceType::Gpu if ffi::cuda_is_available() => ("gpu", "cuda"),
            DeviceType::Gpu => ("gpu", "metal"),
        },
    )
}

/// The name the operating system gives the CPU; the architecture if it gives none.
fn chip_name(system: &System) -> String {
    let brand = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
    if brand.is_empty() {
        System::cpu_arch()
    } else {
        brand.to_owned()
    }
}

/// All memory, or the container's limit where that is less.
fn ram_limit(system: &mut System) -> u64 {
    let limit = cgroup(system).map_or(u64::MAX, |limit| limit.total_memory);
    system.total_memory().min(limit)
}

/// Bytes that Linux could give to programs without swapping, files that it keeps in memory included:
/// `MemAvailable`, or what is left of the container's limit. Other systems count in other ways; on macOS
/// the number would leave out what the system compresses and gives back on demand.
pub(crate) fn available_bytes() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let mut system = System::new().ok()?;
    system.refresh_memory();
    // Not the free memory of a container, which counts cached files as used.
    let left = |limits: sysinfo::CGroupLimits| limits.total_memory.saturating_sub(limits.rss);
    let container = cgroup(&mut system).map_or(u64::MAX, left);
    Some(system.available_memory().min(container)).filter(|bytes| *bytes > 0)
}

/// The limits that Linux puts on this process or its container; None on other systems.
fn cgroup(system: &mut System) -> Option<sysinfo::CGroupLimits> {
    let own = Pid::from_u32(std::process::id());
    let only = ProcessesToUpdate::Some(&[own]);
    system.refresh_processes_specifics(only, false, ProcessRefreshKind::nothing());
    let process = system
        .process(own)
        .and_then(sysinfo::Process::cgroup_limits);
    process.or_else(|| system.cgroup_limits())
}

/// Bytes per second as Apple publishes it, by the exact name.
pub fn published_bandwidth(chip: &str, cores: usize) -> Option<f64> {
    let is_it = |name: &str, of: Option<usize>| name == chip && of.is_none_or(|n| n == cores);
    let row = APPLE_BANDWIDTH
        .iter()
        .find(|(name, of, _)| is_it(name, *of))?;
    Some(row.2 * 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_rs::Array;

    #[test]
    fn this_machine_has_a_name_memory_and_a_device() {
        let machine = detect().unwrap();
        assert!(!machine.name.is_empty() && !machine.os.is_empty() && machine.cores > 0);
        assert!(machine.ram_bytes > 1 << 28);
        assert!(["cpu", "gpu"].contains(&machine.device.as_str()));
        assert!(["cpu", "metal", "cuda"].contains(&machine.backend.as_str()));
        assert_eq!(machine.device == "cpu", machine.backend == "cpu");
    }

    #[test]
    fn on_linux_some_of_the_memory_is_available() {
        let (available, all) = (available_bytes(), detect().unwrap().ram_bytes);
        assert_eq!(available.is_some(), cfg!(target_os = "linux"));
        assert!(available.is_none_or(|bytes| (1 << 20..=all).contains(&bytes)));
    }

    #[test]
    fn a_disk_tells_how_much_room_it_has() {
        let place = tempfile::tempdir().unwrap();
        assert!(free_bytes(place.path()).unwrap() > 1 << 20);
        assert_eq!(free_bytes(&place.path().join("no/such")), None);
    }

    #[test]
    fn the_versions_are_those_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock").replace("\r\n", "\n");
        for (name, version) in [("mlx-rs", MLX_RS), ("mlx-sys", MLX_SYS)] {
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(
                lock.contains(&entry),
                "Cargo.lock has another {name} than {version}"
            );
        }
    }

    #[test]
    fn a_bandwidth_is_known_for_the_exact_chip_alone() {
        assert_eq!(published_bandwidth("Apple M4 Pro", 14), Some(273e9));
        assert_eq!(published_bandwidth("Apple M3 Max", 16), Some(400e9));
        assert_eq!(published_bandwidth("Apple M3 Max", 14), None);
        assert_eq!(published_bandwidth("Apple M4 Pro Max", 14), None);
        assert_eq!(published_bandwidth("AMD EPYC", 2), None);
    }

    #[test]
    fn the_peak_remembers_an_array_that_is_gone_until_it_is_reset() {
        let bytes = 4 << 20;
        Array::ones::<f32>(&[bytes / 4]).unwrap().eval().unwrap();
        assert!(peak_bytes().unwrap() >= bytes as u64);
        reset_peak().unwrap();
        assert!(peak_bytes().unwrap() <= active_bytes().unwrap() + bytes as u64 / 2);
    }
}
