//! Where arrays come from: a file, memory, or a method's built-in example.

use crate::{Array, Error, Result, npy};
use ndarray::{Array1, Array2, Axis, Ix1, Ix2};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// An array that a user brings.
///
/// In words: `builtin`, a path, or a path with a selection after a colon:
/// - `signal.npy`; `-` reads `.npy`, CSV or JSON lines from standard input;
/// - `data.npz:x0` one array of an archive (the name may be left out if it holds one only);
/// - `sensors.csv:temp,hum` columns by name or number from 0; `rows.jsonl` one JSON array of numbers a line;
/// - `samples.raw:f32` or `samples.raw:f64x20` bare little-endian numbers, 20 to a row.
#[derive(Debug, Clone, Default)]
pub enum Source {
    /// The method's own example.
    #[default]
    Builtin,
    /// A file, and what to take from it.
    File {
        /// The path; `-` is standard input.
        path: PathBuf,
        /// What stands after the colon.
        select: Option<String>,
    },
    /// An array in memory.
    Memory(Arc<Array>),
}

/// How the content of a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Npy,
    Npz,
    Csv,
    JsonLines,
    Raw,
}

impl Source {
    /// Whether the method's own example is meant.
    pub fn is_builtin(&self) -> bool {
        matches!(self, Self::Builtin)
    }

    /// The path of the file, if it is one and not standard input.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } if path.as_os_str() != "-" => Some(path),
            _ => None,
        }
    }

    /// Reads the whole array, with the element type of the file.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold numbers; the built-in example, which only the method knows.
    pub fn array(&self) -> Result<Array> {
        match self {
            Self::Builtin => Err(Error::input("builtin", "this input has no built-in example; give a file")),
            Self::Memory(array) => Ok(Array::clone(array)),
            Self::File { path, select } => {
                let (mut reader, length) = open(path)?;
                let name = self.to_string();
                match format(path, &mut reader, &name)? {
                    Format::Npy => npy::read(&mut reader, length, &name),
                    Format::Npz => read_npz(path, select.as_deref(), &name),
                    _ => Ok(self.rows()?.collect()?.into()),
                }
            }
        }
    }

    /// Reads a matrix of finite reals, shape (rows, columns).
    pub fn matrix(&self) -> Result<Array2<f64>> {
        let array = self.reals()?;
        let shape = array.shape().to_vec();
        let matrix = array.into_dimensionality::<Ix2>().map_err(|_| self.wrong_shape("two", &shape))?;
        for (i, row) in matrix.axis_iter(Axis(0)).enumerate() {
            if let Some(j) = row.iter().position(|x| !x.is_finite()) {
                return Err(self.not_finite(i, Some(j), row[j]));
            }
        }
        Ok(matrix)
    }

    /// Reads a vector of finite reals; a matrix of one row or one column counts as one.
    pub fn vector(&self) -> Result<Array1<f64>> {
        let array = self.reals()?;
        let shape = array.shape().to_vec();
        if shape.iter().filter(|&&n| n != 1).count() > 1 {
            return Err(self.wrong_shape("one", &shape));
        }
        let length = array.len();
        let vector = array.into_shape_with_order(length).expect("one axis at most is longer than 1");
        let vector = vector.into_dimensionality::<Ix1>().expect("reshaped to one axis");
        match vector.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(self.not_finite(i, None, vector[i])),
            None => Ok(vector),
        }
    }

    /// Opens the rows for reading one by one, in memory that does not grow with their number (`.npy` in C order, CSV,
    /// JSON lines, raw). Cells that are empty or say `nan` are NaN.
    pub fn rows(&self) -> Result<Rows> {
        let name = self.to_string();
        match self {
            Self::File { path, select } => {
                let (mut reader, length) = open(path)?;
                match format(path, &mut reader, &name)? {
                    Format::Npy => Rows::npy(reader, length, name),
                    Format::Csv => Rows::csv(reader, select.as_deref(), name),
                    Format::JsonLines => Ok(Rows::json_lines(reader, name)),
                    Format::Raw => Rows::raw(reader, length, select.as_deref(), name),
                    Format::Npz => Rows::memory(self.reals()?, name),
                }
            }
            _ => Rows::memory(self.reals()?, name),
        }
    }

    fn reals(&self) -> Result<ndarray::ArrayD<f64>> {
        let array = self.array()?;
        let dtype = array.dtype();
        let array = array
            .into_f64()
            .ok_or_else(|| Error::input(self.to_string(), format!("has dtype {dtype}; real numbers are needed")))?;
        if array.is_empty() {
            return Err(Error::input(self.to_string(), format!("is empty (shape {:?})", array.shape())));
        }
        Ok(array)
    }

    fn wrong_shape(&self, axes: &str, shape: &[usize]) -> Error {
        Error::input(
            self.to_string(),
            format!(
                "has shape {shape:?}; an array of {axes} {} is needed",
                if axes == "one" { "axis" } else { "axes" }
            ),
        )
    }

    /// The error for a value that is not finite at `row` (and `column`) of this source.
    pub fn not_finite(&self, row: usize, column: Option<usize>, value: f64) -> Error {
        let column = column.map_or(String::new(), |j| format!(", column {j}"));
        Error::input(
            self.to_string(),
            format!("row {row}{column} (counted from 0) is {value}; every value must be finite"),
        )
    }
}

