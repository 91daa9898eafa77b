//! The claims, measured.

use super::trial::{Trial, dpm_v3, reevaluating, statistics};
use super::{CascadePolynomial, DcSampler, DcSolver, Example, Found, Search, Setting, Variant};
use crate::exact::{Covariances, ExactMixture, Mixture};
use crate::network::{Digits8, Labels};
use crate::sample::{Bh, Correction, Ddim, DpmPlusPlus2M, Multistep, Sampler, Solver, UniPc};
use crate::{Denoiser, Grid, Guidance, Kernel, Schedule, normals};
use ndarray::{Array2, array};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result, Run, Scale, Study, Table};
use offprint_math::stats::log_log_slope;
use std::time::Instant;

impl Study for DcSolver {
    fn measure(run: &mut Run) -> Result<()> {
        orders(run)?;
        guided_mixture(run)?;
        many_dimensions(run)?;
        prediction(run)?;
        cost_of_search(run)?;
        digits(run)?;
        run.not_measured("ffhq", "needs the published latent diffusion model of FFHQ and 50 000 samples on a GPU")?;
        run.not_measured("stable-diffusion", "needs Stable Diffusion 2.1 on a GPU, and its 999-step references")
    }
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(f64::NEG_INFINITY, |most, &v| most.max(v))
}

/// The orders of the samplers that compensation builds on, on grids of equal λ.
fn orders(run: &mut Run) -> Result<()> {
    let means = array![[1.0, -1.0, 0.5], [-1.5, 0.3, 1.0], [0.0, 1.5, -1.0]];
    let variances = array![[0.4, 0.5, 0.6], [0.6, 0.4, 0.5], [0.5, 0.6, 0.4]];
    let model = ExactMixture::new(Mixture::new(array![0.2, 0.5, 0.3], means, Covariances::Diagonal(variances))?)?;
    let steps: Vec<usize> = run.scale().pick(vec![20, 40, 80], vec![20, 40, 80, 160, 320], vec![20, 40, 80, 160, 320]);
    let points = run.scale().pick(16, 64, 64);
    let grid = |steps| Grid::uniform_lambda(&Schedule::vp_linear(), steps, 0.9, 0.05);
    let every = Correction { last: true, ..Correction::default() };
    let unipc = |p| Ok(Multistep { correction: every, ..Multistep::new(UniPc::new(p, Bh::Two)?) });
    let start = grid(1)?.start(points, 3, Kernel::Gaussian, run.stream("start of the orders"));
    let end = |sampler: &dyn Sampler, steps| {
        Ok::<_, offprint_core::Error>(sampler.run(&model, start.clone(), &grid(steps)?, Streams::new(0).stream(""))?.y)
    };
    let reference = end(&unipc(3)?, run.scale().pick(1000, 5000, 5000))?;
    let samplers: [(&str, &str, Box<dyn Sampler>); 4] = [
        ("order-ddim", "DDIM", Box::new(Multistep::new(Ddim))),
        ("order-1", "UniPC-1", Box::new(unipc(1)?)),
        ("order-2", "UniPC-2", Box::new(unipc(2)?)),
        ("order-3", "UniPC-3", Box::new(unipc(3)?)),
    ];
    let count: Vec<f64> = steps.iter().map(|&n| n as f64).collect();
    let mut plot = Plot::new(Axis::log("steps"), Axis::log("rms error"));
    for (id, name, sampler) in samplers {
        let errors: Vec<f64> = steps
            .iter()
            .map(|&n| Ok(super::mean_squared_error(&end(&*sampler, n)?, &reference).sqrt()))
            .collect::<Result<_>>()?;
        let (first, last) = (errors[0], errors[errors.len() - 1]);
        let words = format!("n = {steps:?}, {points} points; rms error from {first:.1e} to {last:.1e}");
        run.claim(id, -log_log_slope(&count, &errors), words)?;
        plot = plot.line(name, count.clone(), errors);
    }
    run.figure(
        "orders",
        Figure::new(
            "Orders of convergence",
            "Exact mixture in three dimensions, steps of equal λ, full order to the end, every step corrected.",
        )
        .panel(plot),
    );
    Ok(())
}

