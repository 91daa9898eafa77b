//! OFQ in the comparison of quantisers.

use super::{Calm, Lessons, Precision, QuantisedViT, Training};
use crate::contest::{Entrant, Entry, Task};
use crate::layer::Layer;
use offprint_core::{Error, Result};

/// Trains vision transformers with StatsQ and plain attention under their float selves, three quarters of the time freely
/// and the last quarter under CGA. Activations stay floats, the first layer and the head get eight bits.
pub struct OfqEntrant;

impl Entrant for OfqEntrant {
    fn name(&self) -> &str {
        "ofq"
    }

    fn enter(&self, task: &Task<'_>) -> Result<Entry> {
        let mut bits = Vec::new();
        for (place, target) in task.targets.iter().filter(|(place, _)| place.name.starts_with("blocks.")) {
            bits.push((&place.name, target.scheme_only("ofq")?.bits));
        }
        let first = bits.first().map(|(_, bits)| *bits);
        let same = first.filter(|first| bits.iter().all(|(_, bits)| bits == first));
        let layers = task.network.layers()?.into_iter().filter(|place| place.name.starts_with("blocks.")).count();
        let Some(bits) = same.filter(|_| bits.len() == layers) else {
            return Err(Error::parameter(
                "methods",
                "ofq",
                "used on all layers of a vision transformer with equal bits",
            ));
        };
        let network = QuantisedViT::new(task.network, Precision::ofq(bits, None).plain())?;
        let lessons = Lessons::new(task.train, Some(task.network))?;
        let mut training = Training::default();
        let steps_of_epoch = task.train.len().div_ceil(training.batch).max(1);
        // As other methods that train the whole network: a tenth of the steps that a layer would get.
        let epochs = task.steps.div_ceil(10 * steps_of_epoch).max(1) as u64;
        let annealing = (epochs / 4).max(1);
        training.epochs = epochs.saturating_sub(annealing).max(1);
        network.train(&lessons, &training, task.streams.stream("ofq"), task.progress)?;
        training = Training { epochs: annealing, calm: Calm::Cga { margin: 0.005 }, ..training };
        network.train(&lessons, &training, task.streams.stream("ofq annealing"), task.progress)?;
        let packed = network.packed()?;
        let compressed = network.network().copy()?;
        for place in compressed.layers()? {
            if let Some(layer) = packed.iter().find(|layer| layer.name == place.name) {
                Layer::set(&compressed, &place, layer.dequant().view())?;
            }
        }
        Entry::new(compressed, &packed)
    }
}
