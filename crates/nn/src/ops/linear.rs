//! The linear layer `y = φ(x wᵀ + b)` with an activation φ or none.
//!
//! With h the gradient of the argument of φ, those of x, w and b are `h w`, `hᵀ x` and the column sums of h.

use super::activation::Activation;
use super::element::{Element, elements, for_type, with_elements};
use super::gradient::hand_over;
use super::matrix::{Threads, View, new_product, product};
use super::rows::column_sums;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, backend::BackendStorage};
use std::borrow::Cow;
use std::sync::OnceLock;

/// The layer, of (x, w) or (x, w, b).
#[derive(Default)]
pub struct Linear {
    pub activation: Option<Activation>,
    /// What the activation was applied to, kept for the backward pass.
    argument: OnceLock<CpuStorage>,
}

impl Linear {
    pub fn with(activation: Activation) -> Self {
        Self { activation: Some(activation), ..Self::default() }
    }

    fn forward<T: Element>(&self, x: &[T], w: &[T], b: Option<&[T]>, lw: &Layout) -> Result<CpuStorage> {
        let (outputs, inputs) = lw.shape().dims2()?;
        let rows = x.len() / inputs.max(1);
        let (x, w) = (View::new(x, rows, inputs), View::new(w, outputs, inputs));
        let y = match b {
            Some(b) => {
                let mut y = b.repeat(rows);
                product(T::one(), x, w.t(), true, &mut y, outputs, Threads::All);
                y
            }
            None => new_product(x, w.t()),
        };
        let Some(activation) = self.activation else { return Ok(T::to_cpu_storage_owned(y)) };
        let values = activation.values(&y);
        // The forward pass runs once in the life of an operation.
        let _ = self.argument.set(T::to_cpu_storage_owned(y));
        Ok(T::to_cpu_storage_owned(values))
    }

    /// The gradients of x, w and, if it is given, b.
    fn gradients<T: Element>(
        &self,
        [x, w]: [&Tensor; 2],
        b: Option<&Tensor>,
        g: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let (outputs, inputs) = w.dims2()?;
        let rows = x.elem_count() / inputs.max(1);
        with_elements::<T, _>(g, |g| {
            let h = match (self.activation, self.argument.get()) {
                (Some(activation), Some(argument)) => {
                    Cow::Owned(activation.pull_back(T::cpu_storage_as_slice(argument)?, g))
                }
                _ => Cow::Borrowed(g),
            };
            let view = View::new(&h, rows, outputs);
            let mut gradients = [None, None, None];
            if x.track_op() {
                let gx = with_elements::<T, _>(w, |w| Ok(new_product(view, View::new(w, outputs, inputs))))?;
                gradients[0] = hand_over(x, gx)?;
            }
            if w.track_op() {
                let gw = with_elements::<T, _>(x, |x| Ok(new_product(view.t(), View::new(x, rows, inputs))))?;
                gradients[1] = hand_over(w, gw)?;
            }
            if let Some(b) = b.filter(|b| b.track_op()) {
                gradients[2] = hand_over(b, column_sums(&h, outputs))?;
            }
            Ok(gradients)
        })
    }
}

fn output_shape(x: &Layout, w: &Layout) -> Shape {
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(w.dims()[0]);
    dims.into()
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = for_type!(x.dtype(), T => self.forward::<T>(&elements(x, lx)?, &elements(w, lw)?, None, lw)?);
        Ok((y, output_shape(lx, lw)))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [gx, gw, _] = for_type!(x.dtype(), T => self.gradients::<T>([x, w], None, g)?);
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
        let y = for_type!(x.dtype(), T => {
            let b = elements::<T>(b, lb)?;
            self.forward::<T>(&elements(x, lx)?, &elements(w, lw)?, Some(&b), lw)?
        });
        Ok((y, output_shape(lx, lw)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [gx, gw, gb] = for_type!(x.dtype(), T => self.gradients::<T>([x, w], Some(b), g)?);
        Ok((gx, gw, gb))
    }
}
