//! The layers that learn: they take the place of a network's own while gradients flow into weights, scales and zeros.

use super::engine::{Affine, largest_code, stored_scale};
use super::layer::{CompressedLayer, Form, Stored};
use super::saliency::keep_groups;
use crate::methods::Scope;
use crate::{matrix, tensor};
use candle_core::{DType, Device, Tensor, Var};
use ndarray::Array2;
use offprint_core::Result;
use offprint_nn::layers::LayerKind;
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute};
use offprint_nn::ops::{Beyond, fake_quantise, round_straight_through};
use offprint_nn::optim::Named;
use offprint_nn::{LayerPlace, computation};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The least and the greatest scale that a group can have.
const SCALES: (f64, f64) = (1e-4, 1e4);

/// A layer before it learns: weights, which of them are kept, and what groups are scored by.
#[derive(Debug, Clone)]
pub struct Start {
    /// Where it stands.
    pub place: LayerPlace,
    /// Weights (out, in).
    pub weight: Array2<f32>,
    /// Which are kept (out, in).
    pub keep: Array2<bool>,
    /// Factor of each column in the saliency, to choose groups anew; without it the mask stays.
    pub factors: Option<Vec<f64>>,
}

impl Start {
    /// The layer rounded without learning.
    pub fn rounded(&self, form: Form) -> CompressedLayer {
        let affines = match form {
            Form::Codes { bits, group } => Affine::of_groups(self.weight.view(), &self.keep, bits, group),
            Form::Half => Array2::from_elem((0, 0), Affine::PADDING),
        };
        CompressedLayer::rounded(&self.place, self.keep.clone(), self.weight.view(), form, affines)
    }
}

/// How a layer takes part in a forward pass.
pub(super) enum Role {
    /// With weights that stay.
    Fixed(Tensor),
    /// Weights, scales and zeros learn: ŵ = m ⊙ fake(W).
    Learning(Box<Learning>),
    /// Scales learn, codes stay.
    Scales {
        /// q − z in runs (groups, group), 0 where pruned.
        centred: Tensor,
        /// (groups, 1)
        scale: Var,
    },
}

/// What stage one trains.
pub(super) struct Learning {
    start: Start,
    form: Form,
    mask: Tensor,
    weight: Var,
    /// A scale and a zero for each group; empty in half precision.
    scale: Var,
    zero: Var,
}

impl Learning {
    pub fn new(start: &Start, form: Form) -> Result<Self> {
        let shape = start.place.shape.as_slice();
        let affines = match form {
            Form::Codes { bits, group } => Affine::of_groups(start.weight.view(), &start.keep, bits, group),
            Form::Half => Array2::from_elem((0, 0), Affine::PADDING),
        };
        let vector = |values: Vec<f32>| {
            let n = values.len();
            Var::from_tensor(&Tensor::from_vec(values, n, &Device::Cpu)?)
        };
        let weight = Var::from_tensor(&tensor(start.weight.view(), shape)?).map_err(computation)?;
        Ok(Self {
            start: start.clone(),
            form,
            mask: mask_tensor(start)?,
            weight,
            scale: vector(affines.iter().map(|a| a.scale.to_f32()).collect()).map_err(computation)?,
            zero: vector(affines.iter().map(|a| f32::from(a.zero)).collect()).map_err(computation)?,
        })
    }

    fn effective(&self) -> candle_core::Result<Tensor> {
        let values = match self.form {
            Form::Half => self.weight.as_tensor().clone(),
            Form::Codes { bits, group } => {
                let last = largest_code(bits);
                let scale = self.scale.clamp(SCALES.0, SCALES.1)?;
                let zero = round_straight_through(&self.zero)?.clamp(0.0, f64::from(last))?;
                fake_quantise(self.weight.as_tensor(), &scale, &zero, (0, i32::from(last)), group, Beyond::Stops)?
            }
        };
        values * &self.mask
    }

    /// The weights, by name.
    pub fn weights(&self) -> Named {
        (self.start.place.weight.clone(), self.weight.clone())
    }

    /// Scales and zeros, by name; none in half precision.
    pub fn affines(&self) -> Vec<Named> {
        if self.form == Form::Half {
            return Vec::new();
        }
        let name = &self.start.place.name;
        vec![(format!("{name}.scale"), self.scale.clone()), (format!("{name}.zero"), self.zero.clone())]
    }

    /// Chooses the groups that are kept anew, by the weights as they are now.
    pub fn prune(&mut self, share: f64, scope: Scope) -> Result<()> {
        let Some(factors) = &self.start.factors else { return Ok(()) };
        let weight = matrix(self.weight.as_tensor())?;
        self.start.keep = keep_groups(weight.view(), factors, share, scope);
        self.mask = mask_tensor(&self.start)?;
        Ok(())
    }

