//! The two comments around what is written by machine.

/// What stands before and after a section.
pub(super) fn markers(name: &str) -> [String; 2] {
    [
        format!("<!-- begin {name}: written by cargo xtask readme -->"),
        format!("<!-- end {name} -->"),
    ]
}

/// The page with `content` between the comments; None if it does not have both, in this order.
pub(super) fn replace(page: &str, name: &str, content: &str) -> Option<String> {
    let [begin, end] = markers(name);
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    // A blank line on both sides: without it Markdown takes a table for part of the comment.
    Some(format!(
        "{before}{begin}\n\n{}\n\n{end}{after}",
        content.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_once_and_for_all() {
        let [begin, end] = markers("parts");
        let page = format!("# Title\n\n{begin}\nold\n{end}\n\nMore.\n");
        let new = replace(&page, "parts", "| table |\n").unwrap();
        assert_eq!(
            new,
            format!("# Title\n\n{begin}\n\n| table |\n\n{end}\n\nMore.\n")
        );
        assert_eq!(replace(&new, "parts", "| table |\n").unwrap(), new);
        assert_eq!(replace(&page, "ladder", ""), None);
        assert_eq!(replace(&format!("{end}{begin}"), "parts", ""), None);
    }
}
