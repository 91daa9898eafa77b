//! The door: what a user may set, and what one run reports.

use super::colour::{Palette, palette, palette_problem, recolour, squared_distances};
use super::routing::{
    Routing, expert_choice, fractions, linear_router, router_problem, sinkhorn_top_choice, top_choices,
};
use super::{
    Bundle, Formulation, Problem, Proximal, Regulariser, Rounded, Settings, Solution, Solver, path, round, solve,
};
use crate::exact::exact;
use crate::plan::Plan;
use clap::ValueEnum;
use ndarray::{Array1, Array2, Array3, ArrayView2, s};
use offprint_core::artifact::{Arrays, Metadata};
use offprint_core::figure::{Axis, HeatMap, ImageGrid, Layer, Palette as Colours, Plot};
use offprint_core::{Array, Error, Figure, Method, Params, Progress, Result, Run, Source, Table};
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sparsity-constrained optimal transport.
pub struct SparseOt;

/// Parameters of sparsity-constrained optimal transport.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SparseOtParams {
    /// What to do: a plan between two sets, tokens to experts, or colours from a reference to an image
    #[arg(long, value_enum, default_value_t = Task::Plan)]
    pub task: Task,
    /// Cost matrix (m, n); by default made from --x and --y
    #[arg(long, default_value = "builtin")]
    pub cost: Source,
    /// Points (m, d) that mass comes from
    #[arg(long, default_value = "builtin")]
    pub x: Source,
    /// Points (n, d) that mass goes to
    #[arg(long, default_value = "builtin")]
    pub y: Source,
    /// Cost between points
    #[arg(long, value_enum, default_value_t = Metric::Sqeuclidean)]
    pub metric: Metric,
    /// Masses of the rows (m); by default 1/m each
    #[arg(long, default_value = "builtin")]
    pub a: Source,
    /// Masses of the columns (n); by default 1/n each
    #[arg(long, default_value = "builtin")]
    pub b: Source,
    /// Affinities (tokens, experts) to route by: router logits
    #[arg(long, default_value = "builtin")]
    pub logits: Source,
    /// Image that gets new colours: .png, or an array (height, width, 3) of bytes or of reals in 0..=1
    #[arg(long, default_value = "builtin")]
    pub image: Source,
    /// Image whose colours it gets, in the same formats
    #[arg(long, default_value = "builtin")]
    pub reference: Source,
    /// Colours that each image is reduced to
    #[arg(long, default_value_t = 128)]
    #[schemars(range(min = 1, max = 4096))]
    pub colours: usize,
    /// Regulariser of the plan's columns
    #[arg(long, value_enum, default_value_t = Kind::Sparse)]
    pub regulariser: Kind,
    /// Most non-zeros of a column, in 1..m; when routing, the capacity of an expert (by default 1.25 times its fair share)
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub k: Option<usize>,
    /// Strength γ of the regulariser, as part of the largest cost if costs are scaled
    #[arg(long, default_value_t = 0.1)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gamma: f64,
    /// Side whose vectors have at most k non-zeros
    #[arg(long, value_enum, default_value_t = Side::Cols)]
    pub sparse_side: Side,
    /// Let the marginal of the sparse side miss its masses, at ρ times the Kullback–Leibler divergence
    #[arg(long, value_name = "RHO")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub unbalanced: Option<f64>,
    /// Whether costs are divided by the largest before γ is applied
    #[arg(long, value_enum, default_value_t = CostScale::Max)]
    pub scale: CostScale,
    /// How the dual is maximised
    #[arg(long, value_enum, default_value_t = Solver::Auto)]
    pub solver: Solver,
    /// Problem that L-BFGS and Adam work on
    #[arg(long, value_enum, default_value_t = Formulation::SemiDual)]
    pub formulation: Formulation,
    /// Most iterations of L-BFGS or Adam
    #[arg(long, default_value_t = 500)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub iterations: usize,
    /// Certificate at which to stop: (primal − dual)/primal
    #[arg(long, default_value_t = 1e-6)]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub tolerance: f64,
    /// Values of k that the figures compare, with commas; those above m are left out
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    pub compare: Vec<usize>,
}
offprint_core::defaults_from_flags!(SparseOtParams);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A plan from a cost, or between two sets of points.
    Plan,
    /// Tokens to the experts of a mixture-of-experts layer.
    Routing,
    /// Colours from a reference image to an image.
    Colours,
}

/// The cost between two points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// |x − y|².
    Sqeuclidean,
    /// |x − y|.
    Euclidean,
    /// 1 − ⟨x, y⟩/(|x||y|).
    Cosine,
}

