//! What the paper compares with, behind the same interface.

mod ksvd;
mod l1_subgradient;
mod msp;
mod online_lasso;
mod riemannian_sgd;

pub use ksvd::Ksvd;
pub use l1_subgradient::L1Subgradient;
pub use msp::Msp;
pub use online_lasso::OnlineLasso;
pub use riemannian_sgd::RiemannianSgd;

use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Result};

/// The samples that an offline method has to keep.
#[derive(Debug, Clone, Default)]
struct Kept {
    values: Vec<f64>,
    n: usize,
}

impl Kept {
    fn new(n: usize) -> Self {
        Self { values: Vec::new(), n }
    }

    fn add(&mut self, samples: ArrayView2<'_, f64>) -> Result<()> {
        super::frank_wolfe::check_batch(samples, self.n)?;
        self.values.extend(samples.iter());
        Ok(())
    }

    /// All samples (p, N), scaled to root mean square 1 so that no power of them overflows; the dictionary does not
    /// depend on the scale.
    fn scaled(&self) -> Result<Array2<f64>> {
        let largest = self.values.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        if largest == 0.0 {
            return Err(Error::input("samples", "are none, or all zero"));
        }
        let rms = largest
            * (self.values.iter().map(|x| (x / largest).powi(2)).sum::<f64>() / self.values.len() as f64).sqrt();
        let values = self.values.iter().map(|x| x / rms).collect();
        Ok(Array2::from_shape_vec((self.values.len() / self.n, self.n), values).expect("rows of N"))
    }
}
