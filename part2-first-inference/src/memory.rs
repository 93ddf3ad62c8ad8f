//! What `--show memory` shows: when an array is computed, where its bytes lie and who may use them there,
//! and how fast a token can be if its weights have to be read.
//!
//! Everything is measured here and now. What this machine cannot show, because it has no GPU that MLX uses
//! or no second memory, is said and not told from hearsay.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use console::machine::Machine;
use console::metrics::{median, ms};
use console::numbers::{count, decimal, fixed, megabytes};
use console::report::{Report, Stdout, status};
use mlx_rs::{Array, Stream, with_stream};
use shared::layers::ids_array;
use shared::machine::{active_bytes, on_one_stream};
use shared::session::Session;

use crate::model::Model;

/// Numbers of the arrays that are looked at: more than the caches of a CPU hold.
const NUMBERS: usize = 16_000_000;
/// Steps that the speed is measured with, after some that warm up.
const STEPS: usize = 20;
const WARM_UP: usize = 3;

/// Prints all of it.
///
/// # Errors
/// If MLX fails, or if the report cannot be written.
pub fn show(session: &Session, model: &Model) -> Result<()> {
    let mut report = Report::stdout();
    let machine = &session.machine;
    let described = lazy(&mut report)?;
    places(&mut report, machine, &described)?;
    ceiling(&mut report, session, model)
}

/// What was done, how long it took, and what MLX held then.
struct Moment {
    what: String,
    ms: Option<f64>,
    held: u64,
    address: Option<usize>,
}

impl Moment {
    fn of<T>(what: &str, before: u64, work: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let started = Instant::now();
        let done = work()?;
        let ms = Some(ms(started.elapsed()));
        let moment = Self {
            what: what.to_owned(),
            ms,
            held: active_bytes()?.saturating_sub(before),
            address: None,
        };
        Ok((moment, done))
    }
}

/// An array is a note of what is wanted until somebody asks for it.
fn lazy(report: &mut Report<Stdout>) -> Result<Array> {
    report.note(&format!(
        "1. An array is computed when it is needed. `a` has {} numbers of 32 bits, so {}; `b = a · a + a` \
         is described first, and computed when `eval` asks for it.",
        count(NUMBERS as u64),
        decimal(4 * NUMBERS as u64)
    ))?;
    report.blank()?;
    let before = active_bytes()?;
    let evaluated = |array: &Array| array.eval().context("evaluating an array");
    let (first, a) = Moment::of("a, made by the host", before, || {
        let a = Array::from_iter(
            (0..NUMBERS).map(|i| i as f32 / NUMBERS as f32),
            &[NUMBERS as i32],
        );
        evaluated(&a)?;
        Ok(a)
    })?;
    let (second, b) = Moment::of("b, described", before, || Ok(a.multiply(&a)?.add(&a)?))?;
    let (third, ()) = Moment::of("b, evaluated", before, || evaluated(&b))?;
    moments(report, &[first, second, third])?;
    report.note(
        "A description takes microseconds and no memory. So a whole step of a model is described before \
         any of it runs, and an array that nobody needs any more leaves its memory to the next one.",
    )?;
    report.blank()?;
    Ok(b)
}

/// The same bytes, used by one stream and by another.
fn places(report: &mut Report<Stdout>, machine: &Machine, b: &Array) -> Result<()> {
    let gpu = machine.device == "gpu";
    let [one, other] = if gpu {
        ["the GPU", "the CPU"]
    } else {
        ["one stream of the CPU", "another one"]
    };
    report.note(&format!(
        "2. An array lies in memory, not on a device: which device computes with it is said for each \
         operation, by the stream that it is put into. Here the sum of `b` by {one} and by {other}:"
    ))?;
    report.blank()?;
    let streams = [
        Stream::new(),
        if gpu { Stream::cpu() } else { second_stream()? },
    ];
    let before = active_bytes()?.saturating_sub(4 * NUMBERS as u64);
    let mut seen = Vec::new();
    for (who, stream) in [(one, 0), (other, 1), (other, 1), (one, 0)] {
        let (mut moment, _) = Moment::of(&format!("sum of b by {who}"), before, || {
            let sum = with_stream(&streams[stream], || b.sum(false))?;
            Ok(sum.try_item_exact::<f32>()?)
        })?;
        // With two memories, to ask for the host's address is to ask for the copy that is to be measured.
        let asks_too_early = machine.backend == "cuda" && seen.is_empty();
        moment.address = if asks_too_early {
            None
        } else {
            Some(address(b)?)
        };
        seen.push(moment);
    }
    moments(report, &seen)?;
    report.note(&verdict(machine, &seen))?;
    Ok(report.blank()?)
}

