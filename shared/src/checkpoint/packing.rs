//! In how many bits each matrix is packed: what the shapes of its tensors say.
//!
//! `quantization` of `config.json` is a hint. Conversions of mixed bits have lost entries of it, or
//! spell the modules with the prefix of another program. The shapes cannot be wrong: a row of `in`
//! weights takes `in · bits / 32` words and has `in / G` scales. mlx-lm reads them, too, for what the
//! config does not name.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Checkpoint, TensorInfo};
use crate::config::{GroupQuantization, Quantization};
use crate::remarks::few;

impl Checkpoint {
    /// Corrects the configuration by the shapes of the tensors, and leaves a remark if need be.
    pub(super) fn read_packing(&mut self) {
        if self.gguf.is_some() {
            return; // MLX unpacks its types into groups that follow from the type
        }
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
        let modules: HashSet<&str> = self.modules().collect();
        overrides.retain(|module, _| modules.contains(module.as_str()));
        overrides.extend(
            packed
                .into_iter()
                .map(|(module, group)| (module, Some(group))),
        );
        overrides.retain(|_, group| *group != default);
        self.config.quantization = default.map(|default| Quantization { default, overrides });
    }

    /// The modules with scales whose parts fit each other. About the others the loader complains.
    fn packed_modules(&self) -> BTreeMap<String, GroupQuantization> {
        let shapes: HashMap<&str, &TensorInfo> = self
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        let packing = |module: &str| {
            let columns = |part: &str| {
                let tensor = shapes.get(format!("{module}.{part}").as_str())?;
                tensor.shape.last().copied()
            };
            let inputs = self.config.in_features(module)?;
            GroupQuantization::of_row(inputs, columns("weight")?, columns("scales")?)
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

fn most_frequent(packed: &BTreeMap<String, GroupQuantization>) -> Option<GroupQuantization> {
    let mut counts: BTreeMap<GroupQuantization, usize> = BTreeMap::new();
    for group in packed.values() {
        *counts.entry(*group).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map(|(group, _)| group)
}
