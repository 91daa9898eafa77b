//! DC-Solver: compensation against interpolation by hand, the search against a dense scan, the regression against
//! polynomials that it holds, bad input.

use ndarray::{Array2, Array3, array};
use offprint_core::artifact::Artifact;
use offprint_core::random::Streams;
use offprint_core::{Progress, Run};
use offprint_generate::dc_solver::{
    CascadePolynomial, DcSampler, Example, Ratios, Reference, Search, Setting, Variant, compensate, lagrange_weights,
    mean_squared_error,
};
use offprint_generate::sample::{
    Basis, Buffer, Correction, Ddim, Deis, DpmPlusPlus2M, Multistep, Sampler, Solver, UniPc,
};
use offprint_generate::{Counted, Denoiser, Grid, Hook, Node, Schedule, normals};
use proptest::prelude::*;
use serde_json::json;

fn streams() -> Streams {
    Streams::new(5)
}

fn example() -> Example {
    Example::new(6, streams().stream("centres")).unwrap()
}

fn grid(steps: usize) -> Grid {
    Grid::uniform_t(&Schedule::scaled_linear(), steps, 1.0, 1e-3).unwrap()
}

fn start(grid: &Grid, n: usize) -> Array2<f64> {
    grid.start_from(normals(n, 6, streams().stream("start"), 0))
}

fn reference(model: &dyn Denoiser, steps: usize, n: usize) -> Reference {
    let grid = grid(steps);
    let schedule = Schedule::scaled_linear();
    Reference::integrate(model, start(&grid, n), &grid, &schedule, 60, &Progress::silent()).unwrap()
}

fn run(sampler: &dyn Sampler, model: &dyn Denoiser, reference: &Reference) -> Array2<f64> {
    let stream = streams().stream("none");
    sampler.run(model, reference.start().clone(), &grid(reference.steps()), stream).unwrap().y
}

/// A denoiser that answers with the same polynomial of the schedule's time at every point.
struct OfTime<F>(F);

impl<F: Fn(f64) -> f64 + Sync> Denoiser for OfTime<F> {
    fn dim(&self) -> usize {
        6
    }

    fn denoise(&self, y: ndarray::ArrayView2<'_, f64>, tau: f64) -> offprint_core::Result<Array2<f64>> {
        let t = Schedule::scaled_linear().time(tau)?;
        Ok(Array2::from_elem(y.dim(), (self.0)(t)))
    }
}

/// Checks, before each step, that the newest output is what `expected` says of (t_i, t_{i−1}).
struct Expecting<F> {
    ratios: Ratios,
    expected: F,
    seen: usize,
}

impl<F: Fn(f64, f64) -> f64> Hook for Expecting<F> {
    fn buffer(&mut self, step: usize, _: Node, buffer: &mut Buffer) -> offprint_core::Result<()> {
        let ratio = self.ratios.values()[step];
        if ratio != 1.0 {
            let (now, before) = (buffer.get(0).unwrap().at.t, buffer.get(1).unwrap().at.t);
            compensate(buffer, ratio, self.ratios.degree())?;
            let found = buffer.get(0).unwrap().output[[0, 0]];
            let expected = (self.expected)(now, before);
            assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{found} {expected}");
            // Undone, so that the history stays the polynomial and the next step can be checked too.
            buffer.get_mut(0).unwrap().output.fill((self.expected)(now, now));
            self.seen += 1;
        }
        Ok(())
    }
}