/// The regulariser's family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// (γ/2)|t|² with at most k non-zeros.
    Sparse,
    /// (γ/2)|t|².
    Quadratic,
    /// γ Σ t ln t.
    Entropic,
    /// None: optimal transport itself.
    None,
}

/// A side of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// At most k non-zeros in a row.
    Rows,
    /// At most k non-zeros in a column.
    Cols,
}

/// What costs are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CostScale {
    /// The largest cost.
    Max,
    /// One.
    None,
}

impl Params for SparseOtParams {
    fn check(&self) -> Result<()> {
        if self.compare.contains(&0) {
            return Err(Error::parameter("compare", "0", "values of k of at least 1"));
        }
        let has_points = !(self.x.is_builtin() && self.y.is_builtin());
        if !self.cost.is_builtin() && has_points {
            return Err(Error::parameter("cost", &self.cost, "left out if --x and --y are given"));
        }
        if self.x.is_builtin() != self.y.is_builtin() {
            return Err(Error::parameter("x", &self.x, "given together with --y"));
        }
        Ok(())
    }
}

impl SparseOtParams {
    fn settings(&self) -> Settings {
        Settings {
            formulation: self.formulation,
            solver: self.solver,
            iterations: self.iterations,
            proximal: Proximal { tolerance: self.tolerance, ..Proximal::default() },
            bundle: Bundle { tolerance: self.tolerance, ..Bundle::default() },
            ..Settings::default()
        }
    }

    fn regulariser(&self, k: usize) -> Regulariser {
        let gamma = self.gamma;
        match self.regulariser {
            Kind::Sparse => Regulariser::Sparse { gamma, k },
            Kind::Quadratic => Regulariser::Quadratic { gamma },
            Kind::Entropic => Regulariser::Entropic { gamma },
            Kind::None => Regulariser::Unregularised,
        }
    }
}

impl Method for SparseOt {
    type Params = SparseOtParams;

    fn run(params: &SparseOtParams, run: &mut Run) -> Result<()> {
        match params.task {
            Task::Plan => transport(params, run),
            Task::Routing => routing(params, run),
            Task::Colours => colours(params, run),
        }
    }
}

/// The input of the plan task as the user sees it.
struct Input {
    /// (m, n), in the user's unit.
    cost: Array2<f64>,
    a: Array1<f64>,
    b: Array1<f64>,
    /// The points, if they are in the plane.
    points: Option<(Array2<f64>, Array2<f64>)>,
}

fn read_input(params: &SparseOtParams, run: &Run) -> Result<Input> {
    let mut points = None;
    let cost = if !params.cost.is_builtin() {
        params.cost.matrix()?
    } else {
        let (x, y) = if params.x.is_builtin() { example(run) } else { (params.x.matrix()?, params.y.matrix()?) };
        if x.ncols() != y.ncols() {
            return Err(Error::input(
                params.y.to_string(),
                format!("has points of {} coordinates, but those of {} have {}", y.ncols(), params.x, x.ncols()),
            ));
        }
        let cost = distances(params.metric, x.view(), y.view())?;
        if x.ncols() == 2 {
            points = Some((x, y));
        }
        cost
    };
    let share = |source: &Source, count: usize| {
        if source.is_builtin() { Ok(Array1::from_elem(count, 1.0 / count as f64)) } else { source.vector() }
    };
    let (a, b) = (share(&params.a, cost.nrows())?, share(&params.b, cost.ncols())?);
    Ok(Input { cost, a, b, points })
}

/// A ring of 48 points around a cross of 32, ordered by angle.
fn example(run: &Run) -> (Array2<f64>, Array2<f64>) {
    let mut rng = run.stream("example").rng(0);
    let mut noise = |scale: f64| -> f64 {
        let z: f64 = StandardNormal.sample(&mut rng);
        scale * z
    };
    let mut x: Vec<[f64; 2]> = (0..48)
        .map(|i| {
            let angle = std::f64::consts::TAU * f64::from(i) / 48.0;
            let radius = 2.0 + noise(0.12);
            [radius * angle.cos(), radius * angle.sin()]
        })
        .collect();
    let mut y: Vec<[f64; 2]> = (0..32)
        .map(|i| {
            let along = 0.15 + 0.15 * f64::from(i / 4);
            let (sin, cos) = (std::f64::consts::FRAC_PI_2 * (f64::from(i % 4) + 0.5)).sin_cos();
            [along * cos + noise(0.07), along * sin + noise(0.07)]
        })
        .collect();
    let angle = |p: &[f64; 2]| p[1].atan2(p[0]);
    x.sort_by(|p, q| angle(p).total_cmp(&angle(q)));
    y.sort_by(|p, q| angle(p).total_cmp(&angle(q)));
    let matrix = |points: Vec<[f64; 2]>| Array2::from_shape_fn((points.len(), 2), |(i, c)| points[i][c]);
    (matrix(x), matrix(y))
}

