//! The element types that fused operations know, and how their kernels reach a tensor's memory.

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};
use std::borrow::Cow;
use std::iter::Sum;
use std::ops::Neg;

/// `f32` or `f64`.
pub trait Element: WithDType + Default + Neg<Output = Self> + Sum {
    /// The elements of a storage of this type, to be changed.
    fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
    /// Square root.
    fn sqrt(self) -> Self;
}

macro_rules! element {
    ($type:ident, $variant:ident) => {
        impl Element for $type {
            fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Ok(values),
                    _ => bail!("expected a storage of type {}", stringify!($variant)),
                }
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
        }
    };
}
element!(f32, F32);
element!(f64, F64);

/// A tensor's elements in row-major order; copied only if they do not lie so in memory.
pub fn elements<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [T]>> {
    let all = T::cpu_storage_as_slice(storage)?;
    Ok(match layout.contiguous_offsets() {
        Some((start, end)) => Cow::Borrowed(&all[start..end]),
        None => {
            let mut ordered = Vec::with_capacity(layout.shape().elem_count());
            append(all, layout.dims(), layout.stride(), layout.start_offset(), &mut ordered);
            Cow::Owned(ordered)
        }
    })
}

/// Appends the elements that `dims` and `strides` reach from `offset` on, in row-major order.
fn append<T: Copy>(all: &[T], dims: &[usize], strides: &[usize], offset: usize, ordered: &mut Vec<T>) {
    match (dims, strides) {
        ([], _) => ordered.push(all[offset]),
        ([length], [1]) => ordered.extend_from_slice(&all[offset..offset + length]),
        ([length], [stride]) => ordered.extend((0..*length).map(|i| all[offset + i * stride])),
        _ => (0..dims[0]).for_each(|i| append(all, &dims[1..], &strides[1..], offset + i * strides[0], ordered)),
    }
}

/// Runs `f` compiled for the widest vectors of this processor. What is to be vectorised must be inlined into `f`.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