#[test]
fn outputs_that_are_polynomials_in_time_move_along_them() {
    let polynomial = |t: f64| 1.0 - 3.0 * t + 2.0 * t * t;
    for (degree, order) in [(2, 3), (3, 2), (4, 1)] {
        let mut values = vec![1.0; 8];
        values[degree..].fill(0.8);
        let ratios = Ratios::new(values, degree).unwrap();
        let at = |now: f64, before: f64| 0.8 * now + 0.2 * before;
        let expected = |now: f64, before: f64| polynomial(if now == before { now } else { at(now, before) });
        let mut hook = Expecting { ratios, expected, seen: 0 };
        let solver = UniPc::new(order, offprint_generate::sample::Bh::One).unwrap();
        let sampler = Multistep { history: degree + 1, ..Multistep::new(solver) };
        let grid = grid(8);
        let (model, stream) = (OfTime(polynomial), streams().stream("none"));
        sampler.run_with(&model, start(&grid, 2), &grid, stream, &mut hook, &Progress::silent()).unwrap();
        assert_eq!(hook.seen, 8 - degree);
    }
}

#[test]
fn degree_one_is_linear_interpolation() {
    let ratios = Ratios::new(vec![1.0, 0.25, 0.25, 0.25], 1).unwrap();
    let line = |t: f64| 5.0 * t - 2.0;
    let expected = |now: f64, before: f64| 0.25 * line(now) + 0.75 * line(before);
    let mut hook = Expecting { ratios, expected, seen: 0 };
    let sampler = Multistep { history: 2, ..Multistep::new(Ddim) };
    let (grid, model) = (grid(4), OfTime(line));
    let stream = streams().stream("none");
    sampler.run_with(&model, start(&grid, 1), &grid, stream, &mut hook, &Progress::silent()).unwrap();
    assert_eq!(hook.seen, 3);
}

/// A step of UniPC written out from its definition, on one number per point in x, to hold the sampler against.
fn unipc_by_hand(ratios: &[f64], grid: &Grid, x0: f64, model: &dyn Denoiser) -> f64 {
    let at = |node: Node| {
        let (alpha, sigma) = (node.alpha, node.alpha * node.tau);
        (node.t, alpha, sigma, (alpha / sigma).ln())
    };
    let ask =
        |x: f64, node: Node| model.denoise(Array2::from_elem((1, 1), x / node.alpha).view(), node.tau).unwrap()[[0, 0]];
    let nodes = grid.nodes();
    let mut x = x0;
    let mut history = vec![(at(nodes[0]), ask(x0, nodes[0]))];
    let steps = grid.steps();
    for s in 1..=steps {
        let order = 3.min(s).min(steps + 1 - s);
        let newest = history.len() - 1;
        if s >= 3 {
            // The parabola through three outputs, by Neville's scheme rather than by Lagrange's basis.
            let (ti, tj, tk) = (history[newest].0.0, history[newest - 1].0.0, history[newest - 2].0.0);
            let (mi, mj, mk) = (history[newest].1, history[newest - 1].1, history[newest - 2].1);
            let t = ratios[s - 1] * ti + (1.0 - ratios[s - 1]) * tj;
            let mij = ((t - tj) * mi - (t - ti) * mj) / (ti - tj);
            let mjk = ((t - tk) * mj - (t - tj) * mk) / (tj - tk);
            history[newest].1 = ((t - tk) * mij - (t - ti) * mjk) / (ti - tk);
        }
        let ((_, _, sigma, lambda), m) = history[newest];
        let (_, alpha1, sigma1, lambda1) = at(nodes[s]);
        let h = lambda1 - lambda;
        let hh = -h;
        let phi = hh.exp_m1();
        let mut r = Vec::new();
        let mut d = Vec::new();
        for i in 1..order {
            let ((_, _, _, past), output) = history[newest - i];
            r.push((past - lambda) / h);
            d.push((output - m) / r[i - 1]);
        }
        // bh1: B = hh; b_j = c_j j!/B with c_1 = φ/hh − 1 and c_{j+1} = c_j/hh − 1/(j + 1)!.
        let (mut c, mut factorial, mut b) = (phi / hh - 1.0, 1.0, Vec::new());
        for j in 1..=order {
            b.push(c * factorial / hh);
            factorial *= (j + 1) as f64;
            c = c / hh - 1.0 / factorial;
        }
        let cramer = |r: &[f64], b: &[f64]| -> Vec<f64> {
            match r.len() {
                0 => vec![],
                1 => vec![0.5],
                2 => {
                    let det = r[1] - r[0];
                    vec![(b[0] * r[1] - b[1]) / det, (b[1] - b[0] * r[0]) / det]
                }
                _ => {
                    let det3 = |m: [[f64; 3]; 3]| {
                        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
                            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
                            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
                    };
                    let v = [[1.0; 3], [r[0], r[1], r[2]], [r[0] * r[0], r[1] * r[1], r[2] * r[2]]];
                    (0..3)
                        .map(|k| {
                            let mut m = v;
                            (0..3).for_each(|j| m[j][k] = b[j]);
                            det3(m) / det3(v)
                        })
                        .collect()
                }
            }
        };
        let base = sigma1 / sigma * x - alpha1 * phi * m;
        let rho = cramer(&r, &b);
        let predicted = base - alpha1 * hh * rho.iter().zip(&d).map(|(r, d)| r * d).sum::<f64>();
        if s == steps {
            x = predicted;
            break;
        }
        let output = ask(predicted, nodes[s]);
        r.push(1.0);
        d.push(output - m);
        let rho = cramer(&r, &b);
        x = base - alpha1 * hh * rho.iter().zip(&d).map(|(r, d)| r * d).sum::<f64>();
        history.push((at(nodes[s]), output));
    }
    x
}

