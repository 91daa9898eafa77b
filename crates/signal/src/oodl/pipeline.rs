//! One sample after the other into a learner: burn-in, whitening, clipping, batches; at any moment a checkpoint.

use super::checkpoint::{Checkpoint, Position};
use super::{Learner, Preprocessing, State, Transform, Whitening};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Result};

/// How samples reach the learner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Samples per step, at least 1.
    pub batch: usize,
    /// What is done to them first.
    pub whitening: Whitening,
    /// Samples from which mean and covariance are taken; by default the larger of 20 N and 500.
    pub burn_in: Option<usize>,
    /// Samples longer than this many times the root mean square length so far are shortened to it.
    pub clip: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { batch: 1, whitening: Whitening::None, burn_in: None, clip: None }
    }
}

/// Samples whose length must be known before any is called an outlier.
const BEFORE_CLIPPING: u64 = 100;

/// Makes a learner for a number of coordinates, which whitening decides.
type Make = Box<dyn FnMut(usize) -> Result<Box<dyn Learner>> + Send>;

/// A learner with what stands between it and raw samples. Memory: the learner's, N² for the whitening, one batch, and
/// the burn-in while it lasts.
pub struct Pipeline {
    settings: Settings,
    n: usize,
    make: Make,
    learner: Option<Box<dyn Learner>>,
    preprocessing: Option<Preprocessing>,
    /// Rows of N, not learned from yet.
    pending: Vec<f64>,
    learned: u64,
    clipped: u64,
    energy: f64,
}

impl Pipeline {
    /// A pipeline for samples of length `n` into the learner that `make` gives for the number of learning coordinates.
    ///
    /// # Errors
    /// n = 0, a batch of 0, a clip that is not positive, a burn-in shorter than n with ZCA.
    pub fn new(
        n: usize,
        settings: Settings,
        make: impl FnMut(usize) -> Result<Box<dyn Learner>> + Send + 'static,
    ) -> Result<Self> {
        if n == 0 {
            return Err(Error::input("samples", "have no values"));
        }
        if settings.batch == 0 {
            return Err(Error::parameter("batch", 0, "at least 1"));
        }
        if let Some(clip) = settings.clip.filter(|&c| c.is_nan() || c <= 0.0) {
            return Err(Error::parameter("clip", clip, "above 0"));
        }
        if let Some(burn_in) = settings.burn_in.filter(|&b| settings.whitening == Whitening::Zca && b < n) {
            return Err(Error::parameter("burn_in", burn_in, format!("at least N = {n} for ZCA; 5 N is a fair start")));
        }
        Ok(Self {
            settings,
            n,
            make: Box::new(make),
            learner: None,
            preprocessing: None,
            pending: Vec::new(),
            learned: 0,
            clipped: 0,
            energy: 0.0,
        })
    }

    /// A pipeline that goes on from `checkpoint`, exactly as if it had never stopped, with the learner that `go_on`
    /// makes of the state, or `make` if the burn-in was not over. Whitening that is fixed already stays as it is,
    /// whatever `settings` say.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and whatever `go_on` says.
    pub fn resume(
        checkpoint: Checkpoint,
        settings: Settings,
        make: impl FnMut(usize) -> Result<Box<dyn Learner>> + Send + 'static,
        go_on: impl FnOnce(State) -> Result<Box<dyn Learner>>,
    ) -> Result<Self> {
        let mut pipeline = Self::new(checkpoint.pending.ncols(), settings, make)?;
        pipeline.pending = checkpoint.pending.iter().copied().collect();
        (pipeline.learned, pipeline.clipped, pipeline.energy) =
            (checkpoint.learned, checkpoint.clipped, checkpoint.energy);
        pipeline.preprocessing = checkpoint.preprocessing;
        if let Some(state) = checkpoint.state {
            pipeline.learner = Some(go_on(state)?);
        }
        Ok(pipeline)
    }

    /// Takes one sample (N); learns as soon as a batch is full.
    ///
    /// # Errors
    /// Another length than N, a value that is not finite, whatever the learner says.
    pub fn learn_one(&mut self, sample: &[f64]) -> Result<()> {
        let number = self.learned + (self.pending.len() / self.n) as u64;
        if sample.len() != self.n {
            let length = sample.len();
            return Err(Error::input("samples", format!("row {number} has {length} values, but N = {}", self.n)));
        }
        if let Some(j) = sample.iter().position(|x| !x.is_finite()) {
            let problem =
                format!("row {number}, column {j} (counted from 0) is {}; every value must be finite", sample[j]);
            return Err(Error::input("samples", problem));
        }
        self.pending.extend_from_slice(sample);
        let waiting = self.pending.len() / self.n;
        if self.learner.is_none() {
            if waiting < self.burn_in() {
                return Ok(());
            }
            self.end_burn_in()?;
        }
        if self.pending.len() / self.n >= self.settings.batch { self.learn_batches() } else { Ok(()) }
    }

