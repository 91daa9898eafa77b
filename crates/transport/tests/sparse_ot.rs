//! Sparsity-constrained transport: reference values, properties, bad input, and the paper as a whole.

use ndarray::{Array1, Array2, array};
use offprint_core::random::Streams;
use offprint_core::{Array, Error, Paper, Progress, Run, Scale, Source};
use offprint_math::assignment;
use offprint_transport::exact::exact;
use offprint_transport::plan::Plan;
use offprint_transport::sparse_ot::{
    Bundle, Formulation, Objective, Problem, Proximal, Regulariser, Settings, Solution, Solver, k_support_squared,
    path, relaxed_primal, round, solve, solve_batch,
};
use proptest::prelude::*;
use rand::RngExt;
use serde_json::{Value, json};

fn paper() -> Paper {
    offprint_transport::papers().into_iter().find(|p| p.card().slug == "sparse-ot").expect("listed")
}

fn quiet() -> Progress {
    Progress::silent()
}

/// The 6 × 5 problem of the reference values: C_ij = ((3i + 5j + ij) mod 7)/6 + |i − j|/10, a = (1..6)/21,
/// b = (1, 3, 2, 2, 4)/12.
fn reference() -> (Array2<f64>, Array1<f64>, Array1<f64>) {
    let cost = Array2::from_shape_fn((6, 5), |(i, j)| {
        ((3 * i + 5 * j + i * j) % 7) as f64 / 6.0 + 0.1 * (i as f64 - j as f64).abs()
    });
    let a = (1..=6).map(|i| f64::from(i) / 21.0).collect();
    (cost, a, array![1.0, 3.0, 2.0, 2.0, 4.0] / 12.0)
}

fn reference_problem() -> Problem {
    let (cost, a, b) = reference();
    Problem::new(cost.view(), a.view(), b.view()).unwrap()
}

fn random_problem(seed: u64, m: usize, n: usize, scale: f64, grid: bool) -> Problem {
    let mut rng = Streams::new(seed).stream("problem").rng(0);
    let cost = Array2::from_shape_simple_fn((m, n), || {
        let x: f64 = rng.random();
        // On a grid of four values almost every column ties.
        scale * if grid { (4.0 * x).floor() / 4.0 } else { x }
    });
    let mut masses = |count: usize| {
        let raw: Array1<f64> = (0..count).map(|_| 0.1 + rng.random::<f64>()).collect();
        let sum = raw.sum();
        raw / sum
    };
    let (a, b) = (masses(m), masses(n));
    Problem::new(cost.view(), a.view(), b.view()).unwrap()
}

fn certified(problem: &Problem, gamma: f64, k: usize) -> Solution {
    solve(problem, Regulariser::Sparse { gamma, k }, &Settings::default(), &quiet()).unwrap()
}

#[test]
fn values_agree_with_pot() {
    // POT 0.9.7: smooth_ot_dual and _semi_dual(reg_type="l2", and "sparsity_constrained" with max_nz 4), stopThr 1e-14;
    // emd2; sinkhorn's plan in ⟨T, C⟩ + γ Σ T ln T. All four agree among themselves to 1e-14 where they should.
    let problem = reference_problem();
    let value = |regulariser, settings: Settings| solve(&problem, regulariser, &settings, &quiet()).unwrap().dual;
    let automatic = Settings::default();
    assert!((value(Regulariser::Unregularised, automatic) - 0.602_380_952_380_952).abs() < 1e-12);
    for (gamma, quadratic, entropic) in
        [(0.1, 0.609_651_360_544_217_6, 0.382_794_108_126_998_6), (1.0, 0.674_454_648_526_077, -2.354_040_236_684_256)]
    {
        for formulation in [Formulation::Dual, Formulation::SemiDual] {
            for solver in [Solver::Auto, Solver::Lbfgs] {
                let settings = Settings { solver, formulation, iterations: 5000, ..automatic };
                assert!((value(Regulariser::Quadratic { gamma }, settings) - quadratic).abs() < 1e-9);
                assert!((value(Regulariser::Sparse { gamma, k: 4 }, settings) - quadratic).abs() < 1e-6);
                assert!((value(Regulariser::Entropic { gamma }, settings) - entropic).abs() < 1e-9);
            }
        }
        let sinkhorn = Settings { solver: Solver::Sinkhorn, ..automatic };
        assert!((value(Regulariser::Entropic { gamma }, sinkhorn) - entropic).abs() < 1e-7);
    }
}

