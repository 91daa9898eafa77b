//! Scaled dot-product attention, block of queries by block, so that no matrix of all scores is ever held.
//!
//! The backward pass computes the probabilities again from queries and keys.

use super::element::{Element, elements, for_type, sum_pairs, tensor, vectorised, with_all};
use super::matrix::{Threads, View, product};
use super::rows::{filled_by, zeros};
use super::softmax::softmax_in_place;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage,
};
use rayon::prelude::*;
use std::borrow::Cow;

/// Queries of a block: with a few hundred keys its scores stay in a core's cache.
const BLOCK: usize = 64;

/// What hides keys from queries.
#[derive(Clone)]
pub enum Hidden {
    Nothing,
    /// What comes after the query.
    Future,
    /// What an additive mask (1 or batch, 1 or heads, 1 or queries, keys) says.
    Masked(Tensor),
}

/// Attention of separate q, k, v (batch, heads, rows, width).
pub struct Attention {
    pub hidden: Hidden,
}

/// Attention of one tensor (batch, rows, 3 · heads · width) that holds queries, keys and values side by side.
pub struct SelfAttention {
    pub heads: usize,
    pub hidden: Hidden,
}

/// Where the rows of every head lie: those of head h of batch item b start at `start + b · batch + h · head` and are
/// `row` apart.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    batch: usize,
    head: usize,
    row: usize,
    rows: usize,
    width: usize,
}

impl Place {
    /// Of a contiguous tensor (batch, heads, rows, width).
    fn contiguous((_, heads, rows, width): (usize, usize, usize, usize)) -> Self {
        Self { start: 0, batch: heads * rows * width, head: rows * width, row: width, rows, width }
    }

    /// Of a tensor (batch, heads, rows, width) over its own memory, if its last axis is contiguous.
    fn of(layout: &Layout) -> Option<Self> {
        match (layout.dims(), layout.stride()) {
            (&[_, _, rows, width], &[batch, head, row, 1]) => {
                Some(Self { start: layout.start_offset(), batch, head, row, rows, width })
            }
            _ => None,
        }
    }

    fn view<'a, T: Element>(&self, entries: &'a [T], batch: usize, head: usize) -> View<'a, T> {
        let start = self.start + batch * self.batch + head * self.head;
        View::strided(entries.get(start..).unwrap_or(&[]), self.rows, self.width, self.row)
    }

    /// Copies the rows of an item's heads to where they belong in the item.
    fn put<T: Element>(&self, heads: &[&[T]], item: &mut [T]) {
        for (h, head) in heads.iter().enumerate() {
            for (i, row) in head.chunks_exact(self.width).enumerate() {
                item[self.start + h * self.head + i * self.row..][..self.width].copy_from_slice(row);
            }
        }
    }
}

/// An operand's memory and where its heads lie in it.
fn operand<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<(Cow<'a, [T]>, Place)> {
    match Place::of(layout) {
        Some(place) => Ok((Cow::Borrowed(T::cpu_storage_as_slice(storage)?), place)),
        None => Ok((elements(storage, layout)?, Place::contiguous(layout.shape().dims4()?))),
    }
}

/// A mask's memory in row-major order, and its shape.
struct MaskRows<T> {
    entries: Vec<T>,
    shape: (usize, usize, usize, usize),
}

impl<T: Element> MaskRows<T> {
    fn new(mask: &Tensor) -> Result<Self> {
        Ok(Self { entries: mask.flatten_all()?.to_vec1()?, shape: mask.dims4()? })
    }

    fn row(&self, batch: usize, head: usize, query: usize) -> &[T] {
        let (b, h, q, keys) = self.shape;
        let at = |index: usize, length: usize| if length == 1 { 0 } else { index };
        &self.entries[((at(batch, b) * h + at(head, h)) * q + at(query, q)) * keys..][..keys]
    }
}

/// The attention of one head.
struct Head<'a, T> {
    q: View<'a, T>,
    k: View<'a, T>,
    v: View<'a, T>,
    batch: usize,
    head: usize,
    causal: bool,
    mask: Option<&'a MaskRows<T>>,
}

