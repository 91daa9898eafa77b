//! The jump process: particles that are killed and born in place of weights.

use super::resample::Scheme;
use offprint_core::random::Rng;
use rand::RngExt;

/// Where every particle comes from after a step in which log-weights would have grown by `increments` (K).
///
/// With h = increment − mean: particle k is killed at the rate h⁻, that is with probability 1 − e^{−h⁻}, and one drawn
/// in proportion to h⁺ takes its place. In the limit of small steps the law is that of weighted particles (appendix of
/// the paper); the exponential clocks are exact for rates that stay constant in the step.
pub fn jump(increments: &[f64], rng: &mut Rng) -> Vec<usize> {
    let mean = increments.iter().sum::<f64>() / increments.len() as f64;
    let mut ancestors: Vec<usize> = (0..increments.len()).collect();
    let killed: Vec<usize> = ancestors
        .iter()
        .copied()
        .filter(|&k| rng.random::<f64>() < -(-(mean - increments[k]).max(0.0)).exp_m1())
        .collect();
    let births: Vec<f64> = increments.iter().map(|g| (g - mean).max(0.0)).collect();
    if killed.is_empty() || births.iter().all(|b| *b == 0.0) {
        return ancestors;
    }
    let born = Scheme::Systematic.draw(&births, killed.len(), rng);
    killed.into_iter().zip(born).for_each(|(k, b)| ancestors[k] = b);
    ancestors
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;

    #[test]
    fn small_steps_move_mass_as_weights_would() {
        // Two groups of 20000; the first grows at rate 1, the second at 0: after u its part is e^u/(1 + e^u).
        let (count, steps, span) = (40_000, 100, 1.0);
        let mut group: Vec<f64> = (0..count).map(|k| f64::from(u8::from(k < count / 2))).collect();
        let stream = Streams::new(4).stream("jump");
        for step in 0..steps {
            let increments: Vec<f64> = group.iter().map(|g| g * span / f64::from(steps)).collect();
            let ancestors = jump(&increments, &mut stream.rng(step as u64));
            group = ancestors.into_iter().map(|k| group[k]).collect();
        }
        let part = group.iter().sum::<f64>() / count as f64;
        let exact = span.exp() / (1.0 + span.exp());
        // Noise 0.004, discretisation below 0.002.
        assert!((part - exact).abs() < 0.012, "{part} {exact}");
    }

    #[test]
    fn equal_increments_change_nothing() {
        let mut rng = Streams::new(1).stream("jump").rng(0);
        assert_eq!(jump(&[2.0; 5], &mut rng), [0, 1, 2, 3, 4]);
    }
}
