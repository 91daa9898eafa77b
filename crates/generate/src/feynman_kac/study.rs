//! The claims, measured.

use super::examples::{classes, experts, forty, line};
use super::models::Bound;
use super::run::FeynmanKac;
use super::truth::{power_draws, product_mixture};
use super::{
    Cooling, Corrector, DoubleWell, Energy, Expert, Lattice, Length, Linear, Observation, Particles, Product, Ramp,
    Reward, Settings, Target, Tempered, Tilted, cool, residual,
};
use crate::exact::{ExactMixture, Mixture};
use crate::network::{Digits8, LinearClassifier};
use crate::{Grid, Guidance, Sampler, Schedule, sample};
use ndarray::{Array1, Axis as Direction, array};
use offprint_core::figure::{Axis, Plot};
use offprint_core::random::Streams;
use offprint_core::{Figure, Result, Run, Study, Table};
use offprint_math::samples::energy_distance;
use offprint_math::stats::{mean, median, quantile};
use rand::RngExt;
use rayon::prelude::*;

impl Study for FeynmanKac {
    fn measure(run: &mut Run) -> Result<()> {
        annealing(run)?;
        tempered_noise(run)?;
        product(run)?;
        guidance(run)?;
        equation(run)?;
        more_particles(run)?;
        many_modes(run)?;
        reward(run)?;
        digits(run)?;
        double_well(run)?;
        run.not_measured(
            "lj13",
            "needs an equivariant network trained on LJ-13 at T = 2 for hours on a GPU, which is not at hand here; \
             two-dimensional laws with exact scores stand for it above",
        )
    }
}

/// The dossier's grid: Karras levels from 20 to 0.01.
fn karras(run: &Run) -> Result<Grid> {
    Grid::karras(&Schedule::Edm, run.scale().pick(100, 400, 1000), 0.01, 20.0, 7.0)
}

/// Runs `settings` on `target` once for each seed, side by side.
fn over_seeds<T: Send>(
    run: &Run,
    name: &str,
    (target, particles, seeds): (&dyn Target, usize, usize),
    grid: &Grid,
    settings: &Settings,
    of: impl Fn(&Particles, Streams) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (stream, progress) = (run.stream(name), run.progress());
    progress.begin(name, (seeds * grid.steps()) as u64);
    let all = (0..seeds)
        .into_par_iter()
        .map(|seed| {
            let streams = stream.nested(seed as u64);
            let corrector = Corrector::new(settings.clone());
            let found = corrector.run_with(target, particles, grid, streams, &mut |_, _, _, _| {}, &progress)?;
            of(&found, streams)
        })
        .collect();
    progress.finish();
    all
}

/// Probability of a first coordinate above 0.
fn right(found: &Particles) -> f64 {
    found.expectation(|y| f64::from(u8::from(y[0] > 0.0)))
}

/// "median m, quartiles a to b".
fn spread_of(values: &[f64]) -> String {
    let [a, m, b] = [0.25, 0.5, 0.75].map(|q| quantile(values, q));
    format!("median {m:.3}, quartiles {a:.3} to {b:.3}")
}

/// Claim 1: the masses of two modes of q³.
fn annealing(run: &mut Run) -> Result<()> {
    let (particles, seeds) = run.scale().pick((512, 4), (4096, 8), (16_384, 32));
    let model = line()?;
    let target = Product::annealed(Expert::known(&model, 3.0)?)?;
    let grid = karras(run)?;
    let measure = |name: &str, settings: Settings| {
        over_seeds(run, name, (&target, particles, seeds), &grid, &settings, |found, _| Ok(right(found)))
    };
    let corrected = measure("annealing", Settings::default())?;
    let scaled = measure("annealing", Settings::unweighted())?;
    let never = measure("annealing", Settings { when: super::When::Never, ..Settings::default() })?;
    let jump = measure("annealing", Settings { when: super::When::Jump, ..Settings::default() })?;
    let every = measure("annealing", Settings { when: super::When::Every(1), ..Settings::default() })?;
    run.table(
        Table::new("annealing", "Mass of the right mode of q³ for each seed; the truth is 0.8.")
            .integers("seed", "", 0..seeds as i64)
            .numbers("drawn anew at half the effective size", "", corrected.iter().copied())
            .numbers("drawn anew in every step", "", every.iter().copied())
            .numbers("weights at the end only", "", never.iter().copied())
            .numbers("jump process", "", jump.iter().copied())
            .numbers("scaled score", "", scaled.iter().copied()),
    )?;
    let how = format!("{seeds} seeds, K = {particles}, {} steps: {}", grid.steps(), spread_of(&corrected));
    run.claim("annealing", (median(&corrected) - 0.8).abs(), how)?;
    run.claim("scaled-score", median(&scaled), format!("{seeds} seeds: {}", spread_of(&scaled)))
}

