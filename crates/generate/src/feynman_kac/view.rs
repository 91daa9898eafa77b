//! The figures of a run.

use super::resample::evenly;
use super::{Lattice, Particles};
use crate::network::DigitsData;
use crate::pictures::Shown;
use ndarray::{Array2, ArrayView2, Axis as Along, s};
use offprint_core::Figure;
use offprint_core::figure::{Axis, HeatMap, Layer, Palette, Panel, Plot};
use offprint_math::stats::quantile;

/// Columns of a map of the way, and its rows.
const COLUMNS: usize = 120;
const ROWS: usize = 120;
/// Particles that are looked at for a range.
const DRAWN: usize = 2500;
/// Points that stand for all particles in a moving figure.
const MOVING: usize = 700;

/// The first coordinate of the weighted particles, watched on the way.
pub(super) struct Record {
    steps: usize,
    /// For each kept step: noise level, coordinates, weights.
    kept: Vec<(usize, f64, Vec<f64>, Vec<f64>)>,
    /// Points (n, 2) that stand for the weighted particles, at some of the kept steps; for particles in a plane or beyond.
    clouds: Vec<(f64, Array2<f64>)>,
}

impl Record {
    /// For a run of `steps` steps.
    pub(super) fn new(steps: usize) -> Self {
        Self { steps, kept: Vec::new(), clouds: Vec::new() }
    }

    /// Keeps a step if its column in the map is new.
    pub(super) fn watch(&mut self, step: usize, tau: f64, y: &Array2<f64>, weights: &[f64]) {
        let every = self.steps.div_ceil(COLUMNS);
        if (step + 1).is_multiple_of(every) || step + 1 == self.steps {
            self.kept.push((step + 1, tau, y.column(0).to_vec(), weights.to_vec()));
            if y.ncols() >= 2 && (self.kept.len() % 3 == 1 || step + 1 == self.steps) {
                self.clouds.push((tau, y.select(ndarray::Axis(0), &evenly(weights, MOVING)).slice_move(s![.., ..2])));
            }
        }
    }

    /// The range that holds all but a part in 200 of the final coordinates, widened.
    fn range(&self) -> (f64, f64) {
        let Some((.., values, _)) = self.kept.last() else { return (-1.0, 1.0) };
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (a, b) = (sorted[sorted.len() / 200], sorted[sorted.len() - 1 - sorted.len() / 200]);
        let margin = 0.35 * (b - a) + 1e-6;
        (a - margin, b + margin)
    }

    /// Mass of the particles in each cell over the fraction of steps.
    fn map(&self, title: &str, (low, high): (f64, f64)) -> HeatMap {
        let columns = self.kept.len();
        let mut values = vec![0.0; ROWS * columns];
        for (column, (_, _, places, weights)) in self.kept.iter().enumerate() {
            for (y, w) in places.iter().zip(weights) {
                let row = ((high - y) / (high - low) * ROWS as f64).floor();
                if (0.0..ROWS as f64).contains(&row) {
                    values[row as usize * columns + column] += w * ROWS as f64 / (high - low);
                }
            }
            // Each column in units of its own largest value: late densities are many times higher than early ones.
            let top = (0..ROWS).map(|r| values[r * columns + column]).fold(0.0, f64::max);
            if top > 0.0 {
                (0..ROWS).for_each(|r| values[r * columns + column] /= top);
            }
        }
        HeatMap {
            title: title.into(),
            values,
            rows: ROWS,
            columns,
            x: Axis::new("step").limits(0.0, self.steps as f64),
            y: Axis::new("first coordinate y").limits(low, high),
            colour: Axis::new("density beside its largest value").limits(0.0, 1.0),
            palette: Palette::Sequential,
        }
    }
}

