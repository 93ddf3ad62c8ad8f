//! Dot products of many rows of x, with some rows of W side by side.
//!
//! A lane of a register belongs to one row of W and holds its sum. So nothing has to be added across a register at the
//! end, which for a short row takes as long as the products do. W has to be turned for that, which pays as soon as
//! there are some rows of x.
//!
//! A row is added up exactly as in [`dot`](crate::dense::dot) and [`product`](crate::packed::product): their sums,
//! one in each lane, come one after the other here.

use crate::element::{Element, load};
use crate::level::{Kernel, Level};
use crate::packed::{Blocks, PackedRow, PreparedRow, Scales, block_codes, unpack_codes};
use crate::pool;
use crate::vector::{LANES, SIXTEEN, Vector};

/// The order in which [`Vector::sum`] adds lanes: neighbours here first, then pairs, then fours.
const MEETING: [usize; LANES] = [0, 4, 2, 6, 1, 5, 3, 7];

/// In which order the numbers of a row are used: passes, each of which is one lane's sum.
#[derive(Debug)]
struct Order {
    /// Which number comes when.
    steps: Vec<usize>,
    /// Steps of each pass.
    passes: Vec<usize>,
}

impl Order {
    /// That of K floats. What comes after the last pass is added number after number.
    fn dense(k: usize) -> Self {
        let (blocks, eights) = (k / (4 * LANES), k / LANES);
        let (mut steps, mut passes) = (Vec::with_capacity(k), Vec::new());
        for lane in MEETING {
            for at in 0..4 {
                let before = steps.len();
                steps.extend((0..blocks).map(|block| (4 * block + at) * LANES + lane));
                if at == 0 {
                    // What is no block any more belongs to the first of the four sums.
                    steps.extend((4 * blocks..eights).map(|eight| eight * LANES + lane));
                }
                passes.push(steps.len() - before);
            }
        }
        steps.extend(eights * LANES..k);
        Self { steps, passes }
    }

    /// That of K codes, whole blocks of them.
    fn packed(k: usize) -> Self {
        let lane = |lane| (0..k / LANES).map(move |eight| eight * LANES + lane);
        Self {
            steps: MEETING.into_iter().flat_map(lane).collect(),
            passes: vec![k / LANES; LANES],
        }
    }

    /// When each number comes. After each pass a step is left out: where K is a power of two, all lanes of a number
    /// would compete for the same place in the first cache.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.steps.len()];
        let (mut pass, mut end) = (0, self.passes.first().copied().unwrap_or(0));
        for (at, number) in self.steps.iter().enumerate() {
            while at == end && pass < self.passes.len() {
                pass += 1;
                end += self.passes.get(pass).copied().unwrap_or(0);
            }
            places[*number] = at + pass;
        }
        places
    }

    /// Steps of a tile, those left out included.
    fn len(&self) -> usize {
        self.steps.len() + self.passes.len()
    }
}

/// Rows in tiles of so many, each turned and in the order of the steps: `[tiles, steps, rows of a tile]`. The last tile is
/// filled up with zeros.
struct Turned {
    numbers: Vec<f32>,
    /// Numbers of a tile.
    tile: usize,
}

impl Turned {
    fn new<'a>(
        level: Level,
        rows: usize,
        row: impl Fn(usize) -> &'a [f32] + Sync,
        order: &Order,
        together: usize,
    ) -> Self {
        let (tiles, tile) = (rows.div_ceil(together), together * order.len());
        let mut numbers = vec![0.0; tiles * tile];
        let places = order.places();
        pool::in_pieces(&mut numbers, tile, tiles, 4 * tile, |first, numbers| {
            for (at, to) in numbers.chunks_exact_mut(tile).enumerate() {
                let first = (first + at) * together;
                let near: Vec<&[f32]> = (first..rows.min(first + together)).map(&row).collect();
                turn(level, &near, &places, together, to);
            }
        });
        Self { numbers, tile }
    }

    fn tiles(&self) -> impl Iterator<Item = &[f32]> {
        self.numbers.chunks_exact(self.tile)
    }
}

/// Rows `[up to TOGETHER, K]` become columns: `to` is `[steps, TOGETHER]`.
struct Turn<'a, E, const TOGETHER: usize> {
    rows: &'a [&'a [E]],
    places: &'a [usize],
    to: &'a mut [f32],
}

