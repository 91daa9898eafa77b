//! Who enters the comparisons of quantisers and pruners. A paper adds its method to [`quantisers`] or [`pruners`].

use crate::compression::{Order, Work, compress};
use crate::export::network_bytes;
use crate::layer::Layer;
use crate::methods::{
    AdaRound, Gptq, LsqTraining, Magnitude, Rtn, SparseGpt, Sparsity, Sweep, Target, Wanda, WeightMethod, global_shares,
};
use crate::ofq::OfqEntrant;
use crate::packed::Packed;
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::substitute::Substitute;
use offprint_nn::{Batch, LayerPlace, Network};
use std::rc::Rc;

/// What every entrant gets.
pub struct Task<'a> {
    /// The network, its batch norms folded into its convolutions.
    pub network: &'a Network,
    /// Layers, and what each is to become.
    pub targets: &'a [(LayerPlace, Target)],
    /// Samples to calibrate with.
    pub calibration: &'a Batch,
    /// Samples to train with, for entrants that train.
    pub train: &'a Batch,
    /// What layers are calibrated with.
    pub order: Order,
    /// Steps of entrants that train or optimise; each takes of them what its paper's default is in proportion to.
    pub steps: usize,
    /// Random choices.
    pub streams: Streams,
    /// Tells how it goes, and when to stop.
    pub progress: &'a Progress,
}

/// What an entrant made of it.
pub struct Entry {
    /// The compressed network.
    pub network: Network,
    /// Bytes of all its tensors, scales and masks included.
    pub bytes: u64,
    /// Operands to compute with: quantisers of activations. None for most.
    pub within: Option<Rc<dyn Substitute>>,
}

impl Entry {
    /// A network in which `layers` are compressed.
    ///
    /// # Errors
    /// As [`network_bytes`].
    pub fn new(network: Network, layers: &[Packed]) -> Result<Self> {
        Ok(Self { bytes: network_bytes(&network, layers)?, network, within: None })
    }
}

/// A method in a comparison.
pub trait Entrant {
    /// Its name, as users give it.
    fn name(&self) -> &str;

    /// Compresses the network.
    ///
    /// # Errors
    /// Targets that the method cannot reach.
    fn enter(&self, task: &Task<'_>) -> Result<Entry>;
}

/// A method that goes layer by layer.
pub struct LayerByLayer(pub Box<dyn WeightMethod>);

impl Entrant for LayerByLayer {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn enter(&self, task: &Task<'_>) -> Result<Entry> {
        let work = Work {
            method: &*self.0,
            targets: task.targets,
            calibration: Some(&task.calibration.inputs),
            part: 64,
            order: task.order,
            stream: task.streams.stream(self.name()),
        };
        let compressed = compress(task.network, &work, task.progress)?;
        Entry::new(compressed.network, &compressed.layers)
    }
}

/// AdaRound with as many steps as the task gives.
struct Rounding;

impl Entrant for Rounding {
    fn name(&self) -> &str {
        "adaround"
    }

    fn enter(&self, task: &Task<'_>) -> Result<Entry> {
        // A tenth of the published steps needs ten times the published rate to go as far.
        let published = AdaRound::default();
        let rate = published.rate * (published.steps as f32 / task.steps.max(1) as f32).clamp(1.0, 10.0);
        LayerByLayer(Box::new(AdaRound { steps: task.steps, rate, ..published })).enter(task)
    }
}

/// LSQ with a tenth of the task's steps: each is a pass through the whole network.
struct LearnedSteps;

impl Entrant for LearnedSteps {
    fn name(&self) -> &str {
        "lsq"
    }

    fn enter(&self, task: &Task<'_>) -> Result<Entry> {
        let targets = task.targets.iter().map(|(place, target)| match target.scheme_only("lsq") {
            Ok(scheme) => Ok((place.clone(), scheme.bits)),
            Err(error) => Err(error),
        });
        let targets = targets.collect::<Result<Vec<_>>>()?;
        let training = LsqTraining { steps: task.steps.div_ceil(10) as u64, ..LsqTraining::default() };
        let stream = task.streams.stream("lsq");
        let trained = training.run(task.network, &targets, task.train, stream, task.progress)?;
        Entry::new(trained.compressed.network, &trained.compressed.layers)
    }
}

/// Magnitude pruning with one threshold for all layers.
struct GlobalMagnitude;

impl Entrant for GlobalMagnitude {
    fn name(&self) -> &str {
        "magnitude-global"
    }

    fn enter(&self, task: &Task<'_>) -> Result<Entry> {
        let layers: Vec<Layer> =
            task.targets.iter().map(|(place, _)| Layer::of(task.network, place)).collect::<Result<_>>()?;
        let Some((_, Target { sparsity: Some(Sparsity::Unstructured(share)), .. })) = task.targets.first() else {
            return Err(Error::parameter("sparsity", "a pattern", "a share: one threshold knows no patterns"));
        };
        let shares = global_shares(&layers, *share);
        let targets: Vec<_> = task
            .targets
            .iter()
            .zip(shares)
            .map(|((place, target), share)| (place.clone(), Target { sparsity: Some(share), ..*target }))
            .collect();
        LayerByLayer(Box::new(Magnitude)).enter(&Task { targets: &targets, ..*task })
    }
}

/// The quantisers, baselines first.
pub fn quantisers() -> Vec<Box<dyn Entrant>> {
    let act_order = Gptq { sweep: Sweep { by_diagonal: true, ..Sweep::default() } };
    vec![
        Box::new(LayerByLayer(Box::new(Rtn::AsGiven))),
        Box::new(LayerByLayer(Box::new(Rtn::LeastError))),
        Box::new(LayerByLayer(Box::new(Gptq::default()))),
        Box::new(LayerByLayer(Box::new(act_order))),
        Box::new(Rounding),
        Box::new(LearnedSteps),
        Box::new(crate::hawq::MixedPrecision),
        Box::new(OfqEntrant),
    ]
}

/// The pruners, baselines first.
pub fn pruners() -> Vec<Box<dyn Entrant>> {
    vec![
        Box::new(LayerByLayer(Box::new(Magnitude))),
        Box::new(GlobalMagnitude),
        Box::new(LayerByLayer(Box::new(Wanda))),
        Box::new(LayerByLayer(Box::new(SparseGpt::default()))),
    ]
}

/// The entrants with these names, or all if there are none.
///
/// # Errors
/// A name that nobody has; the names there are.
pub fn named(all: Vec<Box<dyn Entrant>>, names: &[String]) -> Result<Vec<Box<dyn Entrant>>> {
    let known: Vec<String> = all.iter().map(|entrant| entrant.name().to_owned()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(Error::parameter("methods", unknown, format!("some of {}", known.join(", "))));
    }
    Ok(all.into_iter().filter(|entrant| names.is_empty() || names.iter().any(|name| name == entrant.name())).collect())
}