#[test]
fn the_compensated_sampler_is_the_published_recursion() {
    let example = Example::new(1, streams().stream("centres")).unwrap();
    let model = example.guided(2.0).unwrap();
    let values = vec![1.0, 1.0, 0.9, 1.2, 0.7, 1.05, 0.85];
    let grid = grid(7);
    for x in [-1.3, 0.2, 0.9] {
        let by_hand = unipc_by_hand(&values, &grid, x, &model);
        let sampler = DcSampler::new(Variant::Latent.sampler(), Ratios::new(values.clone(), 2).unwrap());
        let y = grid.start_from(Array2::from_elem((1, 1), x));
        let found = sampler.run(&model, y, &grid, streams().stream("none")).unwrap().into_x()[[0, 0]];
        assert!((found - by_hand).abs() < 1e-10, "{found} {by_hand}");
    }
}

#[test]
fn ratios_of_one_change_nothing_and_cost_nothing() {
    let example = example();
    let model = example.guided(1.5).unwrap();
    let reference = reference(&model, 6, 4);
    let sampler = Variant::Latent.sampler();
    let plain = run(&sampler, &model, &reference);
    let ones = DcSampler::new(sampler.clone(), Ratios::identity(6, 2).unwrap());
    assert_eq!(run(&ones, &model, &reference), plain);
    let counted = Counted::new(&model);
    let moved = DcSampler::new(sampler, Ratios::new(vec![1.0, 1.0, 0.9, 0.9, 0.9, 0.9], 2).unwrap());
    assert_ne!(run(&moved, &counted, &reference), plain);
    assert_eq!(counted.calls(), 6);
}

#[test]
fn references_converge_to_the_flow_and_split_by_rows() {
    // A single Gaussian of variance v: the flow is linear, y(τ') = y(τ) √((v + τ'²)/(v + τ²)).
    use offprint_generate::exact::{ExactMixture, Mixture};
    let mixture = Mixture::round(array![1.0], Array2::zeros((1, 6)), array![0.3].view()).unwrap();
    let model = ExactMixture::new(mixture).unwrap();
    let grid = grid(4);
    let schedule = Schedule::scaled_linear();
    let from = start(&grid, 3);
    let error = |substeps: usize| {
        let reference =
            Reference::integrate(&model, from.clone(), &grid, &schedule, substeps, &Progress::silent()).unwrap();
        let factor = ((0.3 + grid.last().tau.powi(2)) / (0.3 + grid.first().tau.powi(2))).sqrt();
        mean_squared_error(reference.end(), &(&from * factor)).sqrt()
    };
    let (coarse, fine) = (error(50), error(200));
    assert!(fine < 0.01 && (coarse / fine - 4.0).abs() < 0.5, "{coarse} {fine}");
    let all = reference(&example().guided(1.0).unwrap(), 4, 5);
    let part = all.select(1..3);
    assert_eq!((part.steps(), part.end()), (4, &all.end().slice(ndarray::s![1..3, ..]).to_owned()));
    // Through x and back.
    let states = all.clone().into_x(&grid);
    let back = Reference::from_states(&states, &grid).unwrap();
    assert!(mean_squared_error(back.end(), all.end()) < 1e-28 && mean_squared_error(back.start(), all.start()) < 1e-20);
}

