//! Which weights to look at, by name.

use std::ops::Range;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use shared::checkpoint::Checkpoint;

use crate::convert::GROUP_SIZES;

/// A piece of one row of one matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As it was typed: with or without `model.` and `.weight`.
    pub name: String,
    /// From 0.
    pub row: usize,
    /// From 0, the end not included.
    pub columns: Range<usize>,
}

/// How many names an error about a wrong one lists.
const NEAR: usize = 3;

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            "must be MODULE[ROW,FROM..TO], such as layers.0.self_attn.q_proj[3,64..128]".to_owned()
        };
        let inside = text.trim().strip_suffix(']').ok_or_else(form)?;
        let (name, place) = inside.split_once('[').ok_or_else(form)?;
        let (row, columns) = place.split_once(',').ok_or_else(form)?;
        let (from, to) = columns.split_once("..").ok_or_else(form)?;
        let number = |text: &str| text.trim().parse().map_err(|_| form());
        let place = Self {
            name: name.trim().to_owned(),
            row: number(row)?,
            columns: number(from)?..number(to)?,
        };
        match (place.name.is_empty(), place.columns.is_empty()) {
            (true, _) => Err(form()),
            (_, true) => Err(format!("{columns} holds no column")),
            _ => Ok(place),
        }
    }
}

impl Place {
    /// The module that is meant, by its name in the checkpoint (`model.layers.0.self_attn.q_proj`).
    ///
    /// # Errors
    /// If there is no such matrix: names those that are spelt nearly like it.
    pub fn module_of(&self, checkpoint: &Checkpoint) -> Result<String> {
        let matrices = checkpoint.tensors.iter().filter(|t| t.shape.len() == 2);
        let names = matrices.filter_map(|tensor| tensor.name.strip_suffix(".weight"));
        let wanted = self.name.strip_suffix(".weight").unwrap_or(&self.name);
        let wanted = without_model(wanted);
        let mut near: Vec<&str> = names.collect();
        if let Some(found) = near.iter().find(|name| without_model(name) == wanted) {
            return Ok((*found).to_owned());
        }
        let likeness =
            |name: &str| strsim::normalized_damerau_levenshtein(without_model(name), wanted);
        near.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)).then(a.cmp(b)));
        near.truncate(NEAR);
        bail!(
            "there is no matrix {} in {}; names like it: {}",
            self.name,
            checkpoint.name,
            near.join(", ")
        )
    }

    /// Whether this is a piece of `[rows, columns]` that is made of whole groups.
    ///
    /// # Errors
    /// If it is not: with what would be.
    pub fn check(&self, module: &str, shape: [usize; 2], group_size: usize) -> Result<()> {
        let ([rows, width], Range { start, end }) = (shape, self.columns.clone());
        ensure!(
            self.row < rows,
            "{module} has {rows} rows, 0 to {}: there is no row {}",
            rows - 1,
            self.row
        );
        ensure!(
            end <= width,
            "{module} has {width} columns: {start}..{end} goes beyond them"
        );
        if !width.is_multiple_of(group_size) {
            let fitting = GROUP_SIZES
                .iter()
                .filter(|size| width.is_multiple_of(**size));
            let fitting: Vec<String> = fitting.map(usize::to_string).collect();
            ensure!(
                !fitting.is_empty(),
                "{module} has {width} columns, which no group of MLX divides: it is never quantized"
            );
            bail!(
                "{module} has {width} columns, which are not whole groups of {group_size}: try \
                 --group-size {}",
                fitting.join(" or ")
            );
        }
        ensure!(
            start.is_multiple_of(group_size) && end.is_multiple_of(group_size),
            "columns {start}..{end} are not whole groups of {group_size}: try {}..{}",
            start - start % group_size,
            end.next_multiple_of(group_size)
        );
        Ok(())
    }
}

/// Checkpoints say `model.layers.0`, people `layers.0`.
fn without_model(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use shared::hub::{Embedded, ModelFiles};

    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_a_module_a_row_and_columns() {
        let found = place("layers.0.self_attn.q_proj[3,64..128]");
        let expected = Place {
            name: "layers.0.self_attn.q_proj".to_owned(),
            row: 3,
            columns: 64..128,
        };
        assert_eq!(found, expected);
        assert_eq!(
            place(" layers.0.self_attn.q_proj[ 3, 64 .. 128 ] "),
            expected
        );
    }

    #[test]
    fn anything_else_is_told_the_form() {
        for wrong in [
            "",
            "q_proj",
            "q_proj[3]",
            "q_proj[3,64]",
            "q_proj[3,64..128",
            "q_proj[-1,64..128]",
            "q_proj[3,64..]",
            "q_proj[3,a..b]",
            "[3,64..128]",
            "q_proj[3,64..=127]",
            "q_proj[3,64..99999999999999999999999]",
        ] {
            let told = wrong.parse::<Place>().unwrap_err();
            assert!(
                told.starts_with("must be MODULE[ROW,FROM..TO]"),
                "{wrong}: {told}"
            );
        }
        for empty in ["q[3,64..64]", "q[3,64..0]"] {
            assert!(
                empty
                    .parse::<Place>()
                    .unwrap_err()
                    .ends_with("holds no column")
            );
        }
    }

    #[test]
    fn a_module_is_found_with_and_without_what_checkpoints_put_around_its_name() {
        let tiny = Checkpoint::open("tiny", ModelFiles::Embedded(Embedded::Tiny)).unwrap();
        for name in [
            "layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.q_proj.weight",
            "layers.0.self_attn.q_proj.weight",
        ] {
            let found = place(&format!("{name}[0,0..64]")).module_of(&tiny).unwrap();
            assert_eq!(found, "model.layers.0.self_attn.q_proj");
        }
        let wrong = place("layers.0.self_atn.qproj[0,0..64]");
        let told = wrong.module_of(&tiny).unwrap_err().to_string();
        assert_eq!(
            told,
            "there is no matrix layers.0.self_atn.qproj in tiny; names like it: \
             model.layers.0.self_attn.q_proj, model.layers.0.self_attn.k_proj, \
             model.layers.0.self_attn.o_proj"
        );
        // A vector has no row.
        assert!(place("model.norm[0,0..64]").module_of(&tiny).is_err());
    }

    #[test]
    fn a_place_outside_of_the_matrix_or_across_groups_is_told_what_would_fit() {
        let told = |text: &str, shape, size| {
            let error = place(text).check("m", shape, size).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            told("m[256,0..64]", [256, 256], 64),
            "m has 256 rows, 0 to 255: there is no row 256"
        );
        assert_eq!(
            told("m[0,256..320]", [256, 256], 64),
            "m has 256 columns: 256..320 goes beyond them"
        );
        assert_eq!(
            told("m[0,70..130]", [256, 256], 64),
            "columns 70..130 are not whole groups of 64: try 64..192"
        );
        assert_eq!(
            told("m[0,0..128]", [9, 576], 128),
            "m has 576 columns, which are not whole groups of 128: try --group-size 32 or 64"
        );
        assert!(told("m[0,0..20]", [9, 20], 32).contains("which no group of MLX divides"));
        place("m[255,192..256]").check("m", [256, 256], 64).unwrap();
    }
}