/// What is compared in one cell of a mixture: mean squared errors.
struct Cell {
    guidance: f64,
    nfe: usize,
    ddim: f64,
    dpm: f64,
    fitted: f64,
    plain: f64,
    twice: f64,
    dc: f64,
    few: f64,
    pipeline: [f64; 2],
}

/// One draw of the centres: its cells, and what compensation does for samplers without a corrector.
struct Draw {
    cells: Vec<Cell>,
    predictors: Vec<(String, f64)>,
}

impl Draw {
    /// A ratio of errors over the cells that `keep` names.
    fn ratios(&self, keep: impl Fn(&Cell) -> bool, ratio: impl Fn(&Cell) -> f64) -> Vec<f64> {
        self.cells.iter().filter(|c| keep(c)).map(ratio).collect()
    }

    /// Compensated over plain, in every cell.
    fn gains(&self) -> Vec<f64> {
        self.ratios(|_| true, |c| c.dc / c.plain)
    }

    /// The same with 8 calls or more.
    fn gains_of_many_calls(&self) -> Vec<f64> {
        self.ratios(|c| c.nfe >= 8, |c| c.dc / c.plain)
    }

    /// Asking again over plain, in every cell.
    fn asking_again(&self) -> Vec<f64> {
        self.ratios(|_| true, |c| c.twice / c.plain)
    }

    /// The same under the strongest guidance.
    fn asking_again_guided(&self) -> Vec<f64> {
        self.ratios(|c| c.guidance == 7.5, |c| c.twice / c.plain)
    }

    /// The share of samplers without a corrector that gain.
    fn predictors_helped(&self) -> f64 {
        self.predictors.iter().filter(|(_, ratio)| *ratio < 1.0).count() as f64 / self.predictors.len() as f64
    }
}

/// A grid of equal times of the latent models' schedule.
fn latent_grid(nfe: usize) -> Result<Grid> {
    Grid::uniform_t(&Schedule::scaled_linear(), nfe, 1.0, 1e-3)
}

/// A search's trial and a test's on the same grid, from the rows of one table of noises.
fn split<'a>(
    model: &'a dyn Denoiser,
    nfe: usize,
    (points, tests): (usize, usize),
    (streams, substeps): (Streams, usize),
    progress: &Progress,
) -> Result<(Trial<'a>, Trial<'a>)> {
    let noises = normals(points + tests, model.dim(), streams.stream("noises"), 0);
    let both = Trial::new(model, (latent_grid(nfe)?, &Schedule::scaled_linear()), noises, substeps, progress)?;
    let part = |rows| Trial { model, grid: both.grid.clone(), reference: both.reference.select(rows) };
    Ok((part(0..points), part(points..points + tests)))
}

/// The error of `sampler` with and without ratios found on `search`, on `test`.
fn gain<S: Solver + Clone>(
    sampler: &Multistep<S>,
    search: Search,
    (on, test): (&Trial<'_>, &Trial<'_>),
) -> Result<[f64; 2]> {
    let found = on.search(search, sampler, &Progress::silent())?;
    Ok([test.error(sampler)?, test.error(&DcSampler::new(sampler.clone(), found.ratios))?])
}

