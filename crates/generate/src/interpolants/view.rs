//! The figures of a run.

use super::{ExactFields, Generated};
use crate::pictures::Shown;
use ndarray::{Array2, ArrayView2, Axis as Along, s};
use offprint_core::figure::{Axis, HeatMap, Layer, Palette, Panel, Plot};
use offprint_core::{Figure, Picture, Result};

/// Points of a cloud that are drawn.
const DRAWN: usize = 2500;

/// Columns and rows of the picture of a density.
const GRID: (usize, usize) = (121, 160);

/// On a line: the density over time, and paths of one law for several ε.
pub(super) fn line(
    exact: Option<&ExactFields>,
    runs: &[(String, &Generated)],
    (low, high): (f64, f64),
) -> Result<Figure> {
    let caption =
        "Paths for different ε are different processes, smooth or rough, but at every time they have the same law.";
    let mut figure = Figure::new("From x₀ to x₁ on a line", caption).columns(2);
    if let Some(exact) = exact {
        figure = figure.panel(density(exact, (low, high))?);
    }
    for (name, run) in runs {
        let mut ends = Vec::new();
        for path in run.paths.outer_iter() {
            let places: Vec<(f64, f64)> = run.times.iter().copied().zip(path.column(0).iter().copied()).collect();
            ends.extend(places.windows(2).map(|w| [w[0].0, w[0].1, w[1].0, w[1].1]));
        }
        let plot = Plot::new(Axis::new("time t").limits(0.0, 1.0), Axis::new("x").limits(low, high))
            .titled(name.as_str())
            .layer(Layer::Segments { name: String::new(), ends, arrows: false, opacity: vec![0.45] });
        figure = figure.panel(plot);
    }
    Ok(figure)
}

/// ρ(t, x) by colour.
fn density(exact: &ExactFields, (low, high): (f64, f64)) -> Result<HeatMap> {
    let (columns, rows) = GRID;
    let places = Array2::from_shape_fn((rows, 1), |(i, _)| high - (high - low) * (i as f64 + 0.5) / rows as f64);
    let mut values = vec![f64::NAN; rows * columns];
    for column in 0..columns {
        let t = column as f64 / (columns - 1) as f64;
        // A path may have no law at a single time (without noise in the middle, say): that column stays blank.
        let Ok(log) = exact.log_density(places.view(), t) else { continue };
        for (row, log) in log.iter().enumerate() {
            values[row * columns + column] = log.exp();
        }
    }
    Ok(HeatMap {
        title: "density ρ(t, x)".into(),
        values,
        rows,
        columns,
        x: Axis::new("time t").limits(0.0, 1.0),
        y: Axis::new("x").limits(low, high),
        colour: Axis::new("density"),
        palette: Palette::Sequential,
    })
}

/// Moments of a moving figure.
const MOMENTS: usize = 41;

