//! Answers with one kind of cache or another, measured in turns.

use std::time::{Duration, Instant};

use anyhow::Result;
use console::interrupt::check_interrupted;
use console::metrics::{Generation, Run};
use console::report::{Stdout, TextStream, status};
use shared::machine::{active_bytes, on_one_stream, peak_bytes, reset_peak};
use shared::request::Request;
use shared::session::Session;

use crate::cache::Cache;
use crate::generate::{Generator, generate};
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;

/// What all runs share.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The model's files, its tokenizer, the machine.
    pub session: &'a Session,
    /// What every run answers.
    pub request: &'a Request,
    /// The prompt's text, if the answer continues it.
    pub continued: Option<&'a str>,
    /// The weights.
    pub model: &'a Model,
    /// Prompt tokens that go through the model at once.
    pub prefill_step: usize,
    /// Files → weights in memory.
    pub load_time: Duration,
    /// Text → ids.
    pub tokenize_time: Duration,
    /// Bytes of arrays before there is a cache.
    pub weights_active: u64,
}

/// One kind of cache, with all its rounds.
#[derive(Debug)]
pub struct Variant {
    /// What was asked for.
    pub kind: CacheKind,
    /// What the report and the JSON line call it.
    pub label: &'static str,
    /// Positions of the prompt that were in the cache before the answer began.
    pub stored: i32,
    /// The rounds.
    pub measured: Vec<Measured>,
}

/// One generation and what its cache held at the end.
#[derive(Debug)]
pub struct Measured {
    /// Its numbers.
    pub run: Run,
    /// Milliseconds per token after the first.
    decode_ms: Vec<f64>,
    /// Positions that went through the model.
    pub offset: i32,
    /// Positions that the cache had room for.
    pub capacity: i32,
    /// Bytes that MLX has for arrays beyond the weights.
    pub active: u64,
}

impl Measured {
    /// Without the last gap, in which no further step is started: it says how far ahead the device
    /// was, not what a token costs.
    pub fn steady_ms(&self) -> &[f64] {
        self.decode_ms
            .split_last()
            .map_or(&[], |(_, steady)| steady)
    }
}

/// The name of a kind in the report and in the JSON line.
pub fn name(kind: CacheKind) -> &'static str {
    match kind {
        CacheKind::Off => "off",
        CacheKind::Concat => "concat",
        CacheKind::Prealloc => "prealloc",
        CacheKind::Rotating { .. } => "rotating",
    }
}

/// What `work` gives, and how long it took.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed()))
}

/// A cache that already holds the beginning of the prompt.
#[derive(Debug)]
pub struct Begun {
    /// Whose answer it begins, for the report.
    pub label: &'static str,
    /// The cache.
    pub cache: Cache,
    /// What filling it took: part of the time to first token.
    pub time: Duration,
}

