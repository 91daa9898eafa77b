//! What may happen between the steps of a sampler.

use super::multistep::Buffer;
use crate::Node;
use ndarray::Array2;
use offprint_core::Result;

/// Looks at a sampler, or changes its state, between steps. Every part does nothing unless it is written. Steps count
/// from 0. `()` is the hook that does nothing.
pub trait Hook {
    /// Before step `step`, with the points `y` (n, d) at `at`: a [`Stepwise`](super::Stepwise) sampler asks the model
    /// after this; a [`Multistep`](super::Multistep) one has asked it for this place already.
    fn before(&mut self, _step: usize, _at: Node, _y: &mut Array2<f64>) -> Result<()> {
        Ok(())
    }

    /// Before step `step` of a multistep sampler, with the stored outputs of the model. What is changed stays.
    fn buffer(&mut self, _step: usize, _to: Node, _buffer: &mut Buffer) -> Result<()> {
        Ok(())
    }

    /// After step `step`, with the points `y` (n, d) that have arrived at `at`. Rows may be moved or replaced.
    fn after(&mut self, _step: usize, _at: Node, _y: &mut Array2<f64>) -> Result<()> {
        Ok(())
    }
}

impl Hook for () {}

/// Keeps the points at every place, the start included: as a hook, the trajectory of a run.
impl Hook for Vec<Array2<f64>> {
    fn before(&mut self, step: usize, _: Node, y: &mut Array2<f64>) -> Result<()> {
        if step == 0 {
            self.push(y.clone());
        }
        Ok(())
    }

    fn after(&mut self, _: usize, _: Node, y: &mut Array2<f64>) -> Result<()> {
        self.push(y.clone());
        Ok(())
    }
}

/// Two hooks, one after the other.
pub struct Chain<'a>(pub &'a mut dyn Hook, pub &'a mut dyn Hook);

impl Hook for Chain<'_> {
    fn before(&mut self, step: usize, at: Node, y: &mut Array2<f64>) -> Result<()> {
        self.0.before(step, at, y)?;
        self.1.before(step, at, y)
    }

    fn buffer(&mut self, step: usize, to: Node, buffer: &mut Buffer) -> Result<()> {
        self.0.buffer(step, to, buffer)?;
        self.1.buffer(step, to, buffer)
    }

    fn after(&mut self, step: usize, at: Node, y: &mut Array2<f64>) -> Result<()> {
        self.0.after(step, at, y)?;
        self.1.after(step, at, y)
    }
}
