//! The claims, measured.

mod batches;
mod learner;
mod stability;
mod synthetic;

use super::BatchHessian;
use offprint_core::{Result, Run, Study};

impl Study for BatchHessian {
    fn measure(run: &mut Run) -> Result<()> {
        synthetic::additive(run)?;
        synthetic::multiplicative(run)?;
        batches::measure(run)?;
        stability::thresholds(run)?;
        stability::largest_rates(run)?;
        learner::measure(run)
    }
}
