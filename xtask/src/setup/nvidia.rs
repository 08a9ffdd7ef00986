//! NVIDIA's `ptxas` and `nvdisasm`, from their packages on PyPI. They need no GPU and no driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use crate::{process, workspace};

/// One release of all, as `benches/sass.json` and the forms of the emulator's tests are what it says. CUDA 13 assembles for everything from sm_75 to
/// sm_120.
const VERSION: &str = "13.5.37";
const PACKAGES: [&str; 3] = [
    "nvidia-cuda-nvcc",
    "nvidia-cuda-nvdisasm",
    "nvidia-cuda-cuobjdump",
];
const PROGRAMS: [&str; 3] = ["ptxas", "nvdisasm", "cuobjdump"];

const QUICK: Duration = Duration::from_secs(60);
const DOWNLOAD: Duration = Duration::from_secs(900);

/// The folder that holds the programs.
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn command(&self, program: &str) -> Command {
        Command::new(self.folder.join(program))
    }

    /// What ptxas says of itself: `release 13.5, V13.5.37`.
    pub fn version(&self) -> Result<String> {
        self.version_of("ptxas")
    }

    fn version_of(&self, program: &str) -> Result<String> {
        let text = process::capture(self.command(program).arg("--version"), QUICK)?.stdout;
        let line = text.lines().find(|line| line.contains("release"));
        let line = line.with_context(|| format!("`{program} --version` names no release"))?;
        Ok(line
            .trim_start_matches("Cuda compilation tools, ")
            .to_owned())
    }

    /// The tools, where they are there already, start, and are of [`VERSION`].
    pub fn present() -> Option<Self> {
        Self::at(workspace::root().join("target/nvidia-tools/bin"))
    }

    fn at(folder: PathBuf) -> Option<Self> {
        let tools = Self { folder };
        let wanted = format!(", V{VERSION}");
        let fits = |program| {
            let version = tools.version_of(program);
            version.is_ok_and(|version| version.ends_with(&wanted))
        };
        PROGRAMS.into_iter().all(fits).then_some(tools)
    }
}

/// The tools, got from PyPI where they are not there yet.
pub fn tools() -> Result<Tools> {
    if let Some(tools) = Tools::present() {
        return Ok(tools);
    }
    install().context(
        "NVIDIA's ptxas could not be got from PyPI; it needs python3 with its venv module (Debian: python3-venv) and \
         a network that reaches PyPI",
    )?;
    Tools::present().with_context(|| {
        format!(
            "ptxas, nvdisasm or cuobjdump of NVIDIA's packages does not start, or is not {VERSION}"
        )
    })
}

fn install() -> Result<()> {
    let folder = workspace::root().join("target/nvidia-tools");
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let venv = partial.join("venv");
    let progress = ProgressBar::new_spinner().with_message("NVIDIA's assembler from PyPI");
    progress.enable_steady_tick(Duration::from_millis(100));
    process::capture(
        Command::new("python3").args(["-m", "venv"]).arg(&venv),
        DOWNLOAD,
    )?;
    process::capture(
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(PACKAGES.map(|package| format!("{package}=={VERSION}"))),
        DOWNLOAD,
    )?;
    // The packages bring all of nvcc: 350 MB, of which three programs are needed.
    let bin = partial.join("bin");
    fs::create_dir(&bin)?;
    for program in PROGRAMS {
        let Some(found) = find(&venv.join("lib"), program)? else {
            bail!("no `{program}` among the files of {}", PACKAGES.join(", "));
        };
        fs::copy(&found, bin.join(program))
            .with_context(|| format!("cannot copy {}", found.display()))?;
    }
    fs::remove_dir_all(&venv)?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&partial, &folder)?;
    progress.finish_and_clear();
    Ok(())
}

/// The file `bin/NAME` somewhere below `folder`.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.ends_with(Path::new("bin").join(name)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tools_of_another_version_or_that_do_not_start_are_not_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |program: &str, text: &str| {
            let path = folder.path().join(program);
            fs::write(&path, text).expect("writable");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("writable");
        };
        let found = || Tools::at(folder.path().to_owned()).is_some();
        assert!(!found(), "there are none");
        let older = "#!/bin/sh\necho 'Cuda compilation tools, release 13.5, V13.5.3'\n";
        for text in [older, "cut off"] {
            for program in PROGRAMS {
                write(program, text);
            }
            assert!(!found(), "{text}");
        }
    }

    #[test]
    fn a_program_is_found_only_in_a_bin_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |relative: &str| folder.path().join(relative);
        fs::create_dir_all(path("python3/site-packages/nvidia/cu13/bin")).expect("folders");
        fs::create_dir_all(path("python3/ptxas")).expect("folders");
        fs::write(path("python3/ptxas/ptxas"), "").expect("a file");
        assert_eq!(find(folder.path(), "ptxas").expect("readable"), None);
        let program = path("python3/site-packages/nvidia/cu13/bin/ptxas");
        fs::write(&program, "").expect("a file");
        assert_eq!(
            find(folder.path(), "ptxas").expect("readable"),
            Some(program)
        );
    }
}
