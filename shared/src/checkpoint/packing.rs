//! In how many bits each matrix is packed, and in which mode: what the shapes and types of its tensors say.
//!
//! `quantization` of `config.json` is a hint. Conversions of mixed bits have lost entries of it, or
//! spell the modules with the prefix of another program. The tensors cannot be wrong: a row of `in`
//! weights takes `in · bits / 32` words and has `in / G` scales, which are bytes in the float modes.
//! mlx-lm reads them, too, for what the config does not name.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Checkpoint, TensorInfo};
use crate::config::{GroupQuantization, Quantization};
use crate::remarks::few;
use crate::weights::superfluous;

impl Checkpoint {
    /// Corrects the configuration by the shapes of the tensors, and leaves a remark if need be.
    pub(super) fn read_packing(&mut self) {
        if self.gguf.is_some() {
            return; // its types are unpacked into groups that follow from the type
        }
        self.match_entries();
        let packed = self.packed_modules();
        let said = self.config.quantization.as_ref();
        let wrong = |module: &String, group| said.and_then(|all| all.of(module)) != Some(group);
        let corrected: Vec<&str> = packed
            .iter()
            .filter(|(module, group)| wrong(module, **group))
            .map(|(module, _)| module.as_str())
            .collect();
        if corrected.is_empty() {
            return;
        }
        self.remarks.push(format!(
            "quantization of config.json does not describe the shapes of {}, which decide",
            few(&corrected)
        ));
        let default = said.map_or_else(|| most_frequent(&packed), |all| Some(all.default));
        let mut overrides = said.map(|all| all.overrides.clone()).unwrap_or_default();
        overrides.extend(
            packed
                .into_iter()
                .map(|(module, group)| (module, Some(group))),
        );
        overrides.retain(|_, group| *group != default);
        self.config.quantization = default.map(|default| Quantization { default, overrides });
    }

    /// Gives the entries of the configuration the names of the tensors.
    ///
    /// A model that was cut out of a larger one may have entries with the prefix that its modules had
    /// there (`language_model.`). Entries that are of no module are dropped, with a remark.
    fn match_entries(&mut self) {
        let modules: HashSet<&str> = self.modules().collect();
        let Some(said) = &self.config.quantization else {
            return;
        };
        let (mut overrides, mut lost) = (BTreeMap::new(), Vec::new());
        for (entry, group) in &said.overrides {
            match module_of(entry, &modules) {
                Some(module) if module == entry || !said.overrides.contains_key(module) => {
                    overrides.insert(module.to_owned(), *group);
                }
                _ if superfluous(&format!("{entry}."), self.tied()) => {}
                _ => lost.push(entry.as_str()),
            }
        }
        let default = said.default;
        if !lost.is_empty() {
            self.remarks.push(format!(
                "quantization of config.json has entries that are of no module and were passed over: {}",
                few(&lost)
            ));
        }
        self.config.quantization = Some(Quantization { default, overrides });
    }

    /// The modules with scales whose parts fit each other. About the others the loader complains.
    fn packed_modules(&self) -> BTreeMap<String, GroupQuantization> {
        let shapes: HashMap<&str, &TensorInfo> = self
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        let packing = |module: &str| {
            let part = |part: &str| shapes.get(format!("{module}.{part}").as_str());
            let columns = |tensor: &TensorInfo| tensor.shape.last().copied();
            let (weight, scales) = (part("weight")?, part("scales")?);
            let inputs = self.config.in_features(module)?;
            let byte_scales = scales.dtype == "U8";
            GroupQuantization::of_row(inputs, columns(weight)?, columns(scales)?, byte_scales)
        };
        self.scaled_modules()
            .filter_map(|module| Some((module.to_owned(), packing(module)?)))
            .collect()
    }

    fn modules(&self) -> impl Iterator<Item = &str> {
        let names = self.tensors.iter().map(|tensor| &tensor.name);
        names.filter_map(|name| name.strip_suffix(".weight"))
    }
}

/// The module that an entry is of: the one of its name, or the longest end of it that is one.
fn module_of<'m>(entry: &str, modules: &HashSet<&'m str>) -> Option<&'m str> {
    let dots = entry.match_indices('.').map(|(at, _)| at + 1);
    let mut ends = std::iter::once(0).chain(dots).map(|at| &entry[at..]);
    ends.find_map(|end| modules.get(end).copied())
}

fn most_frequent(packed: &BTreeMap<String, GroupQuantization>) -> Option<GroupQuantization> {
    let mut counts: BTreeMap<GroupQuantization, usize> = BTreeMap::new();
    for group in packed.values() {
        *counts.entry(*group).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map(|(group, _)| group)
}
