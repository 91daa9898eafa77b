//! Derivatives with respect to inputs, carried forward: values, first and second derivatives along directions.
//!
//! A [`Jet`] of u(x) along directions e₁ … e_D holds u, ∂u/∂e_k and ∂²u/∂e_k² in one tensor, and a layer takes a jet to
//! a jet. One ordinary backward pass over the result gives the gradients in the parameters, which is all that a
//! physics-informed network needs. Mixed derivatives follow by polarisation:
//! ∂²u/∂x∂y = ½ (∂²u/∂(x+y)² − ∂²u/∂x² − ∂²u/∂y²).

use crate::ops;
use crate::ops::element::{Element, for_type, vectorised, with_elements};
use crate::ops::gradient::hand_over;
use crate::ops::rows::column_sums;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

/// Values and derivatives along D directions, (1 + 2D, n, width): the value, the D first and the D second derivatives.
#[derive(Debug, Clone)]
pub struct Jet {
    parts: Tensor,
}

impl Jet {
    /// The inputs themselves: `x` (n, width) moving along `directions` (D, width).
    pub fn of_inputs(x: &Tensor, directions: &Tensor) -> Result<Self> {
        let (n, width) = x.dims2()?;
        let (d, direction_width) = directions.dims2()?;
        if direction_width != width {
            bail!("directions have {direction_width} components, but they must have {width} as the inputs");
        }
        let first = directions.unsqueeze(1)?.broadcast_as((d, n, width))?;
        let second = Tensor::zeros((d, n, width), x.dtype(), x.device())?;
        Ok(Self { parts: Tensor::cat(&[&x.unsqueeze(0)?, &first, &second], 0)? })
    }

    /// Number of directions.
    pub fn directions(&self) -> usize {
        self.parts.dims()[0] / 2
    }

    /// The values (n, width).
    pub fn value(&self) -> Result<Tensor> {
        self.parts.get(0)
    }

    /// The first derivatives along direction `k` (n, width).
    pub fn first(&self, k: usize) -> Result<Tensor> {
        self.parts.get(1 + k)
    }

    /// The second derivatives along direction `k` (n, width).
    pub fn second(&self, k: usize) -> Result<Tensor> {
        self.parts.get(1 + self.directions() + k)
    }

    /// `x wᵀ + b`; derivatives do not see the bias.
    pub fn linear(&self, w: &Tensor, b: Option<&Tensor>) -> Result<Self> {
        let parts = ops::linear(&self.parts, w, None)?;
        let Some(b) = b else { return Ok(Self { parts }) };
        let value = parts.narrow(0, 0, 1)?.broadcast_add(b)?;
        let derivatives = parts.narrow(0, 1, 2 * self.directions())?;
        Ok(Self { parts: Tensor::cat(&[&value, &derivatives], 0)? })
    }

    /// `tanh(x wᵀ + b)`, bias and activation of all parts in one pass.
    pub fn linear_tanh(&self, w: &Tensor, b: &Tensor) -> Result<Self> {
        let parts = ops::linear(&self.parts, w, None)?;
        if ops::is_unfused() {
            return tanh_of_parts(&parts, b, self.directions());
        }
        Ok(Self { parts: parts.contiguous()?.apply_op2(&b.contiguous()?, TanhJet)? })
    }
}

/// [`TanhJet`] from differentiable tensor operations.
fn tanh_of_parts(parts: &Tensor, b: &Tensor, d: usize) -> Result<Jet> {
    let t = parts.narrow(0, 0, 1)?.broadcast_add(b)?.tanh()?;
    let slope = (1.0 - t.sqr()?)?;
    let (first, second) = (parts.narrow(0, 1, d)?, parts.narrow(0, 1 + d, d)?);
    let bend = (first.sqr()?.broadcast_mul(&t)? * 2.0)?;
    let y1 = first.broadcast_mul(&slope)?;
    let y2 = (second - bend)?.broadcast_mul(&slope)?;
    Ok(Jet { parts: Tensor::cat(&[&t, &y1, &y2], 0)? })
}

