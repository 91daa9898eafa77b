//! LSQ between two learned shifts: y = LSQ(x + β₁) + β₂.

use crate::quantiser::{ActivationQuantiser, Lsq};
use candle_core::{DType, Device, Tensor, Var};
use offprint_core::{Error, Result};
use offprint_nn::computation;
use std::cell::Cell;

/// A quantiser of activations. Its steps belong to token positions or to channels, so that it works for the number of
/// tokens only that it was made for.
#[derive(Debug)]
pub struct Shifted {
    /// Where it stands ("blocks.0.attn.v").
    pub name: String,
    lsq: Lsq,
    steps: usize,
    run: usize,
    unsigned: bool,
    /// β₁ and β₂, one for each channel.
    shifts: [Var; 2],
    /// The axis of channels, counted from the end.
    axis: usize,
    /// Whether the first batch has set the steps.
    begun: Cell<bool>,
}

/// Which activations share a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// All.
    All,
    /// Those of a token, of which there are so many.
    Token(usize),
    /// Those of a channel.
    Channel,
}

impl Shifted {
    /// For activations (…, tokens, channels) with `bits` bits, unsigned if they come from a soft-max or a GELU.
    ///
    /// # Errors
    /// Bits outside 2 to 8.
    pub fn new(name: String, channels: usize, sharing: Sharing, bits: u32, unsigned: bool) -> Result<Self> {
        if !(2..=8).contains(&bits) {
            return Err(Error::parameter("activation_bits", bits, "between 2 and 8, or 32 for floats"));
        }
        let (steps, run) = match sharing {
            Sharing::All => (1, 1),
            Sharing::Token(tokens) => (tokens, channels),
            Sharing::Channel => (channels, 1),
        };
        let codes = if unsigned { (0, (1 << bits) - 1) } else { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) };
        let shift = || Var::zeros(channels, DType::F32, &Device::Cpu).map_err(computation);
        Ok(Self {
            name,
            lsq: Lsq::with_steps(steps, run, codes)?,
            steps,
            run,
            unsigned,
            shifts: [shift()?, shift()?],
            axis: 1,
            begun: Cell::new(false),
        })
    }

    /// For images (n, channels, height, width), with one step.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_images(name: String, channels: usize, bits: u32) -> Result<Self> {
        let shift = || Var::zeros((channels, 1, 1), DType::F32, &Device::Cpu).map_err(computation);
        let shifts = [shift()?, shift()?];
        Ok(Self { shifts, axis: 3, ..Self::new(name, channels, Sharing::All, bits, false)? })
    }

    /// What training changes: steps, β₁ and β₂, by name.
    pub fn vars(&self) -> [(String, Var); 3] {
        let [before, after] = &self.shifts;
        [("step", &self.lsq.step), ("before", before), ("after", after)]
            .map(|(part, var)| (format!("{}.{part}", self.name), var.clone()))
    }

    /// Takes the values of [`Self::vars`] as set by somebody else.
    pub(super) fn begun(&self) {
        self.begun.set(true);
    }

    /// Is as far as `other`, whose values it was given.
    pub(super) fn follow(&self, other: &Self) {
        self.begun.set(other.begun.get());
    }

    /// `x` brought to its levels. The first call sets each step to 2 mean|x|/√Q of its activations, or 4 mean|x|/√Q if
    /// they are unsigned.
    ///
    /// # Errors
    /// Another number of tokens or channels.
    pub fn fake(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let runs = x.elem_count() / self.run;
        let channels = x.rank().checked_sub(self.axis).map(|axis| x.dims()[axis]);
        if !runs.is_multiple_of(self.steps) || channels != Some(self.shifts[0].elem_count()) {
            candle_core::bail!(
                "{}: activations have shape {:?}, but the quantiser was made for {} channels and {} steps",
                self.name,
                x.dims(),
                self.shifts[0].elem_count(),
                self.steps
            );
        }
        let failed = |e: Error| candle_core::Error::Msg(e.to_string());
        if !self.begun.get() {
            let means = x.detach().reshape(((), self.steps, self.run))?.abs()?.mean((0, 2))?.to_vec1::<f32>()?;
            self.lsq.begin(means.into_iter().map(f64::from), if self.unsigned { 4.0 } else { 2.0 }).map_err(failed)?;
            self.begun.set(true);
        }
        let [before, after] = &self.shifts;
        let x = x.broadcast_add(before)?;
        self.lsq.fake(&x).map_err(failed)?.broadcast_add(after)
    }
}

/// `x` quantised, if there is a quantiser.
pub(super) fn quantised(quantiser: Option<&Shifted>, x: &Tensor) -> candle_core::Result<Tensor> {
    quantiser.map_or_else(|| Ok(x.clone()), |quantiser| quantiser.fake(x))
}
