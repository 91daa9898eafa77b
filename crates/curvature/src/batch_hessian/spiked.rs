//! Where sampling noise moves the extreme eigenvalues of a matrix: spiked random-matrix laws.
//!
//! A mini-batch's Hessian is the full one plus noise. Eigenvalues of the full matrix that stand out of the noise
//! (spikes) are pushed outwards, the others drown in the noise's bulk.

/// Symmetric noise with independent entries added to a matrix (Wigner): P × P, entries of variance `variance`/P, so that
/// its eigenvalues fill a semicircle of radius 2 √variance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdditiveNoise {
    /// P times the variance of an entry; s²/𝔟 for the Hessian of a batch.
    pub variance: f64,
}

impl AdditiveNoise {
    /// The largest eigenvalue of the noise alone, 2 √variance.
    pub fn edge(self) -> f64 {
        2.0 * self.variance.sqrt()
    }

    /// Where the spike `lambda` (of either sign) goes: λ + variance/λ if |λ| > √variance, and the edge of the bulk on
    /// its side otherwise (a spike of zero counts as positive).
    pub fn spike(self, lambda: f64) -> f64 {
        match lambda.abs() > self.variance.sqrt() {
            true => lambda + self.variance / lambda,
            false => self.edge().copysign(lambda),
        }
    }

    /// The squared overlap of the noisy eigenvector with the true one: 1 − variance/λ² above the threshold, 0 below.
    pub fn overlap(self, lambda: f64) -> f64 {
        if lambda.abs() > self.variance.sqrt() { 1.0 - self.variance / (lambda * lambda) } else { 0.0 }
    }

    /// Where the spike `lambda` goes if the rest of the matrix has a spectrum of its own, given as `(place, weight)`
    /// with weights of sum 1: λ + variance · g(λ), g(λ) = ∫ dμ(x)/(λ − x). `None` where the spike drowns, which is
    /// where variance · ∫ dμ(x)/(λ − x)² reaches 1.
    pub fn spike_over(self, lambda: f64, bulk: &[(f64, f64)]) -> Option<f64> {
        // Also false where the spike lies on a place of the bulk and the sum is infinite or NaN.
        (self.variance * spread(lambda, bulk) < 1.0).then(|| lambda + self.variance * stieltjes(lambda, bulk))
    }

    /// The largest eigenvalue of the noise added to a matrix with the spectrum `bulk`: x + variance · g(x) at the x
    /// above the bulk where variance · ∫ dμ(t)/(x − t)² is 1. With the whole bulk at zero it is [`Self::edge`].
    pub fn edge_over(self, bulk: &[(f64, f64)]) -> f64 {
        let highest = bulk.iter().fold(f64::NEG_INFINITY, |highest, (place, _)| highest.max(*place));
        // Weights sum to 1, so the spread has fallen to 1/variance at √variance above the highest place.
        let (mut low, mut high) = (highest, highest + self.variance.sqrt());
        while low < (low + high) / 2.0 && (low + high) / 2.0 < high {
            let middle = (low + high) / 2.0;
            if self.variance * spread(middle, bulk) > 1.0 { low = middle } else { high = middle }
        }
        if high > highest { high + self.variance * stieltjes(high, bulk) } else { highest }
    }
}

/// g(x) = ∫ dμ(t)/(x − t).
fn stieltjes(x: f64, bulk: &[(f64, f64)]) -> f64 {
    bulk.iter().map(|(place, weight)| weight / (x - place)).sum()
}

/// ∫ dμ(t)/(x − t)².
fn spread(x: f64, bulk: &[(f64, f64)]) -> f64 {
    bulk.iter().map(|(place, weight)| weight / (x - place).powi(2)).sum()
}

/// A covariance estimated from few samples (Marchenko–Pastur): B samples in P dimensions of population variance
/// `variance` but for a few spikes, as in the generalised Gauss–Newton matrix of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiplicativeNoise {
    /// q = P/B.
    pub ratio: f64,
    /// The population's eigenvalue outside of its spikes, σ².
    pub variance: f64,
}

impl MultiplicativeNoise {
    /// The upper edge of the bulk, σ² (1 + √q)².
    pub fn edge(self) -> f64 {
        self.variance * (1.0 + self.ratio.sqrt()).powi(2)
    }

    /// The lower edge of the bulk, σ² (1 − √q)², and 0 where the batch has fewer samples than dimensions.
    pub fn lower_edge(self) -> f64 {
        if self.ratio < 1.0 { self.variance * (1.0 - self.ratio.sqrt()).powi(2) } else { 0.0 }
    }