/// Opens a file, or standard input for `-`, with its length where that is known.
fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    }
    let file = File::open(path).map_err(|e| Error::file("read", path, e))?;
    let metadata = file.metadata().map_err(|e| Error::file("read", path, e))?;
    if metadata.is_dir() {
        return Err(Error::input(path.display().to_string(), "is a directory; give a file"));
    }
    // Pipes and devices report a length of zero.
    let length = metadata.is_file().then_some(metadata.len());
    if length == Some(0) {
        return Err(Error::input(path.display().to_string(), "is empty"));
    }
    Ok((Box::new(BufReader::with_capacity(1 << 18, file)), length))
}

/// Tells the format by the file's ending, or by its first bytes on standard input and under unknown endings.
fn format(path: &Path, reader: &mut dyn BufRead, name: &str) -> Result<Format> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref() {
        Some("npy") => return Ok(Format::Npy),
        Some("npz") => return Ok(Format::Npz),
        Some("csv" | "tsv" | "txt") => return Ok(Format::Csv),
        Some("jsonl" | "ndjson") => return Ok(Format::JsonLines),
        Some("raw" | "bin" | "f32" | "f64") => return Ok(Format::Raw),
        _ => {}
    }
    let start = reader.fill_buf().map_err(|e| Error::input(name, format!("cannot be read: {e}")))?;
    if npy::is_npy(start) {
        Ok(Format::Npy)
    } else if start.starts_with(b"[") {
        Ok(Format::JsonLines)
    } else if start.is_empty() {
        Err(Error::input(name, "is empty"))
    } else if start.iter().take(512).any(|&b| b == 0) {
        Err(Error::input(name, "is in no known format; .npy, .npz, .csv, .jsonl and .raw are read"))
    } else {
        Ok(Format::Csv)
    }
}

fn read_npz(path: &Path, select: Option<&str>, name: &str) -> Result<Array> {
    let bad = |problem: String| Error::input(name, problem);
    let file = File::open(path).map_err(|e| Error::file("read", path, e))?;
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|e| bad(format!("is not a .npz archive: {e}")))?;
    let names: Vec<String> =
        archive.file_names().flatten().filter_map(|n| n.strip_suffix(".npy").map(str::to_owned)).collect();
    let wanted = match select {
        Some(wanted) if names.iter().any(|n| n == wanted) => wanted.to_owned(),
        None if names.len() == 1 => names[0].clone(),
        _ => return Err(bad(format!("holds the arrays {}; name one as {}:NAME", names.join(", "), path.display()))),
    };
    let mut entry = archive.by_name(&format!("{wanted}.npy")).map_err(|e| bad(e.to_string()))?;
    // The size an archive states is the archive's word, not a fact: the reader trusts only what arrives.
    npy::read(&mut entry, None, name)
}