/// Claim 2: the same law with tempered noise, for more and more particles.
fn tempered_noise(run: &mut Run) -> Result<()> {
    let (sizes, seeds) = run.scale().pick(([256, 1024], 4), ([4096, 65_536], 8), ([4096, 65_536], 32));
    let model = line()?;
    let target = Product::annealed(Expert::known(&model, 3.0)?)?;
    let grid = karras(run)?;
    let tempered = Settings { noise: Settings::noise_of(0.5, 3.0), ..Settings::default() };
    let mut errors = Vec::new();
    let mut words = Vec::new();
    let mut table = Table::new("tempered-noise", "Mass of the right mode with tempered noise; the truth is 0.8.")
        .integers("seed", "", 0..seeds as i64);
    for particles in sizes {
        let found = over_seeds(run, "tempered noise", (&target, particles, seeds), &grid, &tempered, |found, _| {
            Ok((right(found), quantile(&found.effective_sizes, 0.0), found.resamplings.len() as f64))
        })?;
        let masses: Vec<f64> = found.iter().map(|f| f.0).collect();
        let apart: Vec<f64> = masses.iter().map(|m| (m - 0.8).abs()).collect();
        let least = median(&found.iter().map(|f| f.1 / particles as f64).collect::<Vec<_>>());
        let drawn = median(&found.iter().map(|f| f.2).collect::<Vec<_>>());
        words.push(format!(
            "K = {particles}: {}, least effective size {least:.2} K, drawn anew {drawn} times",
            spread_of(&masses)
        ));
        table = table.numbers(format!("K = {particles}"), "", masses);
        errors.push(median(&apart));
    }
    run.table(table)?;
    run.claim("tempered-noise", errors[1] / errors[0], format!("{seeds} seeds; {}", words.join("; ")))
}

/// Claim 3: a product of two mixtures, whose law is a mixture again.
fn product(run: &mut Run) -> Result<()> {
    let (particles, seeds) = run.scale().pick((512, 4), (4096, 8), (16_384, 32));
    let [a, b] = experts()?;
    let target = Product::new(vec![Expert::known(&a, 1.0)?, Expert::known(&b, 1.0)?])?;
    let exact = product_mixture(a.mixture(), b.mixture())?;
    // Components are round: the mass right of 0 is that of normal laws.
    let truth: f64 = (0..exact.weights().len())
        .map(|k| exact.weights()[k] * normal_cdf(exact.means()[[k, 0]] / exact.covariance(k)[[0, 0]].sqrt()))
        .sum();
    let grid = karras(run)?;
    let measure = |settings: Settings| {
        over_seeds(run, "product", (&target, particles, seeds), &grid, &settings, |found, _| Ok(right(found)))
    };
    let (corrected, plain) = (measure(Settings::default())?, measure(Settings::unweighted())?);
    run.table(
        Table::new("product", format!("Mass right of 0 of the product for each seed; the truth is {truth:.4}."))
            .integers("seed", "", 0..seeds as i64)
            .numbers("corrected", "", corrected.iter().copied())
            .numbers("sum of scores", "", plain.iter().copied()),
    )?;
    let how = format!("{seeds} seeds, K = {particles}; truth {truth:.4}, {}", spread_of(&corrected));
    run.claim("product", (median(&corrected) - truth).abs(), how)?;
    let how = format!("{seeds} seeds; truth {truth:.4}, {}", spread_of(&plain));
    run.claim("sum-of-scores", (median(&plain) - truth).abs(), how)
}

