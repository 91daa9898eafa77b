//! The pictures of a run.

use super::run::{Outcome, TWICE, WAYS};
use super::{CascadePolynomial, Ratios, Setting};
use crate::pictures::Shown;
use ndarray::{Array2, Axis as Along, s};
use offprint_core::Result;
use offprint_core::figure::{Axis, Figure, Layer, Plot};
use offprint_math::linalg;

/// Most samples that a picture shows.
const SHOWN: usize = 20;

/// The ratio of every step, and how far both runs are from the reference after it.
pub(super) fn steps(ratios: &Ratios, along: &[Vec<f64>; 2]) -> Figure {
    let count = |values: &[f64], from: usize| (from..from + values.len()).map(|k| k as f64).collect::<Vec<f64>>();
    let nfe = ratios.values().len();
    Figure::new(
        format!("Compensation step by step, {nfe} calls of the model"),
        "Left the ratio ρ before each step: below 1 the newest output moves towards the noisier one before it, above 1 \
         beyond its own time. Right the distance of the state from the reference after each step.",
    )
    .columns(2)
    .panel(
        Plot::new(Axis::new("step"), Axis::new("ratio ρ"))
            .line("", count(ratios.values(), 1), ratios.values().to_vec())
            .horizontal("no compensation", 1.0),
    )
    .panel(
        Plot::new(Axis::new("step"), Axis::new("rms error")).line("plain", count(&along[0], 0), along[0].clone()).line(
            "compensated",
            count(&along[1], 0),
            along[1].clone(),
        ),
    )
}

/// Error against calls of the model.
pub(super) fn cost(outcomes: &[Outcome], name: &str) -> Figure {
    let mut plot = Plot::new(Axis::new("calls of the model"), Axis::log("mean squared error"));
    for (way, title) in WAYS.iter().enumerate() {
        let factor = if way == TWICE { 2.0 } else { 1.0 };
        let known = outcomes.iter().filter(|o| o.errors[way].is_finite());
        // The re-evaluating run asks twice at every place but the first and the last.
        let (x, y): (Vec<f64>, Vec<f64>) =
            known.map(|o| (factor * o.nfe as f64 - (factor - 1.0), o.errors[way])).unzip();
        if !x.is_empty() {
            plot = plot.line(title.replace("sampler", name), x, y);
        }
    }
    Figure::new(
        "Error against cost",
        "Mean squared error of the samples against a fine DDIM run from the same noises. Compensation costs no call of \
         the model; asking again at every corrected point doubles them.",
    )
    .panel(plot)
}

/// Samples as pictures: plain, compensated, reference.
pub(super) fn pictures(nfe: usize, samples: [&Array2<f64>; 3], shown: Shown) -> Figure {
    let mut figure = Figure::new(
        format!("Samples with {nfe} calls of the model"),
        "From the same noises: the plain sampler, the compensated one, and the fine reference that both aim at.",
    );
    for (title, table) in ["plain", "compensated", "reference"].into_iter().zip(samples) {
        let some = table.slice(s![..table.nrows().min(SHOWN), ..]);
        figure.panels.push(shown.grid(title, some, SHOWN / 2).into());
    }
    figure
}

/// Where samples ended and where they should have, in the plane in which the reference varies most.
pub(super) fn plane(nfe: usize, [plain, better, reference]: [&Array2<f64>; 3]) -> Result<Figure> {
    let centre = reference.mean_axis(Along(0)).expect("a sample at least");
    let (_, _, v) = linalg::svd((reference - &centre).view())?;
    let flat = |x: &Array2<f64>| linalg::matmul((x - &centre).view(), v.slice(ndarray::s![.., ..2]));
    let (plain, better, reference) = (flat(plain), flat(better), flat(reference));
    let ends = |x: &Array2<f64>| -> Vec<[f64; 4]> {
        x.outer_iter().zip(reference.outer_iter()).map(|(a, b)| [b[0], b[1], a[0], a[1]]).collect()
    };
    let panel = |title: &str, x: &Array2<f64>| {
        Plot::new(Axis::new("first direction"), Axis::new("second direction"))
            .titled(title)
            .equal_aspect()
            .layer(Layer::Segments { name: String::new(), ends: ends(x), arrows: false, opacity: vec![0.5] })
            .points("reference", reference.column(0).to_vec(), reference.column(1).to_vec(), 2.0)
            .points("sampler", x.column(0).to_vec(), x.column(1).to_vec(), 2.0)
    };
    Ok(Figure::new(
        format!("Samples with {nfe} calls of the model"),
        "Each sample is joined to the reference from the same noise: the shorter, the better. The plane is that in which \
         the reference varies most.",
    )
    .columns(2)
    .panel(panel("plain", &plain))
    .panel(panel("compensated", &better)))
}

/// Searched ratios beside the polynomial, for every guidance.
pub(super) fn cascade(settings: &[Setting], cascade: &CascadePolynomial) -> Result<Figure> {
    let mut figure = Figure::new(
        "Ratios, searched and fitted",
        "Points are searched ratios over the share of the steps that is done; curves the fitted polynomial.",
    )
    .columns(2);
    let mut shown: Vec<f64> = Vec::new();
    for w in settings.iter().map(|s| s.guidance) {
        if shown.contains(&w) {
            continue;
        }
        shown.push(w);
        let mut plot = Plot::new(Axis::new("step / steps"), Axis::new("ratio ρ")).titled(format!("guidance {w}"));
        for setting in settings.iter().filter(|s| s.guidance == w) {
            let searched = setting.ratios.values();
            let nfe = searched.len();
            let x: Vec<f64> = (3..=nfe).map(|k| k as f64 / nfe as f64).collect();
            let fitted = cascade.ratios(w, nfe)?;
            plot = plot.points(format!("NFE {nfe}"), x.clone(), searched.iter().skip(2).copied().collect(), 3.0).curve(
                "",
                x,
                fitted.values().iter().skip(2).copied().collect(),
            );
        }
        figure = figure.panel(plot);
    }
    Ok(figure)
}