impl<T: Element> Head<'_, T> {
    fn scale(&self) -> T {
        T::from_f64(1.0 / (self.q.columns() as f64).sqrt())
    }

    /// Keys that some query before `end` sees.
    fn visible(&self, end: usize) -> usize {
        if self.causal { end + self.k.rows() - self.q.rows() } else { self.k.rows() }
    }

    /// Probabilities (end − begin, visible(end)) of the queries from `begin` to `end`.
    fn probabilities(&self, begin: usize, end: usize, p: &mut [T]) {
        let visible = self.visible(end);
        let keys = self.k.slice_rows(0, visible);
        product(self.scale(), self.q.slice_rows(begin, end), keys.t(), false, p, visible, Threads::One);
        for (i, row) in p.chunks_exact_mut(visible).take(end - begin).enumerate() {
            if let Some(mask) = self.mask {
                row.iter_mut().zip(mask.row(self.batch, self.head, begin + i)).for_each(|(s, &m)| *s += m);
            }
            let (seen, unseen) = row.split_at_mut(self.visible(begin + i + 1));
            vectorised(
                #[inline(always)]
                || softmax_in_place(seen),
            );
            unseen.fill(T::zero());
        }
    }

    /// The result (queries, e).
    fn forward(&self) -> Vec<T> {
        let (queries, e) = (self.q.rows(), self.v.columns());
        let mut out = zeros(queries * e);
        let mut p = zeros(BLOCK.min(queries) * self.k.rows());
        for begin in (0..queries).step_by(BLOCK) {
            let end = (begin + BLOCK).min(queries);
            let visible = self.visible(end);
            self.probabilities(begin, end, &mut p);
            let values = self.v.slice_rows(0, visible);
            let p = View::new(&p, end - begin, visible);
            product(T::one(), p, values, false, &mut out[begin * e..], e, Threads::One);
        }
        out
    }

    /// The gradients of q, k and v from that of the result, g (queries, e).
    ///
    /// With P the probabilities: ∂v = Pᵀ g, S = P ∘ (g vᵀ − rowsum(P ∘ g vᵀ)), ∂q = S k / √d, ∂k = Sᵀ q / √d.
    fn backward(&self, g: View<'_, T>) -> [Vec<T>; 3] {
        let (queries, keys, d, e) = (self.q.rows(), self.k.rows(), self.q.columns(), self.v.columns());
        let (mut gq, mut gk, mut gv) = (zeros(queries * d), zeros(keys * d), zeros(keys * e));
        let (mut p, mut s) = (zeros(BLOCK.min(queries) * keys), zeros(BLOCK.min(queries) * keys));
        for begin in (0..queries).step_by(BLOCK) {
            let end = (begin + BLOCK).min(queries);
            let (count, visible) = (end - begin, self.visible(end));
            let (k, v) = (self.k.slice_rows(0, visible), self.v.slice_rows(0, visible));
            let (q, g) = (self.q.slice_rows(begin, end), g.slice_rows(begin, end));
            self.probabilities(begin, end, &mut p);
            product(T::one(), View::new(&p, count, visible).t(), g, true, &mut gv, e, Threads::One);
            product(T::one(), g, v.t(), false, &mut s, visible, Threads::One);
            vectorised(
                #[inline(always)]
                || {
                    for (s, p) in s.chunks_exact_mut(visible).zip(p.chunks_exact(visible)).take(count) {
                        let total = sum_pairs(s, p, |s, p| s * p);
                        s.iter_mut().zip(p).for_each(|(s, &p)| *s = p * (*s - total));
                    }
                },
            );
            let s = View::new(&s, count, visible);
            product(self.scale(), s, k, false, &mut gq[begin * d..], d, Threads::One);
            product(self.scale(), s.t(), q, true, &mut gk, d, Threads::One);
        }
        [gq, gk, gv]
    }
}

/// Does `work(batch item, head)` for all heads on all threads.
fn each_head<R: Send>(batch: usize, heads: usize, work: impl Fn(usize, usize) -> R + Sync) -> Vec<R> {
    (0..batch * heads).into_par_iter().map(|i| work(i / heads, i % heads)).collect()
}

impl Hidden {
    fn mask<T: Element>(&self) -> Result<Option<MaskRows<T>>> {
        match self {
            Self::Masked(mask) => Ok(Some(MaskRows::new(mask)?)),
            _ => Ok(None),
        }
    }