/// The weighted particles on their way, and those of the same process without weights: clouds of the first two
/// coordinates, or densities of the only one.
pub(super) fn moving(records: &[Record], heuristic: &str) -> Figure {
    let caption = "From noise to data. Both follow the same drift; weights move mass to where the target has it.";
    let names = ["corrected", heuristic];
    let frames: Vec<(String, Panel)> = if records[0].clouds.is_empty() {
        let (low, high) = records[0].range();
        let maps = [0, 1].map(|i| records[i].map("", (low, high)));
        let places: Vec<f64> = (0..ROWS).map(|r| high - (high - low) * (r as f64 + 0.5) / ROWS as f64).collect();
        let moment = |column: usize| {
            let axis = Axis::new("density beside its largest value").limits(0.0, 1.08);
            let mut plot = Plot::new(Axis::new("y").limits(low, high), axis);
            for (map, name) in maps.iter().zip(names) {
                let values = (0..ROWS).map(|r| map.values[r * map.columns + column]).collect();
                plot = plot.curve(name, places.clone(), values);
            }
            (level(records[0].kept[column].1), plot.into())
        };
        (0..records[0].kept.len()).map(moment).collect()
    } else {
        let last = records.iter().filter_map(|record| record.clouds.last()).map(|(_, cloud)| cloud.view());
        let last: Vec<ArrayView2<'_, f64>> = last.collect();
        let (across, up) = (range(&last, 0), range(&last, 1));
        let moment = |k: usize| {
            let axis = |label: &str, (low, high): (f64, f64)| Axis::new(label).limits(low, high);
            let mut plot = Plot::new(axis("y₁", across), axis("y₂", up)).equal_aspect();
            for (record, name) in records.iter().zip(names).rev() {
                let cloud = &record.clouds[k].1;
                plot = plot.points(name, cloud.column(0).to_vec(), cloud.column(1).to_vec(), 1.6);
            }
            (level(records[0].clouds[k].0), plot.into())
        };
        (0..records[0].clouds.len()).map(moment).collect()
    };
    Figure::moving("From noise to data, moving", caption, frames)
}

fn level(tau: f64) -> String {
    format!("τ = {tau:.2}")
}

/// The density of the first coordinate from noise to data, corrected and without weights, beside the law at its `end`.
pub(super) fn way(records: &[Record], heuristic: &str, end: Option<&Figure>) -> Figure {
    let caption = "The first coordinate on its way from noise to data. Both follow the same drift; on the left weights \
                   move mass to where the target has it.";
    let range = records[0].range();
    let mut figure = Figure::new("From noise to data", caption).columns(if end.is_some() { 3 } else { 2 });
    for (record, title) in records.iter().zip(["corrected", heuristic]) {
        figure = figure.panel(record.map(title, range));
    }
    figure.panels.extend(end.into_iter().flat_map(|end| end.panels.clone()));
    figure
}

/// Effective sample size over the steps.
pub(super) fn weights(found: &Particles, particles: usize) -> Figure {
    let count = particles as f64;
    let steps = (1..=found.effective_sizes.len()).map(|s| s as f64).collect();
    let parts = found.effective_sizes.iter().map(|s| s / count).collect();
    let mut plot = Plot::new(Axis::new("step"), Axis::new("effective sample size / particles").limits(0.0, 1.05))
        .curve("after the step", steps, parts);
    if (1..=200).contains(&found.resamplings.len()) {
        let (x, y) = found
            .resamplings
            .iter()
            .map(|(step, _)| (*step as f64 + 1.0, found.effective_sizes[*step] / count))
            .unzip();
        plot = plot.points("drawn anew", x, y, 3.0);
    }
    let caption = "How evenly the weights are spread. Low values mean that few particles carry the estimate.";
    Figure::new("Weights on the way", caption).panel(plot)
}

/// The law at the end: densities on the line, clouds in the plane.
pub(super) fn result(
    d: usize,
    (corrected, heuristic): (&Particles, &Particles),
    (draws, unweighted): (&Array2<f64>, &Array2<f64>),
    exact: Option<&Lattice>,
    name: &str,
) -> Figure {
    if d == 1 {
        let caption = "Densities of the weighted particles, of the same process without weights, and by quadrature.";
        Figure::new("The law at the end", caption).panel(line(corrected, heuristic, exact, name))
    } else {
        plane(draws.view(), unweighted.view(), exact, name)
    }
}

fn line(corrected: &Particles, heuristic: &Particles, exact: Option<&Lattice>, name: &str) -> Plot {
    let values: Vec<f64> = corrected.y.iter().chain(&heuristic.y).copied().collect();
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    let width = ((high - low) / 160.0).max(1e-9);
    let density = |particles: &Particles| -> (Vec<f64>, Vec<f64>) {
        let mut bins = vec![0.0; 162];
        for (y, w) in particles.y.iter().zip(&particles.weights) {
            bins[((y - low) / width) as usize + 1] += w / width;
        }
        bins.into_iter().enumerate().map(|(i, b)| (low + (i as f64 - 0.5) * width, b)).unzip()
    };
    let (x, y) = density(corrected);
    let (px, py) = density(heuristic);
    let mut plot = Plot::new(Axis::new("x"), Axis::new("density")).curve("corrected", x, y).curve(name, px, py);
    if let Some(exact) = exact {
        let density = exact.masses.iter().map(|m| m / exact.cell).collect();
        plot = plot.reference("exact", exact.points.column(0).to_vec(), density);
    }
    plot
}