#[test]
fn values_below_the_smooth_range_agree_with_a_conic_solver() {
    // cvxpy 1.9.3 with Clarabel at 1e-11 on min ⟨T, C⟩ + (γ/2) Σ T²/θ, 0 ≤ θ ≤ 1, Σ_i θ_ij ≤ k; the values at γ = 1,
    // k = 1 and 3 come with its warning "may be inaccurate".
    let problem = reference_problem();
    for (gamma, k, expected, tolerance) in [
        (0.1, 1, 0.614_186_507_940_5, 1e-9),
        (0.1, 2, 0.610_274_943_312_05, 1e-9),
        (0.1, 3, 0.609_651_360_544_5, 1e-9),
        (1.0, 1, 0.720_436_507_937_7, 1e-9),
        (1.0, 2, 0.681_320_861_678_1, 1e-9),
        (1.0, 3, 0.674_942_365_835_3, 1e-8),
    ] {
        for solver in [Solver::Proximal, Solver::Bundle] {
            let settings = Settings {
                solver,
                proximal: Proximal { tolerance: 1e-10, ..Proximal::default() },
                bundle: Bundle { tolerance: 1e-8, ..Bundle::default() },
                ..Settings::default()
            };
            let solution = solve(&problem, Regulariser::Sparse { gamma, k }, &settings, &quiet()).unwrap();
            let slack = if solver == Solver::Bundle { 1e-7 } else { tolerance };
            assert!((solution.dual - expected).abs() < slack, "γ {gamma}, k {k}, {solver:?}: {}", solution.dual);
            assert!((solution.primal - expected).abs() < slack, "γ {gamma}, k {k}, {solver:?}: {}", solution.primal);
        }
    }
}

#[test]
fn the_unbalanced_value_agrees_with_a_conic_solver() {
    // The same program with rows exact and 0.5 KL(Tᵀ1 | b), γ = 1: 0.6252818900 for k = 6; 0.6261608044 for k = 2.
    let (cost, a, b) = reference();
    let problem = Problem::unbalanced(cost.view(), a.view(), b.view(), 0.5).unwrap();
    let smooth = certified(&problem, 1.0, 6);
    assert!((smooth.dual - 0.625_281_890).abs() < 1e-8 && smooth.certificate() < 1e-6, "{}", smooth.dual);
    let sparse = certified(&problem, 1.0, 2);
    assert!((sparse.dual - 0.626_160_804).abs() < 1e-5 && sparse.dual < 0.626_160_805, "{}", sparse.dual);
    // A large penalty is the balanced problem.
    let stiff = Problem::unbalanced(cost.view(), a.view(), b.view(), 1e5).unwrap();
    assert!((certified(&stiff, 1.0, 6).dual - 0.674_454_648).abs() < 1e-4);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (cost, a, b) = reference();
    let balanced = Problem::new(cost.view(), a.view(), b.view()).unwrap();
    let relaxed = Problem::unbalanced(cost.view(), a.view(), b.view(), 0.7).unwrap();
    let regularisers = [
        Regulariser::Entropic { gamma: 0.4 },
        Regulariser::Quadratic { gamma: 0.4 },
        Regulariser::Sparse { gamma: 0.4, k: 2 },
    ];
    for problem in [&balanced, &relaxed] {
        for (regulariser, formulation) in
            regularisers.iter().flat_map(|&r| [(r, Formulation::Dual), (r, Formulation::SemiDual)])
        {
            let mut objective = Objective::new(problem, regulariser, formulation);
            let n = objective.dimension();
            let x: Vec<f64> = (0..n).map(|i| 0.45 + 0.3 * (i as f64 * 1.7).sin()).collect();
            let (mut gradient, mut scratch) = (vec![0.0; n], vec![0.0; n]);
            objective.evaluate(&x, &mut gradient);
            for i in 0..n {
                let mut at = |h: f64| {
                    let mut y = x.clone();
                    y[i] += h;
                    objective.evaluate(&y, &mut scratch)
                };
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((difference - gradient[i]).abs() < 1e-7, "{regulariser:?} {formulation:?} {i}");
            }
        }
    }
}

