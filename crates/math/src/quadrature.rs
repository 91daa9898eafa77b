//! Rules for integrals.

use std::f64::consts::PI;

/// Nodes (ascending) and weights of the `n`-point Gauss–Legendre rule on \[−1, 1\]: exact for polynomials up to degree
/// 2n − 1. Newton's method on the Legendre polynomial, O(n²).
pub fn gauss_legendre(n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut nodes, mut weights) = (vec![0.0; n], vec![0.0; n]);
    for i in 0..n {
        // A guess close enough for Newton's method to find root i and no other.
        let mut x = -(PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..100 {
            let (value, derivative) = legendre(n, x);
            slope = derivative;
            let step = value / derivative;
            x -= step;
            if step.abs() < 1e-16 {
                break;
            }
        }
        nodes[i] = x;
        weights[i] = 2.0 / ((1.0 - x * x) * slope * slope);
    }
    (nodes, weights)
}

/// The Legendre polynomial of degree `n` and its derivative at −1 < x < 1.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut before, mut now) = (1.0, x);
    if n == 0 {
        return (1.0, 0.0);
    }
    for k in 2..=n {
        let k = k as f64;
        (before, now) = (now, ((2.0 * k - 1.0) * x * now - (k - 1.0) * before) / k);
    }
    (now, n as f64 * (x * now - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_up_to_twice_the_points_are_exact() {
        for n in [1, 2, 5, 16] {
            let (nodes, weights) = gauss_legendre(n);
            assert!(nodes.windows(2).all(|w| w[0] < w[1]));
            for power in 0..2 * n as i32 {
                let sum: f64 = nodes.iter().zip(&weights).map(|(x, w)| w * x.powi(power)).sum();
                let exact = if power % 2 == 0 { 2.0 / f64::from(power + 1) } else { 0.0 };
                assert!((sum - exact).abs() < 1e-13, "n = {n}, power {power}: {sum}");
            }
        }
    }
}
