//! Special functions that the standard library does not have.

/// ln Γ(x) for x > 0, to about 14 digits: Stirling's series, after shifting small arguments up by Γ(x + 1) = x Γ(x).
/// NaN elsewhere.
pub fn ln_gamma(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return f64::NAN;
    }
    // B₂ₖ/(2k(2k − 1)) of the series, k = 1 … 7; from 10 on the next term is below 1e-16.
    const TERMS: [f64; 7] =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0, 1.0 / 156.0];
    let (mut z, mut shift) = (x, 1.0);
    while z < 10.0 {
        shift *= z;
        z += 1.0;
    }
    let inverse = 1.0 / z;
    let series = TERMS.iter().rev().fold(0.0, |sum, term| sum * inverse * inverse + term) * inverse;
    (z - 0.5) * z.ln() - z + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_has_its_factorials_and_half_integers() {
        let mut factorial = 1.0f64;
        for n in 1..100u32 {
            let exact = factorial.ln();
            assert!((ln_gamma(f64::from(n)) - exact).abs() < 1e-13 * exact.max(1.0), "{n}");
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - 0.5 * std::f64::consts::PI.ln()).abs() < 1e-14);
        // Γ(7/2) = 15 √π/8.
        assert!((ln_gamma(3.5) - (15.0 / 8.0 * std::f64::consts::PI.sqrt()).ln()).abs() < 1e-13);
        assert!(ln_gamma(0.0).is_nan() && ln_gamma(f64::NAN).is_nan());
    }
}
