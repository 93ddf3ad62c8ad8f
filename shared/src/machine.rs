//! What ran it: chip, memory, operating system, MLX's device and backend, versions.
//!
//! A number without its machine cannot be compared with anything. What is not known is `None` and
//! is left out of the report: nothing here is estimated.

use anyhow::{Context, Result};
use mlx_rs::{Device, DeviceType, memory};
use serde::Serialize;
use sysinfo::{CpuRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::ffi;

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

/// The machine that runs this process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// The chip: `Apple M3 Max`, an x86 model name, or the accelerator's name with CUDA.
    pub name: String,
    /// MLX's default device: `gpu` or `cpu`.
    pub device: String,
    /// What MLX runs on there: `metal`, `cuda` or `cpu`.
    pub backend: String,
    /// Memory that this process may use, in bytes: all of it, or the container's limit.
    pub ram_bytes: u64,
    /// Operating system and version.
    pub os: String,
    /// Cores of the CPU that the operating system shows.
    pub cores: usize,
    /// Memory bandwidth in bytes per second, as the vendor publishes it; None where that is unknown.
    pub bandwidth_bytes_per_s: Option<f64>,
}

impl Machine {
    /// Looks at the machine; takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// If MLX has no default device, or the operating system does not tell about its memory.
    pub fn detect() -> Result<Self> {
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
        Ok(Self {
            name: accelerator.unwrap_or(chip),
            device: device.to_owned(),
            backend: backend.to_owned(),
            ram_bytes: ram_limit(&mut system),
            os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            cores,
            bandwidth_bytes_per_s,
        })
    }

    /// The row `machine` of the card: chip, memory, operating system, MLX and where it runs.
    pub fn describe(&self, versions: &Versions) -> String {
        let Self {
            name, os, backend, ..
        } = self;
        let ram = crate::report::gib(self.ram_bytes);
        let Versions { mlx, mlx_rs, .. } = versions;
        format!("{name}, {ram}, {os}, MLX {mlx} ({backend}), mlx-rs {mlx_rs}")
    }

    /// Decode steps per second that the memory allows when `bytes_per_step` must be read for each:
    /// bandwidth ÷ bytes. No program is faster at batch 1, whatever its code.
    pub fn ceiling_tps(&self, bytes_per_step: u64) -> Option<f64> {
        let bandwidth = self.bandwidth_bytes_per_s?;
        (bytes_per_step > 0).then(|| bandwidth / bytes_per_step as f64)
    }

    /// Memory bandwidth utilisation: bytes that must move per step × steps/s ÷ bandwidth, as a
    /// fraction. None where the bandwidth is unknown.
    pub fn mbu(&self, bytes_per_step: u64, steps_per_s: f64) -> Option<f64> {
        Some(bytes_per_step as f64 * steps_per_s / self.bandwidth_bytes_per_s?)
    }

    /// The row `ceiling` of the card; None, and so no row, where the bandwidth is unknown.
    pub fn ceiling_row(&self, weight_bytes: u64, kv_bytes: u64) -> Option<(String, String)> {
        use crate::report::{decimal, fixed};
        let tps = self.ceiling_tps(weight_bytes.saturating_add(kv_bytes))?;
        let bandwidth = self.bandwidth_bytes_per_s? / 1e9;
        let (weights, kv) = (decimal(weight_bytes), decimal(kv_bytes));
        let text = format!(
            "{} tok/s at batch 1 = {} GB/s (published) / ({weights} weights + {kv} KV)",
            fixed(tps, 1),
            fixed(bandwidth, 0),
        );
        Some(("ceiling".to_owned(), text))
    }
}

/// The versions that decide how fast the same code is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// MLX, as the linked library says.
    pub mlx: String,
    /// mlx-rs, as Cargo.lock pins it.
    pub mlx_rs: String,
    /// mlx-sys, as Cargo.lock pins it.
    pub mlx_sys: String,
}