impl<E: Element, const TOGETHER: usize> Kernel for Turn<'_, E, TOGETHER> {
    type Output = ();

    /// Eight numbers of all rows, then the next eight: what is written to is still in the first cache.
    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (rows, to) = (self.rows, self.to.as_chunks_mut::<TOGETHER>().0);
        let (eights, rest) = self.places.as_chunks::<LANES>();
        let width = LANES.min(TOGETHER);
        for (eight, places) in eights.iter().enumerate() {
            for (group, rows) in rows.chunks(width).enumerate() {
                let mut near = [v.zero(); LANES];
                for (near, row) in near.iter_mut().zip(rows) {
                    *near = load(v, row, eight);
                }
                let near = v.turn(near);
                for lane in 0..LANES {
                    let (to, numbers) = (&mut to[places[lane]], v.numbers(near[lane]));
                    if let Some(to) = to.as_chunks_mut().0.get_mut(group) {
                        *to = numbers;
                    } else {
                        for (to, number) in to.iter_mut().zip(numbers) {
                            *to = number;
                        }
                    }
                }
            }
        }
        for (at, place) in rest.iter().enumerate() {
            for (to, row) in to[*place].iter_mut().zip(rows) {
                *to = row[eights.len() * LANES + at].widen();
            }
        }
    }
}

/// Rows of x and of W that a tile multiplies: sums, what is loaded for them and nothing else in registers, of which
/// there are 32 of 512 bits or 16 of 256. Four chains of sums on each multiplier, since an addition takes four cycles.
#[derive(Debug, Clone, Copy)]
struct Shape {
    x: usize,
    w: usize,
}

impl Shape {
    fn dense(level: Level) -> Self {
        match level {
            Level::Avx512 => Self { x: 8, w: 32 },
            _ => Self { x: 4, w: 16 },
        }
    }

    /// Three sums for each.
    fn packed(level: Level) -> Self {
        match level {
            Level::Avx512 => Self { x: 4, w: 32 },
            _ => Self { x: 2, w: 16 },
        }
    }
}

/// `x Wᵀ`: x `[M, K]`, W `[N, K]` → `y` `[M, N]`.
///
/// # Cost
/// Some rows of W at a time are turned, and all of x passes by: it should stay in the second cache, or the third.
pub(crate) fn dense<E: Element>(level: Level, x: &[f32], w: &[E], k: usize, y: &mut [f32]) {
    let (shape, order) = (Shape::dense(level), Order::dense(k));
    let (m, n) = (x.len() / k, w.len() / k);
    let x = Turned::new(level, m, |row| &x[row * k..][..k], &order, shape.x);
    let places = order.places();
    in_tiles(shape, m, n, k, y, |first, tiles| {
        let mut turned = vec![0.0; shape.w * order.len()];
        for (at, out) in tiles.chunks_exact_mut(out_len(shape, m)).enumerate() {
            let first = (first + at) * shape.w;
            let rows = first..n.min(first + shape.w);
            let near: Vec<&[E]> = w[rows.start * k..rows.end * k].chunks_exact(k).collect();
            turn(level, &near, &places, shape.w, &mut turned);
            sums_of(level, shape, &order, x.tiles(), &turned, out);
        }
    });
}

/// Dense products of a few rows with a few, all on the calling thread: what it needs for them, again and again.
pub(crate) struct Near {
    shape: Shape,
    order: Order,
    places: Vec<usize>,
    x: Vec<f32>,
    turned: Vec<f32>,
    out: Vec<f32>,
}

impl Near {
    /// Of rows of K numbers.
    pub(crate) fn new(level: Level, k: usize) -> Self {
        let (shape, order) = (Shape::dense(level), Order::dense(k));
        Self {
            shape,
            places: order.places(),
            turned: vec![0.0; shape.w * order.len()],
            order,
            x: Vec::new(),
            out: Vec::new(),
        }
    }

