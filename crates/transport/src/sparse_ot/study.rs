//! The paper's claims, measured.

use super::colour::{palette, palette_problem, recolour};
use super::run::{Routers, digit_router, example_images, most, routers};
use super::{
    Bundle, Formulation, Objective, Problem, Proximal, Regulariser, Settings, Solution, Solver, SparseOt, solve,
};
use crate::exact::exact;
use ndarray::{Array1, Array2};
use offprint_core::figure::{Axis, Plot};
use offprint_core::random::Streams;
use offprint_core::{Figure, Result, Run, Study, Table};
use offprint_math::lbfgs::Lbfgs;
use offprint_math::{assignment, stats};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::ops::ControlFlow;

impl Study for SparseOt {
    fn measure(run: &mut Run) -> Result<()> {
        let seeds = run.scale().pick(1, 5, 10);
        at_most_k(run, seeds)?;
        middle_ground(run, seeds)?;
        strong_duality(run, seeds)?;
        smoothness(run, seeds)?;
        matching_layer(run, seeds)?;
        colour_transfer(run)?;
        run.not_measured(
            "speed",
            "the peer runs in Python: `offprint bench sparse-ot` times both on identical inputs, case dual-1000",
        )
    }
}

const STRENGTHS: [f64; 2] = [0.1, 1.0];
const NONZEROS: [usize; 7] = [1, 2, 3, 4, 8, 16, 31];

/// The paper's test problem: n points of N(0, I) to n of N((1, −½), I) in the plane, squared distances over their largest.
pub(super) fn clouds(streams: Streams, seed: u64, n: usize) -> Array2<f64> {
    let points = |name: &str, shift: [f64; 2]| -> Array2<f64> {
        let mut rng = streams.stream(name).rng(seed);
        Array2::from_shape_fn((n, 2), |(_, c)| {
            let z: f64 = StandardNormal.sample(&mut rng);
            z + shift[c]
        })
    };
    let cost = super::colour::squared_distances(
        points("source points", [0.0, 0.0]).view(),
        points("target points", [1.0, -0.5]).view(),
    );
    let largest = cost.iter().fold(0.0f64, |l, &c| l.max(c));
    cost / largest
}

/// m = 12, n = 9 with random masses and costs.
fn rectangular(streams: Streams, seed: u64) -> Result<Problem> {
    let mut rng = streams.stream("rectangular").rng(seed);
    let mut masses = |count: usize| {
        let raw: Array1<f64> = (0..count).map(|_| 0.2 + rng.random::<f64>()).collect();
        let sum = raw.sum();
        raw / sum
    };
    let (a, b) = (masses(12), masses(9));
    let cost = Array2::from_shape_simple_fn((12, 9), || rng.random::<f64>());
    Problem::new(cost.view(), a.view(), b.view())
}

fn certified(tolerance: f64) -> Settings {
    Settings {
        solver: Solver::Proximal,
        proximal: Proximal { tolerance, steps: 400, ..Proximal::default() },
        ..Settings::default()
    }
}

fn at_most_k(run: &mut Run, seeds: u64) -> Result<()> {
    let mut beyond = f64::NEG_INFINITY;
    let mut iterates = 0u64;
    for seed in 0..seeds {
        let problem = Problem::uniform(clouds(run.streams(), seed, 32).view())?;
        for (gamma, k, formulation) in grid(&[Formulation::Dual, Formulation::SemiDual]) {
            run.progress().check()?;
            let regulariser = Regulariser::Sparse { gamma, k };
            let mut objective = Objective::new(&problem, regulariser, formulation);
            let reader = Objective::new(&problem, regulariser, formulation);
            let start = vec![0.0; objective.dimension()];
            let method = Lbfgs { iterations: 200, ..Lbfgs::default() };
            method.minimise(
                &start,
                |x, g| objective.evaluate(x, g),
                |iterate| {
                    let nonzeros = reader.plan(iterate.x).plan.max_column_nnz();
                    beyond = beyond.max(nonzeros as f64 - k as f64);
                    iterates += 1;
                    ControlFlow::Continue(())
                },
            );
        }
    }
    run.claim("at-most-k", beyond, format!("{iterates} iterates, {seeds} seed(s)"))
}

fn grid<T: Copy>(last: &[T]) -> Vec<(f64, usize, T)> {
    let pairs = STRENGTHS.iter().flat_map(|&gamma| NONZEROS.iter().map(move |&k| (gamma, k)));
    pairs.flat_map(|(gamma, k)| last.iter().map(move |&l| (gamma, k, l))).collect()
}

