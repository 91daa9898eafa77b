//! Bin observations: short transforms of subsampled values (§3).

use super::design::{Design, Group};
use super::gf2::{odd, sign};
use super::query::Query;
use super::value::Value;
use offprint_core::{Error, Result};

/// What every bin of every group shows through its delays.
///
/// `U_c[j]` is a vector over the P delays: the sum of `X[k] s_k` over the k in the bin, `s_k = ((−1)^{⟨d_p, k⟩})_p`,
/// plus noise of variance ν² = σ²/B.
#[derive(Debug, Clone)]
pub struct Bins<T> {
    /// Per group, shape (B, P) row by row.
    pub groups: Vec<Vec<T>>,
    /// The largest modulus among the values that were looked at.
    pub largest: f64,
}

impl<T: Value> Bins<T> {
    /// Asks for the values that `design` needs and transforms them.
    ///
    /// # Errors
    /// The query fails, or a value is not finite.
    pub fn observe(design: &Design, query: &mut dyn Query<T>) -> Result<Self> {
        let mut bins = Self { groups: Vec::with_capacity(design.groups.len()), largest: 0.0 };
        if query.is_table() {
            for group in &design.groups {
                let indices = group.indices();
                let mut values = vec![T::default(); indices.len()];
                query.query(&indices, &mut values)?;
                bins.push(group, &indices, values)?;
            }
        } else {
            let needed = design.indices();
            let mut known = vec![T::default(); needed.len()];
            query.query(&needed, &mut known)?;
            for group in &design.groups {
                let indices = group.indices();
                let find = |i: &u64| known[needed.binary_search(i).expect("the design lists its groups' indices")];
                let values = indices.iter().map(find).collect();
                bins.push(group, &indices, values)?;
            }
        }
        Ok(bins)
    }

    /// What a noiseless function with these coefficients would show, without looking at it.
    pub fn of_spectrum(design: &Design, spectrum: &[(u64, T)]) -> Self {
        let groups = design.groups.iter().map(|g| vec![T::default(); g.bins() * g.delays.len()]).collect();
        let mut bins = Self { groups, largest: spectrum.iter().map(|x| x.1.modulus()).sum() };
        for &(k, x) in spectrum {
            for (c, group) in design.groups.iter().enumerate() {
                bins.subtract(group, c, group.bin(k), group.rest(k), -x);
            }
        }
        bins
    }

    fn push(&mut self, group: &Group, indices: &[u64], mut values: Vec<T>) -> Result<()> {
        for (value, index) in values.iter().zip(indices) {
            let size = value.modulus();
            if !size.is_finite() {
                return Err(not_finite(*index, *value));
            }
            self.largest = self.largest.max(size);
        }
        let (delays, bins) = (group.delays.len(), group.bins());
        T::transform_columns(&mut values, delays);
        let scale = 1.0 / bins as f64;
        values.iter_mut().for_each(|u| *u = u.scaled(scale));
        self.groups.push(values);
        Ok(())
    }

    /// The observation of bin j of group c.
    pub fn bin(&self, group: &Group, c: usize, j: usize) -> &[T] {
        let delays = group.delays.len();
        &self.groups[c][j * delays..][..delays]
    }

    /// Takes the coefficient x with rest r out of bin j of group c.
    pub fn subtract(&mut self, group: &Group, c: usize, j: usize, r: u64, x: T) {
        let delays = group.delays.len();
        for (u, &delta) in self.groups[c][j * delays..][..delays].iter_mut().zip(&group.delays) {
            *u -= x.signed(odd(delta, r));
        }
    }

    /// The coefficient with rest r that fits bin j of group c best: s_rᵀ U / P.
    pub fn fit(&self, group: &Group, c: usize, j: usize, r: u64) -> T {
        fit(self.bin(group, c, j), &group.delays, r)
    }
}

/// s_rᵀ U / P.
pub fn fit<T: Value>(u: &[T], delays: &[u64], r: u64) -> T {
    let mut sum = T::default();
    for (&u, &delta) in u.iter().zip(delays) {
        sum += u.signed(odd(delta, r));
    }
    sum.scaled(1.0 / u.len() as f64)
}

/// ‖U − x s_r‖² / P.
pub fn misfit<T: Value>(u: &[T], delays: &[u64], r: u64, x: T) -> f64 {
    let squares: f64 = u.iter().zip(delays).map(|(&u, &delta)| (u - x.scaled(sign(delta, r))).norm_squared()).sum();
    squares / u.len() as f64
}

/// ‖U‖² / P.
pub fn energy<T: Value>(u: &[T]) -> f64 {
    u.iter().map(|u| u.norm_squared()).sum::<f64>() / u.len() as f64
}

pub(super) fn not_finite<T: Value>(index: u64, value: T) -> Error {
    let (re, im) = value.parts();
    let value = if im == 0.0 { re.to_string() } else { format!("{re} + {im} i") };
    Error::input("values", format!("the value at index {index} is {value}; every value must be finite"))
}
