//! Small real data sets that several papers run on.
//!
//! They are compiled into the program, so that a run needs no files and no network. Each stands in `data/` with its
//! licence beside it.

use ndarray::{Array2, s};

/// Number of images in [`digits`].
const DIGITS: usize = 1797;
/// Pixels per image of [`digits`].
const PIXELS: usize = 8 * 8;
/// Measurements per row of [`breast_cancer`].
const MEASUREMENTS: usize = 30;

/// Handwritten digits: images `(1797, 64)` of 8 × 8 pixels row by row with values 0 (paper) to 16 (ink), and the digit
/// 0..=9 that each shows.
///
/// The test set of *Optical Recognition of Handwritten Digits* (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository,
/// 1998, <https://doi.org/10.24432/C50P49>, CC BY 4.0), in the order of scikit-learn's `load_digits`.
pub fn digits() -> (Array2<f64>, Vec<u8>) {
    let pixels: &[u8; DIGITS * PIXELS] = include_bytes!("../data/digits-images.u8");
    let labels: &[u8; DIGITS] = include_bytes!("../data/digits-labels.u8");
    let images = Array2::from_shape_fn((DIGITS, PIXELS), |(i, j)| f64::from(pixels[i * PIXELS + j]));
    (images, labels.to_vec())
}

/// Diabetes patients: ten measurements each `(442, 10)` in their own units (age in years, sex 1 or 2, body mass index, mean
/// blood pressure, six of blood serum), and the progression of the disease one year later.
///
/// The set of *Least Angle Regression* (B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Annals of Statistics 32, 2004), in
/// the order of scikit-learn's `load_diabetes(scaled=False)`.
pub fn diabetes() -> (Array2<f64>, Vec<f64>) {
    let table = table(include_str!("../data/diabetes.csv"), 11);
    (table.slice(s![.., ..10]).to_owned(), table.column(10).to_vec())
}

/// Breast cancer: measurements `(569, 30)` of cell nuclei in their own units, and for each whether the tumour is benign
/// (1) or malignant (0).
///
/// *Breast Cancer Wisconsin (Diagnostic)* (W. Wolberg, O. Mangasarian, N. Street, W. Street, UCI Machine Learning
/// Repository, 1993, <https://doi.org/10.24432/C5DW2B>, CC BY 4.0), in the order of scikit-learn's `load_breast_cancer`.
pub fn breast_cancer() -> (Array2<f64>, Vec<u8>) {
    let table = table(include_str!("../data/breast-cancer.csv"), MEASUREMENTS + 1);
    let benign = table.column(MEASUREMENTS).mapv(|class| class as u8).to_vec();
    (table.slice_move(s![.., ..MEASUREMENTS]), benign)
}

/// The numbers of a CSV file below its heading, `columns` to a row.
fn table(csv: &str, columns: usize) -> Array2<f64> {
    let rows = csv.lines().skip(1);
    let numbers: Vec<f64> =
        rows.flat_map(|row| row.split(',')).map(|cell| cell.parse().expect("a number in each cell")).collect();
    Array2::from_shape_vec((numbers.len() / columns, columns), numbers).expect("as many numbers in every row")
}

/// *Hamlet* and *Macbeth* (William Shakespeare, public domain): 277 269 characters of ASCII, 69 different ones, lines
/// ended by `\n`.
pub fn text() -> &'static str {
    include_str!("../data/text.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_scikit_learn() {
        // From scikit-learn 1.9: load_digits().data.sum(), .data.max(), numpy.bincount(.target), .data[0, :16].
        let (images, labels) = digits();
        assert_eq!(images.sum(), 561_718.0);
        assert_eq!(images.iter().copied().fold(0.0, f64::max), 16.0);
        let counts = labels.iter().fold([0; 10], |mut counts, &label| {
            counts[usize::from(label)] += 1;
            counts
        });
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let top = [0., 0., 5., 13., 9., 1., 0., 0., 0., 0., 13., 15., 10., 15., 5., 0.];
        assert_eq!(images.row(0).as_slice().map(|row| &row[..16]), Some(&top[..]));
    }

    #[test]
    fn diabetes_is_that_of_scikit_learn() {
        // From scikit-learn 1.9: load_diabetes(scaled=False), .data.sum(axis=0) of the first four columns, .target.sum().
        let (patients, progression) = diabetes();
        assert_eq!(patients.dim(), (442, 10));
        for (column, sum) in [21_445.0, 649.0, 11_658.1, 41_833.98].into_iter().enumerate() {
            assert!((patients.column(column).sum() - sum).abs() < 1e-6, "{column}: {}", patients.column(column).sum());
        }
        assert_eq!(progression.iter().sum::<f64>(), 67_243.0);
        assert_eq!(patients.row(0).to_vec(), [59.0, 2.0, 32.1, 101.0, 157.0, 93.2, 38.0, 4.0, 4.8598, 87.0]);
    }

    #[test]
    fn measurements_are_those_of_scikit_learn() {
        // From scikit-learn 1.9: load_breast_cancer().data.sum(), numpy.bincount(.target), .data[0, :3], .data[-1, -2:].
        let (measurements, benign) = breast_cancer();
        assert!((measurements.sum() - 1_056_474.459_635_6).abs() < 1e-6);
        assert_eq!(benign.iter().filter(|&&class| class == 1).count(), 357);
        assert!(benign.iter().all(|&class| class <= 1));
        assert_eq!(measurements.slice(s![0, ..3]).to_vec(), [17.99, 10.38, 122.8]);
        assert_eq!(measurements.slice(s![-1, -2..]).to_vec(), [0.2871, 0.07039]);
    }

    #[test]
    fn text_is_both_plays_in_plain_ascii() {
        // Counted in Python over the same file: len(s), len(set(s)), s.count("Ham.\n").
        let text = text();
        let alphabet: std::collections::BTreeSet<char> = text.chars().collect();
        assert_eq!((text.len(), alphabet.len()), (277_269, 69));
        assert!(text.is_ascii() && !text.contains('\r'));
        assert!(text.starts_with("HAMLET") && text.ends_with("see us crown'd at Scone.\n\n[Flourish. Exeunt.]\n"));
        assert_eq!(text.matches("Ham.\n").count(), 358);
    }
}