    /// x `[M, K]`, W `[N, K]` → `y` `[M, N]`.
    pub(crate) fn products<E: Element>(&mut self, level: Level, x: &[f32], w: &[E], y: &mut [f32]) {
        let (shape, k) = (self.shape, self.places.len());
        let (m, n) = (x.len() / k, w.len() / k);
        let tile = shape.x * self.order.len();
        self.x.resize(m.div_ceil(shape.x) * tile, 0.0);
        self.out.resize(out_len(shape, m), 0.0);
        let rows: Vec<&[f32]> = x.chunks_exact(k).collect();
        for (rows, to) in rows.chunks(shape.x).zip(self.x.chunks_exact_mut(tile)) {
            turn(level, rows, &self.places, shape.x, to);
        }
        for (at, weight) in w.chunks(shape.w * k).enumerate() {
            let rows: Vec<&[E]> = weight.chunks_exact(k).collect();
            turn(level, &rows, &self.places, shape.w, &mut self.turned);
            let tiles = self.x.chunks_exact(tile);
            sums_of(
                level,
                shape,
                &self.order,
                tiles,
                &self.turned,
                &mut self.out,
            );
            let rows = weight.len() / k;
            for (y, out) in y.chunks_exact_mut(n).zip(self.out.chunks_exact(shape.w)) {
                y[at * shape.w..][..rows].copy_from_slice(&out[..rows]);
            }
        }
    }
}

/// The same as [`dense`] with packed rows of W.
pub(crate) fn packed<
    'a,
    const BITS: usize,
    const WORDS: usize,
    const FLOATS: bool,
    S: Scales,
    E: Element + 'a,
>(
    level: Level,
    xs: &[PreparedRow],
    row: impl Fn(usize) -> PackedRow<'a, S, E> + Sync,
    groups: usize,
    group_size: usize,
    y: &mut [f32],
) {
    let shape = Shape::packed(level);
    let (m, n, k) = (xs.len(), y.len() / xs.len(), xs[0].x.len());
    let (order, sums_order) = (Order::packed(k), Order::dense(xs[0].sums.len()));
    let x = Turned::new(level, m, |row| &xs[row].x, &order, shape.x);
    let sums = Turned::new(level, m, |row| &xs[row].sums, &sums_order, shape.x);
    let (places, sums_places) = (order.places(), sums_order.places());
    let blocks = Blocks::of(BITS, group_size);
    in_tiles(shape, m, n, k, y, |first, tiles| {
        let mut wide = vec![0.0; shape.w * k];
        let mut turned = vec![0.0; shape.w * order.len()];
        let mut scales = vec![0.0; shape.w * (groups + LANES)];
        let mut biases = vec![0.0; shape.w * sums_order.len()];
        let mut products = vec![0.0; out_len(shape, m)];
        for (at, out) in tiles.chunks_exact_mut(out_len(shape, m)).enumerate() {
            let first = (first + at) * shape.w;
            let rows: Vec<_> = (first..n.min(first + shape.w)).map(&row).collect();
            for (row, wide) in rows.iter().zip(wide.chunks_exact_mut(k)) {
                level.run(Unpack::<BITS, WORDS, FLOATS> {
                    codes: row.codes,
                    wide,
                });
            }
            let near: Vec<&[f32]> = wide.chunks_exact(k).take(rows.len()).collect();
            turn(level, &near, &places, shape.w, &mut turned);
            for (at, row) in rows.iter().enumerate() {
                for group in 0..groups {
                    scales[group * shape.w + at] = row.scales.at(group);
                }
                for (place, bias) in sums_places.iter().zip(row.biases) {
                    biases[place * shape.w + at] = bias.widen();
                }
            }
            scaled_sums_of::<BITS>(
                level,
                shape,
                blocks,
                x.tiles(),
                &turned,
                &scales,
                &mut products,
            );
            sums_of(level, shape, &sums_order, sums.tiles(), &biases, out);
            for (out, product) in out.iter_mut().zip(&products) {
                *out += product;
            }
        }
    });
}

/// Numbers of the products of all rows of x with a tile of W.
fn out_len(shape: Shape, m: usize) -> usize {
    m.div_ceil(shape.x) * shape.x * shape.w
}

/// Fills `y` `[M, N]` in tiles of rows of W, which threads share: `fill` is given the first tile and what its tiles
/// have room for, `[tiles, M filled up, rows of W]`.
fn in_tiles(
    shape: Shape,
    m: usize,
    n: usize,
    k: usize,
    y: &mut [f32],
    fill: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    let (tiles, len) = (n.div_ceil(shape.w), out_len(shape, m));
    let mut out = vec![0.0; tiles * len];
    pool::in_pieces(&mut out, len, tiles, 4 * shape.w * k * m, fill);
    pool::in_pieces(y, n, m, 4 * n, |first, y| {
        for (at, y) in y.chunks_exact_mut(n).enumerate() {
            for (tile, y) in y.chunks_mut(shape.w).enumerate() {
                let from = tile * len + (first + at) * shape.w;
                y.copy_from_slice(&out[from..from + y.len()]);
            }
        }
    });
}