#[test]
fn one_nonzero_per_column_is_an_optimal_assignment() {
    for n in [1, 2, 7, 30] {
        let mut rng = Streams::new(n as u64).stream("cost").rng(0);
        let cost = Array2::from_shape_simple_fn((n, n), || rng.random::<f64>());
        let problem = Problem::uniform(cost.view()).unwrap();
        let solution = certified(&problem, 0.1, 1);
        let assigned = assignment::minimize(cost.view());
        assert_eq!(solution.plan.nnz(), n);
        assert!(solution.plan.entries().all(|(i, j, mass)| assigned[i] == j && (mass - 1.0 / n as f64).abs() < 1e-14));
        let least: f64 = assigned.iter().enumerate().map(|(i, &j)| cost[[i, j]]).sum::<f64>() / n as f64;
        assert!((solution.dual - least - 0.05 / n as f64).abs() < 1e-12);
    }
}

#[test]
fn duplicated_points_and_constant_costs_still_certify() {
    // Every column ties: a constant cost has the optimum C + (γ/2) Σ b_j²/k for k ≤ m, attained by spreading evenly.
    let constant = Problem::uniform(Array2::from_elem((6, 4), 0.5).view()).unwrap();
    for k in 1..=6 {
        let solution = certified(&constant, 0.3, k);
        let expected = 0.5 + 0.15 * 4.0 / 16.0 / k as f64;
        assert!((solution.dual - expected).abs() < 1e-6 * expected, "k {k}: {} {expected}", solution.dual);
        assert!(solution.certificate() < 2e-6);
    }
    let zero = Problem::uniform(Array2::zeros((3, 3)).view()).unwrap();
    assert!(certified(&zero, 1.0, 2).certificate() < 2e-6);
}

#[test]
fn masses_of_zero_one_row_and_one_column() {
    let problem = Problem::new(
        array![[0.2, 0.7, 0.1], [0.9, 0.4, 0.3]].view(),
        array![0.0, 1.0].view(),
        array![0.25, 0.0, 0.75].view(),
    )
    .unwrap();
    for k in [1, 2] {
        let plan = certified(&problem, 0.1, k).relaxed;
        assert!((&plan.to_dense() - &array![[0.0, 0.0, 0.0], [0.25, 0.0, 0.75]]).iter().all(|x| x.abs() < 1e-9));
    }
    for (m, n) in [(1, 1), (1, 5), (5, 1)] {
        let problem = random_problem(3, m, n, 1.0, false);
        for k in [1, m] {
            let solution = certified(&problem, 0.5, k);
            assert!(solution.certificate() < 2e-6, "{m} × {n}, k {k}: {}", solution.certificate());
        }
    }
}

#[test]
fn scales_of_costs_and_masses_are_carried_through() {
    // (C, γ) → (sC, sγ) scales values by s; masses scaled by t with γ/t scale them by t.
    let (cost, a, b) = reference();
    let value = certified(&reference_problem(), 1.0, 2).dual;
    for scale in [1e-6, 1e6] {
        let scaled = Problem::new((&cost * scale).view(), a.view(), b.view()).unwrap();
        assert!((certified(&scaled, scale, 2).dual / scale - value).abs() < 1e-6 * value);
        let heavy = Problem::new(cost.view(), (&a * scale).view(), (&b * scale).view()).unwrap();
        assert!((certified(&heavy, 1.0 / scale, 2).dual / scale - value).abs() < 1e-6 * value);
    }
}