impl Bench<'_> {
    /// One answer that is read; if rounds are asked for, it was the warm-up for them.
    pub fn one(&self, kind: CacheKind, rounds: Option<u32>) -> Result<Variant> {
        let first = self.shown(self.empty(kind))?;
        let round = |_| {
            check_interrupted()?;
            self.answer(self.empty(kind), None)
        };
        let measured = match rounds {
            Some(rounds) => (0..rounds).map(round).collect::<Result<_>>()?,
            None => vec![first],
        };
        Ok(Variant {
            kind,
            label: name(kind),
            stored: 0,
            measured,
        })
    }

    /// One answer that begins with what is in a cache; the first of a command is read.
    pub fn one_from(&self, kind: CacheKind, begun: Begun, read: bool) -> Result<Variant> {
        let (label, stored) = (begun.label, begun.cache.offset());
        let measured = if read {
            self.shown(begun)?
        } else {
            self.answer(begun, None)?
        };
        Ok(Variant {
            kind,
            label,
            stored,
            measured: vec![measured],
        })
    }

    /// One answer that is read, then rounds in alternating order that are measured. The first one is
    /// the warm-up, too.
    pub fn compare(&self, kinds: &[CacheKind], rounds: u32) -> Result<Vec<Variant>> {
        let warm_up = CacheKind::Prealloc;
        self.shown(self.empty(warm_up))?;
        let variant = |&kind| Variant {
            kind,
            label: name(kind),
            stored: 0,
            measured: Vec::new(),
        };
        let mut variants: Vec<Variant> = kinds.iter().map(variant).collect();
        for round in 0..rounds {
            let mut order: Vec<&mut Variant> = variants.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for Variant { kind, measured, .. } in order {
                if *kind == CacheKind::Off && round > 0 {
                    continue; // it is slow, and the difference is far beyond the noise
                }
                status(&format!("round {} of {rounds}: {}", round + 1, name(*kind)));
                measured.push(self.answer(self.empty(*kind), None)?);
                check_interrupted()?;
            }
        }
        Ok(variants)
    }

    fn empty(&self, kind: CacheKind) -> Begun {
        Begun {
            label: name(kind),
            cache: empty_cache(kind, &self.session.checkpoint.config),
            time: Duration::ZERO,
        }
    }

    /// One generation that is read while it comes.
    fn shown(&self, begun: Begun) -> Result<Measured> {
        let mut out = TextStream::stdout();
        self.continued.map_or(Ok(()), |text| out.continued(text))?;
        self.answer(begun, Some(&mut out))
    }

    /// One generation; its text streams to `out`.
    fn answer(&self, begun: Begun, out: Option<&mut TextStream<Stdout>>) -> Result<Measured> {
        let Begun {
            label,
            mut cache,
            time,
        } = begun;
        reset_peak()?;
        let (generation, text) = self.stream(&mut cache, out)?;
        let timeline = &generation.timeline;
        let decode_ms = timeline.token_ms().split_off(1.min(timeline.len()));
        let run = Run::from_generation(label, self.request.ids.len(), &generation, text)
            .begun_before(time)
            .load(self.load_time)
            .tokenize(self.tokenize_time)
            .peak_bytes(peak_bytes()?)
            .weight_bytes(self.session.checkpoint.weight_bytes())
            .kv_bytes(cache.bytes())
            .step_bytes(
                self.step_bytes(generation.tokens.len(), cache.capacity()),
                &self.session.machine,
            );
        Ok(Measured {
            run,
            decode_ms,
            offset: cache.offset(),
            capacity: cache.capacity(),
            active: active_bytes()?.saturating_sub(self.weights_active),
        })
    }

    /// What a decode step of an answer of n tokens reads, on average: the weights, and what it sees of a
    /// cache of that capacity.
    fn step_bytes(&self, n: usize, capacity: i32) -> u64 {
        let checkpoint = &self.session.checkpoint;
        let capacity = usize::try_from(capacity).unwrap_or(0);
        let kv = |step: usize| {
            let positions = (self.request.ids.len() + step).min(capacity);
            let bytes = checkpoint.activation_bytes();
            checkpoint.config.kv_bytes_read(positions, bytes)
        };
        let steps = n.saturating_sub(1).max(1);
        checkpoint.read_bytes() + (1..=steps).map(kv).sum::<u64>() / steps as u64
    }

    fn stream(
        &self,
        cache: &mut Cache,
        mut out: Option<&mut TextStream<Stdout>>,
    ) -> Result<(Generation, String)> {
        let mut answer = self.session.answer(|piece| {
            out.as_mut()
                .map_or(Ok(()), |out| out.push(piece).map_err(Into::into))
        });
        let mut generator = Generator::new(self.model, cache, self.request, self.prefill_step)?;
        let prompt_tokens = self.request.ids.len();
        let watch = |step| answer.watch(step, prompt_tokens);
        let generation = on_one_stream(|| generate(&mut generator, watch))?;
        let text = answer.finish()?;
        if let Some(out) = out {
            out.finish()?;
        }
        Ok((generation, text))
    }
}
