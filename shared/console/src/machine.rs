//! What ran it: chip, memory, operating system, MLX's device and backend, versions.
//!
//! A number without its machine cannot be compared with anything. What is not known is `None` and
//! is left out of the report: nothing here is estimated.

use serde::{Deserialize, Serialize};

use crate::numbers::{decimal, fixed};

/// The machine that ran it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Memory bandwidth in bytes per second; None where that is unknown.
    pub bandwidth_bytes_per_s: Option<f64>,
    /// Whether that was measured here, by reading on all threads; else the vendor publishes it.
    #[serde(default)]
    pub bandwidth_is_measured: bool,
    /// Whose loops multiply with a matrix of weights; empty where nobody said.
    #[serde(default)]
    pub products: String,
}

impl Machine {
    /// The row `machine` of the card: chip, memory, operating system, MLX and where it runs.
    pub fn describe(&self, versions: &Versions) -> String {
        let Self {
            name, os, backend, ..
        } = self;
        let ram = self.memory_text();
        let Versions { mlx, mlx_rs, .. } = versions;
        format!("{name}, {ram}, {os}, MLX {mlx} ({backend}), mlx-rs {mlx_rs}")
    }

    /// Its memory, such as `25.28 GB`. Memory is made and sold in powers of two, and on a Mac all of it is
    /// seen: `17.18 GB (sold as 16 GB)`.
    pub fn memory_text(&self) -> String {
        const SOLD: u64 = 1 << 30;
        let text = decimal(self.ram_bytes);
        if self.ram_bytes >= SOLD && self.ram_bytes.is_multiple_of(SOLD) {
            format!("{text} (sold as {} GB)", self.ram_bytes / SOLD)
        } else {
            text
        }
    }

    /// Decode steps per second that the memory allows when `bytes_per_step` must be read for each:
    /// bandwidth ÷ bytes. No program is faster at batch 1, whatever its code.
    pub fn ceiling_tps(&self, bytes_per_step: u64) -> Option<f64> {
        let bandwidth = self.bandwidth_bytes_per_s?;
        (bytes_per_step > 0).then(|| bandwidth / bytes_per_step as f64)
    }

    /// Model bandwidth utilization: which share of the bandwidth so many steps per second need, each of
    /// which must read `bytes_per_step`. More than 1 where caches hold the weights: they are faster than
    /// memory is.
    pub fn mbu(&self, bytes_per_step: u64, steps_per_s: f64) -> Option<f64> {
        Some(steps_per_s / self.ceiling_tps(bytes_per_step)?)
    }

    /// The row `products` of the card; None where nobody said.
    pub fn products_row(&self) -> Option<(String, String)> {
        let row = || ("products".to_owned(), self.products.clone());
        (!self.products.is_empty()).then(row)
    }

    /// The bandwidth and where it is known from, such as `273 GB/s (published)`; None where it is unknown.
    pub fn bandwidth_text(&self) -> Option<String> {
        let (digits, source) = if self.bandwidth_is_measured {
            (1, "measured")
        } else {
            (0, "published")
        };
        let gigabytes = fixed(self.bandwidth_bytes_per_s? / 1e9, digits);
        Some(format!("{gigabytes} GB/s ({source})"))
    }

    /// The row `ceiling` of the card; None, and so no row, where the bandwidth is unknown.
    pub fn ceiling_row(&self, weight_bytes: u64, kv_bytes: u64) -> Option<(String, String)> {
        let tps = self.ceiling_tps(weight_bytes.saturating_add(kv_bytes))?;
        let bandwidth = self.bandwidth_text()?;
        let (weights, kv) = (decimal(weight_bytes), decimal(kv_bytes));
        let text = format!(
            "{} tok/s at batch 1 = {bandwidth} / ({weights} weights + {kv} KV)",
            fixed(tps, 1),
        );
        Some(("ceiling".to_owned(), text))
    }
}

/// The versions that decide how fast the same code is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// MLX, as the linked library says.
    pub mlx: String,
    /// mlx-rs, as Cargo.lock pins it.
    pub mlx_rs: String,
    /// mlx-sys, as Cargo.lock pins it.
    pub mlx_sys: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(bandwidth_bytes_per_s: Option<f64>) -> Machine {
        Machine {
            name: "Apple M4 Pro".into(),
            device: "gpu".into(),
            backend: "metal".into(),
            ram_bytes: 24 << 30,
            os: "macOS 15.1".into(),
            cores: 14,
            bandwidth_bytes_per_s,
            bandwidth_is_measured: false,
            products: String::new(),
        }
    }

    #[test]
    fn the_json_names_what_the_report_promises() {
        let json = serde_json::to_value(machine(None)).unwrap();
        assert_eq!(json["name"], "Apple M4 Pro");
        assert_eq!(json["device"], "gpu");
        assert_eq!(json["backend"], "metal");
        assert_eq!(json["ram_bytes"], 24_u64 << 30);
        assert_eq!(json["bandwidth_bytes_per_s"], serde_json::Value::Null);
    }

    #[test]
    fn no_bandwidth_means_no_ceiling() {
        let unknown = machine(None);
        assert_eq!(unknown.ceiling_row(4_000_000_000, 0), None);
        assert_eq!(machine(Some(273e9)).ceiling_tps(0), None);
    }

    #[test]
    fn the_ceiling_is_the_bandwidth_over_the_bytes_of_a_step() {
        let known = machine(Some(273e9));
        assert_eq!(known.ceiling_tps(2_730_000_000), Some(100.0));
        let (label, text) = known.ceiling_row(2_600_000_000, 130_000_000).unwrap();
        assert_eq!(label, "ceiling");
        let expected =
            "100.0 tok/s at batch 1 = 273 GB/s (published) / (2.60 GB weights + 130.00 MB KV)";
        assert_eq!(text, expected);
        let measured = Machine {
            bandwidth_is_measured: true,
            ..machine(Some(15.04e9))
        };
        let (_, text) = measured.ceiling_row(1_504_000_000, 0).unwrap();
        let expected = "10.0 tok/s at batch 1 = 15.0 GB/s (measured) / (1.50 GB weights + 0 B KV)";
        assert_eq!(text, expected);
    }

    #[test]
    fn mbu_is_the_share_of_the_bandwidth_that_the_steps_need() {
        let known = machine(Some(273e9));
        assert_eq!(known.mbu(2_730_000_000, 45.0), Some(0.45));
        assert_eq!(known.mbu(0, 45.0), None);
        assert_eq!(machine(None).mbu(2_730_000_000, 45.0), None);
    }

    #[test]
    fn a_machine_of_an_older_report_has_no_products_and_a_published_bandwidth() {
        let mut json = serde_json::to_value(machine(Some(273e9))).unwrap();
        for key in ["bandwidth_is_measured", "products"] {
            json.as_object_mut().unwrap().remove(key).unwrap();
        }
        let old: Machine = serde_json::from_value(json).unwrap();
        assert_eq!(old, machine(Some(273e9)));
        assert_eq!(old.products_row(), None);
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
            "Apple M4 Pro, 25.77 GB (sold as 24 GB), macOS 15.1, MLX 0.32.2 (metal), mlx-rs 0.33.0"
        );
        let container = Machine {
            ram_bytes: 25_280_000_000,
            ..machine(None)
        };
        assert_eq!(container.memory_text(), "25.28 GB");
    }
}