#[test]
fn the_path_is_monotone_and_agrees_with_single_solves() {
    let problem = reference_problem();
    let ks = [3, 1, 2, 6];
    let solutions = path(&problem, 1.0, &ks, &Settings::default(), &quiet()).unwrap();
    for (&k, solution) in ks.iter().zip(&solutions) {
        assert!((solution.dual - certified(&problem, 1.0, k).dual).abs() < 2e-6);
    }
    assert!(solutions[1].dual > solutions[2].dual && solutions[2].dual > solutions[0].dual);
    assert!(path(&problem, 1.0, &[], &Settings::default(), &quiet()).unwrap().is_empty());
}

#[test]
fn adam_comes_near_and_batches_equal_single_solves() {
    let problem = reference_problem();
    let regulariser = Regulariser::Sparse { gamma: 1.0, k: 2 };
    let adam = Settings { solver: Solver::Adam, iterations: 3000, ..Settings::default() };
    let rough = solve(&problem, regulariser, &adam, &quiet()).unwrap().dual;
    assert!(rough < 0.681_321 && rough > 0.681_321 * (1.0 - 1e-3), "{rough}");
    let problems: Vec<Problem> = (0..5).map(|seed| random_problem(seed, 7, 4, 1.0, false)).collect();
    let together = solve_batch(&problems, regulariser, &Settings::default(), &quiet()).unwrap();
    for (problem, solution) in problems.iter().zip(&together) {
        assert_eq!(solution.dual, certified(problem, 1.0, 2).dual);
    }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    // Large enough (200 × 200 > 2¹⁵) for columns to be spread over threads.
    let problem = random_problem(1, 200, 200, 1.0, false);
    let solve_with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| certified(&problem, 0.1, 3))
    };
    let (one, three) = (solve_with(1), solve_with(3));
    assert_eq!(one.alpha, three.alpha);
    assert_eq!(one.relaxed, three.relaxed);
}