fn distances(metric: Metric, x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    if metric != Metric::Cosine {
        let squares = squared_distances(x, y);
        return Ok(if metric == Metric::Euclidean { squares.mapv(f64::sqrt) } else { squares });
    }
    let lengths = |points: ArrayView2<'_, f64>, name: &str| -> Result<Array1<f64>> {
        let lengths: Array1<f64> = points.rows().into_iter().map(|p| p.dot(&p).sqrt()).collect();
        match lengths.iter().position(|&l| l == 0.0) {
            Some(i) => Err(Error::input(name, format!("point {i} (counted from 0) is zero and has no direction"))),
            None => Ok(lengths),
        }
    };
    let (p, q) = (lengths(x, "x")?, lengths(y, "y")?);
    Ok(Array2::from_shape_fn((x.nrows(), y.nrows()), |(i, j)| (1.0 - x.row(i).dot(&y.row(j)) / (p[i] * q[j])).max(0.0)))
}

fn transport(params: &SparseOtParams, run: &mut Run) -> Result<()> {
    let input = read_input(params, run)?;
    let largest = input.cost.iter().fold(0.0f64, |l, &c| l.max(c));
    let unit = if params.scale == CostScale::Max && largest > 0.0 { largest } else { 1.0 };
    // Inside, columns are the sparse side.
    let turned = params.sparse_side == Side::Rows;
    let scaled = &input.cost / unit;
    let (cost, a, b) = if turned {
        (scaled.t(), input.b.view(), input.a.view())
    } else {
        (scaled.view(), input.a.view(), input.b.view())
    };
    let problem = match params.unbalanced {
        Some(rho) => Problem::unbalanced(cost, a, b, rho)?,
        None => Problem::new(cost, a, b)?,
    };
    let m = problem.rows();
    let k = params.k.unwrap_or(2.min(m));
    let regulariser = params.regulariser(k);
    let progress = run.progress();
    let solution = solve(&problem, regulariser, &params.settings(), &progress)?;
    report(run, &problem, regulariser, &solution, unit);

    let outward = |plan: &Plan| if turned { plan.transposed() } else { plan.clone() };
    let mut best = solution.plan.clone();
    if let Regulariser::Sparse { gamma, k } = regulariser
        && params.unbalanced.is_none()
    {
        match round(&problem, gamma, k, &solution.relaxed, &progress) {
            Ok(rounded) => {
                report_rounded(run, &problem, &solution, &rounded, k, unit);
                save_plan(run, "strict", &outward(&rounded.plan))?;
                best = rounded.plan;
            }
            Err(Error::Input { problem, .. }) => {
                run.warn(format!("{problem}; the dual and the relaxed plan are computed all the same"));
            }
            Err(other) => return Err(other),
        }
    }
    save_plan(run, "plan", &outward(&solution.plan))?;
    save_plan(run, "relaxed", &outward(&solution.relaxed))?;
    let (alpha, beta) = (solution.alpha.mapv(|x| x * unit), solution.beta.mapv(|x| x * unit));
    let (alpha, beta) = if turned { (beta, alpha) } else { (alpha, beta) };
    let potentials: Arrays = [("alpha".to_owned(), alpha.into()), ("beta".to_owned(), beta.into())].into();
    run.save_arrays("potentials.npz", potentials, Metadata::new())?;
    let columns = Table::new("columns", "Non-zeros and mass of each vector of the sparse side, in the k-sparse plan.")
        .integers("index", "", 0..problem.columns() as i64)
        .integers("nonzeros", "", best.column_nnz().iter().map(|&c| c as i64))
        .numbers("mass", "", best.column_sums())
        .numbers("wanted", "", problem.b().to_vec());
    run.save_table("columns.csv", &columns)?;

    compare(params, run, &problem, &input, unit, turned)
}

