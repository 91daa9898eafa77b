//! The figures of a run.

use super::run::{PfgmppParams, Row};
use super::{Augmentation, Scaled};
use crate::exact::ExactEmpirical;
use crate::pictures::Shown;
use crate::sample::{Heun, Stepwise};
use crate::{Grid, Sampler, Schedule};
use ndarray::{Array1, Array2, ArrayView2, Axis as Along, array, s};
use offprint_core::figure::{Axis, Layer, Plot};
use offprint_core::random::Streams;
use offprint_core::{Figure, Progress, Result};
use offprint_math::linalg;

/// Pictures of each D and α.
const PICTURES: usize = 24;
/// Points of each D and α.
const POINTS: usize = 1500;
/// Points of each D that move.
pub(super) const MOVING: usize = 600;

fn name(added: Augmentation) -> String {
    if added.is_diffusion() { "D = ∞ (diffusion)".into() } else { format!("D = {added}") }
}

/// Quality over the size of the errors, over the calls of the model, and over the bits of the weights.
pub(super) fn robustness(params: &PfgmppParams, rows: &[Row]) -> Figure {
    let quality = || Axis::new("sliced W₂ to the data");
    let mut panels = Vec::new();
    if params.alphas.len() > 1 {
        let mut errors = Plot::new(Axis::new("size α of the errors"), quality()).titled("errors before every step");
        for row in rows {
            errors = errors.line(name(row.added), params.alphas.clone(), row.errors.clone());
        }
        panels.push(errors);
    }
    let mut steps = Plot::new(Axis::new("calls of the model"), quality()).titled("fewer steps");
    for row in rows {
        steps = steps.line(name(row.added), row.calls.iter().map(|&c| c as f64).collect(), row.steps.clone());
    }
    panels.push(steps);
    if rows.iter().any(|row| !row.bits.is_empty()) {
        let mut bits = Plot::new(Axis::new("bits of a weight"), quality()).titled("coarser weights");
        for row in rows {
            bits = bits.line(name(row.added), params.bits.iter().map(|&b| f64::from(b)).collect(), row.bits.clone());
        }
        panels.push(bits);
    }
    let caption = "Lower is better. What a smaller D gains in robustness it may lose in ease of learning; the exact denoiser, \
                   which need not learn, shows the first alone.";
    let figure = Figure::new("How much each D forgives", caption).columns(panels.len());
    panels.into_iter().fold(figure, Figure::panel)
}

/// Samples without and with the largest errors, as pictures or as points.
pub(super) fn samples(params: &PfgmppParams, rows: &[Row], data: &Scaled, shown_as: Option<Shown>) -> Result<Figure> {
    let mut shown = vec![0];
    if params.alphas.len() > 1 {
        shown.push(params.alphas.len() - 1);
    }
    let caption = "One row for each D, from the same random numbers; left without errors, right with the largest.";
    let mut figure = Figure::new("Samples", caption).columns(shown.len());
    let plane = Plane::of(data.points.view())?;
    for row in rows {
        for &i in &shown {
            let title = format!("{}, α = {}", name(row.added), params.alphas[i]);
            let points = row.samples[i].view();
            figure = match shown_as {
                Some(shown) => {
                    let some = data.restore(points.slice(s![..points.nrows().min(PICTURES), ..]));
                    figure.panel(shown.grid(title, some.view(), PICTURES / 2))
                }
                None => figure.panel(plane.plot(title, data.points.view(), points)),
            };
        }
    }
    Ok(figure)
}

/// Where points of any dimension are drawn: their coordinates, or the two directions in which the data vary most.
struct Plane {
    /// (N, 2)
    axes: Array2<f64>,
    labels: [&'static str; 2],
}

impl Plane {
    fn of(data: ArrayView2<'_, f64>) -> Result<Self> {
        let d = data.ncols();
        if d <= 2 {
            return Ok(Self { axes: Array2::eye(2).slice_move(ndarray::s![..d, ..]), labels: ["x₁", "x₂"] });
        }
        let (_, covariance) = crate::metrics::moments(data);
        let (_, vectors) = linalg::eigh(covariance.view())?;
        let axes = vectors.select(Along(1), &[d - 1, d - 2]);
        Ok(Self { axes, labels: ["first principal component", "second principal component"] })
    }