/// The loss after `step` steps with the ratios up to there.
fn loss_after<S: Solver + Clone>(
    sampler: &Multistep<S>,
    model: &dyn Denoiser,
    reference: &Reference,
    ratios: &[f64],
    step: usize,
) -> f64 {
    let mut trajectory: Vec<Array2<f64>> = Vec::new();
    let compensated = DcSampler::new(sampler.clone(), Ratios::new(ratios.to_vec(), 2).unwrap());
    let grid = grid(reference.steps());
    let stream = streams().stream("none");
    let from = reference.start().clone();
    compensated.run_with(model, from, &grid, stream, &mut trajectory, &Progress::silent()).unwrap();
    mean_squared_error(&trajectory[step], reference.after(step))
}

#[test]
fn every_ratio_found_is_the_lowest_of_a_dense_scan() {
    let example = example();
    let model = example.guided(1.5).unwrap();
    let reference = reference(&model, 6, 8);
    for variant in [Variant::Latent, Variant::Pipeline] {
        let sampler = variant.sampler();
        let search = variant.search();
        let found = search.run(&sampler, &model, &grid(6), &reference, &Progress::silent()).unwrap();
        assert!(found.most_calls_of_a_step <= 25);
        for step in 3..=6 {
            let mut ratios = found.ratios.values().to_vec();
            ratios[step..].fill(1.0);
            let reached = loss_after(&sampler, &model, &reference, &ratios, step);
            assert!((reached - found.losses[step - 1]).abs() < 1e-12 * (1.0 + reached), "step {step}");
            let (low, high) = search.bounds;
            let dense = (0..=280).map(|i| {
                ratios[step - 1] = low + (high - low) * f64::from(i) / 280.0;
                loss_after(&sampler, &model, &reference, &ratios, step)
            });
            let lowest = dense.fold(f64::INFINITY, f64::min);
            assert!(reached <= lowest * (1.0 + 1e-4), "{variant:?}, step {step}: {reached} {lowest}");
        }
    }
}

#[test]
fn the_search_counts_its_calls_and_lowers_the_error_of_every_solver() {
    let example = example();
    let model = example.guided(1.0).unwrap();
    let reference = reference(&model, 8, 16);
    let schedule = Schedule::scaled_linear();
    fn gain<S: Solver + Clone>(sampler: Multistep<S>, model: &dyn Denoiser, reference: &Reference) -> f64 {
        let counted = Counted::new(model);
        let found = Search::default().run(&sampler, &counted, &grid(8), reference, &Progress::silent()).unwrap();
        assert_eq!(found.calls, counted.calls());
        let plain = mean_squared_error(&run(&sampler, model, reference), reference.end());
        let compensated = run(&DcSampler::new(sampler, found.ratios), model, reference);
        mean_squared_error(&compensated, reference.end()) / plain
    }
    assert!(gain(Variant::Latent.sampler(), &model, &reference) < 1.0);
    assert!(gain(Multistep::new(Ddim), &model, &reference) < 0.9);
    assert!(gain(Multistep::new(DpmPlusPlus2M).with_lower_order_final(), &model, &reference) < 0.9);
    let deis = Deis::new(3, Basis::Time(schedule)).unwrap();
    assert!(gain(Multistep::new(deis), &model, &reference) < 1.0);
}

