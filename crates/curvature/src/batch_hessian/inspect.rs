//! One run: measures what the input allows, predicts other batch sizes, reports.

use super::run::{BatchHessianParams, NoiseKind};
use super::{
    BatchEnds, Draws, Law, Learner, LearningRates, NetworkCurvature, Noise, Population, SampledGradients, Sampling,
    Scaling, Whole, batch_ends, block_curvatures, directional, effective, gradient_noise, isotropic, whole,
};
use crate::network::Matrix;
use crate::{Explicit, Real, lanczos, vector};
use ndarray::Array2;
use offprint_core::figure::{Axis, Figure, Layer, Plot};
use offprint_core::{Error, Result, Run, Table};
use offprint_nn::Batch;
use offprint_nn::derivatives::LossFunction;
use serde_json::json;

/// A network's curvature on data.
pub(super) fn network(
    params: &BatchHessianParams,
    loss: &LossFunction<'_>,
    data: &Batch,
    matrix: Matrix,
    run: &mut Run,
) -> Result<()> {
    let curvature = NetworkCurvature::<f32>::new(loss, data, matrix, params.part)?;
    run.metric("loss", curvature.value()?, "nat");
    if params.layers {
        layers(params, &curvature, loss, run)?;
    }
    sampled(params, &curvature, run)
}

/// λ₁ and trace of each tensor.
fn layers(
    params: &BatchHessianParams,
    curvature: &NetworkCurvature<'_, f32>,
    loss: &LossFunction<'_>,
    run: &mut Run,
) -> Result<()> {
    use super::SampledMatrix;
    let blocks: Vec<_> = loss.blocks().into_iter().map(|block| (block.name, block.range)).collect();
    let progress = run.progress();
    progress.begin("blocks of tensors", blocks.len() as u64);
    let operator = curvature.whole()?;
    let found = block_curvatures(&operator, &blocks, params.steps, params.probes, run.stream("blocks"), &progress)?;
    progress.finish();
    run.table(
        Table::new("layers", "The part of the matrix that belongs to each parameter tensor alone.")
            .words("tensor", found.iter().map(|b| b.name.clone()))
            .integers("size", "", found.iter().map(|b| b.size as i64))
            .numbers("λ₁", "", found.iter().map(|b| b.ends.top))
            .numbers("λ_min", "", found.iter().map(|b| b.ends.bottom))
            .numbers("trace", "", found.iter().map(|b| b.trace.value))
            .numbers("mean eigenvalue", "", found.iter().map(|b| b.trace.value / b.size as f64)),
    )
}

/// The sizes asked for, or powers of two from 8 (from 1 where that leaves fewer than three) up to half of the samples.
fn sizes(params: &BatchHessianParams, samples: Option<usize>) -> Result<Vec<usize>> {
    if params.batch_sizes.is_empty() {
        let most = samples.map_or(1024, |n| (n / 2).clamp(1, 1 << 20));
        let from = |first: u32| (first..=20).map(|k| 1usize << k).filter(|&b| b <= most).take(8).collect::<Vec<_>>();
        return Ok(if from(3).len() >= 3 { from(3) } else { from(0) });
    }
    let mut sizes = params.batch_sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    let largest = sizes[sizes.len() - 1];
    match samples {
        Some(n) if largest > n && !params.replacement => {
            Err(Error::parameter("batch_sizes", largest, format!("at most the {n} samples")))
        }
        _ => Ok(sizes),
    }
}

/// The size among `sizes` at which noise is estimated.
fn calibration(params: &BatchHessianParams, sizes: &[usize], samples: usize) -> Result<usize> {
    let noisy = |batch: usize| params.replacement || batch < samples;
    if let Some(batch) = params.calibrate {
        let allowed = format!("below the {samples} samples: a batch of all of them has no noise");
        return if noisy(batch) { Ok(batch) } else { Err(Error::parameter("calibrate", batch, allowed)) };
    }
    let octaves = |batch: usize| (batch as f64 / 64.0).log2().abs();
    let candidates = sizes.iter().copied().filter(|&batch| noisy(batch));
    candidates.min_by(|&a, &b| octaves(a).total_cmp(&octaves(b))).ok_or_else(|| {
        let allowed = format!("with one below the {samples} samples, at which noise can be estimated");
        Error::parameter("batch_sizes", format!("{sizes:?}"), allowed)
    })
}

