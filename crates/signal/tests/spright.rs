//! Properties, reference values and bad input of SPRIGHT.

use offprint_core::random::{Stream, Streams};
use offprint_core::{Array, Complex, Error, Paper, Progress, Report, Run, Scale, Verdict, artifact::Artifact};
use offprint_signal::spright::bins::Bins;
use offprint_signal::spright::design::Design;
use offprint_signal::spright::functions::{Function, GraphCut, Noisy, SparseFunction, Trees};
use offprint_signal::spright::gf2::{Subspace, dual, odd};
use offprint_signal::spright::{
    Algorithm, Hashing, Measurements, Noise, Recovery, Returning, Settings, Table, full, plan, pursuit, study,
    transform,
};
use proptest::prelude::*;
use rand::RngExt;
use serde_json::json;
use std::path::Path;

const PEELING: [Algorithm; 5] = [Algorithm::Exact, Algorithm::Nso, Algorithm::So, Algorithm::Ml, Algorithm::SparseFht];

fn stream(seed: u64) -> Stream {
    Streams::new(seed).stream("design")
}

fn signs(bits: u32, sparsity: usize, seed: u64) -> SparseFunction {
    SparseFunction::random_signs(bits, sparsity, 1.0, &mut Streams::new(seed).stream("function").rng(0))
}

fn run(function: &impl Function, sigma: f64, settings: &Settings, seed: u64) -> Recovery {
    let mut noisy = Noisy { function, sigma, seed };
    transform(&mut noisy, settings, stream(seed), &Progress::silent()).unwrap()
}

/// The largest error, or infinity if another support was found.
fn error(recovery: &Recovery, truth: &[(u64, f64)]) -> f64 {
    let mut found = recovery.coefficients.clone();
    found.sort_by_key(|c| c.index);
    if found.iter().map(|c| c.index).ne(truth.iter().map(|t| t.0)) {
        return f64::INFINITY;
    }
    found.iter().zip(truth).fold(0.0, |l, (c, t)| (c.value - t.1).abs().max(l))
}

#[test]
fn density_evolution_jumps_at_the_published_thresholds() {
    // η* for C = 3 … 7 groups, known from the theory of cuckoo hashing (Goodrich and Mitzenmacher 2011, table 1: total
    // C η* = 1.222, 1.295, 1.425, 1.570, 1.719).
    for (groups, threshold) in [(3, 0.4073), (4, 0.3237), (5, 0.2850), (6, 0.2616), (7, 0.2456)] {
        assert!(study::unpeeled(groups, threshold - 0.0005) > 0.05, "{groups}");
        assert!(study::unpeeled(groups, threshold + 0.0005) < 1e-6, "{groups}");
    }
}

#[test]
fn the_manuals_example_looks_at_2350_values() {
    // N = 2¹⁸, K = 20, three blocks of six bits, delays 0 and the twelve bits outside: counted by an independent
    // program as 2350 different ones of 3 · 64 · 13 queries.
    let settings =
        Settings { algorithm: Algorithm::Exact, blocks: vec![(0, 5), (6, 11), (12, 17)], ..Settings::new(18, 20) };
    let design = Design::draw(&settings, stream(0)).unwrap();
    assert_eq!((design.queries(), design.indices().len()), (3 * 64 * 13, 2350));
    for seed in 0..10 {
        let function = signs(18, 20, seed);
        assert!(error(&run(&function, 0.0, &settings, seed), &function.spectrum()) <= 1e-12, "seed {seed}");
    }
}

#[test]
fn every_algorithm_finds_a_noiseless_spectrum() {
    for algorithm in PEELING.into_iter().chain([Algorithm::Omp, Algorithm::Lasso, Algorithm::Full]) {
        let settings = Settings { algorithm, bin_bits: Some(6), ..Settings::new(12, 10) };
        let mut right = 0;
        for seed in 0..10 {
            let function = signs(12, 10, seed);
            let recovery = run(&function, 0.0, &settings, seed);
            right += usize::from(error(&recovery, &function.spectrum()) < 1e-9 && recovery.is_complete());
        }
        assert!(right >= 9, "{algorithm:?}: {right} of 10");
    }
}

