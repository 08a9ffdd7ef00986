//! The parts of a run, most important first, each on its own: one that fails, or for which there is no time left, is noted and
//! loses nothing of the others.

use super::measure::{case, measure, sets_to_rotate};
use super::model::{Chain, chain};
use super::peers::{Gemm, GemmEx, GemmPeer, Lt, Peer};
use super::plan::Plan;
use super::products::Shape;
use super::timing::{self, Replay};
use super::{Request, ceilings, counts, machine, save};
use crate::operations::{Kernels, Named, ROW_OPERATIONS, Sizes};
use anyhow::{Context, Result};
use bitnet_cuda::device::{DeviceKind, Stream};
use indicatif::{ProgressBar, ProgressStyle};
use kernel_benches::statistics::WIDE_SPREAD;
use kernel_benches::{Case, FORMAT, LAUNCHED_EARLY, Method, Model, NotRun, Results};
use std::time::{Duration, Instant};

pub fn run(request: &Request) -> Result<Results> {
    let device = &request.device;
    let gpu = device.kind() == DeviceKind::Cuda;
    let plan = Plan::new(device, request.smoke);
    let clocks = machine::clocks(device);
    let results = Results {
        format: FORMAT,
        date: jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())?.to_string(),
        commit: request.commit.clone(),
        device: machine::device(device)?,
        method: Method {
            seed: request.seed,
            rotated_bytes: plan.rotated_bytes,
            max_rounds: plan.settings.max_rounds,
            wide_spread: WIDE_SPREAD,
        },
        ceilings: None,
        cases: Vec::new(),
        pairs: Vec::new(),
        models: Vec::new(),
        not_run: Vec::new(),
    };
    let early_model = plan.programmatic && request.model.quantization_bits == 2;
    let parts = plan.shapes.len()
        + ROW_OPERATIONS.len() * plan.widths.len()
        + 1
        + usize::from(early_model)
        + 2 * usize::from(gpu);
    let progress = ProgressBar::new(parts as u64).with_style(ProgressStyle::with_template(
        "[{elapsed_precise}] {bar:30} {pos}/{len} {msg}",
    )?);
    let mut run = Run {
        request,
        plan: &plan,
        // Kernels are measured one after another, but where it is said.
        stream: device.default_stream().in_turn(),
        // A limit beyond what the clock can count is none.
        deadline: request
            .time_limit
            .and_then(|limit| Instant::now().checked_add(limit)),
        progress,
        results,
    };
    if gpu {
        run.part("ceilings", |run| {
            let ceilings = ceilings::measure(device, &run.stream, &plan.settings, plan.ceilings)?;
            run.results.ceilings = Some(ceilings);
            Ok(())
        })?;
    }
    let peers = run.peers();
    for &(n, k) in &plan.shapes {
        run.part(&format!("gemv {n}x{k}"), |run| run.products((n, k), &peers))?;
    }
    if early_model {
        run.part("model, launched early", |run| run.model(true))?;
    }
    run.part("model", |run| run.model(false))?;
    for operation in ROW_OPERATIONS {
        for &width in &plan.widths {
            let what = format!("{}, width {width}", operation.0);
            run.part(&what, |run| run.rows(operation, width))?;
        }
    }
    if gpu {
        // At the end, as all later memory comes from the pool.
        run.part("memory pool", |run| {
            let pool_allocation_us = ceilings::pool_allocation_us(device)?;
            if let Some(ceilings) = &mut run.results.ceilings {
                ceilings.pool_allocation_us = Some(pool_allocation_us);
            }
            Ok(())
        })?;
    }
    run.progress.finish_and_clear();
    if let Some(before) = clocks {
        let after = machine::clocks(device).unwrap_or_else(|| before.clone());
        run.results.device.clocks = Some([before, after]);
        run.save()?;
    }
    Ok(run.results)
}

struct Run<'a> {
    request: &'a Request,
    plan: &'a Plan,
    stream: Stream,
    deadline: Option<Instant>,
    progress: ProgressBar,
    results: Results,
}

