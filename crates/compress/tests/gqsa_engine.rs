//! The products with compressed matrices: every format, precision and instruction set against the matrix written out.

use ndarray::Array2;
use offprint_compress::gqsa::engine::timing::{random_vector, random_weights};
use offprint_compress::gqsa::engine::{
    Affine, Format, GROUP, Gemv, Group, Input, Instructions, Plain, Precision, Split, sparse, two_four,
};
use offprint_core::random::Streams;
use proptest::prelude::*;

/// Ŵ x in double precision, and the sum of the sizes of its terms.
fn dense_product(matrix: &dyn Gemv, x: &[f32]) -> Vec<(f64, f64)> {
    let dense = matrix.dequant();
    let terms = |row: ndarray::ArrayView1<'_, f32>| -> Vec<f64> {
        row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).collect()
    };
    dense.rows().into_iter().map(terms).map(|t| (t.iter().sum(), t.iter().map(|t| t.abs()).sum())).collect()
}

fn check_products(matrix: &dyn Gemv, x: &[f32], what: &str) {
    for precision in [Precision::Single, Precision::Int8, Precision::Int8Vector] {
        let input = Input::new(x, precision).unwrap();
        // Unpacked matrices read the vector as it is, whatever its precision.
        let plain = matrix.bytes() >= 2 * matrix.shape().0 * matrix.shape().1;
        let effective = if plain { x.to_vec() } else { input.effective() };
        let exact = dense_product(matrix, &effective);
        for with in Instructions::all() {
            for split in [Split::Tasks, Split::Rows(3), Split::Rows(1)] {
                let mut y = vec![f32::NAN; matrix.shape().0];
                matrix.multiply_by(&input, &mut y, split, with);
                for (row, (y, (exact, size))) in y.iter().zip(&exact).enumerate() {
                    // Sums of codes are larger than of weights by the zero's share, at most 15 to 1.
                    assert!(
                        (f64::from(*y) - exact).abs() <= 1e-5 * size + 1e-12,
                        "{what}, {precision:?}, {}, {split:?}: row {row} is {y}, not {exact}",
                        with.name()
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_kernel_gives_the_product_of_the_dequantised_matrix(
        rows in 1usize..40, spans in 1usize..12, seed in 0u64..1000,
    ) {
        let columns = 32 * spans;
        let weights = random_weights(rows, columns, Streams::new(seed).stream("weights"));
        let x = random_vector(columns, Streams::new(seed).stream("x"));
        for format in Format::ALL {
            let matrix = format.rounded(&weights).unwrap();
            prop_assert_eq!(matrix.shape(), (rows, columns));
            check_products(&*matrix, &x, format.name());
        }
    }

    #[test]
    fn masks_of_any_shape_are_multiplied(
        kept in prop::collection::vec(prop::collection::vec(any::<bool>(), 13), 1..60), seed in 0u64..1000,
    ) {
        let (rows, groups) = (kept.len(), 13);
        let kept = Array2::from_shape_vec((rows, groups), kept.concat()).unwrap();
        let weights = random_weights(rows, GROUP * groups, Streams::new(seed).stream("weights"));
        let x = random_vector(GROUP * groups, Streams::new(seed).stream("x"));
        let matrix = sparse(&weights, &kept).unwrap();
        check_products(&matrix, &x, "sparse");
        let dense = matrix.dequant();
        for ((row, group), &kept) in kept.indexed_iter() {
            let written = dense.slice(ndarray::s![row, GROUP * group..GROUP * (group + 1)]);
            prop_assert!(kept || written.iter().all(|&w| w == 0.0));
        }
    }

    #[test]
    fn codes_are_within_a_step_if_the_range_holds_zero(
        weights in prop::array::uniform16(-1f32..1.0), bits in 2u32..9,
    ) {
        let affine = Affine::of(&weights, bits);
        let step = affine.scale.to_f32();
        prop_assume!(weights.iter().any(|&w| w < 0.0) && weights.iter().any(|&w| w > 0.0));
        for w in weights {
            let back = affine.weight(affine.code(w, bits));
            // Half a step, and half of one more at the ends: the zero is rounded. The scale is rounded too, to one part in
            // 2048, which the last code feels as many times as there are codes.
            let allowed = 1.0 + 2f32.powi(bits as i32) / 2048.0;
            prop_assert!((w - back).abs() <= allowed * step, "{w} became {back}, step {step}");
        }
    }
}

#[test]
fn sizes_are_those_of_the_formats() {
    let weights = random_weights(64, 1024, Streams::new(1).stream("weights"));
    let bits = |format: Format| 8.0 * format.rounded(&weights).unwrap().bytes() as f64 / (64.0 * 1024.0);
    for (format, expected) in [
        (Format::F32, 32.0),
        (Format::F16, 16.0),
        (Format::W4G16, 5.5),
        (Format::W2G64, 2.375),
        (Format::W2G16, 3.5),
        (Format::W4TwoFour, 3.75),
    ] {
        assert_eq!(bits(format), expected, "{}", format.name());
    }
    // Half of the groups at 13 bytes, and four bytes for each row's start and the end.
    assert_eq!(bits(Format::W4S50), 3.25 + 8.0 * 4.0 * 65.0 / (64.0 * 1024.0));
}

#[test]
fn large_products_do_not_depend_on_the_number_of_threads() {
    let weights = random_weights(700, 1008, Streams::new(2).stream("weights"));
    let x = random_vector(1008, Streams::new(2).stream("x"));
    // A skewed mask: the first rows hold most groups, so that tasks end within rows.
    let kept = Array2::from_shape_fn((700, 63), |(row, group)| row < 70 || (row * 7 + group) % 9 == 0);
    let matrices: Vec<Box<dyn Gemv>> =
        vec![Box::new(sparse(&weights, &kept).unwrap()), Format::W4G16.rounded(&weights).unwrap()];
    for matrix in matrices {
        for precision in [Precision::Single, Precision::Int8] {
            let input = Input::new(&x, precision).unwrap();
            let results: Vec<Vec<u32>> = [1, 2, 3]
                .into_iter()
                .map(|threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let mut y = vec![0f32; 700];
                    pool.install(|| matrix.multiply(&input, &mut y));
                    y.into_iter().map(f32::to_bits).collect()
                })
                .collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
        }
        check_products(&*matrix, &x, "large");
    }
}

#[test]
fn eight_bits_cost_about_a_percent() {
    let weights = random_weights(256, 1024, Streams::new(3).stream("weights"));
    let x = random_vector(1024, Streams::new(3).stream("x"));
    let matrix = Format::W4S50.rounded(&weights).unwrap();
    let exact = dense_product(&*matrix, &x);
    let norm = exact.iter().map(|(y, _)| y * y).sum::<f64>().sqrt();
    for (precision, most) in [(Precision::Int8, 0.01), (Precision::Int8Vector, 0.02)] {
        let mut y = vec![0f32; 256];
        matrix.multiply(&Input::new(&x, precision).unwrap(), &mut y);
        let error = y.iter().zip(&exact).map(|(&y, (e, _))| (f64::from(y) - e).powi(2)).sum::<f64>().sqrt() / norm;
        assert!(error < most && error > 1e-4, "{precision:?}: {error}");
    }
}

#[test]
fn zeros_and_denormals_in_the_vector_are_numbers_too() {
    let weights = random_weights(4, 64, Streams::new(4).stream("weights"));
    let matrix = Format::W4S50.rounded(&weights).unwrap();
    for value in [0.0, 1e-40, 1e-38] {
        for precision in [Precision::Int8, Precision::Int8Vector, Precision::Single] {
            let mut y = vec![f32::NAN; 4];
            matrix.multiply(&Input::new(&[value; 64], precision).unwrap(), &mut y);
            assert!(y.iter().all(|y| y.abs() < 1e-35), "{y:?}");
        }
    }
    let error = Input::new(&[0.0, f32::NAN], Precision::Single).unwrap_err().to_string();
    assert!(error.contains("value 1 is NaN"), "{error}");
}

#[test]
fn weights_that_no_format_holds_are_refused() {
    let error = |weights: Array2<f32>, format: Format| format.rounded(&weights).err().unwrap().to_string();
    assert!(error(Array2::zeros((2, 17)), Format::W4G16).contains("multiple of 16"));
    assert!(error(Array2::zeros((2, 16)), Format::W4TwoFour).contains("multiple of 32"));
    assert!(error(Array2::zeros((0, 16)), Format::W2G16).contains("at least one row"));
    let mut weights = Array2::zeros((2, 16));
    weights[[1, 3]] = f32::INFINITY;
    assert!(error(weights, Format::W4S50).contains("row 1, column 3 is inf"));
    let weights = Array2::zeros((1, 32));
    let kept = Array2::from_shape_fn((1, 32), |(_, c)| c % 4 < 2 || c == 7);
    assert!(two_four(&weights, &kept).unwrap_err().to_string().contains("columns from 4"));
    assert!(sparse(&weights, &Array2::from_elem((1, 3), true)).unwrap_err().to_string().contains("(1, 2)"));
}

#[test]
fn a_group_of_one_sign_saturates_as_the_reference_does() {
    // The range 1..=2 without 0: z = clip(round(−15), 0, 15) = 0, so all codes are at the top.
    let group = Group::rounded(&std::array::from_fn(|i| 1.0 + i as f32 / 15.0), 4);
    assert_eq!((group.affine.zero, group.codes), (0, [15; GROUP]));
    let constant = Group::rounded(&[0.0; GROUP], 4);
    assert_eq!(constant.weights(), [0.0; GROUP]);
}

#[test]
fn half_precision_reads_what_it_rounds() {
    let weights = random_weights(3, 20, Streams::new(5).stream("weights"));
    let matrix = Plain::new(&weights, half::f16::from_f32);
    check_products(&matrix, &random_vector(20, Streams::new(5).stream("x")), "f16");
}