#[test]
fn noise_at_5_db_is_overcome_by_every_robust_variant() {
    // ρ²/ν² = (B/K) · SNR = 4 · 3.16: eleven decibels in a bin.
    let sigma = (16.0 / 10f64.powf(0.5)).sqrt();
    for algorithm in [Algorithm::Nso, Algorithm::So, Algorithm::Ml] {
        for noise in [Noise::Known(sigma), Noise::Estimated] {
            let settings = Settings { algorithm, noise, bin_bits: Some(6), ..Settings::new(14, 16) };
            let mut right = 0;
            for seed in 0..20 {
                let function = signs(14, 16, seed);
                let recovery = run(&function, sigma, &settings, seed);
                right += usize::from(error(&recovery, &function.spectrum()) < 0.5);
                assert!((recovery.sigma / sigma - 1.0).abs() < 0.15, "{algorithm:?}: σ {} not {sigma}", recovery.sigma);
            }
            assert!(right >= 18, "{algorithm:?}, {noise:?}: {right} of 20");
        }
    }
}

#[test]
fn error_bars_are_the_spread_of_the_errors() {
    let sigma = 1.0;
    let settings = Settings { bin_bits: Some(6), ..Settings::new(16, 16) };
    let mut scaled = Vec::new();
    for seed in 0..20 {
        let function = signs(16, 16, seed);
        let truth = function.spectrum();
        for c in run(&function, sigma, &settings, seed).coefficients {
            let at = truth.binary_search_by_key(&c.index, |t| t.0).expect("nothing false is found");
            scaled.push((c.value - truth[at].1) / c.error);
        }
    }
    assert!(scaled.len() > 300);
    // Standard normal, were it not for samples that groups share: root mean square within 10 % of 1.
    let rms = (scaled.iter().map(|x| x * x).sum::<f64>() / scaled.len() as f64).sqrt();
    assert!((0.9..1.15).contains(&rms), "{rms}");
}

#[test]
fn no_coefficient_is_made_of_pure_noise() {
    for algorithm in [Algorithm::Nso, Algorithm::So, Algorithm::Ml] {
        let settings = Settings { algorithm, noise: Noise::Known(1.0), bin_bits: Some(6), ..Settings::new(14, 16) };
        let empty = SparseFunction::new(14, []);
        let found: usize = (0..20).map(|seed| run(&empty, 1.0, &settings, seed).coefficients.len()).sum();
        assert!(found <= 1, "{algorithm:?}: {found} in 20 runs of 192 bins");
    }
}

#[test]
fn complex_values_are_recovered() {
    let spectrum = [(3u64, Complex::new(1.0, -2.0)), (700, Complex::new(0.0, 1.5)), (1000, Complex::new(-1.0, 0.1))];
    let value = |m: u64| spectrum.iter().map(|&(k, x)| if odd(m, k) { -x } else { x }).sum::<Complex<f64>>();
    for algorithm in [Algorithm::Exact, Algorithm::Nso, Algorithm::So, Algorithm::Ml, Algorithm::Full, Algorithm::Omp] {
        let settings = Settings { algorithm, bin_bits: Some(4), ..Settings::new(12, 4) };
        let mut query = |indices: &[u64], values: &mut [Complex<f64>]| {
            values.iter_mut().zip(indices).for_each(|(v, &m)| *v = value(m));
        };
        let found = transform(&mut query, &settings, stream(1), &Progress::silent()).unwrap();
        let mut found: Vec<_> = found.coefficients.iter().map(|c| (c.index, c.value)).collect();
        found.sort_by_key(|c| c.0);
        assert_eq!(found.len(), 3, "{algorithm:?}");
        for (f, t) in found.iter().zip(&spectrum) {
            assert!(f.0 == t.0 && (f.1 - t.1).norm() < 1e-9, "{algorithm:?}: {f:?} {t:?}");
        }
    }
}

