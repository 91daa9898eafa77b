//! λ₁ and λ_P of batches of digits, at three moments of a training.

use crate::batch_hessian::problem::{Problem, curvature};
use crate::batch_hessian::{
    BatchEnds, Draws, Ends, Law, Noise, Population, SampledMatrix, Sampling, batch_ends, directional, effective,
    isotropic, whole,
};
use crate::network::Matrix;
use candle_core::DType;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Result, Run, Table};
use offprint_math::stats::log_log_slope;

/// The batch size that s²_eff is fitted at.
const FIT: usize = 64;

/// What was found at one moment.
struct Moment {
    name: &'static str,
    id: &'static str,
    whole: Ends,
    batches: Vec<BatchEnds>,
    noise: Noise,
    population: Population,
}

impl Moment {
    fn gap(&self, batch: &BatchEnds) -> f64 {
        batch.top.mean - self.whole.top
    }

    fn at(&self, batch: usize) -> &BatchEnds {
        self.batches.iter().find(|b| b.batch == batch).expect("one of the sizes")
    }

    /// The slope of log gap over log B for 16 ≤ B ≤ 256.
    fn slope(&self) -> f64 {
        let middle: Vec<&BatchEnds> = self.batches.iter().filter(|b| (16..=256).contains(&b.batch)).collect();
        let sizes: Vec<f64> = middle.iter().map(|b| b.batch as f64).collect();
        log_log_slope(&sizes, &middle.iter().map(|b| self.gap(b)).collect::<Vec<_>>())
    }

    /// The largest relative error of the gap that the additive law with `variance` predicts at 32 and 128.
    fn error(&self, variance: f64) -> f64 {
        let errors = [32, 128].map(|batch| {
            let batch = self.at(batch);
            let law = self.population.predict(Law::Additive, variance, batch.effective).top - self.whole.top;
            (law / self.gap(batch) - 1.0).abs()
        });
        errors[0].max(errors[1])
    }

    /// The largest rise of mean λ₁ from one size to the next larger, in standard errors of the difference.
    fn rise(&self) -> f64 {
        let rises = self
            .batches
            .windows(2)
            .map(|pair| (pair[1].top.mean - pair[0].top.mean) / pair[0].top.error().hypot(pair[1].top.error()));
        rises.fold(f64::NEG_INFINITY, f64::max)
    }
}

pub fn measure(run: &mut Run) -> Result<()> {
    let (epochs, sizes): ([u64; 3], Vec<usize>) =
        run.scale().pick(([0, 1, 4], vec![16, 32, 64, 128]), ([0, 3, 20], sizes()), ([0, 3, 20], sizes()));
    let draws = run.scale().pick(4, 8, 32);
    let names = ["at the start", "early in training", "late in training"];
    let mut moments = Vec::new();
    for (i, (&epochs, id)) in epochs.iter().zip(["start", "early", "late"]).enumerate() {
        let problem = Problem::digits(run.streams(), DType::F32)?;
        problem.train(epochs, &run.progress())?;
        moments.push(moment(&problem, names[i], id, &sizes, draws, run)?);
    }
    report(run, &moments, epochs, draws)
}

fn sizes() -> Vec<usize> {
    (3..=9).map(|k| 1 << k).collect()
}

fn moment(
    problem: &Problem,
    name: &'static str,
    id: &'static str,
    sizes: &[usize],
    count: usize,
    run: &Run,
) -> Result<Moment> {
    let progress = run.progress();
    let stream = run.stream("batches");
    let (sampling, steps) = (Sampling::WithoutReplacement, run.scale().pick(25, 40, 60));
    let function = problem.function();
    let matrix = curvature::<f32>(&function, &problem.data, Matrix::Hessian)?;
    let found = whole(&matrix.whole()?, steps, run.scale().pick(2, 8, 16), run.stream("all data"), &progress)?;
    let draws = Draws { count, sampling, steps };
    progress.begin(&format!("batches {name}"), (sizes.len() * count) as u64);
    let batches =
        sizes.iter().map(|&batch| batch_ends(&matrix, batch, draws, stream, &progress)).collect::<Result<Vec<_>>>()?;
    progress.finish();
    let fit = batches.iter().find(|b| b.batch == FIT).expect("one of the sizes");
    let noise = Noise {
        isotropic: isotropic(&matrix, FIT, sampling, 4 * count, 4, run.stream("isotropic noise"), &progress)?,
        directional: directional(
            &matrix,
            &found.top_vector,
            FIT,
            sampling,
            4 * count,
            run.stream("noise along the top"),
            &progress,
        )?,
        effective: effective(fit.top.mean, found.ends.top, fit.effective),
    };
    Ok(Moment { name, id, whole: found.ends, noise, population: Population::of(&found), batches })
}

