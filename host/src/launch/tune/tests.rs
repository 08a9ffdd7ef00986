use super::cache::Table;
use super::measure::copies;
use super::race::{Runner, race};
use super::*;
use crate::device::EmulatedConfig;
use std::fs;

fn device() -> Device {
    Device::emulated().unwrap()
}

fn tuning(device: &Device, shape: (usize, usize, usize)) -> Tuning {
    tune_gemv(device, shape, &TuneConfig::default(), |_, _| {}).unwrap()
}

/// A measurement that nobody made, told apart by its cost.
fn made_up(device: &Device, n: usize, variant: &str, value: f64) -> Tuning {
    let cost = Cost {
        value,
        unit: CostUnit::ModelCycles,
    };
    Tuning {
        key: TuneKey::gemv(device, 1, n, 128).unwrap(),
        candidates: vec![Candidate {
            variant: Gemv::named(variant).unwrap(),
            cost,
            rounds: 1,
            dropped: false,
        }],
    }
}

#[test]
fn a_shape_beyond_the_device_is_refused_before_the_host_makes_it_up() {
    let result = tune_gemv(
        &device(),
        (1, 1 << 30, 1 << 20),
        &TuneConfig::default(),
        |_, _| {},
    );
    let error = result.unwrap_err();
    assert!(error.to_string().contains("out of memory"), "{error}");
}

#[test]
fn the_fastest_of_a_race_wins_and_hopeless_ones_leave_early() {
    // 1 is twice as slow; 2 is slow in one round only; 3 is slow at first.
    let mut calls = [0; 4];
    let runners = race(4, 10, |index| {
        calls[index] += 1;
        Ok::<_, ()>(match (index, calls[index]) {
            (0, _) => 10.0,
            (1, _) => 20.0,
            (2, 1) => 100.0,
            (2, _) => 9.8,
            (_, 1..=2) => 30.0,
            _ => 10.2,
        })
    })
    .unwrap();
    assert_eq!(calls, [10, 3, 10, 10]);
    assert_eq!(
        runners
            .iter()
            .map(|runner| runner.dropped)
            .collect::<Vec<_>>(),
        [false, true, false, false]
    );
    assert_eq!(
        runners
            .iter()
            .map(|runner| runner.median())
            .collect::<Vec<_>>(),
        [10.0, 20.0, 9.8, 10.2]
    );
}

#[test]
fn a_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
    let median = |samples: &[f64]| {
        let runner = Runner {
            samples: samples.to_vec(),
            dropped: false,
        };
        runner.median()
    };
    assert_eq!(median(&[9.0, 2.0, 4.0]), 4.0);
    assert_eq!(median(&[5.0, 1.0, 2.0, 4.0, 3.0]), 3.0);
    assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    assert_eq!(median(&[8.0, 16.0, 1.0, 2.0, 4.0, 32.0]), 6.0);
    assert_eq!(median(&[7.0]), 7.0);
    assert_eq!(median(&[]), f64::INFINITY);
}

#[test]
fn who_is_within_the_margin_of_the_leader_stays() {
    // 5 % more than 16 is 16.8.
    let times = [16.0, 16.0 * 1.05, 17.0, 20.0];
    let runners = race(times.len(), 4, |index| Ok::<_, ()>(times[index])).unwrap();
    let dropped: Vec<_> = runners.iter().map(|runner| runner.dropped).collect();
    assert_eq!(dropped, [false, false, true, true]);
}

#[test]
fn rounds_are_interleaved_and_start_with_another_each_time() {
    let mut order = Vec::new();
    race(3, 3, |index| {
        order.push(index);
        Ok::<_, ()>(1.0)
    })
    .unwrap();
    assert_eq!(order, [0, 1, 2, 1, 2, 0, 2, 0, 1]);
    assert_eq!(
        race(3, 3, |index| if index == 1 { Err("lost") } else { Ok(1.0) }),
        Err("lost")
    );
}