#[test]
fn lasso_is_scikit_learns() {
    // sklearn.linear_model.Lasso(alpha=0.2, fit_intercept=False, tol=1e-14) (1.9.1) on rows `indices` of the Hadamard
    // matrix of order 16; its α is λ / S.
    let indices = [0, 1, 3, 4, 6, 7, 9, 10, 12, 15];
    let values = [1.538, -0.54, 2.692, 0.531, -2.661, 3.608, -3.109, -0.216, 3.289, 0.12];
    let mut expected = [0.0; 16];
    (expected[3], expected[9], expected[14]) = (1.67738, -0.94744, 0.2349);
    let objective = |x: &[f64]| {
        let mut fitted = x.to_vec();
        offprint_math::walsh_hadamard::walsh_hadamard(&mut fitted);
        let squares: f64 = indices.iter().zip(&values).map(|(&m, y)| (y - fitted[m as usize]).powi(2)).sum();
        0.5 * squares + 2.0 * x.iter().map(|x| x.abs()).sum::<f64>()
    };
    let x = pursuit::lasso(4, &indices, &values, 2.0, &Progress::silent()).unwrap();
    assert!((objective(&x) - 6.48015336).abs() < 1e-6, "{}", objective(&x));
    assert!((objective(&expected) - 6.48015336).abs() < 1e-6);
}

#[test]
fn the_spectrum_of_trees_and_cuts_is_that_of_their_table() {
    let trees = Trees::parse(include_str!("../src/spright/data/breast-cancer-trees.json"), "builtin").unwrap();
    let twice = r#"{"bits": 3, "trees": [
        {"feature": [0, 2, 0, -2, -2, -2, -2], "children_left": [1, 3, 5, -1, -1, -1, -1],
         "children_right": [2, 4, 6, -1, -1, -1, -1], "value": [0, 0, 0, 1, -2, 100, 4]},
        {"feature": [-2], "children_left": [-1], "children_right": [-1], "value": [0.25]}]}"#;
    let twice = Trees::parse(twice, "twice").unwrap();
    let cut = GraphCut::new(vec![(0, 1, 2.0), (1, 4, -1.0), (0, 1, 0.5), (2, 3, 1.0)], "graph").unwrap();
    let functions: [&dyn Function; 4] = [&trees, &twice, &cut, &GraphCut::wheel(6)];
    for function in functions {
        let mut table = Noisy { function, sigma: 0.0, seed: 0 }.table();
        offprint_math::walsh_hadamard::walsh_hadamard(&mut table);
        let scale = table.len() as f64;
        let dense: Vec<(u64, f64)> =
            table.iter().enumerate().map(|(k, x)| (k as u64, x / scale)).filter(|x| x.1.abs() > 1e-12).collect();
        let exact = function.spectrum();
        assert_eq!(exact.len(), dense.len());
        assert!(exact.iter().zip(&dense).all(|(e, d)| e.0 == d.0 && (e.1 - d.1).abs() < 1e-12));
    }
}

#[test]
fn a_decision_trees_spectrum_is_found_at_20_bits() {
    let trees = Trees::parse(include_str!("../src/spright/data/breast-cancer-trees.json"), "builtin").unwrap();
    let truth = trees.spectrum();
    let settings = Settings { bin_bits: Some(8), ..Settings::new(20, 64) };
    let recovery = run(&trees, 0.0, &settings, 0);
    assert!(error(&recovery, &truth) < 1e-9, "{} of {}", recovery.coefficients.len(), truth.len());
}

#[test]
fn bins_observed_are_bins_of_the_spectrum() {
    let function = SparseFunction::random_normal(13, 30, &mut Streams::new(5).stream("f").rng(0));
    for algorithm in PEELING {
        let settings = Settings { algorithm, bin_bits: Some(5), ..Settings::new(13, 30) };
        let design = Design::draw(&settings, stream(2)).unwrap();
        let seen = Bins::observe(&design, &mut Noisy { function: &function, sigma: 0.0, seed: 0 }).unwrap();
        let known = Bins::of_spectrum(&design, &function.spectrum());
        for (a, b) in seen.groups.iter().flatten().zip(known.groups.iter().flatten()) {
            assert!((a - b).abs() < 1e-12, "{algorithm:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_result_whatever_the_threads() {
    let function = signs(16, 40, 1);
    let settings = Settings::new(16, 40);
    let with = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let table = Noisy { function: &function, sigma: 1.0, seed: 4 }.table();
            let mut table = Table::new::<f64>(table, "table").unwrap();
            let from_table = transform(&mut table, &settings, stream(0), &Progress::silent()).unwrap();
            (from_table.coefficients, run(&function, 1.0, &settings, 4).coefficients)
        })
    };
    let (one, three) = (with(1), with(3));
    assert_eq!(one, three);
}