/// Misalignment, compensation, few points and predictor-only samplers, on the mixture in 64 dimensions. The first draw
/// of the centres, that of the run's seed, is what the claims are about; the others show how much hangs on the draw.
fn guided_mixture(run: &mut Run) -> Result<()> {
    let calls: Vec<usize> = run.scale().pick(vec![5, 8], vec![5, 6, 8, 10], vec![5, 6, 8, 10]);
    let (others, points, tests, substeps) = run.scale().pick((0, 16, 40, 20), (4, 64, 400, 100), (8, 64, 400, 200));
    let progress = run.progress();
    let total = (others + 1) * GUIDANCES.len() as u64 * calls.iter().map(|nfe| nfe * substeps).sum::<usize>() as u64;
    progress.begin("guided mixtures", total);
    let draws: Vec<Draw> = (0..=others)
        .map(|m| draw(run.stream("guided mixtures").nested(m), &calls, (points, tests, substeps), &progress))
        .collect::<Result<_>>()?;
    progress.finish();
    let claimed = &draws[0];
    let how = format!("one mixture, d = 64, {points} search and {tests} test noises, {substeps} substeps");
    let claims: [(&str, Ratios, fn(&[f64]) -> f64); 4] = [
        ("misalignment", Draw::asking_again, largest),
        ("misalignment-guided", Draw::asking_again_guided, geometric_mean),
        ("compensation", Draw::gains, geometric_mean),
        ("compensation-8", Draw::gains_of_many_calls, largest),
    ];
    for (id, ratios, one_number) in claims {
        let own = ratios(claimed);
        let beside: Vec<f64> = draws[1..].iter().map(|draw| one_number(&ratios(draw))).collect();
        let words = format!("{how}; MSE ratios {own:.3?}; the number on other draws of the centres: {beside:.3?}");
        run.claim(id, one_number(&own), words)?;
    }
    let words: Vec<String> = claimed.predictors.iter().map(|(name, ratio)| format!("{name}: {ratio:.3}")).collect();
    run.claim("predictors", claimed.predictors_helped(), format!("w = 1; {}", words.join(", ")))?;
    let few = geometric_mean(&claimed.ratios(|_| true, |c| c.few / c.dc));
    run.metric("few points, d = 64: error of 10 points / of all", few, "");
    run.table(cells(&claimed.cells))?;
    run.table(other_draws(&draws))?;
    run.figure("mixtures", errors_by_calls(&claimed.cells, calls.len()));
    Ok(())
}

/// Ratios of errors of one draw.
type Ratios = fn(&Draw) -> Vec<f64>;

/// Strengths of the guidance.
const GUIDANCES: [f64; 3] = [1.0, 3.0, 7.5];

/// Every cell of one mixture, whose centres and noises come from `streams`.
fn draw(
    streams: Streams,
    calls: &[usize],
    (points, tests, substeps): (usize, usize, usize),
    progress: &Progress,
) -> Result<Draw> {
    // Points that DPM-Solver-v3 takes its statistics from.
    let fitted = 8 * points;
    let example = Example::new(64, streams.stream("centres"))?;
    let latent = Variant::Latent;
    let mut draw = Draw { cells: Vec::new(), predictors: Vec::new() };
    for guidance in GUIDANCES {
        let model = example.guided(guidance)?;
        let many = normals(fitted, 64, streams.stream("statistics"), 0);
        let known = statistics(&model, many, &latent_grid(calls[0])?, streams, progress)?;
        for &nfe in calls {
            let (search, test) = split(&model, nfe, (points, tests), (streams, substeps), progress)?;
            let sampler = latent.sampler();
            let [plain, dc] = gain(&sampler, latent.search(), (&search, &test))?;
            let few =
                Trial { reference: search.reference.select(0..10.min(points)), grid: search.grid.clone(), ..search };
            let dpm = Multistep::new(DpmPlusPlus2M).with_lower_order_final();
            draw.cells.push(Cell {
                guidance,
                nfe,
                ddim: test.error(&Multistep::new(Ddim))?,
                dpm: test.error(&dpm)?,
                fitted: test.error(&dpm_v3(&known, nfe)?)?,
                plain,
                twice: test.error(&reevaluating(&sampler))?,
                dc,
                few: gain(&sampler, latent.search(), (&few, &test))?[1],
                pipeline: gain(&Variant::Pipeline.sampler(), Variant::Pipeline.search(), (&search, &test))?,
            });
            if guidance == 1.0 && nfe >= 8 {
                let ddim = gain(&Multistep::new(Ddim), Search::default(), (&search, &test))?;
                let dpm = gain(&dpm, Search::default(), (&search, &test))?;
                for (name, [plain, dc]) in [("DDIM", ddim), ("DPM-Solver++(2M)", dpm)] {
                    draw.predictors.push((format!("{name}, NFE {nfe}"), dc / plain));
                }
            }
        }
    }
    Ok(draw)
}

