//! W2A8 products of one shape: every variant, and the library's choice beside its peers.

use super::measure::{case, measure, sets_to_rotate};
use super::peers::Peer;
use super::plan::Plan;
use super::timing::Replay;
use crate::operations::{Fused, Kernels, Operation, Product, ProductData};
use anyhow::{Context, Result, ensure};
use bitnet_cuda::device::{Device, DeviceKind, Stream};
use bitnet_cuda::launch::Gemv;
use bitnet_cuda::layout::Layout;
use bitnet_cuda::ops::BitLinear;
use half::bf16;
use kernel_benches::statistics::summarize;
use kernel_benches::{Case, LAUNCHED_EARLY, Pair};
use std::rc::Rc;

/// The products of one shape with enough copies of the weights on the device to rotate.
pub struct Shape<'a> {
    stream: &'a Stream,
    plan: &'a Plan,
    data: Rc<ProductData>,
    /// Empty while they are lent to products, and where an error has kept these from giving them back.
    layers: Vec<BitLinear>,
    /// How many layers there are.
    copies: usize,
    /// Whether the copies exceed L2 together.
    cold: bool,
}

impl<'a> Shape<'a> {
    pub fn new(
        stream: &'a Stream,
        plan: &'a Plan,
        (n, k): (usize, usize),
        random: &mut fastrand::Rng,
    ) -> Result<Self> {
        let device = stream.device();
        let data = Rc::new(ProductData::random(n, k, random)?);
        let sets = match device.kind() {
            DeviceKind::Cuda => sets_to_rotate(Layout::Tiled.packed_len(n, k)?, plan.rotated_bytes),
            DeviceKind::Emulated => None,
        };
        let mut shape = Self {
            stream,
            plan,
            data,
            layers: Vec::new(),
            copies: sets.unwrap_or(1),
            cold: sets.is_some(),
        };
        shape.layers = shape.lend()?;
        Ok(shape)
    }

    /// The weights, which are uploaded where they are not there: an error in one measurement costs the next ones nothing else.
    fn lend(&mut self) -> Result<Vec<BitLinear>> {
        let layers = std::mem::take(&mut self.layers);
        if !layers.is_empty() {
            return Ok(layers);
        }
        let device = self.stream.device();
        (0..self.copies).map(|_| self.data.layer(device)).collect()
    }

    /// Every variant that takes `m` tokens; the library's choice and the fastest are marked.
    pub fn variants(&mut self, m: usize) -> Result<Vec<Case>> {
        let chosen = self.chosen(m)?;
        let expected = Rc::new(self.data.expected(m)?);
        let mut cases = Vec::new();
        for variant in Gemv::all(Layout::Tiled) {
            if !self.data.fits(Layout::Tiled, variant, m) {
                continue;
            }
            let mut case = self.measured("gemv", self.stream, m, variant, &expected)?;
            case.chosen = variant.name() == chosen.name();
            cases.push(case);
        }
        mark_best(&mut cases);
        Ok(cases)
    }

    /// The library's choice for `m` tokens, launched early.
    pub fn programmatic(&mut self, m: usize) -> Result<Case> {
        let chosen = self.chosen(m)?;
        let expected = Rc::new(self.data.expected(m)?);
        let stream = self.early();
        self.measured(LAUNCHED_EARLY, &stream, m, chosen, &expected)
    }

    /// One variant. Where it cannot be measured, the weights are still there for what follows.
    fn measured(
        &mut self,
        op: &str,
        stream: &Stream,
        m: usize,
        variant: Gemv,
        expected: &Rc<Vec<bf16>>,
    ) -> Result<Case> {
        let mut sets = self.products(m, Some(variant), expected)?;
        let measured = measure(stream, &mut sets, self.cold, &self.plan.settings);
        let shape = (m, Some(self.data.n), self.data.k);
        let case = measured.map(|measured| Case {
            kernels: vec![variant.name().to_owned()],
            ..case(op, shape, &sets[0], measured)
        });
        self.layers = sets.into_iter().map(Product::into_layer).collect();
        case
    }

    /// A norm, the quantization of its outputs and the product with the library's choice, as a layer runs them.
    pub fn fused(&mut self, kernels: Kernels, m: usize) -> Result<Case> {
        let op = match kernels {
            Kernels::Fused => "rmsnorm + quantize + gemv",
            Kernels::Separate => "rmsnorm + quantize, then gemv",
        };
        let layers = self.lend()?;
        let fused = |layer| Fused::new(kernels, layer, m, &self.data);
        let mut sets: Vec<Fused> = layers.into_iter().map(fused).collect::<Result<_>>()?;
        let measured = measure(self.stream, &mut sets, self.cold, &self.plan.settings)?;
        let shape = (m, Some(self.data.n), self.data.k);
        let case = case(op, shape, &sets[0], measured);
        self.layers = sets.into_iter().map(Fused::into_layer).collect();
        Ok(case)
    }

    /// The same queue, with programmatic launches. All other measurements are of kernels one after another.
    fn early(&self) -> Stream {
        self.stream.device().default_stream()
    }