    fn is_causal(&self) -> bool {
        matches!(self, Self::Future)
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, heads, queries, _) = lq.shape().dims4()?;
        let e = lv.dims()[3];
        for_type!(q.dtype(), T => {
            let ((q, q_at), (k, k_at), (v, v_at)) = (operand::<T>(q, lq)?, operand::<T>(k, lk)?, operand::<T>(v, lv)?);
            let mask = self.hidden.mask()?;
            let outputs = each_head(batch, heads, |b, h| {
                let (q, k, v) = (q_at.view(&q, b, h), k_at.view(&k, b, h), v_at.view(&v, b, h));
                let causal = self.hidden.is_causal();
                Head { q, k, v, batch: b, head: h, causal, mask: mask.as_ref() }.forward()
            });
            Ok((T::to_cpu_storage_owned(outputs.concat()), (batch, heads, queries, e).into()))
        })
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, heads, _, _) = q.dims4()?;
        for_type!(q.dtype(), T => {
            let mask = self.hidden.mask::<T>()?;
            let at = |t: &Tensor| Ok::<_, candle_core::Error>(Place::contiguous(t.dims4()?));
            let (q_at, k_at, v_at, g_at) = (at(q)?, at(k)?, at(v)?, at(g)?);
            let all = with_all::<T, _, 4>([q, k, v, g], |[q, k, v, g]| {
                Ok(each_head(batch, heads, |b, h| {
                    let (q, k, v) = (q_at.view(q, b, h), k_at.view(k, b, h), v_at.view(v, b, h));
                    let causal = self.hidden.is_causal();
                    Head { q, k, v, batch: b, head: h, causal, mask: mask.as_ref() }.backward(g_at.view(g, b, h))
                }))
            })?;
            let gather = |i: usize, like: &Tensor| {
                let parts: Vec<&[T]> = all.iter().map(|gradients| gradients[i].as_slice()).collect();
                tensor(parts.concat(), like.shape())
            };
            Ok((Some(gather(0, q)?), Some(gather(1, k)?), Some(gather(2, v)?)))
        })
    }
}

impl SelfAttention {
    /// Where queries, keys and values lie in (batch, rows, 3 · heads · width).
    fn places(&self, rows: usize, columns: usize) -> [Place; 3] {
        let width = columns / 3 / self.heads;
        let place =
            |i: usize| Place { start: i * columns / 3, batch: rows * columns, head: width, row: columns, rows, width };
        [place(0), place(1), place(2)]
    }

    fn head<'a, T: Element>(
        &self,
        x: &'a [T],
        places: &[Place; 3],
        mask: Option<&'a MaskRows<T>>,
        (b, h): (usize, usize),
    ) -> Head<'a, T> {
        let [q, k, v] = places.map(|place| place.view(x, b, h));
        Head { q, k, v, batch: b, head: h, causal: self.hidden.is_causal(), mask }
    }

    /// Where the heads lie in the result (batch, rows, heads · width).
    fn output(&self, rows: usize, columns: usize) -> Place {
        let width = columns / 3 / self.heads;
        Place { start: 0, batch: rows * columns / 3, head: width, row: columns / 3, rows, width }
    }
}

impl CustomOp1 for SelfAttention {
    fn name(&self) -> &'static str {
        "self_attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, rows, columns) = layout.shape().dims3()?;
        for_type!(x.dtype(), T => {
            let (x, mask) = (elements::<T>(x, layout)?, self.hidden.mask()?);
            let places = self.places(rows, columns);
            let outputs = each_head(batch, self.heads, |b, h| {
                self.head(&x, &places, mask.as_ref(), (b, h)).forward()
            });
            let place = self.output(rows, columns);
            let (out, _) = filled_by(batch * rows * columns / 3, rows * columns / 3, |item, out: &mut [T]| {
                let heads = &outputs[item * self.heads..][..self.heads];
                place.put(&heads.iter().map(Vec::as_slice).collect::<Vec<_>>(), out);
            });
            Ok((T::to_cpu_storage_owned(out), (batch, rows, columns / 3).into()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (batch, rows, columns) = x.dims3()?;
        for_type!(x.dtype(), T => {
            let mask = self.hidden.mask::<T>()?;
            let (places, g_at) = (self.places(rows, columns), self.output(rows, columns));
            let all = with_all::<T, _, 2>([x, g], |[x, g]| {
                Ok(each_head(batch, self.heads, |b, h| {
                    self.head(x, &places, mask.as_ref(), (b, h)).backward(g_at.view(g, b, h))
                }))
            })?;
            let (gx, _) = filled_by(x.elem_count(), rows * columns, |item, gx: &mut [T]| {
                let heads = &all[item * self.heads..][..self.heads];
                for (i, place) in places.iter().enumerate() {
                    place.put(&heads.iter().map(|gradients| gradients[i].as_slice()).collect::<Vec<_>>(), gx);
                }
            });
            Ok(Some(tensor(gx, x.shape())?))
        })
    }
}