#[test]
fn a_table_and_a_callback_of_it_give_the_same() {
    let function = signs(14, 12, 8);
    let table = Noisy { function: &function, sigma: 0.5, seed: 3 }.table();
    let settings = Settings::new(14, 12);
    let silent = Progress::silent();
    let mut asked = Vec::new();
    let mut callback = Returning::new(|indices: &[u64]| {
        asked.push(indices.to_vec());
        indices.iter().map(|&i| table[i as usize]).collect::<Vec<f64>>()
    });
    let by_callback = transform(&mut callback, &settings, stream(0), &silent).unwrap();
    let mut by_table = Table::new::<f64>(&table[..], "table").unwrap();
    assert_eq!(transform(&mut by_table, &settings, stream(0), &silent).unwrap().coefficients, by_callback.coefficients);
    // Everything is asked at once, each index once, in order, and is what the plan says.
    assert_eq!(asked, [plan(&settings, stream(0)).unwrap()]);
    assert!(asked[0].is_sorted_by(|a, b| a < b));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_dual_of_a_basis_picks_coordinates(seed: u64, n in 1usize..=60) {
        let mut rng = Streams::new(seed).stream("basis").rng(0);
        let mut space = Subspace::default();
        let mut basis = Vec::new();
        while basis.len() < n {
            let v = rng.random_range(0..1u64 << n);
            if space.insert(v) {
                basis.push(v);
            }
        }
        let dual = dual(&basis);
        for (s, &v) in basis.iter().enumerate() {
            for (t, &w) in dual.iter().enumerate() {
                prop_assert_eq!(odd(v, w), s == t);
            }
        }
    }

    #[test]
    fn bin_and_rest_determine_the_index(seed: u64, n in 3u32..=60, k: u64, windows: bool) {
        let hashing = if windows && n <= 12 { Hashing::Windows } else { Hashing::Random };
        let settings = Settings { hashing, bin_bits: Some((n / 3 + 1).min(n - 1).min(12)), ..Settings::new(n, 1) };
        let k = k % (1 << n);
        for group in Design::draw(&settings, stream(seed)).unwrap().groups {
            prop_assert_eq!(group.index(group.bin(k), group.rest(k)), k);
            prop_assert_eq!(Subspace::of(&[&group.columns[..], &group.complement].concat()).rank(), n as usize);
            let mut different = group.delays.clone();
            different.sort_unstable();
            different.dedup();
            prop_assert_eq!(different.len(), group.delays.len());
        }
    }

    #[test]
    fn scaling_the_function_scales_the_spectrum(seed in 0u64..1000, exponent in -100i32..100) {
        let factor = 10f64.powi(exponent);
        let function = signs(13, 6, seed);
        let scaled = SparseFunction::new(13, function.spectrum().into_iter().map(|(k, x)| (k, x * factor)));
        for algorithm in PEELING {
            let settings = Settings { algorithm, bin_bits: Some(4), ..Settings::new(13, 6) };
            // By index: the order of equals is rounding's.
            let found = |function: &SparseFunction| {
                let mut found = run(function, 0.0, &settings, seed).coefficients;
                found.sort_by_key(|c| c.index);
                found
            };
            let (one, other) = (found(&function), found(&scaled));
            prop_assert_eq!(one.len(), other.len());
            for (a, b) in one.iter().zip(&other) {
                prop_assert_eq!(a.index, b.index);
                prop_assert!((a.value * factor - b.value).abs() <= 1e-9 * factor);
            }
        }
    }

    #[test]
    fn small_problems_never_panic_and_are_exact_when_they_say_so(
        seed in 0u64..1000, n in 2u32..9, share in 0.0..1.0f64, b in 1u32..8, groups in 1usize..6,
    ) {
        let sparsity = ((share * f64::from(1 << n) / 4.0) as usize).max(1);
        let function = signs(n, sparsity, seed);
        for algorithm in PEELING.into_iter().chain([Algorithm::Full, Algorithm::Omp, Algorithm::Lasso]) {
            // Known to be none: with more coefficients than bins no bin is empty, and noise cannot be estimated.
            let noise = Noise::Known(0.0);
            let bin_bits = Some(b.min(n - 1));
            let settings = Settings { algorithm, groups, bin_bits, noise, ..Settings::new(n, sparsity) };
            let found = run(&function, 0.0, &settings, seed);
            if algorithm == Algorithm::Full {
                prop_assert!(error(&found, &function.spectrum()) < 1e-9);
            } else if found.is_complete() && matches!(algorithm, Algorithm::Exact | Algorithm::Ml) && groups * b as usize >= n as usize {
                // What explains every bin explains every value that was looked at.
                for m in plan(&settings, stream(seed)).unwrap() {
                    prop_assert!((found.evaluate(m) - function.value(m)).abs() < 1e-6, "{algorithm:?}");
                }
            }
        }
    }
}

