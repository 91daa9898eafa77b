//! GPTQ, also called OPTQ (Frantar et al. 2023), and SparseGPT (Frantar and Alistarh 2023).

use super::sweep::Sweep;
use super::{Target, WeightMethod};
use crate::calibration::{Calibration, Needs};
use crate::layer::Layer;
use crate::packed::Packed;
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Result};

/// Rounds column after column and lets the later ones make up for the errors. Scales of groups are taken from the weights
/// as they are when the sweep enters the group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Gptq {
    /// How the sweep goes.
    pub sweep: Sweep,
}

/// Prunes column after column and lets the later ones make up for it; with levels in the target, what survives is
/// quantised in the same sweep.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SparseGpt {
    /// How the sweep goes.
    pub sweep: Sweep,
}

impl WeightMethod for Gptq {
    fn name(&self) -> &str {
        if self.sweep.by_diagonal { "gptq-act-order" } else { "gptq" }
    }

    fn needs(&self, _: &Target) -> Needs {
        Needs::HESSIAN
    }

    fn compress(&self, layer: &Layer, seen: &Calibration, target: &Target, _: Stream) -> Result<Packed> {
        let scheme = target.scheme_only("gptq")?;
        self.sweep.run(layer, hessian(layer, seen)?, Some(scheme), None)
    }
}

impl WeightMethod for SparseGpt {
    fn name(&self) -> &str {
        "sparsegpt"
    }

    fn needs(&self, _: &Target) -> Needs {
        Needs::HESSIAN
    }

    fn compress(&self, layer: &Layer, seen: &Calibration, target: &Target, _: Stream) -> Result<Packed> {
        let sparsity = target.sparsity_of("sparsegpt")?;
        self.sweep.run(layer, hessian(layer, seen)?, target.scheme, Some(sparsity))
    }
}

/// The second moments of the layer's inputs.
pub(super) fn hessian<'a>(layer: &Layer, seen: &'a Calibration) -> Result<&'a Array2<f64>> {
    seen.hessian.as_ref().ok_or_else(|| {
        Error::Numerical(format!("layer \"{}\" was calibrated without second moments", layer.place.name))
    })
}