/// A matrix of samples: everything is measured.
pub(super) fn sampled<M: SampledGradients>(params: &BatchHessianParams, matrix: &M, run: &mut Run) -> Result<()> {
    let (n, progress, sampling) = (matrix.samples(), run.progress(), params.sampling());
    sampling.effective_batch(1, n)?;
    let sizes = sizes(params, Some(n))?;
    let fit = calibration(params, &sizes, n)?;
    progress.begin("all data", None);
    let operator = matrix.whole()?;
    let found = whole(&operator, params.steps, params.probes, run.stream("all data"), &progress)?;
    progress.finish();
    let draws = Draws { count: params.draws, sampling, steps: params.steps };
    progress.begin("batches", (sizes.len() * params.draws) as u64);
    let stream = run.stream("batches");
    let batches =
        sizes.iter().map(|&batch| batch_ends(matrix, batch, draws, stream, &progress)).collect::<Result<Vec<_>>>()?;
    progress.finish();
    let at_fit = match batches.iter().find(|b| b.batch == fit) {
        Some(batch) => *batch,
        None => batch_ends(matrix, fit, draws, stream, &progress)?,
    };
    let top = found.ends.top;
    let noise = Noise {
        isotropic: isotropic(
            matrix,
            fit,
            sampling,
            params.draws,
            params.probes,
            run.stream("isotropic noise"),
            &progress,
        )?,
        directional: directional(
            matrix,
            &found.top_vector,
            fit,
            sampling,
            4 * params.draws,
            run.stream("noise along the top"),
            &progress,
        )?,
        effective: effective(at_fit.top.mean, top, at_fit.effective),
    };
    let gradient = gradient_noise(matrix, fit, sampling, 4 * params.draws, run.stream("gradient noise"), &progress)?;
    run.metric("samples N", n as f64, "");
    run.metric("s²_eff", noise.effective, "");
    run.metric("s²_dir", noise.directional, "");
    run.metric("s²_iso", noise.isotropic, "");
    run.metric("gradient-noise scale", gradient.scale(), "samples");
    if noise.effective <= 0.0 {
        run.warn(format!("at B = {fit} batches curve no more than all data; draw more of them (--draws)"));
    }
    let variance = params.variance.unwrap_or(match params.noise {
        NoiseKind::Effective => noise.effective,
        NoiseKind::Directional => noise.directional,
        NoiseKind::Isotropic => noise.isotropic,
    });
    let rates = LearningRates {
        population: Population::of(&found),
        law: params.law(),
        variance: variance.max(0.0),
        remaining: found.remaining(params.spikes),
        samples: n,
        sampling,
    };
    learned(params, matrix, n, run)?;
    report_spectrum(&found, run)?;
    report_batches(&rates, noise, &batches, run)?;
    report_rates(params, &rates, &sizes, run)?;
    run.save_json(
        "curvature.json",
        &json!({
            "top": top, "bottom": found.ends.bottom, "residual": found.ends.residual,
            "trace": found.spectrum.trace().value, "samples": n, "dimension": matrix.dim(),
            "variance": { "effective": noise.effective, "directional": noise.directional, "isotropic": noise.isotropic,
                "estimated at batch": fit },
            "critical batch": rates.critical_batch(),
            "gradient noise": { "trace": gradient.variance, "squared gradient": gradient.squared_gradient },
            "leading eigenvalues": found.leading,
        }),
    )
}

/// What the learner would choose for batches of the base size.
fn learned<M: SampledGradients>(params: &BatchHessianParams, matrix: &M, n: usize, run: &mut Run) -> Result<()> {
    let batch = params.base_batch.min(n);
    let samples = params.sampling().draw(batch, n, run.stream("learner"), 0);
    let start: Vec<M::Element> = vector::gaussian(run.stream("learner"), 1, matrix.dim());
    let ritz = lanczos(&matrix.batch(samples)?, &start, params.steps, &run.progress())?.ritz()?;
    let top = ritz.top().0;
    if top > 0.0 {
        let rates = Learner::default().rates(&ritz, matrix.dim(), top)?;
        run.metric("learner's rate", rates.learning_rate, "");
        run.metric("learner's momentum", rates.momentum, "");
    } else {
        run.warn(format!("a batch of {batch} samples does not curve upwards anywhere: the learner has no rate"));
    }
    Ok(())
}

