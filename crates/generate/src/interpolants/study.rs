//! The claims, measured.

use super::fokker_planck::{Line, divergence};
use super::line::{modes, quantile};
use super::{
    Diffusion, Epsilon, ExactFields, Fields, Integrator, Interpolant, Interpolants, Joint, Keep, LearnedFields, PATHS,
    Pairs, Recipe, Rippled, Shape, examples, flow, line, log_density_of_flow,
};
use crate::exact::ExactMixture;
use crate::likelihood::Divergence;
use crate::metrics::{energy_distance, kolmogorov_smirnov};
use crate::ode::Tolerance;
use crate::{Gamma, Interpolation, Model, Path, Predicting, Prediction, normals};
use ndarray::{Array1, Array2, ArrayView2, Axis as Along};
use offprint_core::figure::{Axis, Plot};
use offprint_core::random::Streams;
use offprint_core::{Figure, Result, Run, Scale, Study, Table};
use offprint_math::stats;

impl Study for Interpolants {
    fn measure(run: &mut Run) -> Result<()> {
        equations(run)?;
        same_end(run)?;
        monotone_map(run)?;
        likelihood_control(run)?;
        simpler_middle(run)?;
        special_cases(run)?;
        checker(run)?;
        checker_likelihood(run)
    }
}

/// Every γ.
const GAMMAS: [Gamma; 5] = [
    Gamma::Brownian { scale: 1.0 },
    Gamma::Quadratic,
    Gamma::SineSquared,
    Gamma::Sigmoid { steepness: 10.0 },
    Gamma::Zero,
];

fn on_line(path: Interpolant) -> Result<ExactFields> {
    let (start, end) = examples::line()?;
    ExactFields::new(path, Joint::independent(&start, &end)?)
}

fn linear(gamma: Gamma) -> Result<Interpolant> {
    Interpolant::named("linear", gamma)
}

