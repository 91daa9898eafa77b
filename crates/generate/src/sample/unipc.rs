//! UniPC (Zhao et al. 2023, arXiv:2302.04867): predictor and corrector of one family, of any order.

use super::multistep::{Output, Solver, Weights};
use crate::Node;
use offprint_core::{Error, Result};

/// The function B(h) that scales a step's differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bh {
    /// B = h, called bh1: for few steps without guidance.
    One,
    /// B = e^h − 1, called bh2.
    Two,
}

/// UniPC-p: order p + 1 with its corrector, which costs no call of the model.
///
/// With h = λ' − λ, hh = −h for stored data and h for stored noise, differences D_i = (m_i − m_0)/r_i over the past
/// outputs and, for the corrector, the output at the target (r = 1): y' = base − B Σ ρ_i D_i, where ρ solves
/// Σ_i r_i^(j−1) ρ_i = b_j, b_j = j! φ_{j+1}(hh) hh/B in the usual φ-functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniPc {
    order: usize,
    bh: Bh,
    output: Output,
}

impl UniPc {
    /// UniPC of `order` 1 to 6 over stored clean data.
    pub fn new(order: usize, bh: Bh) -> Result<Self> {
        if !(1..=6).contains(&order) {
            return Err(Error::parameter("order", order, "from 1 to 6"));
        }
        Ok(Self { order, bh, output: Output::Data })
    }

    /// The same over stored noise.
    #[must_use]
    pub fn over_noise(self) -> Self {
        Self { output: Output::Noise, ..self }
    }

    /// The numbers of a step: ratios r of the past outputs, and of the target if `corrects`.
    fn weights(&self, places: &[Node], to: Node, order: usize, corrects: bool) -> Result<Weights> {
        let from = places[0];
        let h = to.lambda() - from.lambda();
        // The exact part: what the newest output would do alone, and the factor before the differences.
        let (state, newest, hh, scale) = match self.output {
            Output::Data => {
                let keep = to.tau / from.tau;
                (keep, 1.0 - keep, -h, 1.0)
            }
            Output::Noise => (1.0, to.tau - from.tau, h, to.tau),
        };
        let mut ratios: Vec<f64> = places[1..order].iter().map(|p| (p.lambda() - from.lambda()) / h).collect();
        if corrects {
            ratios.push(1.0);
        }
        let mut outputs = vec![0.0; order];
        outputs[0] = newest;
        let mut at_target = 0.0;
        if !ratios.is_empty() {
            let b = match self.bh {
                Bh::One => hh,
                Bh::Two => hh.exp_m1(),
            };
            let rho = self.solve(&ratios, hh, b, corrects)?;
            for (i, (ratio, rho)) in ratios.iter().zip(rho).enumerate() {
                // −B ρ (m_i − m_0)/r, the target's output last.
                let weight = -scale * b * rho / ratio;
                outputs[0] -= weight;
                match outputs.get_mut(i + 1) {
                    Some(past) if i + 1 < order => *past += weight,
                    _ => at_target = weight,
                }
            }
        }
        if corrects {
            outputs.insert(0, at_target);
        }
        Ok(Weights { state, outputs })
    }

    fn solve(&self, ratios: &[f64], hh: f64, b: f64, corrects: bool) -> Result<Vec<f64>> {
        // One unknown: the published method takes ½ rather than the solution.
        if ratios.len() == 1 {
            return Ok(vec![0.5]);
        }
        let mut factorial = 1.0;
        let right = (1..=ratios.len()).map(|j| {
            factorial *= j as f64;
            factorial * hh_phi(j + 1, hh) / b
        });
        let mut rho: Vec<f64> = right.collect();
        solve_vandermonde(ratios, &mut rho);
        if rho.iter().all(|r| r.is_finite()) {
            return Ok(rho);
        }
        let what = if corrects { "corrector" } else { "predictor" };
        Err(Error::Numerical(format!("UniPC's {what} has two outputs at one place")))
    }
}

