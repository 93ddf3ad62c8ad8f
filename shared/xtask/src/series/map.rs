//! The module map in the documentation of a `lib.rs`.

/// How the line above the taught modules begins.
pub(crate) const TAUGHT: &str = "In reading order";

/// One entry of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// `cache`
    pub(crate) name: String,
    /// The phrase behind the colon.
    pub(crate) says: String,
    /// Whether it stands in the list below [`TAUGHT`].
    pub(crate) taught: bool,
    /// `as in part 3` at the start of the phrase.
    pub(crate) as_in: Option<u32>,
}

/// Reads all lists of "- [`name`]: phrase", or of several names with one phrase. A phrase may go on
/// in indented lines.
pub(crate) fn parse(docs: &str) -> Vec<Module> {
    let mut entries: Vec<(Vec<String>, String, bool)> = Vec::new();
    let (mut taught, mut open) = (false, false);
    for line in docs.lines() {
        if let Some((names, says)) = entry(line) {
            entries.push((names, says.trim().to_owned(), taught));
            open = true;
        } else if let (true, Some(more), Some((_, says, _))) =
            (open, line.strip_prefix("  "), entries.last_mut())
        {
            *says += " ";
            *says += more.trim();
        } else {
            open = false;
            if !line.trim().is_empty() {
                taught = line.starts_with(TAUGHT) && line.trim_end().ends_with(':');
            }
        }
    }
    let modules = entries.into_iter().flat_map(|(names, says, taught)| {
        names.into_iter().map(move |name| Module {
            name,
            as_in: as_in(&says),
            says: says.clone(),
            taught,
        })
    });
    modules.collect()
}

/// "- [`trace`], [`floats`]: plain data" → both names and the phrase
fn entry(line: &str) -> Option<(Vec<String>, &str)> {
    let (names, says) = line.strip_prefix("- [`")?.split_once("`]: ")?;
    Some((names.split("`], [`").map(str::to_owned).collect(), says))
}

/// `as in part 3, …` → 3
fn as_in(says: &str) -> Option<u32> {
    let rest = says.strip_prefix("as in part ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    rest[..digits.unwrap_or(rest.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_order_phrases_and_promises() {
        let modules = parse(
            "Part 4.\n\n\
             In reading order, the ideas of the video:\n\n\
             - [`quantize`]: groups of weights\n  that share a scale\n\
             - [`cache`]: as in part 3\n\n\
             Beside it:\n\n\
             - [`trace`], [`floats`]: numbers\n",
        );
        let told: Vec<_> = modules
            .iter()
            .map(|m| (m.name.as_str(), m.says.as_str(), m.taught, m.as_in))
            .collect();
        assert_eq!(
            told,
            [
                (
                    "quantize",
                    "groups of weights that share a scale",
                    true,
                    None
                ),
                ("cache", "as in part 3", true, Some(3)),
                ("trace", "numbers", false, None),
                ("floats", "numbers", false, None),
            ]
        );
    }

    #[test]
    fn a_promise_names_a_part() {
        assert_eq!(as_in("as in part 12, with more rows"), Some(12));
        assert_eq!(as_in("as in part"), None);
        assert_eq!(as_in("the decoder of part 2"), None);
    }
}
