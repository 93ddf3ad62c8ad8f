//! Numbers as text: fixed decimals, thousands separators, and one family of units for bytes.

/// What stands where a value is undefined.
const DASH: &str = "–";

/// A count with thousands separators: `19,900`.
pub fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// `noun`, as it stands after `n`: `1 token`, `2 tokens`.
pub fn plural(n: usize, noun: &str) -> String {
    match n {
        1 => noun.to_owned(),
        _ => format!("{noun}s"),
    }
}

/// `decimals` places, thousands separators; a dash for what is not a finite number. From 10¹² on in
/// powers of ten: no number that wide belongs into a table.
pub fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return DASH.to_owned();
    }
    if value.abs() >= 1e12 {
        return format!("{value:.decimals$e}");
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let sign = if value < 0.0 && !is_zero { "-" } else { "" };
    format!("{sign}{}{fraction}", grouped(whole))
}

/// As [`fixed`]; a dash for None.
pub fn or_dash(value: Option<f64>, decimals: usize) -> String {
    fixed(value.unwrap_or(f64::NAN), decimals)
}

/// A value and its standard error with as many decimals, at most 4, as give the error two digits that count:
/// `2.034 ± 0.051`.
pub fn with_error(value: f64, error: Option<f64>) -> String {
    let decimals = match error {
        Some(error) if error > 0.0 && error < 10.0 => (1.0 - error.log10().floor()) as usize,
        Some(error) if error >= 10.0 => 0,
        _ => 4,
    };
    let decimals = decimals.min(4);
    format!("{} ± {}", fixed(value, decimals), or_dash(error, decimals))
}

/// As [`with_error`], with a sign before what is not negative: a difference.
pub fn difference(value: f64, error: Option<f64>) -> String {
    let text = with_error(value, error);
    if text.starts_with(['-', '–']) {
        text
    } else {
        format!("+{text}")
    }
}

/// Bytes in the largest of kB, MB and GB (powers of 1000) that leaves at least 1, else in bytes.
///
/// For files, memory and bandwidth alike: data sheets give bandwidth in powers of 1000, and then bytes ÷
/// bandwidth is a time without a factor of 1.024, 1.049 or 1.074 between them.
pub fn decimal(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = units.iter().find(|(size, _)| bytes as f64 >= *size);
    match unit {
        Some((size, name)) => format!("{} {name}", fixed(bytes as f64 / size, 2)),
        None => format!("{} B", count(bytes)),
    }
}

/// Bytes as a number of MB = 10⁶ bytes, for a column whose head has the unit; a dash for None.
pub fn megabytes(bytes: Option<u64>, decimals: usize) -> String {
    or_dash(bytes.map(|bytes| bytes as f64 / 1e6), decimals)
}

/// Puts a comma before every third digit from the end.
fn grouped(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_in_threes() {
        let texts = [0, 7, 999, 1_000, 19_900, 1_234_567].map(count);
        assert_eq!(texts, ["0", "7", "999", "1,000", "19,900", "1,234,567"]);
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn decimals_stay_and_the_undefined_is_a_dash() {
        assert_eq!(fixed(1234.567, 1), "1,234.6");
        assert_eq!(fixed(999.96, 1), "1,000.0");
        assert_eq!(fixed(-1234.5, 0), "-1,234");
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(fixed(3.0, 0), "3");
        assert_eq!(fixed(-1.25e15, 2), "-1.25e15");
        assert_eq!(fixed(f64::NAN, 2), "–");
        assert_eq!(or_dash(None, 2), "–");
        assert_eq!(or_dash(Some(0.5), 2), "0.50");
    }

    #[test]
    fn an_error_decides_how_many_digits_count() {
        assert_eq!(with_error(2.034_12, Some(0.0513)), "2.034 ± 0.051");
        assert_eq!(with_error(463.17, Some(50.12)), "463 ± 50");
        assert_eq!(with_error(463.17, Some(5.12)), "463.2 ± 5.1");
        assert_eq!(with_error(0.000_123, Some(0.000_004)), "0.0001 ± 0.0000");
        assert_eq!(with_error(0.0, Some(0.0)), "0.0000 ± 0.0000");
        assert_eq!(with_error(2.5, None), "2.5000 ± –");
        assert_eq!(difference(0.0123, Some(0.002)), "+0.0123 ± 0.0020");
        assert_eq!(difference(-0.0123, Some(0.02)), "-0.012 ± 0.020");
        assert_eq!(difference(f64::NAN, None), "– ± –");
    }

    #[test]
    fn a_size_picks_the_unit_that_leaves_at_least_one() {
        assert_eq!(decimal(999), "999 B");
        assert_eq!(decimal(1_000), "1.00 kB");
        assert_eq!(decimal(14_610_000), "14.61 MB");
        assert_eq!(decimal(2_000_000_000_000), "2,000.00 GB");
        assert_eq!(megabytes(Some(1 << 20), 2), "1.05");
        assert_eq!(megabytes(None, 2), "–");
    }
}
