//! Quantised inputs of layers.

use crate::quantiser::{ActivationQuantiser, RangeTracker, Scheme, Tracking};
use candle_core::Tensor;
use offprint_core::Result;
use offprint_nn::layers::LayerKind;
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute, substituting};
use offprint_nn::{Batch, Network, computation};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Brings the input of every layer to levels between the least and the greatest value ever seen there.
#[derive(Debug)]
pub struct Activations {
    bits: u32,
    trackers: RefCell<BTreeMap<String, RangeTracker>>,
    watches: Cell<bool>,
}

impl Activations {
    /// Quantisers of `bits` bits, which see `samples` pass through `network` in parts of `part`.
    ///
    /// # Errors
    /// Activations that are not finite.
    pub fn calibrated(bits: u32, network: &Network, samples: &Batch, part: usize) -> Result<Rc<Self>> {
        Scheme::asymmetric(bits).check("", 1)?;
        let this = Rc::new(Self { bits, trackers: RefCell::default(), watches: Cell::new(true) });
        for part in samples.chunks(part.max(1)) {
            let inputs = part.map_err(computation)?.inputs;
            substituting(Some(this.clone()), || network.forward(&inputs)).map_err(computation)?;
        }
        this.watches.set(false);
        Ok(this)
    }

    /// The least and the greatest input of each layer so far, by the name of its weight.
    ///
    /// # Errors
    /// None: a layer is listed once it was seen.
    pub fn ranges(&self) -> Result<BTreeMap<String, (f64, f64)>> {
        self.trackers.borrow().iter().map(|(name, tracker)| Ok((name.clone(), tracker.range()?))).collect()
    }

    /// Lets ranges follow what passes, as in training, or stand still.
    pub fn watch(&self, watches: bool) {
        self.watches.set(watches);
    }
}

impl Substitute for Activations {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        if layer.kind == LayerKind::Embedding {
            return Ok(own);
        }
        let failed = |e: offprint_core::Error| candle_core::Error::Msg(e.to_string());
        let mut trackers = self.trackers.borrow_mut();
        let tracker = trackers
            .entry(layer.weight.to_owned())
            .or_insert_with(|| RangeTracker::new(Scheme::asymmetric(self.bits), Tracking::MinMax));
        if self.watches.get() {
            tracker.observe(&own.input.detach()).map_err(failed)?;
        }
        let input: Tensor = tracker.fake(&own.input).map_err(failed)?;
        Ok(Operands { input, ..own })
    }
}
