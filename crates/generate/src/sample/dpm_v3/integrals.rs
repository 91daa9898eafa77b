//! The numbers of one step: integrals of the statistics over it.

use super::{Derivatives, Statistics};
use ndarray::{Array1, Array2, Zip};
use offprint_core::{Error, Result};

/// A place in λ, with l there (d).
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub lambda: f64,
    pub l: Array1<f64>,
}

/// The step from the first of its places, as numbers by coordinate (d): y' = `state` y + Σ `outputs` f + `shift`.
#[derive(Debug, Clone)]
pub(super) struct StepWeights {
    pub state: Array1<f64>,
    pub outputs: Vec<Array1<f64>>,
    pub shift: Array1<f64>,
}

/// Nodes and weights of Gauss and Legendre's rules of three and two points on [0, 1].
const THREE: [(f64, f64); 3] =
    [(0.112_701_665_379_258_31, 5.0 / 18.0), (0.5, 4.0 / 9.0), (0.887_298_334_620_741_7, 5.0 / 18.0)];
const TWO: [(f64, f64); 2] = [(0.211_324_865_405_187_1, 0.5), (0.788_675_134_594_812_9, 0.5)];

/// The integrals of one coordinate from a place λ_s on: L = ∫ l, S = ∫ s, B = ∫ e^−S b, and
/// M_k = ∫ e^(L+S) (λ − λ_s)^k/k!, C = ∫ e^(L+S) B.
#[derive(Debug, Clone, Copy, Default)]
struct Integrals {
    l: f64,
    s: f64,
    b: f64,
    moments: [f64; 3],
    shift: f64,
}

/// The statistics of one coordinate over a piece where they are linear: their values at its beginning and their slopes.
#[derive(Clone, Copy)]
struct Piece {
    l: (f64, f64),
    s: (f64, f64),
    b: (f64, f64),
}

impl Piece {
    /// ∫ over the first `x` of the piece of a linear function.
    fn integral((value, slope): (f64, f64), x: f64) -> f64 {
        x * (value + 0.5 * slope * x)
    }

    /// B at `x` of the piece.
    fn b_at(&self, before: &Integrals, x: f64) -> f64 {
        let sum: f64 = TWO
            .iter()
            .map(|(node, weight)| {
                let at = node * x;
                weight * (-(before.s + Self::integral(self.s, at))).exp() * (self.b.0 + self.b.1 * at)
            })
            .sum();
        before.b + x * sum
    }

    /// Goes on by `h`, which may be negative, from a place that lies `reached` after λ_s.
    fn advance(&self, integrals: &mut Integrals, reached: f64, h: f64) {
        let before = *integrals;
        for (node, weight) in THREE {
            let x = node * h;
            let growth =
                (before.l + Self::integral(self.l, x) + before.s + Self::integral(self.s, x)).exp() * weight * h;
            let (from_start, b) = (reached + x, self.b_at(&before, x));
            let powers = [1.0, from_start, 0.5 * from_start * from_start];
            integrals.moments.iter_mut().zip(powers).for_each(|(m, power)| *m += growth * power);
            integrals.shift += growth * b;
        }
        integrals.b = self.b_at(&before, h);
        integrals.l += Self::integral(self.l, h);
        integrals.s += Self::integral(self.s, h);
    }
}

impl Statistics {
    /// The place `lambda`, within the range of the statistics.
    pub(super) fn at(&self, lambda: f64) -> Place {
        let (n, share) = self.interval(lambda);
        let l = &self.l().row(n) * (1.0 - share) + &self.l().row(n + 1) * share;
        Place { lambda, l }
    }

    /// The step from `places[0]` to `to`, with g as a polynomial through all of `places`, at most three.
    pub(super) fn step(&self, places: &[&Place], to: f64, derivatives: Derivatives) -> Result<StepWeights> {
        let from = places[0].lambda;
        let offsets: Vec<f64> = places.iter().map(|place| place.lambda - from).collect();
        let taylor = taylor_weights(&offsets, derivatives)?;
        let over = self.integrate(from, to);
        let past: Vec<Vec<Integrals>> = places[1..].iter().map(|place| self.integrate(from, place.lambda)).collect();
        let d = over.len();
        let mut weights = StepWeights {
            state: over.iter().map(|i| (-i.l).exp()).collect(),
            outputs: vec![Array1::zeros(d); places.len()],
            shift: Array1::zeros(d),
        };
        for (j, over) in over.iter().enumerate() {
            let decay = weights.state[j];
            weights.shift[j] = -decay * over.shift;
            for (i, output) in weights.outputs.iter_mut().enumerate() {
                // Σ_k M_k times the weight of g_i in the k-th derivative.
                let of_g: f64 = taylor.iter().zip(over.moments).map(|(row, moment)| row[i] * moment).sum();
                // g = e^−S f − B at each place.
                let (s, b) = if i == 0 { (0.0, 0.0) } else { (past[i - 1][j].s, past[i - 1][j].b) };
                output[j] = -decay * of_g * (-s).exp();
                weights.shift[j] += decay * of_g * b;
            }
        }
        Ok(weights)
    }

