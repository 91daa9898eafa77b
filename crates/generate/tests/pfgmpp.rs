//! PFGM++: its law, its field, its errors, and what its door refuses.

use ndarray::{Array2, Array3, array};
use offprint_core::artifact::Artifact;
use offprint_core::random::Streams;
use offprint_core::{Progress, Report, Run};
use offprint_generate::exact::ExactEmpirical;
use offprint_generate::network::{Levels, NetConfig, Network, Pairs, Target};
use offprint_generate::pfgmpp::{
    Augmentation, Perturbed, Protocol, Scaled, distance_to_uniform, quantise, with_quantised,
};
use offprint_generate::sample::{Heun, Stepwise, named};
use offprint_generate::{Denoiser, Grid, Kernel, Prediction, Sampler, Schedule};
use proptest::prelude::*;
use serde_json::{Value, json};

fn added(d: f64) -> Augmentation {
    Augmentation::new(d).unwrap()
}

/// The largest difference of the distribution functions of two samples of one size.
fn kolmogorov_smirnov(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (mut i, mut j, mut largest) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        if a[i] <= b[j] {
            i += 1
        } else {
            j += 1
        }
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

#[test]
fn student_noise_has_the_distances_of_the_papers_beta_law() {
    let count = 20_000;
    for (n, d) in [(64, 8.0), (2, 128.0), (3, 0.7), (300, 2.0), (5, 2048.0)] {
        let stream = Streams::new(5).stream("noise");
        let noise = added(d).kernel().noise(count, n, 1.5, stream, 0);
        let student: Vec<f64> = noise.outer_iter().map(|row| row.dot(&row).sqrt()).collect();
        let mut rng = Streams::new(6).stream("beta").rng(0);
        let beta = (0..count).map(|_| added(d).draw_distance(1.5, n, &mut rng).unwrap()).collect();
        // 1.95 √(2/count) is exceeded once in a thousand.
        let gap = kolmogorov_smirnov(student, beta);
        assert!(gap < 1.95 * (2.0 / count as f64).sqrt(), "N = {n}, D = {d}: {gap}");
    }
}

#[test]
fn densities_integrate_to_one_and_have_known_values() {
    // ∫ over |x| in n dimensions: area of the sphere 2 π^{n/2}/Γ(n/2) · ∫ R^{n−1} p(R) dR, with R = s/(1 − s).
    for (n, area) in [(1, 2.0), (2, 2.0 * std::f64::consts::PI), (3, 4.0 * std::f64::consts::PI)] {
        for d in [1.5, 8.0, 1e4, f64::INFINITY] {
            let cells = 200_000;
            let total: f64 = (0..cells)
                .map(|i| {
                    let s = (f64::from(i) + 0.5) / f64::from(cells);
                    let r = s / (1.0 - s);
                    let density = added(d).log_density(r * r, 0.7, n as usize).exp();
                    area * r.powi(n - 1) * density / (1.0 - s).powi(2) / f64::from(cells)
                })
                .sum();
            assert!((total - 1.0).abs() < 1e-4, "N = {n}, D = {d}: {total}");
        }
    }
    // Cauchy: 1/(π σ (1 + x²/σ²)).
    let cauchy = added(1.0).log_density(4.0, 2.0, 1).exp();
    assert!((cauchy - 1.0 / (4.0 * std::f64::consts::PI)).abs() < 1e-14);
    let (near, limit) = (added(1e7).log_density(3.0, 0.8, 5), added(f64::INFINITY).log_density(3.0, 0.8, 5));
    assert!((near - limit).abs() < 1e-5, "{near} {limit}");
}

#[test]
fn mean_squares_are_those_of_the_draws() {
    let noise = added(10.0).kernel().noise(40_000, 3, 2.0, Streams::new(1).stream("noise"), 0);
    let mean = noise.iter().map(|v| v * v).sum::<f64>() / 40_000.0;
    assert!((mean / added(10.0).mean_square(2.0, 3) - 1.0).abs() < 0.02, "{mean}");
    assert_eq!(added(2.0).mean_square(1.0, 3), f64::INFINITY);
    assert_eq!(added(f64::INFINITY).mean_square(2.0, 3), 12.0);
}

#[test]
fn radii_and_noise_levels_are_inverse() {
    let d = added(128.0);
    assert!((d.radius(0.5) - 0.5 * 128f64.sqrt()).abs() < 1e-15);
    assert!((d.sigma(d.radius(0.3)) - 0.3).abs() < 1e-15);
}

fn charges() -> Array2<f64> {
    array![[-0.7, -0.3], [0.6, -0.5], [0.3, 0.7], [-0.2, 0.1]]
}

#[test]
fn posterior_weights_are_the_densities() {
    let y = array![[0.1, 0.4], [3.0, -1.0]];
    for d in [0.5, 1.0, 8.0, 2048.0, f64::INFINITY] {
        let model = ExactEmpirical::new(charges(), added(d).kernel()).unwrap();
        let weights = model.posterior(y.view(), 0.4).unwrap();
        for (row, y) in weights.outer_iter().zip(y.outer_iter()) {
            let densities: Vec<f64> = charges()
                .outer_iter()
                .map(|c| added(d).log_density((&y - &c).mapv(|v| v * v).sum(), 0.4, 2).exp())
                .collect();
            let total: f64 = densities.iter().sum();
            for (w, p) in row.iter().zip(densities) {
                assert!((w - p / total).abs() < 1e-12, "D = {d}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The electric field of the charges in N + D dimensions, summed charge by charge: dx/dr = E_x/E_r = (x − D*)/r.
    #[test]
    fn the_flow_is_the_electric_field(x in prop::array::uniform2(-2.0..2.0f64), r in 0.2..6.0f64, d in 1u8..9) {
        let d = f64::from(d);
        let (mut along, mut up) = ([0.0; 2], 0.0);
        for charge in charges().outer_iter() {
            let apart = [x[0] - charge[0], x[1] - charge[1]];
            let distance = (apart[0].powi(2) + apart[1].powi(2) + r * r).sqrt();
            let strength = distance.powf(-(2.0 + d));
            along[0] += strength * apart[0];
            along[1] += strength * apart[1];
            up += strength * r;
        }
        let model = ExactEmpirical::new(charges(), added(d).kernel()).unwrap();
        let y = Array2::from_shape_vec((1, 2), x.to_vec()).unwrap();
        let denoised = model.denoise(y.view(), added(d).sigma(r)).unwrap();
        for j in 0..2 {
            prop_assert!((along[j] / up - (x[j] - denoised[[0, j]]) / r).abs() < 1e-9);
        }
    }

    /// ∂p/∂σ + ∇·(p u) = 0 with u = (x − D*)/σ, by differences: the flow carries the marginals.
    #[test]
    fn the_flow_carries_the_marginals(x in prop::array::uniform2(-1.5..1.5f64), sigma in 0.3..3.0f64, d in 0.5..50.0f64) {
        let d = added(d);
        let model = ExactEmpirical::new(charges(), d.kernel()).unwrap();
        let density = |x: [f64; 2], sigma: f64| -> f64 {
            let all = charges();
            all.outer_iter()
                .map(|c| d.log_density((x[0] - c[0]).powi(2) + (x[1] - c[1]).powi(2), sigma, 2).exp())
                .sum::<f64>() / all.nrows() as f64
        };
        let flux = |x: [f64; 2], j: usize| {
            let y = Array2::from_shape_vec((1, 2), x.to_vec()).unwrap();
            let denoised = model.denoise(y.view(), sigma).unwrap();
            density(x, sigma) * (x[j] - denoised[[0, j]]) / sigma
        };
        let h = 1e-4;
        let mut balance = (density(x, sigma + h) - density(x, sigma - h)) / (2.0 * h);
        for j in 0..2 {
            let (mut low, mut high) = (x, x);
            low[j] -= h;
            high[j] += h;
            balance += (flux(high, j) - flux(low, j)) / (2.0 * h);
        }
        prop_assert!(balance.abs() < 1e-5 * (1.0 + density(x, sigma)), "{balance}");
    }

    #[test]
    fn quantised_values_are_within_half_a_step_and_stay(
        values in prop::collection::vec(-3.0..3.0f32, 2..40), bits in 2u32..=16
    ) {
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        // The whole part of the zero point costs up to one step at the ends when 0 lies within the range.
        prop_assume!(low < 0.0 && high > 0.0);
        let step = f64::from(high - low) / f64::from((1u32 << bits) - 1);
        let mut coarse = values.clone();
        quantise(&mut coarse, bits).unwrap();
        for (w, q) in values.iter().zip(&coarse) {
            prop_assert!(f64::from((w - q).abs()) <= 1.001 * step + 1e-6, "{w} {q}");
        }
        let mut levels = coarse.clone();
        levels.sort_by(f32::total_cmp);
        levels.dedup();
        prop_assert!(levels.len() <= 1 << bits);
    }
}

#[test]
fn quantisation_agrees_with_a_hand_computed_case() {
    // Range 1.5 in 3 steps of 0.5; zero = int(0.6/0.5) = 1; levels −0.5, 0, 0.5, 1.
    let mut values = [-0.6f32, -0.1, 0.3, 0.9];
    quantise(&mut values, 2).unwrap();
    assert_eq!(values, [-0.5, 0.0, 0.5, 1.0]);
    let mut equal = [0.25f32; 3];
    quantise(&mut equal, 8).unwrap();
    assert_eq!(equal, [0.25; 3]);
    for bits in [1, 17] {
        assert!(quantise(&mut values, bits).unwrap_err().to_string().contains("between 2 and 16"));
    }
    assert!(quantise(&mut [f32::NAN], 4).unwrap_err().to_string().contains("value 0"));
}

#[test]
fn networks_have_their_own_weights_again_after_quantisation() {
    let config = NetConfig { dim: 2, classes: 0, width: 8, depth: 2, frequencies: 4 };
    let target = Target::Preconditioned { sigma_data: 0.5 };
    let network = Network::fresh(&config.clone().into(), added(8.0).path(), target, 1).unwrap();
    let y = array![[0.3, -0.2]];
    let ask = |network: &Network| network.unconditional().denoise(y.view(), 0.5);
    let own = ask(&network).unwrap();
    let fine = with_quantised(&network, 16, ask).unwrap();
    let coarse = with_quantised(&network, 2, ask).unwrap();
    assert!((&fine - &own).iter().all(|v| v.abs() < 1e-3) && (&coarse - &own).iter().any(|v| v.abs() > 1e-3));
    assert_eq!(ask(&network).unwrap(), own);
}

#[test]
fn phases_run_from_knowing_one_point_to_knowing_nothing() {
    for d in [8.0, f64::INFINITY] {
        let model = ExactEmpirical::new(charges(), added(d).kernel()).unwrap();
        let near = distance_to_uniform(&model, charges().view(), 1e-6).unwrap();
        let far = distance_to_uniform(&model, charges().view(), 1e6).unwrap();
        assert!((near - 0.75).abs() < 1e-6 && far < 1e-6, "{near} {far}");
    }
}

#[test]
fn errors_have_their_size_and_none_changes_nothing() {
    let model = ExactEmpirical::new(charges(), Kernel::StudentT { freedom: 64.0 }).unwrap();
    let (sampler, grid) = (Stepwise(Heun::new()), Grid::edm(18).unwrap());
    let streams = Streams::new(2);
    let protocol = |alpha| Protocol { sampler: &sampler, grid: &grid, count: 300, alpha, streams };
    let clean = protocol(0.0).sample(&model, &mut (), &Progress::silent()).unwrap().y;
    let start = grid.start(300, 2, model.kernel(), streams.stream("prior"));
    assert_eq!(clean, sampler.run(&model, start.clone(), &grid, streams.stream("sampler")).unwrap().y);
    let mut seen: Vec<Array2<f64>> = Vec::new();
    protocol(0.3).sample(&model, &mut seen, &Progress::silent()).unwrap();
    let moved = &seen[0] - &start;
    let deviation = (moved.iter().map(|v| v * v).sum::<f64>() / moved.len() as f64).sqrt();
    assert!((deviation / (0.3 * 80.0) - 1.0).abs() < 0.1, "{deviation}");
    assert!(Perturbed::new(-0.1, streams.stream("x")).unwrap_err().to_string().starts_with("alpha: got -0.1"));
}

#[test]
fn exact_samples_are_data_points_at_every_d() {
    for d in [1.0, 16.0, f64::INFINITY] {
        let model = ExactEmpirical::new(charges(), added(d).kernel()).unwrap();
        let grid = Grid::edm(40).unwrap();
        let start = grid.start(50, 2, model.kernel(), Streams::new(3).stream("start"));
        let samples = Stepwise(Heun::new()).run(&model, start, &grid, Streams::new(3).stream("none")).unwrap().y;
        for row in samples.outer_iter() {
            let nearest = charges().outer_iter().map(|c| (&row - &c).mapv(|v| v * v).sum()).fold(f64::MAX, f64::min);
            // With heavy tails other points keep a weight of about (σ/distance)³ at the last level.
            assert!(nearest < 1e-4, "D = {d}: {nearest}");
        }
    }
}

#[test]
fn stochastic_samplers_and_scores_are_refused_for_finite_d() {
    let model = ExactEmpirical::new(charges(), added(8.0).kernel()).unwrap();
    let sampler = named("sde-dpm", 5, &Schedule::Edm).unwrap();
    let start = Array2::zeros((3, 2));
    let error = sampler.run(&model, start, &Grid::edm(5).unwrap(), Streams::new(0).stream("x")).unwrap_err();
    assert!(error.to_string().contains("sde-dpm needs a Gaussian path"), "{error}");
    assert!(model.score(charges().view(), 1.0).is_err());
}

#[test]
fn d_is_read_and_written_as_number_or_inf() {
    assert!("inf".parse::<Augmentation>().unwrap().is_diffusion());
    assert_eq!("2.5".parse::<Augmentation>().unwrap().get(), 2.5);
    for text in ["0", "-3", "nan", "many"] {
        assert!(text.parse::<Augmentation>().unwrap_err().to_string().contains("positive or 'inf'"), "{text}");
    }
    let both: Vec<Augmentation> = serde_json::from_value(json!([8, "inf", "0.5"])).unwrap();
    assert_eq!(serde_json::to_value(&both).unwrap(), json!([8.0, "inf", 0.5]));
}

#[test]
fn scaled_data_have_half_a_deviation_and_come_back() {
    let data = array![[10.0, 0.0], [14.0, 2.0], [12.0, 5.0]];
    let scaled = Scaled::new(data.view()).unwrap();
    let deviation = (scaled.points.iter().map(|v| v * v).sum::<f64>() / 6.0).sqrt();
    assert!((deviation - 0.5).abs() < 1e-12);
    assert!((scaled.restore(scaled.points.view()) - data).iter().all(|v| v.abs() < 1e-12));
    assert!(Scaled::new(array![[2.0, 3.0], [2.0, 3.0]].view()).unwrap_err().to_string().contains("constant"));
}

#[test]
fn stable_targets_are_posterior_means_over_many_rows() {
    let config = NetConfig { dim: 2, classes: 0, width: 4, depth: 1, frequencies: 1 };
    for d in [4.0, f64::INFINITY] {
        let network =
            Network::fresh(&config.clone().into(), added(d).path(), Target::Plain(Prediction::X0), 0).unwrap();
        let exact = ExactEmpirical::new(charges(), added(d).kernel()).unwrap();
        let data = charges();
        let levels = Levels::LogNormal { mean: -0.5, deviation: 0.6 };
        let gap = |reference: usize| {
            let stream = Streams::new(4).stream("pairs");
            let pairs = Pairs::new(&network, data.view(), None, (levels, 0.0), stream).unwrap();
            let batch = pairs.with_reference(reference).unwrap().batch(0, 64).unwrap();
            let (inputs, targets) = (batch.inputs.to_vec2::<f32>().unwrap(), batch.targets.to_vec2::<f32>().unwrap());
            let squares = inputs.iter().zip(&targets).map(|(input, target)| {
                // The level stands beside the point as cosine and sine of ln(τ)/4.
                let tau = (4.0 * f64::from(input[3]).atan2(f64::from(input[2]))).exp();
                let y = array![[f64::from(input[0]), f64::from(input[1])]];
                let mean = exact.denoise(y.view(), tau).unwrap();
                (0..2).map(|j| (mean[[0, j]] - f64::from(target[j])).powi(2)).sum::<f64>()
            });
            (squares.sum::<f64>() / 64.0).sqrt()
        };
        let (single, few, many) = (gap(1), gap(16), gap(4000));
        assert!(many < 0.03 && many < 0.2 * few && few < single, "D = {d}: {single} {few} {many}");
    }
    let labelled =
        Network::fresh(&NetConfig { classes: 2, ..config }.into(), added(4.0).path(), Target::Plain(Prediction::X0), 0);
    let (labelled, labels, data) = (labelled.unwrap(), [0, 1, 0, 1], charges());
    let levels = Levels::LogNormal { mean: 0.0, deviation: 1.0 };
    let pairs = Pairs::new(&labelled, data.view(), Some(&labels), (levels, 0.0), Streams::new(0).stream("x")).unwrap();
    assert!(pairs.with_reference(5).unwrap_err().to_string().contains("1 for a network with classes"));
}

fn run(parameters: Value) -> offprint_core::Result<Report> {
    let papers = offprint_generate::papers();
    let paper = papers.iter().find(|p| p.card().slug == "pfgmpp").unwrap();
    let mut run = Run::new(paper.card());
    paper.prepare_json(parameters)?.run(&mut run)?;
    Ok(run.finish(true)?.0)
}

fn plane() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("points.csv");
    let rows: Vec<String> = (0..40).map(|i| format!("{},{}", (f64::from(i) * 0.4).cos(), i % 7)).collect();
    std::fs::write(&file, format!("a,b\n{}\n", rows.join("\n"))).unwrap();
    (directory, file.display().to_string())
}

#[test]
fn a_run_on_a_table_trains_samples_and_quantises() {
    let (_kept, file) = plane();
    let report = run(json!({
        "data": file, "added": [8, "inf"], "train": 20, "samples": 30, "alphas": [0, 0.2], "steps": [4], "bits": [4],
    }))
    .unwrap();
    assert_eq!(report.figures.len(), 3);
    let (_, moving) = report.figures.iter().find(|(name, _)| name == "moving").unwrap();
    // The start and every step.
    assert_eq!(moving.frames.len(), 5);
    assert!(report.tables.iter().any(|t| t.name == "bits"));
    for name in ["samples-D8.npy", "samples-Dinf.npy", "paths-D8.npy"] {
        assert!(report.files.iter().any(|f| f == name), "{name}");
    }
}

#[test]
fn pictures_are_learned_by_a_unet() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("images.npy");
    let images = Array3::from_shape_fn((6, 4, 4), |(n, i, j)| f64::from(u8::from((i + n) % 4 < 2)) + 0.1 * j as f64);
    Artifact::Array(images.into()).write(&file).unwrap();
    let parameters = |train: u64| {
        json!({
            "data": file.display().to_string(), "added": ["inf"], "train": train, "unet": true, "samples": 4, "alphas": [0],
            "steps": [3], "bits": [4],
        })
    };
    let report = run(parameters(1)).unwrap();
    assert!(report.figures.iter().any(|(name, _)| name == "samples"));
    assert!(run(parameters(0)).unwrap_err().to_string().contains("--train"));
    let (_kept, file) = plane();
    let message = run(json!({"data": file, "train": 2, "unet": true})).unwrap_err().to_string();
    assert!(message.contains("no pictures"), "{message}");
}

#[test]
fn d_is_chosen_by_points_held_back() {
    let (_kept, file) = plane();
    let search = |more: Value| {
        let mut parameters =
            json!({"data": file.as_str(), "search_d": true, "samples": 30, "alphas": [0, 0.4], "steps": [4]});
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        run(parameters)
    };
    let report = search(json!({})).unwrap();
    let table = report.tables.iter().find(|t| t.name == "search").unwrap();
    assert_eq!(table.rows(), 5);
    let metric = |report: &Report, name: &str| report.metrics.iter().find(|m| m.name == name).unwrap().value;
    assert!(metric(&report, "distance of the chosen D / of the next") <= 1.0);
    let report = search(json!({"added": [2, 512]})).unwrap();
    assert!([2.0, 512.0].contains(&metric(&report, "chosen D")));
    assert_eq!(metric(&report, "data: points"), 32.0);
    assert!(search(json!({"model": "x.safetensors"})).unwrap_err().to_string().contains("search_d"));
}

#[test]
fn the_door_names_what_is_wrong() {
    let message = |parameters| run(parameters).unwrap_err().to_string();
    assert!(message(json!({"added": [-1]})).contains("positive or 'inf'"));
    assert!(message(json!({"alphas": [-0.1]})).starts_with("alphas: got -0.1"));
    assert!(message(json!({"bits": [1]})).contains("between 2 and 16"));
    assert!(message(json!({"steps": [1]})).starts_with("steps: got 1"));
    assert!(message(json!({"sigma_min": 90})).contains("below sigma_max, 80"));
    assert!(message(json!({"sampler": "magic"})).starts_with("sampler"));
    assert!(message(json!({"sampler": "ddim"})).contains("asks the model before"));
    assert!(message(json!({"sampler": "sde-dpm", "alphas": [0]})).contains("Gaussian"));
    let (_kept, file) = plane();
    assert!(message(json!({"data": file.as_str(), "width": 3})).contains("divisor of the data's 2 columns"));
    let directory = tempfile::tempdir().unwrap();
    let constant = directory.path().join("constant.csv");
    std::fs::write(&constant, "1,2\n1,2\n1,2\n").unwrap();
    assert!(message(json!({"data": constant.display().to_string()})).contains("is constant"));
}

#[test]
fn a_network_for_other_data_is_refused_and_its_own_are_sampled() {
    let (directory, file) = plane();
    let config = NetConfig { dim: 2, classes: 0, width: 8, depth: 1, frequencies: 2 };
    let target = Target::Preconditioned { sigma_data: 0.5 };
    let network = Network::fresh(&config.clone().into(), added(32.0).path(), target, 0).unwrap();
    let model = directory.path().join("network.safetensors");
    network.save(&model).unwrap();
    let model = model.display().to_string();
    let message = run(json!({"model": model.as_str()})).unwrap_err().to_string();
    assert!(message.contains('2') && message.contains("64"), "{message}");
    let report =
        run(json!({"model": model.as_str(), "data": file, "samples": 10, "steps": [3], "alphas": [0]})).unwrap();
    assert!(report.files.iter().any(|f| f == "samples-D32.npy"));
}