/// Claims `transport` and `score`: the equations of Theorems 6 and 8 by finite differences.
fn equations(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(20, 200, 200);
    let (line, plane) = (examples::line()?, examples::plane(run.stream("plane"))?);
    let (mut transport, mut score) = (0.0f64, 0.0f64);
    let (mut names, mut residuals, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for name in PATHS {
        let mut worst = (0.0f64, 0.0f64);
        for gamma in GAMMAS {
            // A one-sided path has no γ, and the trigonometric one cannot bear each.
            let Ok(path) = Interpolant::named(name, gamma) else { continue };
            if path.is_one_sided() && gamma != Gamma::Zero {
                continue;
            }
            for (start, end) in [&line, &plane] {
                let start = if path.is_one_sided() { &examples::standard_normal(end.means().ncols())? } else { start };
                let fields = ExactFields::new(path.clone(), Joint::independent(start, end)?)?;
                for t in [0.1, 0.5, 0.8] {
                    // Where a path is a single point there is no density.
                    let Ok(points) = points_of(&fields, t, count, run.stream("points")) else { continue };
                    if fields.log_density(points.view(), t).is_err() {
                        continue;
                    }
                    let (t_residual, s_residual) = residuals_at(&fields, points.view(), t)?;
                    worst = (worst.0.max(t_residual), worst.1.max(s_residual));
                }
            }
        }
        (transport, score) = (transport.max(worst.0), score.max(worst.1));
        names.push(name);
        residuals.push(worst.0);
        gaps.push(worst.1);
    }
    run.table(
        Table::new("equations", "Largest residuals of the transport equation and of the score, over all γ of a path.")
            .words("path", names)
            .numbers("transport", "", residuals)
            .numbers("score", "", gaps),
    )?;
    let how = format!("{count} points a law, differences of order 4 with step 1e-4");
    run.claim("transport", transport, how.clone())?;
    run.claim("score", score, how)
}

/// `n` points of x_t.
fn points_of(fields: &ExactFields, t: f64, n: usize, stream: offprint_core::random::Stream) -> Result<Array2<f64>> {
    let at = fields.path().at(t)?;
    let (x0, x1) = fields.joint().sample(n, stream.nested(0).stream("pairs"))?;
    Ok(x0 * at.a + x1 * at.b + normals(n, fields.dim(), stream.nested(0).stream("latent"), 0) * at.gamma)
}

/// The largest residuals over the points `x` (n, d): of the transport equation and of the score.
fn residuals_at(fields: &ExactFields, x: ArrayView2<'_, f64>, t: f64) -> Result<(f64, f64)> {
    const H: f64 = 1e-4;
    let (b, s) = fields.both(x, t)?;
    let central = |f: &dyn Fn(f64) -> Result<Array1<f64>>| -> Result<Array1<f64>> {
        Ok((8.0 * (f(H)? - f(-H)?) - (f(2.0 * H)? - f(-2.0 * H)?)) / (12.0 * H))
    };
    // The coefficients of the encoding-decoding path have a kink in their slope at ½: differences stay on one side.
    let forward = |f: &dyn Fn(f64) -> Result<Array1<f64>>| -> Result<Array1<f64>> {
        let terms = [(0.0, -25.0 / 12.0), (1.0, 4.0), (2.0, -3.0), (3.0, 4.0 / 3.0), (4.0, -0.25)];
        terms.iter().try_fold(Array1::zeros(x.nrows()), |sum, (i, weight)| Ok(sum + f(i * H)? * (weight / H)))
    };
    let in_time = |by: f64| fields.log_density(x, t + by);
    let rate = if t == 0.5 { forward(&in_time)? } else { central(&in_time)? };
    let mut divergence = Array1::<f64>::zeros(x.nrows());
    let mut gap = 0.0f64;
    for j in 0..x.ncols() {
        let moved = |by: f64| {
            let mut x = x.to_owned();
            x.column_mut(j).mapv_inplace(|v| v + by);
            x
        };
        divergence += &central(&|by| Ok(fields.velocity(moved(by).view(), t)?.column(j).to_owned()))?;
        let gradient = central(&|by| fields.log_density(moved(by).view(), t))?;
        for (g, s) in gradient.iter().zip(s.column(j)) {
            gap = gap.max((g - s).abs());
        }
    }
    let carried = (&b * &s).sum_axis(Along(1));
    let residual = (rate + divergence + carried).iter().fold(0.0f64, |m, r| m.max(r.abs()));
    Ok((residual, gap))
}

/// Claim `same-end`: one law for every ε.
fn same_end(run: &mut Run) -> Result<()> {
    let (samples, steps) = run.scale().pick((4000, 100), (20_000, 500), (20_000, 500));
    let fields = on_line(linear(GAMMAS[0])?)?;
    let law = ExactMixture::new(fields.joint().starts().clone())?;
    let (start, _) = law.sample(samples, run.stream("starts"));
    let (mut epsilons, mut distances) = (Vec::new(), Vec::new());
    for epsilon in [0.0, 0.5, 2.0] {
        let end = if epsilon == 0.0 {
            flow(&fields, start.clone(), (steps, (0.0, 1.0)), Keep::NOTHING, &run.progress())?
        } else {
            let epsilon = Epsilon::Constant(epsilon);
            let process = Diffusion { epsilon, integrator: Integrator::Heun, steps, span: (0.0, 1.0) };
            process.run(&fields, start.clone(), Keep::NOTHING, run.stream("noise"), &run.progress())?
        };
        let ends = end.x.column(0).to_vec();
        epsilons.push(epsilon);
        distances.push(kolmogorov_smirnov(&ends, |x| line::cdf(fields.joint().ends(), x)));
    }
    let worst = distances.iter().copied().fold(0.0, f64::max);
    run.table(
        Table::new("same_end", "Kolmogorov–Smirnov distance to ρ₁ for each ε.")
            .numbers("ε", "", epsilons)
            .numbers("distance", "", distances),
    )?;
    let chance = 1.36 / (samples as f64).sqrt();
    run.claim(
        "same-end",
        worst,
        format!("{samples} samples, of which exact ones stay below {chance:.4} 19 times in 20"),
    )
}

/// Claim `monotone-map`.
fn monotone_map(run: &mut Run) -> Result<()> {
    let steps = run.scale().pick(500, 2000, 2000);
    let fields = on_line(linear(GAMMAS[0])?)?;
    let quantiles = |law| (1..1000).map(|i| quantile(law, f64::from(i) / 1000.0)).collect::<Result<Array1<f64>>>();
    let start = quantiles(fields.joint().starts())?.insert_axis(Along(1));
    let expected = quantiles(fields.joint().ends())?;
    let end = flow(&fields, start, (steps, (0.0, 1.0)), Keep::NOTHING, &run.progress())?;
    let worst = end.x.iter().zip(&expected).fold(0.0f64, |m, (x, y)| m.max((x - y).abs()));
    run.claim("monotone-map", worst, format!("quantiles 0.001 to 0.999, {steps} steps"))
}

/// Claims `diffusion-controlled`, `flow-grows`, `flow-uncontrolled`: no training, no sampling noise.
fn likelihood_control(run: &mut Run) -> Result<()> {
    const DELTA: f64 = 0.5;
    let (cells, steps) = run.scale().pick((551, 250), (2201, 1000), (2201, 1000));
    let exact = on_line(linear(GAMMAS[0])?)?;
    let grid = Line::new(-11.0, 11.0, cells)?;
    let column = |x: Vec<f64>| Array1::from(x).insert_axis(Along(1));
    let (centres, edges) = (column(grid.centres()), column(grid.edges()));
    let (law0, law1) =
        (ExactMixture::new(exact.joint().starts().clone())?, ExactMixture::new(exact.joint().ends().clone())?);
    let start = law0.log_density(centres.view(), 0.0)?.mapv(f64::exp).to_vec();
    let target = law1.log_density(centres.view(), 0.0)?.mapv(f64::exp).to_vec();
    let progress = run.progress();
    progress.begin("likelihoods", 12u64);
    let of_diffusion = |fields: &dyn Fields, epsilon: f64| -> Result<f64> {
        let end = grid.evolve(
            &start,
            (0.0, 1.0, steps),
            |_| epsilon,
            |t| {
                progress.check()?;
                Ok(fields.drift(edges.view(), t, epsilon)?.into_raw_vec_and_offset().0)
            },
        )?;
        progress.advance(1)?;
        divergence(&grid, &target, &end)
    };
    let of_flow = |fields: &dyn Fields| -> Result<f64> {
        let base = |x: ArrayView2<'_, f64>| law0.log_density(x, 0.0);
        let tolerance = Tolerance { absolute: 1e-7, relative: 1e-7 };
        let how = (Divergence::Exact, tolerance);
        let (log, _) = log_density_of_flow(fields, centres.view(), (0.0, 1.0), base, how, &progress)?;
        progress.advance(1)?;
        Ok(grid.integral(target.iter().zip(&log).map(|(p, q)| if *p > 1e-20 { p * (p.ln() - q) } else { 0.0 })))
    };
    // ω = 0 is the exact field: what remains there is the error of the computation.
    let omegas = [0.0, 1.0, 4.0, 16.0];
    let mut columns: [Vec<f64>; 3] = Default::default();
    for omega in omegas {
        let fields = Rippled::new(&exact, DELTA, omega)?;
        columns[0].push(of_flow(&fields)?);
        columns[1].push(of_diffusion(&fields, 0.5)?);
        columns[2].push(of_diffusion(&fields, 2.0)?);
    }
    progress.finish();
    let bound = |epsilon: f64| DELTA * DELTA / (8.0 * epsilon);
    let share = |values: &[f64], epsilon: f64| values[1..].iter().copied().fold(0.0, f64::max) / bound(epsilon);
    let controlled = share(&columns[1], 0.5).max(share(&columns[2], 2.0));
    let growth = columns[0][1..].windows(2).map(|w| w[1] / w[0]).fold(f64::INFINITY, f64::min);
    let beyond = columns[0][3] / bound(0.5);
    let [by_flow, half, two] = columns;
    let curve = omegas[1..].to_vec();
    run.figure(
        "control",
        Figure::new(
            "The same error in the velocity, told by ω",
            "b̂ = b + ½ sin ωx has the same mean squared error for every ω. Diffusions stay below their bounds (dashed), \
             the flow does not know one.",
        )
        .panel(
            Plot::new(Axis::log("ω"), Axis::log("KL(ρ₁ | ρ̂₁)").unit("nat"))
                .line("flow", curve.clone(), by_flow[1..].to_vec())
                .line("diffusion, ε = 0.5", curve.clone(), half[1..].to_vec())
                .line("diffusion, ε = 2", curve, two[1..].to_vec())
                .horizontal("bound at ε = 0.5", bound(0.5))
                .horizontal("bound at ε = 2", bound(2.0)),
        ),
    );
    let numerical = half[0].abs().max(two[0].abs());
    run.table(
        Table::new("control", "KL(ρ₁ | ρ̂₁) for b̂ = b + ½ sin ωx; ω = 0 shows the error of the computation.")
            .numbers("ω", "", omegas)
            .numbers("flow", "nat", by_flow)
            .numbers("diffusion, ε = 0.5", "nat", half)
            .numbers("diffusion, ε = 2", "nat", two),
    )?;
    let how = format!("{cells} cells, {steps} steps, whose own error is a KL of {numerical:.1e}");
    run.claim("diffusion-controlled", controlled, how)?;
    run.claim("flow-grows", growth, "ω = 1 to 4 to 16")?;
    run.claim("flow-uncontrolled", beyond, format!("bound {:.4} nat", bound(0.5)))
}

/// Claims `modes-linear` and `modes-encoding`.
fn simpler_middle(run: &mut Run) -> Result<()> {
    let count = |path| Ok::<f64, offprint_core::Error>(modes(&on_line(path)?, 0.5, (-9.0, 9.0), 3601)? as f64);
    let without = count(linear(Gamma::Zero)?)?;
    let through = count(Interpolant::named("encoding-decoding", GAMMAS[0])?)?;
    run.claim("modes-linear", without, "3601 places from −9 to 9")?;
    run.claim("modes-encoding", through, "3601 places from −9 to 9")
}

/// Claims `score-diffusion` and `rectified`.
fn special_cases(run: &mut Run) -> Result<()> {
    let (_, end) = examples::plane(run.stream("plane"))?;
    let model = ExactMixture::new(end.clone())?;
    let start = examples::standard_normal(2)?;
    let x = normals(200, 2, run.stream("places"), 0) * 4.0;
    let gap = |path: Interpolant, schedule: crate::Schedule| -> Result<f64> {
        let fields = ExactFields::new(path, Joint::independent(&start, &end)?)?;
        let diffusion = Predicting::new(&model, Path::Gaussian(schedule), Prediction::Velocity)?;
        let mut worst = 0.0f64;
        for t in [0.05, 0.3, 0.5, 0.7, 0.95] {
            let apart = fields.velocity(x.view(), t)? + diffusion.predict(x.view(), 1.0 - t)?;
            worst = apart.iter().fold(worst, |m, v| m.max(v.abs()));
        }
        Ok(worst)
    };
    let vp = crate::Schedule::vp_linear();
    run.claim("score-diffusion", gap(Interpolant::of_diffusion(vp.clone())?, vp)?, "200 places, 5 times")?;
    let straight = gap(linear(Gamma::Zero)?, crate::Schedule::Rectified)?;
    let named = gap(Interpolant::one_sided(Interpolation::Linear)?, crate::Schedule::Rectified)?;
    run.claim("rectified", straight.max(named), "200 places, 5 times, two-sided and one-sided")
}

/// Networks trained on the checkerboard from noise.
fn board(run: &Run, seed: u64, (width, depth, steps, batch): (usize, usize, u64, usize)) -> Result<LearnedFields> {
    let stream = Streams::new(run.seed()).stream("checkerboard").nested(seed).stream("points");
    let pairs = Pairs::from_noise(examples::checkerboard(50_000, stream))?;
    let recipe = Recipe::new(Interpolant::one_sided(Interpolation::Linear)?, 2);
    let shape = Shape { width, depth, ..recipe.shape };
    let recipe = Recipe { shape, steps, batch, ..recipe };
    Ok(LearnedFields::fit(&recipe, &pairs, run.seed() + seed, &run.progress())?.0)
}

/// Claim `checker`: sampling with imperfect fields.
fn checker(run: &mut Run) -> Result<()> {
    let (seeds, steps, samples) = run.scale().pick((1, 100, 500), (3, 2000, 4000), (3, 2000, 4000));
    const STEPS: usize = 100;
    let mut columns: [Vec<f64>; 5] = Default::default();
    let mut figure = Figure::new(
        "A checkerboard from networks that are not perfect",
        "Samples of the first seed. Both start from the same noise and use the same networks.",
    )
    .columns(3);
    for seed in 0..seeds {
        let fields = board(run, seed, (64, 3, steps, 512))?;
        let streams = Streams::new(run.seed()).stream("checker").nested(seed);
        let start = normals(samples, 2, streams.stream("start"), 0);
        let reference = examples::checkerboard(samples, streams.stream("reference"));
        let span = fields.path().learnable();
        let ending = |x: Array2<f64>| fields.end(x.view(), span.1);
        let by_flow = ending(flow(&fields, start.clone(), (STEPS, span), Keep::NOTHING, &run.progress())?.x)?;
        let diffusion = |integrator, steps| -> Result<Array2<f64>> {
            let process = Diffusion { epsilon: Epsilon::Constant(0.5), integrator, steps, span };
            ending(process.run(&fields, start.clone(), Keep::NOTHING, streams.stream("noise"), &run.progress())?.x)
        };
        let by_diffusion = diffusion(Integrator::EulerMaruyama, STEPS)?;
        // What shorter steps change is the error of the steps, not of the fields.
        let by_shorter = diffusion(Integrator::EulerMaruyama, 4 * STEPS)?;
        let by_heun = diffusion(Integrator::Heun, STEPS)?;
        let distance = |x: &Array2<f64>| energy_distance(x.view(), reference.view());
        let again = examples::checkerboard(samples, streams.stream("another"));
        for (column, x) in columns.iter_mut().zip([&by_flow, &by_diffusion, &by_shorter, &by_heun, &again]) {
            column.push(distance(x)?);
        }
        if seed == 0 {
            for (title, x) in [("data", &reference), ("flow", &by_flow), ("diffusion, ε = 0.5", &by_diffusion)] {
                let few = samples.min(2500);
                let pick = |j: usize| x.column(j).iter().take(few).copied().collect();
                let plot = Plot::new(Axis::new("x₁").limits(-5.0, 5.0), Axis::new("x₂").limits(-5.0, 5.0));
                figure = figure.panel(plot.titled(title).equal_aspect().points("", pick(0), pick(1), 1.2));
            }
        }
    }
    run.figure("checkerboard", figure);
    let [by_flow, by_diffusion, by_shorter, by_heun, floor] = columns;
    let difference = stats::mean(&by_diffusion) - stats::mean(&by_flow);
    let how = format!(
        "diffusion {:.5} (with 400 steps {:.5}), flow {:.5}, the data themselves {:.5}",
        stats::mean(&by_diffusion),
        stats::mean(&by_shorter),
        stats::mean(&by_flow),
        stats::mean(&floor)
    );
    run.table(
        Table::new("checker", "Energy distance to 4000 fresh points of the checkerboard, seed by seed.")
            .integers("seed", "", 0..by_flow.len() as i64)
            .numbers("flow", "", by_flow)
            .numbers("diffusion", "", by_diffusion)
            .numbers("diffusion, 400 steps", "", by_shorter)
            .numbers("diffusion, Heun", "", by_heun)
            .numbers("data", "", floor),
    )?;
    run.claim("checker", difference, how)
}

/// Claim `checker-likelihood`, at full scale only.
fn checker_likelihood(run: &mut Run) -> Result<()> {
    if run.scale() != Scale::Full {
        return run.not_measured(
            "checker-likelihood",
            "7000 steps of 2000 pairs with two networks of 4 × 256 are made for a GPU; `--full` trains them here",
        );
    }
    let fields = board(run, 0, (256, 4, 7000, 2000))?;
    let points = examples::checkerboard(2000, run.stream("test points"));
    let law = ExactMixture::new(examples::standard_normal(2)?)?;
    let start = |x: ArrayView2<'_, f64>| law.log_density(x, 0.0);
    let how = (Divergence::Exact, Tolerance { absolute: 1e-5, relative: 1e-5 });
    let (log, _) = log_density_of_flow(&fields, points.view(), fields.path().learnable(), start, how, &run.progress())?;
    run.claim("checker-likelihood", -log.mean().unwrap_or(f64::NAN) - 32f64.ln(), "2000 points, exact divergence")
}