fn cells(cells: &[Cell]) -> Table {
    let column = |of: fn(&Cell) -> f64| cells.iter().map(of);
    Table::new("cells", "Mean squared errors on the guided mixture in 64 dimensions that the claims are about.")
        .numbers("guidance", "", column(|c| c.guidance))
        .integers("NFE", "", cells.iter().map(|c| c.nfe as i64))
        .numbers("DDIM", "", column(|c| c.ddim))
        .numbers("DPM-Solver++(2M)", "", column(|c| c.dpm))
        .numbers("DPM-Solver-v3", "", column(|c| c.fitted))
        .numbers("UniPC-3", "", column(|c| c.plain))
        .numbers("twice the calls / UniPC-3", "", column(|c| c.twice / c.plain))
        .numbers("compensated / UniPC-3", "", column(|c| c.dc / c.plain))
        .numbers("10 points / all points", "", column(|c| c.few / c.dc))
        .numbers("pipeline form, compensated / plain", "", column(|c| c.pipeline[1] / c.pipeline[0]))
}

/// What the claims would have measured on other draws of the centres.
fn other_draws(draws: &[Draw]) -> Table {
    let column = |of: &dyn Fn(&Draw) -> f64| draws.iter().map(of).collect::<Vec<f64>>();
    Table::new(
        "draws",
        "The same numbers on other draws of the centres; the claims are about draw 0, that of the seed.",
    )
    .integers("draw", "", 0..draws.len() as i64)
    .numbers("compensated / UniPC-3, geometric mean", "", column(&|d| geometric_mean(&d.gains())))
    .numbers("largest at NFE ≥ 8", "", column(&|d| largest(&d.gains_of_many_calls())))
    .numbers("largest of all", "", column(&|d| largest(&d.gains())))
    .numbers("twice the calls / UniPC-3, largest", "", column(&|d| largest(&d.asking_again())))
    .numbers("geometric mean at w = 7.5", "", column(&|d| geometric_mean(&d.asking_again_guided())))
    .numbers("share of predictors helped", "", column(&Draw::predictors_helped))
}

fn errors_by_calls(cells: &[Cell], calls: usize) -> Figure {
    let mut figure = Figure::new(
        "A guided mixture in 64 dimensions",
        "Mean squared error of x against the reference. Without compensation the stored outputs belong to states that \
         were corrected afterwards; asking again mends it at twice the calls, compensation at none.",
    )
    .columns(3);
    for row in cells.chunks(calls) {
        let nfe: Vec<f64> = row.iter().map(|c| c.nfe as f64).collect();
        let line = |of: fn(&Cell) -> f64| row.iter().map(of).collect::<Vec<f64>>();
        figure = figure.panel(
            Plot::new(Axis::new("calls of the model"), Axis::log("mean squared error"))
                .titled(format!("guidance {}", row[0].guidance))
                .line("DDIM", nfe.clone(), line(|c| c.ddim))
                .line("DPM-Solver++(2M)", nfe.clone(), line(|c| c.dpm))
                .line("DPM-Solver-v3", nfe.clone(), line(|c| c.fitted))
                .line("UniPC-3", nfe.clone(), line(|c| c.plain))
                .line("compensated", nfe.clone(), line(|c| c.dc))
                .line("twice the calls", nfe.clone(), line(|c| c.twice)),
        );
    }
    figure
}