/// A stream of the CPU beside the default one.
fn second_stream() -> Result<Stream> {
    let device = mlx_rs::Device::try_default().context("asking MLX for its default device")?;
    Ok(Stream::new_with_device(&device))
}

/// Where the host finds the array's first number.
fn address(array: &Array) -> Result<usize> {
    Ok(array.try_as_slice::<f32>()?.as_ptr() as usize)
}

/// What the four sums say about copies, on this machine.
fn verdict(machine: &Machine, seen: &[Moment]) -> String {
    if machine.backend == "cuda" {
        return over_the_bus(seen);
    }
    let same = seen
        .windows(2)
        .all(|pair| pair[0].address == pair[1].address);
    let grown = seen.iter().any(|moment| moment.held > seen[0].held);
    let stayed = match (same, grown) {
        (true, false) => {
            "Its bytes stayed where they were, and MLX held no more than before".to_owned()
        }
        (true, true) => "Its bytes stayed where they were, but MLX held more afterwards".to_owned(),
        (false, _) => "Its bytes moved to another address".to_owned(),
    };
    match machine.backend.as_str() {
        "metal" if same && !grown => format!(
            "{stayed}: GPU and CPU read the same bytes. This is unified memory; there is no second one \
             to copy them to."
        ),
        "metal" => format!("{stayed}, which unified memory does not need: please report it."),
        _ => format!(
            "{stayed}: two streams read the same bytes. What cannot be shown here: MLX has no GPU on this \
             machine, so there is neither a GPU that reads the CPU's bytes, as on a Mac, nor a second \
             memory that they would have to be copied to, as with a graphics card of its own."
        ),
    }
}

/// With two memories the first use on the other side has the copy in it, the second one has not. The host's address
/// says nothing there: before the copy it has none.
fn over_the_bus(seen: &[Moment]) -> String {
    let times: Vec<f64> = seen.iter().filter_map(|moment| moment.ms).collect();
    let [gpu, first, second, gpu_again] = times[..] else {
        return String::new();
    };
    let copy = first - second;
    let bytes = 4.0 * NUMBERS as f64;
    if copy <= 0.2 * second {
        return "There are two memories, but no copy could be seen between them.".to_owned();
    }
    let back = if gpu_again > 1.2 * gpu {
        format!(
            " The GPU's next sum took {} ms instead of {}: its bytes were no longer in its own memory.",
            fixed(gpu_again, 1),
            fixed(gpu, 1)
        )
    } else {
        String::new()
    };
    format!(
        "There are two memories: the CPU's first sum took {} ms longer than its second, in which {} came \
         over the bus, {} GB/s.{back} A model that does not fit into the card pays that for each token.",
        fixed(copy, 1),
        decimal(bytes as u64),
        fixed(bytes / copy / 1e6, 1)
    )
}

fn moments<W: Write>(report: &mut Report<W>, seen: &[Moment]) -> Result<()> {
    let addresses = seen.iter().any(|moment| moment.address.is_some());
    let mut head = vec!["what", "ms", "MLX holds MB"];
    head.extend(addresses.then_some("at address"));
    let row = |moment: &Moment| {
        let mut row = vec![
            moment.what.clone(),
            console::numbers::or_dash(moment.ms, 3),
            megabytes(Some(moment.held), 1),
        ];
        let address = moment.address.map(|address| format!("{address:#x}"));
        row.extend(addresses.then(|| address.unwrap_or_else(|| "–".to_owned())));
        row
    };
    report.table(&head, &seen.iter().map(row).collect::<Vec<_>>())?;
    Ok(report.blank()?)
}

