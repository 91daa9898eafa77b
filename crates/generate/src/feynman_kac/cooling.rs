//! From an energy to colder samples: Monte Carlo at a high temperature, a network trained on it, and its law annealed.

use super::models::Bound;
use super::tempering::{Length, parallel_tempering};
use super::{Corrector, Energy, Expert, Particles, Product, Settings};
use crate::network::{NetConfig, Recipe, fit};
use crate::{Grid, Path, Schedule};
use ndarray::{Array1, Array2, Axis};
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};

/// Settings of [`cool`].
#[derive(Debug, Clone)]
pub struct Cooling {
    /// Temperature that the network is trained at.
    pub temperature: f64,
    /// Lower temperature that its law is annealed to.
    pub colder: f64,
    /// Monte Carlo at both.
    pub length: Length,
    /// Steps of training.
    pub training: u64,
    /// Particles.
    pub particles: usize,
    /// Steps from noise to data.
    pub steps: usize,
    /// The weighted simulation.
    pub settings: Settings,
}

/// What [`cool`] gives, all in the energy's own coordinates.
pub struct Cooled {
    /// Monte Carlo samples (n, d) at the higher temperature: what the network saw.
    pub hot: Array2<f64>,
    /// Monte Carlo samples (n, d) at the lower temperature: the truth.
    pub cold: Array2<f64>,
    /// The annealed particles.
    pub corrected: Particles,
    /// The same process without weights.
    pub scaled: Particles,
}

/// Networks are trained on data of this deviation.
const DEVIATION: f64 = 0.5;
/// Width of their hidden layers.
const WIDTH: usize = 128;
/// Noise levels in its units.
const LOWEST: f64 = 0.01;
const HIGHEST: f64 = 20.0;

/// Samples `energy` at the higher temperature from the configurations `start` (n, d), trains a network, and anneals its law
/// to the lower temperature with β = T/T', where Monte Carlo is run too.
///
/// # Errors
/// Temperatures that do not fall, and those of every part.
pub fn cool(
    energy: &dyn Energy,
    start: &Array2<f64>,
    cooling: &Cooling,
    streams: Streams,
    progress: &Progress,
) -> Result<Cooled> {
    if !(cooling.colder > 0.0 && cooling.colder < cooling.temperature) {
        let allowed = format!("above 0 and below the temperature of the training, {}", cooling.temperature);
        return Err(Error::parameter("colder", cooling.colder, allowed));
    }
    progress.begin("Monte Carlo", None);
    let temperatures = [2.0 * cooling.temperature, cooling.temperature, cooling.colder];
    let stream = streams.stream("monte carlo");
    let [_, hot, cold]: [Array2<f64>; 3] =
        parallel_tempering(energy, start, &temperatures, cooling.length, stream, progress)?
            .try_into()
            .expect("one table for each temperature");
    progress.finish();
    let mean = if energy.centred().is_some() {
        Array1::zeros(energy.dim())
    } else {
        hot.mean_axis(Axis(0)).expect("a sample")
    };
    let spread = (&hot - &mean).mapv(|v| v * v).mean().expect("a sample").sqrt();
    if spread.is_nan() || spread == 0.0 {
        return Err(Error::Numerical("Monte Carlo did not move: the samples do not differ".into()));
    }
    let scale = DEVIATION / spread;
    let table = (&hot - &mean) * scale;
    // Fewer components than the digits', for which the recipe was made.
    let shape = NetConfig { dim: energy.dim(), classes: 0, width: WIDTH, depth: 3, frequencies: 16 }.into();
    let recipe = Recipe { shape, ..Recipe::edm(energy.dim(), 0, Path::Gaussian(Schedule::Edm), cooling.training) };
    let (network, _) = fit(&recipe, table.view(), None, 0, progress)?;
    let model = Bound::new(network, None)?;
    let target = Product::annealed(Expert::new(&model, cooling.temperature / cooling.colder)?)?;
    let grid = Grid::karras(&Schedule::Edm, cooling.steps, LOWEST, HIGHEST, 7.0)?;
    let anneal = |settings: Settings, stage: &str| -> Result<Particles> {
        progress.begin(stage, grid.steps() as u64);
        let settings = Settings { centred: energy.centred(), ..settings };
        let corrector = Corrector::new(settings);
        let mut found =
            corrector.run_with(&target, cooling.particles, &grid, streams, &mut |_, _, _, _| {}, progress)?;
        progress.finish();
        found.y /= scale;
        found.y += &mean;
        Ok(found)
    };
    let corrected = anneal(cooling.settings.clone(), "corrected")?;
    let scaled = anneal(Settings { when: super::When::Unweighted, ..cooling.settings.clone() }, "scaled score")?;
    Ok(Cooled { hot, cold, corrected, scaled })
}