    /// The variant that the library chooses.
    fn chosen(&self, m: usize) -> Result<Gemv> {
        let (n, k) = (self.data.n, self.data.k);
        let (_, k_padded) = Layout::Tiled.padded_shape(n, k)?;
        let capabilities = self.stream.device().capabilities();
        Gemv::choose(capabilities, Layout::Tiled, m, n, k_padded)
            .with_context(|| format!("no variant for {m} x {n} x {k}"))
    }

    fn products(
        &mut self,
        m: usize,
        variant: Option<Gemv>,
        expected: &Rc<Vec<bf16>>,
    ) -> Result<Vec<Product<bf16>>> {
        let layers = self.lend()?;
        let product = |layer| Product::new(layer, variant, m, &self.data, Rc::clone(expected));
        layers.into_iter().map(product).collect()
    }

    /// The library's choice beside a peer, cold, in alternating rounds, for each number of tokens; of one token also launched early.
    pub fn beside(
        &mut self,
        peer: &dyn Peer,
        tokens: &[usize],
    ) -> Result<Vec<(usize, Result<Pair>)>> {
        let device: &Device = self.stream.device();
        let (n, k) = (self.data.n, self.data.k);
        let sets = sets_to_rotate(peer.weight_bytes(n, k), self.plan.rotated_bytes);
        let weights = peer.weights(device, &self.data, sets.unwrap_or(1))?;
        let mut pairs = Vec::new();
        for &m in tokens {
            let mut theirs = match weights.products(&self.data, m) {
                Ok(theirs) => theirs,
                Err(error) => {
                    pairs.push((m, Err(error)));
                    continue;
                }
            };
            let in_turn = self.pair(peer, m, false, &mut theirs);
            let early = m == 1 && in_turn.is_ok() && self.plan.programmatic;
            pairs.push((m, in_turn));
            if early {
                pairs.push((m, self.pair(peer, m, true, &mut theirs)));
            }
        }
        Ok(pairs)
    }

    fn pair(
        &mut self,
        peer: &dyn Peer,
        m: usize,
        programmatic: bool,
        theirs: &mut Vec<Box<dyn Operation>>,
    ) -> Result<Pair> {
        let (stream, settings) = (self.stream, &self.plan.settings);
        let variant = self.chosen(m)?;
        let expected = Rc::new(self.data.expected(m)?);
        theirs[0].launch(stream)?;
        let check = theirs[0].check()?;
        ensure!(
            check.mismatches == 0,
            "{} of {} outputs are not the product: the library does not compute this shape",
            check.mismatches,
            check.checked
        );
        let mut ours = self.products(m, Some(variant), &expected)?;
        ours[0].launch(stream)?;
        let own = ours[0].check()?;
        ensure!(
            own.mismatches == 0,
            "{} of {} of this library's own outputs are wrong",
            own.mismatches,
            own.checked
        );
        let own = match programmatic {
            false => Replay::new(stream, &mut ours, settings)?,
            true => Replay::new(&self.early(), &mut ours, settings)?,
        };
        let replays = [own, Replay::new(stream, theirs, settings)?];
        let mut times = Replay::times(stream, &[&replays[0], &replays[1]], settings)?;
        let (their_time, their_sample) = times.pop().context("two replays")?;
        let (our_time, our_sample) = times.pop().context("two replays")?;
        let ratios: Vec<f64> = their_sample
            .iter()
            .zip(&our_sample)
            .map(|(theirs, ours)| theirs / ours)
            .collect();
        let ratio = summarize(ratios, 1).context("no round was measured")?;
        self.layers = ours.into_iter().map(Product::into_layer).collect();
        Ok(Pair {
            peer: peer.name().to_owned(),
            m,
            n: self.data.n,
            k: self.data.k,
            kernel: variant.name().to_owned(),
            programmatic,
            ours: our_time,
            theirs: their_time,
            ratio: ratio.median_us,
            ratio_low: ratio.low_us,
            ratio_high: ratio.high_us,
            their_weight_bytes: peer.weight_bytes(self.data.n, self.data.k),
            mismatches: check.mismatches,
            tolerance: peer.tolerance(),
        })
    }
}

/// Marks the case with the least median, where there are times.
fn mark_best(cases: &mut [Case]) {
    let time = |case: &Case| case.time().map(|time| time.median_us);
    let timed = cases.iter_mut().filter(|case| time(case).is_some());
    if let Some(best) = timed.min_by(|a, b| {
        time(a)
            .unwrap_or(f64::INFINITY)
            .total_cmp(&time(b).unwrap_or(f64::INFINITY))
    }) {
        best.best = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_its_weights_after_an_error() {
        let device = Device::emulated().unwrap();
        let (stream, plan) = (device.default_stream(), Plan::new(&device, true));
        let mut random = fastrand::Rng::with_seed(1);
        let mut shape = Shape::new(&stream, &plan, (48, 384), &mut random).unwrap();
        let expected = Rc::new(shape.data.expected(1).unwrap());
        let other = Gemv::all(Layout::Ladder).next().unwrap();
        // The product takes the weights before it refuses the variant.
        let refused = shape.measured("gemv", &stream, 1, other, &expected);
        assert!(refused.is_err());
        let chosen = shape.chosen(1).unwrap();
        let case = shape.measured("gemv", &stream, 1, chosen, &expected);
        assert_eq!(case.unwrap().mismatches, 0);
    }
}
