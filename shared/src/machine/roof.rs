//! The memory roof of a CPU, which no vendor publishes for a machine as it stands: measured and kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use console::files;
use console::machine::Machine;
use console::report::status;
use serde::{Deserialize, Serialize};

/// Most bytes that are read: more than the caches of a CPU hold.
const BUFFER: u64 = 512 << 20;

/// Which part of the memory the buffer may take, if that is less.
const PART: u64 = 8;

/// Measurements of one machine. Each takes a third of a second, and the best one counts: a program
/// that is at work beside it makes the memory look slower than it is, never faster.
const TRIES: u32 = 8;

/// Machines of one file, which a home directory may share; and its largest size.
const MACHINES: usize = 64;
const LIMIT: u64 = 64 << 10;

/// Bytes per second which are no mistake, from 0.1 GB/s to 100 TB/s.
const SOUND: std::ops::Range<f64> = 1e8..1e14;

/// What the file says of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// The best measurement.
    bytes_per_s: f64,
    /// How many there were.
    tries: u32,
}

impl Kept {
    fn is_sound(&self) -> bool {
        SOUND.contains(&self.bytes_per_s) && self.tries > 0
    }
}

/// Machines by what decides how fast they read.
type Roofs = BTreeMap<String, Kept>;

/// Bytes per second that the threads of our own products read together; None on a GPU, or if it cannot
/// be measured. The first eight calls on a machine measure, the others read what these kept.
pub(super) fn measured(machine: &Machine) -> Option<f64> {
    if machine.device != "cpu" {
        return None;
    }
    let file = file();
    let measure = || {
        status("measuring the memory of this machine");
        let buffer = BUFFER.min(machine.ram_bytes / PART);
        cpu_kernels::bandwidth(usize::try_from(buffer).ok()?)
    };
    kept_or(file.as_deref(), &key(machine), measure)
}

/// The best of what the file says and what `measure` does, which is asked if the file has too few of them.
/// A file that cannot be read counts as none, and if it cannot be written, the next call measures again.
fn kept_or(file: Option<&Path>, key: &str, measure: impl FnOnce() -> Option<f64>) -> Option<f64> {
    let mut roofs = file.map(read).unwrap_or_default();
    let before = roofs.get(key).copied().filter(Kept::is_sound);
    if let Some(kept) = before.filter(|kept| kept.tries >= TRIES) {
        return Some(kept.bytes_per_s);
    }
    let now = measure().filter(|now| SOUND.contains(now));
    let Some(now) = now else {
        return before.map(|kept| kept.bytes_per_s);
    };
    let best = Kept {
        bytes_per_s: before.map_or(now, |kept| kept.bytes_per_s.max(now)),
        tries: before.map_or(0, |kept| kept.tries) + 1,
    };
    roofs.insert(key.to_owned(), best);
    if let Some(file) = file {
        write(file, &roofs);
    }
    Some(best.bytes_per_s)
}

/// In the directory for what can be made again; None if the system has no such place.
fn file() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("llm-inference-mlx/memory-roof.json"))
}

fn key(machine: &Machine) -> String {
    let Machine {
        name,
        cores,
        ram_bytes,
        ..
    } = machine;
    let threads = cpu_kernels::threads();
    format!("{name}, {cores} cores, {ram_bytes} bytes, {threads} threads")
}

fn read(file: &Path) -> Roofs {
    let text = files::read(file, LIMIT).ok();
    let roofs: Option<Roofs> = text.and_then(|text| serde_json::from_slice(&text).ok());
    roofs
        .filter(|roofs| roofs.len() < MACHINES)
        .unwrap_or_default()
}

/// Whole or not at all. That it fails is no reason to stop: the number is there.
fn write(file: &Path, roofs: &Roofs) {
    let directory = file.parent().map(fs::create_dir_all);
    if let (Some(Ok(())), Ok(text)) = (directory, serde_json::to_vec_pretty(roofs)) {
        files::replace(file, &text).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    fn never() -> Option<f64> {
        panic!("it was kept")
    }

    #[test]
    fn the_best_of_the_first_measurements_is_kept_for_each_machine() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("below/roof.json");
        let file = Some(file.as_path());
        assert_eq!(kept_or(file, "a", || Some(12e9)), Some(12e9));
        assert_eq!(kept_or(file, "a", || Some(15e9)), Some(15e9));
        assert_eq!(kept_or(file, "b", || Some(40e9)), Some(40e9));
        for _ in 2..TRIES {
            assert_eq!(kept_or(file, "a", || Some(9e9)), Some(15e9));
        }
        assert_eq!(kept_or(file, "a", never), Some(15e9));
        assert_eq!(kept_or(file, "b", || None), Some(40e9));
    }

    #[test]
    fn a_broken_file_is_measured_anew_and_replaced() {
        let directory = tempdir().unwrap();
        let file = directory.path().join("roof.json");
        let kept = r#"{"a": {"bytes_per_s": 15e9, "tries": 8}}"#;
        let wrong = [
            String::new(),
            kept[..20].to_owned(),
            "[]".to_owned(),
            kept.replace("15e9", "null"),
            kept.replace("15e9", "-15e9"),
            kept.replace("15e9", "1e300"),
            kept.replace("15e9", "1e999"),
            kept.replace("tries\": 8", "tries\": -3"),
            kept.replace("tries\": 8", "tries\": 0"),
            format!("{kept}{}", " ".repeat(LIMIT as usize)),
        ];
        for text in wrong {
            fs::write(&file, &text).unwrap();
            let shown = &text[..text.len().min(50)];
            assert_eq!(
                kept_or(Some(&file), "a", || Some(11e9)),
                Some(11e9),
                "{shown}"
            );
            let replaced = read(&file);
            assert_eq!(replaced["a"].bytes_per_s, 11e9, "{shown}");
        }
        fs::write(&file, kept).unwrap();
        assert_eq!(kept_or(Some(&file), "a", never), Some(15e9));
    }

    #[test]
    fn without_a_place_for_the_file_each_run_measures() {
        assert_eq!(kept_or(None, "a", || Some(11e9)), Some(11e9));
        assert_eq!(kept_or(None, "a", || None), None);
        assert_eq!(kept_or(None, "a", || Some(f64::INFINITY)), None);
        let nowhere = Path::new("/dev/null/roof.json");
        assert_eq!(kept_or(Some(nowhere), "a", || Some(11e9)), Some(11e9));
    }

    #[test]
    fn memory_is_read_at_a_speed_that_memory_can_have() {
        let speed = cpu_kernels::bandwidth(64 << 20).unwrap();
        assert!(SOUND.contains(&speed), "{speed}");
    }
}