#[test]
fn copies_of_the_weights_exceed_the_cache_or_there_is_one() {
    const L2: usize = 50 << 20;
    let of = |n: usize, k: usize, free| copies(n * k / 4, L2, free);
    // Projections of BitNet b1.58 2B: queries, keys, and the largest.
    assert_eq!(
        [(2560, 2560), (640, 2560), (6912, 2560)].map(|(n, k)| of(n, k, 1 << 40)),
        [64, 256, 24]
    );
    assert_eq!([of(320, 2560, 1 << 40), of(319, 2560, 1 << 40)], [512, 1]);
    // One that is larger than the cache displaces itself.
    assert_eq!(of(1 << 20, 1 << 10, 1 << 40), 1);
    // Half of the memory is left alone, down to a single copy.
    assert_eq!(
        [of(2560, 2560, 10 * 2 * 1_638_400), of(2560, 2560, 5)],
        [10, 1]
    );
}

#[test]
fn tuning_measures_every_variant_that_fits() {
    let device = device();
    for (m, tokens) in [(1, 1..=8), (2, 2..=8), (5, 8..=8), (20, 8..=8)] {
        let tuning = tuning(&device, (m, 40, 300));
        assert_eq!(
            (tuning.key.m, tuning.key.n, tuning.key.k),
            (m.min(8), 40, 384)
        );
        let fitting = Gemv::all(Layout::Tiled)
            .filter(|variant| tokens.contains(&variant.tokens()))
            .count();
        assert_eq!(tuning.candidates.len(), fitting);
        assert!(
            tuning
                .candidates
                .iter()
                .all(|candidate| (candidate.rounds, candidate.dropped) == (1, false))
        );
        assert!(
            tuning
                .candidates
                .windows(2)
                .all(|pair| pair[0].cost.value <= pair[1].cost.value)
        );
        assert!(tuning.best().cost.value > 0.0);
        assert_eq!(
            tuning,
            super::tests::tuning(&device, (m, 40, 300)),
            "counts are exact"
        );
    }
    let mut progress = Vec::new();
    let tuned = tune_gemv(&device, (1, 16, 128), &TuneConfig::default(), |done, of| {
        progress.push((done, of));
    });
    let all = tuned.unwrap().candidates.len();
    assert_eq!(
        progress,
        (1..=all).map(|done| (done, all)).collect::<Vec<_>>()
    );
    for rounds in [0, 10_001] {
        let error =
            tune_gemv(&device, (1, 16, 128), &TuneConfig { rounds }, |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("rounds"), "{error}");
    }
}

/// On a device with room for the operands, and not for what the variants that split K need beside them.
/// All but one of sixteen warps find nothing to do in 128 columns.
#[test]
fn warps_without_work_win_nothing() {
    let found = tuning(&device(), (1, 16, 128));
    assert_eq!(found.best().variant.name(), "gemv_m1_t1_w1");
}

#[test]
fn a_variant_that_cannot_be_launched_is_an_error_and_no_winner() {
    let shape = (1, 16, 4096);
    let tuned = |memory_bytes| {
        let config = EmulatedConfig {
            memory_bytes,
            ..EmulatedConfig::default()
        };
        let device = Device::emulated_with(config).unwrap();
        tune_gemv(&device, shape, &TuneConfig::default(), |_, _| {})
    };
    let roomy = tuned(1 << 20).unwrap();
    let mut refused = 0;
    // Weights and activations take 48 KiB.
    for memory_bytes in (48 << 10..64 << 10).step_by(256) {
        match tuned(memory_bytes) {
            Ok(tuning) => {
                assert_eq!(tuning, roomy, "with {memory_bytes} bytes");
                assert!(refused > 0);
                return;
            }
            Err(error) => {
                assert!(error.to_string().contains("out of memory"), "{error}");
                refused += 1;
            }
        }
    }
    panic!("{refused} times out of memory");
}