fn plane(draws: ArrayView2<'_, f64>, unweighted: ArrayView2<'_, f64>, exact: Option<&Lattice>, name: &str) -> Figure {
    // All panels show what the lattice covers, if there is one.
    let shown = |j: usize| exact.map_or_else(|| range(&[draws, unweighted], j), |exact| edges(exact, j));
    let (range_x, range_y) = (shown(0), shown(1));
    let axes = || (Axis::new("x₁").limits(range_x.0, range_x.1), Axis::new("x₂").limits(range_y.0, range_y.1));
    let cloud = |title: &str, points: ArrayView2<'_, f64>| {
        let count = points.nrows().min(DRAWN);
        let at = |j: usize| (0..count).map(|i| points[[i * points.nrows() / count, j]]).collect();
        let (x, y) = axes();
        Plot::new(x, y).titled(title).equal_aspect().layer(Layer::Points {
            name: String::new(),
            x: at(0),
            y: at(1),
            radius: 1.2,
        })
    };
    let caption = if draws.ncols() == 2 {
        "Draws of the corrected law, of the same process without weights, and the exact density."
    } else {
        "First two coordinates of draws of the corrected law, and of the same process without weights."
    };
    let mut figure = Figure::new("The law at the end", caption).columns(3);
    figure = figure.panel(cloud("corrected", draws)).panel(cloud(name, unweighted));
    if let Some(exact) = exact {
        let n = exact.count;
        // Lattice rows run along x₁; an image's rows run down x₂.
        let values = (0..n * n).map(|i| exact.masses[(i % n) * n + n - 1 - i / n] / exact.cell).collect();
        figure = figure.panel(HeatMap {
            title: "exact".into(),
            values,
            rows: n,
            columns: n,
            x: Axis::new("x₁").limits(range_x.0, range_x.1),
            y: Axis::new("x₂").limits(range_y.0, range_y.1),
            colour: Axis::new("density"),
            palette: Palette::Sequential,
        });
    }
    figure
}

/// The outer edges of a lattice of the plane along axis `j`.
fn edges(lattice: &Lattice, j: usize) -> (f64, f64) {
    let column = lattice.points.column(j);
    let (first, last) = (column[0], column[column.len() - 1]);
    let half = 0.5 * (last - first) / (lattice.count - 1) as f64;
    (first - half, last + half)
}

/// The range of coordinate `j` over all clouds.
fn range(clouds: &[ArrayView2<'_, f64>], j: usize) -> (f64, f64) {
    let values = clouds.iter().flat_map(|c| c.column(j).to_vec());
    let (a, b) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let margin = 0.05 * (b - a) + 1e-9;
    (a - margin, b + margin)
}

/// Draws of the digits' network.
pub(super) fn digits(draws: &Array2<f64>, unweighted: &Array2<f64>, name: &str) -> Figure {
    let data = DigitsData::new();
    let grid = |title: &str, points: &Array2<f64>| {
        let ink = data.to_ink(points);
        let count = ink.nrows().min(40);
        let some: Vec<usize> = (0..count).map(|i| i * ink.nrows() / count).collect();
        Shown::digits().grid(title, ink.select(Along(0), &some).view(), 8)
    };
    Figure::new("Digits", "Draws of the corrected law, and of the same process without weights.")
        .columns(2)
        .panel(grid("corrected", draws))
        .panel(grid(name, unweighted))
}

/// Histograms of energies and of a feature, one curve for each named sample; the first two are Monte Carlo.
pub(super) fn cooling(energies: &[(&str, Vec<f64>)], features: &[(&str, Vec<f64>)], label: &str) -> Figure {
    let caption = "Monte Carlo at both temperatures, and the law of a network trained at the higher one, annealed to the \
                   lower: with weights, and by scaling its score alone.";
    let mut figure = Figure::new("Colder than trained", caption).columns(2);
    for (label, samples) in [("energy", energies), (label, features)] {
        // Shown is where Monte Carlo goes: a network's colliding particles have energies without bound.
        let all: Vec<f64> = samples.iter().take(2).flat_map(|(_, v)| v.iter().copied()).collect();
        let (low, high) = (quantile(&all, 0.002), quantile(&all, 0.995));
        let width = ((high - low) / 60.0).max(1e-9);
        let mut plot = Plot::new(Axis::new(label), Axis::new("density"));
        for (name, values) in samples {
            let mut bins = vec![0.0; 60];
            for v in values.iter().filter(|v| (low..high).contains(*v)) {
                bins[(((v - low) / width) as usize).min(59)] += 1.0 / (width * values.len() as f64);
            }
            let x = (0..60).map(|i| low + (f64::from(i) + 0.5) * width).collect();
            plot = plot.curve(*name, x, bins);
        }
        figure = figure.panel(plot);
    }
    figure
}