    fn plot(&self, title: String, data: ArrayView2<'_, f64>, points: ArrayView2<'_, f64>) -> Plot {
        let some = |all: ArrayView2<'_, f64>| -> (Vec<f64>, Vec<f64>) {
            let count = all.nrows().min(POINTS);
            let rows: Vec<usize> = (0..count).map(|i| i * all.nrows() / count).collect();
            let placed = all.select(Along(0), &rows).dot(&self.axes);
            (placed.column(0).to_vec(), placed.column(1).to_vec())
        };
        let ((x, y), (u, v)) = (some(data), some(points));
        Plot::new(Axis::new(self.labels[0]), Axis::new(self.labels[1]))
            .titled(title)
            .equal_aspect()
            .layer(Layer::Points { name: "data".into(), x, y, radius: 1.2 })
            .layer(Layer::Points { name: "samples".into(), x: u, y: v, radius: 1.8 })
    }
}

/// Points on their way from noise to data, for the smallest and the largest D, in units of √(σ² + σ_data²) so that noise
/// and data fill the same frame.
pub(super) fn moving(rows: &[Row], data: &Scaled) -> Result<Figure> {
    const HALF: f64 = 4.0;
    let plane = Plane::of(data.points.view())?;
    let ends = if rows.len() > 1 { vec![&rows[rows.len() - 1], &rows[0]] } else { vec![&rows[0]] };
    let deviation = data.points.std(0.0);
    let frames = (0..rows[0].way.len()).map(|k| {
        let level = rows[0].way[k].0;
        let unit = level.hypot(deviation);
        let axis = |label: &str| Axis::new(format!("{label} / √(σ² + σ_data²)")).limits(-HALF, HALF);
        let mut plot = Plot::new(axis(plane.labels[0]), axis(plane.labels[1])).equal_aspect();
        for row in &ends {
            let placed = row.way[k].1.dot(&plane.axes) / unit;
            plot = plot.points(name(row.added), placed.column(0).to_vec(), placed.column(1).to_vec(), 1.6);
        }
        (format!("σ = {level:.3}"), plot.into())
    });
    let caption = "From noise (left) to data (right). The tails of a small D reach beyond the frame at first; both laws end in the \
                   same data.";
    Ok(Figure::moving("Samples on their way, moving", caption, frames))
}

/// Field lines of three charges on a line, for Poisson flow, for a D between, and for diffusion.
pub(super) fn field_lines() -> Result<Figure> {
    let charges = array![[-1.0], [0.3], [1.0]];
    let highest = 2.5;
    let grid = Grid::karras(&Schedule::Edm, 60, 0.01, highest, 3.0)?;
    let starts = Array1::linspace(-4.5, 4.5, 37).insert_axis(Along(1));
    let caption = "Three data points as charges at σ = 0, and the lines along which samples come down to them. At D = 1 lines \
                   between two charges are undecided to the last and end upright, as in an electric field; at D = ∞ each \
                   heads for its point early.";
    let mut figure = Figure::new("From Poisson flow to diffusion", caption).columns(3);
    for d in [1.0, 8.0, f64::INFINITY] {
        let added = Augmentation::new(d)?;
        let model = ExactEmpirical::new(charges.clone(), added.kernel())?;
        let mut path: Vec<Array2<f64>> = Vec::new();
        let stream = Streams::new(0).stream("none");
        let sampler = Stepwise(Heun::new());
        sampler.run_with(&model, starts.clone(), &grid, stream, &mut path, &Progress::silent())?;
        let ends = (0..starts.nrows())
            .flat_map(|i| {
                let levels = grid.nodes().windows(2).zip(path.windows(2));
                levels.map(move |(at, x)| [x[0][[i, 0]], at[0].tau, x[1][[i, 0]], at[1].tau])
            })
            .collect();
        let title = if d == 1.0 { "D = 1 (Poisson flow)".into() } else { name(added) };
        let mut x = Axis::new("x");
        x.limits = Some((-4.5, 4.5));
        let mut y = Axis::new("σ = r/√D");
        y.limits = Some((0.0, highest));
        figure = figure.panel(
            Plot::new(x, y)
                .titled(title)
                .layer(Layer::Segments { name: String::new(), ends, arrows: false, opacity: vec![0.7] })
                .layer(Layer::Points {
                    name: String::new(),
                    x: charges.column(0).to_vec(),
                    y: vec![0.0; 3],
                    radius: 5.0,
                }),
        );
    }
    Ok(figure)
}
