//! Which values a measurement can give: what tables and figures divide by, and show on logarithmic scales.

use crate::results::{Case, Ceilings, FormatError, Model, NotRun, Pair, Results, Time};

/// Fails where the value is not positive, or so small or large that it is none of a machine's.
fn possible(field: &str, value: f64) -> Result<(), FormatError> {
    if (1e-20..1e20).contains(&value) {
        return Ok(());
    }
    Err(FormatError::Impossible {
        field: field.to_owned(),
        value,
    })
}

impl Results {
    pub(crate) fn require_possible_values(&self) -> Result<(), FormatError> {
        if let Some(ceilings) = &self.ceilings {
            ceilings.require_possible()?;
            ceilings.require_possible_pool()?;
        }
        for (index, case) in self.cases.iter().enumerate() {
            let field = format!("cases[{index}]");
            possible(&format!("{field}.bytes"), case.bytes as f64)?;
            case.require_possible_times(&field)?;
        }
        for (index, pair) in self.pairs.iter().enumerate() {
            pair.require_possible(&format!("pairs[{index}]"))?;
        }
        for (index, model) in self.models.iter().enumerate() {
            model.require_possible_times(&format!("models[{index}]"))?;
        }
        Ok(())
    }

    /// Takes out times and rates that no measurement gives, and says which in `not_run`: [`Results::to_json`] would refuse all for one of
    /// them. What was checked and counted stays.
    pub fn set_aside_impossible(&mut self) {
        let not_run = &mut self.not_run;
        let mut keeps = |what: &str, checked: Result<(), FormatError>| {
            let Err(error) = checked else { return true };
            not_run.push(NotRun {
                what: what.to_owned(),
                why: error.to_string(),
            });
            false
        };
        if let Some(ceilings) = &mut self.ceilings {
            if !keeps("memory pool", ceilings.require_possible_pool()) {
                ceilings.pool_allocation_us = None;
            }
            if !keeps("ceilings", ceilings.require_possible()) {
                self.ceilings = None;
            }
        }
        for case in &mut self.cases {
            let Case { op, m, n, k, .. } = &*case;
            let rows = n.map_or(String::new(), |n| format!("{n}x"));
            let what = format!("{op} {rows}{k}, {m} tokens");
            if !keeps(&what, case.require_possible_times(&what)) {
                (case.cold, case.warm, case.bandwidth_fraction) = (None, None, None);
            }
        }
        self.pairs.retain(|pair| {
            let Pair { peer, m, n, k, .. } = pair;
            let what = format!("{peer}, {n}x{k}, {m} tokens");
            keeps(&what, pair.require_possible(&what))
        });
        for model in &mut self.models {
            if !keeps("model", model.require_possible_times("model")) {
                (model.pass, model.tokens_per_second) = (None, None);
            }
        }
    }
}

impl Ceilings {
    fn require_possible(&self) -> Result<(), FormatError> {
        let value = |name: &str, value| possible(&format!("ceilings.{name}"), value);
        value("copy_bytes_per_second", self.copy_bytes_per_second)?;
        value("copy_bytes", self.copy_bytes as f64)?;
        value(
            "dp4a_operations_per_second",
            self.dp4a_operations_per_second,
        )?;
        if let Some(rate) = self.mma_operations_per_second {
            value("mma_operations_per_second", rate)?;
        }
        value("module_load_ms", self.module_load_ms)?;
        value("allocation_us", self.allocation_us)?;
        for (name, time) in [
            ("copy", self.copy),
            ("launch_floor", self.launch_floor),
            ("graph_replay", self.graph_replay),
            ("single_launch", self.single_launch),
        ] {
            time.require_possible(&format!("ceilings.{name}"))?;
        }
        Ok(())
    }

    fn require_possible_pool(&self) -> Result<(), FormatError> {
        self.pool_allocation_us
            .map_or(Ok(()), |time| possible("ceilings.pool_allocation_us", time))
    }
}

