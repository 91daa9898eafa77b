//! Consumers of linear operators against explicit matrices.

use ndarray::{Array2, aview1};
use offprint_core::Progress;
use offprint_core::random::{Stream, Streams};
use offprint_curvature::{
    Deflated, EmpiricalFisher, Explicit, LinearOperator, Product, Shifted, Until, conjugate_gradients, diagonal,
    lanczos, lissa, power_iteration, power_iteration_until, spectrum, trace, trace_until, vector,
};
use offprint_math::linalg::{eigh, solve};
use proptest::prelude::*;

fn stream(seed: u64) -> Stream {
    Streams::new(seed).stream("tests")
}

fn symmetric(n: usize, seed: u64) -> Array2<f64> {
    let a = Array2::from_shape_vec((n, n), vector::gaussian::<f64>(stream(seed), 0, n * n)).unwrap();
    (&a + &a.t()) / 2.0
}

fn positive(n: usize, seed: u64) -> Array2<f64> {
    let a = symmetric(n, seed);
    a.dot(&a) + Array2::<f64>::eye(n) * 0.1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_steps_of_lanczos_give_all_eigenvalues(n in 1usize..25, seed in 0u64..1000) {
        let a = symmetric(n, seed);
        let (values, _) = eigh(a.view()).unwrap();
        let operator = Explicit::new(a.view(), "a").unwrap();
        let start: Vec<f64> = vector::gaussian(stream(seed), 1, n);
        let found = lanczos(&operator, &start, n + 5, &Progress::silent()).unwrap();
        let ritz = found.ritz().unwrap();
        prop_assert_eq!(ritz.values.len(), n);
        for (i, (found, exact)) in ritz.values.iter().zip(&values).enumerate() {
            prop_assert!((found - exact).abs() < 1e-9 * (n as f64), "{} {} {}", i, found, exact);
        }
        prop_assert!((ritz.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let q = found.basis();
        let gap = (&q.dot(&q.t()) - &Array2::<f64>::eye(n)).iter().fold(0.0f64, |m, x| m.max(x.abs()));
        prop_assert!(gap < 1e-12, "the basis is orthonormal up to {}", gap);
        let top = found.vector(&ritz, n - 1);
        let image = a.dot(&aview1(&top));
        let error = image.iter().zip(&top).map(|(y, x)| (y - ritz.top().0 * x).powi(2)).sum::<f64>().sqrt();
        prop_assert!(error < 1e-8);
    }

    #[test]
    fn a_ritz_value_lies_within_its_residual_of_an_eigenvalue(n in 10usize..30, steps in 1usize..9, seed in 0u64..1000) {
        let a = symmetric(n, seed);
        let (values, _) = eigh(a.view()).unwrap();
        let start: Vec<f64> = vector::rademacher(stream(seed), 1, n);
        let operator = Explicit::new(a.view(), "a").unwrap();
        let ritz = lanczos(&operator, &start, steps, &Progress::silent()).unwrap().ritz().unwrap();
        for (value, residual) in ritz.values.iter().zip(&ritz.residuals) {
            let nearest = values.iter().map(|v| (v - value).abs()).fold(f64::INFINITY, f64::min);
            prop_assert!(nearest <= residual + 1e-10);
        }
    }

    #[test]
    fn conjugate_gradients_solve(n in 1usize..30, seed in 0u64..1000) {
        let a = positive(n, seed);
        let b: Vec<f64> = vector::gaussian(stream(seed), 1, n);
        let exact = solve(a.view(), aview1(&b).insert_axis(ndarray::Axis(1))).unwrap();
        let operator = Explicit::new(a.view(), "a").unwrap();
        let found = conjugate_gradients(&operator, &b, 1e-12, 40 * n, &Progress::silent()).unwrap();
        prop_assert!(found.residual <= 1e-12);
        for (x, y) in found.x.iter().zip(&exact) {
            prop_assert!((x - y).abs() < 1e-7 * (1.0 + y.abs()));
        }
    }
}

#[test]
fn lanczos_stops_where_the_krylov_space_ends() {
    // Three different eigenvalues: three steps, whatever the size.
    let n = 40;
    let operator = Product::new(n, move |x: &[f32], y: &mut [f32]| {
        (0..n).for_each(|i| y[i] = (i % 3) as f32 * x[i]);
        Ok(())
    });
    let start: Vec<f32> = vector::gaussian(stream(0), 0, n);
    let found = lanczos(&operator, &start, 20, &Progress::silent()).unwrap();
    let ritz = found.ritz().unwrap();
    assert_eq!(ritz.values.len(), 3);
    assert!(ritz.values.iter().zip([0.0, 1.0, 2.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", ritz.values);
    assert!(lanczos(&operator, &vec![0.0; n], 5, &Progress::silent()).is_err());
    assert!(lanczos(&operator, &start[1..], 5, &Progress::silent()).is_err());
    assert!(lanczos(&operator, &start, 0, &Progress::silent()).is_err());
}

#[test]
fn power_iteration_finds_the_largest_magnitude_and_deflation_the_next() {
    let mut a = Array2::<f64>::zeros((3, 3));
    a.diag_mut().assign(&ndarray::arr1(&[1.0, -5.0, 3.0]));
    let operator = Explicit::new(a.view(), "a").unwrap();
    let first = power_iteration(&operator, 1e-10, 1000, stream(1)).unwrap();
    assert!((first.value + 5.0).abs() < 1e-9 && first.residual < 1e-9);
    let found = Array2::from_shape_vec((1, 3), first.vector).unwrap();
    let second = power_iteration(&Deflated::new(operator, found.view()), 1e-10, 1000, stream(2)).unwrap();
    assert!((second.value - 3.0).abs() < 1e-9);
    assert!(power_iteration(&operator, 0.1, 0, stream(1)).is_err());
    let sooner = power_iteration_until(&operator, Until::Change(1e-3), 1000, stream(1)).unwrap();
    assert!(sooner.products < first.products && (sooner.value + 5.0).abs() < 0.05, "{sooner:?}");
    // A change is judged from the second product on; a zero operator ends at once.
    assert_eq!(power_iteration_until(&operator, Until::Change(1e9), 1000, stream(1)).unwrap().products, 2);
    let nothing = Array2::<f64>::zeros((3, 3));
    let dead = power_iteration_until(&Explicit::new(nothing.view(), "0").unwrap(), Until::Change(1e-3), 9, stream(1));
    assert_eq!((dead.as_ref().unwrap().value, dead.unwrap().products), (0.0, 1));
}

#[test]
fn a_trace_stops_when_its_mean_stands_still() {
    let diagonal = Array2::<f64>::from_diag(&ndarray::arr1(&[1.0, -5.0, 7.0]));
    let operator = Explicit::new(diagonal.view(), "a").unwrap();
    // Signs do not matter to a diagonal matrix: the second probe changes nothing.
    let (estimate, probes) = trace_until(&operator, 1e-3, 50, stream(1), &Progress::silent()).unwrap();
    assert_eq!((estimate.value, probes), (3.0, 2));
    assert!(trace_until(&operator, 1e-3, 0, stream(1), &Progress::silent()).is_err());
}

#[test]
fn quadrature_sums_over_the_spectrum() {
    let n = 60;
    let a = positive(n, 3);
    let (values, _) = eigh(a.view()).unwrap();
    let operator = Explicit::new(a.view(), "a").unwrap();
    // With all steps the quadrature is exact for each probe; only the probes' own spread is left.
    let spectrum = spectrum(&operator, 60, n, stream(3), &Progress::silent()).unwrap();
    for (estimate, exact) in [
        (spectrum.trace(), values.sum()),
        (spectrum.sum(|x| x * x), values.mapv(|x| x * x).sum()),
        (spectrum.sum(f64::ln), values.mapv(f64::ln).sum()),
    ] {
        assert!((estimate.value - exact).abs() < 4.0 * estimate.error, "{estimate:?} {exact}");
        assert!(estimate.error < 0.1 * exact.abs());
    }
    assert!((spectrum.sum(|_| 1.0).value - n as f64).abs() < 1e-9);
    let (low, high) = spectrum.range();
    assert!((low - values[0]).abs() < 1e-8 && (high - values[n - 1]).abs() < 1e-8);
    // The smoothed density integrates to 1, and to the right share below the median.
    let width = 0.3;
    let grid: Vec<f64> = (0..4000).map(|i| low - 3.0 + (high - low + 6.0) * f64::from(i) / 3999.0).collect();
    let density = spectrum.density(&grid, width);
    let step = grid[1] - grid[0];
    assert!((density.iter().sum::<f64>() * step - 1.0).abs() < 1e-3);
    let median = (values[n / 2 - 1] + values[n / 2]) / 2.0;
    let below: f64 = grid.iter().zip(&density).filter(|(x, _)| **x < median).map(|(_, d)| d * step).sum();
    assert!((below - 0.5).abs() < 0.08, "{below}");
}

#[test]
fn hutchinson_estimates_trace_and_diagonal() {
    let n = 50;
    let a = positive(n, 4);
    let operator = Explicit::new(a.view(), "a").unwrap();
    let estimate = trace(&operator, 200, stream(4), &Progress::silent()).unwrap();
    assert!((estimate.value - a.diag().sum()).abs() < 4.0 * estimate.error);
    // The standard error is the one derived: sqrt(2 Σ_{i≠j} A_ij² / probes).
    let off: f64 = a.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, x)| x * x).sum();
    assert!((estimate.error / (2.0 * off / 200.0).sqrt() - 1.0).abs() < 0.25);
    let found = diagonal(&operator, 400, stream(4), &Progress::silent()).unwrap();
    for i in 0..n {
        let spread = (a.row(i).dot(&a.row(i)) - a[[i, i]].powi(2)).sqrt() / 20.0;
        assert!((found[i] - a[[i, i]]).abs() < 5.0 * spread);
    }
    // A diagonal matrix is exact from one probe.
    let identity = Array2::eye(9) * 3.0;
    let operator = Explicit::new(identity.view(), "a").unwrap();
    assert_eq!(diagonal(&operator, 1, stream(5), &Progress::silent()).unwrap(), [3.0; 9]);
    assert!(trace(&operator, 0, stream(5), &Progress::silent()).is_err());
}

#[test]
fn lissa_sums_the_neumann_series() {
    let n = 20;
    let a = positive(n, 6);
    let (values, _) = eigh(a.view()).unwrap();
    let b: Vec<f64> = vector::gaussian(stream(6), 1, n);
    let damping = 0.5;
    let exact =
        solve((&a + &(Array2::<f64>::eye(n) * damping)).view(), aview1(&b).insert_axis(ndarray::Axis(1))).unwrap();
    let operator = Explicit::new(a.view(), "a").unwrap();
    let scale = 0.9 / (values[n - 1] + damping);
    let product = |_: usize, x: &[f64], y: &mut [f64]| operator.apply(x, y);
    let found = lissa(product, &b, damping, scale, 4000, &Progress::silent()).unwrap();
    assert!(found.iter().zip(&exact).all(|(x, y)| (x - y).abs() < 1e-9));
    let error = lissa(product, &b, damping, 3.0, 4000, &Progress::silent()).unwrap_err().to_string();
    assert!(error.starts_with("scale"), "{error}");
}

#[test]
fn operators_are_their_matrices() {
    let g = Array2::from_shape_vec((4, 9), vector::gaussian::<f64>(stream(7), 0, 36)).unwrap();
    let x: Vec<f64> = vector::gaussian(stream(7), 1, 9);
    let mut y = vec![9.0; 9];
    let fisher = EmpiricalFisher::new(g.view()).unwrap();
    Shifted { operator: fisher, shift: 0.3 }.apply(&x, &mut y).unwrap();
    let expected = g.t().dot(&g).dot(&aview1(&x)) / 4.0 + aview1(&x).mapv(|x| 0.3 * x);
    assert!(y.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12));
    let lopsided = ndarray::arr2(&[[1.0, 2.0], [2.1, 1.0]]);
    assert!(Explicit::new(lopsided.view(), "h.npy").unwrap_err().to_string().contains("not symmetric"));
    assert!(Explicit::new(g.view(), "h.npy").unwrap_err().to_string().contains("square"));
    assert!(EmpiricalFisher::new(g.t()).is_err());
}

#[test]
fn indefinite_and_failing_operators_are_told() {
    let a = ndarray::arr2(&[[1.0, 0.0], [0.0, -1.0]]);
    let operator = Explicit::new(a.view(), "a").unwrap();
    let error = conjugate_gradients(&operator, &[0.1, 1.0], 1e-9, 10, &Progress::silent()).unwrap_err().to_string();
    assert!(error.contains("not positive definite"), "{error}");
    let broken = Product::new(2, |_: &[f64], y: &mut [f64]| {
        y.fill(f64::NAN);
        Ok(())
    });
    assert!(trace(&broken, 1, stream(0), &Progress::silent()).unwrap_err().to_string().contains("NaN"));
}
