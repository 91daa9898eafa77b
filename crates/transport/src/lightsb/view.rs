//! The figures of a run: clouds in the plane, or in the plane of most variance.

use super::LightBridge;
use super::fit::Objective;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayView3, Axis as Along, concatenate};
use offprint_core::figure::{Axis, Layer, Plot};
use offprint_core::random::Stream;
use offprint_core::{Figure, Result};
use offprint_math::linalg;

/// Points of a cloud that are drawn.
const DRAWN: usize = 1_000;

/// Where points of any dimension are drawn.
struct Plane {
    origin: Array1<f64>,
    /// (d, 2)
    axes: Array2<f64>,
    labels: [String; 2],
}

impl Plane {
    /// The coordinates of points in the plane; else the two directions in which `clouds` vary most.
    fn of(clouds: &[ArrayView2<'_, f64>]) -> Self {
        let d = clouds[0].ncols();
        let all = concatenate(Along(0), clouds).expect("clouds of one dimension");
        let origin = all.mean_axis(Along(0)).expect("a point");
        let coordinates = || Self {
            origin: Array1::zeros(d),
            axes: Array2::from_shape_fn((d, 2), |(i, j)| if i == j { 1.0 } else { 0.0 }),
            labels: ["x₁".into(), if d == 1 { String::new() } else { "x₂".into() }],
        };
        if d <= 2 {
            return coordinates();
        }
        let centred = all - &origin;
        let Ok((_, vectors)) = linalg::eigh(linalg::matmul(centred.t(), centred.view()).view()) else {
            return coordinates();
        };
        let axes = concatenate![
            Along(1),
            vectors.slice(ndarray::s![.., d - 1..]),
            vectors.slice(ndarray::s![.., d - 2..d - 1])
        ];
        Self { origin, axes, labels: ["first principal component".into(), "second principal component".into()] }
    }

    fn place(&self, point: ArrayView1<'_, f64>) -> [f64; 2] {
        let z = &point - &self.origin;
        [z.dot(&self.axes.column(0)), z.dot(&self.axes.column(1))]
    }

    fn cloud(&self, points: ArrayView2<'_, f64>) -> (Vec<f64>, Vec<f64>) {
        let count = points.nrows().min(DRAWN);
        (0..count).map(|i| self.place(points.row(i * points.nrows() / count)).into()).unzip()
    }

    fn plot(&self, title: &str) -> Plot {
        let [x, y] = &self.labels;
        Plot::new(Axis::new(x.as_str()), Axis::new(y.as_str())).titled(title).equal_aspect()
    }
}

/// Source, target and mapped points, where each point goes on average, and whole paths.
pub(super) fn bridge(
    x: ArrayView2<'_, f64>,
    target: Option<ArrayView2<'_, f64>>,
    mapped: ArrayView2<'_, f64>,
    mean: ArrayView2<'_, f64>,
    paths: ArrayView3<'_, f64>,
) -> Figure {
    let plural = |n: usize| if n > 2 { "sampled from the process" } else { "straight from start to end" };
    let caption = format!(
        "Left: the mapped points should lie where the target samples do. Middle: from each start to the mean of its ends, \
         the barycentric map. Right: {} paths, {}.",
        paths.len_of(Along(0)),
        plural(paths.len_of(Along(1)))
    );
    let figure = Figure::new("From source to target", caption).columns(3);
    if x.ncols() == 1 {
        return line(figure, x, target, mapped, mean, paths);
    }
    let mut clouds = vec![x, mapped];
    clouds.extend(target);
    let plane = Plane::of(&clouds);
    let mut left = plane.plot("samples");
    let cloud = |plot: Plot, name: &str, points: ArrayView2<'_, f64>| {
        let (x, y) = plane.cloud(points);
        plot.points(name, x, y, 1.2)
    };
    left = cloud(left, "source", x);
    if let Some(target) = target {
        left = cloud(left, "target", target);
    }
    left = cloud(left, "mapped", mapped);
    let count = x.nrows().min(300);
    let arrows = (0..count).map(|i| {
        let i = i * x.nrows() / count;
        let ([a, b], [c, d]) = (plane.place(x.row(i)), plane.place(mean.row(i)));
        [a, b, c, d]
    });
    let middle = cloud(plane.plot("barycentric map"), "mapped", mapped).layer(Layer::Segments {
        name: "start to mean end".into(),
        ends: arrows.collect(),
        arrows: true,
        opacity: vec![0.5],
    });
    let mut pieces = Vec::new();
    for path in paths.outer_iter() {
        let places: Vec<_> = path.rows().into_iter().map(|p| plane.place(p)).collect();
        pieces.extend(places.windows(2).map(|w| [w[0][0], w[0][1], w[1][0], w[1][1]]));
    }
    let right = cloud(plane.plot("process"), "mapped", mapped);
    let right = right.layer(Layer::Segments { name: "paths".into(), ends: pieces, arrows: false, opacity: vec![0.6] });
    figure.panel(left).panel(middle).panel(right)
}