fn middle_ground(run: &mut Run, seeds: u64) -> Result<()> {
    let progress = run.progress();
    let n = 32;
    let (mut agreement, mut k1, mut large, mut increase) = (1.0f64, 0.0f64, 0.0f64, f64::NEG_INFINITY);
    let (mut untied_error, mut untied, mut cases) = (0.0f64, 0, 0);
    let mut table: Vec<Level> = Vec::new();
    for seed in 0..seeds {
        let cost = clouds(run.streams(), seed, n);
        let problem = Problem::uniform(cost.view())?;
        let assigned = assignment::minimize(cost.view());
        let ot = exact(problem.cost(), problem.a(), problem.b())?;
        for gamma in STRENGTHS {
            let quadratic = solve(&problem, Regulariser::Quadratic { gamma }, &Settings::default(), &progress)?;
            let support = quadratic.plan.max_column_nnz();
            let mut before = f64::INFINITY;
            let mut levels = NONZEROS.to_vec();
            levels.push(support);
            levels.sort_unstable();
            levels.dedup();
            for k in levels {
                progress.check()?;
                let regulariser = Regulariser::Sparse { gamma, k };
                let solution = solve(&problem, regulariser, &certified(1e-8), &progress)?;
                if k == 1 {
                    k1 = k1.max((solution.dual - ot.value - 0.5 * gamma / n as f64).abs());
                    let plan = solve(&problem, regulariser, &Settings::default(), &progress)?.plan;
                    let same = plan.entries().filter(|&(i, j, _)| assigned[i] == j).count();
                    agreement = agreement.min(same as f64 / n as f64);
                }
                if k >= support {
                    large = large.max((solution.dual - quadratic.dual).abs());
                }
                increase = increase.max(solution.dual - before);
                before = solution.dual;
                let read = Objective::new(&problem, regulariser, Formulation::SemiDual)
                    .plan(solution.alpha.as_slice().expect("a vector"));
                let (error, _) = read.plan.marginal_errors(problem.a(), problem.b());
                cases += 1;
                if solution.tied == 0 {
                    untied += 1;
                    untied_error = untied_error.max(error);
                }
                if seed == 0 {
                    table.push((gamma, k, solution.dual, solution.certificate(), error, solution.tied));
                }
            }
        }
        if seed == 0 {
            run.figure("values", value_curve(&table, ot.value, n));
        }
    }
    run.table(
        Table::new(
            "levels",
            "One row per γ and k of the first seed, m = n = 32: certified optimum and the plan read off it.",
        )
        .numbers("gamma", "", table.iter().map(|t| t.0))
        .integers("k", "", table.iter().map(|t| t.1 as i64))
        .numbers("value", "", table.iter().map(|t| t.2))
        .numbers("certificate", "", table.iter().map(|t| t.3))
        .numbers("row error of the read-off plan", "of all mass", table.iter().map(|t| t.4))
        .integers("tied columns", "", table.iter().map(|t| t.5 as i64)),
    )?;
    run.claim("k1-assignment", agreement, format!("least of {seeds} seed(s) and two γ"))?;
    run.claim("k1-value", k1, "proximal point method from zero")?;
    run.claim("large-k-value", large, "")?;
    run.claim("monotone", increase, "")?;
    let how = format!("{untied} of {cases} cases without ties; the others stand in the table levels");
    if untied == 0 { run.not_measured("ties-only", how) } else { run.claim("ties-only", untied_error, how) }
}

/// γ, k, value, certificate, row error of the read-off plan, tied columns.
type Level = (f64, usize, f64, f64, f64, usize);

fn value_curve(table: &[Level], ot: f64, n: usize) -> Figure {
    let mut figure = Figure::new(
        "Value against k",
        "The certified optimum for 32 points each. It starts at optimal transport plus (γ/2)/n and reaches quadratic regularisation at the largest column support.",
    )
    .columns(2);
    for gamma in STRENGTHS {
        let rows: Vec<_> = table.iter().filter(|t| t.0 == gamma).collect();
        let last = rows.last().map_or(f64::NAN, |t| t.2);
        figure = figure.panel(
            Plot::new(Axis::log("k"), Axis::new("value").unit("largest cost"))
                .titled(format!("γ = {gamma}"))
                .line("sparse", rows.iter().map(|t| t.1 as f64).collect(), rows.iter().map(|t| t.2).collect())
                .horizontal("OT + (γ/2)/n", ot + 0.5 * gamma / n as f64)
                .horizontal("quadratic", last),
        );
    }
    figure
}

