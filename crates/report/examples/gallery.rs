//! Draws one figure of every kind into a directory: `cargo run -p offprint-report --example gallery -- DIRECTORY`.

use offprint_core::figure::{Axis, Edge, Graph, HeatMap, ImageGrid, Layer, Node, Palette, Plot};
use offprint_core::{Card, Figure, Run, Scale, Table};
use std::f64::consts::{PI, TAU};
use std::path::Path;

/// Standard normal numbers, the same every time.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}

fn count(n: usize) -> Vec<f64> {
    (0..n).map(|i| i as f64).collect()
}

fn convergence() -> Figure {
    let n: Vec<f64> = (0..10).map(|i| 2f64.powi(i + 4)).collect();
    let mut noise = Noise(3);
    let mut error = |order: f64, c: f64| -> Vec<f64> {
        n.iter().map(|n| c * n.powf(-order) * (1.0 + 0.15 * noise.normal())).collect()
    };
    let (a, b, c) = (error(0.5, 1.0), error(1.0, 3.0), error(2.0, 40.0));
    let band = |y: &[f64], f: f64| -> Vec<f64> { y.iter().map(|y| y * f).collect() };
    let plot = Plot::new(Axis::log("steps"), Axis::log("strong error").unit("a.u."))
        .band("Euler–Maruyama", n.clone(), a.clone(), band(&a, 0.6), band(&a, 1.5))
        .band("Milstein", n.clone(), b.clone(), band(&b, 0.7), band(&b, 1.4))
        .band("Splitting (this paper)", n.clone(), c.clone(), band(&c, 0.8), band(&c, 1.3))
        .reference("theory, order 2", n.clone(), n.iter().map(|n| 90.0 * n.powi(-2)).collect());
    Figure::new(
        "Strong error against the number of steps",
        "Median of 200 paths; bands are the quartiles. The splitting scheme keeps its second order down to the smallest step, \
         while Milstein loses to rounding past 2¹² steps.",
    )
    .panel(plot)
}

fn training() -> Figure {
    let steps: Vec<f64> = (0..20_000).map(f64::from).collect();
    let mut noise = Noise(5);
    let mut curve = |rate: f64, end: f64| -> Vec<f64> {
        steps.iter().map(|s| end + (2.3 - end) * (-s * rate).exp() + 0.03 * noise.normal()).collect()
    };
    let (a, b) = (curve(4e-4, 0.31), curve(8e-4, 0.22));
    let accuracy = count(21);
    let rise = |r: f64, top: f64| -> Vec<f64> { accuracy.iter().map(|e| top * (1.0 - (-e * r).exp())).collect() };
    let loss = Plot::new(Axis::new("step"), Axis::new("training loss").unit("nats"))
        .titled("Loss")
        .curve("AdamW", steps.clone(), a)
        .curve("Shampoo", steps, b)
        .horizontal("target", 0.25);
    let held = Plot::new(Axis::new("epoch"), Axis::new("accuracy").unit("%"))
        .titled("Held-out accuracy")
        .line("AdamW", accuracy.clone(), rise(0.2, 91.2))
        .line("Shampoo", accuracy.clone(), rise(0.35, 93.4));
    Figure::new("Training", "Every step of one seed left, the mean of five seeds right.")
        .columns(2)
        .panel(loss)
        .panel(held)
}

fn spectra() -> Figure {
    let mut noise = Noise(8);
    let places = count(64);
    let truth: Vec<f64> =
        (0..64).map(|i| if [5, 17, 18, 40, 57].contains(&i) { 2.0 * noise.normal() } else { 0.0 }).collect();
    let found: Vec<f64> = truth.iter().map(|t| if *t == 0.0 { 0.0 } else { t + 0.08 * noise.normal() }).collect();
    let stems = |name: &str, y: &Vec<f64>| Layer::Stems { name: name.into(), x: places.clone(), y: y.clone() };
    let sparse = Plot::new(Axis::new("coefficient"), Axis::new("amplitude"))
        .titled("Sparse signal")
        .layer(stems("true", &truth))
        .layer(stems("recovered", &found));
    let bins: Vec<f64> = (0..60).map(|i| -3.0 + 0.1 * f64::from(i)).collect();
    let heights = bins.iter().map(|x| 1000.0 * (-x * x / 2.0).exp() * (1.0 + 0.06 * noise.normal())).collect();
    let histogram = Plot::new(Axis::new("residual").unit("dB"), Axis::new("count"))
        .titled("Residuals")
        .layer(Layer::Bars { name: "measured".into(), x: bins.clone(), y: heights, error: None })
        .reference("normal", bins.clone(), bins.iter().map(|x| 1000.0 * (-x * x / 2.0).exp()).collect())
        .vertical("bias", 0.15);
    Figure::new("Recovery at 10 dB", "Rings are the truth, dots what was recovered.")
        .columns(2)
        .panel(sparse)
        .panel(histogram)
}

