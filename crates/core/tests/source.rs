//! Every way to bring an array, and every way to bring a bad one.

use ndarray::{Array2, arr2};
use offprint_core::artifact::Artifact;
use offprint_core::{Array, Error, Result, Source};
use proptest::prelude::*;
use std::path::Path;
use tempfile::TempDir;

fn source(path: &Path, select: &str) -> Source {
    let Ok(source) = format!("{}{select}", path.display()).parse();
    source
}

fn text(name: &str, content: &str) -> (TempDir, Source) {
    bytes(name, content.as_bytes())
}

fn bytes(name: &str, content: &[u8]) -> (TempDir, Source) {
    let directory = tempfile::tempdir().unwrap();
    let (file, select) = name.split_once(':').unwrap_or((name, ""));
    let path = directory.path().join(file);
    std::fs::write(&path, content).unwrap();
    let select = if select.is_empty() { String::new() } else { format!(":{select}") };
    let source = source(&path, &select);
    (directory, source)
}

fn matrix(name: &str, content: &str) -> Result<Array2<f64>> {
    let (_directory, source) = text(name, content);
    source.matrix()
}

fn problem<T>(result: Result<T>) -> String {
    match result {
        Err(error @ Error::Input { .. }) => error.to_string(),
        Err(error) => panic!("not an error of the input: {error}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn csv_with_and_without_header_and_by_column() {
    let expected = arr2(&[[1.0, 2.0], [3.0, 4.5]]);
    assert_eq!(matrix("a.csv", "1,2\n3,4.5\n").unwrap(), expected);
    assert_eq!(matrix("a.csv", "x, y\n1, 2\n3, 4.5\n").unwrap(), expected);
    assert_eq!(matrix("a.tsv", "# measured\nx\ty\n1\t2\n3\t4.5\n").unwrap(), expected);
    assert_eq!(matrix("a.csv:y,x", "time,x,y\nnoon,2,1\nlate,4.5,3\n").unwrap(), expected);
    assert_eq!(matrix("a.csv:2,1", "0,2,1\n0,4.5,3\n").unwrap(), expected);
    assert_eq!(matrix("a.jsonl", "[1, 2]\n\n[3, 4.5]\n").unwrap(), expected);
}

#[test]
fn unknown_endings_are_told_by_their_content() {
    assert_eq!(matrix("a.data", "1,2\n").unwrap(), arr2(&[[1.0, 2.0]]));
    assert_eq!(matrix("a", "[1, 2]\n").unwrap(), arr2(&[[1.0, 2.0]]));
    assert!(problem(bytes("a.dat", b"\0\x01\x02").1.matrix()).contains("no known format"));
}

#[test]
fn bad_text_is_named_by_line_and_column() {
    assert!(problem(matrix("a.csv", "1,2\n3\n")).contains("line 2 has 1 values, but the first line has 2"));
    assert!(problem(matrix("a.csv", "x,y\n1,2\n3,four\n")).contains("row 1, column y (counted from 0): \"four\""));
    assert!(problem(matrix("a.csv:z", "x,y\n1,2\n")).contains("no column \"z\"; its columns are x, y"));
    assert!(problem(matrix("a.csv", "1,2\n3,\n")).contains("row 1, column 1 (counted from 0) is NaN"));
    assert!(problem(matrix("a.csv", "1,2\ninf,4\n")).contains("row 1, column 0 (counted from 0) is inf"));
    assert!(problem(matrix("a.csv", "")).contains("is empty"));
    assert!(problem(matrix("a.csv", "x,y\n")).contains("no rows"));
    assert!(
        problem(matrix("a.jsonl", "[1]\n[2, 3]\n"))
            .contains("row 1 (counted from 0) has 2 values, but the first row has 1")
    );
    assert!(problem(matrix("a.jsonl", "{\"a\": 1}\n")).contains("not a JSON array of numbers"));
    assert!(problem(bytes("a.csv", b"1,2\n\xff\xfe,3\n").1.matrix()).contains("not UTF-8"));
}

#[test]
fn raw_numbers_need_a_layout_that_fits() {
    let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(bytes("a.raw:f32x2", &data).1.matrix().unwrap(), arr2(&[[1.0, 2.0], [3.0, 4.0]]));
    assert_eq!(bytes("a.f32", &data).1.vector().unwrap().to_vec(), [1.0, 2.0, 3.0, 4.0]);
    assert!(problem(bytes("a.raw", &data).1.matrix()).contains("say which"));
    assert!(problem(bytes("a.raw:f64x3", &data).1.matrix()).contains("no multiple of a row's 24"));
    assert!(problem(bytes("a.raw:i8", &data).1.matrix()).contains("f32 or f64"));
    assert!(problem(bytes("a.raw:f64x0", &data).1.matrix()).contains("no number of columns"));
    assert!(problem(bytes("a.raw:f64x99999999999999999999", &data).1.matrix()).contains("no number of columns"));
    assert!(problem(bytes("a.raw:f64x9223372036854775807", &data).1.matrix()).contains("more columns than fit"));
}

#[test]
fn shapes_and_types_that_do_not_fit_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let save = |name: &str, array: Array| {
        let path = directory.path().join(name);
        Artifact::Array(array).write(&path).unwrap();
        source(&path, "")
    };
    let cube = save("cube.npy", ndarray::Array3::<f64>::zeros((2, 2, 2)).into());
    assert!(problem(cube.matrix()).contains("shape [2, 2, 2]; an array of two axes"));
    assert!(problem(cube.vector()).contains("shape [2, 2, 2]; an array of one axis"));
    assert!(problem(cube.rows().map(|_| ())).contains("rows of numbers"));
    let complex = save("complex.npy", vec![offprint_core::Complex::new(1.0, 1.0)].into());
    assert!(problem(complex.vector()).contains("complex128; real numbers"));
    let empty = save("empty.npy", Array2::<f64>::zeros((0, 3)).into());
    assert!(problem(empty.matrix()).contains("is empty"));
    assert!(problem(empty.rows().map(|_| ())).contains("is empty"));
    let column = save("column.npy", arr2(&[[1f32], [2.0]]).into());
    assert_eq!(column.vector().unwrap().to_vec(), [1.0, 2.0]);
}

#[test]
fn rows_of_every_format_are_those_of_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let values = arr2(&[[1.0, -2.5], [3.0, 4.0], [0.125, 6.0]]);
    let npy = directory.path().join("a.npy");
    Artifact::Array(values.clone().into()).write(&npy).unwrap();
    let npz = directory.path().join("a.npz");
    Artifact::Arrays([("x".to_owned(), values.clone().into())].into(), Default::default()).write(&npz).unwrap();
    let csv = directory.path().join("a.csv");
    std::fs::write(&csv, "1,-2.5\n3,4\n.125,6e0\n").unwrap();
    for source in
        [source(&npy, ""), source(&npz, ""), source(&npz, ":x"), source(&csv, ""), Array::from(values.clone()).into()]
    {
        let mut rows = source.rows().unwrap();
        assert_eq!(rows.columns(), Some(2), "{source}");
        let (mut row, mut n) = (Vec::new(), 0);
        while rows.next_row(&mut row).unwrap() {
            assert_eq!(row, values.row(n).to_vec(), "{source}");
            n += 1;
        }
        assert_eq!((n, rows.taken()), (3, 3), "{source}");
        assert_eq!(source.matrix().unwrap(), values, "{source}");
    }
}

