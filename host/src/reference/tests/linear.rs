//! Products, their scales and their rounding.

use super::*;

proptest! {
    /// The bound that docs/numerics.md derives for an f32 output.
    #[test]
    fn f32_outputs_are_within_their_bound_of_the_truth(
        q in prop::collection::vec(any::<i8>(), 2 * 40),
        t in prop::collection::vec(-1..=1_i8, 3 * 40),
        s in prop::collection::vec(1e-3..1e6_f32, 2),
        scales in prop::collection::vec(1e-4..10.0_f32, 3),
        bias in prop::collection::vec(-4.0..4.0_f32, 3),
        residual in prop::collection::vec(-4.0..4.0_f32, 6),
    ) {
        let shape = Shape { m: 2, n: 3, k: 40 };
        let acc = accumulate(&q, &t, shape).unwrap();
        let row_scales = RowScales::per_row(&scales).unwrap();
        let terms = Epilogue {
            activation_scales: &s,
            row_scales: &row_scales,
            bias: Some(&bias),
            residual: Some(&residual),
        };
        let truth = linear_f64(&q, &t, shape, &terms).unwrap();
        let ours: Vec<f32> = epilogue(&acc, 2, 3, &terms).unwrap();
        for (i, (truth, ours)) in truth.iter().zip(ours).enumerate() {
            let p = f64::from(acc[i]) / f64::from(s[i / 3]) * f64::from(scales[i % 3]);
            let with_bias = p + f64::from(bias[i % 3]);
            let u = 2.0_f64.powi(-24);
            let bound = u * (3.0 * p.abs() + with_bias.abs() + truth.abs()) * (1.0 + 8.0 * u);
            prop_assert!((truth - f64::from(ours)).abs() <= bound, "{truth} {ours}");
        }
    }

    #[test]
    fn row_scales_expand_to_the_range_of_each_row(
        lens in prop::collection::vec((1..50_usize, -9.0..9.0_f32), 1..8),
    ) {
        let mut expected = Vec::new();
        let mut ranges = Vec::new();
        for &(len, scale) in &lens {
            expected.extend(std::iter::repeat_n(scale, len));
            ranges.push((expected.len(), scale));
        }
        let scales = RowScales::from_ranges(expected.len(), &ranges).unwrap();
        prop_assert_eq!(scales.expand(), expected);
    }
}

#[test]
fn the_longest_row_sums_without_overflow() {
    let shape = Shape {
        m: 1,
        n: 1,
        k: MAX_K,
    };
    let q = vec![i8::MIN; MAX_K];
    let acc = accumulate(&q, &vec![-1; MAX_K], shape).unwrap();
    assert_eq!(i64::from(acc[0]), 128 * MAX_K as i64);
    let acc = accumulate(&q, &vec![1; MAX_K], shape).unwrap();
    assert_eq!(i64::from(acc[0]), -128 * MAX_K as i64);
    let k = MAX_K + 1;
    assert_eq!(
        accumulate(&[], &[], Shape { k, ..shape }),
        Err(ReferenceError::KTooLarge { k })
    );
}

#[test]
fn the_epilogue_rounds_after_every_step() {
    let third = 1.0_f32 / 3.0;
    let row_scales = RowScales::per_tensor(1, third).unwrap();
    let bias = -third * 3.0;
    let run = |bias: Option<&[f32]>, residual: Option<&[f32]>| -> Vec<f32> {
        let terms = Epilogue {
            activation_scales: &[1.0],
            row_scales: &row_scales,
            bias,
            residual,
        };
        epilogue(&[3], 1, 1, &terms).unwrap()
    };
    // 3 * (1/3 + 2^-25 / 3...) rounds to exactly 1, which the bias cancels; a fused multiply-add would keep the rest.
    assert_eq!(run(Some(&[bias]), None), [0.0]);
    assert_ne!(3.0_f32.mul_add(third, bias), 0.0);
    // (1 + 2^25) - 2^25: the one is lost in the first addition, and would not be in another order.
    let large = (1 << 25) as f32;
    assert_eq!(run(Some(&[large]), Some(&[-large])), [0.0]);

    let one = RowScales::per_tensor(4, 1.0).unwrap();
    let terms = Epilogue {
        activation_scales: &[1.0],
        row_scales: &one,
        bias: None,
        residual: None,
    };
    // Ties to even in f16 (spacing 2 from 2048 on, largest number 65504) and bf16 (spacing 2 from 256 on).
    let y: Vec<f16> = epilogue(&[2049, 2051, 65519, 65520], 1, 4, &terms).unwrap();
    assert_eq!(y.map_f32(), [2048.0, 2052.0, 65504.0, f32::INFINITY]);
    let y: Vec<bf16> = epilogue(&[257, 259, -257, 0], 1, 4, &terms).unwrap();
    assert_eq!(y.map_f32(), [256.0, 260.0, -256.0, 0.0]);
}

#[test]
fn row_scales_that_do_not_cover_the_rows_are_refused() {
    use RowScalesError::{Empty, NoRows, NotAscending, WrongEnd};
    let scales = RowScales::from_ranges;
    assert_eq!(scales(3, &[]), Err(Empty));
    assert_eq!(scales(0, &[]), Err(Empty));
    assert_eq!(
        scales(0, &[(0, 1.0)]),
        Err(NotAscending {
            index: 0,
            end: 0,
            previous_end: 0
        })
    );
    let error = Err(NotAscending {
        index: 1,
        end: 2,
        previous_end: 2,
    });
    assert_eq!(scales(3, &[(2, 1.0), (2, 1.0), (3, 1.0)]), error);
    assert_eq!(scales(3, &[(2, 1.0)]), Err(WrongEnd { end: 2, n: 3 }));
    assert_eq!(scales(3, &[(4, 1.0)]), Err(WrongEnd { end: 4, n: 3 }));
    let error = RowScales::per_row(&[1.0, f32::NAN]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the scale NaN of row range 1 is not finite"
    );

    assert_eq!(RowScales::per_tensor(0, 1.0), Err(NoRows));
    assert_eq!(RowScales::per_row(&[]), Err(NoRows));
    assert_eq!(RowScales::concat(&[]), Err(Empty));
    let endless = RowScales::per_tensor(usize::MAX, 1.0).unwrap();
    assert!(matches!(
        RowScales::concat(&[&endless, &endless]),
        Err(NotAscending { index: 1, .. })
    ));

    let row_scales = RowScales::per_tensor(2, 1.0).unwrap();
    let terms = Epilogue {
        activation_scales: &[1.0],
        row_scales: &row_scales,
        bias: None,
        residual: None,
    };
    let error = epilogue::<f32>(&[1, 2, 3], 1, 3, &terms);
    assert_eq!(
        error,
        Err(ReferenceError::WrongScaleRows {
            expected: 3,
            actual: 2
        })
    );
}

#[test]
fn what_is_absent_from_the_truth_adds_nothing() {
    let scales = RowScales::per_row(&[0.5, 2.0]).unwrap();
    let terms = Epilogue {
        activation_scales: &[4.0],
        row_scales: &scales,
        bias: None,
        residual: None,
    };
    let shape = Shape { m: 1, n: 2, k: 3 };
    // 10 + 20 and 30 - 20, over 4, times the row's scale.
    let y = linear_f64(&[10, 20, 30], &[1, 1, 0, 0, -1, 1], shape, &terms);
    assert_eq!(y, Ok(vec![3.75, 5.0]));
}
