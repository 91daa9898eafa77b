//! All quantisers at several bit widths.

use super::contest_params;
use super::course::Level;
use crate::contest::quantisers;
use crate::methods::Target;
use crate::quantiser::Scheme;
use offprint_core::{Comparison, Error, Method, Params, Result, Run};

/// The comparison of quantisers, for the catalogue.
pub const QUANTIZERS: Comparison = Comparison::of::<Quantizers>(
    "quantizers",
    "Quantisers of weights on one network",
    "Draws accuracy or perplexity against size for every quantiser of the field, at several bit widths.",
);

/// Runs every quantiser at every number of bits.
#[derive(Debug, Clone, Copy)]
pub struct Quantizers;

contest_params! {
    /// Parameters of `offprint compare quantizers`.
    QuantizersParams {
        /// Methods, separated by commas; without any all: rtn, omse, gptq, gptq-act-order, adaround, lsq, ofq
        #[arg(long, value_delimiter = ',')]
        pub methods: Vec<String>,
        /// Bits of a weight, separated by commas
        #[arg(long, value_delimiter = ',', default_values_t = [2, 3, 4, 6, 8])]
        pub bits: Vec<u32>,
        /// Neighbours in a row that share a scale; without it a whole row does
        #[arg(long)]
        pub group: Option<usize>,
        /// Levels on both sides of 0 instead of a zero of their own
        #[arg(long)]
        pub symmetric: bool,
        /// Steps of methods that optimise each layer; those that train the whole network take a tenth
        #[arg(long, default_value_t = 1000)]
        #[schemars(range(min = 1, max = 1_000_000))]
        pub steps: usize,
    }
}

impl QuantizersParams {
    fn levels(&self) -> Vec<Level> {
        let level = |&bits: &u32| {
            let scheme = if self.symmetric { Scheme::symmetric(bits) } else { Scheme::asymmetric(bits) };
            let scheme = self.group.map_or(scheme, |size| scheme.grouped(size));
            Level { name: format!("{bits} bits"), target: Target::quantised(scheme) }
        };
        self.bits.iter().map(level).collect()
    }
}

impl Params for QuantizersParams {
    fn check(&self) -> Result<()> {
        self.course().check(quantisers())?;
        let least = if self.symmetric { 2 } else { 1 };
        match self.bits.iter().find(|bits| !(least..=8).contains(*bits)) {
            Some(bits) => Err(Error::parameter("bits", bits, format!("between {least} and 8"))),
            None if self.bits.is_empty() => Err(Error::parameter("bits", "none", "at least one number")),
            None if self.group == Some(0) => Err(Error::parameter("group", 0, "at least 1")),
            None => Ok(()),
        }
    }
}

impl Method for Quantizers {
    type Params = QuantizersParams;

    fn run(params: &Self::Params, run: &mut Run) -> Result<()> {
        params.course().run(quantisers(), &params.levels(), params.steps, run)
    }
}