/// Numbers of a solution, in the user's unit of cost.
fn report(run: &mut Run, problem: &Problem, regulariser: Regulariser, solution: &Solution, unit: f64) {
    let (rows, columns) = solution.plan.marginal_errors(problem.a(), problem.b());
    run.metric("dual value", solution.dual * unit, "cost");
    run.metric("relaxed primal value", solution.primal * unit, "cost");
    run.metric("certificate", solution.certificate(), "");
    run.metric("transport cost", solution.relaxed.cost(problem.cost()) * unit, "cost");
    run.metric("non-zeros of the plan", solution.plan.nnz() as f64, "");
    run.metric("most non-zeros in a column", solution.plan.max_column_nnz() as f64, "");
    run.metric("row error of the plan", rows / problem.a().sum(), "of all mass");
    if problem.relaxation().is_none() {
        run.metric("column error of the plan", columns / problem.a().sum(), "of all mass");
    } else {
        run.metric("mass moved", solution.plan.column_sums().sum(), "");
    }
    run.metric("iterations", solution.iterations as f64, "");
    run.metric("evaluations", solution.evaluations as f64, "");
    let mean = problem.a().sum() / problem.rows() as f64;
    if matches!(regulariser, Regulariser::Sparse { .. }) && rows > 1e-6 * mean {
        run.warn(format!(
            "scores tie in {} columns: the k-sparse plan in plan.csv is one of several that the dual allows and misses row masses by up to {:.2} % of a row's mean; relaxed.csv has exact masses, strict.csv both where it exists",
            solution.tied.max(1),
            100.0 * rows / mean
        ));
    }
    if solution.certificate() > 1e-3 {
        run.warn(format!(
            "the certificate is only {:.1e}: more iterations or --solver auto get closer",
            solution.certificate()
        ));
    }
}

fn report_rounded(run: &mut Run, problem: &Problem, solution: &Solution, rounded: &Rounded, k: usize, unit: f64) {
    run.metric("strict k-sparse value", rounded.value * unit, "cost");
    run.metric("strict gap", (rounded.value - solution.dual) / rounded.value.abs().max(f64::MIN_POSITIVE), "");
    run.metric("strict transport cost", rounded.plan.cost(problem.cost()) * unit, "cost");
    run.metric("entries beyond k", rounded.excess as f64, "");
    if rounded.excess > 0 {
        run.warn(format!(
            "no plan with exact masses and at most {k} non-zeros per column was found: strict.csv has {} entries more",
            rounded.excess
        ));
    }
}

/// A plan as CSV (i, j, mass) and as coordinates in `.npz`.
fn save_plan(run: &mut Run, name: &str, plan: &Plan) -> Result<()> {
    let (mut rows, mut columns, mut masses) = (Vec::new(), Vec::new(), Vec::new());
    for (i, j, mass) in plan.entries() {
        rows.push(i as i64);
        columns.push(j as i64);
        masses.push(mass);
    }
    let table = Table::new(name, "Non-zeros of the plan.")
        .integers("i", "", rows.iter().copied())
        .integers("j", "", columns.iter().copied())
        .numbers("mass", "", masses.iter().copied());
    run.save_table(&format!("{name}.csv"), &table)?;
    let shape = vec![plan.rows() as i64, plan.columns() as i64];
    let arrays: Arrays = [
        ("row".to_owned(), Array::from(rows)),
        ("col".to_owned(), columns.into()),
        ("data".to_owned(), masses.into()),
        ("shape".to_owned(), shape.into()),
    ]
    .into();
    run.save_arrays(&format!("{name}.npz"), arrays, Metadata::new())
}

/// Entries up to which the figures solve the problem again for other k.
const WORTH_COMPARING: usize = 250_000;
/// The largest plan shown entry by entry.
const WORTH_SHOWING: usize = 40_000;