fn comparison() -> Figure {
    let names = ["SPRIGHT", "FFT", "LASSO", "OMP", "Basis pursuit"];
    let bars = |name: &str, y: [f64; 5], e: f64| Layer::Bars {
        name: name.into(),
        x: count(5),
        y: y.to_vec(),
        error: Some(y.iter().map(|y| y.abs() * e).collect()),
    };
    let time = Plot::new(Axis::categories("", names), Axis::new("time").unit("ms"))
        .titled("Time to recover")
        .layer(bars("n = 2¹²", [1.2, 3.4, 18.0, 9.1, 30.2], 0.1))
        .layer(bars("n = 2¹⁴", [2.0, 7.4, 41.0, 22.1, 55.0], 0.08))
        .layer(bars("n = 2¹⁶", [3.1, 16.4, 66.0, 38.0, 81.0], 0.05));
    let long = (0..24).map(|i| format!("layer.{i}.attention.out"));
    let share = Plot::new(Axis::categories("", long), Axis::new("change in perplexity"))
        .titled("Sensitivity")
        .bars("", (0..24).map(|i| (f64::from(i) * 0.7).sin() * 0.4 + 0.2).collect());
    Figure::new("Side by side", "Error bars are one standard error of ten runs.").panel(time).panel(share)
}

fn clouds() -> Figure {
    let mut noise = Noise(13);
    let moons = |noise: &mut Noise, n: usize| -> (Vec<f64>, Vec<f64>) {
        (0..n)
            .map(|i| {
                let (t, up) = (PI * noise.uniform(), i % 2 == 0);
                let (x, y) = if up { (t.cos(), t.sin()) } else { (1.0 - t.cos(), 0.5 - t.sin()) };
                (x + 0.08 * noise.normal(), y + 0.08 * noise.normal())
            })
            .unzip()
    };
    let (x, y) = moons(&mut noise, 3000);
    let (u, v): (Vec<f64>, Vec<f64>) =
        (0..3000).map(|_| (0.5 + 0.7 * noise.normal(), 0.25 + 0.7 * noise.normal())).unzip();
    let cloud = Plot::new(Axis::new("x₁"), Axis::new("x₂"))
        .titled("Samples")
        .equal_aspect()
        .points("source", u.clone(), v.clone(), 1.2)
        .points("generated", x.clone(), y.clone(), 1.2);
    let ends: Vec<[f64; 4]> = (0..120).map(|i| [u[i], v[i], x[i], y[i]]).collect();
    let matching = Plot::new(Axis::new("x₁"), Axis::new("x₂"))
        .titled("Matching")
        .equal_aspect()
        .layer(Layer::Segments { name: "transport".into(), ends, arrows: true, opacity: vec![0.55] })
        .points("source", u[..100].to_vec(), v[..100].to_vec(), 3.0)
        .points("target", x[..100].to_vec(), y[..100].to_vec(), 3.0);
    Figure::new("From noise to moons", "Left 3,000 samples each, right the optimal matching of the first.")
        .columns(2)
        .panel(cloud)
        .panel(matching)
}

fn square_cloud() -> Figure {
    let mut noise = Noise(21);
    let (x, y): (Vec<f64>, Vec<f64>) = (0..40_000).map(|_| (noise.normal(), noise.normal())).unzip();
    let circle: Vec<f64> = (0..=200).map(|i| TAU * f64::from(i) / 200.0).collect();
    let plot = Plot::new(Axis::new("first coordinate"), Axis::new("second coordinate"))
        .equal_aspect()
        .points("samples", x, y, 1.2)
        .reference(
            "2σ",
            circle.iter().map(|t| 2.0 * t.cos()).collect(),
            circle.iter().map(|t| 2.0 * t.sin()).collect(),
        );
    Figure::new("A cloud of 40,000", "Alone in its figure it stands in the middle.").panel(plot)
}

fn matrices() -> Figure {
    let mut noise = Noise(34);
    let (rows, columns) = (96, 400);
    let spectrogram = (0..rows * columns)
        .map(|i| ((i / columns) as f64, (i % columns) as f64))
        .map(|(r, c)| {
            let line = 20.0 + 60.0 * (c / 400.0) + 8.0 * (c / 25.0).sin();
            10f64.powf(-4.0 + 3.5 * (-(r - (96.0 - line)).powi(2) / 12.0).exp() + 0.25 * noise.normal())
        })
        .collect();
    let spectrogram = HeatMap {
        title: String::new(),
        values: spectrogram,
        rows,
        columns,
        x: Axis::new("time").unit("s").limits(0.0, 2.0),
        y: Axis::new("frequency").unit("kHz").limits(0.0, 8.0),
        colour: Axis::log("power").unit("W/Hz"),
        palette: Palette::Sequential,
    };
    Figure::new("Spectrogram", "A chirp with vibrato in noise.").panel(spectrogram)
}