/// Φ by the trapezoidal rule, far more exact than what it is compared with.
fn normal_cdf(x: f64) -> f64 {
    let (n, low) = (4000, -12.0f64);
    let x = x.clamp(low, -low);
    let h = (x - low) / f64::from(n);
    let density = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let inner: f64 = (1..n).map(|i| density(low + f64::from(i) * h)).sum();
    h * (inner + 0.5 * (density(low) + density(x)))
}

/// Claim 4: guidance as a geometric average.
fn guidance(run: &mut Run) -> Result<()> {
    let (particles, seeds) = run.scale().pick((512, 4), (4096, 8), (16_384, 32));
    let w = 3.0;
    let [both, one] = classes()?;
    let target = Product::guided(Expert::known(&both, 1.0)?, Expert::known(&one, 1.0)?, w)?;
    let grid = karras(run)?;
    let exact = Lattice::of(&target, 0.01, &[-8.0, -8.0], &[12.0, 8.0], 400)?.expect("known densities");
    let truth = exact.expectation(|y| y[0]);
    let measure = |settings: Settings| {
        let mean = |found: &Particles, _| Ok(found.expectation(|y| y[0]));
        over_seeds(run, "guidance", (&target, particles, seeds), &grid, &settings, mean)
    };
    let (corrected, plain) = (measure(Settings::default())?, measure(Settings::unweighted())?);
    let guided = Guidance::new(&both, &one, w)?;
    let flow = sample::Stepwise(sample::Heun::new());
    let flow: Vec<f64> = (0..seeds)
        .map(|seed| {
            let stream = run.stream("guidance").nested(seed as u64).stream("start");
            let ends = flow.run(&guided, grid.start(particles, 2, crate::Kernel::Gaussian, stream), &grid, stream)?;
            Ok(ends.y.column(0).mean().expect("a particle"))
        })
        .collect::<Result<_>>()?;
    run.table(
        Table::new("guidance", format!("Mean of x₁ under guidance for each seed; the truth is {truth:.4}."))
            .integers("seed", "", 0..seeds as i64)
            .numbers("corrected", "", corrected.iter().copied())
            .numbers("plain guidance, SDE", "", plain.iter().copied())
            .numbers("plain guidance, Heun", "", flow.iter().copied()),
    )?;
    let how = format!("{seeds} seeds, K = {particles}, w = {w}; truth {truth:.4}, {}", spread_of(&corrected));
    run.claim("guidance", (median(&corrected) - truth).abs(), how)?;
    let how =
        format!("{seeds} seeds of the same SDE; truth {truth:.4}, {}; Heun: {}", spread_of(&plain), spread_of(&flow));
    run.claim("plain-guidance", median(&plain) - truth, how)
}

/// Claim 5: the Feynman-Kac equation by finite differences.
fn equation(run: &mut Run) -> Result<()> {
    let points = run.scale().pick(5, 40, 400);
    let [a, b] = experts()?;
    let observed = Observation::new(array![[0.6, -0.3]], array![0.5], 0.9)?;
    let rise: Ramp = "0:1".parse()?;
    let beta: Ramp = "1:2".parse()?;
    let mut worst = 0.0f64;
    let mut rows: Vec<(String, f64, f64)> = Vec::new();
    for (name, exponents) in [("annealing", [3.0, 0.0]), ("product", [1.0, 1.0]), ("guidance", [-2.0, 3.0])] {
        let target = || Product::new(vec![Expert::known(&a, exponents[0])?, Expert::known(&b, exponents[1])?]);
        let product: Box<dyn Target + '_> = Box::new(target()?);
        let tilted: Box<dyn Target + '_> = Box::new(Tilted::new(target()?, observed.clone(), rise.clone())?);
        let mut targets = vec![(name.to_owned(), product), (format!("{name} with a reward"), tilted)];
        if name == "annealing" {
            targets.push(("annealing on a schedule".into(), Box::new(Tempered::new(&a, beta.clone())?)));
        }
        for (name, target) in &targets {
            for zeta in [0.0, 1.0 / 3.0, 1.0, 2.0] {
                let mut largest = 0.0f64;
                let mut rng = run.stream("equation").rng(0);
                for _ in 0..points {
                    let y = Array1::from_shape_simple_fn(2, || rng.random_range(-3.0..3.0));
                    let tau = rng.random_range(0.5..3.0);
                    largest = largest.max(residual(&**target, &y, tau, zeta)?.abs());
                }
                worst = worst.max(largest);
                rows.push((name.clone(), zeta, largest));
            }
        }
    }
    run.table(
        Table::new("equation", "Largest residual of the Feynman-Kac equation over random points.")
            .words("target", rows.iter().map(|r| r.0.clone()))
            .numbers("noise factor", "", rows.iter().map(|r| r.1))
            .numbers("residual", "", rows.iter().map(|r| r.2)),
    )?;
    let how =
        format!("{points} points, τ from 0.5 to 3, seven targets, four noise factors; differences of fourth order");
    run.claim("equation", worst, how)
}

