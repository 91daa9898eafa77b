//! Rows of a table by number; the gradient adds up what came to each row, in the order of the numbers.

use super::element::{elements, for_type, with_elements};
use super::gradient::hand_over;
use super::rows::zeros;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};

/// Of a table (rows, d), by numbers below `rows`.
pub struct Embedding {
    pub ids: Vec<u32>,
    pub shape: Shape,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        for_type!(table.dtype(), T => {
            let table = elements::<T>(table, layout)?;
            let mut rows = Vec::with_capacity(self.ids.len() * width);
            self.ids.iter().for_each(|&id| rows.extend_from_slice(&table[id as usize * width..][..width]));
            Ok((T::to_cpu_storage_owned(rows), self.shape.clone()))
        })
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = table.dims2()?;
        for_type!(table.dtype(), T => {
            let mut gradient = zeros::<T>(table.elem_count());
            with_elements::<T, _>(g, |g| {
                for (&id, g) in self.ids.iter().zip(g.chunks_exact(width.max(1))) {
                    let row = &mut gradient[id as usize * width..][..width];
                    row.iter_mut().zip(g).for_each(|(sum, &g)| *sum += g);
                }
                Ok(())
            })?;
            hand_over(table, gradient)
        })
    }
}