/// The same in one dimension: the plan as a cloud of pairs, paths over time.
fn line(
    figure: Figure,
    x: ArrayView2<'_, f64>,
    target: Option<ArrayView2<'_, f64>>,
    mapped: ArrayView2<'_, f64>,
    mean: ArrayView2<'_, f64>,
    paths: ArrayView3<'_, f64>,
) -> Figure {
    let column = |z: ArrayView2<'_, f64>| z.column(0).to_vec();
    let quantiles = |z: ArrayView2<'_, f64>| {
        let mut z = column(z);
        z.sort_by(f64::total_cmp);
        let levels = (0..z.len()).map(|i| (i as f64 + 0.5) / z.len() as f64).collect();
        (z, levels)
    };
    let mut left = Plot::new(Axis::new("x"), Axis::new("part of the samples below")).titled("samples");
    for (name, z) in [("source", Some(x)), ("target", target), ("mapped", Some(mapped))] {
        if let Some(z) = z {
            let (z, levels) = quantiles(z);
            left = left.curve(name, z, levels);
        }
    }
    let mut pairs: Vec<(f64, f64)> = x.column(0).iter().copied().zip(mean.column(0).iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (starts, means) = pairs.into_iter().unzip();
    let middle = Plot::new(Axis::new("start"), Axis::new("end"))
        .titled("plan")
        .points("sampled", column(x), column(mapped), 1.2)
        .curve("mean", starts, means);
    let mut right = Plot::new(Axis::new("time t"), Axis::new("x")).titled("paths");
    for path in paths.outer_iter() {
        let last = (path.nrows() - 1) as f64;
        right = right.curve("", (0..path.nrows()).map(|i| i as f64 / last).collect(), path.column(0).to_vec());
    }
    figure.panel(left).panel(middle).panel(right)
}

/// The cloud at five times.
pub(super) fn marginals(
    bridge: &LightBridge,
    x: ArrayView2<'_, f64>,
    mapped: ArrayView2<'_, f64>,
    stream: Stream,
) -> Result<Figure> {
    let figure =
        Figure::new("The cloud on its way", "Samples of the process at five times, drawn without simulating it.");
    let plane = Plane::of(&[x, mapped]);
    let mut figure = figure.columns(5);
    for (i, time) in [0.0, 0.25, 0.5, 0.75, 1.0].into_iter().enumerate() {
        let places = bridge.between(x, mapped, time, stream.nested(i as u64).stream("noise"))?;
        let title = format!("t = {time}");
        figure = figure.panel(if x.ncols() == 1 {
            let mut z = places.column(0).to_vec();
            z.sort_by(f64::total_cmp);
            let levels = (0..z.len()).map(|i| (i as f64 + 0.5) / z.len() as f64).collect();
            Plot::new(Axis::new("x"), Axis::new("part of the samples below")).titled(title).curve("", z, levels)
        } else {
            let (px, py) = plane.cloud(places.view());
            plane.plot(&title).points("", px, py, 1.2)
        });
    }
    Ok(figure)
}

/// The loss over the steps, as pairs (step, loss).
pub(super) fn loss(objective: Objective, training: &[(f64, f64)], held_out: &[(f64, f64)]) -> Figure {
    let columns = |curve: &[(f64, f64)]| curve.iter().copied().unzip();
    let (what, caption) = match objective {
        Objective::Likelihood => (
            "loss E log c − E log v",
            "The loss falls to that of the true bridge; the gap to it is the KL divergence. Values for different ε are \
             not comparable. A held-out loss that rises says that the components close in on single samples.",
        ),
        Objective::Matching => ("matching loss", "The mean squared error of the drift beside Brownian bridges."),
    };
    let (x, y) = columns(training);
    let mut plot = Plot::new(Axis::new("step"), Axis::new(what)).curve("training batches", x, y);
    if objective == Objective::Likelihood && !held_out.is_empty() {
        let (x, y) = columns(held_out);
        plot = plot.line("held out", x, y);
    }
    Figure::new("Training", caption).panel(plot)
}