/// Claim 6: the error falls with the number of particles.
fn more_particles(run: &mut Run) -> Result<()> {
    let sizes: &[usize] = run.scale().pick(&[128, 512], &[256, 1024, 4096, 16_384], &[256, 1024, 4096, 16_384, 65_536]);
    let seeds = run.scale().pick(6, 16, 64);
    let model = line()?;
    let target = Product::annealed(Expert::known(&model, 3.0)?)?;
    let grid = karras(run)?;
    let (mut middle, mut rms, mut log_z) = (Vec::new(), Vec::new(), Vec::new());
    let exact = Lattice::of(&target, 0.01, &[-14.0], &[14.0], 20_000)?.expect("known densities").log_normaliser;
    for &particles in sizes {
        let found =
            over_seeds(run, "more particles", (&target, particles, seeds), &grid, &Settings::default(), |f, _| {
                Ok(((right(f) - 0.8).abs(), (f.log_normaliser.unwrap_or(f64::NAN) - exact).abs()))
            })?;
        let errors: Vec<f64> = found.iter().map(|f| f.0).collect();
        middle.push(median(&errors));
        rms.push((errors.iter().map(|e| e * e).sum::<f64>() / seeds as f64).sqrt());
        log_z.push(median(&found.iter().map(|f| f.1).collect::<Vec<_>>()));
    }
    let counts: Vec<f64> = sizes.iter().map(|&k| k as f64).collect();
    run.table(
        Table::new("more-particles", "Error of the mass of the right mode of q³ for each number of particles.")
            .integers("particles", "", sizes.iter().map(|&k| k as i64))
            .numbers("median error", "", middle.iter().copied())
            .numbers("root mean square error", "", rms.iter().copied())
            .numbers("median error of the log normaliser", "", log_z.iter().copied()),
    )?;
    let slope = counts.iter().map(|k| middle[0] * (counts[0] / k).sqrt()).collect();
    let plot = Plot::new(Axis::log("particles K"), Axis::log("error of the mass"))
        .line("median", counts.clone(), middle.clone())
        .line("root mean square", counts.clone(), rms.clone())
        .reference("∝ 1/√K", counts.clone(), slope);
    let caption =
        "Annealing of two modes to β = 3. The root mean square is that of a heavy tail: seeds that lose a mode.";
    run.figure("more-particles", Figure::new("More particles", caption).panel(plot));
    let last = sizes.iter().position(|&k| k == 16_384).unwrap_or(sizes.len() - 1);
    let how = format!(
        "{seeds} seeds; median error {:.4} at K = {} and {:.4} at K = {}; root mean square {:.4} and {:.4}",
        middle[0], sizes[0], middle[last], sizes[last], rms[0], rms[last]
    );
    run.claim("more-particles", middle[0] / middle[last], how)
}