    /// Where a spike `lambda` above σ² goes: λ (1 + q σ²/(λ − σ²)) if λ > σ² (1 + √q), and the edge otherwise.
    pub fn spike(self, lambda: f64) -> f64 {
        match lambda > self.variance * (1.0 + self.ratio.sqrt()) {
            true => lambda * (1.0 + self.ratio * self.variance / (lambda - self.variance)),
            false => self.edge(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::gaussian;
    use ndarray::Array2;
    use offprint_core::random::Streams;
    use offprint_math::linalg::{eigh, matmul};

    fn normal(rows: usize, columns: usize, index: u64) -> Array2<f64> {
        let stream = Streams::new(11).stream("spiked");
        Array2::from_shape_vec((rows, columns), gaussian(stream, index, rows * columns)).unwrap()
    }

    #[test]
    fn additive_spikes_go_where_the_law_says() {
        let p = 600;
        let noise = {
            let a = normal(p, p, 0);
            (&a + &a.t()) / (2.0 * p as f64).sqrt()
        };
        for batch in [0.25, 1.0, 4.0] {
            let law = AdditiveNoise { variance: 1.0 / batch };
            let mut matrix = &noise / f64::sqrt(batch);
            let spikes = [4.0, 2.5, -1.5];
            spikes.iter().enumerate().for_each(|(i, spike)| matrix[[i, i]] += spike);
            let (values, vectors) = eigh(matrix.view()).unwrap();
            let close = |found: f64, law: f64| assert!((found / law - 1.0).abs() < 0.05, "{batch}: {found} {law}");
            close(values[p - 1], law.spike(4.0));
            close(values[p - 2], law.spike(2.5));
            close(values[0], law.spike(-1.5));
            let overlap = vectors[[0, p - 1]].powi(2);
            assert!((overlap - law.overlap(4.0)).abs() < 0.08, "{batch}: {overlap} {}", law.overlap(4.0));
        }
        assert_eq!(AdditiveNoise { variance: 4.0 }.spike(-1.0), -4.0);
    }

    #[test]
    fn a_bulk_of_its_own_pushes_spikes_further() {
        // Half of the eigenvalues at 0, half at 1, a spike at 4.
        let (p, law) = (600, AdditiveNoise { variance: 1.0 });
        let a = normal(p, p, 1);
        let mut matrix = (&a + &a.t()) / (2.0 * p as f64).sqrt();
        (0..p / 2).for_each(|i| matrix[[i, i]] += 1.0);
        matrix[[p - 1, p - 1]] += 4.0;
        let (values, _) = eigh(matrix.view()).unwrap();
        let bulk = [(0.0, 0.5), (1.0, 0.5)];
        let expected = law.spike_over(4.0, &bulk).unwrap();
        // 4 + ½/4 + ½/3.
        assert!((expected - (4.0 + 0.125 + 1.0 / 6.0)).abs() < 1e-12);
        assert!((values[p - 1] / expected - 1.0).abs() < 0.03, "{} {expected}", values[p - 1]);
        assert_eq!(law.spike_over(1.2, &bulk), None);
        // Without the spike the edge is the largest eigenvalue.
        matrix[[p - 1, p - 1]] -= 4.0;
        let (values, _) = eigh(matrix.view()).unwrap();
        assert!(
            (values[p - 1] / law.edge_over(&bulk) - 1.0).abs() < 0.03,
            "{} {}",
            values[p - 1],
            law.edge_over(&bulk)
        );
        assert!((law.edge_over(&[(0.0, 1.0)]) - law.edge()).abs() < 1e-9);
        assert_eq!(AdditiveNoise { variance: 0.0 }.edge_over(&bulk), 1.0);
        // Over a bulk at zero it is the plain law.
        assert_eq!(law.spike_over(3.0, &[(0.0, 1.0)]), Some(law.spike(3.0)));
    }

    #[test]
    fn covariance_spikes_go_where_the_law_says() {
        let p = 400;
        for ratio in [0.25, 1.0, 4.0] {
            let samples = (p as f64 / ratio) as usize;
            let law = MultiplicativeNoise { ratio, variance: 1.0 };
            let mut x = normal(samples, p, 2);
            x.column_mut(0).mapv_inplace(|x| x * 8f64.sqrt());
            let covariance = matmul(x.t(), x.view()) / samples as f64;
            let (values, _) = eigh(covariance.view()).unwrap();
            assert!(
                (values[p - 1] / law.spike(8.0) - 1.0).abs() < 0.2,
                "{ratio}: {} {}",
                values[p - 1],
                law.spike(8.0)
            );
            assert!((values[p - 2] / law.edge() - 1.0).abs() < 0.06, "{ratio}: {} {}", values[p - 2], law.edge());
            assert_eq!(law.spike(1.0 + 0.9 * ratio.sqrt()), law.edge());
        }
    }
}
