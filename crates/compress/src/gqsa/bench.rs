//! Products with one vector beside PyTorch's.

use super::Gqsa;
use super::engine::timing::{random_vector, random_weights};
use super::engine::{Format, Input, Precision};
use ndarray::{Array1, Array2};
use offprint_core::Result;
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use serde_json::json;

/// Products of a round, so that one round takes milliseconds.
const PRODUCTS: usize = 20;

/// Rows and columns.
const SIZE: usize = 4096;

/// The largest result and the sum of all, in units of their mean size, and that size.
fn fingerprint(y: &[f32]) -> Vec<f64> {
    let size = (y.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>() / y.len() as f64).sqrt();
    vec![f64::from(y[0]) / size, f64::from(y[y.len() - 1]) / size, 1e3 * size]
}

impl Bench for Gqsa {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let streams = Streams::new(seed);
        let weights = random_weights(SIZE, SIZE, streams.stream("weights"));
        let x = random_vector(SIZE, streams.stream("x"));
        let case = |name, format: Format, peer: &str, precision, goal| -> Result<Case> {
            let matrix = format.rounded(&weights)?;
            let dense: Array2<f32> = matrix.dequant();
            let input = Input::new(&x, precision)?;
            let effective = if precision == Precision::Single { x.clone() } else { input.effective() };
            let mut y = vec![0f32; SIZE];
            Ok(Case {
                name,
                says: format!(
                    "{PRODUCTS} products of a {SIZE} × {SIZE} matrix in {} with one vector; the peer's in {peer}",
                    format.name()
                ),
                inputs: vec![("weights", dense.into()), ("x", Array1::from(effective).into())],
                settings: json!({ "products": PRODUCTS, "dtype": peer }),
                work: Box::new(move || {
                    (0..PRODUCTS).for_each(|_| matrix.multiply(&input, &mut y));
                    Ok(fingerprint(&y))
                }),
                agreement: Agreement::Within(1e-2),
                goal,
            })
        };
        Ok(vec![
            case("f32", Format::F32, "float32", Precision::Single, Some(1.0))?,
            case("f16", Format::F16, "float16", Precision::Single, Some(1.0))?,
            case("w4s50-beside-f32", Format::W4S50, "float32", Precision::Single, Some(0.25))?,
            case("w4s50-beside-f16", Format::W4S50, "float16", Precision::Int8, Some(1.0 / 3.0))?,
        ])
    }
}
