//! The `.npy` format (numpy, NEP 1): headers, whole arrays, memory maps.

use crate::{Array, Complex, Error, Result};
use memmap2::Mmap;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// numpy writes headers of a few hundred bytes; anything near this size is not one.
const LONGEST_HEADER: usize = 1 << 16;

/// How one element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Element {
    kind: Kind,
    /// Bytes per element.
    size: usize,
    big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Real,
    Signed,
    Unsigned,
    Complex,
}

/// What stands before the data of a `.npy` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    element: Element,
    /// First index runs fastest.
    fortran: bool,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// Bytes before the first element.
    offset: usize,
}

/// Whether `start` begins like a `.npy` file.
pub fn is_npy(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

impl Header {
    /// Reads the header at the start of `reader`; `name` is the file's name for errors.
    pub fn read(reader: &mut impl Read, name: &str) -> Result<Self> {
        let bad = |problem: &str| Error::input(name, problem);
        let short = |_| bad("ends within its .npy header");
        let mut start = [0; 8];
        reader.read_exact(&mut start).map_err(short)?;
        if !is_npy(&start) {
            return Err(bad("is not a .npy file (it does not begin with \\x93NUMPY)"));
        }
        let (length, before) = if start[6] == 1 {
            let mut bytes = [0; 2];
            reader.read_exact(&mut bytes).map_err(short)?;
            (usize::from(u16::from_le_bytes(bytes)), 10)
        } else {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes).map_err(short)?;
            (u32::from_le_bytes(bytes) as usize, 12)
        };
        if length > LONGEST_HEADER {
            return Err(bad(&format!("claims a .npy header of {length} bytes")));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(short)?;
        let text = String::from_utf8_lossy(&text);
        let mut header = parse(&text)
            .ok_or_else(|| bad(&format!("has a .npy header that cannot be read: {}", text.trim())))?
            .map_err(|dtype| bad(&format!("has dtype {dtype}; real, integer, bool and complex numbers are read")))?;
        header.offset = before + length;
        if header.bytes().is_none() {
            return Err(bad(&format!("claims a shape {:?} too large for this machine", header.shape)));
        }
        Ok(header)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of data, if that many can be addressed.
    fn bytes(&self) -> Option<usize> {
        let bytes = self.shape.iter().try_fold(self.element.size, |n, &m| n.checked_mul(m))?;
        isize::try_from(bytes).ok().and_then(|_| bytes.checked_add(self.offset)).map(|_| bytes)
    }

    /// Bytes of one element.
    pub fn element_size(&self) -> usize {
        self.element.size
    }

    /// Whether rows lie one after the other (C order) and hold real numbers, so that they can be read one by one.
    pub fn has_real_rows(&self) -> bool {
        (!self.fortran || self.shape.len() <= 1) && self.element.kind != Kind::Complex
    }

    /// Appends the real numbers stored in `bytes` to `out`.
    pub fn decode_reals(&self, bytes: &[u8], out: &mut Vec<f64>) {
        let e = self.element;
        let elements = bytes.chunks_exact(e.size);
        match (e.kind, e.size, e.big_endian) {
            (Kind::Real, 8, false) => out.extend(elements.map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")))),
            (Kind::Real, 4, false) => {
                out.extend(elements.map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes")))));
            }
            (Kind::Real, ..) => out.extend(elements.map(|b| e.real(b))),
            (Kind::Signed, ..) => out.extend(elements.map(|b| e.integer(b) as i64 as f64)),
            (Kind::Unsigned, ..) => out.extend(elements.map(|b| e.integer(b) as f64)),
            (Kind::Complex, ..) => unreachable!("complex data is refused where rows are opened"),
        }
    }
}

impl Element {
    /// The bits of an integer, sign-extended to 64.
    fn integer(self, bytes: &[u8]) -> u64 {
        let mut word = [0; 8];
        for (i, &b) in bytes.iter().enumerate() {
            word[if self.big_endian { self.size - 1 - i } else { i }] = b;
        }
        let bits = u64::from_le_bytes(word);
        let unused = 64 - 8 * self.size as u32;
        if self.kind == Kind::Signed { ((bits << unused) as i64 >> unused) as u64 } else { bits }
    }

    fn real(self, bytes: &[u8]) -> f64 {
        let bits = Self { kind: Kind::Unsigned, size: bytes.len(), ..self }.integer(bytes);
        match bytes.len() {
            8 => f64::from_bits(bits),
            4 => f64::from(f32::from_bits(bits as u32)),
            _ => half(bits as u16),
        }
    }
}

/// The value of an IEEE half-precision number.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 1023);
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

/// Parses the Python dict of a header. `None`: not such a dict; `Some(Err)`: a dtype that is not read.
fn parse(text: &str) -> Option<Result<Header, String>> {
    let after = |key: &str| {
        let start = text.find(&format!("'{key}'"))? + key.len() + 2;
        text[start..].trim_start().strip_prefix(':').map(str::trim_start)
    };
    let descr = after("descr")?;
    let Some(quoted) = descr.strip_prefix('\'') else {
        return Some(Err("of a structured array".into()));
    };
    let dtype = &quoted[..quoted.find('\'')?];
    let fortran = after("fortran_order")?.starts_with("True");
    let shape = after("shape")?.strip_prefix('(')?;
    let shape = shape[..shape.find(')')?]
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().ok())
        .collect::<Option<Vec<usize>>>()?;
    let Some(element) = element(dtype) else { return Some(Err(dtype.to_owned())) };
    Some(Ok(Header { element, fortran, shape, offset: 0 }))
}

fn element(dtype: &str) -> Option<Element> {
    let (order, rest) = dtype.split_at_checked(1)?;
    let (kind, size) = rest.split_at_checked(1)?;
    let size: usize = size.parse().ok()?;
    let kind = match (kind, size) {
        ("f", 2 | 4 | 8) => Kind::Real,
        ("i", 1 | 2 | 4 | 8) => Kind::Signed,
        ("u", 1 | 2 | 4 | 8) | ("b", 1) => Kind::Unsigned,
        ("c", 8 | 16) => Kind::Complex,
        _ => return None,
    };
    matches!(order, "<" | ">" | "|" | "=").then_some(Element { kind, size, big_endian: order == ">" })
}

/// Reads a whole array from `reader`, which holds `available` bytes if that is known.
pub fn read(reader: &mut impl Read, available: Option<u64>, name: &str) -> Result<Array> {
    let header = Header::read(reader, name)?;
    let bytes = header.bytes().expect("checked with the header");
    let truncated =
        |has: u64| Error::input(name, format!("is truncated: its header says {bytes} bytes of data, but it has {has}"));
    if let Some(available) = available {
        let has = available.saturating_sub(header.offset as u64);
        if has < bytes as u64 {
            return Err(truncated(has));
        }
    }
    // Without a known length memory grows with what really arrives, never with what a header claims.
    let mut data = Vec::new();
    reader.take(bytes as u64).read_to_end(&mut data).map_err(|e| Error::input(name, format!("cannot be read: {e}")))?;
    if data.len() < bytes {
        return Err(truncated(data.len() as u64));
    }
    Ok(decode(&header, &data))
}

fn decode(header: &Header, data: &[u8]) -> Array {
    let e = header.element;
    let elements = || data.chunks_exact(e.size);
    match (e.kind, e.size) {
        (Kind::Real, 4) => shaped(header, elements().map(|b| e.real(b) as f32).collect()).into(),
        (Kind::Real, _) => {
            let mut values = Vec::with_capacity(header.len());
            header.decode_reals(data, &mut values);
            shaped(header, values).into()
        }
        (Kind::Signed, _) => shaped(header, elements().map(|b| e.integer(b) as i64).collect()).into(),
        (Kind::Unsigned, 1) => shaped(header, data.to_vec()).into(),
        (Kind::Unsigned, _) => shaped(header, elements().map(|b| e.integer(b)).collect()).into(),
        (Kind::Complex, _) => {
            let half = e.size / 2;
            let pair = |b: &[u8]| Complex::new(e.real(&b[..half]), e.real(&b[half..]));
            shaped(header, elements().map(pair).collect()).into()
        }
    }
}

fn shaped<T: Clone>(header: &Header, values: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(&header.shape).set_f(header.fortran), values)
        .expect("as many values as the shape says")
}

/// Writes `array` in C order, as numpy's version 1.0.
pub fn write(out: &mut (impl Write + ?Sized), array: &Array) -> io::Result<()> {
    let dtype = match array {
        Array::F32(_) => "<f4",
        Array::F64(_) => "<f8",
        Array::C128(_) => "<c16",
        Array::I64(_) => "<i8",
        Array::U64(_) => "<u8",
        Array::U8(_) => "|u1",
    };
    let lengths: String = array.shape().iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({lengths}), }}");
    // Data begins at a multiple of 64 bytes, so that maps of it are aligned; the header ends in a line break.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - 1 - header.len()));
    header.push('\n');
    let length = u16::try_from(length).map_err(|_| io::Error::other("more axes than a .npy header holds"))?;
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    match array {
        Array::F32(a) => a.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
        Array::F64(a) => a.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
        Array::C128(a) => a.iter().try_for_each(|x| {
            out.write_all(&x.re.to_le_bytes())?;
            out.write_all(&x.im.to_le_bytes())
        }),
        Array::I64(a) => a.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
        Array::U64(a) => a.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
        Array::U8(a) => a.iter().try_for_each(|&x| out.write_all(&[x])),
    }
}

