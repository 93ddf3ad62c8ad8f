//! A table whose rows come one by one, each cell as soon as it is known.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::Report;
use crate::text::{clip, one_line, pad};

/// A column of [`Rows`]: its head, and how wide it is.
pub type Column<'a> = (&'a str, usize);

/// The rows of a table that is still being measured. Its widths are given: what comes is not known yet.
#[derive(Debug)]
pub struct Rows<'a, W: Write> {
    report: &'a mut Report<W>,
    widths: Vec<usize>,
    /// Cells of the row that is not finished.
    cells: usize,
}

impl<W: Write> Report<W> {
    /// Writes the head of a table, whose rows are to come.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn rows(&mut self, columns: &[Column<'_>]) -> io::Result<Rows<'_, W>> {
        let widths: Vec<usize> = columns.iter().map(|(_, width)| *width).collect();
        let whole = widths.iter().sum::<usize>() + 2 * widths.len();
        let mut rows = Rows {
            report: self,
            widths,
            cells: 0,
        };
        for (head, _) in columns {
            rows.cell(head)?;
        }
        rows.report.line(&"─".repeat(whole))?;
        Ok(rows)
    }
}

impl<W: Write> Rows<'_, W> {
    /// The next cell; the last one ends the row. The first column is left-aligned, the others are right-aligned.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn cell(&mut self, text: &str) -> io::Result<()> {
        let Some(width) = self.widths.get(self.cells).copied() else {
            return Ok(());
        };
        let text = one_line(text);
        let text = clip(&text, width);
        let cell = if self.cells == 0 {
            format!(" {}", pad(&text, width))
        } else {
            format!("  {}{text}", " ".repeat(width - text.width()))
        };
        self.cells += 1;
        self.report.out.write_all(cell.as_bytes())?;
        if self.cells == self.widths.len() {
            self.cells = 0;
            self.report.out.write_all(b"\n")?;
        }
        self.report.out.flush()
    }

    /// Ends a row that has no more cells.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn end(&mut self) -> io::Result<()> {
        if self.cells > 0 {
            self.cells = 0;
            self.report.out.write_all(b"\n")?;
        }
        self.report.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_one_by_one_and_stand_below_their_heads() {
        let mut out = Vec::new();
        let mut report = Report::plain(&mut out);
        let mut rows = report
            .rows(&[("weights", 9), ("MB", 5), ("KLD", 6)])
            .unwrap();
        for cell in ["bf16", "14.69", "–", "4-bit g64", "4.13"] {
            rows.cell(cell).unwrap();
        }
        rows.end().unwrap();
        rows.cell("much too long").unwrap();
        rows.end().unwrap();
        rows.end().unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = " weights       MB     KLD\n\
                        ──────────────────────────\n\
                        \x20bf16       14.69       –\n\
                        \x204-bit g64   4.13\n\
                        \x20much too…\n";
        let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n") + "\n", expected);
    }
}