#[test]
fn rounding_finds_strict_plans_where_counting_allows_them() {
    // Uniform masses of 48 rows and 32 columns: one and a half rows per column, so two entries each are enough.
    let mut rng = Streams::new(5).stream("cost").rng(0);
    let cost = Array2::from_shape_simple_fn((48, 32), || rng.random::<f64>());
    let problem = Problem::uniform(cost.view()).unwrap();
    let solution = certified(&problem, 0.1, 2);
    let rounded = round(&problem, 0.1, 2, &solution.relaxed, &quiet()).unwrap();
    assert_eq!((rounded.excess, rounded.plan.max_column_nnz()), (0, 2));
    assert!(rounded.value >= solution.dual);
    // One entry per column cannot serve 48 rows: only this plan is refused.
    let single = certified(&problem, 0.1, 1);
    let error = round(&problem, 0.1, 1, &single.relaxed, &quiet()).unwrap_err().to_string();
    assert!(error.contains("k=1 per column cannot cover 48 rows"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn solutions_certify_themselves(
        seed in 0u64..1000, m in 1usize..14, n in 1usize..14, k in 1usize..14, exponent in -3i32..4, grid: bool,
    ) {
        let k = k.min(m);
        let scale = 10f64.powi(exponent);
        let gamma = scale * [0.01, 0.1, 1.0][seed as usize % 3];
        let problem = random_problem(seed, m, n, scale, grid);
        let solution = certified(&problem, gamma, k);
        // Weak duality in both directions, and a certificate.
        prop_assert!(solution.certificate() > -1e-9 && solution.certificate() < 1e-5, "{}", solution.certificate());
        prop_assert!(solution.plan.max_column_nnz() <= k);
        let (rows, columns) = solution.relaxed.marginal_errors(problem.a(), problem.b());
        prop_assert!(rows < 1e-12 && columns < 1e-12, "{} {}", rows, columns);
        let regulariser = Regulariser::Sparse { gamma, k };
        prop_assert_eq!(relaxed_primal(&problem, regulariser, &solution.relaxed), solution.primal);
        // Any feasible plan lies above the dual: the unregularised one, and the rounded one with its own objective.
        let vertex = exact(problem.cost(), problem.a(), problem.b()).unwrap().plan;
        prop_assert!(relaxed_primal(&problem, regulariser, &vertex) >= solution.dual - 1e-9 * scale);
        if let Ok(rounded) = round(&problem, gamma, k, &solution.relaxed, &quiet()) {
            let (rows, columns) = rounded.plan.marginal_errors(problem.a(), problem.b());
            prop_assert!(rows < 1e-12 && columns < 1e-12);
            prop_assert!(rounded.excess > 0 || rounded.plan.max_column_nnz() <= k);
            prop_assert!(rounded.excess > 0 || rounded.value >= solution.dual - 1e-9 * scale);
        }
    }

    #[test]
    fn the_k_support_norm_is_the_largest_of_its_dual(t in prop::collection::vec(0.0f64..3.0, 1..9), k in 1usize..9) {
        // ½|t|²_ksp = max_s ⟨s, t⟩ − ½ Σ of the k largest s²; here against random s, and between its known bounds.
        let square = k_support_squared(&t, k);
        let euclid: f64 = t.iter().map(|x| x * x).sum();
        let sum: f64 = t.iter().sum();
        prop_assert!(square >= euclid - 1e-12 && square >= sum * sum / t.len().max(k) as f64 - 1e-12);
        prop_assert!(square <= sum * sum + 1e-12);
        for shift in 0..5 {
            let s: Vec<f64> = t.iter().enumerate().map(|(i, x)| x * (0.5 + 0.25 * f64::from(shift)) + 0.1 * ((i + shift as usize) % 3) as f64).collect();
            let mut squares: Vec<f64> = s.iter().map(|x| x * x).collect();
            squares.sort_by(|x, y| y.total_cmp(x));
            let conjugate: f64 = 0.5 * squares.iter().take(k).sum::<f64>();
            let linear: f64 = s.iter().zip(&t).map(|(s, t)| s * t).sum();
            prop_assert!(0.5 * square >= linear - conjugate - 1e-12);
        }
    }

    #[test]
    fn exact_transport_agrees_with_the_assignment(seed in 0u64..1000, n in 1usize..20, grid: bool) {
        let mut rng = Streams::new(seed).stream("cost").rng(0);
        let cost = Array2::from_shape_simple_fn((n, n), || {
            let x: f64 = rng.random();
            if grid { (4.0 * x).floor() } else { x }
        });
        let share = Array1::from_elem(n, 1.0 / n as f64);
        let found = exact(cost.view(), share.view(), share.view()).unwrap();
        let least: f64 = assignment::minimize(cost.view()).iter().enumerate().map(|(i, &j)| cost[[i, j]]).sum();
        prop_assert!((found.value - least / n as f64).abs() < 1e-12);
    }

    #[test]
    fn exact_transport_proves_itself(seed in 0u64..1000, m in 1usize..16, n in 1usize..16, grid: bool) {
        let problem = random_problem(seed, m, n, 1.0, grid);
        let found = exact(problem.cost(), problem.a(), problem.b()).unwrap();
        let dual = found.alpha.dot(&problem.a()) + found.beta.dot(&problem.b());
        prop_assert!((dual - found.value).abs() < 1e-12);
        let (rows, columns) = found.plan.marginal_errors(problem.a(), problem.b());
        prop_assert!(rows < 1e-15 && columns < 1e-15);
        for ((i, j), c) in problem.cost().indexed_iter() {
            prop_assert!(found.alpha[i] + found.beta[j] <= c + 1e-12);
        }
    }
}

#[test]
fn bad_problems_are_refused_by_name() {
    let message = |result: offprint_core::Result<Problem>| result.unwrap_err().to_string();
    let (cost, a, b) = reference();
    let mut negative = cost.clone();
    negative[[2, 3]] = -0.5;
    assert!(message(Problem::uniform(negative.view())).contains("row 2, column 3"));
    negative[[2, 3]] = f64::NAN;
    assert!(message(Problem::uniform(negative.view())).contains("row 2, column 3 (counted from 0) is NaN"));
    let sums = message(Problem::new(cost.view(), a.view(), (&b * 0.9).view()));
    assert!(sums.contains("a sums to 0.99999") && sums.contains("b to 0.89999"), "{sums}");
    assert!(message(Problem::new(cost.view(), b.view(), a.view())).contains("has 5 masses, but the cost has 6 rows"));
    assert!(message(Problem::new(cost.view(), (&a * -1.0).view(), b.view())).contains("mass 0"));
    assert!(message(Problem::uniform(Array2::zeros((0, 3)).view())).contains("empty"));
    assert!(message(Problem::unbalanced(cost.view(), a.view(), b.view(), 0.0)).contains("above 0"));

    let problem = reference_problem();
    let message = |regulariser, solver| {
        let settings = Settings { solver, ..Settings::default() };
        solve(&problem, regulariser, &settings, &quiet()).unwrap_err().to_string()
    };
    let k = message(Regulariser::Sparse { gamma: 0.1, k: 7 }, Solver::Auto);
    assert!(k.contains("k: got 7, but it must be in 1..6"), "{k}");
    assert!(message(Regulariser::Sparse { gamma: 0.1, k: 0 }, Solver::Auto).contains("in 1..6"));
    for gamma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(message(Regulariser::Quadratic { gamma }, Solver::Auto).starts_with("gamma"));
    }
    assert!(message(Regulariser::Entropic { gamma: 0.1 }, Solver::Bundle).contains("solver"));
    assert!(message(Regulariser::Quadratic { gamma: 0.1 }, Solver::Sinkhorn).contains("entropic"));
}

fn run_with(parameters: Value) -> offprint_core::Result<(offprint_core::Report, Vec<String>)> {
    let paper = paper();
    let mut run = Run::new(paper.card());
    paper.prepare_json(parameters)?.run(&mut run)?;
    let (report, files) = run.finish(true)?;
    Ok((report, files.into_iter().map(|f| f.0).collect()))
}

#[test]
fn every_task_runs_without_input() {
    for (task, more) in [("plan", json!({})), ("routing", json!({})), ("colours", json!({ "colours": 40 }))] {
        let mut parameters = more;
        parameters["task"] = json!(task);
        let (report, files) = run_with(parameters).unwrap();
        assert!(!report.figures.is_empty() && !report.tables.is_empty(), "{task}");
        assert!(files.iter().any(|f| f == "plan.npz") && report.metric("certificate").unwrap() < 1e-5, "{task}");
    }
}

#[test]
fn a_run_reads_files_and_writes_a_plan_that_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let (cost, a, b) = reference();
    let write = |name: &str, array: Array| {
        let path = directory.path().join(name);
        offprint_core::artifact::Artifact::Array(array).write(&path).unwrap();
        path.display().to_string()
    };
    let inputs = json!({
        "cost": write("cost.npy", cost.clone().into()), "a": write("a.npy", a.clone().into()),
        "b": write("b.npy", b.clone().into()), "k": 2, "gamma": 1.0, "scale": "none",
    });
    let paper = paper();
    let out = directory.path().join("out");
    let mut run = Run::new(paper.card()).with_out(out.clone()).unwrap();
    paper.prepare_json(inputs.clone()).unwrap().run(&mut run).unwrap();
    let (report, _) = run.finish(true).unwrap();
    assert!((report.metric("dual value").unwrap() - 0.681_320_861).abs() < 1e-6);
    let read = |name: &str| {
        let source: Source = format!("{}:{name}", out.join("relaxed.npz").display()).parse().unwrap();
        source.vector().unwrap()
    };
    let mut dense = Array2::zeros((6, 5));
    for ((i, j), mass) in read("row").iter().zip(&read("col")).zip(&read("data")) {
        dense[[*i as usize, *j as usize]] = *mass;
    }
    let (rows, columns) = Plan::from_dense(dense.view()).marginal_errors(a.view(), b.view());
    assert!(rows < 1e-12 && columns < 1e-12);

    // The sparse side turned: the transposed problem has the same value.
    let mut turned = inputs;
    turned["cost"] = json!(write("turned.npy", cost.t().as_standard_layout().into_owned().into()));
    let swap = turned["a"].clone();
    turned["a"] = turned["b"].clone();
    turned["b"] = swap;
    turned["sparse_side"] = json!("rows");
    let (other, _) = run_with(turned).unwrap();
    assert!((other.metric("dual value").unwrap() - report.metric("dual value").unwrap()).abs() < 1e-12);
}