#[test]
fn one_coefficient_at_the_edges_of_the_index_range() {
    for n in [2, 5, 30, 60] {
        for k in [0, 1, (1u64 << n) - 1] {
            for algorithm in [Algorithm::Exact, Algorithm::Nso, Algorithm::So] {
                let function = SparseFunction::new(n, [(k, -3.0)]);
                let settings = Settings { algorithm, ..Settings::new(n, 1) };
                assert!(error(&run(&function, 0.0, &settings, 0), &[(k, -3.0)]) < 1e-9, "{algorithm:?} n {n} k {k}");
            }
        }
    }
}

#[test]
fn the_zero_function_has_no_coefficients() {
    for algorithm in PEELING.into_iter().chain([Algorithm::Full, Algorithm::Omp, Algorithm::Lasso]) {
        let settings = Settings { algorithm, ..Settings::new(10, 8) };
        let found = run(&SparseFunction::new(10, []), 0.0, &settings, 0);
        assert!(found.coefficients.is_empty() && found.is_complete(), "{algorithm:?}");
    }
}

#[test]
fn clustered_supports_need_random_hashing_and_windows_say_that_they_failed() {
    // All pairs of the first six bits: windows of neighbouring bits put them into few bins.
    let pairs = (0..6).flat_map(|i| (0..i).map(move |j| (1u64 << i | 1 << j, 1.0)));
    let function = SparseFunction::new(18, pairs.clone());
    let truth = function.spectrum();
    let settings = |hashing| Settings { hashing, bin_bits: Some(6), ..Settings::new(18, 15) };
    let random = run(&function, 0.0, &settings(Hashing::Random), 0);
    assert!(error(&random, &truth) < 1e-9 && random.is_complete());
    let wide = SparseFunction::new(
        18,
        (0..6).flat_map(|i| [1u64 << i | 1 << 17, 1 << i, 1 << (i + 6), 1 << i | 1 << (i + 6)]).map(|k| (k, 1.0)),
    );
    let windows = run(&wide, 0.0, &settings(Hashing::Windows), 0);
    assert_eq!(error(&windows, &wide.spectrum()) < 1e-9, windows.is_complete());
}