fn report(run: &mut Run, moments: &[Moment], epochs: [u64; 3], draws: usize) -> Result<()> {
    let how = format!("digits, P = 6570, after {epochs:?} epochs, {draws} batches of each size without replacement");
    let small = || moments.iter().flat_map(|m| m.batches.iter().filter(|b| b.batch <= 256).map(move |b| (m, b)));
    let top = small().map(|(m, b)| b.top.mean / m.whole.top).fold(f64::INFINITY, f64::min);
    let bottom = small().map(|(m, b)| b.bottom.mean / m.whole.bottom).fold(f64::INFINITY, f64::min);
    run.claim("top-exceeds", top, how.clone())?;
    run.claim("bottom-exceeds", bottom, how.clone())?;
    run.claim("monotone", moments.iter().map(Moment::rise).fold(f64::NEG_INFINITY, f64::max), how.clone())?;
    for moment in moments {
        run.claim(&format!("gap-slope-{}", moment.id), moment.slope(), format!("{how}; {}", moment.name))?;
    }
    for moment in [&moments[0], &moments[2]] {
        let noise = moment.noise;
        let words = format!(
            "{how}; {}: s²_eff {:.3}, s²_dir {:.3}, s²_iso {:.3}; with s²_dir the error is {:.2}, with s²_iso {:.2}",
            moment.name,
            noise.effective,
            noise.directional,
            noise.isotropic,
            moment.error(noise.directional),
            moment.error(noise.isotropic)
        );
        run.claim(&format!("predicts-{}", moment.id), moment.error(noise.effective), words)?;
    }
    run.table(
        Table::new("noise", "Three estimates of s², and the error of the gap each predicts at B = 32 and 128.")
            .words("moment", moments.iter().map(|m| m.name))
            .numbers("λ₁", "", moments.iter().map(|m| m.whole.top))
            .numbers("λ_P", "", moments.iter().map(|m| m.whole.bottom))
            .numbers("s²_eff", "", moments.iter().map(|m| m.noise.effective))
            .numbers("s²_dir", "", moments.iter().map(|m| m.noise.directional))
            .numbers("s²_iso", "", moments.iter().map(|m| m.noise.isotropic))
            .numbers("error, eff", "", moments.iter().map(|m| m.error(m.noise.effective)))
            .numbers("error, dir", "", moments.iter().map(|m| m.error(m.noise.directional)))
            .numbers("error, iso", "", moments.iter().map(|m| m.error(m.noise.isotropic))),
    )?;
    let rows = || moments.iter().flat_map(|m| m.batches.iter().map(move |b| (m, b)));
    run.table(
        Table::new("batches", "Extreme eigenvalues of batch Hessians: means and standard deviations over batches.")
            .words("moment", rows().map(|(m, _)| m.name))
            .integers("B", "", rows().map(|(_, b)| b.batch as i64))
            .numbers("λ₁(B)", "", rows().map(|(_, b)| b.top.mean))
            .numbers("sd", "", rows().map(|(_, b)| b.top.deviation))
            .numbers("λ₁(B)/λ₁", "", rows().map(|(m, b)| b.top.mean / m.whole.top))
            .numbers("λ_P(B)", "", rows().map(|(_, b)| b.bottom.mean))
            .numbers("sd ", "", rows().map(|(_, b)| b.bottom.deviation))
            .numbers("largest residual", "", rows().map(|(_, b)| b.residual)),
    )?;
    let mut figure = Figure::new(
        "The largest eigenvalue of batch Hessians",
        "Marks: mean over batches with its standard deviation; dashed: the additive law with s² fitted at B = 64, and \
         with the isotropic estimate; level line: all data.",
    )
    .columns(3);
    for moment in moments {
        let sizes: Vec<f64> = moment.batches.iter().map(|b| b.batch as f64).collect();
        let law = |variance: f64| {
            let predict = |b: &BatchEnds| moment.population.predict(Law::Additive, variance, b.effective).top;
            moment.batches.iter().map(predict).collect::<Vec<_>>()
        };
        let edge = |sign: f64| moment.batches.iter().map(move |b| b.top.mean + sign * b.top.deviation).collect();
        figure = figure.panel(
            Plot::new(Axis::log("batch size B"), Axis::new("λ₁(B)"))
                .titled(moment.name)
                .band(
                    "measured",
                    sizes.clone(),
                    moment.batches.iter().map(|b| b.top.mean).collect(),
                    edge(-1.0),
                    edge(1.0),
                )
                .reference("law, s²_eff", sizes.clone(), law(moment.noise.effective))
                .reference("law, s²_iso", sizes, law(moment.noise.isotropic)),
        );
    }
    run.figure("batches", figure);
    Ok(())
}