/// The density moving from ρ₀ to ρ₁, and points of every process with it. Where the law has no closed form, or more than
/// two dimensions, the points alone.
pub(super) fn moving(
    exact: Option<&ExactFields>,
    runs: &[(String, &Generated)],
    range: impl Fn(usize) -> (f64, f64),
    d: usize,
) -> Result<Figure> {
    let exact = exact.filter(|_| d <= 2);
    let moments = (0..MOMENTS).map(|i| i as f64 / (MOMENTS - 1) as f64);
    let caption =
        "The law moves from ρ₀ to ρ₁ by transport alone (ε = 0) or with noise (ε > 0). Points are single paths.";
    let mut frames: Vec<(String, Panel)> = Vec::new();
    let mut top = 0.0f64;
    for t in moments {
        let panel = match (exact, d) {
            (Some(exact), 1) => {
                let (low, high) = range(0);
                let places =
                    Array2::from_shape_fn((GRID.1, 1), |(i, _)| low + (high - low) * i as f64 / (GRID.1 - 1) as f64);
                let Ok(log) = exact.log_density(places.view(), t) else { continue };
                let density: Vec<f64> = log.iter().map(|log| log.exp()).collect();
                top = density.iter().fold(top, |top, v| top.max(*v));
                Plot::new(Axis::new("x").limits(low, high), Axis::new("density"))
                    .curve("density ρ(t, x)", places.column(0).to_vec(), density)
                    .into()
            }
            (Some(exact), _) => match plane_density(exact, (range(0), range(1)), t) {
                Some(map) => map.into(),
                None => continue,
            },
            (None, _) => {
                let axis = |label: &str, (low, high): (f64, f64)| Axis::new(label).limits(low, high);
                let up = if d == 1 { axis("process", (-1.0, runs.len() as f64)) } else { axis("x₂", range(1)) };
                let plot = Plot::new(axis("x₁", range(0)), up);
                if d == 1 { plot.into() } else { plot.equal_aspect().into() }
            }
        };
        frames.push((format!("t = {t:.2}"), with_points(panel, runs, t)));
    }
    // One height for all moments, and room below the axis for the points of each process.
    for (_, panel) in &mut frames {
        if let (Panel::Plot(plot), true) = (panel, top > 0.0) {
            plot.y = Axis::new("density").limits(-0.09 * top * (runs.len() as f64 + 0.5), 1.05 * top);
            for (i, layer) in plot.layers.iter_mut().skip(1).enumerate() {
                if let Layer::Points { y, .. } = layer {
                    y.fill(-0.09 * top * (i + 1) as f64);
                }
            }
        }
    }
    Ok(Figure::moving("From x₀ to x₁, moving", caption, frames))
}

/// The points of every process at time `t`, if the panel has axes to draw on.
fn with_points(panel: Panel, runs: &[(String, &Generated)], t: f64) -> Panel {
    let Panel::Plot(mut plot) = panel else { return panel };
    for (i, (name, run)) in runs.iter().enumerate() {
        let nearest = run.times.iter().enumerate().min_by(|a, b| (a.1 - t).abs().total_cmp(&(b.1 - t).abs()));
        let Some((time, _)) = nearest else { continue };
        let at = run.paths.index_axis(Along(1), time);
        let x = at.column(0).to_vec();
        let y = if at.ncols() > 1 { at.column(1).to_vec() } else { vec![i as f64; x.len()] };
        plot = plot.points(name.as_str(), x, y, if at.ncols() > 1 { 2.0 } else { 2.4 });
    }
    plot.into()
}

/// ρ(t, x₁, x₂) by colour, in units of its largest value at that time; `None` where the path has no law.
fn plane_density(exact: &ExactFields, (across, up): ((f64, f64), (f64, f64)), t: f64) -> Option<HeatMap> {
    const SIDE: usize = 90;
    let place = |(low, high): (f64, f64), i: usize| low + (high - low) * (i as f64 + 0.5) / SIDE as f64;
    let places = Array2::from_shape_fn((SIDE * SIDE, 2), |(i, j)| {
        if j == 0 { place(across, i % SIDE) } else { place(up, SIDE - 1 - i / SIDE) }
    });
    let log = exact.log_density(places.view(), t).ok()?;
    let top = log.iter().fold(f64::NEG_INFINITY, |top, v| top.max(*v));
    Some(HeatMap {
        title: String::new(),
        values: log.iter().map(|v| (v - top).exp()).collect(),
        rows: SIDE,
        columns: SIDE,
        x: Axis::new("x₁").limits(across.0, across.1),
        y: Axis::new("x₂").limits(up.0, up.1),
        colour: Axis::new("density beside its largest value").limits(0.0, 1.0),
        palette: Palette::Sequential,
    })
}