fn strong_duality(run: &mut Run, seeds: u64) -> Result<()> {
    let progress = run.progress();
    let (mut proximal, mut bundled, mut difference) = (0.0f64, 0.0f64, 0.0f64);
    let mut solved = 0;
    for seed in 0..seeds {
        let square = Problem::uniform(clouds(run.streams(), seed, 32).view())?;
        let oblong = rectangular(run.streams(), seed)?;
        for (problem, ks) in [(&square, &NONZEROS[..]), (&oblong, &[1, 2, 3, 4, 8, 11])] {
            for gamma in STRENGTHS {
                for &k in ks {
                    progress.check()?;
                    let regulariser = Regulariser::Sparse { gamma, k };
                    let solution = solve(problem, regulariser, &certified(1e-7), &progress)?;
                    proximal = proximal.max(solution.certificate());
                    let x: Vec<f64> = solution.alpha.iter().chain(&solution.beta).copied().collect();
                    let mut dual = Objective::new(problem, regulariser, Formulation::Dual);
                    let value = -dual.evaluate(&x, &mut vec![0.0; x.len()]);
                    difference = difference.max((value - solution.dual).abs() / solution.dual.abs());
                    let settings = Settings {
                        solver: Solver::Bundle,
                        bundle: Bundle { tolerance: 5e-7, ..Bundle::default() },
                        ..Settings::default()
                    };
                    bundled = bundled.max(solve(problem, regulariser, &settings, &progress)?.certificate());
                    solved += 1;
                }
            }
        }
    }
    run.claim("dual-equals-semi-dual", difference, format!("{solved} problems"))?;
    run.claim("strong-duality", proximal, format!("{solved} problems"))?;
    run.claim("strong-duality-bundle", bundled, format!("{solved} problems, at most 40 cuts"))
}

fn smoothness(run: &mut Run, seeds: u64) -> Result<()> {
    let progress = run.progress();
    let n = run.scale().pick(100, 200, 200);
    let ks = [2usize, 4, 8, 16];
    let mut iterations = vec![Vec::new(); ks.len()];
    let mut gaps = vec![Vec::new(); ks.len()];
    let mut curves = Vec::new();
    for seed in 0..seeds {
        let problem = Problem::uniform(clouds(run.streams(), seed, n).view())?;
        for (slot, &k) in ks.iter().enumerate() {
            let regulariser = Regulariser::Sparse { gamma: 1.0, k };
            let settings = Settings {
                solver: Solver::Lbfgs,
                iterations: 100_000,
                gradient_tolerance: 1e-13,
                value_tolerance: 1e-13,
                ..Settings::default()
            };
            let found = solve(&problem, regulariser, &settings, &progress)?;
            let optimum = solve(&problem, regulariser, &certified(1e-7), &progress)?;
            iterations[slot].push(found.iterations as f64);
            gaps[slot].push((optimum.dual - found.dual) / optimum.dual);
            if seed == 0 {
                curves.push((k, found, optimum));
            }
        }
    }
    let typical: Vec<f64> = iterations.iter().map(|v| stats::median(v)).collect();
    let table =
        Table::new("smoothness", format!("L-BFGS on the semi-dual, m = n = {n}, γ = 1, medians of {seeds} seed(s)."))
            .integers("k", "", ks.iter().map(|&k| k as i64))
            .numbers("iterations", "", typical.iter().copied())
            .numbers("gap to the certified optimum", "relative", gaps.iter().map(|v| stats::median(v)));
    run.table(table)?;
    run.figure("convergence", convergence(&curves));
    let how = format!("n = {n}; iterations at k = 2, 4, 8, 16: {typical:?}");
    run.claim("iterations-ratio", typical[0] / typical[3], how.clone())?;
    let worst = typical.windows(2).map(|w| w[1] / w[0]).fold(0.0, f64::max);
    run.claim("iterations-decrease", worst, how)
}

fn convergence(curves: &[(usize, Solution, Solution)]) -> Figure {
    let mut plot = Plot::new(Axis::log("L-BFGS iteration"), Axis::log("relative gap to the certified optimum"));
    for (k, found, optimum) in curves {
        let x = (1..=found.trace.len()).map(|t| t as f64).collect();
        let y = found.trace.iter().map(|d| ((optimum.primal - d) / optimum.primal).max(1e-8)).collect();
        plot = plot.curve(format!("k = {k}"), x, y);
    }
    Figure::new(
        "Convergence of L-BFGS on the semi-dual",
        "The larger k, the faster. At small k the optimum sits on ties, where the semi-dual has a kink, and the curve ends above it.",
    )
    .panel(plot)
}