#[test]
fn no_size_is_too_large_to_be_asked_about() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TuneCache::at(folder.path());
    let device = device();
    cache
        .store(&made_up(&device, 64, "gemv_m1_t1_w8", 7.0))
        .unwrap();
    let most = usize::MAX;
    for (n, k) in [(64, most), (most, most), (64, 1 << 40)] {
        assert_eq!(choose_gemv(&device, Some(&cache), (1, n, k)), None);
    }
    assert_eq!(TuneKey::gemv(&device, 1, 64, most), None);
    assert!(choose_gemv(&device, Some(&cache), (most, most, 128)).is_some());
    for variant in Gemv::all(Layout::Tiled) {
        let score = variant.score(device.capabilities(), most, most);
        assert!((0.0..=1.0).contains(&score), "{variant}: {score}");
    }
}

#[test]
fn what_was_tuned_is_chosen_on_the_same_kind_of_device_only() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TuneCache::at(folder.path().join("new"));
    let device = device();
    let choice = |device: &Device, cache, m, n, k| choose_gemv(device, cache, (m, n, k)).unwrap();
    let heuristic = choice(&device, Some(&cache), 1, 64, 128);
    assert!(matches!(heuristic.reason, Reason::Heuristic { score } if score > 0.0 && score <= 1.0));
    let other = if heuristic.variant.name() == "gemv_m1_t1_w8" {
        "gemv_m1_t1_w4"
    } else {
        "gemv_m1_t1_w8"
    };
    let tuning = made_up(&device, 64, other, 7.0);
    cache.store(&tuning).unwrap();

    let expected = Choice {
        variant: Gemv::named(other).unwrap(),
        reason: Reason::Tuned(tuning.best().cost),
    };
    assert_eq!(choice(&device, Some(&cache), 1, 64, 128), expected);
    assert_eq!(
        choice(&Device::emulated().unwrap(), Some(&cache), 1, 64, 100),
        expected,
        "the same padded K"
    );
    assert_eq!(choice(&device, None, 1, 64, 128), heuristic);
    let older = Device::emulated_with(EmulatedConfig {
        compute_capability: (8, 0),
        ..EmulatedConfig::default()
    })
    .unwrap();
    for (device, m, n, k) in [
        (&older, 1, 64, 128),
        (&device, 2, 64, 128),
        (&device, 1, 65, 128),
        (&device, 1, 64, 129),
    ] {
        assert!(matches!(
            choice(device, Some(&cache), m, n, k).reason,
            Reason::Heuristic { .. }
        ));
    }
}

#[test]
fn a_variant_that_does_not_fit_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TuneCache::at(folder.path());
    let device = device();
    cache
        .store(&made_up(&device, 64, "gemv_m1_t1_w8", 7.0))
        .unwrap();
    let text = fs::read_to_string(cache.path()).unwrap();
    for (from, to) in [("gemv_m1_t1_w8", "gemv_m9_t1_w8"), ("\"m\": 1", "\"m\": 2")] {
        fs::write(cache.path(), text.replace(from, to)).unwrap();
        for m in [1, 2] {
            let choice = choose_gemv(&device, Some(&cache), (m, 64, 128)).unwrap();
            assert!(matches!(choice.reason, Reason::Heuristic { .. }), "{from}");
            assert!(choice.variant.fits(m, 128));
        }
    }
}

#[test]
fn damaged_older_and_foreign_files_are_set_aside() {
    let device = device();
    let good = {
        let folder = tempfile::tempdir().unwrap();
        let cache = TuneCache::at(folder.path());
        cache
            .store(&made_up(&device, 64, "gemv_m1_t1_w8", 7.0))
            .unwrap();
        fs::read_to_string(cache.path()).unwrap()
    };
    let cut = &good[..good.len() / 2];
    let older = good.replace("\"version\": 1", "\"version\": 0");
    let not_ours = good.replace("bitnet-tuning", "recipes");
    let wrong_type = good.replace("\"n\": 64", "\"n\": \"many\"");
    for text in [
        cut,
        &older,
        &not_ours,
        &wrong_type,
        "",
        "\0\u{7f}",
        "[1, 2]",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let cache = TuneCache::at(folder.path());
        fs::write(cache.path(), text).unwrap();
        assert_eq!(cache.load(), Table::default());
        assert!(!cache.path().exists());
        assert_eq!(
            fs::read_to_string(folder.path().join("tuning.set-aside-0.json")).unwrap(),
            text
        );
        // Writing over a second one keeps both.
        fs::write(cache.path(), text).unwrap();
        let tuning = made_up(&device, 32, "gemv_m1_t1_w4", 3.0);
        cache.store(&tuning).unwrap();
        assert_eq!(
            cache.load().get(&tuning.key).unwrap().variant,
            "gemv_m1_t1_w4"
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("tuning.set-aside-1.json")).unwrap(),
            text
        );
    }
}