#[test]
fn missing_files_and_directories_are_named() {
    let error = source(Path::new("nowhere/x.npy"), "").matrix().unwrap_err();
    assert!(error.to_string().starts_with("cannot read nowhere/x.npy"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    assert!(problem(source(directory.path(), "").matrix()).contains("is a directory"));
    assert!(problem(Source::Builtin.matrix()).contains("no built-in example"));
}

#[test]
fn colons_in_paths_that_exist_are_no_selection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("12:30.csv");
    std::fs::write(&path, "1\n").unwrap();
    assert_eq!(source(&path, "").vector().unwrap().to_vec(), [1.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_content_makes_a_reader_panic(content in proptest::collection::vec(any::<u8>(), 0..200), which in 0..7usize) {
        let name = ["a.npy", "a.npz", "a.csv", "a.csv:x", "a.jsonl", "a.raw:f32x3", "a"][which];
        let (_directory, source) = bytes(name, &content);
        let _ = source.matrix();
        let _ = source.vector();
    }

    #[test]
    fn numbers_survive_csv(values in proptest::collection::vec(-1e300..1e300f64, 1..20)) {
        let table = offprint_core::Table::new("t", "").numbers("x", "m", values.clone());
        let (_directory, source) = text("a.csv", &table.to_csv());
        prop_assert_eq!(source.vector().unwrap().to_vec(), values);
    }
}