/// Ten trajectories of 1024 numbers determine the ratios, ten of 16 do not.
fn many_dimensions(run: &mut Run) -> Result<()> {
    let calls: Vec<usize> = run.scale().pick(vec![6], vec![6, 8, 10], vec![6, 8, 10]);
    let (points, tests, substeps) = run.scale().pick((16, 20, 10), (64, 100, 40), (64, 100, 200));
    let few = 10.min(points);
    let progress = run.progress();
    let large = run.scale().pick(256, 1024, 1024);
    progress.begin("10 points or 64", (2 * calls.iter().sum::<usize>() * substeps) as u64);
    // By dimension and number of calls: of ten points to plain, of all to plain, of ten to all.
    let mut rows: Vec<(usize, usize, [f64; 3])> = Vec::new();
    for d in [16, large] {
        let streams = run.stream("dimensions").nested(d as u64);
        let example = Example::new(d, streams.stream("centres"))?;
        let model = example.guided(1.0)?;
        for &nfe in &calls {
            let (search, test) = split(&model, nfe, (points, tests), (streams, substeps), &progress)?;
            let fewer = Trial { reference: search.reference.select(0..few), grid: search.grid.clone(), ..search };
            let (sampler, latent) = (Variant::Latent.sampler(), Variant::Latent.search());
            let [plain, all] = gain(&sampler, latent, (&search, &test))?;
            let ten = gain(&sampler, latent, (&fewer, &test))?[1];
            rows.push((d, nfe, [ten / plain, all / plain, ten / all]));
        }
    }
    progress.finish();
    let of = |d: usize, which: usize| -> Vec<f64> { rows.iter().filter(|r| r.0 == d).map(|r| r.2[which]).collect() };
    let how = format!("d = {large}, w = 1, NFE {calls:?}, {few} search and {tests} test noises, {substeps} substeps");
    let ten = of(large, 0);
    run.claim("compensation-1024", largest(&ten), format!("{how}; MSE ratios {ten:.3?}"))?;
    let against = of(large, 2);
    run.claim(
        "ten-points",
        largest(&against),
        format!("{how}; error of {few} points over that of {points}: {against:.3?}"),
    )?;
    run.metric("few points, d = 16: error of 10 points / of 64", largest(&of(16, 2)), "");
    run.table(
        Table::new(
            "points",
            "How many trajectories the search needs, by dimension: mean squared errors on fresh noises, as ratios.",
        )
        .integers("d", "", rows.iter().map(|r| r.0 as i64))
        .integers("NFE", "", rows.iter().map(|r| r.1 as i64))
        .numbers("10 points / plain", "", rows.iter().map(|r| r.2[0]))
        .numbers("64 points / plain", "", rows.iter().map(|r| r.2[1]))
        .numbers("10 points / 64 points", "", rows.iter().map(|r| r.2[2])),
    )
}

/// The regression on settings that were not searched.
fn prediction(run: &mut Run) -> Result<()> {
    let calls: Vec<usize> = run.scale().pick(vec![5, 8, 10], vec![5, 6, 8, 10, 12], vec![5, 6, 8, 10, 12]);
    let guidances: Vec<f64> =
        run.scale().pick(vec![1.0, 3.0, 5.0], vec![1.0, 2.0, 3.0, 5.0, 7.5], vec![1.0, 2.0, 3.0, 5.0, 7.5]);
    let (points, tests, substeps) = run.scale().pick((16, 20, 10), (64, 400, 100), (64, 400, 200));
    let streams = run.stream("guided mixtures").nested(0);
    let example = Example::new(64, streams.stream("centres"))?;
    let progress = run.progress();
    let (sampler, search) = (Variant::Latent.sampler(), Variant::Latent.search());
    progress.begin("regression", (guidances.len() * calls.iter().sum::<usize>() * substeps) as u64);
    let mut settings = Vec::new();
    for &guidance in &guidances {
        let model = example.guided(guidance)?;
        for &nfe in &calls {
            let noises = normals(points, 64, streams.stream("noises"), 0);
            let on = Trial::new(&model, (latent_grid(nfe)?, &Schedule::scaled_linear()), noises, substeps, &progress)?;
            settings.push(Setting { guidance, ratios: on.search(search, &sampler, &Progress::silent())?.ratios });
        }
    }
    let cascade = CascadePolynomial::fit(&settings)?;
    progress.begin("unseen settings", (16 * substeps) as u64);
    let (mut to_searched, mut to_plain) = (Vec::new(), Vec::new());
    let model = example.guided(4.0)?;
    for nfe in [7, 9] {
        let (on, test) = split(&model, nfe, (points, tests), (streams, substeps), &progress)?;
        let [plain, searched] = gain(&sampler, search, (&on, &test))?;
        let predicted = test.error(&DcSampler::new(sampler.clone(), cascade.ratios(4.0, nfe)?))?;
        to_searched.push(predicted / searched);
        to_plain.push(predicted / plain);
    }
    progress.finish();
    let how = format!("fit on w {guidances:?} × NFE {calls:?}, test on w = 4, NFE 7 and 9");
    run.claim("regression", largest(&to_searched), format!("{how}: {to_searched:.3?}"))?;
    run.claim("regression-helps", largest(&to_plain), format!("{how}: {to_plain:.3?}"))
}

