//! The two inner loops behind every product with a wide matrix, in double precision over stored `f32` or `f64`.
//!
//! Both take four rows at once, so that each element of the vector is loaded once for four of the matrix. On x86-64 the
//! widest instructions of the machine are chosen at run time: the loops are bound by memory only with them (one thread,
//! rows of 8192 in cache: 17 GB/s of `f32` with the baseline's SSE2, 60 GB/s with AVX-512).

use crate::Real;

/// Columns summed side by side: one AVX-512 register, two of AVX2.
const LANES: usize = 8;

/// Rows taken at once.
pub const ROWS: usize = 4;

macro_rules! for_each_instruction_set {
    ($(#[$doc:meta])* $name:ident, $body:ident, ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        $(#[$doc])*
        #[inline]
        pub fn $name<T: Real>($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq")]
                fn avx512<T: Real>($($argument: $type),*) $(-> $result)? {
                    $body::<T, true>($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2<T: Real>($($argument: $type),*) $(-> $result)? {
                    $body::<T, true>($($argument),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                {
                    // SAFETY: the machine has the instructions that the function is compiled for.
                    return unsafe { avx512::<T>($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    return unsafe { avx2::<T>($($argument),*) };
                }
            }
            $body::<T, { cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64") }>($($argument),*)
        }
    };
}

for_each_instruction_set!(
    /// The inner products of four rows with `x`; all five slices have the same length.
    dot_rows,
    dot_rows_body,
    (rows: [&[T]; ROWS], x: &[f64]) -> [f64; ROWS]
);

for_each_instruction_set!(
    /// `y += Σ_r c_r row_r` for four rows; all five slices have the same length.
    add_rows,
    add_rows_body,
    (y: &mut [f64], c: [f64; ROWS], rows: [&[T]; ROWS])
);

/// `a b + c`, fused where the machine does so in one instruction (elsewhere the fused form is a slow function call).
#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn dot_rows_body<T: Real, const FUSED: bool>(rows: [&[T]; ROWS], x: &[f64]) -> [f64; ROWS] {
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let whole = x_chunks.len();
    let chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..whole]);
    let mut sums = [[0.0; LANES]; ROWS];
    for (k, x) in x_chunks.iter().enumerate() {
        for r in 0..ROWS {
            let row = &chunks[r][k];
            for l in 0..LANES {
                sums[r][l] = multiply_add::<FUSED>(row[l].to_f64(), x[l], sums[r][l]);
            }
        }
    }
    let mut total = [0.0; ROWS];
    for r in 0..ROWS {
        let rest = &rows[r][whole * LANES..];
        total[r] = sums[r].iter().sum::<f64>() + rest.iter().zip(x_rest).map(|(a, x)| a.to_f64() * x).sum::<f64>();
    }
    total
}

#[inline(always)]
fn add_rows_body<T: Real, const FUSED: bool>(y: &mut [f64], c: [f64; ROWS], rows: [&[T]; ROWS]) {
    let n = y.len();
    let [a, b, d, e] = rows.map(|row| &row[..n]);
    for (k, y) in y.iter_mut().enumerate() {
        let mut sum = multiply_add::<FUSED>(c[0], a[k].to_f64(), *y);
        sum = multiply_add::<FUSED>(c[1], b[k].to_f64(), sum);
        sum = multiply_add::<FUSED>(c[2], d[k].to_f64(), sum);
        *y = multiply_add::<FUSED>(c[3], e[k].to_f64(), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gives_the_plain_sums() {
        for n in [0, 1, 7, 8, 9, 31, 40] {
            let row = |r: usize| (0..n).map(|k| ((k * 7 + r * 3) % 11) as f32 - 5.0).collect::<Vec<f32>>();
            let rows = [row(0), row(1), row(2), row(3)];
            let rows = [&rows[0][..], &rows[1], &rows[2], &rows[3]];
            let x: Vec<f64> = (0..n).map(|k| (k % 5) as f64 - 2.0).collect();
            let dots = dot_rows(rows, &x);
            let mut y = x.clone();
            let c = [1.0, -2.0, 3.0, 0.5];
            add_rows(&mut y, c, rows);
            // Small integers and halves: exact in any order.
            for r in 0..ROWS {
                assert_eq!(dots[r], rows[r].iter().zip(&x).map(|(&a, x)| f64::from(a) * x).sum::<f64>());
            }
            for k in 0..n {
                assert_eq!(y[k], x[k] + (0..ROWS).map(|r| c[r] * f64::from(rows[r][k])).sum::<f64>());
            }
        }
    }
}
