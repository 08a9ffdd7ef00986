//! W2A8 products: the data of one shape, and the product of up to [`MAX_TOKENS`] tokens with it on one kernel variant.

use super::{Check, Fused, Kernels, Named, Operation, Sizes, addresses, ladder};
use anyhow::{Result, ensure};
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::launch::{Float, Gemv};
use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, QuantizedActivations, RowScales};
use bitnet_cuda::reference::Element;
use bitnet_cuda::reference::linear::{Epilogue, Shape, accumulate, epilogue};
use half::{bf16, f16};
use std::ops::Range;
use std::rc::Rc;

/// The most tokens of one launch, and of [`ProductData`].
pub const MAX_TOKENS: usize = 8;

/// Products on the kernels that the library chooses. Outputs are bf16 where the name says nothing.
pub const PRODUCTS: &[Named] = &[
    Named("gemv", gemv::<bf16>),
    Named("gemv f16", gemv::<f16>),
    Named("gemv f32", gemv::<f32>),
    Named("ladder gemv", ladder::gemv),
    Named("int8xint2", ladder::int8xint2),
    Named("rmsnorm + quantize + gemv", |device, sizes, random| {
        fused(Kernels::Fused, device, sizes, random)
    }),
    Named("rmsnorm + quantize, then gemv", |device, sizes, random| {
        fused(Kernels::Separate, device, sizes, random)
    }),
];

fn fused(
    kernels: Kernels,
    device: &Device,
    sizes: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let data = Rc::new(ProductData::for_tokens(sizes, random)?);
    let layer = data.layer(device)?;
    Ok(Box::new(Fused::new(kernels, layer, sizes.m, &data)?))
}

fn gemv<Y: Float + Element>(
    device: &Device,
    sizes: Sizes,
    random: &mut fastrand::Rng,
) -> Result<Box<dyn Operation>> {
    let data = ProductData::for_tokens(sizes, random)?;
    let expected: Rc<Vec<Y>> = Rc::new(data.expected(sizes.m)?);
    let layer = data.layer(device)?;
    Ok(Box::new(Product::new(
        layer, None, sizes.m, &data, expected,
    )?))
}

/// Random weights and activations of one shape, and the exact sums of their product.
///
/// Scales are one for all rows and one a token, all exact in bf16, so that other libraries' kernels can be given the same.
pub struct ProductData {
    pub n: usize,
    pub k: usize,
    pub packed: PackedWeights,
    /// `[MAX_TOKENS, k]`
    pub values: Vec<i8>,
    pub token_scales: [f32; MAX_TOKENS],
    pub weight_scale: f32,
    /// `[MAX_TOKENS, n]`
    pub sums: Vec<i32>,
}

impl ProductData {
    pub fn random(n: usize, k: usize, random: &mut fastrand::Rng) -> Result<Self> {
        let mut ternary = vec![0; n * k];
        ternary.fill_with(|| random.i8(-1..=1));
        let mut values = vec![0; MAX_TOKENS * k];
        values.fill_with(|| random.i8(..));
        let scale = |random: &mut fastrand::Rng, most: f32| {
            bf16::from_f32(most * (0.5 + 0.5 * random.f32())).to_f32()
        };
        let token_scales = std::array::from_fn(|_| scale(random, 64.0));
        let weight_scale = scale(random, 0.0625);
        let shape = Shape {
            m: MAX_TOKENS,
            n,
            k,
        };
        Ok(Self {
            n,
            k,
            sums: accumulate(&values, &ternary, shape)?,
            packed: PackedWeights::pack(Layout::Tiled, &ternary, n, k)?,
            values,
            token_scales,
            weight_scale,
        })
    }

    /// As [`ProductData::random`], for products of `sizes.m` tokens.
    pub fn for_tokens(Sizes { m, n, k }: Sizes, random: &mut fastrand::Rng) -> Result<Self> {
        ensure!(
            m <= MAX_TOKENS,
            "m = {m}: at most {MAX_TOKENS} tokens go in one launch, of which this is; give a smaller m"
        );
        Self::random(n, k, random)
    }

    /// A copy of the weights on the device.
    pub fn layer(&self, device: &Device) -> Result<BitLinear> {
        let scales = RowScales::per_tensor(self.n, self.weight_scale)?;
        Ok(BitLinear::from_packed(device, &self.packed, &scales)?)
    }

    /// A copy of the weights in Microsoft's layout.
    pub fn ladder_layer(&self, device: &Device) -> Result<BitLinear> {
        let scales = RowScales::per_tensor(self.n, self.weight_scale)?;
        let ladder = self.packed.convert(Layout::Ladder)?;
        Ok(BitLinear::from_ladder(device, &ladder, &scales)?)
    }

    /// What `m` tokens' outputs have to be, bit for bit.
    pub fn expected<Y: Element>(&self, m: usize) -> Result<Vec<Y>> {
        let scales = RowScales::per_tensor(self.n, self.weight_scale)?;
        let terms = Epilogue {
            activation_scales: &self.token_scales[..m],
            row_scales: &scales,
            bias: None,
            residual: None,
        };
        Ok(epilogue(&self.sums[..m * self.n], m, self.n, &terms)?)
    }

    /// Whether a kernel variant takes `m` tokens of this shape in one launch.
    pub fn fits(&self, layout: Layout, variant: Gemv, m: usize) -> bool {
        let padded = layout.padded_shape(self.n, self.k);
        let k_padded = padded.map_or(usize::MAX, |(_, k)| k);
        variant.fits(m, k_padded)
    }
}

/// A product of `m` tokens with outputs of type `Y`.
pub struct Product<Y> {
    layer: BitLinear,
    input: QuantizedActivations,
    output: Buffer<Y>,
    expected: Rc<Vec<Y>>,
}

impl<Y: Float + Element> Product<Y> {
    /// `variant: None` leaves the choice to the library.
    pub fn new(
        layer: BitLinear,
        variant: Option<Gemv>,
        m: usize,
        data: &ProductData,
        expected: Rc<Vec<Y>>,
    ) -> Result<Self> {
        let layer = match variant {
            Some(variant) => layer.with_variant(variant)?,
            None => layer,
        };
        let device = layer.device().clone();
        let (values, scales) = (&data.values[..m * data.k], &data.token_scales[..m]);
        Ok(Self {
            input: QuantizedActivations::from_values(&device, values, scales, m, data.k)?,
            output: Buffer::uninit(&device, m * data.n)?,
            layer,
            expected,
        })
    }

    /// The weights, for the next variant.
    pub fn into_layer(self) -> BitLinear {
        self.layer
    }
}

impl<Y: Float + Element> Operation for Product<Y> {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        Ok(self
            .layer
            .forward_quantized(stream, &self.input, &mut self.output)?)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    fn check(&self) -> Result<Check> {
        let same = |a: &Y, b: &Y| bytemuck::bytes_of(a) == bytemuck::bytes_of(b);
        Ok(Check::compare(&self.output.to_vec()?, &self.expected, same))
    }

    fn bytes(&self) -> usize {
        let (m, n) = (self.input.m(), self.layer.n());
        let activations = m * (self.input.k_padded() + size_of::<f32>() + size_of::<i32>());
        let outputs = self.output.size_bytes();
        self.layer.weight_bytes() + n * size_of::<f32>() + activations + outputs
    }

    fn operations(&self) -> usize {
        2 * self.input.m() * self.layer.n() * self.layer.k()
    }

    fn weights(&self) -> Option<Range<u64>> {
        Some(addresses(self.layer.packed_weights()))
    }
}