fn matching_layer(run: &mut Run, seeds: u64) -> Result<()> {
    let progress = run.progress();
    let (tokens, experts, capacity) = (512, 16, 40);
    let (mut unserved, mut load, mut ratio) = (0.0f64, 0.0f64, f64::INFINITY);
    let mut rows: Vec<(String, f64, f64, f64, usize)> = Vec::new();
    for seed in 0..seeds {
        let affinity = digit_router(run, seed, tokens, experts);
        let Routers { rounded, all, .. } = routers(affinity.view(), capacity, 0.1, &Settings::default(), &progress)?;
        let value = |name: &str| all.iter().find(|r| r.0 == name).map_or(f64::NAN, |r| r.1.affinity);
        unserved = unserved.max(all[0].1.unserved);
        let strict = &all[usize::from(rounded.is_some())].1;
        load = load.max(most(&strict.tokens) as f64 / capacity as f64);
        let baseline = value("top-1 with drops").max(value("Sinkhorn, then top-1"));
        ratio = ratio.min(strict.affinity / baseline);
        for (name, r) in &all {
            match rows.iter_mut().find(|row| row.0 == *name) {
                Some(row) => {
                    row.1 += r.affinity;
                    row.2 += r.unserved;
                    row.3 += r.imbalance();
                    row.4 = row.4.max(most(&r.tokens));
                }
                None => rows.push(((*name).to_owned(), r.affinity, r.unserved, r.imbalance(), most(&r.tokens))),
            }
        }
    }
    let mean = |x: f64| x / seeds as f64;
    run.table(
        Table::new(
            "routers",
            format!("{tokens} tokens (digits), {experts} experts, capacity {capacity}; means of {seeds} seed(s)."),
        )
        .words("router", rows.iter().map(|r| r.0.clone()))
        .numbers("affinity", "", rows.iter().map(|r| mean(r.1)))
        .numbers("unserved", "tokens", rows.iter().map(|r| mean(r.2)))
        .numbers("imbalance", "max/mean load", rows.iter().map(|r| mean(r.3)))
        .integers("most tokens of an expert", "tokens", rows.iter().map(|r| r.4 as i64)),
    )?;
    let how = format!("{tokens} tokens, {experts} experts, k = {capacity}, {seeds} seed(s)");
    run.claim("router-serves-all", unserved, how.clone())?;
    run.claim("router-capacity", load, how.clone())?;
    run.claim("router-affinity", ratio, how)
}

fn colour_transfer(run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let count = run.scale().pick(128, 512, 512);
    let (image, reference) = example_images();
    let stream = run.stream("palette");
    let from = palette(image.view(), count, &mut stream.rng(0), &progress)?;
    let to = palette(reference.view(), count, &mut stream.rng(1), &progress)?;
    let problem = palette_problem(&to, &from)?;
    let ot = exact(problem.cost(), problem.a(), problem.b())?;
    let (mut beyond, mut excess) = (f64::NEG_INFINITY, f64::NAN);
    let mut rows = Vec::new();
    for k in [1usize, 2, 8] {
        let k = k.min(problem.rows());
        let regulariser = Regulariser::Sparse { gamma: 0.01, k };
        let solution = solve(&problem, regulariser, &Settings::default(), &progress)?;
        let moved = recolour(image.view(), &from, &to, &solution.plan);
        debug_assert!(moved.iter().all(|x| x.is_finite()));
        beyond = beyond.max(solution.plan.max_column_nnz() as f64 - k as f64);
        let more = solution.relaxed.cost(problem.cost()) / ot.value - 1.0;
        if k == 2 {
            excess = more;
        }
        rows.push((k, solution.plan.nnz(), more, solution.certificate()));
    }
    run.table(
        Table::new("colours", format!("{count} colours per image, γ = 0.01."))
            .integers("k", "", rows.iter().map(|r| r.0 as i64))
            .integers("nonzeros", "", rows.iter().map(|r| r.1 as i64))
            .numbers("cost beyond the least", "relative", rows.iter().map(|r| r.2))
            .numbers("certificate", "", rows.iter().map(|r| r.3)),
    )?;
    run.claim("colours-cost", excess, format!("{count} colours"))?;
    run.claim("colours-nonzeros", beyond, "k = 1, 2, 8")
}