/// An explicit matrix: predictions from a variance that is given.
pub(super) fn explicit(params: &BatchHessianParams, matrix: &Array2<f64>, run: &mut Run) -> Result<()> {
    let operator = Explicit::new(matrix.view(), &params.matrix.to_string())?;
    let found = whole(&operator, params.steps, params.probes, run.stream("all data"), &run.progress())?;
    let sampling = match params.samples {
        Some(_) => params.sampling(),
        None => Sampling::WithReplacement,
    };
    let rates = LearningRates {
        population: Population::of(&found),
        law: params.law(),
        variance: params.variance.unwrap_or_default(),
        remaining: found.remaining(params.spikes),
        samples: params.samples.unwrap_or(usize::MAX),
        sampling,
    };
    let sizes = sizes(params, params.samples)?;
    report_spectrum(&found, run)?;
    report_rates(params, &rates, &sizes, run)?;
    let batches: Vec<f64> = sizes.iter().map(|&batch| batch as f64).collect();
    let ends = sizes
        .iter()
        .map(|&batch| Ok(rates.population.predict(rates.law, rates.variance, rates.effective(batch)?)))
        .collect::<Result<Vec<_>>>()?;
    run.table(
        Table::new("extremes", "Extreme eigenvalues of batches, predicted.")
            .integers("B", "", sizes.iter().map(|&batch| batch as i64))
            .numbers("λ₁′", "", ends.iter().map(|e| e.top))
            .numbers("λ_P′", "", ends.iter().map(|e| e.bottom)),
    )?;
    run.figure(
        "extremes",
        Figure::new("Extreme eigenvalues of batches", "Predicted from the spectrum and the variance given.").panel(
            Plot::new(Axis::log("batch size B"), Axis::new("eigenvalue"))
                .line("λ₁′", batches.clone(), ends.iter().map(|e| e.top).collect())
                .line("λ_P′", batches, ends.iter().map(|e| e.bottom).collect()),
        ),
    );
    Ok(())
}

/// Places at which the density is drawn.
const PLACES: usize = 400;

fn report_spectrum<T: Real>(found: &Whole<T>, run: &mut Run) -> Result<()> {
    let (ends, trace) = (found.ends, found.spectrum.trace());
    run.metric("dimension P", found.spectrum.dim as f64, "");
    run.metric("λ₁", ends.top, "");
    run.metric("λ_P", ends.bottom, "");
    run.metric("trace", trace.value, "");
    if ends.residual > 0.01 * ends.top.abs() {
        run.warn(format!(
            "an extreme eigenvalue is known to ±{:.2e} only; more Lanczos steps (--steps) make it exact",
            ends.residual
        ));
    }
    let (low, high) = found.spectrum.range();
    // A spectrum of one point still gets an axis.
    let span = (high - low).max(1e-6 * high.abs()).max(f64::MIN_POSITIVE);
    let width = span / 100.0;
    let grid: Vec<f64> = (0..PLACES).map(|i| low - 0.05 * span + 1.1 * span * i as f64 / (PLACES - 1) as f64).collect();
    let density = found.spectrum.density(&grid, width);
    // Below half an eigenvalue in the width of a bump there is nothing to see.
    let floor = 0.1 / (found.spectrum.dim as f64 * width);
    let seen: Vec<f64> = density.iter().map(|&d| if d > floor { d } else { f64::NAN }).collect();
    let table = Table::new("spectrum", "Density of eigenvalues.")
        .numbers("eigenvalue", "", grid.iter().copied())
        .numbers("density", "", density.iter().copied());
    run.save_table("spectrum.csv", &table)?;
    run.figure(
        "spectrum",
        Figure::new(
            "Density of eigenvalues",
            format!(
                "Stochastic Lanczos quadrature over all data, {} probes, smoothed by a Gaussian of 1 % of the range. Marks: \
                 the largest eigenvalues by themselves; most of the {} directions hardly curve.",
                found.spectrum.probes.len(),
                found.spectrum.dim
            ),
        )
        .panel(
            Plot::new(Axis::new("eigenvalue λ"), Axis::log("density"))
                .curve("density", grid, seen)
                .points("leading eigenvalues", found.leading.clone(), vec![floor; found.leading.len()], 3.0),
        ),
    );
    Ok(())
}