#[test]
fn a_file_that_has_become_good_meanwhile_stays() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TuneCache::at(folder.path());
    cache
        .store(&made_up(&device(), 64, "gemv_m1_t1_w8", 7.0))
        .unwrap();
    // As after a damaged file was read, and before the lock was had.
    let recovered = cache.recover().unwrap();
    assert!(!recovered.is_empty());
    assert_eq!(cache.load(), recovered);
}

#[test]
fn who_reads_the_old_file_has_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TuneCache::at(folder.path());
    let device = device();
    cache
        .store(&made_up(&device, 64, "gemv_m1_t1_w8", 7.0))
        .unwrap();
    let before = fs::read_to_string(cache.path()).unwrap();
    let reader = fs::File::open(cache.path()).unwrap();
    cache
        .store(&made_up(&device, 32, "gemv_m1_t1_w4", 3.0))
        .unwrap();
    assert_eq!(std::io::read_to_string(reader).unwrap(), before);
    assert_ne!(fs::read_to_string(cache.path()).unwrap(), before);
}

#[test]
fn what_cannot_be_read_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TuneCache::at(folder.path());
    fs::create_dir(cache.path()).unwrap();
    let error = cache
        .store(&made_up(&device(), 1, "gemv_m1_t1_w2", 1.0))
        .unwrap_err();
    assert_eq!((error.action, error.path), ("reading", cache.path()));
    assert_eq!(cache.load(), Table::default());
    assert!(cache.path().is_dir());
}

#[test]
fn a_key_names_the_ptx_by_its_content() {
    let of = |compute_capability| {
        let config = EmulatedConfig {
            compute_capability,
            ..EmulatedConfig::default()
        };
        let device = Device::emulated_with(config).unwrap();
        let key = TuneKey::gemv(&device, 1, 1, 128).unwrap();
        (key.device, key.ptx)
    };
    let (ampere, ada, hopper) = (of((8, 0)), of((8, 9)), of((9, 0)));
    // Two models run one text, and two texts are told apart.
    assert_ne!(ampere.0, ada.0);
    assert_eq!(ampere.1, ada.1);
    assert_ne!(ada.1, hopper.1);
    assert!(hopper.1.len() == 64 && hopper.1.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn threads_that_store_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TuneCache::at(folder.path());
    let device = device();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (cache, device) = (&cache, &device);
            scope.spawn(move || {
                for i in 0..8 {
                    cache
                        .store(&made_up(device, 1 + 8 * thread + i, "gemv_m1_t1_w2", 1.0))
                        .unwrap();
                    assert!(!cache.load().is_empty());
                }
            });
        }
    });
    let table = cache.load();
    for n in 1..=32 {
        assert!(
            table
                .get(&TuneKey::gemv(&device, 1, n, 128).unwrap())
                .is_some(),
            "n = {n}"
        );
    }
    // Only the file and its lock are left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let cache = TuneCache::at(file.join("below"));
    let device = device();
    let error = cache
        .store(&made_up(&device, 1, "gemv_m1_t1_w2", 1.0))
        .unwrap_err();
    assert!(error.to_string().contains(CACHE_VARIABLE), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(!error.to_string().contains(&cause), "{error}");
    assert_eq!(cache.load(), Table::default());
}