/// Claim 7: forty modes, where it works and where it does not.
fn many_modes(run: &mut Run) -> Result<()> {
    let (particles, seeds, draws) = run.scale().pick((512, 2, 500), (4096, 4, 4000), (16_384, 8, 4000));
    let model = forty(run.stream("forty modes"))?;
    // The modes lie up to 40 from the centre: noise of 20 would not hide them.
    let grid = Grid::karras(&Schedule::Edm, run.scale().pick(100, 400, 1000), 0.01, 200.0, 7.0)?;
    let mut ratios = Vec::new();
    let mut rows = Vec::new();
    let mut words = Vec::new();
    for beta in [2.0, 3.0] {
        let target = Product::annealed(Expert::known(&model, beta)?)?;
        let truth = power_draws(&model, beta, draws, run.stream("truth"))?;
        let measure = |settings: Settings| {
            over_seeds(run, "forty modes", (&target, particles, seeds), &grid, &settings, |found, streams| {
                let drawn = found.draw(draws, streams.stream("draws"));
                Ok((energy_distance(drawn.view(), truth.view())?, found.lineages() as f64))
            })
        };
        let corrected = measure(Settings::default())?;
        let plain = measure(Settings::unweighted())?;
        let distance = |all: &[(f64, f64)]| median(&all.iter().map(|a| a.0).collect::<Vec<_>>());
        let lineages = median(&corrected.iter().map(|a| a.1).collect::<Vec<_>>());
        ratios.push(distance(&corrected) / distance(&plain));
        words.push(format!(
            "energy distance {:.4} corrected, {:.4} without weights, {lineages:.0} lineages survive",
            distance(&corrected),
            distance(&plain)
        ));
        for (seed, (c, p)) in corrected.iter().zip(&plain).enumerate() {
            rows.push((beta, seed as i64, c.0, p.0, c.1));
        }
    }
    run.table(
        Table::new("forty-modes", "Energy distance to the annealed law of forty modes.")
            .numbers("beta", "", rows.iter().map(|r| r.0))
            .integers("seed", "", rows.iter().map(|r| r.1))
            .numbers("corrected", "", rows.iter().map(|r| r.2))
            .numbers("scaled score", "", rows.iter().map(|r| r.3))
            .numbers("lineages", "starts", rows.iter().map(|r| r.4)),
    )?;
    let how = |words: &str| format!("{seeds} seeds, K = {particles}, {draws} draws of each; {words}");
    run.claim("many-modes", ratios[0], how(&words[0]))?;
    run.claim("many-modes-colder", ratios[1], how(&words[1]))
}

/// Claim 8: a reward, where the tilted law is known.
fn reward(run: &mut Run) -> Result<()> {
    let (particles, seeds) = run.scale().pick((512, 3), (4096, 8), (16_384, 32));
    let model = ExactMixture::new(Mixture::round(array![1.0], array![[0.0, 0.0]], array![1.0].view())?)?;
    let reward: Box<dyn Reward> = Box::new(Linear::new(array![1.0, 0.0])?);
    let target = Tilted::new(Product::annealed(Expert::known(&model, 1.0)?)?, reward, "0:1^3".parse()?)?;
    let grid = karras(run)?;
    let found = over_seeds(run, "reward", (&target, particles, seeds), &grid, &Settings::default(), |found, _| {
        let (mean, covariance) = found.moments();
        let off = (mean[0] - 1.0).hypot(mean[1]);
        let worst = [covariance[[0, 0]] - 1.0, covariance[[1, 1]] - 1.0, covariance[[0, 1]]];
        Ok((off, worst.iter().fold(0.0f64, |m, v| m.max(v.abs()))))
    })?;
    let plain = over_seeds(run, "reward", (&target, particles, seeds), &grid, &Settings::unweighted(), |found, _| {
        Ok(found.expectation(|y| y[0]))
    })?;
    let (mean, covariance): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
    run.table(
        Table::new("reward", "N(0, I) tilted by exp(x₁), whose law is N((1, 0), I).")
            .integers("seed", "", 0..seeds as i64)
            .numbers("distance of the mean", "", mean.iter().copied())
            .numbers("largest error of the covariance", "", covariance.iter().copied())
            .numbers("mean of x₁ of the drift alone", "", plain.iter().copied()),
    )?;
    run.claim("reward-mean", median(&mean), format!("{seeds} seeds, K = {particles}: {}", spread_of(&mean)))?;
    run.claim("reward-covariance", median(&covariance), format!("{seeds} seeds: {}", spread_of(&covariance)))?;
    run.claim("reward-drift", median(&plain), format!("{seeds} seeds: {}", spread_of(&plain)))
}