/// Figures: plans, matchings and values for several k beside the quadratic plan.
fn compare(
    params: &SparseOtParams,
    run: &mut Run,
    problem: &Problem,
    input: &Input,
    unit: f64,
    turned: bool,
) -> Result<()> {
    let (m, n) = (problem.rows(), problem.columns());
    let progress = run.progress();
    let mut ks: Vec<usize> = params.compare.iter().copied().filter(|&k| k <= m).collect();
    ks.sort_unstable();
    ks.dedup();
    if m * n > WORTH_COMPARING || ks.is_empty() {
        ks = vec![params.k.unwrap_or(2.min(m))];
    }
    let settings = Settings { solver: Solver::Auto, ..params.settings() };
    let gamma = params.gamma;
    let balanced = problem.relaxation().is_none();
    let smooth = solve(problem, Regulariser::Quadratic { gamma }, &settings, &progress)?;
    let solutions = path(problem, gamma, &ks, &settings, &progress)?;

    let mut values = Table::new("values", "One row per k: the dual value and what the plans cost.")
        .integers("k", "", ks.iter().map(|&k| k as i64))
        .numbers("dual value", "cost", solutions.iter().map(|s| s.dual * unit))
        .numbers("certificate", "", solutions.iter().map(Solution::certificate))
        .numbers("transport cost", "cost", solutions.iter().map(|s| s.relaxed.cost(problem.cost()) * unit))
        .integers("most nonzeros in a column", "", solutions.iter().map(|s| s.plan.max_column_nnz() as i64));
    let mut shown: Vec<(String, Plan)> = Vec::new();
    let mut strict = Vec::new();
    for (&k, solution) in ks.iter().zip(&solutions) {
        let rounded = if balanced { round(problem, gamma, k, &solution.relaxed, &progress).ok() } else { None };
        strict.push(rounded.as_ref().filter(|r| r.excess == 0).map_or(f64::NAN, |r| r.value * unit));
        let plan = rounded.filter(|r| r.excess == 0).map_or_else(|| solution.plan.clone(), |r| r.plan);
        shown.push((format!("k = {k}"), plan));
    }
    if balanced {
        values = values.numbers("strict value", "cost", strict.iter().copied());
    }
    run.table(values)?;
    shown.push((format!("no bound (at most {})", smooth.plan.max_column_nnz()), smooth.plan.clone()));
    for (_, plan) in &mut shown {
        if turned {
            *plan = plan.transposed();
        }
    }

    if m * n <= WORTH_SHOWING {
        let mut figure = Figure::new(
            "Plans",
            "Mass sent from each row to each column. A bound on the number of non-zeros per column interpolates between an unregularised plan (k = 1) and the quadratically regularised one.",
        )
        .columns(2);
        for (title, plan) in &shown {
            let values = plan.to_dense().iter().map(|&t| if t > 0.0 { t } else { f64::NAN }).collect();
            figure = figure.panel(HeatMap {
                title: title.clone(),
                values,
                rows: plan.rows(),
                columns: plan.columns(),
                x: Axis::new("column j"),
                y: Axis::new("row i"),
                colour: Axis::new("mass"),
                palette: Colours::Sequential,
            });
        }
        run.figure("plans", figure);
    }
    if let Some((x, y)) = &input.points
        && x.nrows() + y.nrows() <= 2000
    {
        run.figure("matching", matching(x.view(), y.view(), &shown));
    }
    let levels = balanced.then(|| exact(problem.cost(), problem.a(), problem.b())).transpose()?;
    let at: Vec<f64> = ks.iter().map(|&k| k as f64).collect();
    let mut plot = Plot::new(Axis::new("k, non-zeros per column"), Axis::new("value").unit("cost"))
        .line("dual = relaxed primal", at.clone(), solutions.iter().map(|s| s.dual * unit).collect())
        .horizontal("no bound (quadratic)", smooth.dual * unit);
    if let Some(ot) = levels {
        let spread = 0.5 * gamma * problem.b().iter().map(|b| b * b).sum::<f64>();
        plot = plot
            .line("strictly k-sparse plan", at, strict)
            .horizontal("k = 1: OT + (γ/2) Σ b²", (ot.value + spread) * unit);
        run.metric("unregularised transport cost", ot.value * unit, "cost");
    }
    run.figure(
        "values",
        Figure::new(
            "Value against k",
            "The value falls from that of unregularised transport at k = 1 to that of quadratic regularisation at large k. Where the strictly k-sparse plan lies on the curve it is proved optimal.",
        )
        .panel(plot),
    );
    Ok(())
}

fn matching(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>, plans: &[(String, Plan)]) -> Figure {
    let mut figure = Figure::new(
        "Who sends to whom",
        "Lines join points that exchange mass, the darker the more. The smaller k, the fewer partners a target point has.",
    )
    .columns(2);
    let column = |points: ArrayView2<'_, f64>, c: usize| points.column(c).to_vec();
    for (title, plan) in plans {
        let heaviest = plan.entries().fold(0.0f64, |h, (_, _, t)| h.max(t));
        let (mut ends, mut opacity) = (Vec::new(), Vec::new());
        for (i, j, mass) in plan.entries() {
            ends.push([x[[i, 0]], x[[i, 1]], y[[j, 0]], y[[j, 1]]]);
            opacity.push((mass / heaviest).clamp(0.05, 1.0));
        }
        let plot = Plot::new(Axis::new("first coordinate"), Axis::new("second coordinate"))
            .titled(title.clone())
            .equal_aspect()
            .layer(Layer::Segments { name: String::new(), ends, arrows: false, opacity })
            .points("from", column(x, 0), column(x, 1), 3.0)
            .points("to", column(y, 0), column(y, 1), 3.0);
        figure = figure.panel(plot);
    }
    figure
}