/// The roof of decode: bytes that a token must read ÷ bytes per second, beside what a step takes.
fn ceiling(report: &mut Report<Stdout>, session: &Session, model: &Model) -> Result<()> {
    let bytes = session.checkpoint.read_bytes();
    report.note(&format!(
        "3. A step with one token reads every weight once: {} of {}. That alone takes its time, however \
         fast the arithmetic is.",
        decimal(bytes),
        session.checkpoint.name
    ))?;
    report.blank()?;
    status("measuring steps of one token");
    let id = session
        .tokenizer
        .encode_raw("a")?
        .first()
        .copied()
        .unwrap_or(0);
    let measured = on_one_stream(|| steps(model, id))?;
    let tps = 1e3 / measured;
    let Some(roof) = session.machine.ceiling_tps(bytes) else {
        report.note(&format!(
            "Measured: {} ms, so {} tok/s. The bandwidth of this machine is not known, so there is no \
             ceiling to put beside it.",
            fixed(measured, 2),
            fixed(tps, 1)
        ))?;
        return Ok(());
    };
    let bandwidth = session.machine.bandwidth_text().unwrap_or_default();
    report.bars(
        "one token",
        "tok/s",
        1,
        &[("ceiling", roof), ("measured", tps)],
    )?;
    report.blank()?;
    report.note(&format!(
        "{} / {bandwidth} = {} ms for each token at least. Measured: {} ms, the median of {STEPS} steps: {} \
         % of the ceiling.",
        decimal(bytes),
        fixed(1e3 / roof, 2),
        fixed(measured, 2),
        fixed(100.0 * tps / roof, 0)
    ))?;
    Ok(())
}

/// Milliseconds of a step with one token, the median.
fn steps(model: &Model, id: u32) -> Result<f64> {
    let mut times = Vec::new();
    for step in 0..WARM_UP + STEPS {
        let started = Instant::now();
        model.next_logits(&ids_array(&[id]))?.eval()?;
        if step >= WARM_UP {
            times.push(ms(started.elapsed()));
        }
    }
    median(&times).context("no step was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(backend: &str) -> Machine {
        Machine {
            name: "a machine".to_owned(),
            device: if backend == "cpu" { "cpu" } else { "gpu" }.to_owned(),
            backend: backend.to_owned(),
            ram_bytes: 24 << 30,
            os: String::new(),
            cores: 2,
            bandwidth_bytes_per_s: None,
            bandwidth_is_measured: false,
            products: String::new(),
        }
    }

    fn sums(values: [(f64, usize, u64); 4]) -> Vec<Moment> {
        let moment = |(ms, address, held)| Moment {
            what: String::new(),
            ms: Some(ms),
            held,
            address: Some(address),
        };
        values.map(moment).into()
    }

    #[test]
    fn each_machine_is_told_what_it_shows_and_no_other() {
        let still = sums([
            (2.0, 64, 100),
            (5.0, 64, 100),
            (5.0, 64, 100),
            (2.0, 64, 100),
        ]);
        let told = verdict(&machine("metal"), &still);
        assert!(told.contains("This is unified memory"), "{told}");
        let told = verdict(&machine("cpu"), &still);
        assert!(
            told.contains("What cannot be shown here") && !told.contains("unified"),
            "{told}"
        );
        let told = verdict(&machine("cuda"), &still);
        assert!(told.contains("no copy could be seen"), "{told}");

        // As an H200 gave it: before the copy the host has no address.
        let mut copied = sums([
            (2.9, 64, 100),
            (37.5, 64, 100),
            (17.5, 64, 100),
            (8.9, 64, 100),
        ]);
        copied[0].address = None;
        let told = verdict(&machine("cuda"), &copied);
        // 64 MB in 20 ms.
        assert!(
            told.contains("took 20.0 ms longer") && told.contains("3.2 GB/s"),
            "{told}"
        );
        assert!(told.contains("took 8.9 ms instead of 2.9"), "{told}");
        assert!(!told.contains("address"), "{told}");
    }

    #[test]
    fn bytes_that_moved_or_grew_are_not_told_to_be_shared() {
        let moved = sums([
            (2.0, 64, 100),
            (5.0, 128, 100),
            (5.0, 128, 100),
            (2.0, 128, 100),
        ]);
        let grown = sums([
            (2.0, 64, 100),
            (5.0, 64, 180),
            (5.0, 64, 180),
            (2.0, 64, 180),
        ]);
        for seen in [moved, grown] {
            let told = verdict(&machine("metal"), &seen);
            assert!(!told.contains("This is unified memory"), "{told}");
            assert!(told.contains("please report it"), "{told}");
        }
    }
}
