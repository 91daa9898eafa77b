//! Configurations of particles from .xyz files.

use ndarray::Array2;
use offprint_core::{Error, Result};
use std::path::Path;

/// Reads the configurations of an .xyz file: frames of a line with the number N of particles, a comment, and N lines
/// "element x y z". All frames have the same N. Gives (frames, 3 N); elements and what follows z are ignored.
pub fn read_xyz(path: &Path) -> Result<Array2<f64>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    parse_xyz(&text, &path.display().to_string())
}

/// The configurations in `text`; `name` is told in errors.
pub fn parse_xyz(text: &str, name: &str) -> Result<Array2<f64>> {
    let bad = |line: usize, problem: String| Err(Error::input(name, format!("line {line}: {problem}")));
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line)).peekable();
    let (mut values, mut frames, mut particles) = (Vec::new(), 0, None);
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let Ok(count) = line.trim().parse::<usize>() else {
            return bad(number, format!("a number of particles was expected, not \"{}\"", line.trim()));
        };
        if count == 0 || *particles.get_or_insert(count) != count {
            return bad(number, format!("{count} particles; the first frame has {}", particles.unwrap_or(count)));
        }
        lines.next();
        for i in 0..count {
            let Some((number, line)) = lines.next() else {
                return bad(number, format!("the file ends after {i} of the {count} particles of this frame"));
            };
            let mut words = line.split_whitespace().skip(1);
            for axis in ["x", "y", "z"] {
                match words.next().map(str::parse::<f64>) {
                    Some(Ok(value)) if value.is_finite() => values.push(value),
                    _ => return bad(number, format!("no finite {axis} in \"{}\"", line.trim())),
                }
            }
        }
        frames += 1;
    }
    match particles {
        Some(n) => Ok(Array2::from_shape_vec((frames, 3 * n), values).expect("3 numbers a particle")),
        None => Err(Error::input(name, "holds no frame")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_and_bad_lines_named() {
        let text = "2\nfirst\nAr 0 0 0\nAr 1.5 0 -2e-1 7\n\n2\n\nC 1 2 3\nC 4 5 6\n";
        let x = parse_xyz(text, "a.xyz").unwrap();
        assert_eq!(x.dim(), (2, 6));
        assert_eq!((x[[0, 3]], x[[0, 5]], x[[1, 5]]), (1.5, -0.2, 6.0));
        let message = |text: &str| parse_xyz(text, "a.xyz").unwrap_err().to_string();
        assert!(message("").contains("no frame") && message("Ar 0 0 0").contains("line 1"));
        assert!(message("2\n\nAr 0 0 0\n").contains("after 1 of the 2"));
        assert!(message("1\n\nAr 0 nan 0\n").contains("line 3: no finite y"));
        assert!(message("1\n\nAr 0 0 0\n2\n\nAr 0 0 0\nAr 1 1 1").contains("first frame has 1"));
        assert!(message("0\n\n").contains("0 particles"));
    }
}