fn small_matrices() -> Figure {
    let names = ["cat", "dog", "horse", "truck"];
    let confusion = HeatMap {
        title: "Confusion".into(),
        values: vec![91.0, 6.0, 2.0, 1.0, 9.0, 84.0, 6.5, 0.5, 1.0, 5.0, 93.0, 1.0, 0.0, f64::NAN, 1.0, 98.0],
        rows: 4,
        columns: 4,
        x: Axis::categories("predicted", names),
        y: Axis::categories("true", names),
        colour: Axis::new("share").unit("%").limits(0.0, 100.0),
        palette: Palette::Sequential,
    };
    let correlation = HeatMap {
        title: "Correlation of weights".into(),
        values: (0..48 * 48)
            .map(|i| (f64::from(i / 48), f64::from(i % 48)))
            .map(|(r, c)| (-(r - c).powi(2) / 40.0).exp() * ((r + c) / 6.0).cos())
            .collect(),
        rows: 48,
        columns: 48,
        x: Axis::new("unit"),
        y: Axis::new("unit"),
        colour: Axis::new("correlation"),
        palette: Palette::Diverging,
    };
    Figure::new("Matrices", "Blank is not measured.").columns(2).panel(confusion).panel(correlation)
}

fn images() -> Figure {
    let digit = |k: usize| -> Vec<u8> {
        (0..28 * 28)
            .map(|i| ((i % 28) as f64 - 13.5, (i / 28) as f64 - 13.5))
            .map(|(x, y)| {
                let r = x.hypot(y * 0.8);
                let ring = (-(r - 5.0 - 0.5 * k as f64).powi(2) / 4.0).exp();
                (255.0 * ring) as u8
            })
            .collect()
    };
    let colours = |k: usize| -> Vec<u8> {
        (0..32 * 32).flat_map(|i| [(i % 32 * 8) as u8, (i / 32 * 8) as u8, (k * 40) as u8]).collect()
    };
    let grid = |title: &str, side: usize, channels: usize, images: Vec<Vec<u8>>, labels: bool| ImageGrid {
        title: title.into(),
        height: side,
        width: side,
        channels,
        per_row: 6,
        labels: if labels { (0..images.len()).map(|i| format!("t = {i}")).collect() } else { Vec::new() },
        images,
    };
    Figure::new("Samples", "Every image is drawn pixel by pixel.")
        .columns(2)
        .panel(grid("Rings", 28, 1, (0..12).map(digit).collect(), true))
        .panel(grid("Colours", 32, 3, (0..12).map(|k| colours(k % 7)).collect(), true))
}

fn graph() -> Figure {
    let layers = [3, 5, 5, 2];
    let mut nodes = Vec::new();
    let mut edges = Vec::new();
    for (l, &n) in layers.iter().enumerate() {
        for i in 0..n {
            let label = if l == 0 {
                format!("x{}", ["₁", "₂", "₃"][i])
            } else if l == 3 {
                ["ŷ", "σ²"][i].into()
            } else {
                String::new()
            };
            nodes.push(Node { x: 2.0 * l as f64, y: i as f64 - (n as f64 - 1.0) / 2.0, label, group: l, size: 1.0 });
        }
    }
    let mut start = 0;
    for pair in layers.windows(2) {
        for a in 0..pair[0] {
            for b in 0..pair[1] {
                let width = 0.6 + 2.0 * ((a * 7 + b * 3) % 5) as f64 / 5.0;
                edges.push(Edge { from: start + a, to: start + pair[0] + b, width, label: String::new(), arrow: true });
            }
        }
        start += pair[0];
    }
    let network = Graph { title: "Network".into(), nodes, edges };
    let states = ["idle", "queued", "running", "finished"];
    let nodes = states.iter().enumerate().map(|(i, s)| Node {
        x: (TAU * i as f64 / 4.0).cos() * 1.4,
        y: (TAU * i as f64 / 4.0).sin(),
        label: (*s).into(),
        group: i,
        size: 1.3,
    });
    let edges =
        (0..4).map(|i| Edge { from: i, to: (i + 1) % 4, width: 1.5, label: format!("p = 0.{}", i + 2), arrow: true });
    let chain = Graph { title: "Markov chain".into(), nodes: nodes.collect(), edges: edges.collect() };
    Figure::new("Graphs", "Edges are as wide as their weight.").columns(2).panel(network).panel(chain)
}

