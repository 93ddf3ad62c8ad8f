//! What one matrix is multiplied with while a model runs: for those who measure or calibrate it.
//!
//! A model is built of what its checkpoint names, and so a probe is put in by name: `model.rs` needs no
//! second version that hands out what it has in between. Without a probe a product asks one variable of
//! its thread.

use std::cell::RefCell;

use anyhow::Result;
use mlx_rs::Array;

thread_local! {
    static PROBE: RefCell<Option<Probe>> = const { RefCell::new(None) };
}

struct Probe {
    module: String,
    inputs: Vec<Array>,
}

/// Takes the probe out, also when the work fails.
struct TakenOut;

impl Drop for TakenOut {
    fn drop(&mut self) {
        PROBE.take();
    }
}

/// Does `work`, and collects what the layer `module` (`model.layers.0.mlp.down_proj`) is given meanwhile:
/// one x `[…, in]` per product, in their order. A tied head has no layer of its own.
pub fn inputs_of<T>(module: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Array>)> {
    let _taken_out = TakenOut;
    PROBE.set(Some(Probe {
        module: module.to_owned(),
        inputs: Vec::new(),
    }));
    let result = work()?;
    let inputs = PROBE.take().map(|probe| probe.inputs);
    Ok((result, inputs.unwrap_or_default()))
}

/// A layer with the rows of `modules` is about to multiply x.
pub(super) fn sees(modules: &[String], x: &Array) {
    PROBE.with_borrow_mut(|probe| {
        if let Some(probe) = probe
            && modules.contains(&probe.module)
        {
            probe.inputs.push(x.clone());
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use anyhow::ensure;

    use super::*;
    use crate::layers::to_f32;
    use crate::testing::fixtures;
    use crate::weights::Weights;

    #[test]
    fn a_probe_collects_the_inputs_of_one_layer_alone_or_joined() {
        let config = fixtures::checkpoint("llama").unwrap().config;
        let tensors = ["up", "gate", "down"].map(|name| {
            let weight = Array::ones::<f32>(&[2, 3]).unwrap();
            (format!("mlp.{name}.weight"), weight)
        });
        let mut weights = Weights::new(HashMap::from(tensors), &config);
        let mut scope = weights.scope("mlp");
        let joined = scope.joined([("gate", 2), ("up", 2)], 3, false).unwrap();
        let down = scope.linear("down", 2, 3, false).unwrap();
        let x = [1.0_f32, 2.0, 3.0].map(|v| Array::from_slice(&[v; 3], &[1, 1, 3]));
        let run = || {
            joined.forward(&x[0])?;
            down.forward(&x[1])?;
            down.forward(&x[2])
        };
        let seen = |module| {
            let inputs = inputs_of(module, run).unwrap().1;
            inputs
                .iter()
                .map(|x| to_f32(x).unwrap()[0])
                .collect::<Vec<_>>()
        };
        assert_eq!(seen("mlp.up"), [1.0]);
        assert_eq!(seen("mlp.gate"), [1.0]);
        assert_eq!(seen("mlp.down"), [2.0, 3.0]);
        assert_eq!(seen("up"), [] as [f32; 0]);
    }

    #[test]
    fn a_probe_is_taken_out_when_the_work_fails() {
        let failed = inputs_of("a", || {
            ensure!(false, "no");
            Ok(())
        });
        assert!(failed.is_err());
        sees(&["a".to_owned()], &Array::from_slice(&[0.0_f32], &[1]));
        assert!(PROBE.take().is_none());
    }
}
