//! The linear layer `y = x wᵀ + b`. Its gradients are `g w`, `gᵀ x` and the column sums of g.

use super::element::{Element, elements, for_type, tensor, with_elements};
use super::matrix::{Threads, View, product};
use super::rows::{buffer, column_sums};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage,
};

pub struct Linear;

fn forward<T: Element>(x: &[T], w: &[T], b: Option<&[T]>, inputs: usize, outputs: usize) -> Vec<T> {
    let rows = x.len() / inputs.max(1);
    let mut y = match b {
        Some(b) => b.repeat(rows),
        None => buffer(rows * outputs),
    };
    let (x, w) = (View::new(x, rows, inputs), View::new(w, outputs, inputs));
    product(T::one(), x, w.t(), b.is_some(), &mut y, outputs, Threads::All);
    y
}

/// The gradients of x and w, where wanted, and of b.
fn backward<T: Element>(x: &Tensor, w: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>, Tensor)> {
    let (outputs, inputs) = w.dims2()?;
    with_elements::<T, _>(x, |xs| {
        with_elements::<T, _>(w, |ws| {
            with_elements::<T, _>(g, |gs| {
                let rows = xs.len() / inputs.max(1);
                let gradient = View::new(gs, rows, outputs);
                let gx = x.track_op().then(|| {
                    let mut gx = buffer(xs.len());
                    product(T::one(), gradient, View::new(ws, outputs, inputs), false, &mut gx, inputs, Threads::All);
                    tensor(gx, x.shape())
                });
                let gw = w.track_op().then(|| {
                    let mut gw = buffer(ws.len());
                    product(T::one(), gradient.t(), View::new(xs, rows, inputs), false, &mut gw, inputs, Threads::All);
                    tensor(gw, w.shape())
                });
                Ok((gx.transpose()?, gw.transpose()?, tensor(column_sums(gs, outputs), outputs)?))
            })
        })
    })
}

fn output_shape(x: &Layout, outputs: usize) -> Shape {
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(outputs);
    dims.into()
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = lw.shape().dims2()?;
        for_type!(x.dtype(), T => {
            let y = forward::<T>(&elements(x, lx)?, &elements(w, lw)?, None, inputs, outputs);
            Ok((T::to_cpu_storage_owned(y), output_shape(lx, outputs)))
        })
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gx, gw, _) = for_type!(x.dtype(), T => backward::<T>(x, w, g)?);
        Ok((gx, gw))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = lw.shape().dims2()?;
        for_type!(x.dtype(), T => {
            let b = elements::<T>(b, lb)?;
            let y = forward::<T>(&elements(x, lx)?, &elements(w, lw)?, Some(&b), inputs, outputs);
            Ok((T::to_cpu_storage_owned(y), output_shape(lx, outputs)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (gx, gw, gb) = for_type!(x.dtype(), T => backward::<T>(x, w, g)?);
        Ok((gx, gw, Some(gb)))
    }
}