/// Solves Σ_i x_iʲ ρ_i = b_j, j = 0 …, in place of `b`, by Björck and Pereyra's recursion: O(n²), and more accurate than
/// elimination. Not finite where two of the `x` are equal.
fn solve_vandermonde(x: &[f64], b: &mut [f64]) {
    let n = x.len();
    for (k, x) in x.iter().enumerate() {
        for i in (k + 1..n).rev() {
            b[i] -= x * b[i - 1];
        }
    }
    for k in (0..n.saturating_sub(1)).rev() {
        for i in k + 1..n {
            b[i] /= x[i] - x[i - k - 1];
        }
        for i in k..n - 1 {
            b[i] -= b[i + 1];
        }
    }
}

/// hh · φ_k(hh) = Σ_{i≥1} hhⁱ/(i + k − 1)!, where φ₁(z) = (e^z − 1)/z and φ_{k+1}(z) = (φ_k(z) − 1/k!)/z.
fn hh_phi(k: usize, hh: f64) -> f64 {
    if hh.abs() < 1.0 {
        // The recursion loses digits near 0; here 20 terms reach the last one.
        let mut term = (1..k).fold(1.0, |product, i| product / i as f64);
        let mut sum = 0.0;
        for i in 1..=20 {
            term *= hh / (i + k - 1) as f64;
            sum += term;
        }
        return sum;
    }
    let mut value = hh.exp_m1();
    let mut factorial = 1.0;
    for i in 1..k {
        factorial *= i as f64;
        value = value / hh - 1.0 / factorial;
    }
    value
}

impl Solver for UniPc {
    fn name(&self) -> String {
        format!("unipc-{}-{}", self.order, if self.bh == Bh::One { "bh1" } else { "bh2" })
    }

    fn order(&self) -> usize {
        self.order
    }

    fn output(&self) -> Output {
        self.output
    }

    fn predictor(&self, places: &[Node], to: Node, order: usize) -> Result<Weights> {
        if to.tau == 0.0 {
            let (state, newest) = if self.output == Output::Data { (0.0, 1.0) } else { (1.0, -places[0].tau) };
            return Ok(Weights { state, outputs: vec![newest] });
        }
        self.weights(places, to, order, false)
    }

    fn corrector(&self, places: &[Node], to: Node, order: usize) -> Result<Option<Weights>> {
        self.weights(places, to, order, true).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phi_functions_agree_on_both_sides_of_their_switch() {
        for k in 1..=6 {
            for hh in [0.999_999f64, -0.999_999] {
                let series = hh_phi(k, hh);
                let recursion = hh_phi(k, hh * 1.000_002);
                assert!((series - recursion).abs() < 1e-5 * series.abs().max(0.1), "φ_{k}({hh})");
            }
        }
        // hh φ₂(hh) = (e^hh − 1)/hh − 1, from a table of e.
        assert!((hh_phi(2, 1.0) - (1f64.exp() - 2.0)).abs() < 1e-14);
        assert!((hh_phi(2, 1e-9) - 0.5e-9 - 1e-18 / 6.0).abs() < 1e-24);
    }

    #[test]
    fn powers_are_matched() {
        let x = [-2.0, -0.7, 0.3, 1.0];
        let mut rho = [1.0, -0.5, 2.0, 0.25];
        let right = rho;
        solve_vandermonde(&x, &mut rho);
        for (j, right) in right.into_iter().enumerate() {
            let sum: f64 = x.iter().zip(rho).map(|(x, r)| x.powi(j as i32) * r).sum();
            assert!((sum - right).abs() < 1e-13);
        }
    }

    #[test]
    fn a_constant_output_is_integrated_exactly_in_every_order() {
        let node = |tau: f64| Node { t: tau, alpha: 1.0, tau };
        let places = [node(2.0), node(2.5), node(3.4), node(4.0)];
        for bh in [Bh::One, Bh::Two] {
            for order in 1..=4 {
                let unipc = UniPc::new(order, bh).unwrap();
                for solver in [unipc, unipc.over_noise()] {
                    let exact = solver.predictor(&places, node(1.2), 1).unwrap();
                    let predictor = solver.predictor(&places, node(1.2), order).unwrap();
                    let corrector = solver.corrector(&places, node(1.2), order).unwrap().unwrap();
                    assert_eq!((predictor.outputs.len(), corrector.outputs.len()), (order, order + 1));
                    for weights in [predictor, corrector] {
                        assert_eq!(weights.state, exact.state);
                        assert!((weights.outputs.iter().sum::<f64>() - exact.outputs[0]).abs() < 1e-12);
                    }
                }
            }
        }
    }
}