#[test]
fn images_come_as_png_or_arrays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("grey.png");
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 8, 6);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let pixels: Vec<u8> = (0..48).map(|i| i * 5).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    let (report, files) =
        run_with(json!({ "task": "colours", "image": path.display().to_string(), "colours": 8 })).unwrap();
    assert!(files.iter().any(|f| f == "recoloured.npy") && report.metric("certificate").unwrap() < 1e-5);
    std::fs::write(&path, b"\x89PNG\r\n\x1a\nnot really").unwrap();
    let error = run_with(json!({ "task": "colours", "image": path.display().to_string() })).unwrap_err();
    assert!(error.to_string().contains("not a readable PNG"), "{error}");
    let flat = directory.path().join("flat.npy");
    offprint_core::artifact::Artifact::Array(Array2::<f64>::zeros((4, 4)).into()).write(&flat).unwrap();
    let error = run_with(json!({ "task": "colours", "image": flat.display().to_string() })).unwrap_err();
    assert!(error.to_string().contains("(height, width, 3)"), "{error}");
}

#[test]
fn bad_parameters_and_files_are_refused_by_name() {
    let message = |parameters: Value| run_with(parameters).unwrap_err().to_string();
    assert!(message(json!({ "gamma": 0 })).contains("gamma: got 0, but it must be above 0"));
    assert!(message(json!({ "k": 0 })).contains("k: got 0"));
    assert!(message(json!({ "k": 49 })).contains("in 1..48"));
    assert!(message(json!({ "compare": [2, 0] })).contains("compare"));
    assert!(message(json!({ "x": "nowhere.npy" })).contains("--y"));
    assert!(message(json!({ "unbalanced": -1.0 })).contains("unbalanced"));
    assert!(message(json!({ "task": "routing", "k": 600 })).contains("1..512"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cost.csv");
    std::fs::write(&path, "0.1,0.2\n0.3\n").unwrap();
    assert!(matches!(run_with(json!({ "cost": path.display().to_string() })), Err(Error::Input { .. })));
    std::fs::write(&path, "0.1,0.2\n0.3,-0.4\n").unwrap();
    assert!(message(json!({ "cost": path.display().to_string() })).contains("row 1, column 1"));
    std::fs::write(&path, "0,0\n1,1\n").unwrap();
    let points = path.display().to_string();
    assert!(message(json!({ "x": points, "y": points, "metric": "cosine" })).contains("point 0"));
}

#[test]
fn a_k_too_small_refuses_only_the_strict_plan() {
    let (report, files) = run_with(json!({ "k": 1 })).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("k=1 per column cannot cover 48 rows")), "{:?}", report.warnings);
    assert!(files.iter().any(|f| f == "relaxed.csv") && !files.iter().any(|f| f == "strict.csv"));
}

#[test]
fn the_study_measures_every_claim_at_quick_scale() {
    let paper = paper();
    let mut run = Run::new(paper.card()).with_scale(Scale::Quick);
    paper.measure(&mut run).unwrap();
    let (report, _) = run.finish(true).unwrap();
    let measured: Vec<&str> = report.claims.iter().map(|c| c.id.as_str()).collect();
    for claim in &paper.card().claims {
        assert!(measured.contains(&claim.id.as_str()), "{}", claim.id);
    }
}
