//! The matrix product as an operation that can be differentiated any number of times: its gradients are products too.

use super::element::{for_type, is_fusible};
use super::matrix::{View, new_product};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage, bail};

/// `a b` of matrices (m, k) and (k, n), whatever their strides.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if is_fusible(a) { a.apply_op2(b, Product) } else { a.matmul(b) }
}

struct Product;

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((m, k), (inner, n)) = (la.shape().dims2()?, lb.shape().dims2()?);
        if k != inner {
            bail!("a matrix ({m}, {k}) cannot be multiplied by one ({inner}, {n})");
        }
        for_type!(a.dtype(), T => {
            let (a, b) = (T::cpu_storage_as_slice(a)?, T::cpu_storage_as_slice(b)?);
            let product = new_product(View::of(a, la)?, View::of(b, lb)?);
            Ok((T::to_cpu_storage_owned(product), (m, n).into()))
        })
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = |tracked: &Tensor, left: &Tensor, right: &Tensor| {
            tracked.track_op().then(|| matmul(left, right)).transpose()
        };
        Ok((gradient(a, g, &b.t()?)?, gradient(b, &a.t()?, g)?))
    }
}