/// Rows of a source, read one by one.
pub struct Rows {
    name: String,
    columns: Option<usize>,
    names: Vec<String>,
    taken: usize,
    reader: RowReader,
}

enum RowReader {
    Memory {
        array: Array2<f64>,
    },
    Binary {
        reader: Box<dyn BufRead + Send>,
        decode: Decode,
        buffer: Vec<u8>,
        remaining: Option<usize>,
    },
    Csv {
        reader: Box<csv::Reader<Box<dyn BufRead + Send>>>,
        pending: Option<csv::StringRecord>,
        take: Vec<usize>,
        record: csv::StringRecord,
    },
    JsonLines {
        reader: Box<dyn BufRead + Send>,
        line: String,
    },
}

enum Decode {
    Npy(npy::Header),
    F32,
    F64,
}

impl Decode {
    fn size(&self) -> usize {
        match self {
            Self::Npy(header) => header.element_size(),
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn reals(&self, bytes: &[u8], out: &mut Vec<f64>) {
        match self {
            Self::Npy(header) => header.decode_reals(bytes, out),
            Self::F32 => {
                out.extend(bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes")))))
            }
            Self::F64 => out.extend(bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")))),
        }
    }
}

impl Rows {
    fn new(name: String, columns: Option<usize>, reader: RowReader) -> Self {
        Self { name, columns, names: Vec::new(), taken: 0, reader }
    }

    /// Rows of an array; a vector is one column.
    fn memory(array: ndarray::ArrayD<f64>, name: String) -> Result<Self> {
        let shape = array.shape().to_vec();
        let (rows, columns) = match shape[..] {
            [n] => (n, 1),
            [n, m] => (n, m),
            _ => return Err(Error::input(name, format!("has shape {shape:?}; rows of numbers are needed"))),
        };
        let array = array
            .as_standard_layout()
            .into_owned()
            .into_shape_with_order((rows, columns))
            .expect("same number of elements");
        Ok(Self::new(name, Some(columns), RowReader::Memory { array }))
    }

    fn npy(mut reader: Box<dyn BufRead + Send>, length: Option<u64>, name: String) -> Result<Self> {
        let header = npy::Header::read(&mut reader, &name)?;
        let shape = header.shape.clone();
        let (rows, columns) = match shape[..] {
            [n] => (n, 1),
            [n, m] => (n, m),
            _ => return Err(Error::input(name, format!("has shape {shape:?}; rows of numbers are needed"))),
        };
        if rows == 0 || columns == 0 {
            return Err(Error::input(name, format!("is empty (shape {shape:?})")));
        }
        if !header.has_real_rows() {
            return Err(Error::input(
                name,
                "is complex or in Fortran order; save real numbers in C order to read them row by row",
            ));
        }
        let bytes = (rows * columns * header.element_size()) as u64;
        if let Some(length) = length
            && length < bytes
        {
            return Err(Error::input(
                name,
                format!("is truncated: its header says {bytes} bytes of data, but the file has {length} in all"),
            ));
        }
        Ok(Self::new(
            name,
            Some(columns),
            RowReader::Binary { reader, decode: Decode::Npy(header), buffer: Vec::new(), remaining: Some(rows) },
        ))
    }

    fn raw(reader: Box<dyn BufRead + Send>, length: Option<u64>, select: Option<&str>, name: String) -> Result<Self> {
        let bad = |problem: &str| Error::input(name.clone(), problem);
        let layout = select
            .or_else(|| name.ends_with(".f32").then_some("f32"))
            .or_else(|| name.ends_with(".f64").then_some("f64"));
        let layout =
            layout.ok_or_else(|| bad("holds bare numbers; say which, as PATH:f64 or PATH:f32x20 for 20 to a row"))?;
        let (element, columns) = layout.split_once('x').unwrap_or((layout, "1"));
        let decode = match element {
            "f32" => Decode::F32,
            "f64" => Decode::F64,
            other => return Err(bad(&format!("bare numbers are f32 or f64, not {other}"))),
        };
        let columns: usize = columns
            .parse()
            .ok()
            .filter(|&n| n > 0)
            .ok_or_else(|| bad(&format!("\"{columns}\" is no number of columns")))?;
        let row = columns.checked_mul(decode.size()).ok_or_else(|| bad("has more columns than fit in memory"))? as u64;
        if let Some(length) = length
            && length % row != 0
        {
            return Err(bad(&format!("has {length} bytes, which is no multiple of a row's {row}")));
        }
        Ok(Self::new(name, Some(columns), RowReader::Binary { reader, decode, buffer: Vec::new(), remaining: None }))
    }

    fn csv(reader: Box<dyn BufRead + Send>, select: Option<&str>, name: String) -> Result<Self> {
        let delimiter = if name.split(':').next().is_some_and(|p| p.ends_with(".tsv")) { b'\t' } else { b',' };
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .from_reader(reader);
        let mut first = csv::StringRecord::new();
        if !reader.read_record(&mut first).map_err(|e| csv_error(&name, &e))? {
            return Err(Error::input(name, "is empty"));
        }
        let is_header = first.iter().any(|cell| number(cell).is_none());
        let names: Vec<String> = if is_header { first.iter().map(str::to_owned).collect() } else { Vec::new() };
        let take: Vec<usize> = match select {
            None => (0..first.len()).collect(),
            Some(wanted) => {
                wanted.split(',').map(|w| column(w.trim(), &names, first.len(), &name)).collect::<Result<_>>()?
            }
        };
        let columns = take.len();
        let names = take.iter().filter_map(|&i| names.get(i).cloned()).collect();
        let pending = (!is_header).then_some(first);
        let reader = RowReader::Csv { reader: Box::new(reader), pending, take, record: csv::StringRecord::new() };
        Ok(Self { names, ..Self::new(name, Some(columns), reader) })
    }

    fn json_lines(reader: Box<dyn BufRead + Send>, name: String) -> Self {
        Self::new(name, None, RowReader::JsonLines { reader, line: String::new() })
    }

    /// The number of columns, known for JSON lines only after the first row.
    pub fn columns(&self) -> Option<usize> {
        self.columns
    }

    /// The columns' names, if the source tells them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many rows were read so far.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Reads the next row into `row`; `false` at the end.
    ///
    /// # Errors
    /// A cell that is no number, a row of another length than the first, an end in the middle of a row.
    pub fn next_row(&mut self, row: &mut Vec<f64>) -> Result<bool> {
        row.clear();
        let here = self.taken;
        let bad = |problem: String| Error::input(self.name.clone(), problem);
        let unreadable = |e: io::Error| Error::input(self.name.clone(), format!("row {here} cannot be read: {e}"));
        let found = match &mut self.reader {
            RowReader::Memory { array } => {
                let found = here < array.nrows();
                if found {
                    row.extend(array.row(here));
                }
                found
            }
            RowReader::Binary { reader, decode, buffer, remaining } => {
                if *remaining == Some(here) {
                    return Ok(false);
                }
                let bytes = self.columns.expect("known for binary rows") * decode.size();
                buffer.clear();
                reader.take(bytes as u64).read_to_end(buffer).map_err(unreadable)?;
                match buffer.len() {
                    0 if remaining.is_none() => false,
                    n if n < bytes => return Err(bad(format!("is truncated: row {here} has {n} of {bytes} bytes"))),
                    _ => {
                        decode.reals(buffer, row);
                        true
                    }
                }
            }
            RowReader::Csv { reader, pending, take, record } => {
                let first = pending.take();
                let found = first.is_some() || reader.read_record(record).map_err(|e| csv_error(&self.name, &e))?;
                let record = first.as_ref().unwrap_or(record);
                if found {
                    for &column in take.iter() {
                        let cell = &record[column];
                        let value = number(cell).ok_or_else(|| {
                            let column = self.names.get(row.len()).cloned().unwrap_or(column.to_string());
                            bad(format!("row {here}, column {column} (counted from 0): \"{cell}\" is not a number; choose columns as PATH:NAME,NAME"))
                        })?;
                        row.push(value);
                    }
                }
                found
            }
            RowReader::JsonLines { reader, line } => loop {
                line.clear();
                if reader.read_line(line).map_err(unreadable)? == 0 {
                    break false;
                }
                if line.trim().is_empty() {
                    continue;
                }
                let values: Vec<Option<f64>> = serde_json::from_str(line)
                    .map_err(|e| bad(format!("row {here} is not a JSON array of numbers: {e}")))?;
                row.extend(values.into_iter().map(|v| v.unwrap_or(f64::NAN)));
                break true;
            },
        };
        if found {
            let columns = *self.columns.get_or_insert(row.len());
            if row.len() != columns || columns == 0 {
                return Err(bad(format!(
                    "row {here} (counted from 0) has {} values, but the first row has {columns}",
                    row.len()
                )));
            }
            self.taken += 1;
        }
        Ok(found)
    }

    /// Reads all rows that are left into a matrix.
    pub fn collect(mut self) -> Result<Array2<f64>> {
        let (mut row, mut values, mut rows) = (Vec::new(), Vec::new(), 0);
        while self.next_row(&mut row)? {
            values.extend_from_slice(&row);
            rows += 1;
        }
        let columns = self.columns.unwrap_or(0);
        if rows == 0 {
            return Err(Error::input(self.name, "has no rows"));
        }
        Ok(Array2::from_shape_vec((rows, columns), values).expect("every row has as many values"))
    }
}

/// A cell's number; empty cells and the usual words for a missing value are NaN.
fn number(cell: &str) -> Option<f64> {
    match cell {
        "" | "NA" | "N/A" | "null" | "NULL" => Some(f64::NAN),
        _ => cell.parse().ok(),
    }
}

fn column(wanted: &str, names: &[String], columns: usize, source: &str) -> Result<usize> {
    let by_name = names.iter().position(|n| n == wanted);
    let by_number = || wanted.parse().ok().filter(|&i: &usize| i < columns);
    by_name.or_else(by_number).ok_or_else(|| {
        let known = if names.is_empty() { format!("numbers 0 to {}", columns - 1) } else { names.join(", ") };
        Error::input(source, format!("has no column \"{wanted}\"; its columns are {known}"))
    })
}

fn csv_error(name: &str, error: &csv::Error) -> Error {
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(String::new(), |p| format!("line {} ", p.line()));
            format!("{line}has {len} values, but the first line has {expected_len}")
        }
        csv::ErrorKind::Utf8 { pos, .. } => {
            format!("line {} is not UTF-8 text", pos.as_ref().map_or(0, csv::Position::line))
        }
        _ => error.to_string(),
    };
    Error::input(name, problem)
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text == "builtin" {
            return Ok(Self::Builtin);
        }
        // A path that exists as it stands may contain colons; otherwise the last colon begins the selection.
        let (path, select) = match text.rsplit_once(':') {
            Some((path, select))
                if !path.is_empty()
                    && !select.is_empty()
                    && !select.contains(['/', '\\'])
                    && !Path::new(text).exists() =>
            {
                (path, Some(select))
            }
            _ => (text, None),
        };
        Ok(Self::File { path: path.into(), select: select.map(str::to_owned) })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin => f.write_str("builtin"),
            Self::File { path, select: None } if path.as_os_str() == "-" => f.write_str("standard input"),
            Self::File { path, select: None } => write!(f, "{}", path.display()),
            Self::File { path, select: Some(select) } => write!(f, "{}:{select}", path.display()),
            Self::Memory(array) => write!(f, "array of shape {:?}", array.shape()),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File { path, select: None } if path.as_os_str() == "-" => serializer.serialize_str("-"),
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Ok(source) = text.parse();
        Ok(source)
    }
}

impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "Source".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "source" })
    }
}

impl From<Array> for Source {
    fn from(array: Array) -> Self {
        Self::Memory(Arc::new(array))
    }
}