    /// The layer as it would be stored now.
    pub fn compressed(&self) -> Result<CompressedLayer> {
        let weight = matrix(self.weight.as_tensor())?;
        let (scales, zeros) = (matrix(self.scale.as_tensor())?, matrix(self.zero.as_tensor())?);
        let affines = match self.form {
            Form::Half => Array2::from_elem((0, 0), Affine::PADDING),
            Form::Codes { bits, group } => {
                let groups = weight.ncols().div_ceil(group);
                Array2::from_shape_fn((weight.nrows(), groups), |(i, g)| Affine {
                    scale: stored_scale(scales[[i * groups + g, 0]]),
                    zero: zeros[[i * groups + g, 0]].round_ties_even().clamp(0.0, f32::from(largest_code(bits))) as u8,
                })
            }
        };
        let (place, keep) = (&self.start.place, self.start.keep.clone());
        Ok(CompressedLayer::rounded(place, keep, weight.view(), self.form, affines))
    }
}

fn mask_tensor(start: &Start) -> Result<Tensor> {
    tensor(start.keep.mapv(|keep| f32::from(u8::from(keep))).view(), &start.place.shape)
}

impl Role {
    /// `layer` with weights that stay.
    pub fn fixed(layer: &CompressedLayer) -> Result<Self> {
        Ok(Self::Fixed(tensor(layer.weights().view(), &layer.place.shape)?))
    }

    /// `layer` with scales that learn; in half precision the kept weights do.
    pub fn scales(layer: &CompressedLayer) -> Result<Self> {
        let Stored::Codes { group, codes, affines, .. } = &layer.stored else {
            let start =
                Start { place: layer.place.clone(), weight: layer.weights(), keep: layer.keep.clone(), factors: None };
            return Ok(Self::Learning(Learning::new(&start, Form::Half)?.into()));
        };
        let centred = Array2::from_shape_fn(codes.dim(), |(i, j)| {
            let code = f32::from(codes[[i, j]]) - f32::from(affines[[i, j / group]].zero);
            if layer.keep[[i, j]] { code } else { 0.0 }
        });
        let made = || -> candle_core::Result<Self> {
            let centred = Tensor::from_vec(centred.into_raw_vec_and_offset().0, (affines.len(), *group), &Device::Cpu)?;
            let scales: Vec<f32> = affines.iter().map(|affine| affine.scale.to_f32()).collect();
            let scale = Var::from_tensor(&Tensor::from_vec(scales, (affines.len(), 1), &Device::Cpu)?)?;
            Ok(Self::Scales { centred, scale })
        };
        made().map_err(computation)
    }

    /// What learns in it.
    pub fn learning(&self, name: &str) -> Vec<Named> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Learning(learning) => std::iter::once(learning.weights()).chain(learning.affines()).collect(),
            Self::Scales { scale, .. } => vec![(format!("{name}.scale"), scale.clone())],
        }
    }

    /// The layer that `was` has become.
    pub fn finished(&self, was: &CompressedLayer) -> Result<CompressedLayer> {
        match (self, &was.stored) {
            (Self::Learning(learning), _) => learning.compressed(),
            (Self::Scales { scale, .. }, Stored::Codes { bits, group, codes, affines }) => {
                let scales = matrix(scale.as_tensor())?;
                let mut affines = affines.clone();
                affines.iter_mut().zip(scales.column(0)).for_each(|(a, &scale)| a.scale = stored_scale(scale));
                let stored = Stored::Codes { bits: *bits, group: *group, codes: codes.clone(), affines };
                Ok(CompressedLayer { stored, ..was.clone() })
            }
            _ => Ok(was.clone()),
        }
    }
}

/// The layers of a network in their roles, and the outputs of those that add to the residual stream.
pub(super) struct Cast {
    pub roles: RefCell<BTreeMap<String, Role>>,
    /// Names of weights whose outputs are added up.
    branches: Vec<String>,
    sum: RefCell<Option<Tensor>>,
}

impl Cast {
    /// Layers by the names of their weights; `branches` names those whose outputs are added up.
    pub fn new(branches: Vec<String>) -> Self {
        Self { roles: RefCell::default(), branches, sum: RefCell::default() }
    }

    /// The sum of the branches' outputs in the last forward pass.
    pub fn take_sum(&self) -> candle_core::Result<Tensor> {
        self.sum.take().ok_or_else(|| candle_core::Error::Msg("no layer adds to the residual stream".into()))
    }
}

impl Substitute for Cast {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        let roles = self.roles.borrow();
        let Some(role) = roles.get(layer.weight).filter(|_| layer.kind == LayerKind::Linear) else { return Ok(own) };
        let weight = match role {
            Role::Fixed(weight) => weight.clone(),
            Role::Learning(learning) => learning.effective()?,
            Role::Scales { centred, scale } => {
                centred.broadcast_mul(&scale.clamp(SCALES.0, SCALES.1)?)?.reshape(own.weight.shape())?
            }
        };
        Ok(Operands { weight: weight.to_dtype(DType::F32)?, ..own })
    }

    fn output(&self, layer: LayerUse<'_>, output: Tensor) -> candle_core::Result<Tensor> {
        if self.branches.iter().any(|branch| branch == layer.weight) {
            let mut sum = self.sum.borrow_mut();
            let total = sum.as_ref().map_or(Ok(output.clone()), |sum| sum + &output)?;
            *sum = Some(total);
        }
        Ok(output)
    }
}
