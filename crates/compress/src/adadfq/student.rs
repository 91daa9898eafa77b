//! The quantised network Q: float shadow weights that compute on a few levels.

use crate::packed::Packed;
use crate::quantiser::{ActivationQuantiser, Granularity, Grid, Range, RangeTracker, Scheme, Tracking, ZeroPoint};
use crate::{Layer, layer::matrix};
use candle_core::Tensor;
use offprint_core::{Error, Result};
use offprint_nn::layers::LayerKind;
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute, substituting};
use offprint_nn::ops::Beyond;
use offprint_nn::{Network, computation};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Share of the old range that a batch keeps.
const DECAY: f64 = 0.9;

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// Of a weight.
    pub weights: u32,
    /// Of a rectifier's output.
    pub activations: u32,
}

impl Bits {
    /// Refuses bits outside 2 to 8, by name.
    pub fn check(&self) -> Result<()> {
        for (name, bits) in [("weight_bits", self.weights), ("activation_bits", self.activations)] {
            if !(2..=8).contains(&bits) {
                return Err(Error::parameter(name, bits, "between 2 and 8"));
            }
        }
        Ok(())
    }
}

/// A quantiser over the range as it is, which need not hold 0, with a whole zero.
fn scheme(bits: u32, granularity: Granularity) -> Scheme {
    Scheme { granularity, zero: ZeroPoint::Whole, holds_zero: false, range: Range::MinMax, ..Scheme::asymmetric(bits) }
}

/// A network whose convolutions and linear layers, first and last included, compute with weights on the levels between the
/// least and the greatest of each output channel, and whose rectifiers give levels of a tracked range. Batch norms stay
/// floats and use the running statistics they came with.
///
/// Gradients are straight through, also beyond a range.
#[derive(Debug)]
pub struct Student {
    network: Network,
    quantiser: Rc<Quantiser>,
}

impl Student {
    /// A copy of `network`, to be trained. Its rectifiers' ranges are to be [observed](Self::observe).
    ///
    /// `compounded` takes the running means of the published code, which divides what it stores by 1 − 0.9ᵗ at every step.
    ///
    /// # Errors
    /// Bits outside 2 to 8.
    pub fn new(network: &Network, bits: Bits, compounded: bool) -> Result<Self> {
        bits.check()?;
        let tracking =
            if compounded { Tracking::CompoundedEma { decay: DECAY } } else { Tracking::Ema { decay: DECAY } };
        Ok(Self { network: network.copy()?, quantiser: Rc::new(Quantiser::new(bits, tracking)) })
    }

    /// A network whose weights are on their levels already, with the ranges (least, greatest) of its rectifiers.
    ///
    /// # Errors
    /// Bits outside 2 to 8; a range whose ends are not finite or in the wrong order, by the rectifier's name.
    pub(super) fn finished(network: Network, bits: Bits, ranges: &BTreeMap<String, (f64, f64)>) -> Result<Self> {
        bits.check()?;
        let quantiser = Quantiser { weights: None, ..Quantiser::new(bits, Tracking::MinMax) };
        for (name, &(low, high)) in ranges {
            if !low.is_finite() || !high.is_finite() || low > high {
                return Err(Error::input(format!("range of \"{name}\""), format!("goes from {low} to {high}")));
            }
            let mut tracker = quantiser.tracker();
            let ends = Tensor::new(&[low as f32, high as f32], &candle_core::Device::Cpu).map_err(computation)?;
            tracker.observe(&ends)?;
            quantiser.ranges.borrow_mut().insert(name.clone(), tracker);
        }
        Ok(Self { network, quantiser: Rc::new(quantiser) })
    }

    /// The network with its shadow weights.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Bits of its codes.
    pub fn bits(&self) -> Bits {
        self.quantiser.bits
    }

    /// What makes [`Self::network`] compute on levels.
    pub fn quantiser(&self) -> Rc<dyn Substitute> {
        self.quantiser.clone()
    }