/// Beside the claims: guidance of the digits' network, particles of each class against real digits of it.
fn digits(run: &mut Run) -> Result<()> {
    let (particles, steps) = run.scale().pick((16, 20), (64, 100), (256, 400));
    let Digits8 { network, data } = Digits8::shipped()?;
    let classifier = LinearClassifier::fit(data.train.view(), &data.train_labels, 10)?;
    let grid = Grid::karras(&Schedule::Edm, steps, 0.01, 20.0, 7.0)?;
    let unconditional = Bound::new(network.clone(), None)?;
    let progress = run.progress();
    progress.begin("digits", 30);
    // Weight 1 is the class's own law: what guidance starts from.
    let entrants = [("w = 1", 1.0, true), ("corrected, w = 2", 2.0, false), ("plain guidance, w = 2", 2.0, true)];
    let mut table = Table::new(
        "digits",
        "Guidance of the digits' network: particles of each class beside real digits.",
    )
    .integers("class", "", 0..10);
    for (name, w, plain) in entrants {
        let (mut accuracy, mut distance, mut lineages) = (Vec::new(), Vec::new(), Vec::new());
        for class in 0..10 {
            let conditional = Bound::new(network.clone(), Some(class))?;
            let target = Product::guided(Expert::new(&unconditional, 1.0)?, Expert::new(&conditional, 1.0)?, w)?;
            let settings = if plain { Settings::unweighted() } else { Settings::default() };
            let streams = run.stream("digits").nested(class as u64);
            let found = Corrector::new(settings).run(&target, particles, &grid, streams)?;
            let drawn = found.draw(particles, streams.stream("draws"));
            let of_class = (0..data.train.nrows()).filter(|&i| usize::from(data.train_labels[i]) == class);
            let real = data.train.select(Direction(0), &of_class.collect::<Vec<_>>());
            accuracy.push(classifier.accuracy(drawn.view(), &vec![class; particles])?);
            distance.push(energy_distance(drawn.view(), real.view())?);
            lineages.push(found.lineages() as f64);
            progress.advance(1)?;
        }
        run.metric(&format!("digits, {name}: classifier accuracy"), mean(&accuracy), "");
        run.metric(&format!("digits, {name}: energy distance to real digits"), mean(&distance), "");
        run.metric(&format!("digits, {name}: lineages"), mean(&lineages), "starts");
        table = table.numbers(format!("accuracy, {name}"), "", accuracy).numbers(
            format!("energy distance, {name}"),
            "",
            distance,
        );
    }
    progress.finish();
    run.table(table)
}

/// Beside the claims: a network trained on a double well at T = 2, annealed to T = 1, beside quadrature.
fn double_well(run: &mut Run) -> Result<()> {
    let (samples, training, particles, steps) =
        run.scale().pick((20, 60, 256, 50), (200, 3000, 4096, 400), (400, 20_000, 16_384, 400));
    let cooling = Cooling {
        temperature: 2.0,
        colder: 1.0,
        length: Length { chains: 64, burn_in: 300, samples, thin: 5 },
        training,
        particles,
        steps,
        settings: Settings::default(),
    };
    let start = array![[-1.0, 0.0], [1.0, 0.0]];
    let found = cool(&DoubleWell, &start, &cooling, run.stream("double well").nested(0), &run.progress())?;
    // x and y are independent, and y has a mean energy of T/2.
    let (mut mass, mut total) = (0.0, 0.0);
    for i in -4000..=4000 {
        let energy = 4.0 * ((f64::from(i) * 1e-3).powi(2) - 1.0).powi(2);
        mass += (-energy).exp();
        total += energy * (-energy).exp();
    }
    let energy = |found: &Particles| found.expectation(|x| DoubleWell.evaluate(&[x[0], x[1]], &mut [0.0; 2]));
    run.metric("double well: mean energy at T = 1, quadrature", total / mass + 0.5, "");
    run.metric("double well: mean energy, corrected", energy(&found.corrected), "");
    run.metric("double well: mean energy, scaled score", energy(&found.scaled), "");
    run.metric(
        "double well: mean energy, Monte Carlo at T = 1",
        mean(&DoubleWell.energies(found.cold.view())?.to_vec()),
        "",
    );
    run.metric("double well: right mass, corrected", right(&found.corrected), "");
    Ok(())
}