impl Case {
    fn require_possible_times(&self, field: &str) -> Result<(), FormatError> {
        for (name, time) in [("cold", self.cold), ("warm", self.warm)] {
            if let Some(time) = time {
                time.require_possible(&format!("{field}.{name}"))?;
            }
        }
        self.bandwidth_fraction.map_or(Ok(()), |share| {
            possible(&format!("{field}.bandwidth_fraction"), share)
        })
    }
}

impl Pair {
    fn require_possible(&self, field: &str) -> Result<(), FormatError> {
        self.ours.require_possible(&format!("{field}.ours"))?;
        self.theirs.require_possible(&format!("{field}.theirs"))?;
        for (name, ratio) in [
            ("ratio", self.ratio),
            ("ratio_low", self.ratio_low),
            ("ratio_high", self.ratio_high),
        ] {
            possible(&format!("{field}.{name}"), ratio)?;
        }
        Ok(())
    }
}

impl Model {
    fn require_possible_times(&self, field: &str) -> Result<(), FormatError> {
        if let Some(pass) = self.pass {
            pass.require_possible(&format!("{field}.pass"))?;
        }
        self.tokens_per_second.map_or(Ok(()), |rate| {
            possible(&format!("{field}.tokens_per_second"), rate)
        })
    }
}

impl Time {
    fn require_possible(&self, field: &str) -> Result<(), FormatError> {
        possible(&format!("{field}.median_us"), self.median_us)?;
        possible(&format!("{field}.low_us"), self.low_us)?;
        possible(&format!("{field}.high_us"), self.high_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::empty;

    #[test]
    fn what_no_measurement_gives_is_refused_by_name() {
        let time = crate::statistics::summarize(vec![1.0], 1).expect("a sample");
        let mut results = empty("cuda");
        results.pairs.push(Pair {
            peer: "a library".to_owned(),
            m: 1,
            n: 1,
            k: 1,
            kernel: "gemv".to_owned(),
            programmatic: false,
            ours: time,
            theirs: time,
            ratio: 1.0,
            ratio_low: 1.0,
            ratio_high: 1.0,
            their_weight_bytes: 1,
            mismatches: 0,
            tolerance: 0.0,
        });
        let text = results.to_json().expect("possible");
        for value in [0.0, -1.0, 1e300, f64::INFINITY, f64::NAN] {
            results.pairs[0].theirs.low_us = value;
            let error = results.to_json().expect_err("impossible").to_string();
            assert!(error.contains("`pairs[0].theirs.low_us` is"), "{error}");
        }
        let text = text.replace("\"ratio\": 1.0", "\"ratio\": 0.0");
        let error = Results::from_json(&text).expect_err("impossible");
        assert!(
            matches!(error, FormatError::Impossible { field, .. } if field == "pairs[0].ratio")
        );
    }

    #[test]
    fn an_impossible_time_costs_no_other_measurement() {
        let time = crate::statistics::summarize(vec![1.0], 1).expect("a sample");
        let mut results = empty("cuda");
        let zero = Time {
            median_us: 0.0,
            ..time
        };
        for (m, cold, mismatches) in [(1, time, 0), (2, zero, 3)] {
            results.cases.push(Case {
                op: "gemv".to_owned(),
                m,
                n: Some(16),
                k: 128,
                kernels: Vec::new(),
                chosen: true,
                best: false,
                checked: 1,
                mismatches,
                bytes: 1,
                operations: 1,
                cold: Some(cold),
                warm: None,
                bandwidth_fraction: None,
                counts: None,
            });
        }
        let mut expected = results.clone();
        results.to_json().expect_err("a time of 0");
        results.set_aside_impossible();
        results.to_json().expect("possible");
        let what = "gemv 16x128, 2 tokens";
        expected.cases[1].cold = None;
        expected.not_run.push(NotRun {
            what: what.to_owned(),
            why: format!("`{what}.cold.median_us` is 0.0, which no measurement gives"),
        });
        assert_eq!(results, expected);
    }
}