/// Adds a bias (width) to the value of a jet (1 + 2D, n, width) and applies tanh to the jet. With t = tanh(z) and
/// s = 1 − t²: y = t, y₁ = s z₁, y₂ = s z₂ − 2 t s z₁².
#[derive(Debug, Clone, Copy)]
struct TanhJet;

/// The gradient of [`TanhJet`] in the jet before it, from that jet, its result and the gradient of its result.
#[derive(Debug, Clone, Copy)]
struct TanhJetGradient;

impl CustomOp2 for TanhJet {
    fn name(&self) -> &'static str {
        "tanh-jet"
    }

    fn cpu_fwd(&self, z: &CpuStorage, zl: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (shape, parts) = (zl.shape(), shape_of_parts(zl)?);
        if bl.dims() != [parts.width] {
            bail!("the bias has shape {:?}, but it must be ({})", bl.dims(), parts.width);
        }
        let storage = match z {
            CpuStorage::F32(_) => f32::to_cpu_storage_owned(bend(&parts, slice::<f32>(z, zl)?, slice(b, bl)?)),
            CpuStorage::F64(_) => f64::to_cpu_storage_owned(bend(&parts, slice::<f64>(z, zl)?, slice(b, bl)?)),
            _ => bail!("jets are of f32 or f64"),
        };
        Ok((storage, shape.clone()))
    }

    fn bwd(&self, z: &Tensor, b: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gz = z.apply_op3_no_bwd(y, &grad.contiguous()?, &TanhJetGradient)?;
        let gb = for_type!(z.dtype(), T => {
            hand_over(b, with_elements::<T, _>(&gz.get(0)?, |g| Ok(column_sums(g, b.elem_count())))?)?
        });
        Ok((Some(gz), gb))
    }
}

impl CustomOp3 for TanhJetGradient {
    fn name(&self) -> &'static str {
        "tanh-jet-gradient"
    }

    fn cpu_fwd(
        &self,
        z: &CpuStorage,
        zl: &Layout,
        y: &CpuStorage,
        yl: &Layout,
        g: &CpuStorage,
        gl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (shape, parts) = (zl.shape(), shape_of_parts(zl)?);
        let storage = match z {
            CpuStorage::F32(_) => {
                f32::to_cpu_storage_owned(unbend(&parts, slice::<f32>(z, zl)?, slice(y, yl)?, slice(g, gl)?))
            }
            CpuStorage::F64(_) => {
                f64::to_cpu_storage_owned(unbend(&parts, slice::<f64>(z, zl)?, slice(y, yl)?, slice(g, gl)?))
            }
            _ => bail!("jets are of f32 or f64"),
        };
        Ok((storage, shape.clone()))
    }
}

struct Parts {
    directions: usize,
    /// Values in one part.
    size: usize,
    width: usize,
}

fn shape_of_parts(layout: &Layout) -> Result<Parts> {
    let (parts, n, width) = layout.shape().dims3()?;
    if parts % 2 == 0 {
        bail!("a jet has one value and as many first as second derivatives, but this has {parts} parts");
    }
    Ok(Parts { directions: parts / 2, size: n * width, width })
}

fn slice<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("a jet must be contiguous"),
    }
}

/// Rows that one task works on: enough work to be worth a task, little enough to stay in a core's cache.
fn rows_a_task(width: usize) -> usize {
    (4096 / width.max(1)).max(1)
}

/// The same rows of every part, task by task.
fn by_task<'a, T: Element>(values: &'a mut [T], parts: &Parts) -> Vec<Vec<&'a mut [T]>> {
    let chunk = rows_a_task(parts.width) * parts.width.max(1);
    let mut tasks: Vec<Vec<&mut [T]>> = (0..parts.size.div_ceil(chunk)).map(|_| Vec::new()).collect();
    for part in values.chunks_mut(parts.size.max(1)) {
        for (task, rows) in tasks.iter_mut().zip(part.chunks_mut(chunk)) {
            task.push(rows);
        }
    }
    tasks
}