#[test]
fn settings_out_of_range_are_named() {
    let function = signs(8, 2, 0);
    let message = |settings: Settings| {
        let mut noisy = Noisy { function: &function, sigma: 0.0, seed: 0 };
        transform(&mut noisy, &settings, stream(0), &Progress::silent()).unwrap_err().to_string()
    };
    let base = || Settings::new(8, 2);
    assert!(message(Settings { sparsity: 65, ..base() }).contains("use the full transform"));
    assert!(message(Settings { sparsity: 0, ..base() }).starts_with("sparsity: got 0"));
    assert!(message(Settings { bits: 61, ..base() }).starts_with("bits: got 61, but it must be at most 60"));
    assert!(message(Settings { bits: 1, sparsity: 1, ..base() }).contains("use the full transform"));
    assert!(message(Settings { noise: Noise::Known(-1.0), ..base() }).starts_with("sigma: got -1"));
    assert!(message(Settings { noise: Noise::Known(f64::NAN), ..base() }).starts_with("sigma: got NaN"));
    assert!(message(Settings { bin_bits: Some(8), ..base() }).starts_with("bin_bits: got 8"));
    assert!(message(Settings { groups: 0, ..base() }).starts_with("groups: got 0"));
    assert!(message(Settings { delays: Some(0), ..base() }).starts_with("delays: got 0"));
    assert!(message(Settings { gamma: 0.0, ..base() }).starts_with("gamma: got 0"));
    assert!(message(Settings { amplitude: Some(-1.0), ..base() }).starts_with("amplitude: got -1"));
    assert!(
        message(Settings { algorithm: Algorithm::So, coded_delays: Some(1), ..base() }).starts_with("coded_delays")
    );
    assert!(message(Settings { blocks: vec![(0, 2), (4, 6)], ..base() }).contains("no block covers bit 3, 7"));
    assert!(message(Settings { blocks: vec![(5, 3)], ..base() }).starts_with("blocks: got 5-3"));
    assert!(message(Settings { hashing: Hashing::Windows, bin_bits: Some(2), ..base() }).contains("no block covers"));
    assert!(
        message(Settings { algorithm: Algorithm::Omp, samples: Some(300), ..base() }).starts_with("samples: got 300")
    );
    let deep = Settings { algorithm: Algorithm::Ml, ..Settings::new(40, 4) };
    assert!(message(deep).contains("ml algorithm"));
    assert!(message(Settings { algorithm: Algorithm::Full, bits: 31, ..base() }).contains("full transform"));
}

#[test]
fn bad_answers_are_named() {
    let silent = Progress::silent();
    let settings = Settings::new(10, 4);
    let mut short = Returning::new(|indices: &[u64]| vec![1.0; indices.len() - 1]);
    let error = transform(&mut short, &settings, stream(0), &silent).unwrap_err().to_string();
    assert!(error.contains("values but returned"), "{error}");
    let asked = plan(&settings, stream(0)).unwrap()[17];
    let mut nan = |indices: &[u64], values: &mut [f64]| {
        values.iter_mut().zip(indices).for_each(|(v, &i)| *v = if i == asked { f64::NAN } else { 1.0 });
    };
    let error = transform(&mut nan, &settings, stream(0), &silent).unwrap_err().to_string();
    assert!(error.contains(&format!("index {asked} is NaN")), "{error}");
    let error = Measurements::new(vec![(3, 1.0), (3, 2.0)], "twice.csv").unwrap_err().to_string();
    assert!(error.contains("index 3"), "{error}");
    let error = Table::new::<f64>(vec![0.0; 12], "twelve").unwrap_err().to_string();
    assert!(error.contains("twelve: has 12 values; 2ⁿ are needed"), "{error}");
}

#[test]
fn full_spectra_are_normalised() {
    let function = signs(9, 30, 2);
    let spectrum: Vec<f64> =
        full::spectrum(&mut Noisy { function: &function, sigma: 0.0, seed: 0 }, 9, &Progress::silent()).unwrap();
    for (k, x) in function.spectrum() {
        assert!((spectrum[k as usize] - x).abs() < 1e-12);
    }
}

// The door.

fn paper() -> Paper {
    offprint_signal::papers().into_iter().find(|p| p.card().slug == "spright").unwrap()
}

fn door(parameters: serde_json::Value, out: Option<&Path>) -> Result<Report, Error> {
    let paper = paper();
    let mut run = Run::new(paper.card()).with_seed(3);
    if let Some(out) = out {
        run = run.with_out(out.to_owned())?;
    }
    paper.prepare_json(parameters)?.run(&mut run)?;
    Ok(run.finish(true)?.0)
}

fn write(directory: &Path, name: &str, array: impl Into<Array>) -> String {
    let path = directory.join(name);
    Artifact::Array(array.into()).write(&path).unwrap();
    path.display().to_string()
}

