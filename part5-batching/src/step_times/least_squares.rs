//! Unknowns that fit many equations as well as possible, none of them below zero.

/// Rounds in which equations that fit badly lose weight.
const ROUNDS: usize = 8;
/// An error of so many usual ones begins to lose weight (Huber 1964): a step in which the machine did something
/// else must not bend the model.
const TOLERATED: f64 = 2.0;
/// Of each diagonal term: where the equations leave something open, the smallest answer is taken.
const RIDGE: f64 = 1e-12;

/// Equations Σ term · unknown = value, weighed by their relative error.
#[derive(Debug)]
pub(super) struct Equations {
    unknowns: usize,
    rows: Vec<Vec<f64>>,
}

impl Equations {
    pub(super) fn new(unknowns: usize) -> Self {
        Self {
            unknowns,
            rows: Vec::new(),
        }
    }

    /// Both sides are divided by the value: a short step counts as much as a long one.
    pub(super) fn add(&mut self, terms: &[f64], value: f64) {
        self.rows
            .push(terms.iter().map(|term| term / value).collect());
    }

    /// The unknowns.
    pub(super) fn solve(&self) -> Vec<f64> {
        let mut weights = vec![1.0; self.rows.len()];
        let mut found = self.not_negative(&weights);
        for _ in 0..ROUNDS {
            let errors: Vec<f64> = self
                .rows
                .iter()
                .map(|row| (dot(row, &found) - 1.0).abs())
                .collect();
            let usual = console::metrics::median(&errors).unwrap_or(0.0) * 1.4826;
            for (weight, error) in weights.iter_mut().zip(&errors) {
                let most = TOLERATED * usual;
                *weight = if *error > most && most > 0.0 {
                    most / error
                } else {
                    1.0
                };
            }
            found = self.not_negative(&weights);
        }
        found
    }

    /// Solves, and as long as an unknown is below zero, takes the lowest out: no part of a step takes less
    /// than no time.
    fn not_negative(&self, weights: &[f64]) -> Vec<f64> {
        let mut free: Vec<usize> = (0..self.unknowns).collect();
        loop {
            let values = self.solve_for(&free, weights);
            let scaled = |at: usize| values[at] * self.size(free[at]);
            let lowest = (0..free.len()).min_by(|a, b| scaled(*a).total_cmp(&scaled(*b)));
            match lowest {
                Some(at) if values[at] < 0.0 => {
                    free.remove(at);
                }
                _ => {
                    let mut all = vec![0.0; self.unknowns];
                    for (unknown, value) in free.iter().zip(values) {
                        all[*unknown] = value;
                    }
                    return all;
                }
            }
        }
    }

    /// The largest term of an unknown, so that they can be compared.
    fn size(&self, unknown: usize) -> f64 {
        self.rows
            .iter()
            .map(|row| row[unknown].abs())
            .fold(0.0, f64::max)
    }

    /// The normal equations of some unknowns, by Cholesky's factors.
    fn solve_for(&self, free: &[usize], weights: &[f64]) -> Vec<f64> {
        let n = free.len();
        let sizes: Vec<f64> = free
            .iter()
            .map(|unknown| self.size(*unknown).max(f64::MIN_POSITIVE))
            .collect();
        let (mut matrix, mut right) = (vec![vec![0.0; n]; n], vec![0.0; n]);
        for (row, weight) in self.rows.iter().zip(weights) {
            let terms: Vec<f64> = free
                .iter()
                .zip(&sizes)
                .map(|(at, size)| row[*at] / size)
                .collect();
            for i in 0..n {
                right[i] += weight * terms[i];
                for j in 0..=i {
                    matrix[i][j] += weight * terms[i] * terms[j];
                }
            }
        }
        for (i, row) in matrix.iter_mut().enumerate() {
            row[i] = row[i] * (1.0 + RIDGE) + f64::MIN_POSITIVE;
        }
        let factor = cholesky(matrix);
        let scaled = substitute(&factor, right);
        scaled
            .iter()
            .zip(&sizes)
            .map(|(value, size)| value / size)
            .collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The lower factor L of a matrix L·Lᵀ, of which the lower half is given.
fn cholesky(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for i in 0..matrix.len() {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| matrix[i][k] * matrix[j][k]).sum();
            let rest = matrix[i][j] - sum;
            matrix[i][j] = if i == j {
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / matrix[j][j]
            };
        }
    }
    matrix
}

/// Solves L·Lᵀ·x = b.
fn substitute(factor: &[Vec<f64>], mut values: Vec<f64>) -> Vec<f64> {
    let n = values.len();
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| factor[i][k] * values[k]).sum();
        values[i] = (values[i] - sum) / factor[i][i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| factor[k][i] * values[k]).sum();
        values[i] = (values[i] - sum) / factor[i][i];
    }
    values
}