    /// Logits (n, classes) of `x`, with gradients to the shadow weights.
    ///
    /// # Errors
    /// Inputs that the network cannot read; ranges that were never observed.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.pass(x, Pass::default())
    }

    /// Logits (n, classes) of `x`, with gradients to `x` and to no shadow weight of a layer.
    ///
    /// # Errors
    /// As there.
    pub fn logits_frozen(&self, x: &Tensor) -> Result<Tensor> {
        self.pass(x, Pass { frozen: true, ..Pass::default() })
    }

    /// Moves the ranges of the rectifiers towards those of the batch `x`.
    ///
    /// # Errors
    /// Inputs that the network cannot read; activations that are not finite.
    pub fn observe(&self, x: &Tensor) -> Result<()> {
        self.pass(&x.detach(), Pass { observing: true, frozen: true }).map(|_| ())
    }

    fn pass(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        self.quantiser.pass.set(pass);
        let logits = substituting(Some(self.quantiser.clone()), || self.network.forward(x));
        self.quantiser.pass.set(Pass::default());
        logits.map_err(computation)
    }

    /// The layers as codes; of a network that was loaded, as the floats that its codes became.
    ///
    /// # Errors
    /// Shadow weights that are not finite.
    pub fn layers(&self) -> Result<Vec<Packed>> {
        let places = self.network.layers()?.into_iter().filter(|place| place.kind != LayerKind::Embedding);
        let coded = places.map(|place| {
            let layer = Layer::of(&self.network, &place)?;
            let Some(scheme) = &self.quantiser.weights else {
                return Ok(Packed::floats(&place.name, &place.shape, layer.weight, None));
            };
            let grid = Grid::fit(&place.name, layer.weight.view(), scheme)?;
            Ok(Packed::coded(&place.name, &place.shape, layer.weight.view(), grid, None))
        });
        coded.collect()
    }

    /// Range (least, greatest) of each rectifier, by its name.
    ///
    /// # Errors
    /// None was observed.
    pub fn ranges(&self) -> Result<BTreeMap<String, (f64, f64)>> {
        let ranges = self.quantiser.ranges.borrow();
        ranges.iter().map(|(name, tracker)| Ok((name.clone(), tracker.range()?))).collect()
    }
}

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    /// Ranges follow the batch.
    observing: bool,
    /// Shadow weights get no gradient.
    frozen: bool,
}

#[derive(Debug)]
struct Quantiser {
    bits: Bits,
    /// How weights are quantised, if they are not on their levels already.
    weights: Option<Scheme>,
    tracking: Tracking,
    /// By the name of the rectifier.
    ranges: RefCell<BTreeMap<String, RangeTracker>>,
    pass: Cell<Pass>,
}

impl Quantiser {
    fn new(bits: Bits, tracking: Tracking) -> Self {
        let weights = Some(scheme(bits.weights, Granularity::Row));
        Self { bits, weights, tracking, ranges: RefCell::default(), pass: Cell::default() }
    }

    fn tracker(&self) -> RangeTracker {
        RangeTracker::new(scheme(self.bits.activations, Granularity::Tensor), self.tracking).with_beyond(Beyond::Passes)
    }
}

impl Substitute for Quantiser {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        let (Some(scheme), false) = (&self.weights, layer.kind == LayerKind::Embedding) else { return Ok(own) };
        let weight = if self.pass.get().frozen { own.weight.detach() } else { own.weight };
        let rows = matrix(&weight).map_err(told)?;
        let grid = Grid::fit(layer.weight, rows.view(), scheme).map_err(told)?;
        Ok(Operands { weight: grid.fake_tensor(&weight, Beyond::Passes).map_err(told)?, ..own })
    }

    fn activation(&self, name: &str, output: Tensor) -> candle_core::Result<Tensor> {
        let mut ranges = self.ranges.borrow_mut();
        if self.pass.get().observing {
            let tracker = ranges.entry(name.to_owned()).or_insert_with(|| self.tracker());
            tracker.observe(&output.detach()).map_err(told)?;
        }
        match ranges.get(name) {
            Some(tracker) => tracker.fake(&output).map_err(told),
            None => Err(candle_core::Error::Msg(format!("the range of \"{name}\" was never observed"))),
        }
    }
}

/// Our error in the words of the tensor library, whose hooks this stands in.
fn told(error: Error) -> candle_core::Error {
    candle_core::Error::Msg(error.to_string())
}