/// Tokens of the built-in routing example.
const TOKENS: usize = 512;
/// Experts of the built-in routing example.
const EXPERTS: usize = 16;

/// Scores of the built-in example: digits through a random linear router.
pub(super) fn digit_router(run: &Run, index: u64, tokens: usize, experts: usize) -> Array2<f64> {
    let (images, _) = offprint_data::digits();
    let mut rng = run.stream("router").rng(index);
    let d = images.ncols();
    let weights = Array2::from_shape_simple_fn((d, experts), || -> f64 {
        let z: f64 = StandardNormal.sample(&mut rng);
        z / (d as f64).sqrt()
    });
    linear_router(images.slice(s![..tokens.min(images.nrows()), ..]), weights.view())
}

/// Every router on the same affinities.
pub(super) struct Routers {
    pub(super) solution: Solution,
    /// The strictly k-sparse plan, if the experts' capacities allow one.
    pub(super) rounded: Option<Rounded>,
    /// Name and routing; the relaxed plan first, then the strict one if there is one.
    pub(super) all: Vec<(&'static str, Routing)>,
}

/// Routes by all routers.
pub(super) fn routers(
    affinity: ArrayView2<'_, f64>,
    capacity: usize,
    gamma: f64,
    settings: &Settings,
    progress: &Progress,
) -> Result<Routers> {
    let problem = router_problem(affinity)?;
    let k = capacity.min(problem.rows());
    let solution = solve(&problem, Regulariser::Sparse { gamma, k }, settings, progress)?;
    let rounded = round(&problem, gamma, k, &solution.relaxed, progress).ok();
    let mut all = vec![("sparse transport, relaxed", Routing::new(affinity, fractions(&solution.relaxed)))];
    if let Some(rounded) = &rounded {
        all.push(("sparse transport, strict", Routing::new(affinity, fractions(&rounded.plan))));
    }
    let sinkhorn = sinkhorn_top_choice(affinity, 0.01, capacity, progress)?;
    all.push(("top-1 with drops", Routing::new(affinity, top_choices(affinity, 1, capacity))));
    all.push(("top-2 with drops", Routing::new(affinity, top_choices(affinity, 2, capacity))));
    all.push(("Sinkhorn, then top-1", Routing::new(affinity, sinkhorn)));
    all.push(("expert choice", Routing::new(affinity, expert_choice(affinity, k))));
    Ok(Routers { solution, rounded, all })
}

fn routing(params: &SparseOtParams, run: &mut Run) -> Result<()> {
    let affinity =
        if params.logits.is_builtin() { digit_router(run, 0, TOKENS, EXPERTS) } else { params.logits.matrix()? };
    let (m, n) = affinity.dim();
    let capacity = params.k.unwrap_or((1.25 * m as f64 / n as f64).ceil() as usize);
    if capacity > m {
        return Err(Error::parameter("k", capacity, format!("in 1..{m} (there are {m} tokens)")));
    }
    if capacity * n < m {
        run.warn(format!("{n} experts of capacity {capacity} cannot serve {m} tokens in full"));
    }
    let Routers { solution, rounded, all } =
        routers(affinity.view(), capacity, params.gamma, &params.settings(), &run.progress())?;
    run.metric("certificate", solution.certificate(), "");
    run.metric("capacity", capacity as f64, "tokens");
    let table =
        Table::new("routers", "One row per router on the same scores; affinity sums score times fraction served.")
            .words("router", all.iter().map(|r| r.0))
            .numbers("affinity", "", all.iter().map(|r| r.1.affinity))
            .numbers("unserved", "tokens", all.iter().map(|r| r.1.unserved))
            .numbers("imbalance", "max/mean load", all.iter().map(|r| r.1.imbalance()))
            .integers("most tokens of an expert", "tokens", all.iter().map(|r| most(&r.1.tokens) as i64));
    run.table(table)?;
    let best = &all[usize::from(rounded.is_some())].1;
    run.metric("total affinity", best.affinity, "");
    run.metric("unserved tokens", best.unserved, "tokens");
    run.metric("most tokens of an expert", most(&best.tokens) as f64, "tokens");
    save_plan(run, "plan", &best.plan)?;
    save_plan(run, "relaxed", &all[0].1.plan)?;

    let mut plot = Plot::new(
        Axis::categories("expert", (0..n).map(|j| j.to_string())),
        Axis::new("different tokens").unit("tokens"),
    );
    let shown = [all[usize::from(rounded.is_some())].0, "top-1 with drops", "Sinkhorn, then top-1"];
    for (name, routing) in all.iter().filter(|r| shown.contains(&r.0)) {
        plot = plot.bars(*name, routing.tokens.iter().map(|&t| t as f64).collect());
    }
    plot = plot.horizontal("capacity", capacity as f64);
    run.figure(
        "loads",
        Figure::new(
            "Tokens per expert",
            "Sparse transport fills every expert within its capacity and drops nobody; routers that choose first and count later fill some experts and drop what comes after.",
        )
        .panel(plot),
    );
    let served =
        Plot::new(Axis::categories("", all.iter().map(|r| r.0)), Axis::new("tokens not served").unit("tokens"))
            .bars("", all.iter().map(|r| r.1.unserved).collect());
    let affinity = Plot::new(Axis::categories("", all.iter().map(|r| r.0)), Axis::new("total affinity"))
        .bars("", all.iter().map(|r| r.1.affinity).collect());
    run.figure(
        "routers",
        Figure::new("Routers compared", "Tokens that no expert serves, and the affinity of those served.")
            .columns(2)
            .panel(served)
            .panel(affinity),
    );
    Ok(())
}

pub(super) fn most(tokens: &[usize]) -> usize {
    tokens.iter().copied().max().unwrap_or(0)
}

/// Side of the built-in images.
const SIDE: usize = 64;

/// Two generated images: a landscape by day and a gradient of an evening sky.
pub(super) fn example_images() -> (Array3<f64>, Array3<f64>) {
    let at = |v: usize| v as f64 / (SIDE - 1) as f64;
    let day = Array3::from_shape_fn((SIDE, SIDE, 3), |(r, c, channel)| {
        let (y, x) = (at(r), at(c));
        let hill = 0.62 + 0.12 * (5.0 * x).sin();
        let sun = (-((x - 0.75).powi(2) + (y - 0.2).powi(2)) / 0.012).exp();
        if y > hill {
            [0.15 + 0.25 * x, 0.45 + 0.3 * (y - hill), 0.12 + 0.1 * x][channel]
        } else {
            let sky = [0.35 + 0.3 * y, 0.6 + 0.25 * y, 0.95 - 0.1 * y][channel];
            sky + (1.0 - sky) * sun
        }
    });
    let evening = Array3::from_shape_fn((SIDE, SIDE, 3), |(r, c, channel)| {
        let (y, x) = (at(r), at(c));
        let wave = 0.5 + 0.5 * (7.0 * x + 4.0 * y).sin();
        [0.25 + 0.7 * y, 0.08 + 0.35 * y * wave, 0.35 - 0.25 * y + 0.2 * x * (1.0 - y)][channel]
    });
    (day, evening)
}

fn colours(params: &SparseOtParams, run: &mut Run) -> Result<()> {
    let (day, evening) = example_images();
    let image = if params.image.is_builtin() { day } else { read_image(&params.image)? };
    let reference = if params.reference.is_builtin() { evening } else { read_image(&params.reference)? };
    let progress = run.progress();
    let stream = run.stream("palette");
    let from = palette(image.view(), params.colours, &mut stream.rng(0), &progress)?;
    let to = palette(reference.view(), params.colours, &mut stream.rng(1), &progress)?;
    let problem = palette_problem(&to, &from)?;
    let m = problem.rows();
    let k = params.k.unwrap_or(2.min(m));
    let settings = params.settings();
    let ot = exact(problem.cost(), problem.a(), problem.b())?;

    let mut images = vec![bytes(&image), bytes(&reference)];
    let mut labels = vec!["image".to_owned(), "reference".to_owned()];
    let kinds = [
        (format!("k = {k}"), params.regulariser(k)),
        ("quadratic".to_owned(), Regulariser::Quadratic { gamma: params.gamma }),
        ("entropic".to_owned(), Regulariser::Entropic { gamma: params.gamma }),
    ];
    let (mut names, mut nonzeros, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (name, regulariser)) in kinds.into_iter().enumerate() {
        let settings = if index == 0 { settings } else { Settings { solver: Solver::Auto, ..settings } };
        let solution = solve(&problem, regulariser, &settings, &progress)?;
        let moved = recolour(image.view(), &from, &to, &solution.plan);
        if index == 0 {
            report(run, &problem, regulariser, &solution, 1.0);
            save_plan(run, "plan", &solution.plan)?;
            save_plan(run, "relaxed", &solution.relaxed)?;
            let (h, w, _) = moved.dim();
            let raw = ndarray::Array::from_shape_vec((h, w, 3), bytes(&moved)).expect("as many bytes as values");
            run.save_array("recoloured.npy", raw)?;
        }
        images.push(bytes(&moved));
        labels.push(name.clone());
        names.push(name);
        nonzeros.push(solution.plan.nnz() as f64 / solution.plan.columns() as f64);
        costs.push(solution.relaxed.cost(problem.cost()) / ot.value.max(f64::MIN_POSITIVE));
    }
    let table = Table::new("plans", "One row per regulariser: how many reference colours a colour draws on.")
        .words("regulariser", names)
        .numbers("non-zeros per colour", "", nonzeros)
        .numbers("transport cost", "of the least", costs);
    run.table(table)?;
    let grid = |title: &str, images: Vec<Vec<u8>>, labels: Vec<String>, (height, width): (usize, usize)| ImageGrid {
        title: title.into(),
        height,
        width,
        channels: 3,
        per_row: images.len(),
        images,
        labels,
    };
    let (height, width, _) = image.dim();
    let reference_size = (reference.dim().0, reference.dim().1);
    let reference_image = images.remove(1);
    let reference_label = labels.remove(1);
    run.figure(
        "colours",
        Figure::new(
            "Colours transferred",
            "Each colour becomes the mean of the reference colours it is sent to. With few non-zeros colours stay pure; dense plans mix them to grey.",
        )
        .panel(grid("", images, labels, (height, width)))
        .panel(grid("", vec![reference_image], vec![reference_label], reference_size)),
    );
    run.figure("palettes", palettes(&from, &to));
    Ok(())
}

fn palettes(from: &Palette, to: &Palette) -> Figure {
    let plot = |title: &str, palette: &Palette| {
        let column = |c: usize| palette.colours.column(c).to_vec();
        Plot::new(Axis::new("red"), Axis::new("blue")).titled(title).equal_aspect().points(
            "",
            column(0),
            column(2),
            3.0,
        )
    };
    Figure::new("Palettes", "The colours of both images by their red and blue parts.")
        .columns(2)
        .panel(plot("image", from))
        .panel(plot("reference", to))
}

fn bytes(image: &Array3<f64>) -> Vec<u8> {
    image.iter().map(|&x| (x.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
}

/// Reads a `.png`, or an array (height, width, 3) of bytes or of reals in 0..=1.
fn read_image(source: &Source) -> Result<Array3<f64>> {
    let bad = |problem: String| Error::input(source.to_string(), problem);
    if let Some(path) = source.path().filter(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))) {
        let file = std::fs::File::open(path).map_err(|e| Error::file("read", path, e))?;
        let mut decoder = png::Decoder::new(std::io::BufReader::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let unreadable = |e: png::DecodingError| bad(format!("is not a readable PNG: {e}"));
        let mut reader = decoder.read_info().map_err(unreadable)?;
        let size = reader.output_buffer_size().ok_or_else(|| bad("is too large".into()))?;
        let mut pixels = vec![0; size];
        let info = reader.next_frame(&mut pixels).map_err(unreadable)?;
        let (height, width) = (info.height as usize, info.width as usize);
        let channels = info.color_type.samples();
        // Grey has one channel that serves for all three; transparency is left out.
        let colour = |c: usize| if channels < 3 { 0 } else { c };
        return Ok(Array3::from_shape_fn((height, width, 3), |(r, c, channel)| {
            f64::from(pixels[(r * width + c) * channels + colour(channel)]) / 255.0
        }));
    }
    let array = source.array()?;
    let is_bytes = matches!(array, Array::U8(_));
    let shape = array.shape().to_vec();
    let values = array.into_f64().ok_or_else(|| bad("is complex; an image is of bytes or reals".into()))?;
    let image: Array3<f64> = values
        .into_dimensionality()
        .ok()
        .filter(|i: &Array3<f64>| i.dim().2 == 3 && !i.is_empty())
        .ok_or_else(|| bad(format!("has shape {shape:?}; an image has shape (height, width, 3)")))?;
    let image = if is_bytes { image / 255.0 } else { image };
    match image.indexed_iter().find(|(_, x)| !(0.0..=1.0).contains(*x)) {
        Some((place, x)) => Err(bad(format!("pixel {place:?} is {x}; reals of an image lie in 0..=1"))),
        None => Ok(image),
    }
}
