//! The gradients that a user brings: `(m, d)`, one a row, in memory or mapped from a file that may exceed it.

use crate::Real;
use ndarray::{Array2, ArrayView2, Axis};
use offprint_core::npy::{Mapped, Reals};
use offprint_core::{Array, Error, Result, Source};
use rayon::prelude::*;

/// A gradient matrix `(m, d)`, row-major.
#[derive(Debug)]
pub enum Gradients {
    /// A `.npy` file in C order, read where it lies.
    Mapped(Mapped),
    /// In memory, single precision.
    F32(Array2<f32>),
    /// In memory, double precision.
    F64(Array2<f64>),
}

/// A view of [`Gradients`] with its element type.
#[derive(Debug, Clone, Copy)]
pub enum GradientsView<'a> {
    /// Single precision.
    F32(ArrayView2<'a, f32>),
    /// Double precision.
    F64(ArrayView2<'a, f64>),
}

impl Gradients {
    /// Opens the matrix of `source`: a `.npy` file of little-endian `f32` or `f64` in C order is mapped, everything
    /// else that [`Source`] reads is held in memory. A tensor of a `.safetensors` file is named as `PATH:NAME`.
    ///
    /// # Errors
    /// Not two axes; no row or column; an element that is not finite, with its row and column.
    pub fn open(source: &Source) -> Result<Self> {
        let gradients = Self::read(source)?;
        let name = source.to_string();
        match gradients.view_named(&name)? {
            GradientsView::F32(view) => check_finite(view, &name)?,
            GradientsView::F64(view) => check_finite(view, &name)?,
        }
        Ok(gradients)
    }

    fn read(source: &Source) -> Result<Self> {
        if let Some(path) = source.path() {
            let ending = path.extension().and_then(|e| e.to_str());
            if ending == Some("safetensors") {
                let select = if let Source::File { select, .. } = source { select.as_deref() } else { None };
                return Self::of(super::weights::tensor(path, select)?, source);
            }
            if ending == Some("npy") {
                let mapped = Mapped::open(path)?;
                if mapped.shape().len() == 2 && mapped.is_c_order() && mapped.reals().is_some() {
                    return Ok(Self::Mapped(mapped));
                }
            }
        }
        Self::of(source.array()?, source)
    }

    fn of(array: Array, source: &Source) -> Result<Self> {
        let shape = array.shape().to_vec();
        let two = |_| {
            Error::input(
                source.to_string(),
                format!("has shape {shape:?}; gradients are a matrix (m, d), one gradient a row"),
            )
        };
        match array {
            Array::F32(a) => {
                let a = a.into_dimensionality().map_err(two)?;
                Ok(Self::F32(a.as_standard_layout().into_owned()))
            }
            other => {
                let dtype = other.dtype();
                let a = other.into_f64().ok_or_else(|| {
                    Error::input(source.to_string(), format!("has dtype {dtype}; gradients are real numbers"))
                })?;
                let a: Array2<f64> = a.into_dimensionality().map_err(two)?;
                Ok(Self::F64(a.as_standard_layout().into_owned()))
            }
        }
    }

    fn view_named(&self, name: &str) -> Result<GradientsView<'_>> {
        let view = self.view();
        let (m, d) = view.dim();
        if m == 0 || d == 0 {
            return Err(Error::input(name, format!("is empty (shape ({m}, {d}))")));
        }
        Ok(view)
    }

    /// The matrix.
    pub fn view(&self) -> GradientsView<'_> {
        match self {
            Self::F32(a) => GradientsView::F32(a.view()),
            Self::F64(a) => GradientsView::F64(a.view()),
            Self::Mapped(map) => {
                let shape = (map.shape()[0], map.shape()[1]);
                let fits = "checked when opened";
                match map.reals().expect(fits) {
                    Reals::F32(values) => GradientsView::F32(ArrayView2::from_shape(shape, values).expect(fits)),
                    Reals::F64(values) => GradientsView::F64(ArrayView2::from_shape(shape, values).expect(fits)),
                }
            }
        }
    }
}

impl GradientsView<'_> {
    /// (m, d).
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Self::F32(a) => a.dim(),
            Self::F64(a) => a.dim(),
        }
    }

    /// The columns `keep`, ascending indices below d, copied in single precision.
    pub fn columns(&self, keep: &[usize]) -> Array2<f32> {
        match self {
            Self::F32(a) => columns(*a, keep),
            Self::F64(a) => columns(*a, keep),
        }
    }
}

/// The columns `keep` of `a (m, d)` in C order, in single precision.
pub(super) fn columns<T: Real>(a: ArrayView2<'_, T>, keep: &[usize]) -> Array2<f32> {
    let mut chosen = Array2::zeros((a.nrows(), keep.len()));
    chosen.axis_iter_mut(Axis(0)).into_par_iter().zip(a.axis_iter(Axis(0))).for_each(|(mut row, all)| {
        row.iter_mut().zip(keep).for_each(|(x, &k)| *x = all[k].to_f64() as f32);
    });
    chosen
}

/// That a gradient matrix has rows, columns, and rows without gaps.
pub(crate) fn check_rows<T>(gradients: ArrayView2<'_, T>) -> Result<()> {
    let (m, d) = gradients.dim();
    if m == 0 || d == 0 {
        return Err(Error::input("grads", format!("is empty (shape ({m}, {d}))")));
    }
    if d > 1 && gradients.strides()[1] != 1 {
        return Err(Error::input("grads", "has rows with gaps; pass a matrix in C order"));
    }
    Ok(())
}

/// That every element is finite; the error names the first that is not.
pub(crate) fn check_finite<T: Real>(gradients: ArrayView2<'_, T>, name: &str) -> Result<()> {
    let bad =
        gradients.axis_iter(Axis(0)).into_par_iter().enumerate().find_map_first(|(i, row)| {
            row.iter().position(|x| !x.to_f64().is_finite()).map(|j| (i, j, row[j].to_f64()))
        });
    match bad {
        Some((i, j, x)) => {
            Err(Error::input(name, format!("row {i}, column {j} (counted from 0) is {x}; every value must be finite")))
        }
        None => Ok(()),
    }
}

/// That a damping is a positive number.
pub(crate) fn check_damp(damp: f64) -> Result<()> {
    if damp > 0.0 && damp.is_finite() { Ok(()) } else { Err(Error::parameter("damp", damp, "above 0 and finite")) }
}

/// That a vector `x` has the length d of the gradients.
pub(crate) fn check_vector(x: &[f64], d: usize) -> Result<()> {
    if x.len() != d {
        return Err(Error::input("x", format!("has {} elements, but the gradients have d = {d}", x.len())));
    }
    match x.iter().position(|x| !x.is_finite()) {
        Some(i) => Err(Error::input("x", format!("element {i} (counted from 0) is {}; it must be finite", x[i]))),
        None => Ok(()),
    }
}
