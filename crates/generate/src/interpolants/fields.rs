//! The pair of fields that a bridge is known by: its velocity and its score.

use super::Interpolant;
use crate::ode::Field;
use ndarray::{Array1, Array2, ArrayView2, Zip};
use offprint_core::{Error, Result};

/// Velocity b(t, x) = E\[ẋ_t | x_t = x\] and score s(t, x) = ∇ log ρ(t, x) of a bridge, exact or learnt.
///
/// With them the density solves ∂_t ρ + div(b ρ) = 0, and for every ε ≥ 0 ∂_t ρ + div((b ± ε s) ρ) = ± ε Δρ
/// (Theorem 6, Corollary 10). Rows are independent points, all at the same time.
pub trait Fields: Sync {
    /// Components d of a point.
    fn dim(&self) -> usize;

    /// The bridge.
    fn path(&self) -> &Interpolant;

    /// b and s (n, d each) at the points `x` (n, d).
    fn both(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<(Array2<f64>, Array2<f64>)>;

    /// b (n, d) alone.
    fn velocity(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        Ok(self.both(x, t)?.0)
    }

    /// div b and div s (n each), where there is a closed form.
    fn divergences(&self, _x: ArrayView2<'_, f64>, _t: f64) -> Result<Option<(Array1<f64>, Array1<f64>)>> {
        Ok(None)
    }

    /// The drift b + ε s (n, d) of the process that runs forward, or with a negative ε of the one that runs backward.
    fn drift(&self, x: ArrayView2<'_, f64>, t: f64, epsilon: f64) -> Result<Array2<f64>> {
        if epsilon == 0.0 {
            return self.velocity(x, t);
        }
        let (mut drift, score) = self.both(x, t)?;
        drift.scaled_add(epsilon, &score);
        Ok(drift)
    }

    /// E\[x₁ | x_t = x\] (n, d).
    fn end(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        let (velocity, score) = self.both(x, t)?;
        self.path().end(x, t, (velocity.view(), score.view()))
    }
}

/// The ordinary differential equation dX = b dt of [`Fields`]: a flow of the field, with every solver and likelihood.
#[derive(Clone, Copy)]
pub struct Flow<'a>(
    /// The fields.
    pub &'a dyn Fields,
);

impl Field for Flow<'_> {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn velocity(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        self.0.velocity(x, t)
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Option<Array1<f64>>> {
        Ok(self.0.divergences(x, t)?.map(|(velocity, _)| velocity))
    }
}

/// Fields that are wrong by a known amount: b + δ sin(ω x_j) in every coordinate j.
///
/// The error has the same size δ²/2 in the mean square for every ω, while its slope grows with ω: what tells a flow from
/// a diffusion (Theorem 23 beside Lemma 21).
#[derive(Clone, Copy)]
pub struct Rippled<'a> {
    fields: &'a dyn Fields,
    amplitude: f64,
    frequency: f64,
}

impl<'a> Rippled<'a> {
    /// `fields` with ripples of the given `amplitude` δ and `frequency` ω.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn new(fields: &'a dyn Fields, amplitude: f64, frequency: f64) -> Result<Self> {
        if !(amplitude.is_finite() && frequency.is_finite()) {
            return Err(Error::parameter("ripple", format!("{amplitude} sin({frequency} x)"), "finite"));
        }
        Ok(Self { fields, amplitude, frequency })
    }
}

impl Fields for Rippled<'_> {
    fn dim(&self) -> usize {
        self.fields.dim()
    }

    fn path(&self) -> &Interpolant {
        self.fields.path()
    }

    fn both(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<(Array2<f64>, Array2<f64>)> {
        let (mut velocity, score) = self.fields.both(x, t)?;
        Zip::from(&mut velocity).and(&x).for_each(|b, &x| *b += self.amplitude * (self.frequency * x).sin());
        Ok((velocity, score))
    }

    fn divergences(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Option<(Array1<f64>, Array1<f64>)>> {
        let slope = |x: &f64| self.amplitude * self.frequency * (self.frequency * x).cos();
        Ok(self.fields.divergences(x, t)?.map(|(mut velocity, score)| {
            Zip::from(&mut velocity).and(x.rows()).for_each(|b, x| *b += x.iter().map(slope).sum::<f64>());
            (velocity, score)
        }))
    }
}