/// What a search costs, as published: five calls, ten points.
fn cost_of_search(run: &mut Run) -> Result<()> {
    let streams = run.stream("guided mixtures").nested(0);
    let example = Example::new(64, streams.stream("centres"))?;
    let model = example.guided(1.0)?;
    let started = Instant::now();
    let noises = normals(10, 64, streams.stream("noises"), 0);
    let silent = Progress::silent();
    let on = Trial::new(&model, (latent_grid(5)?, &Schedule::scaled_linear()), noises, 100, &silent)?;
    let Found { calls, most_calls_of_a_step, ratios, .. } =
        on.search(Variant::Latent.search(), &Variant::Latent.sampler(), &silent)?;
    let seconds = started.elapsed().as_secs_f64();
    let words = format!(
        "NFE 5, 10 points: {calls} calls in all, {seconds:.2} s with references; ratios {:.3?}",
        ratios.values()
    );
    run.metric("search with references, NFE 5, 10 points", seconds, "s");
    run.claim("search-calls", most_calls_of_a_step as f64, words)
}

/// A trained network on real data, searched on ten points as published.
fn digits(run: &mut Run) -> Result<()> {
    let digits = Digits8::shipped()?;
    let (guidances, calls): (Vec<f64>, Vec<usize>) = match run.scale() {
        Scale::Quick => (vec![1.0], vec![5]),
        Scale::Standard => (vec![1.0, 2.0, 4.0, 7.5], vec![5, 8]),
        Scale::Full => (vec![1.0, 2.0, 4.0, 7.5], vec![5, 6, 8, 10]),
    };
    let (tests, substeps, fitted) = run.scale().pick((20, 10, 20), (100, 50, 200), (400, 200, 1000));
    let progress = run.progress();
    let total = 2 * guidances.len() * calls.iter().sum::<usize>() * substeps;
    progress.begin("digits", total as u64);
    let mut rows: Vec<(f64, usize, [f64; 6])> = Vec::new();
    for &w in &guidances {
        // Points of every class in turn.
        let bound = |n: usize| {
            let classes = Labels::Each((0..n).map(|i| i % 10).collect());
            Guidance::new(digits.network.unconditional(), digits.network.conditioned(classes)?, w)
        };
        let many = normals(fitted, 64, run.stream("digits for statistics"), 0);
        let known = statistics(&bound(fitted)?, many, &latent_grid(calls[0])?, run.streams(), &progress)?;
        for &nfe in &calls {
            let trial = |model, n, name: &str| {
                let noises: Array2<f64> = normals(n, 64, run.stream(name), 0);
                Trial::new(model, (latent_grid(nfe)?, &Schedule::scaled_linear()), noises, substeps, &progress)
            };
            let (few, many) = (bound(10)?, bound(tests)?);
            let (on, test) = (trial(&few, 10, "digits to search on")?, trial(&many, tests, "digits to test on")?);
            let sampler = Variant::Latent.sampler();
            let [plain, dc] = gain(&sampler, Variant::Latent.search(), (&on, &test))?;
            let [pipeline, dc_pipeline] = gain(&Variant::Pipeline.sampler(), Variant::Pipeline.search(), (&on, &test))?;
            let twice = test.error(&reevaluating(&sampler))?;
            let ddim = test.error(&Multistep::new(Ddim))?;
            let v3 = test.error(&dpm_v3(&known, nfe)?)?;
            rows.push((w, nfe, [plain, dc / plain, twice / plain, dc_pipeline / pipeline, ddim, v3 / plain]));
        }
    }
    progress.finish();
    run.metric(
        "digits: error with compensation / without",
        geometric_mean(&rows.iter().map(|r| r.2[1]).collect::<Vec<_>>()),
        "",
    );
    run.table(
        Table::new(
            "digits",
            "The network of the digits, ratios searched on 10 trajectories: mean squared errors on fresh noises.",
        )
        .numbers("guidance", "", rows.iter().map(|r| r.0))
        .integers("NFE", "", rows.iter().map(|r| r.1 as i64))
        .numbers("DDIM", "", rows.iter().map(|r| r.2[4]))
        .numbers("UniPC-3", "", rows.iter().map(|r| r.2[0]))
        .numbers("DPM-Solver-v3 / UniPC-3", "", rows.iter().map(|r| r.2[5]))
        .numbers("compensated / UniPC-3", "", rows.iter().map(|r| r.2[1]))
        .numbers("twice the calls / UniPC-3", "", rows.iter().map(|r| r.2[2]))
        .numbers("pipeline form, compensated / plain", "", rows.iter().map(|r| r.2[3])),
    )
}
