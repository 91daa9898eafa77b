//! Spectra beside PyHessian and SciPy.

use super::problem::Problem;
use super::{BatchHessian, ends_within};
use crate::network::{LossOperator, Matrix};
use crate::{Explicit, Lanczos, LinearOperator, lanczos_until, spectrum, trace, vector};
use candle_core::DType;
use ndarray::{Array2, arr1};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Progress, Result};
use offprint_nn::computation;
use serde_json::{Value, json};

/// Relative accuracy of the largest eigenvalue.
const TOLERANCE: f64 = 1e-3;
/// Lanczos steps of the density.
const STEPS: usize = 40;

/// The problem's data and its weights, flattened, as the peer reads them.
fn inputs(problem: &Problem) -> Result<Vec<(&'static str, Array)>> {
    let matrix = |tensor: &candle_core::Tensor| -> candle_core::Result<Array> {
        Ok(Array2::from_shape_vec(tensor.dims2()?, tensor.flatten_all()?.to_vec1::<f32>()?)
            .expect("as many as the shape says")
            .into())
    };
    let labels: Vec<u32> = problem.data.targets.to_vec1().map_err(computation)?;
    let weights: Vec<f32> = problem.network.params().flat()?;
    Ok(vec![
        ("x", matrix(&problem.data.inputs).map_err(computation)?),
        ("y", labels.into_iter().map(i64::from).collect::<Vec<_>>().into()),
        ("weights", weights.into()),
    ])
}

fn case(
    name: &'static str,
    says: &str,
    settings: Value,
    agreement: Agreement,
    seed: u64,
    mut work: impl FnMut(&LossOperator<'_>) -> Result<Vec<f64>> + 'static,
) -> Result<Case> {
    let problem = Problem::digits(Streams::new(seed), DType::F32)?;
    problem.train(3, &Progress::silent())?;
    Ok(Case {
        name,
        says: format!("{says}; digits, 1280 images, perceptron 64-64-32-10, P = 6570"),
        inputs: inputs(&problem)?,
        settings,
        work: Box::new(move || {
            let function = problem.function();
            let operator = LossOperator::new(&function, Matrix::Hessian, &problem.data, problem.data.len())?;
            work(&operator)
        }),
        agreement,
        goal: None,
    })
}

impl Bench for BatchHessian {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let stream = Streams::new(seed).stream("bench");
        let quiet = Progress::silent();
        let top = {
            let quiet = quiet.clone();
            case(
                "top-eigenvalue",
                "the largest eigenvalue of the Hessian: Lanczos until an eigenvalue is known to lie within 1 ‰, the peer's power iteration until it moves by less",
                json!({ "tolerance": TOLERANCE }),
                Agreement::Within(0.01),
                seed,
                move |operator| {
                    let start: Vec<f32> = vector::gaussian(stream, 0, LinearOperator::<f32>::dim(operator));
                    let settled = |found: &Lanczos<f32>| {
                        let (top, residual) = found.ritz()?.top();
                        Ok(residual <= TOLERANCE * top)
                    };
                    Ok(vec![lanczos_until(operator, &start, 100, &quiet, settled)?.ritz()?.top().0])
                },
            )?
        };
        let density = {
            let quiet = quiet.clone();
            case(
                "density",
                "one probe of the density of eigenvalues, 40 Lanczos steps; compared by the largest node",
                json!({ "steps": STEPS }),
                Agreement::Within(0.02),
                seed,
                move |operator| Ok(vec![spectrum::<f32>(operator, 1, STEPS, stream, &quiet)?.range().1]),
            )?
        };
        let probes = 20;
        let traced = {
            let quiet = quiet.clone();
            case(
                "trace",
                "the trace from 20 sign vectors",
                json!({ "probes": probes }),
                // Other vectors: the estimates differ by their standard errors.
                Agreement::Within(0.25),
                seed,
                move |operator| Ok(vec![trace::<f32>(operator, probes, stream, &quiet)?.value]),
            )?
        };
        let p = 2000;
        let a = Array2::from_shape_vec((p, p), vector::gaussian::<f64>(stream, 1, p * p)).expect("as many as asked");
        let mut matrix = (&a + &a.t()) / (2.0 * p as f64).sqrt();
        [6.0, 4.0, -5.0].iter().enumerate().for_each(|(i, spike)| matrix[[i, i]] += spike);
        let start: Vec<f64> = vector::gaussian(stream, 2, p);
        let explicit = Case {
            name: "explicit",
            says: format!("both ends of an explicit matrix to 10⁻⁵, P = {p}; SciPy's eigsh is the peer"),
            inputs: vec![("matrix", matrix.clone().into()), ("start", arr1(&start).into())],
            settings: json!({}),
            work: Box::new(move || {
                let operator = Explicit::new(matrix.view(), "matrix")?;
                let found = ends_within(&operator, 1e-5, 200, stream, &quiet)?;
                Ok(vec![found.bottom, found.top])
            }),
            agreement: Agreement::Within(1e-4),
            goal: None,
        };
        Ok(vec![top, density, traced, explicit])
    }
}
