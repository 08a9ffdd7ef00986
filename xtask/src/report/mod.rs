//! `cargo xtask report`: figures and tables from the files of measurements and counts, and nothing else.
//!
//! Tables stand in README.md and docs/measuring.md between `<!-- report:NAME -->` and `<!-- /report:NAME -->`.

mod figures;
mod markers;
mod tables;
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kernel_benches::Results;

use crate::counts::Record;
use crate::workspace;

/// Pages with tables.
const PAGES: [&str; 2] = ["README.md", "docs/measuring.md"];
const FIGURES: &str = "docs/figures";

#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail if a table or a figure is stale
    #[arg(long)]
    check: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let root = workspace::root();
    let results = read(&root.join("benches/results"))?;
    let stale = stale(root, &files(root, &results, &Record::read()?)?)?;
    if args.check {
        if !stale.is_empty() {
            bail!(
                "stale: {}; run `cargo xtask report`",
                names(root, stale.keys())
            );
        }
        return Ok(());
    }
    for (path, text) in &stale {
        match text {
            Some(text) => {
                let folder = path.parent().context("a file has a folder")?;
                fs::create_dir_all(folder)
                    .with_context(|| format!("cannot create {}", folder.display()))?;
                workspace::write(path, text)?;
            }
            None => fs::remove_file(path)
                .with_context(|| format!("cannot remove {}", path.display()))?,
        }
    }
    println!(
        "{} GPU results; {} files changed: {}",
        results.len(),
        stale.len(),
        names(root, stale.keys())
    );
    Ok(())
}

/// Fails where a table or a figure is stale.
pub fn check() -> Result<()> {
    run(&Args { check: true })
}

/// The measurements of each GPU, by file name.
fn read(folder: &Path) -> Result<Vec<Results>> {
    let mut paths: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", folder.display()));
        }
    };
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort();
    paths
        .iter()
        .map(|path| read_one(path).with_context(|| path.display().to_string()))
        .collect()
}

fn read_one(path: &Path) -> Result<Results> {
    let results = Results::from_json(&fs::read_to_string(path)?)?;
    require_real(&results)?;
    Ok(results)
}

/// Refuses what is not a GPU's: the emulator's counts, and files that exist to test this program.
fn require_real(results: &Results) -> Result<()> {
    let name = &results.device.name;
    ensure!(
        results.device.kind == "cuda",
        "`{name}` is not a GPU: only GPU results belong here"
    );
    let test = ["test double", "made up"]
        .iter()
        .any(|mark| name.contains(mark));
    ensure!(!test, "`{name}` is not a GPU: its times mean nothing");
    Ok(())
}

/// Every file that the report writes, with its whole text.
fn files(root: &Path, results: &[Results], counts: &Record) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for (name, svg) in figures::all(results, counts)? {
        files.insert(root.join(FIGURES).join(name), svg);
    }
    let sections = tables::sections(results, counts);
    for page in PAGES {
        let path = root.join(page);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.insert(
            path,
            markers::fill(&text, &sections).with_context(|| page.to_owned())?,
        );
    }
    Ok(files)
}

/// The files that are not as they have to be: with their text, or with none where they have to go.
fn stale(
    root: &Path,
    files: &BTreeMap<PathBuf, String>,
) -> Result<BTreeMap<PathBuf, Option<String>>> {
    let mut stale = BTreeMap::new();
    for (path, text) in files {
        if fs::read_to_string(path).ok().as_ref() != Some(text) {
            stale.insert(path.clone(), Some(text.clone()));
        }
    }
    if let Ok(entries) = fs::read_dir(root.join(FIGURES)) {
        for entry in entries {
            let path = entry?.path();
            if !files.contains_key(&path) {
                stale.insert(path, None);
            }
        }
    }
    Ok(stale)
}