#[test]
fn the_default_run_finds_what_is_hidden() {
    let report = door(json!({}), None).unwrap();
    assert_eq!((report.metric("found and true"), report.metric("found and false")), (Some(20.0), Some(0.0)));
    assert!(report.metric("largest error").unwrap() < 0.1 && report.warnings.is_empty());
    assert_eq!(report.figures.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["spectrum", "peeling"]);
    assert_eq!(report.files, ["spectrum.csv", "spectrum.json"]);
    for kind in ["trees", "graph"] {
        let report = door(json!({"kind": kind, "sparsity": 64, "bin_bits": 8}), None).unwrap();
        assert_eq!(report.metric("found and true"), report.metric("coefficients of the function"), "{kind}");
    }
}

#[test]
fn tables_of_every_kind_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let function = signs(14, 10, 6);
    let table = Noisy { function: &function, sigma: 0.0, seed: 0 }.table();
    let single: Vec<f32> = table.iter().map(|&x| x as f32).collect();
    let complex: Vec<Complex<f64>> = table.iter().map(|&x| Complex::new(x, -2.0 * x)).collect();
    let whole: Vec<i64> = table.iter().map(|&x| x as i64).collect();
    let csv = at.join("t.csv");
    std::fs::write(&csv, table.iter().map(|x| format!("{x}\n")).collect::<String>()).unwrap();
    let pairs = at.join("pairs.csv");
    std::fs::write(&pairs, table.iter().map(|x| format!("{x},{}\n", 2.0 * x)).collect::<String>()).unwrap();
    for input in [
        write(at, "d.npy", table.clone()),
        write(at, "s.npy", single),
        write(at, "c.npy", complex),
        write(at, "i.npy", whole),
        csv.display().to_string(),
        pairs.display().to_string(),
    ] {
        for algorithm in ["exact", "nso"] {
            let parameters = json!({"input": input, "algorithm": algorithm, "sparsity": 10, "bin_bits": 6});
            let report = door(parameters, None).unwrap();
            assert_eq!(report.metric("coefficients found"), Some(10.0), "{input} {algorithm}");
        }
    }
}

#[test]
fn measurements_at_the_planned_indices_are_enough() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let parameters = json!({"kind": "samples", "bits": 20, "sparsity": 8, "bin_bits": 5, "plan": true});
    door(parameters, Some(at)).unwrap();
    let planned: offprint_core::Source = at.join("queries.npy").display().to_string().parse().unwrap();
    let Array::U64(indices) = planned.array().unwrap() else { panic!("indices are unsigned") };
    let function = signs(20, 8, 4);
    let rows: String = indices.iter().map(|&m| format!("{m},{}\n", function.value(m))).collect();
    let samples = at.join("samples.csv");
    std::fs::write(&samples, &rows).unwrap();
    let values = write(at, "values.npy", indices.iter().map(|&m| function.value(m)).collect::<Vec<f64>>());
    let parameters = |input: &str| json!({"kind": "samples", "bits": 20, "sparsity": 8, "bin_bits": 5, "input": input});
    for input in [samples.display().to_string(), values] {
        let report = door(parameters(&input), None).unwrap();
        assert_eq!(report.metric("coefficients found"), Some(8.0));
    }
    let cut = at.join("cut.csv");
    std::fs::write(&cut, rows.lines().skip(2).map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let error = door(parameters(&cut.display().to_string()), None).unwrap_err().to_string();
    assert!(error.contains(&format!("no value for index {} (2 of", indices[0])), "{error}");
    std::fs::write(&cut, "0.5,1\n").unwrap();
    let error = door(parameters(&cut.display().to_string()), None).unwrap_err().to_string();
    assert!(error.contains("row 0 has the index 0.5"), "{error}");
    let short = write(at, "short.npy", vec![1.0, 2.0]);
    let error = door(parameters(&short), None).unwrap_err().to_string();
    assert!(error.contains("has 2 values without indices"), "{error}");
}

