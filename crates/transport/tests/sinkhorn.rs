//! Entropic transport against POT, closed forms and its own optimality conditions.

use ndarray::{Array1, Array2, array};
use offprint_core::{Cancel, Error, Progress, Silent};
use offprint_transport::sinkhorn::{Options, half_squared_distances, sinkhorn};
use proptest::prelude::*;
use std::sync::Arc;

const TIGHT: Options = Options { tolerance: 1e-13, max_iterations: 100_000 };

fn points() -> (Array2<f64>, Array2<f64>, Array1<f64>, Array1<f64>) {
    let x = Array2::from_shape_fn(
        (6, 2),
        |(i, j)| if j == 0 { (1.0 + 3.0 * i as f64).sin() } else { (2.0 * i as f64).cos() },
    );
    let y = Array2::from_shape_fn(
        (4, 2),
        |(i, j)| if j == 0 { 1.0 + 0.5 * (i as f64).cos() } else { 0.3 * i as f64 - 0.5 },
    );
    (x, y, Array1::from_shape_fn(6, |i| (i + 1) as f64 / 21.0), array![0.4, 0.1, 0.2, 0.3])
}

#[test]
fn plans_are_those_of_pot() {
    // POT 0.9.7: ot.sinkhorn(a, b, .5 * ot.dist(x, y), reg, method="sinkhorn_log", stopThr=1e-14), first and last row.
    let expected = [
        (
            1.0,
            0.9860974058250882,
            [
                0.01690618310586147,
                0.005265075623875843,
                0.00999903317638848,
                0.015448755712921815,
                0.1295093876003606,
                0.03011530100810663,
                0.056531576663223636,
                0.06955802044259483,
            ],
        ),
        (
            0.05,
            0.8103063992097139,
            [
                3.071609780639467e-05,
                0.002216954380936084,
                0.015169447937742886,
                0.030201929202562258,
                0.12062643375151927,
                0.0252564015401622,
                0.13696019608247045,
                0.0028712543401338093,
            ],
        ),
    ];
    let (x, y, a, b) = points();
    let cost = half_squared_distances(x.view(), y.view());
    for (epsilon, transported, rows) in expected {
        let solution = sinkhorn(cost.view(), a.view(), b.view(), epsilon, TIGHT, &Progress::silent()).unwrap();
        assert!(solution.converged);
        let plan = solution.plan(cost.view(), a.view(), b.view());
        assert!(((&plan * &cost).sum() - transported).abs() < 1e-11);
        let ours = plan.row(0).iter().chain(plan.row(5)).copied().collect::<Vec<_>>();
        assert!(ours.iter().zip(rows).all(|(p, q)| (p - q).abs() < 1e-11), "{ours:?}");
    }
}

#[test]
fn out_of_sample_map_at_a_known_point_is_the_plans_row_mean() {
    let (x, y, a, b) = points();
    let cost = half_squared_distances(x.view(), y.view());
    let solution = sinkhorn(cost.view(), a.view(), b.view(), 0.3, TIGHT, &Progress::silent()).unwrap();
    let plan = solution.plan(cost.view(), a.view(), b.view());
    let mapped = solution.barycentric_map(cost.view(), b.view(), y.view());
    for i in 0..6 {
        let mean = plan.row(i).dot(&y) / a[i];
        assert!((&mean - &mapped.row(i)).iter().all(|d| d.abs() < 1e-10));
    }
}

#[test]
fn tiny_epsilon_gives_the_assignment_without_overflow() {
    let cost = array![[0.0, 400.0, 900.0], [400.0, 0.0, 500.0], [900.0, 500.0, 0.0]];
    let third = Array1::from_elem(3, 1.0 / 3.0);
    let solution = sinkhorn(cost.view(), third.view(), third.view(), 1e-3, TIGHT, &Progress::silent()).unwrap();
    let plan = solution.plan(cost.view(), third.view(), third.view());
    assert!((&plan - &(Array2::<f64>::eye(3) / 3.0)).iter().all(|d| d.abs() < 1e-12));
}

#[test]
fn one_point_and_empty_masses_are_exact() {
    let solution =
        sinkhorn(array![[3.0]].view(), array![2.0].view(), array![2.0].view(), 0.1, TIGHT, &Progress::silent())
            .unwrap();
    assert!((solution.plan(array![[3.0]].view(), array![2.0].view(), array![2.0].view())[[0, 0]] - 2.0).abs() < 1e-12);
    let cost = array![[0.0, 1.0], [1.0, 0.0]];
    let (a, b) = (array![1.0, 0.0], array![0.25, 0.75]);
    let solution = sinkhorn(cost.view(), a.view(), b.view(), 0.1, TIGHT, &Progress::silent()).unwrap();
    let plan = solution.plan(cost.view(), a.view(), b.view());
    assert!((&plan - &array![[0.25, 0.75], [0.0, 0.0]]).iter().all(|d| d.abs() < 1e-12));
}