fn bend<T: Element>(parts: &Parts, z: &[T], b: &[T]) -> Vec<T> {
    let mut y = vec![T::zero(); z.len()];
    let chunk = rows_a_task(parts.width) * parts.width.max(1);
    by_task(&mut y, parts).into_par_iter().enumerate().for_each(|(task, mut y)| {
        vectorised(
            #[inline(always)]
            || {
                let len = y[0].len();
                let z = |part: usize| &z[part * parts.size + task * chunk..][..len];
                let (value, derivatives) = y.split_at_mut(1);
                let t = &mut *value[0];
                for (t, z) in t.chunks_mut(parts.width).zip(z(0).chunks(parts.width)) {
                    for ((t, &z), &b) in t.iter_mut().zip(z).zip(b) {
                        *t = (z + b).tanh();
                    }
                }
                let two = T::one() + T::one();
                let (first, second) = derivatives.split_at_mut(parts.directions);
                for k in 0..parts.directions {
                    let (z1, z2) = (z(1 + k), z(1 + parts.directions + k));
                    for ((((y1, y2), &t), &z1), &z2) in
                        first[k].iter_mut().zip(&mut *second[k]).zip(&*t).zip(z1).zip(z2)
                    {
                        let slope = T::one() - t * t;
                        *y1 = slope * z1;
                        *y2 = slope * (z2 - two * t * z1 * z1);
                    }
                }
            },
        )
    });
    y
}

/// With s = 1 − t², s′ = −2ts and s″ = s(6t² − 2):
/// ḡ = g s + Σ (g₁ s′ z₁ + g₂ (s′ z₂ + s″ z₁²)), ḡ₁ = g₁ s + 2 g₂ s′ z₁, ḡ₂ = g₂ s.
fn unbend<T: Element>(parts: &Parts, z: &[T], y: &[T], g: &[T]) -> Vec<T> {
    let mut gz = vec![T::zero(); z.len()];
    let chunk = rows_a_task(parts.width) * parts.width.max(1);
    let d = parts.directions;
    by_task(&mut gz, parts).into_par_iter().enumerate().for_each(|(task, mut gz)| {
        vectorised(
            #[inline(always)]
            || {
                let len = gz[0].len();
                let at = |part: usize| part * parts.size + task * chunk..part * parts.size + task * chunk + len;
                let (value, derivatives) = gz.split_at_mut(1);
                let (first, second) = derivatives.split_at_mut(d);
                let t = &y[at(0)];
                let two = T::one() + T::one();
                let six = two + two + two;
                for ((out, &g), &t) in value[0].iter_mut().zip(&g[at(0)]).zip(t) {
                    *out = g * (T::one() - t * t);
                }
                for k in 0..d {
                    let (z1, z2) = (&z[at(1 + k)], &z[at(1 + d + k)]);
                    let (g1, g2) = (&g[at(1 + k)], &g[at(1 + d + k)]);
                    let outs = value[0].iter_mut().zip(first[k].iter_mut()).zip(second[k].iter_mut());
                    let ins = t.iter().zip(z1).zip(z2).zip(g1).zip(g2);
                    for (((out, out1), out2), ((((&t, &z1), &z2), &g1), &g2)) in outs.zip(ins) {
                        let s = T::one() - t * t;
                        let s1 = -two * t * s;
                        *out += g1 * s1 * z1 + g2 * (s1 * z2 + s * (six * t * t - two) * z1 * z1);
                        *out1 = g1 * s + two * g2 * s1 * z1;
                        *out2 = g2 * s;
                    }
                }
            },
        )
    });
    gz
}
