//! Guesses out of what was there before.

/// Tokens in a row that have to be the same: after a single one almost anything can follow.
const SHORTEST: usize = 2;

/// More of them do not make a guess better.
const LONGEST: usize = 8;

/// The tokens that followed when the latest tokens were there before, at most so many: after the longest of these
/// repetitions, and of equal ones after the latest. What repeats itself without an end is taken to go on.
///
/// Saxena 2023, "Prompt Lookup Decoding".
///
/// # Cost
/// One look at each token; an index would be worth it from some 100,000 on.
pub fn lookup(ids: &[u32], most: usize) -> Vec<u32> {
    let (mut longest, mut from) = (SHORTEST - 1, None);
    for end in (1..ids.len()).rev() {
        let pairs = ids[..end].iter().rev().zip(ids.iter().rev());
        let same = pairs.take(LONGEST).take_while(|(a, b)| a == b).count();
        if same > longest {
            (longest, from) = (same, Some(end));
        }
        if longest == LONGEST {
            break;
        }
    }
    let Some(from) = from else { return Vec::new() };
    let period = ids.len() - from;
    (0..most).map(|at| ids[from + at % period]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_repetition_is_guessed_and_of_equal_ones_the_latest() {
        let ids = [5, 1, 2, 3, 7, 9, 2, 3, 8, 4, 2, 3, 6, 1, 2, 3];
        assert_eq!(lookup(&ids, 3), [7, 9, 2]);
        assert_eq!(lookup(&ids[1..15], 3), [3, 7, 9]);
        let ids = [2, 3, 7, 0, 2, 3, 8, 0, 9, 2, 3];
        assert_eq!(lookup(&ids, 2), [8, 0]);
        assert!(lookup(&ids, 0).is_empty());
    }

    #[test]
    fn one_equal_token_is_no_repetition() {
        for ids in [&[][..], &[1], &[1, 2], &[1, 2, 3, 1], &[4, 1, 5, 1, 6, 1]] {
            assert!(lookup(ids, 4).is_empty());
        }
    }

    #[test]
    fn what_repeats_itself_goes_on() {
        assert_eq!(lookup(&[1, 1, 1], 3), [1, 1, 1]);
        assert_eq!(lookup(&[9, 1, 2, 3, 1, 2, 3, 1], 5), [2, 3, 1, 2, 3]);
    }
}
