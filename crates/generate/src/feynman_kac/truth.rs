//! Laws in closed form that the study and the tests compare with.

use super::resample::{Scheme, normalised};
use crate::exact::{Covariances, ExactMixture, Mixture};
use ndarray::{Array1, Array2, Array3, Axis, s};
use offprint_core::Result;
use offprint_core::random::Stream;
use offprint_math::linalg;

/// The normalised product of two mixtures: one component for each pair, with N(m, C) N(m', C') ∝ N(m − m'; 0, C + C')
/// N(·; (C⁻¹ + C'⁻¹)⁻¹ (C⁻¹ m + C'⁻¹ m'), (C⁻¹ + C'⁻¹)⁻¹). O(K K' d³).
pub fn product_mixture(a: &Mixture, b: &Mixture) -> Result<Mixture> {
    let (d, count) = (a.means().ncols(), a.weights().len() * b.weights().len());
    let mut log_weights = Vec::with_capacity(count);
    let (mut means, mut covariances) = (Array2::zeros((count, d)), Array3::zeros((count, d, d)));
    for i in 0..a.weights().len() {
        for j in 0..b.weights().len() {
            let index = log_weights.len();
            let (left, right) = (a.covariance(i), b.covariance(j));
            let sum = &left + &right;
            let apart = (&a.means().row(i) - &b.means().row(j)).insert_axis(Axis(1));
            let square = (&apart * &linalg::solve(sum.view(), apart.view())?).sum();
            let log_det: f64 = 2.0 * linalg::cholesky(sum.view())?.diag().mapv(f64::ln).sum();
            log_weights.push((a.weights()[i] * b.weights()[j]).ln() - 0.5 * (square + log_det));
            // (C⁻¹ + C'⁻¹)⁻¹ = C (C + C')⁻¹ C'.
            let covariance = left.dot(&linalg::solve(sum.view(), right.view())?);
            let mean = &a.means().row(i) - &left.dot(&linalg::solve(sum.view(), apart.view())?).column(0);
            means.row_mut(index).assign(&mean);
            covariances.slice_mut(s![index, .., ..]).assign(&((&covariance + &covariance.t()) * 0.5));
        }
    }
    Mixture::new(Array1::from(normalised(&log_weights)?), means, Covariances::Full(covariances))
}

/// `count` draws (count, d) of q^β for a mixture q of round components, β ≥ 1: proposals from Σ w_k^β N(·)^β, corrected
/// by importance, 20 to each draw. Each proposal's weight lies between 1 and K^{β−1} and is near 1 where modes are apart.
pub fn power_draws(model: &ExactMixture, beta: f64, count: usize, stream: Stream) -> Result<Array2<f64>> {
    let mixture = model.mixture();
    let d = mixture.means().ncols();
    let variances: Vec<f64> = (0..mixture.weights().len()).map(|k| mixture.covariance(k)[[0, 0]]).collect();
    // ∫ N(·; m, s² I)^β ∝ s^{d (1 − β)}.
    let log_weights: Vec<f64> = mixture
        .weights()
        .iter()
        .zip(&variances)
        .map(|(w, v)| beta * w.ln() + 0.5 * d as f64 * (1.0 - beta) * v.ln())
        .collect();
    let sharp = Mixture::round(
        Array1::from(normalised(&log_weights)?),
        mixture.means().to_owned(),
        Array1::from_iter(variances.iter().map(|v| v / beta)).view(),
    )?;
    let proposals = ExactMixture::new(sharp)?;
    let (points, _) = proposals.sample(20 * count, stream);
    let log_ratio = model.log_density(points.view(), 0.0)? * beta - proposals.log_density(points.view(), 0.0)?;
    let weights = normalised(&log_ratio.to_vec())?;
    let drawn = Scheme::Systematic.draw(&weights, count, &mut stream.nested(0).stream("draws").rng(0));
    Ok(points.select(Axis(0), &drawn))
}