fn awkward() -> Figure {
    let plot = |title: &str| Plot::new(Axis::new("x"), Axis::new("y")).titled(title);
    Figure::new("Awkward data <& friends>", "None of these may look broken.")
        .columns(3)
        .panel(plot("One point").points("", vec![3.0], vec![7.0], 3.0))
        .panel(plot("Nothing"))
        .panel(plot("All equal").line("", count(5), vec![2.0; 5]))
        .panel(plot("Gaps").line("", count(7), vec![1.0, 2.0, f64::NAN, 3.0, 2.0, f64::INFINITY, 1.0]))
        .panel(Plot::new(Axis::log("x"), Axis::log("y")).titled("600 decades").line(
            "",
            vec![1e-300, 1.0, 1e300],
            vec![1e300, 1.0, 1e-300],
        ))
        .panel(plot("Large offset").line("", vec![1e9, 1e9 + 1.0, 1e9 + 2.0], vec![0.1, 0.1 + 1e-9, 0.1 + 3e-9]))
}

/// Every figure by its file's stem.
pub fn figures() -> Vec<(String, Figure)> {
    [
        ("convergence", convergence()),
        ("training", training()),
        ("spectra", spectra()),
        ("comparison", comparison()),
        ("clouds", clouds()),
        ("square-cloud", square_cloud()),
        ("spectrogram", matrices()),
        ("matrices", small_matrices()),
        ("images", images()),
        ("graphs", graph()),
        ("awkward", awkward()),
    ]
    .into_iter()
    .map(|(name, figure)| (name.to_owned(), figure))
    .collect()
}

const CARD: &str = r#"
slug = "gallery"
title = "Sparse Walsh–Hadamard Transforms <fast & robust> under Noise"
authors = ["Ada Lovelace", "Jean-Baptiste Fourier", "Jacques Hadamard"]
venue = "Journal of Examples"
year = 2024
arxiv = "2401.01234"
field = "signal"
summary = "Finds the few large coefficients of a very long noisy signal from far fewer samples than it has entries."
tags = ["sparse", "transform"]
code = { url = "https://example.org/code", licence = "MIT" }

[[claim]]
id = "support"
says = "The support is recovered at 10 dB from O(K log² N) samples"
paper_value = "≥ 0.97 of 200 trials"
where = "Fig. 3"
measures = "share of trials with the exact support"
holds_if = ">= 0.97"

[[claim]]
id = "time"
says = "Decoding takes less time than the fast transform for N ≥ 2¹⁶"
paper_value = "about 6 times faster"
where = "Table 2"
measures = "time of the fast transform over time of decoding"
holds_if = "> 1"

[[claim]]
id = "scale"
says = "The method scales to N = 2⁴⁰"
paper_value = "12 s"
where = "Section 5.3"
measures = "time to recover 40 coefficients"
unit = "s"
holds_if = "< 60"
"#;

/// A study with something of everything.
fn report(directory: &Path) -> offprint_core::Result<(Card, offprint_core::Report)> {
    let card = Card::parse(CARD)?;
    let mut run = Run::new(&card).with_seed(7).with_scale(Scale::Standard).with_out(directory.to_owned())?;
    run.metric("exact supports", 0.985, "");
    run.metric("root mean square error", 3.21e-7, "");
    run.metric("samples used", 48_128.0, "");
    run.metric("throughput", 12.4, "million samples/s");
    run.warn("The input holds 3 values that are not finite; they were taken as 0.");
    run.claim("support", 0.985, "200 trials at N = 2¹⁴, K = 40, 10 dB; seeds 7 to 206.")?;
    run.claim(
        "time",
        0.62,
        "Median of 30 runs, alternating. The fast transform in use here is vectorised, the paper’s was not.",
    )?;
    run.not_measured("scale", "Needs 8 TiB of input; run with --full on a machine that holds it.")?;
    let n: Vec<i64> = (10..80).collect();
    let time = n.iter().map(|&n| 1e-6 * 1.3f64.powi(n as i32));
    let names = n.iter().map(|n| if n % 2 == 0 { "robust" } else { "noiseless" });
    run.table(
        Table::new("timings", "One row per size and variant.")
            .integers("log₂ N", "", n.clone())
            .words("variant", names)
            .numbers("time", "s", time),
    )?;
    for (name, figure) in figures() {
        run.figure(&name, figure);
    }
    Ok((card, run.finish(true)?.0))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: gallery DIRECTORY")?;
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory)?;
    let (card, report) = report(directory)?;
    offprint_report::write(&report, &card, directory)?;
    for (_, figure) in figures() {
        println!("{}", offprint_report::terminal(&figure, 90, 20, false));
    }
    Ok(())
}