fn report_batches(rates: &LearningRates, noise: Noise, batches: &[BatchEnds], run: &mut Run) -> Result<()> {
    let population = &rates.population;
    let predict = |law: Law, variance: f64| {
        batches.iter().map(|b| population.predict(law, variance, b.effective)).collect::<Vec<_>>()
    };
    let laws = Law::ALL.map(|law| predict(law, rates.variance));
    let errors = |ends: &[super::Ends]| {
        let worst = batches.iter().zip(ends).map(|(b, e)| (e.top / b.top.mean - 1.0).abs());
        worst.fold(0.0, f64::max)
    };
    run.table(
        Table::new("extremes", "Largest eigenvalue of batches: measured, and by each law with the s² in use.")
            .integers("B", "", batches.iter().map(|b| b.batch as i64))
            .numbers("λ₁(B)", "", batches.iter().map(|b| b.top.mean))
            .numbers("sd", "", batches.iter().map(|b| b.top.deviation))
            .numbers("additive", "", laws[0].iter().map(|e| e.top))
            .numbers("field-dependent", "", laws[1].iter().map(|e| e.top))
            .numbers("multiplicative", "", laws[2].iter().map(|e| e.top))
            .numbers("overlap", "", batches.iter().map(|b| population.overlap(rates.variance, b.effective))),
    )?;
    run.table(
        Table::new("bottoms", "Smallest eigenvalue of batches: measured, and by the laws with the s² in use.")
            .integers("B", "", batches.iter().map(|b| b.batch as i64))
            .numbers("λ_P(B)", "", batches.iter().map(|b| b.bottom.mean))
            .numbers("sd", "", batches.iter().map(|b| b.bottom.deviation))
            .numbers("additive", "", laws[0].iter().map(|e| e.bottom))
            .numbers("field-dependent", "", laws[1].iter().map(|e| e.bottom))
            .numbers("multiplicative", "", laws[2].iter().map(|e| e.bottom)),
    )?;
    let variances = [("s²_eff", noise.effective), ("s²_dir", noise.directional), ("s²_iso", noise.isotropic)];
    let two = [Law::Additive, Law::FieldDependent];
    run.table(
        Table::new("laws", "Which law and which estimate of s² explain the batches: largest relative error of λ₁(B).")
            .words("law", two.iter().flat_map(|law| [law.name(); 3]).chain([Law::Multiplicative.name()]))
            .words("noise", two.iter().flat_map(|_| variances.map(|v| v.0)).chain(["of P/𝔟"]))
            .numbers(
                "largest error",
                "",
                two.iter()
                    .flat_map(|law| variances.map(|v| errors(&predict(*law, v.1))))
                    .chain([errors(&predict(Law::Multiplicative, 0.0))]),
            ),
    )?;
    let sizes: Vec<f64> = batches.iter().map(|b| b.batch as f64).collect();
    let measured = |name: &str, spread: fn(&BatchEnds) -> super::Spread| {
        let side = |sign: f64| batches.iter().map(spread).map(|s| s.mean + sign * s.deviation).collect::<Vec<_>>();
        Layer::Line {
            name: name.into(),
            x: sizes.clone(),
            y: batches.iter().map(|b| spread(b).mean).collect(),
            band: Some((side(-1.0), side(1.0))),
            marks: true,
            dashed: false,
        }
    };
    let mut top =
        Plot::new(Axis::log("batch size B"), Axis::new("λ₁")).titled("largest").layer(measured("measured", |b| b.top));
    for (law, ends) in Law::ALL.iter().zip(&laws) {
        top = top.reference(law.name(), sizes.clone(), ends.iter().map(|e| e.top).collect());
    }
    let mut figure = Figure::new(
        "Extreme eigenvalues of batches",
        format!(
            "Bands: standard deviation over {} batches of each size. Dashed: the laws, with s² = {:.3}. A law fitted to the \
             largest eigenvalue need not fit the smallest.",
            batches[0].top.count, rates.variance
        ),
    )
    .columns(2)
    .panel(top.horizontal("all data", population.top));
    if population.bottom < 0.0 {
        let below = |ends: &[super::Ends]| ends.iter().map(|e| -e.bottom).collect::<Vec<_>>();
        figure = figure.panel(
            Plot::new(Axis::log("batch size B"), Axis::log("−λ_P"))
                .titled("smallest")
                .layer(measured("measured", |b| super::Spread { mean: -b.bottom.mean, ..b.bottom }))
                .reference("additive", sizes.clone(), below(&laws[0]))
                .reference("field-dependent", sizes.clone(), below(&laws[1]))
                .horizontal("all data", -population.bottom),
        );
    }
    run.figure("extremes", figure);
    Ok(())
}