fn names<'a>(root: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> String {
    let names = paths.map(|path| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .display()
            .to_string()
    });
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::counts::tests::sample as counted;

    /// Results of the test double of libcuda: the shape of a file, with times that mean nothing.
    pub fn sample() -> Results {
        let text = include_str!("../../tests/made_up_results.json");
        Results::from_json(text).expect("a file of this version")
    }

    fn workspace(page: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("docs")).expect("writable");
        for name in PAGES {
            fs::write(root.path().join(name), page).expect("writable");
        }
        root
    }

    #[test]
    fn a_sample_gives_every_figure_and_table() {
        let page = "before\n<!-- report:gemv -->\nstale text\n<!-- /report:gemv -->\nafter\n";
        let root = workspace(page);
        let files = files(root.path(), &[sample()], &counted()).expect("a report");
        let names: Vec<_> = files
            .keys()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        for figure in ["latency", "roofline", "bandwidth", "memory", "counts"] {
            assert!(
                names.iter().any(|name| name.starts_with(figure)),
                "{names:?}"
            );
        }
        let readme = &files[&root.path().join("README.md")];
        assert!(
            readme.starts_with("before\n")
                && readme.ends_with("after\n")
                && !readme.contains("stale text"),
            "{readme}"
        );
        assert!(
            readme.contains("made up"),
            "the table names its device: {readme}"
        );
    }

    #[test]
    fn what_is_written_is_fresh_and_what_is_changed_is_not() {
        let root = workspace("<!-- report:memory -->\n<!-- /report:memory -->\n");
        let expected = files(root.path(), &[sample()], &counted()).expect("a report");
        for (path, text) in stale(root.path(), &expected).expect("readable") {
            fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            fs::write(&path, text.expect("nothing has to go")).expect("writable");
        }
        let again = || {
            stale(
                root.path(),
                &files(root.path(), &[sample()], &counted()).expect("a report"),
            )
            .expect("readable")
        };
        assert_eq!(again(), BTreeMap::new());
        let readme = root.path().join("README.md");
        let changed = fs::read_to_string(&readme)
            .expect("there")
            .replace("MiB", "KiB");
        fs::write(&readme, changed).expect("writable");
        let left_over = root.path().join(FIGURES).join("of-another-gpu.svg");
        fs::write(&left_over, "").expect("writable");
        let found = again();
        assert_eq!(found.len(), 2);
        assert!(found[&readme].is_some() && found[&left_over].is_none());
    }

    #[test]
    fn two_results_of_one_gpu_are_refused() {
        let root = workspace("");
        let error = files(root.path(), &[sample(), sample()], &counted()).expect_err("one name");
        assert!(error.to_string().contains("two results of"), "{error}");
    }

    #[test]
    fn without_results_the_place_says_so() {
        let root = workspace("<!-- report:gemv -->\n<!-- /report:gemv -->\n");
        let files = files(root.path(), &[], &counted()).expect("a report");
        assert!(files[&root.path().join("README.md")].contains("no GPU result"));
        let svgs = files
            .keys()
            .filter(|path| path.extension().is_some_and(|extension| extension == "svg"));
        assert_eq!(svgs.count(), 2, "static memory and counts need no GPU");
    }

    #[test]
    fn a_broken_file_is_named_with_its_fault_once() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("cut.json"), "{").expect("writable");
        let error = format!("{:#}", read(folder.path()).expect_err("cut off"));
        assert!(error.contains("cut.json"), "{error}");
        assert_eq!(error.matches("EOF").count(), 1, "{error}");
    }

    #[test]
    fn made_up_times_are_no_results() {
        assert!(require_real(&sample()).is_err());
        let mut results = sample();
        results.device.name = "cuda:0 (NVIDIA H200)".to_owned();
        require_real(&results).expect("a GPU");
        results.device.kind = "emulated".to_owned();
        assert!(require_real(&results).is_err());
    }

    #[test]
    fn the_committed_report_is_fresh() {
        check().expect("run `cargo xtask report`");
    }
}