#[test]
fn bad_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let message = |parameters| door(parameters, None).unwrap_err().to_string();
    let table = |input: &str| json!({"input": input, "sparsity": 2, "bin_bits": 2});

    let odd = write(at, "odd.npy", vec![0.0; 1000]);
    let error = message(table(&odd));
    assert!(error.contains("odd.npy: has 1000 values"), "{error}");

    let mut values = vec![1.0; 256];
    values[0..].fill(f64::NAN);
    let nan = write(at, "nan.npy", values);
    assert!(message(table(&nan)).contains("is NaN; every value must be finite"));
    let full = json!({"input": nan, "algorithm": "full"});
    assert!(message(full).contains("the value at index 0 is NaN"));

    let empty = write(at, "empty.npy", Vec::<f64>::new());
    assert!(message(table(&empty)).contains("is empty"));

    let whole = write(at, "whole.npy", vec![1.0; 256]);
    let bytes = std::fs::read(&whole).unwrap();
    let cut = at.join("cut.npy");
    std::fs::write(&cut, &bytes[..bytes.len() - 8]).unwrap();
    assert!(message(table(&cut.display().to_string())).contains("is truncated"));
    let mut text = bytes.clone();
    let place = text.windows(3).position(|w| w == b"<f8").unwrap();
    text[place..place + 3].copy_from_slice(b"<U2");
    std::fs::write(&cut, text).unwrap();
    assert!(message(table(&cut.display().to_string())).contains("dtype <U2"));

    let plane = write(at, "plane.npy", ndarray::Array2::<f64>::zeros((16, 16)));
    assert!(message(table(&plane)).contains("shape [16, 16]"));
    assert!(message(json!({"input": whole, "sparsity": 100})).contains("use the full transform"));
    assert!(message(json!({"input": whole, "bits": 9, "sparsity": 2})).contains("bits: got 9, but it must be 8"));
    assert!(message(json!({"input": at.join("none.npy").display().to_string()})).starts_with("cannot read"));
    assert!(message(json!({"bits": 61})).starts_with("bits: got 61"));
    assert!(message(json!({"kind": "samples"})).contains("file of samples"));
    assert!(message(json!({"blocks": "0-4;5"})).starts_with("blocks"));
    assert!(message(json!({"plan": true})).starts_with("bits"));
    assert!(message(json!({"sigma": -1})).starts_with("sigma"));

    let file = at.join("bad.json");
    for (text, problem) in [
        ("[]", "is no file of decision trees"),
        (r#"{"bits": 3, "trees": []}"#, "has no trees"),
        (r#"{"bits": 0, "trees": []}"#, "says 0 bits"),
        (
            r#"{"bits": 2, "trees": [{"feature": [5], "children_left": [-1], "children_right": [-1], "value": [1]}]}"#,
            "feature 5",
        ),
        (
            r#"{"bits": 2, "trees": [{"feature": [1], "children_left": [0], "children_right": [0], "value": [1]}]}"#,
            "child 0",
        ),
        (
            r#"{"bits": 2, "trees": [{"feature": [], "children_left": [], "children_right": [], "value": []}]}"#,
            "not empty",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = message(json!({"kind": "trees", "input": file.display().to_string(), "sparsity": 1}));
        assert!(error.contains(problem), "{error}");
    }
    for (text, problem) in
        [("1,1\n", "joins node 1 with itself"), ("0,61\n", "node 61"), ("0,0.5\n", "node 0.5"), ("1\n", "columns")]
    {
        let file = at.join("bad.csv");
        std::fs::write(&file, text).unwrap();
        let error = message(json!({"kind": "graph", "input": file.display().to_string(), "sparsity": 1}));
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn the_quick_study_measures_every_claim() {
    let paper = paper();
    let mut run = Run::new(paper.card()).with_scale(Scale::Quick);
    paper.measure(&mut run).unwrap();
    let (report, _) = run.finish(true).unwrap();
    let measured: Vec<&str> = report.claims.iter().map(|c| c.id.as_str()).collect();
    assert!(paper.card().claims.iter().all(|c| measured.contains(&c.id.as_str())), "{measured:?}");
    // These hold with room to spare whatever the machine and the few seeds.
    for id in
        ["exact-recovery", "exact-error", "peeling-threshold", "time-at-30", "sparse-fht-breaks", "spright-at-20-db"]
    {
        assert_eq!(report.claims.iter().find(|c| c.id == id).unwrap().verdict, Verdict::Holds, "{id}");
    }
}