struct Unpack<'a, const BITS: usize, const WORDS: usize, const FLOATS: bool> {
    codes: &'a [u32],
    wide: &'a mut [f32],
}

impl<const BITS: usize, const WORDS: usize, const FLOATS: bool> Kernel
    for Unpack<'_, BITS, WORDS, FLOATS>
{
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        unpack_codes::<V, BITS, WORDS, FLOATS>(v, self.codes, self.wide);
    }
}

fn turn<E: Element>(
    level: Level,
    rows: &[&[E]],
    places: &[usize],
    together: usize,
    to: &mut [f32],
) {
    match together {
        2 => level.run(Turn::<E, 2> { rows, places, to }),
        4 => level.run(Turn::<E, 4> { rows, places, to }),
        8 => level.run(Turn::<E, 8> { rows, places, to }),
        16 => level.run(Turn::<E, 16> { rows, places, to }),
        32 => level.run(Turn::<E, 32> { rows, places, to }),
        rows => unreachable!("tiles of {rows} rows"),
    }
}

/// All rows of x with a tile of W `[steps, rows of W]`.
fn sums_of<'a>(
    level: Level,
    shape: Shape,
    order: &Order,
    tiles: impl Iterator<Item = &'a [f32]>,
    w: &[f32],
    out: &mut [f32],
) {
    for (x, out) in tiles.zip(out.chunks_exact_mut(shape.x * shape.w)) {
        let passes = &order.passes;
        match (shape.x, shape.w) {
            (8, 32) => level.run_wide(Sums::<8, 2> { passes, x, w, out }),
            (4, 32) => level.run_wide(Sums::<4, 2> { passes, x, w, out }),
            (4, 16) => level.run_wide(Sums::<4, 1> { passes, x, w, out }),
            (2, 16) => level.run_wide(Sums::<2, 1> { passes, x, w, out }),
            (x, w) => unreachable!("tiles of {x} × {w}"),
        }
    }
}

/// `M` rows of x `[steps, M]` with `P` times sixteen rows of W `[steps, P · 16]` → `[M, P · 16]`.
struct Sums<'a, const M: usize, const P: usize> {
    passes: &'a [usize],
    x: &'a [f32],
    w: &'a [f32],
    out: &'a mut [f32],
}

impl<const M: usize, const P: usize> Kernel for Sums<'_, M, P> {
    type Output = ();

    /// Loops instead of closures: what is not inlined is not translated for the level.
    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (mut x, mut w) = (
            self.x.as_chunks::<M>().0,
            self.w.as_chunks().0.as_chunks::<P>().0,
        );
        let mut meeting = Meeting::<M, P>::new();
        for (pass, steps) in self.passes.iter().enumerate() {
            let (x_near, w_near);
            (x_near, x) = x.split_at(*steps);
            (w_near, w) = w.split_at(*steps);
            (x, w) = (&x[1..], &w[1..]);
            let mut sums = [[v.splat_16(0.0); P]; M];
            for (x, w) in x_near.iter().zip(w_near) {
                multiply_add(v, x, w, &mut sums);
            }
            meeting.add(v, pass, sums);
        }
        let totals = meeting.total(self.passes.len());
        // What fills no register: a product that is rounded before it is added.
        for (x, w) in x.iter().zip(w) {
            for m in 0..M {
                for p in 0..P {
                    for lane in 0..SIXTEEN {
                        totals[m][p][lane] += w[p][lane] * x[m];
                    }
                }
            }
        }
        self.out
            .copy_from_slice(totals.as_flattened().as_flattened());
    }
}

#[inline(always)]
fn multiply_add<V: Vector, const M: usize, const P: usize>(
    v: V,
    x: &[f32; M],
    w: &[[f32; SIXTEEN]; P],
    sums: &mut [[V::Sixteen; P]; M],
) {
    let mut near = [v.splat_16(0.0); P];
    for p in 0..P {
        near[p] = v.sixteen(w[p]);
    }
    for m in 0..M {
        let x = v.splat_16(x[m]);
        for p in 0..P {
            sums[m][p] = v.multiply_add_16(near[p], x, sums[m][p]);
        }
    }
}

