//! Rounding to the levels of a quantiser, with straight-through gradients.

use super::element::{Element, elements, for_type, vectorised, with_all};
use super::gradient::hand_over;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage,
};

/// What the gradient does where a value lies beyond the last level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// It is 0, as the derivative of a clip.
    Stops,
    /// It passes as if nothing had been clipped.
    Passes,
}

/// `(clip(round(x / s) + z) − z) s` of (x, s, z).
pub struct FakeQuantise {
    /// First and last code.
    pub codes: (f64, f64),
    /// Consecutive elements that share a scale; scales repeat when they are used up.
    pub run: usize,
    pub beyond: Beyond,
}

/// Where a value falls.
enum Place<T> {
    /// Its code.
    Inside(T),
    /// The last code on its side.
    Outside(T),
}

impl FakeQuantise {
    /// The code of `x`. A whole zero is added after rounding, so that ties fall the same for every zero.
    #[inline(always)]
    fn code<T: Element>(&self, x: T, s: T, z: T) -> Place<T> {
        let (low, high) = (T::from_f64(self.codes.0), T::from_f64(self.codes.1));
        let whole = z == z.round_ties_even();
        let code = if whole { (x / s).round_ties_even() + z } else { (x / s + z).round_ties_even() };
        if code < low {
            Place::Outside(low)
        } else if code > high {
            Place::Outside(high)
        } else {
            Place::Inside(code)
        }
    }

    fn forward<T: Element>(&self, x: &[T], s: &[T], z: &[T]) -> Vec<T> {
        let mut y = Vec::with_capacity(x.len());
        vectorised(
            #[inline(always)]
            || {
                for (run, x) in x.chunks(self.run).enumerate() {
                    let (s, z) = (s[run % s.len()], z[run % z.len()]);
                    y.extend(x.iter().map(|&x| match self.code(x, s, z) {
                        Place::Inside(code) | Place::Outside(code) => (code - z) * s,
                    }));
                }
            },
        );
        y
    }

    /// Gradients of x, s and z. Inside, ŵ = (round(x/s)) s has the derivatives 1, round(x/s) − x/s and 0; beyond the last
    /// code Q, ŵ = (Q − z) s has 0, Q − z and −s.
    fn backward<T: Element>(&self, [x, s, z, g]: [&[T]; 4]) -> [Vec<T>; 3] {
        let (mut gx, mut gs, mut gz) =
            (Vec::with_capacity(x.len()), vec![T::zero(); s.len()], vec![T::zero(); z.len()]);
        let passed = if self.beyond == Beyond::Passes { T::one() } else { T::zero() };
        vectorised(
            #[inline(always)]
            || {
                for (run, (x, g)) in x.chunks(self.run).zip(g.chunks(self.run)).enumerate() {
                    let (at_s, at_z) = (run % s.len(), run % z.len());
                    let (s, z) = (s[at_s], z[at_z]);
                    for (&x, &g) in x.iter().zip(g) {
                        match self.code(x, s, z) {
                            Place::Inside(code) => {
                                gx.push(g);
                                gs[at_s] += g * (code - z - x / s);
                            }
                            Place::Outside(code) => {
                                gx.push(g * passed);
                                gs[at_s] += g * (code - z);
                                gz[at_z] += -(g * s);
                            }
                        }
                    }
                }
            },
        );
        [gx, gs, gz]
    }
}

impl CustomOp3 for FakeQuantise {
    fn name(&self) -> &'static str {
        "fake_quantise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        s: &CpuStorage,
        ls: &Layout,
        z: &CpuStorage,
        lz: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = for_type!(x.dtype(), T => {
            let y = self.forward::<T>(&elements(x, lx)?, &elements(s, ls)?, &elements(z, lz)?);
            <T as WithDType>::to_cpu_storage_owned(y)
        });
        Ok((y, lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        s: &Tensor,
        z: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        for_type!(x.dtype(), T => {
            let [gx, gs, gz] = with_all::<T, _, 4>([x, s, z, g], |all| Ok(self.backward(all)))?;
            let give = |tensor: &Tensor, gradient| if tensor.track_op() { hand_over::<T>(tensor, gradient) } else { Ok(None) };
            Ok((give(x, gx)?, give(s, gs)?, give(z, gz)?))
        })
    }
}

/// The nearest whole numbers, ties to even; the gradient passes.
pub struct Round;

impl CustomOp1 for Round {
    fn name(&self) -> &'static str {
        "round_straight_through"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = for_type!(x.dtype(), T => {
            let x = elements::<T>(x, lx)?;
            let rounded = vectorised(#[inline(always)] || x.iter().map(|&x| Element::round_ties_even(x)).collect::<Vec<T>>());
            <T as WithDType>::to_cpu_storage_owned(rounded)
        });
        Ok((y, lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        pass_on(x, g, 1.0)
    }
}

/// The same values; the gradient is multiplied by a factor.
pub struct ScaleGradient(pub f64);

impl CustomOp1 for ScaleGradient {
    fn name(&self) -> &'static str {
        "scale_gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = for_type!(x.dtype(), T => <T as WithDType>::to_cpu_storage_owned(elements::<T>(x, lx)?.into_owned()));
        Ok((y, lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        pass_on(x, g, self.0)
    }
}

/// The gradient `g` of the output, times `factor`, as that of `x`.
fn pass_on(x: &Tensor, g: &Tensor, factor: f64) -> Result<Option<Tensor>> {
    for_type!(x.dtype(), T => {
        let factor = T::from_f64(factor);
        let gradient = with_all::<T, _, _>([g], |[g]| Ok(g.iter().map(|&g| g * factor).collect::<Vec<T>>()))?;
        hand_over(x, gradient)
    })
}