    /// The integrals (d) from `from` to `to`, in either direction.
    fn integrate(&self, from: f64, to: f64) -> Vec<Integrals> {
        let mut integrals = vec![Integrals::default(); self.dim()];
        let mut at = from;
        while at != to {
            // A place on an edge belongs to the interval ahead of it.
            let (n, next) = self.piece(at, to);
            let here = at - self.lambda(n);
            for (j, integrals) in integrals.iter_mut().enumerate() {
                let linear = |table: &Array2<f64>| {
                    let slope = (table[[n + 1, j]] - table[[n, j]]) / self.width();
                    (table[[n, j]] + slope * here, slope)
                };
                let piece = Piece { l: linear(self.l()), s: linear(self.s()), b: linear(self.b()) };
                piece.advance(integrals, at - from, next - at);
            }
            at = next;
        }
        integrals
    }
}

/// Row k: the weights of the values of g at `offsets` in its k-th derivative at offset 0, the first of them.
fn taylor_weights(offsets: &[f64], derivatives: Derivatives) -> Result<Vec<Vec<f64>>> {
    let n = offsets.len();
    let mut rows = vec![vec![0.0; n]; n];
    let mut factorial = 1.0;
    for k in 0..n {
        if k > 0 {
            factorial *= k as f64;
        }
        // The k-th derivative from the values at the first k + 1 places: k! times their divided difference.
        for (i, &own) in offsets[..=k].iter().enumerate() {
            let others = offsets[..=k].iter().enumerate().filter(|(j, _)| *j != i);
            rows[k][i] = factorial / others.map(|(_, other)| own - other).product::<f64>();
        }
    }
    if rows.iter().flatten().any(|w| !w.is_finite()) {
        return Err(Error::Numerical("DPM-Solver-v3 has two outputs at one place".into()));
    }
    if derivatives == Derivatives::Full && n == 3 {
        // Newton's polynomial has g' = g[0, 1] − (x₁ − x₀) g[0, 1, 2] at x₀.
        let correction = 0.5 * offsets[1];
        let second = rows[2].clone();
        rows[1].iter_mut().zip(second).for_each(|(first, second)| *first -= correction * second);
    }
    Ok(rows)
}

/// The derivative (K, d) of a function of λ whose values at three equally spaced places are `values`, at place `which`.
pub(super) fn slope(values: [&Array2<f64>; 3], which: usize, width: f64) -> Array2<f64> {
    let weights = [[-1.5, 2.0, -0.5], [-0.5, 0.0, 0.5], [0.5, -2.0, 1.5]][which].map(|w| w / width);
    let mut slope = Array2::zeros(values[0].dim());
    Zip::from(&mut slope)
        .and(values[0])
        .and(values[1])
        .and(values[2])
        .for_each(|d, &a, &b, &c| *d = weights[0] * a + weights[1] * b + weights[2] * c);
    slope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_of_polynomials_are_exact_and_pseudo_ones_are_divided_differences() {
        // g = 2 + 3 x − 4 x² at offsets 0, −0.5, −1.2.
        let offsets = [0.0, -0.5, -1.2];
        let g = offsets.map(|x| 2.0 + 3.0 * x - 4.0 * x * x);
        let derivative = |kind| -> Vec<f64> {
            let rows = taylor_weights(&offsets, kind).unwrap();
            rows.iter().map(|row| row.iter().zip(g).map(|(w, g)| w * g).sum()).collect()
        };
        for (value, exact) in derivative(Derivatives::Full).iter().zip([2.0, 3.0, -8.0]) {
            assert!((value - exact).abs() < 1e-12);
        }
        // g[0, −0.5] = 3 + 4 · 0.5
        for (value, exact) in derivative(Derivatives::Pseudo).iter().zip([2.0, 5.0, -8.0]) {
            assert!((value - exact).abs() < 1e-12);
        }
        assert!(taylor_weights(&[0.0, 0.0], Derivatives::Full).is_err());
    }

    #[test]
    fn integrals_of_constants_are_closed_forms_in_both_directions() {
        let (l, s, b) = (0.7, -0.4, 1.3);
        let table = |value| Array2::from_elem((41, 1), value);
        let statistics = Statistics::new((-2.0, 2.0), table(l), table(s), table(b)).unwrap();
        for (from, to) in [(-1.7, 0.9), (0.9, -1.7), (-2.0, 2.0)] {
            let h: f64 = to - from;
            let i = statistics.integrate(from, to)[0];
            let close = |value: f64, exact: f64| {
                assert!((value - exact).abs() < 1e-7 * exact.abs().max(1.0), "{value} {exact}")
            };
            close(i.l, l * h);
            close(i.s, s * h);
            close(i.b, b * (1.0 - (-s * h).exp()) / s);
            let rate: f64 = l + s;
            close(i.moments[0], (rate * h).exp_m1() / rate);
            close(i.moments[1], h * (rate * h).exp() / rate - (rate * h).exp_m1() / (rate * rate));
            close(i.shift, b / s * ((rate * h).exp_m1() / rate - (l * h).exp_m1() / l));
        }
    }
}