/// In the plane of the first two coordinates: start, target, what was generated, and paths.
pub(super) fn plane(start: ArrayView2<'_, f64>, target: ArrayView2<'_, f64>, runs: &[(String, &Generated)]) -> Figure {
    let caption =
        "Generated points should lie where the target does, whatever ε. Thin lines are paths of the last process.";
    let mut figure = Figure::new("From x₀ to x₁", caption).columns(2);
    // One frame for all panels, so that they can be compared.
    let [across, up] = [0, 1].map(|j| {
        let given = start.column(j).into_iter().chain(target.column(j)).copied();
        let (low, high) = given.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let margin = 0.05 * (high - low).max(1e-9);
        (low - margin, high + margin)
    });
    let axis = |label: &str, (low, high): (f64, f64)| Axis::new(label).limits(low, high);
    let blank = |title: &str| Plot::new(axis("x₁", across), axis("x₂", up)).titled(title).equal_aspect();
    let cloud = |plot: Plot, name: &str, points: ArrayView2<'_, f64>| {
        let count = points.nrows().min(DRAWN);
        let pick = |j: usize| (0..count).map(|i| points[[i * points.nrows() / count, j]]).collect();
        plot.points(name, pick(0), pick(1), 1.2)
    };
    figure = figure.panel(cloud(cloud(blank("given"), "x₀", start), "x₁", target));
    for (name, run) in runs {
        figure = figure.panel(cloud(blank(name), "generated", run.x.view()));
    }
    if let Some((name, run)) = runs.last() {
        let mut ends = Vec::new();
        for path in run.paths.outer_iter() {
            let places: Vec<[f64; 2]> = path.outer_iter().map(|p| [p[0], p[1]]).collect();
            ends.extend(places.windows(2).map(|w| [w[0][0], w[0][1], w[1][0], w[1][1]]));
        }
        let paths = Layer::Segments { name: "paths".into(), ends, arrows: false, opacity: vec![0.3] };
        figure = figure.panel(blank(&format!("paths, {name}")).layer(paths));
    }
    figure
}

/// Points as pictures over time: one point a row.
pub(super) fn pictures(run: &Generated, name: &str, picture: Picture) -> Figure {
    const ROWS: usize = 8;
    const COLUMNS: usize = 9;
    let frames = run.times.len();
    let chosen: Vec<usize> =
        (0..COLUMNS.min(frames)).map(|i| i * (frames - 1) / (COLUMNS.min(frames) - 1).max(1)).collect();
    let rows = run.paths.len_of(Along(0)).min(ROWS);
    let some = run.paths.slice(s![..rows, .., ..]).select(Along(1), &chosen);
    let points = some.into_shape_with_order((rows * chosen.len(), picture.len())).expect("as many numbers");
    // One scale for all, so that pictures can be compared.
    let grid = Shown::light(picture, &run.x).grid("", points.view(), chosen.len());
    Figure::new(format!("Points on their way, {name}"), "One point a row, time from left (x₀) to right (x₁).")
        .panel(grid)
}

/// Distance to the target over the number of steps.
pub(super) fn costs(steps: &[usize], curves: &[(String, Vec<f64>)], measure: &str, floor: f64) -> Figure {
    let x: Vec<f64> = steps.iter().map(|s| *s as f64).collect();
    let mut plot = Plot::new(Axis::log("steps"), Axis::log(measure));
    for (name, values) in curves {
        plot = plot.line(name.as_str(), x.clone(), values.clone());
    }
    Figure::new(
        "Quality over cost",
        "A step of the flow costs four calls of the velocity, one of the diffusion one or two of velocity and score. \
         The dashed line is the distance of the target's own samples.",
    )
    .panel(plot.horizontal("target itself", floor))
}

/// The loss over training.
pub(super) fn loss(losses: &[f64]) -> Figure {
    // Means over stretches: single batches scatter.
    let stretch = losses.len().div_ceil(200).max(1);
    let (x, y) = losses
        .chunks(stretch)
        .enumerate()
        .map(|(i, part)| ((i * stretch) as f64 + 0.5 * part.len() as f64, part.iter().sum::<f64>() / part.len() as f64))
        .unzip();
    Figure::new("Training", "Loss of velocity and denoiser together, in means over stretches; its minimum is not 0.")
        .panel(Plot::new(Axis::new("step"), Axis::new("loss")).curve("loss", x, y))
}