#[test]
fn results_do_not_depend_on_threads() {
    let found = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let example = Example::new(40, streams().stream("centres")).unwrap();
            let model = example.guided(3.0).unwrap();
            let grid = grid(5);
            let from = grid.start_from(normals(80, 40, streams().stream("start"), 0));
            let schedule = Schedule::scaled_linear();
            let reference = Reference::integrate(&model, from, &grid, &schedule, 10, &Progress::silent()).unwrap();
            let search = Variant::Latent.search();
            search.run(&Variant::Latent.sampler(), &model, &grid, &reference, &Progress::silent()).unwrap().ratios
        })
    };
    assert_eq!(found(1), found(3));
}

/// A polynomial of the regression's own family.
fn polynomial(w: f64, nfe: usize, k: usize) -> f64 {
    let (u, g, y) = (nfe as f64 / 50.0, w / 12.0, k as f64 / nfe as f64);
    1.0 + 0.3 * g * y - 0.4 * u * g * g + 0.1 * y.powi(3) * u * u - 0.2 * y
}

#[test]
fn the_regression_predicts_settings_of_its_own_family_that_it_never_saw() {
    let mut settings = Vec::new();
    for w in [1.0, 2.0, 3.0, 5.0, 7.5] {
        for nfe in [5, 6, 8, 10, 12] {
            let ratio = |k| if k <= 2 { 1.0 } else { polynomial(w, nfe, k) };
            let ratios = Ratios::new((1..=nfe).map(ratio).collect(), 2).unwrap();
            settings.push(Setting { guidance: w, ratios });
        }
    }
    let fitted = CascadePolynomial::fit(&settings).unwrap();
    for (w, nfe) in [(4.0, 7), (4.0, 9), (1.5, 11), (6.0, 5)] {
        let predicted = fitted.ratios(w, nfe).unwrap();
        assert_eq!(predicted.values()[..2], [1.0, 1.0]);
        for k in 3..=nfe {
            let error = predicted.values()[k - 1] - polynomial(w, nfe, k);
            assert!(error.abs() < 1e-3, "w {w}, NFE {nfe}, step {k}: {error}");
        }
    }
    let flat: Vec<f64> = fitted.coefficients().iter().copied().collect();
    assert_eq!(CascadePolynomial::new(&flat).unwrap(), fitted);
}

#[test]
fn the_cascade_is_evaluated_in_the_published_order() {
    // C[1, 2, 0] = 2 alone: c1[1, 2] = 2u², c2[1] = 2u², ratio = 2u² y.
    let mut numbers = Array3::zeros((4, 3, 3));
    numbers[[1, 2, 0]] = 2.0;
    // C[3, 0, 2] = 5: c1[3, 0] = 5, c2[3] = 5g², ratio += 5 g² y³.
    numbers[[3, 0, 2]] = 5.0;
    let cascade = CascadePolynomial::new(numbers.as_slice().unwrap()).unwrap();
    let ratios = cascade.ratios(6.0, 10).unwrap();
    for k in 3..=10 {
        let (u, g, y) = (0.2f64, 0.5f64, k as f64 / 10.0);
        let expected = 2.0 * u * u * y + 5.0 * g * g * y.powi(3);
        assert!((ratios.values()[k - 1] - expected).abs() < 1e-14);
    }
}