    /// Ends a burn-in that the stream was too short for, with the samples there are. A batch that is not full stays
    /// pending.
    ///
    /// # Errors
    /// Too few samples for the whitening, or none at all.
    pub fn end_of_stream(&mut self) -> Result<()> {
        if self.learner.is_none() {
            if self.pending.is_empty() {
                return Err(Error::input("samples", "are none; nothing was learned"));
            }
            self.end_burn_in()?;
            self.learn_batches()?;
        }
        Ok(())
    }

    /// Samples to wait for before learning; none without whitening.
    fn burn_in(&self) -> usize {
        match self.settings.whitening {
            Whitening::None => 0,
            _ => self.settings.burn_in.unwrap_or((20 * self.n).max(500)),
        }
    }

    fn end_burn_in(&mut self) -> Result<()> {
        let rows = self.pending.len() / self.n;
        let samples = ArrayView2::from_shape((rows, self.n), &self.pending).expect("rows of N");
        let preprocessing = Preprocessing::fit(self.settings.whitening, samples)?;
        self.learner = Some((self.make)(preprocessing.rank())?);
        self.preprocessing = Some(preprocessing);
        Ok(())
    }

    /// Learns from all full batches that are pending.
    fn learn_batches(&mut self) -> Result<()> {
        let length = self.settings.batch * self.n;
        let mut done = 0;
        while done + length <= self.pending.len() {
            let mut batch = self.preprocessing.as_ref().expect("set with the learner").apply(
                ArrayView2::from_shape((self.settings.batch, self.n), &self.pending[done..done + length])
                    .expect("rows of N"),
            );
            self.clip(&mut batch);
            self.learner.as_mut().expect("made before").learn(batch.view())?;
            done += length;
        }
        self.pending.drain(..done);
        Ok(())
    }

    /// Shortens outliers, keeping their direction: the objective grows with the third power of a sample's length.
    fn clip(&mut self, batch: &mut Array2<f64>) {
        for mut y in batch.outer_iter_mut() {
            let mut square = y.dot(&y);
            if let Some(clip) = self.settings.clip
                && self.learned >= BEFORE_CLIPPING
            {
                let most = clip * clip * self.energy / self.learned as f64;
                if square > most {
                    y *= (most / square).sqrt();
                    square = most;
                    self.clipped += 1;
                }
            }
            self.energy += square;
            self.learned += 1;
        }
    }

    /// Length of samples, N.
    pub fn inputs(&self) -> usize {
        self.n
    }

    /// The learner, once the burn-in is over.
    pub fn learner(&self) -> Option<&dyn Learner> {
        self.learner.as_deref()
    }

    /// The map to learning coordinates, once the burn-in is over.
    pub fn preprocessing(&self) -> Option<&Preprocessing> {
        self.preprocessing.as_ref()
    }

    /// Coding with what was learned so far; the dictionary (r, r) is projected to the orthogonal group first if its
    /// learner is one for orthogonal dictionaries.
    ///
    /// # Errors
    /// The burn-in lasts still.
    pub fn transform(&mut self) -> Result<Transform> {
        let (Some(learner), Some(preprocessing)) = (&mut self.learner, &self.preprocessing) else {
            return Err(Error::input("samples", "are too few: the burn-in is not over"));
        };
        Transform::new(preprocessing, learner.dictionary()?.view())
    }

    /// The code (r) of one sample (N).
    ///
    /// # Errors
    /// As for [`transform`](Self::transform); another length than N.
    pub fn transform_one(&mut self, sample: &[f64]) -> Result<Vec<f64>> {
        let row = ArrayView2::from_shape((1, sample.len()), sample).expect("one row");
        super::frank_wolfe::check_batch(row, self.n)?;
        Ok(self.transform()?.codes(row).into_iter().collect())
    }

    /// Samples learned from.
    pub fn learned(&self) -> u64 {
        self.learned
    }

    /// Samples that were shortened as outliers.
    pub fn clipped(&self) -> u64 {
        self.clipped
    }

    /// Samples taken but not learned from yet.
    pub fn pending(&self) -> usize {
        self.pending.len() / self.n
    }

    /// Everything needed to go on from here; `position` says where in the input.
    pub fn checkpoint(&self, position: Position) -> Checkpoint {
        Checkpoint {
            state: self.learner.as_ref().and_then(|l| l.state()).cloned(),
            preprocessing: self.preprocessing.clone(),
            pending: Array2::from_shape_vec((self.pending(), self.n), self.pending.clone()).expect("rows of N"),
            learned: self.learned,
            clipped: self.clipped,
            energy: self.energy,
            position,
        }
    }
}
