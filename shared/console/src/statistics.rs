//! How sure a mean is whose values come in groups.
//!
//! The values of one group may depend on each other, as the tokens of one stretch of text do: what is
//! hard for a model stays hard for a while. Then `deviation / √n` over all values is too small. The
//! bootstrap draws whole groups again instead, and asks how much the result changes.

/// Times that groups are drawn again: a standard error that is right to 3 %.
const DRAWS: usize = 1000;

/// Draws of n groups out of n, with repetition.
///
/// The same draws for the same number of groups and the same seed. So the difference of two
/// statistics over the same draws is a paired one: what both have in common cancels.
#[derive(Debug)]
pub struct Bootstrap {
    groups: usize,
    draws: Vec<Vec<usize>>,
}

impl Bootstrap {
    /// Prepares the draws.
    pub fn new(groups: usize, seed: u64) -> Self {
        let mut random = SplitMix64(seed);
        let mut draw = || (0..groups).map(|_| random.below(groups)).collect();
        Self {
            groups,
            draws: (0..DRAWS).map(|_| draw()).collect(),
        }
    }

    /// The standard error of a statistic, which is given the groups that were drawn. None for fewer than
    /// two groups, or if the statistic is not a number.
    ///
    /// The deviation over the draws misses a share of 1/n of the variance, which is put back: with eight
    /// groups that is 7 % of the error.
    pub fn standard_error(&self, statistic: impl Fn(&[usize]) -> f64) -> Option<f64> {
        if self.groups < 2 {
            return None;
        }
        let values: Vec<f64> = self.draws.iter().map(|draw| statistic(draw)).collect();
        let groups = self.groups as f64;
        Some(deviation(&values)? * (groups / (groups - 1.0)).sqrt())
    }
}

/// The standard error of a mean as if all values were independent; None for fewer than two.
pub fn naive_standard_error(values: &[f64]) -> Option<f64> {
    Some(deviation(values)? / (values.len() as f64).sqrt())
}

/// The mean; not a number if there are no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of a sample: the divisor is n − 1. None for fewer than two values, or if one is not finite.
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let variance = squares / (values.len().checked_sub(1).filter(|n| *n > 0)?) as f64;
    variance.is_finite().then(|| variance.sqrt())
}

/// Steele, Lea and Flood 2014: small, and the same on every machine.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, each as likely as any other to 2⁻⁶⁴·n.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_draws_are_those_of_the_published_generator() {
        let mut random = SplitMix64(1_234_567);
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!([random.next(), random.next(), random.next()], published);
    }

    #[test]
    fn the_same_seed_gives_the_same_error_and_another_one_nearly_the_same() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i * i % 23)).collect();
        let of = |seed| {
            let picked =
                |draw: &[usize]| mean(&draw.iter().map(|i| values[*i]).collect::<Vec<_>>());
            Bootstrap::new(40, seed).standard_error(picked).unwrap()
        };
        assert_eq!(of(1), of(1));
        let naive = naive_standard_error(&values).unwrap();
        // With one value to a group both ask the same question.
        for seed in 0..8 {
            assert!((of(seed) / naive - 1.0).abs() < 0.1, "{} {naive}", of(seed));
        }
    }

    #[test]
    fn values_that_repeat_within_their_group_count_once() {
        let groups: Vec<f64> = (0..30).map(|i| f64::from(i * 7 % 30)).collect();
        let tokens: Vec<f64> = groups.iter().flat_map(|g| vec![*g; 100]).collect();
        let naive = naive_standard_error(&tokens).unwrap();
        let picked = |draw: &[usize]| mean(&draw.iter().map(|i| groups[*i]).collect::<Vec<_>>());
        let grouped = Bootstrap::new(30, 0).standard_error(picked).unwrap();
        assert!(
            (grouped / naive / 10.0 - 1.0).abs() < 0.1,
            "{grouped} {naive}"
        );
    }

    #[test]
    fn what_both_have_in_common_cancels_in_a_difference() {
        let hard: Vec<f64> = (0..20).map(|i| f64::from(i * 7 % 20)).collect();
        let bootstrap = Bootstrap::new(20, 0);
        let shifted = |draw: &[usize]| {
            let pairs = draw.iter().map(|i| (hard[*i] + 0.5) - hard[*i]);
            mean(&pairs.collect::<Vec<_>>())
        };
        assert_eq!(bootstrap.standard_error(shifted), Some(0.0));
    }

    #[test]
    fn one_group_and_what_is_no_number_have_no_error() {
        assert_eq!(Bootstrap::new(1, 0).standard_error(|_| 1.0), None);
        assert_eq!(Bootstrap::new(0, 0).standard_error(|_| 1.0), None);
        assert_eq!(Bootstrap::new(5, 0).standard_error(|_| f64::NAN), None);
        assert_eq!(naive_standard_error(&[1.0]), None);
        assert_eq!(naive_standard_error(&[]), None);
    }
}