proptest! {
    #[test]
    fn lagrange_weights_reproduce_polynomials(
        times in proptest::collection::btree_set(0u16..1000, 2..6),
        at in -0.5..1.5f64,
        coefficients in proptest::collection::vec(-2.0..2.0f64, 6),
    ) {
        let times: Vec<f64> = times.into_iter().map(|t| f64::from(t) / 100.0).collect();
        let weights = lagrange_weights(&times, at).unwrap();
        prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-6 * weights.iter().map(|w| w.abs()).sum::<f64>());
        let value = |t: f64| coefficients[..times.len()].iter().rev().fold(0.0, |sum, c| sum * t + c);
        let found: f64 = weights.iter().zip(&times).map(|(w, &t)| w * value(t)).sum();
        let size: f64 = weights.iter().zip(&times).map(|(w, &t)| (w * value(t)).abs()).sum();
        prop_assert!((found - value(at)).abs() < 1e-9 * (1.0 + size));
    }
}

#[test]
fn bad_input_is_refused_in_words() {
    let example = example();
    let model = example.guided(1.0).unwrap();
    let four = reference(&model, 4, 2);
    let six = grid(6);
    let sampler = Variant::Latent.sampler();
    let silent = Progress::silent();
    let search = Search::default();
    let message = |search: Search, reference: &Reference, grid: &Grid| {
        search.run(&sampler, &model, grid, reference, &silent).unwrap_err().to_string()
    };
    assert_eq!(message(search, &four, &six), "reference: has 4 steps, but NFE is 6");
    assert!(message(Search { bounds: (1.2, 0.8), ..search }, &four, &grid(4)).contains("rising order"));
    assert!(message(Search { scan: 2, ..search }, &four, &grid(4)).contains("at least 3"));
    assert!(message(Search { degree: 9, ..search }, &four, &grid(4)).contains("from 1 to 5"));

    let ratios = Ratios::identity(5, 2).unwrap();
    let dc = DcSampler::new(sampler.clone(), ratios);
    let stream = streams().stream("none");
    let error = dc.run(&model, start(&six, 2), &six, stream).unwrap_err();
    assert_eq!(error.to_string(), "dc_ratios: has 5 entries, but NFE is 6");
    let two = DcSampler::new(sampler.clone(), Ratios::identity(2, 2).unwrap());
    let error = two.run(&model, start(&grid(2), 2), &grid(2), stream).unwrap_err().to_string();
    assert!(error.contains("steps: got 2") && error.contains("order 3"), "{error}");

    let wrong = Reference::from_states(&Array3::zeros((4, 2, 6)), &six).unwrap_err().to_string();
    assert!(wrong.contains("[4, 2, 6]") && wrong.contains("(7, n, d)"), "{wrong}");
    let mut nan = Array3::zeros((7, 2, 6));
    nan[[3, 1, 0]] = f64::NAN;
    assert!(Reference::from_states(&nan, &six).unwrap_err().to_string().contains("row 1"));
    let schedule = Schedule::scaled_linear();
    let ended = six.clone().with_final_denoising();
    let error = Reference::integrate(&model, start(&six, 2), &ended, &schedule, 5, &silent).unwrap_err().to_string();
    assert!(error.contains("without noise"), "{error}");

    assert!(lagrange_weights(&[0.5, 0.3, 0.5], 0.4).unwrap_err().to_string().contains("index 0 and 2"));
    assert!(CascadePolynomial::new(&[0.0; 35]).unwrap_err().to_string().contains("35 numbers"));
    assert!(CascadePolynomial::new(&[f64::NAN; 36]).is_err());
    let short = Setting { guidance: 1.0, ratios: Ratios::identity(2, 2).unwrap() };
    assert!(CascadePolynomial::fit(&[short]).unwrap_err().to_string().contains("NFE of at least 3"));
    let bad = Setting { guidance: f64::NAN, ratios: Ratios::identity(5, 2).unwrap() };
    assert!(CascadePolynomial::fit(&[bad]).is_err());
}

