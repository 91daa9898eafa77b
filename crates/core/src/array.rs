//! Arrays whose element type is known only when they are read.

use ndarray::ArrayD;
pub use num_complex::Complex;

/// An n-dimensional array of one of the element types that files carry. Narrower integers are widened when read.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// 32-bit reals.
    F32(ArrayD<f32>),
    /// 64-bit reals.
    F64(ArrayD<f64>),
    /// Pairs of 64-bit reals.
    C128(ArrayD<Complex<f64>>),
    /// Signed integers.
    I64(ArrayD<i64>),
    /// Unsigned integers and truth values.
    U64(ArrayD<u64>),
    /// Bytes.
    U8(ArrayD<u8>),
}

impl Array {
    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::F64(a) => a.shape(),
            Self::C128(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::U64(a) => a.shape(),
            Self::U8(a) => a.shape(),
        }
    }

    /// The element type's name as in numpy.
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
            Self::C128(_) => "complex128",
            Self::I64(_) => "int64",
            Self::U64(_) => "uint64",
            Self::U8(_) => "uint8",
        }
    }

    /// The elements as 64-bit reals; `None` for complex numbers. Copies only what is not `f64` yet.
    pub fn into_f64(self) -> Option<ArrayD<f64>> {
        match self {
            Self::F64(a) => Some(a),
            Self::F32(a) => Some(a.mapv(f64::from)),
            Self::I64(a) => Some(a.mapv(|x| x as f64)),
            Self::U64(a) => Some(a.mapv(|x| x as f64)),
            Self::U8(a) => Some(a.mapv(f64::from)),
            Self::C128(_) => None,
        }
    }
}

macro_rules! into_array {
    ($($element:ty => $variant:ident),*) => {$(
        impl<D: ndarray::Dimension> From<ndarray::Array<$element, D>> for Array {
            fn from(array: ndarray::Array<$element, D>) -> Self {
                Self::$variant(array.into_dyn())
            }
        }

        impl From<Vec<$element>> for Array {
            fn from(values: Vec<$element>) -> Self {
                Self::$variant(ndarray::Array1::from_vec(values).into_dyn())
            }
        }
    )*};
}
into_array!(f32 => F32, f64 => F64, Complex<f64> => C128, i64 => I64, u64 => U64, u8 => U8);