#[test]
fn unfinished_iterations_say_so_and_bound_their_error() {
    let (x, y, a, b) = points();
    let cost = half_squared_distances(x.view(), y.view());
    let few = Options { tolerance: 1e-12, max_iterations: 3 };
    let solution = sinkhorn(cost.view(), a.view(), b.view(), 0.02, few, &Progress::silent()).unwrap();
    let plan = solution.plan(cost.view(), a.view(), b.view());
    let rows = (&plan.sum_axis(ndarray::Axis(1)) - &a).mapv(f64::abs).sum();
    assert!(!solution.converged && solution.iterations == 3 && rows <= solution.marginal_error && rows > 1e-6);
}

#[test]
fn bad_input_is_named() {
    let ok = array![0.5, 0.5];
    let cost = array![[0.0, 1.0], [1.0, 0.0]];
    let message = |cost: &Array2<f64>, a: &Array1<f64>, b: &Array1<f64>, epsilon| {
        sinkhorn(cost.view(), a.view(), b.view(), epsilon, TIGHT, &Progress::silent()).unwrap_err().to_string()
    };
    assert_eq!(message(&cost, &ok, &ok, 0.0), "epsilon: got 0, but it must be above 0 and finite");
    assert!(message(&cost, &ok, &ok, f64::NAN).starts_with("epsilon"));
    assert!(message(&array![[0.0, f64::NAN], [1.0, 0.0]], &ok, &ok, 1.0).contains("NaN at row 0, column 1"));
    assert!(message(&cost, &array![1.0], &ok, 1.0).contains("shape (2, 2) for 1 row"));
    assert!(message(&cost, &array![1.5, -0.5], &ok, 1.0).starts_with("a: has mass -0.5 at 1"));
    assert!(message(&cost, &ok, &array![0.5, 0.6], 1.0).contains("total mass 1.1"));
    assert!(message(&cost, &array![0.0, 0.0], &array![0.0, 0.0], 1.0).contains("above 0"));
    assert!(message(&Array2::zeros((0, 0)), &array![], &array![], 1.0).starts_with("cost"));
    let cancel = Cancel::default();
    cancel.cancel();
    let stopped = Progress::new(Arc::new(Silent), cancel);
    assert!(matches!(sinkhorn(cost.view(), ok.view(), ok.view(), 1.0, TIGHT, &stopped), Err(Error::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn plans_have_their_marginals_and_form(
        x in prop::collection::vec(-3.0..3.0f64, 2..16), y in prop::collection::vec(-3.0..3.0f64, 2..16),
        epsilon in 0.3..5.0f64, mass in 0.1..10.0f64,
    ) {
        let (n, m) = (x.len(), y.len());
        let cost = half_squared_distances(
            Array2::from_shape_vec((n, 1), x).unwrap().view(), Array2::from_shape_vec((m, 1), y).unwrap().view());
        let a = Array1::from_shape_fn(n, |i| 1.0 + i as f64);
        let a = &a * (mass / a.sum());
        let b = Array1::from_elem(m, mass / m as f64);
        let solution = sinkhorn(cost.view(), a.view(), b.view(), epsilon, TIGHT, &Progress::silent()).unwrap();
        let plan = solution.plan(cost.view(), a.view(), b.view());
        prop_assert!((&plan.sum_axis(ndarray::Axis(1)) - &a).iter().all(|e| e.abs() < 1e-10 * mass));
        prop_assert!((&plan.sum_axis(ndarray::Axis(0)) - &b).iter().all(|e| e.abs() < 1e-10 * mass));
        // Any two by two minor of P ∘ exp(C/ε) vanishes: the form u vᵀ.
        let scaling = |i: usize, j: usize| plan[[i, j]].ln() + cost[[i, j]] / epsilon;
        prop_assert!((scaling(0, 0) + scaling(n - 1, m - 1) - scaling(0, m - 1) - scaling(n - 1, 0)).abs() < 1e-8);
    }
}

#[test]
fn a_cost_stored_column_by_column_gives_the_same_plan() {
    let cost = ndarray::array![[0.0, 1.0, 0.5], [1.0, 0.0, 0.2]];
    let (a, b) = (ndarray::array![0.5, 0.5], ndarray::array![0.2, 0.5, 0.3]);
    let by_columns = cost.t().as_standard_layout().into_owned();
    let progress = Progress::silent();
    let options = Options::default();
    let found = sinkhorn(by_columns.t(), a.view(), b.view(), 0.1, options, &progress).unwrap();
    let plans = [cost.view(), by_columns.t()].map(|c| found.plan(c, a.view(), b.view()));
    assert_eq!(plans[0], plans[1]);
    assert_eq!(found.conditional(cost.view(), b.view()), found.conditional(by_columns.t(), b.view()));
}
