//! Gradient clipping.

use crate::error::computation;
use crate::params::{Params, flatten};
use candle_core::backprop::GradStore;
use offprint_core::Result;

/// Shortens the gradient over all of `params` to the Euclidean norm `longest` if it is longer, and gives its norm before.
pub fn clip_norm(gradients: &mut GradStore, params: &Params, longest: f64) -> Result<f64> {
    let mut squares = 0.0;
    for param in params.trained() {
        if let Some(gradient) = gradients.get(&param.var) {
            let values: Vec<f64> = flatten([gradient].into_iter(), gradient.elem_count())?;
            squares += values.iter().map(|g| g * g).sum::<f64>();
        }
    }
    let norm = squares.sqrt();
    if norm > longest {
        for param in params.trained() {
            if let Some(gradient) = gradients.remove(&param.var) {
                gradients.insert(&param.var, gradient.affine(longest / norm, 0.0).map_err(computation)?);
            }
        }
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Init, Weights};
    use candle_core::DType;

    #[test]
    fn long_gradients_keep_their_direction_and_short_ones_everything() {
        let weights = Weights::fresh(0, DType::F64).unwrap();
        let (a, b) = (
            weights.param("a", &[1], Init::Constant(3.0)).unwrap(),
            weights.param("b", &[1], Init::Constant(4.0)).unwrap(),
        );
        let params = weights.finish(&[]).unwrap();
        let loss = ((a.sqr().unwrap() + b.sqr().unwrap()).unwrap() * 0.5).unwrap().sum_all().unwrap();
        for (longest, expected) in [(10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])] {
            let mut gradients = loss.backward().unwrap();
            assert_eq!(clip_norm(&mut gradients, &params, longest).unwrap(), 5.0);
            for (param, expected) in params.trained().iter().zip(expected) {
                let value = gradients.get(&param.var).unwrap().to_vec1::<f64>().unwrap()[0];
                assert!((value - expected).abs() < 1e-15);
            }
        }
    }
}