impl Versions {
    /// Asks the library and the lock file.
    ///
    /// # Errors
    ///
    /// If MLX does not tell its version.
    pub fn detect() -> Result<Self> {
        Ok(Self {
            mlx: ffi::version()?,
            mlx_rs: MLX_RS.to_owned(),
            mlx_sys: MLX_SYS.to_owned(),
        })
    }
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

/// Memory that a model may still take, in bytes: what the system can free without swapping, within
/// the container's limit if there is one, and within what Metal recommends as the GPU's share.
///
/// # Errors
///
/// If the operating system does not tell.
pub fn available_ram_bytes() -> Result<u64> {
    let mut system = System::new().context("asking the system about its memory")?;
    system.refresh_memory();
    // The page cache of the container counts as available: the kernel drops it when needed.
    let container = cgroup(&mut system).map(|limit| limit.total_memory.saturating_sub(limit.rss));
    let gpu = ffi::device_size("max_recommended_working_set_size").map(|bytes| bytes as u64);
    let least = [container, gpu]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX);
    Ok(system.available_memory().min(least))
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

/// Bytes per second from [`APPLE_BANDWIDTH`], by the exact name.
fn published_bandwidth(chip: &str, cores: usize) -> Option<f64> {
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

    fn machine(bandwidth_bytes_per_s: Option<f64>) -> Machine {
        Machine {
            name: "Apple M4 Pro".into(),
            device: "gpu".into(),
            backend: "metal".into(),
            ram_bytes: 24 << 30,
            os: "macOS 15.1".into(),
            cores: 14,
            bandwidth_bytes_per_s,
        }
    }

    #[test]
    fn this_machine_has_a_name_memory_and_a_device() {
        let machine = Machine::detect().unwrap();
        assert!(!machine.name.is_empty() && !machine.os.is_empty() && machine.cores > 0);
        assert!(machine.ram_bytes > 1 << 28);
        assert!(["cpu", "gpu"].contains(&machine.device.as_str()));
        assert!(["cpu", "metal", "cuda"].contains(&machine.backend.as_str()));
        assert_eq!(machine.device == "cpu", machine.backend == "cpu");
        assert!(machine.backend != "metal" || ffi::metal_is_available());
    }

    #[test]
    fn the_json_names_what_the_report_promises() {
        let json = serde_json::to_value(machine(None)).unwrap();
        assert_eq!(json["name"], "Apple M4 Pro");
        assert_eq!(json["device"], "gpu");
        assert_eq!(json["backend"], "metal");
        assert_eq!(json["ram_bytes"], 24_u64 << 30);
        assert_eq!(json["bandwidth_bytes_per_s"], serde_json::Value::Null);
        let versions = serde_json::to_value(Versions::detect().unwrap()).unwrap();
        assert_eq!(versions["mlx_rs"], MLX_RS);
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
    fn no_bandwidth_means_no_ceiling_and_no_utilisation() {
        let unknown = machine(None);
        assert_eq!(unknown.ceiling_row(4_000_000_000, 0), None);
        assert_eq!(unknown.mbu(4_000_000_000, 30.0), None);
        assert_eq!(machine(Some(273e9)).ceiling_tps(0), None);
    }

    #[test]
    fn the_ceiling_is_the_bandwidth_over_the_bytes_of_a_step() {
        let known = machine(Some(273e9));
        assert_eq!(known.ceiling_tps(2_730_000_000), Some(100.0));
        assert_eq!(known.mbu(2_730_000_000, 50.0), Some(0.5));
        let (label, text) = known.ceiling_row(2_600_000_000, 130_000_000).unwrap();
        assert_eq!(label, "ceiling");
        let expected =
            "100.0 tok/s at batch 1 = 273 GB/s (published) / (2.60 GB weights + 130.00 MB KV)";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_machine_fits_into_one_row() {
        let versions = Versions {
            mlx: "0.32.2".into(),
            mlx_rs: "0.33.0".into(),
            mlx_sys: "0.7.0".into(),
        };
        let row = machine(None).describe(&versions);
        assert_eq!(
            row,
            "Apple M4 Pro, 24.00 GiB, macOS 15.1, MLX 0.32.2 (metal), mlx-rs 0.33.0"
        );
    }

    #[test]
    fn what_is_available_is_not_more_than_what_is_there() {
        let available = available_ram_bytes().unwrap();
        assert!(available > 0 && available <= Machine::detect().unwrap().ram_bytes);
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