#[test]
fn a_corrector_without_re_evaluation_stores_what_was_seen_at_the_prediction() {
    // The reason for compensation: with re-evaluation the stored output belongs to the state, without it does not.
    let example = example();
    let model = example.guided(1.0).unwrap();
    let grid = grid(6);
    for reevaluate in [false, true] {
        let sampler = Variant::Latent.sampler();
        let sampler = Multistep { correction: Correction { reevaluate, ..sampler.correction }, ..sampler };
        let mut state = sampler.begin(&model, start(&grid, 3), &grid).unwrap();
        sampler.advance(&model, &grid, &mut state, &mut ()).unwrap();
        let stored = &state.buffer.get(0).unwrap().output;
        let at_state = model.denoise(state.y.view(), grid.nodes()[1].tau).unwrap();
        assert_eq!(mean_squared_error(stored, &at_state) < 1e-24, reevaluate);
    }
}

/// Metrics by name, and files by name.
type Results = (Vec<(String, f64)>, Vec<(String, Artifact)>);

/// Runs the paper with `parameters`: the metrics and the kept files, or the error's words.
fn run_paper(parameters: serde_json::Value) -> Result<Results, String> {
    let papers = offprint_generate::papers();
    let paper = papers.iter().find(|p| p.card().slug == "dc-solver").unwrap();
    let mut run = Run::new(paper.card());
    let prepared = paper.prepare_json(parameters).map_err(|e| e.to_string())?;
    prepared.run(&mut run).map_err(|e| e.to_string())?;
    let (report, files) = run.finish(true).unwrap();
    Ok((report.metrics.into_iter().map(|m| (m.name, m.value)).collect(), files))
}

/// A mixture in two dimensions, as a file.
const MIXTURE: &str =
    r#"{"weights": [0.5, 0.5], "means": [[-1, 0], [1, 0.5]], "covs": [0.1, [[0.2, 0.05], [0.05, 0.1]]]}"#;

#[test]
fn the_users_model_noises_references_and_ratios_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("m.json"), MIXTURE).unwrap();
    let noises = normals(6, 2, streams().stream("noises"), 0);
    Artifact::Array(noises.clone().into()).write(path("start.npy").as_ref()).unwrap();
    let base = json!({"model": path("m.json"), "condition": [1], "guidance": 1.5, "nfe": [6], "substeps": 20, "start": path("start.npy")});
    let with = |more: serde_json::Value| {
        let mut all = base.clone();
        more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        run_paper(all)
    };
    let (metrics, files) = with(json!({})).unwrap();
    let value = |name: &str| metrics.iter().find(|m| m.0 == name).unwrap().1;
    assert!(value("error, compensated, NFE 6") < value("error, NFE 6"));
    let file = |name: &str| &files.iter().find(|f| f.0 == name).unwrap().1;
    file("dc_ratios.json").write(path("dc_ratios.json").as_ref()).unwrap();
    file("samples.npy").write(path("samples.npy").as_ref()).unwrap();
    let samples: offprint_core::Source = path("samples.npy").parse().unwrap();
    assert_eq!(samples.matrix().unwrap().dim(), (6, 2));
    // The ratios that were found give the same samples again.
    let (_, again) = with(json!({"ratios": path("dc_ratios.json")})).unwrap();
    let again = &again.iter().find(|f| f.0 == "samples.npy").unwrap().1;
    again.write(path("again.npy").as_ref()).unwrap();
    let again: offprint_core::Source = path("again.npy").parse().unwrap();
    assert_eq!(again.matrix().unwrap(), samples.matrix().unwrap());
    // A fit, and ratios predicted by it.
    let (metrics, files) = run_paper(json!({
        "task": "fit", "model": path("m.json"), "condition": [1], "nfe": [5, 6, 8], "guidances": [1, 2, 3], "substeps": 5
    }))
    .unwrap();
    assert_eq!(metrics[0], ("settings searched".into(), 9.0));
    files[0].1.write(path("c.npy").as_ref()).unwrap();
    with(json!({"coefficients": path("c.npy"), "nfe": [7]})).unwrap();
    // References from elsewhere: any trajectories of the right shape.
    let states = Array3::from_shape_fn((7, 4, 2), |(k, i, j)| (7 - k) as f64 * 0.1 + i as f64 - j as f64);
    Artifact::Array(states.into()).write(path("reference.npy").as_ref()).unwrap();
    with(json!({"reference": path("reference.npy")})).unwrap();
    for sampler in ["pipeline", "ddim", "dpm++2m", "deis-tab2", "unipc-1-bh2"] {
        with(json!({"sampler": sampler, "spacing": "lambda", "schedule": "vp-linear"})).unwrap();
    }
    let alphas: Vec<f64> = (1..=50).map(|i| (1.0 - 0.002 * f64::from(i)).powi(i)).collect();
    Artifact::Array(alphas.into()).write(path("alphas.npy").as_ref()).unwrap();
    with(json!({"alphas_cumprod": path("alphas.npy"), "limit": 2.0})).unwrap();
}