/// Sums that wait for their neighbour: two of a level make one of the next.
struct Meeting<const M: usize, const P: usize>([[[[f32; SIXTEEN]; P]; M]; 6]);

impl<const M: usize, const P: usize> Meeting<M, P> {
    #[inline(always)]
    fn new() -> Self {
        Self([[[[0.0; SIXTEEN]; P]; M]; 6])
    }

    /// The sums of a pass, whose binary digits say who waits already.
    #[inline(always)]
    fn add<V: Vector>(&mut self, v: V, pass: usize, mut sums: [[V::Sixteen; P]; M]) {
        let met = pass.trailing_ones() as usize;
        for waiting in &self.0[..met] {
            for m in 0..M {
                for p in 0..P {
                    sums[m][p] = v.add_16(v.sixteen(waiting[m][p]), sums[m][p]);
                }
            }
        }
        for (waiting, sums) in self.0[met].iter_mut().zip(sums) {
            for (waiting, sum) in waiting.iter_mut().zip(sums) {
                *waiting = v.sixteen_numbers(sum);
            }
        }
    }

    /// After so many passes, a power of two.
    #[inline(always)]
    fn total(&mut self, passes: usize) -> &mut [[[f32; SIXTEEN]; P]; M] {
        &mut self.0[passes.trailing_zeros() as usize]
    }
}

/// All rows of x with a tile of codes `[steps, rows of W]` and its scales `[groups, rows of W]`.
fn scaled_sums_of<'a, const BITS: usize>(
    level: Level,
    shape: Shape,
    blocks: Blocks,
    tiles: impl Iterator<Item = &'a [f32]>,
    w: &[f32],
    scales: &[f32],
    out: &mut [f32],
) {
    for (x, out) in tiles.zip(out.chunks_exact_mut(shape.x * shape.w)) {
        match (shape.x, shape.w) {
            (4, 32) => level.run_wide(ScaledSums::<BITS, 4, 2> {
                blocks,
                x,
                w,
                scales,
                out,
            }),
            (2, 16) => level.run_wide(ScaledSums::<BITS, 2, 1> {
                blocks,
                x,
                w,
                scales,
                out,
            }),
            (x, w) => unreachable!("tiles of {x} × {w}"),
        }
    }
}

/// As [`Sums`], of blocks of codes, each of which is scaled.
struct ScaledSums<'a, const BITS: usize, const M: usize, const P: usize> {
    blocks: Blocks,
    x: &'a [f32],
    w: &'a [f32],
    scales: &'a [f32],
    out: &'a mut [f32],
}

impl<const BITS: usize, const M: usize, const P: usize> Kernel for ScaledSums<'_, BITS, M, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let x = self.x.as_chunks::<M>().0;
        let w = self.w.as_chunks().0.as_chunks::<P>().0;
        let scales = self.scales.as_chunks().0.as_chunks::<P>().0;
        let steps = x.len() / LANES - 1;
        let block = block_codes(BITS) / LANES;
        let mut meeting = Meeting::<M, P>::new();
        for (pass, lane) in MEETING.into_iter().enumerate() {
            let first = pass * (steps + 1);
            let near = first..first + steps;
            let (x, w) = (
                x[near.clone()].chunks_exact(block),
                w[near].chunks_exact(block),
            );
            let mut totals = [[v.splat_16(0.0); P]; M];
            for (index, (x, w)) in x.zip(w).enumerate() {
                let [mut even, mut odd] = [[[v.splat_16(0.0); P]; M]; 2];
                for (x, w) in x.as_chunks::<2>().0.iter().zip(w.as_chunks::<2>().0) {
                    multiply_add(v, &x[0], &w[0], &mut even);
                    multiply_add(v, &x[1], &w[1], &mut odd);
                }
                let scale = &scales[self.blocks.group(index, lane)];
                for p in 0..P {
                    let scale = v.sixteen(scale[p]);
                    for m in 0..M {
                        let sum = v.add_16(even[m][p], odd[m][p]);
                        totals[m][p] = v.multiply_add_16(sum, scale, totals[m][p]);
                    }
                }
            }
            meeting.add(v, pass, totals);
        }
        let totals = meeting.total(LANES);
        self.out
            .copy_from_slice(totals.as_flattened().as_flattened());
    }
}
