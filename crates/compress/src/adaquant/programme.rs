//! Which layer gets which precision: what each does to the network by itself, and an integer programme over all.

use super::layer::{Bits, Calibrated, Pairs};
use super::network::{How, Quantised, quantise_layer};
use crate::allocate::{Budget, LayerCost, LayerOption, Solver, allocate};
use crate::calibration::record;
use candle_core::Tensor;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::{LayerPlace, Network};

/// The least damage: a layer that does better with fewer bits by luck is no reason to prefer them.
const LEAST: f64 = 1e-6;

/// Every layer at every precision, and what it does to the network when all others are at the highest.
#[derive(Debug, Clone)]
pub struct Table {
    network: Network,
    layers: Vec<(LayerPlace, Vec<Calibrated>)>,
    /// What the network loses with all layers at the highest precision.
    pub base: f64,
    /// The options of each layer, from the highest precision down, whose costs are the losses beyond `base`.
    pub costs: Vec<LayerCost>,
    /// How often a loss fell although a layer got fewer bits; the cost is then 10⁻⁶.
    pub lucky: usize,
}

impl Table {
    /// Quantises each of `places` of `network`, whose batch norms are folded, at each of `precisions` (weights and inputs
    /// alike, falling), and measures each by `loss`: (layers) × (precisions − 1) + 1 times.
    ///
    /// # Errors
    /// Precisions that do not fall, none, or outside 1 to 8; as [`quantise_layer`]; as `loss`.
    pub fn measure(
        network: &Network,
        places: &[LayerPlace],
        precisions: &[u32],
        (samples, how): (&Tensor, How),
        stream: Stream,
        progress: &Progress,
        mut loss: impl FnMut(&Quantised) -> Result<f64>,
    ) -> Result<Self> {
        if precisions.is_empty() || !precisions.is_sorted_by(|a, b| a > b) {
            return Err(Error::parameter("precisions", format!("{precisions:?}"), "at least one, in falling order"));
        }
        progress.begin("quantising at each precision", (places.len() * precisions.len()) as u64);
        let mut layers = Vec::with_capacity(places.len());
        for (i, place) in places.iter().enumerate() {
            let (inputs, outputs) = record(network, &place.weight, samples, None)?;
            let pairs = Pairs { inputs, outputs };
            let mut options = Vec::with_capacity(precisions.len());
            for &bits in precisions {
                let stream = stream.nested(i as u64).stream(&format!("{bits} bits"));
                let bits = Bits { weight: bits, input: Some(bits) };
                options.push(quantise_layer(network, place, &pairs, bits, how, stream, progress)?);
                progress.advance(1)?;
            }
            layers.push((place.clone(), options));
        }
        progress.finish();
        let mut table = Self { network: network.clone(), layers, base: 0.0, costs: Vec::new(), lucky: 0 };
        let highest = vec![0; places.len()];
        table.base = loss(&table.assemble(&highest)?)?;
        progress.begin("measuring each layer alone", (places.len() * (precisions.len() - 1)) as u64);
        for (i, place) in places.iter().enumerate() {
            let mut options = Vec::with_capacity(precisions.len());
            for (choice, &bits) in precisions.iter().enumerate() {
                let mut cost = 0.0;
                if choice > 0 {
                    let mut choices = highest.clone();
                    choices[i] = choice;
                    let damage = loss(&table.assemble(&choices)?)? - table.base;
                    table.lucky += usize::from(damage < 0.0);
                    cost = damage.max(LEAST);
                    progress.advance(1)?;
                }
                options.push(LayerOption { bits, activation_bits: bits, extra_bits: 0, cost });
            }
            table.costs.push(LayerCost {
                name: place.name.clone(),
                weights: place.weights() as u64,
                multiplications: place.multiplications(),
                options,
            });
        }
        progress.finish();
        Ok(table)
    }

    /// The network with the option `choices[l]` for layer l, counted from the highest precision.
    ///
    /// # Errors
    /// Another number of choices than of layers, or a choice that a layer does not have.
    pub fn assemble(&self, choices: &[usize]) -> Result<Quantised> {
        let wrong = || Error::parameter("choices", format!("{choices:?}"), "one precision of the table a layer");
        if choices.len() != self.layers.len() {
            return Err(wrong());
        }
        let chosen = self.layers.iter().zip(choices).map(|((place, options), &choice)| {
            options.get(choice).map(|layer| (place.clone(), layer.clone())).ok_or_else(wrong)
        });
        Quantised::assemble(&self.network, chosen.collect::<Result<_>>()?)
    }

    /// The choices that lose least within `budget`, as if losses added up.
    ///
    /// # Errors
    /// A budget below the least that can be reached, which the error names.
    pub fn choose(&self, budget: Budget, solver: Solver) -> Result<Vec<usize>> {
        allocate(&self.costs, budget, solver)
    }

    /// The loss that the programme expects of `choices`: `base` and the sum of their costs.
    ///
    /// # Panics
    /// If a layer does not have its choice.
    pub fn predicted(&self, choices: &[usize]) -> f64 {
        self.base + self.costs.iter().zip(choices).map(|(layer, &choice)| layer.options[choice].cost).sum::<f64>()
    }

    /// Bits of weights under `choices` over those of 32-bit floats.
    ///
    /// # Panics
    /// If a layer does not have its choice.
    pub fn compression(&self, choices: &[usize]) -> f64 {
        let bits = |(layer, &choice): (&LayerCost, &usize)| layer.weights * u64::from(layer.options[choice].bits);
        let all: u64 = self.costs.iter().map(|layer| layer.weights).sum();
        self.costs.iter().zip(choices).map(bits).sum::<u64>() as f64 / (32 * all) as f64
    }
}