impl Run<'_> {
    /// Runs a part unless time is up; notes an error, and saves what there is.
    fn part(&mut self, what: &str, part: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.progress.set_message(what.to_owned());
        let late = self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
        if late {
            self.not_run(what, "the time limit was reached");
        } else if self.request.device.is_lost() {
            // The part in which it was lost says how.
            self.not_run(what, "the device was lost before");
        } else if let Err(error) = part(self) {
            self.not_run(what, &format!("{error:#}"));
        }
        self.progress.inc(1);
        self.save()
    }

    fn not_run(&mut self, what: &str, why: &str) {
        self.results.not_run.push(NotRun {
            what: what.to_owned(),
            why: why.to_owned(),
        });
    }

    fn save(&mut self) -> Result<()> {
        self.results.set_aside_impossible();
        if let Some(ceilings) = &self.results.ceilings {
            let bandwidth = ceilings.copy_bytes_per_second;
            for case in &mut self.results.cases {
                case.bandwidth_fraction = case
                    .time()
                    .map(|time| case.bytes as f64 / (time.median_us * 1e-6) / bandwidth);
            }
        }
        match &self.request.output {
            Some(path) => save(path, &self.results),
            None => Ok(()),
        }
    }

    /// Whether less than 100 ms are left, the budget of one measurement; never without a time limit.
    fn time_is_up(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() + Duration::from_millis(100) >= deadline)
    }

    /// NVIDIA's libraries, where they are found. On the emulator there are none.
    fn peers(&mut self) -> Vec<Box<dyn Peer>> {
        let mut peers = Vec::new();
        if self.request.device.kind() == DeviceKind::Cuda {
            peers.extend(self.peer::<GemmEx>());
            peers.extend(self.peer::<Lt>());
        }
        peers
    }

    fn peer<G: Gemm>(&mut self) -> Option<Box<dyn Peer>> {
        match GemmPeer::<G>::open(&self.stream) {
            Ok(peer) => Some(Box::new(peer)),
            Err(error) => {
                self.not_run(G::NAME, &format!("{error:#}"));
                None
            }
        }
    }

    fn products(&mut self, (n, k): (usize, usize), cublas: &[Box<dyn Peer>]) -> Result<()> {
        let (stream, plan) = (self.stream.clone(), self.plan);
        // The same data for a shape, whatever else is measured.
        let mut random = fastrand::Rng::with_seed(self.request.seed ^ (n as u64) << 32 ^ k as u64);
        let mut shape = Shape::new(&stream, plan, (n, k), &mut random)?;
        for &m in &plan.tokens {
            if self.time_is_up() {
                self.not_run(&format!("gemv {m}x{n}x{k}"), "the time limit was reached");
                continue;
            }
            let cases = shape.variants(m)?;
            self.results.cases.extend(cases);
            if plan.programmatic {
                match shape.programmatic(m) {
                    Ok(case) => self.results.cases.push(case),
                    Err(error) => self.not_run(
                        &format!("{LAUNCHED_EARLY} {m}x{n}x{k}"),
                        &format!("{error:#}"),
                    ),
                }
            }
            if m == 1 {
                for kernels in [Kernels::Fused, Kernels::Separate] {
                    let fused = shape.fused(kernels, m)?;
                    self.results.cases.push(fused);
                }
            }
        }
        for peer in self.request.peers.iter().chain(cublas) {
            let name = format!("{} {n}x{k}", peer.name());
            if self.time_is_up() {
                self.not_run(&name, "the time limit was reached");
                continue;
            }
            match shape.beside(peer.as_ref(), &plan.tokens) {
                Ok(pairs) => {
                    for (m, pair) in pairs {
                        match pair {
                            Ok(pair) => self.results.pairs.push(pair),
                            Err(error) => self.not_run(
                                &format!("{} {m}x{n}x{k}", peer.name()),
                                &format!("{error:#}"),
                            ),
                        }
                    }
                }
                Err(error) => self.not_run(&name, &format!("{error:#}")),
            }
        }
        Ok(())
    }

    fn rows(&mut self, &Named(op, make): &Named, width: usize) -> Result<()> {
        let device = &self.request.device;
        let gpu = device.kind() == DeviceKind::Cuda;
        let mut random = fastrand::Rng::with_seed(self.request.seed);
        for &m in &self.plan.row_tokens {
            let sizes = Sizes { m, n: 0, k: width };
            let first = make(device, sizes, &mut random)?;
            let count = sets_to_rotate(first.bytes(), self.plan.rotated_bytes).filter(|_| gpu);
            let mut sets = vec![first];
            for _ in 1..count.unwrap_or(1) {
                sets.push(make(device, sizes, &mut random)?);
            }
            let measured = measure(
                &self.stream,
                &mut sets,
                count.is_some(),
                &self.plan.settings,
            )?;
            let case: Case = case(op, (m, None, width), sets[0].as_ref(), measured);
            self.results.cases.push(case);
        }
        Ok(())
    }

    fn model(&mut self, programmatic: bool) -> Result<()> {
        let Request {
            model,
            model_devices,
            smoke,
            seed,
            ..
        } = self.request;
        let shape = model.shape(*smoke);
        let bits = model.quantization_bits;
        let mut record = Model {
            num_gpus: model_devices.len(),
            batch_size: shape.batch,
            hidden_size: shape.hidden,
            num_layers: shape.layers,
            quantization_bits: bits,
            programmatic,
            launches: 0,
            weight_bytes: 0,
            checked: 0,
            mismatches: 0,
            pass: None,
            tokens_per_second: None,
            counts: None,
        };
        let mut chains: Vec<(Stream, Box<dyn Chain>)> = Vec::new();
        for device in model_devices {
            let stream = match programmatic {
                false => device.default_stream().in_turn(),
                true => device.default_stream(),
            };
            let mut chain = chain(&stream, shape, bits, *seed).with_context(|| {
                format!(
                    "{} layers of {} features on {}",
                    shape.layers,
                    shape.hidden,
                    device.name()
                )
            })?;
            if device.kind() == DeviceKind::Emulated {
                let (counts, kernels) = counts::count(&stream, &mut chain)?;
                record.counts = Some(counts);
                record.launches = kernels.len();
            } else {
                chain.launch(&stream)?;
            }
            let check = chain.check()?;
            record.checked += check.checked;
            record.mismatches += check.mismatches;
            record.weight_bytes = chain.weight_bytes();
            chains.push((stream, chain));
        }
        if self.request.device.kind() == DeviceKind::Cuda && record.mismatches == 0 {
            let mut replays = Vec::new();
            for (stream, chain) in &mut chains {
                let replay = Replay::new(stream, std::slice::from_mut(chain), &self.plan.settings)?;
                record.launches = replay.kernels().len();
                replays.push((stream.clone(), replay));
            }
            let times = timing::at_once(&replays, &self.plan.settings)?;
            record.pass = times
                .into_iter()
                .max_by(|a, b| a.median_us.total_cmp(&b.median_us));
            let tokens = (record.num_gpus * shape.batch) as f64;
            record.tokens_per_second = record.pass.map(|pass| tokens / pass.median_us * 1e6);
        }
        if record.mismatches > 0 {
            record.counts = None;
        }
        self.results.models.push(record);
        Ok(())
    }
}
