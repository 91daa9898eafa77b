//! The published algorithms beside their published form in PyTorch.

use super::{Mfac, MfacDynamic, MfacStatic};
use crate::{Inverse, vector};
use ndarray::Array2;
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Array, Result};
use serde_json::json;

/// Damping of the static cases, whose vector has hardly a part along the gradients.
const DAMP: f64 = 1e-3;
/// Damping of the window, which is asked for the direction of a gradient in it: with less, nearly all of g/λ cancels
/// and the peer's single precision has no digit left to compare.
const DAMP_OF_WINDOW: f64 = 1.0;

/// The numbers by which two long vectors are compared: both ends and the sum in units of the mean size, and that size in
/// thousandths, so that all are of order 1 or more and compared by their ratio.
fn fingerprint(y: &[f64]) -> Vec<f64> {
    let root = (y.len() as f64).sqrt();
    let size = vector::norm(y) / root;
    vec![y[0] / size, y[y.len() - 1] / size, y.iter().sum::<f64>() / (root * size), 1e3 * size]
}

impl Bench for Mfac {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let stream = Streams::new(seed).stream("bench");
        let as_wide = |x: &Array2<f32>| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();

        let (m, d) = (128, 1 << 18);
        let gradients = normal(stream, 0, m, d);
        let x = normal(stream, 1, 1, d);
        let wide_x = as_wide(&x);
        let inputs = |gradients: &Array2<f32>, x: &Array2<f32>| -> Vec<(&'static str, Array)> {
            vec![("grads", gradients.clone().into()), ("x", x.row(0).to_owned().into())]
        };
        let setup = Case {
            name: "static-setup",
            says: format!("directions and denominators of m = {m} gradients in d = {d}, then one product"),
            inputs: inputs(&gradients, &x),
            settings: json!({ "damp": DAMP }),
            work: {
                let (gradients, x) = (gradients.clone(), wide_x.clone());
                Box::new(move || Ok(fingerprint(&MfacStatic::new(gradients.clone(), DAMP)?.apply_inverse(&x)?)))
            },
            agreement: Agreement::Within(1e-2),
            goal: Some(1.0 / 3.0),
        };
        let inverse = MfacStatic::new(gradients.clone(), DAMP)?;
        let product = Case {
            name: "static-product",
            says: format!("one product with the inverse of m = {m} gradients in d = {d}, set up before"),
            inputs: inputs(&gradients, &x),
            settings: json!({ "damp": DAMP }),
            work: Box::new(move || Ok(fingerprint(&inverse.apply_inverse(&wide_x)?))),
            agreement: Agreement::Within(1e-2),
            goal: None,
        };

        Ok(vec![
            setup,
            product,
            update("dynamic-update", 256, 1 << 17, stream)?,
            update("dynamic-update-1024", 1024, 1 << 16, stream)?,
        ])
    }
}

/// A normal matrix in single precision.
fn normal(stream: Stream, index: u64, m: usize, d: usize) -> Array2<f32> {
    Array2::from_shape_vec((m, d), vector::gaussian(stream, index, m * d)).expect("as many as the shape says")
}

/// Optimiser updates of a full window. With few gradients of many elements both sides wait for the memory; with the
/// authors' window of 1024 their factorisation, anew for each gradient, outweighs it.
fn update(name: &'static str, m: usize, d: usize, stream: Stream) -> Result<Case> {
    let (start, next) = (normal(stream, 2, m, d), normal(stream, 3, 4, d));
    let mut window = MfacDynamic::<f32>::new(d, m, DAMP_OF_WINDOW)?;
    start.rows().into_iter().try_for_each(|row| window.push(&row.mapv(f64::from).to_vec()))?;
    let pushed: Vec<Vec<f64>> = next.rows().into_iter().map(|row| row.mapv(f64::from).to_vec()).collect();
    Ok(Case {
        name,
        says: format!("four optimiser updates (gradient in, direction out) of a window m = {m} in d = {d}"),
        inputs: vec![("start", start.into()), ("next", next.into())],
        settings: json!({ "damp": DAMP_OF_WINDOW }),
        work: Box::new(move || {
            let mut direction = Vec::new();
            for gradient in &pushed {
                direction = window.push_solve(gradient)?;
            }
            Ok(fingerprint(&direction))
        }),
        agreement: Agreement::Within(1e-2),
        goal: Some(1.0 / 3.0),
    })
}