/// A `.npy` file mapped into memory: only the pages that are looked at are read.
#[derive(Debug)]
pub struct Mapped {
    header: Header,
    map: Mmap,
}

/// The real numbers of a [`Mapped`] file in place.
#[derive(Debug, Clone, Copy)]
pub enum Reals<'a> {
    /// 32-bit.
    F32(&'a [f32]),
    /// 64-bit.
    F64(&'a [f64]),
}

impl Mapped {
    /// Maps the file at `path` and checks that it is as long as its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(|e| Error::file("read", path, e))?;
        let header = Header::read(&mut file, &name)?;
        // SAFETY: the map is read-only and private to this value. Another process that shortens the file while it is
        // mapped could still make reads fail; as with every program that maps its input, that is the user's to avoid.
        // Looking at 10⁵ of 2²⁴ values this way takes a millisecond; reading the file first takes a tenth of a second.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::file("map", path, e))?;
        let bytes = header.bytes().expect("checked with the header");
        let has = map.len().saturating_sub(header.offset);
        if has < bytes {
            let problem = format!("is truncated: its header says {bytes} bytes of data, but it has {has}");
            return Err(Error::input(name, problem));
        }
        Ok(Self { header, map })
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    /// Whether the last index runs fastest, so that rows lie one after the other.
    pub fn is_c_order(&self) -> bool {
        !self.header.fortran || self.header.shape.len() <= 1
    }

    /// The elements in the order of the file as reals in place; `None` if they are stored otherwise than as
    /// little-endian `f32` or `f64`.
    pub fn reals(&self) -> Option<Reals<'_>> {
        let e = self.header.element;
        if e.kind != Kind::Real || e.big_endian || cfg!(target_endian = "big") {
            return None;
        }
        let data = &self.map[self.header.offset..][..self.header.bytes().expect("checked when opened")];
        match e.size {
            // SAFETY: every bit pattern is an f64 or f32, and `align_to` puts only aligned elements in the middle.
            8 => match unsafe { data.align_to::<f64>() } {
                ([], values, []) => Some(Reals::F64(values)),
                _ => None,
            },
            // SAFETY: as above.
            4 => match unsafe { data.align_to::<f32>() } {
                ([], values, []) => Some(Reals::F32(values)),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(array: impl Into<Array>) {
        let array = array.into();
        let mut bytes = Vec::new();
        write(&mut bytes, &array).unwrap();
        assert_eq!(
            (bytes.len()
                - array.shape().iter().product::<usize>()
                    * match array {
                        Array::U8(_) => 1,
                        Array::F32(_) => 4,
                        Array::C128(_) => 16,
                        _ => 8,
                    })
                % 64,
            0,
            "data begins at a multiple of 64"
        );
        assert_eq!(read(&mut bytes.as_slice(), Some(bytes.len() as u64), "a.npy").unwrap(), array);
    }

    #[test]
    fn arrays_read_back_as_written() {
        round_trip(vec![1.5f64, -2.0, f64::INFINITY]);
        round_trip(ndarray::arr2(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]]));
        round_trip(vec![i64::MIN, 0, i64::MAX]);
        round_trip(vec![u64::MAX]);
        round_trip(vec![Complex::new(1.0, -1.0)]);
        round_trip(Vec::<u8>::new());
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn values(header: &str, data: &[u8]) -> Result<Vec<f64>> {
        let bytes = file(header, data);
        let array = read(&mut bytes.as_slice(), Some(bytes.len() as u64), "a.npy")?;
        Ok(array.into_f64().unwrap().iter().copied().collect())
    }

    #[test]
    fn reads_what_numpy_writes() {
        // Byte strings as written by numpy 2 for these arrays.
        let be = "{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }";
        assert_eq!(values(be, &1.25f64.to_be_bytes()).unwrap(), [1.25]);
        let fortran = "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 2), }";
        assert_eq!(values(fortran, &[1, 0, 2, 0, 3, 0, 255, 255]).unwrap(), [1.0, 3.0, 2.0, -1.0]);
        let half = "{'descr': '<f2', 'fortran_order': False, 'shape': (4,), }";
        assert_eq!(
            values(half, &[0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0x00, 0x7c]).unwrap(),
            [1.0, -2.0, 2f64.powi(-24), f64::INFINITY]
        );
        let truth = "{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(values(truth, &[0, 1]).unwrap(), [0.0, 1.0]);
    }

    #[test]
    fn refuses_truncated_hostile_and_foreign_files() {
        let message = |h: &str, d: &[u8]| values(h, d).unwrap_err().to_string();
        let eight = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }";
        assert!(message(eight, &[0; 15]).contains("16 bytes of data, but it has 15"));
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 9), }";
        assert!(message(huge, &[]).contains("too large"));
        let large = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }";
        assert!(message(large, &[0; 8]).contains("truncated"));
        assert!(message("{'descr': '<U8', 'fortran_order': False, 'shape': (2,), }", &[]).contains("dtype <U8"));
        assert!(
            message("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,), }", &[]).contains("structured")
        );
        assert!(message("nonsense", &[]).contains("cannot be read"));
        assert!(read(&mut &b"PK\x03\x04 is a zip"[..], None, "a.npy").unwrap_err().to_string().contains("not a .npy"));
        assert!(read(&mut &b"\x93NUM"[..], None, "a.npy").unwrap_err().to_string().contains("ends within"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(header in ".{0,80}", data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = values(&header, &data);
            let _ = read(&mut data.as_slice(), None, "a.npy");
            let tricky = format!("{{'descr': '{header}', 'fortran_order': {header}, 'shape': ({header}), }}");
            let _ = values(&tricky, &data);
        }
    }
}