#[test]
fn a_run_refuses_what_it_cannot_use_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("m.json"), MIXTURE).unwrap();
    std::fs::write(path("short.json"), "[1, 1, 0.9]").unwrap();
    std::fs::write(path("words.json"), "[1, \"one\"]").unwrap();
    std::fs::write(path("model.bin"), "x").unwrap();
    let write = |name: &str, array: offprint_core::Array| Artifact::Array(array).write(path(name).as_ref()).unwrap();
    write("wide.npy", Array2::<f64>::zeros((4, 3)).into());
    write("nan.npy", array![[0.0, f64::NAN]].into());
    write("states.npy", Array3::<f64>::zeros((5, 4, 2)).into());
    write("c35.npy", vec![0.0f64; 35].into());
    write("betas.npy", vec![0.1f64, 1.5].into());
    write("zero.npy", vec![0.9f64, 0.5, 0.0].into());
    let base = json!({"model": path("m.json"), "condition": [0], "nfe": [6], "substeps": 5, "samples": 4});
    let message = |more: serde_json::Value| {
        let mut all = base.clone();
        more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        run_paper(all).unwrap_err()
    };
    for (given, words) in [
        (json!({"nfe": []}), "nfe: got none"),
        (json!({"nfe": [0]}), "nfe"),
        (json!({"nfe": [2]}), "at least the order 3"),
        (json!({"condition": [7]}), "component: got 7"),
        (json!({"condition": [], "guidance": 2.0}), "--condition"),
        (json!({"model": "digits", "condition": [10]}), "class: got 10"),
        (json!({"model": path("model.bin")}), "mixture .json"),
        (json!({"model": path("none.json")}), "cannot read"),
        (json!({"sampler": "heun"}), "sampler: got heun"),
        (json!({"sampler": "unipc-9-bh1"}), "order: got 9"),
        (json!({"start": path("wide.npy")}), "dimension 2"),
        (json!({"start": path("nan.npy")}), "NaN"),
        (json!({"reference": path("states.npy")}), "(7, n, d)"),
        (json!({"reference": path("wide.npy")}), "(NFE + 1, n, d)"),
        (json!({"ratios": path("short.json")}), "dc_ratios: has 3 entries, but NFE is 6"),
        (json!({"ratios": path("words.json")}), "list of numbers"),
        (json!({"ratios": path("short.json"), "nfe": [5, 6]}), "one number"),
        (json!({"ratios": path("short.json"), "coefficients": path("c35.npy")}), "one of"),
        (json!({"coefficients": path("c35.npy")}), "35 numbers"),
        (json!({"coefficients": path("c35.npy"), "degree": 3}), "degree: got 3"),
        (json!({"betas": path("betas.npy")}), "betas: got 1.5 at index 1"),
        (json!({"alphas_cumprod": path("zero.npy")}), "zero signal"),
        (json!({"limit": -1.0}), "limit"),
        (json!({"degree": 0}), "degree: got 0"),
        (json!({"guidance": 1000.0}), "guidance: got 1000"),
    ] {
        let error = message(given.clone());
        assert!(error.contains(words), "{given}: {error}");
    }
}
