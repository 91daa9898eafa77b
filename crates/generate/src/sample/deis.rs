//! DEIS (Zhang and Chen 2023, arXiv:2204.13902): exponential Adams–Bashforth methods.

use super::multistep::{Output, Solver, Weights};
use crate::{Node, Schedule};
use offprint_core::{Error, Result};
use offprint_math::quadrature::gauss_legendre;

/// The variable in which past outputs are interpolated.
#[derive(Debug, Clone, PartialEq)]
pub enum Basis {
    /// Time of the schedule: tAB-DEIS.
    Time(Schedule),
    /// The noise level τ: ρAB-DEIS.
    Level,
}

/// From dy/dτ = ε follows y' = y + Σ_j ε_{i−j} ∫ ℓ_j dτ over the step, with ℓ_j the Lagrange basis over the past places.
#[derive(Debug, Clone, PartialEq)]
pub struct Deis {
    order: usize,
    basis: Basis,
    rule: (Vec<f64>, Vec<f64>),
}

/// Points of the Gauss–Legendre rule for the integrals.
const POINTS: usize = 16;

impl Deis {
    /// Of `order` 1 to 4.
    pub fn new(order: usize, basis: Basis) -> Result<Self> {
        if !(1..=4).contains(&order) {
            return Err(Error::parameter("order", order, "from 1 to 4"));
        }
        Ok(Self { order, basis, rule: gauss_legendre(POINTS) })
    }

    fn place(&self, node: Node) -> f64 {
        match self.basis {
            Basis::Time(_) => node.t,
            Basis::Level => node.tau,
        }
    }
}

impl Solver for Deis {
    fn name(&self) -> String {
        match self.basis {
            Basis::Time(_) => format!("deis-tab{}", self.order),
            Basis::Level => format!("deis-rhoab{}", self.order),
        }
    }

    fn order(&self) -> usize {
        self.order
    }

    fn output(&self) -> Output {
        Output::Noise
    }

    fn predictor(&self, places: &[Node], to: Node, order: usize) -> Result<Weights> {
        let step = to.tau - places[0].tau;
        if order == 1 {
            return Ok(Weights { state: 1.0, outputs: vec![step] });
        }
        let known: Vec<f64> = places[..order].iter().map(|&node| self.place(node)).collect();
        let mut outputs = vec![0.0; order];
        let (points, weights) = &self.rule;
        for (&point, &weight) in points.iter().zip(weights) {
            let tau = places[0].tau + 0.5 * step * (1.0 + point);
            let at = match &self.basis {
                Basis::Time(schedule) => schedule.time(tau)?,
                Basis::Level => tau,
            };
            for (j, output) in outputs.iter_mut().enumerate() {
                let others = known.iter().enumerate().filter(|&(k, _)| k != j);
                let basis: f64 = others.map(|(_, &other)| (at - other) / (known[j] - other)).product();
                *output += 0.5 * step * weight * basis;
            }
        }
        Ok(Weights { state: 1.0, outputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_integrate_polynomials_of_their_order_exactly() {
        let node = |tau: f64| Node { t: tau, alpha: 1.0, tau };
        let places = [node(2.0), node(2.5), node(3.4), node(4.0)];
        for order in 1..=4 {
            let deis = Deis::new(order, Basis::Level).unwrap();
            let weights = deis.predictor(&places, node(1.2), order).unwrap();
            for power in 0..order as i32 {
                let sum: f64 = weights.outputs.iter().zip(&places).map(|(w, p)| w * p.tau.powi(power)).sum();
                let exact = (1.2f64.powi(power + 1) - 2f64.powi(power + 1)) / f64::from(power + 1);
                assert!((sum - exact).abs() < 1e-12, "order {order}, power {power}");
            }
        }
        assert!(Deis::new(5, Basis::Level).unwrap_err().to_string().contains("from 1 to 4"));
    }

    #[test]
    fn equal_steps_give_adams_and_bashforths_numbers() {
        let node = |tau: f64| Node { t: tau, alpha: 1.0, tau };
        let deis = Deis::new(4, Basis::Level).unwrap();
        let weights = deis.predictor(&[node(4.0), node(5.0), node(6.0), node(7.0)], node(3.0), 4).unwrap();
        for (w, expected) in weights.outputs.iter().zip([55.0, -59.0, 37.0, -9.0]) {
            assert!((w + expected / 24.0).abs() < 1e-12);
        }
    }
}