fn report_rates(params: &BatchHessianParams, rates: &LearningRates, sizes: &[usize], run: &mut Run) -> Result<()> {
    // The base may lie above what a small data set has.
    let base = if rates.sampling == Sampling::WithoutReplacement {
        params.base_batch.min(rates.samples)
    } else {
        params.base_batch
    };
    let at_base = rates.sgd(base, params.momentum)?;
    let sgd = sizes.iter().map(|&b| rates.sgd(b, params.momentum)).collect::<Result<Vec<_>>>()?;
    let adam = sizes.iter().map(|&b| rates.adaptive_from(params.adam_rate, base, b)).collect::<Result<Vec<_>>>()?;
    let damping = sizes.iter().map(|&b| rates.minimal_damping(1.0, b)).collect::<Result<Vec<_>>>()?;
    let scaled = |scaling: Scaling| sizes.iter().map(|&b| scaling.rate(at_base, base, b)).collect::<Vec<_>>();
    run.metric("critical batch B*", rates.critical_batch(), "samples");
    run.metric("SGD's largest rate at the base batch", at_base, "");
    run.table(
        Table::new(
            "rates",
            format!(
                "Largest stable rates of SGD (momentum {}), Adam's rate from {} at B = {base}, damping per unit of rate;                  beside them the usual rules, from SGD's rate at B = {base}.",
                params.momentum, params.adam_rate
            ),
        )
        .integers("B", "", sizes.iter().map(|&b| b as i64))
        .numbers("SGD", "", sgd.iter().copied())
        .numbers("Adam", "", adam.iter().copied())
        .numbers("damping / rate", "", damping)
        .numbers("linear", "", scaled(Scaling::Linear))
        .numbers("square root", "", scaled(Scaling::SquareRoot))
        .numbers("constant", "", scaled(Scaling::Constant)),
    )?;
    let batches: Vec<f64> = sizes.iter().map(|&b| b as f64).collect();
    let critical = rates.critical_batch();
    let mut plot = Plot::new(Axis::log("batch size B"), Axis::log("learning rate")).titled("SGD").line(
        format!("{} law", rates.law.name()),
        batches.clone(),
        sgd,
    );
    for scaling in Scaling::ALL {
        plot = plot.reference(scaling.name(), batches.clone(), scaled(scaling));
    }
    if critical >= batches[0] && critical <= batches[batches.len() - 1] {
        plot = plot.vertical("B*", critical);
    }
    run.figure(
        "rates",
        Figure::new(
            "Learning rate over batch size",
            format!(
                "Left the largest stable rate of SGD: in proportion to B below B* = {critical:.1}, flat above. Right Adam's:                  in proportion to √B until the noise falls below the curvature that is left."
            ),
        )
        .columns(2)
        .panel(plot)
        .panel(
            Plot::new(Axis::log("batch size B"), Axis::log("learning rate")).titled("Adam").line("", batches, adam),
        ),
    );
    Ok(())
}
