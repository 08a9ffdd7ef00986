//! A kernel compiler from Debian's packages, unpacked into a folder: no root, nothing installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use super::toolchain_dir;
use crate::process;

/// Debian's rustc for building web browsers, which follows upstream's releases within a stable Debian.
const RUSTC: &str = "rustc-web";
const SOURCE: &str = "rust-web-src";
/// The packages among their dependencies that belong to the compiler. Of the other libraries, those that the system lacks are needed too.
const PARTS: [&str; 2] = ["libstd-rust-web", "libllvm"];

const QUICK: Duration = Duration::from_secs(60);
const DOWNLOAD: Duration = Duration::from_secs(600);

pub fn unpack() -> Result<()> {
    let folder = toolchain_dir();
    let staging = folder.with_extension("partial");
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    fs::create_dir_all(&staging)?;
    // Before the first command that needs them, so that the message is about the machine and not about a package.
    for program in ["apt-get", "apt-cache", "dpkg"] {
        process::capture(Command::new(program).arg("--version"), QUICK).with_context(|| {
            format!("`{program}` is needed: this is for Debian and its derivatives")
        })?;
    }

    let apt = Apt::with_lists(&staging)?;
    let packages = apt.packages()?;
    let debs = staging.join("debs");
    fs::create_dir_all(&debs)?;
    let progress = ProgressBar::new(2 * packages.len() as u64).with_message("Debian's compiler");
    for package in &packages {
        process::capture(
            apt.command("apt-get")
                .arg("download")
                .arg(package)
                .current_dir(&debs),
            DOWNLOAD,
        )?;
        progress.inc(1);
    }
    let root = staging.join("root");
    for deb in fs::read_dir(&debs)? {
        process::capture(
            Command::new("dpkg").arg("-x").arg(deb?.path()).arg(&root),
            DOWNLOAD,
        )?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    prune(&root)?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&root, &folder).with_context(|| format!("cannot move into {}", folder.display()))?;
    fs::remove_dir_all(&staging)?;
    Ok(())
}

/// apt, with package lists of our own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Gets today's package lists into `staging`. The system's may be missing, or so old that they name a compiler too old for kernels.
    fn with_lists(staging: &Path) -> Result<Self> {
        let lists = staging.join("lists");
        let cache = staging.join("cache");
        for folder in [lists.join("partial"), cache.join("archives/partial")] {
            fs::create_dir_all(folder)?;
        }
        let own = Self {
            options: vec![
                "-o".to_owned(),
                format!("Dir::State::Lists={}", lists.display()),
                "-o".to_owned(),
                format!("Dir::Cache={}", cache.display()),
                // As root, apt downloads as the user `_apt`, who may not write into this folder.
                "-o".to_owned(),
                "APT::Sandbox::User=root".to_owned(),
            ],
        };
        // apt also fails where one of several sources does; only the compiler's matters.
        let update = process::capture(own.command("apt-get").arg("update"), DOWNLOAD);
        if let Err(missing) = own.candidate(RUSTC) {
            update.context("cannot get Debian's package lists")?;
            return Err(missing.context("Debian's archive as configured here has no such package"));
        }
        Ok(own)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }

    /// The control record of the version that would be installed.
    fn candidate(&self, package: &str) -> Result<String> {
        let record = process::capture(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", package]),
            QUICK,
        )?
        .stdout;
        if field(&record, "Version").is_none() {
            bail!("`apt-cache show {package}` names no version");
        }
        Ok(record)
    }

    /// The compiler's packages, each with the version that fits: `name=version`.
    fn packages(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![RUSTC.to_owned()];
        let mut rustc_version = String::new();
        while let Some(package) = open.pop() {
            if !seen.insert(package.clone()) {
                continue;
            }
            let record = match self.candidate(&package) {
                Ok(record) => record,
                // A name that other packages provide.
                Err(_) if !is_part(&package) => continue,
                Err(error) => return Err(error),
            };
            let version = field(&record, "Version").unwrap_or_default();
            if package == RUSTC {
                rustc_version = version.to_owned();
            }
            found.insert(format!("{package}={version}"));
            open.extend(
                dependencies(&record)
                    .filter(|name| is_part(name) || name.starts_with("lib") && !is_installed(name)),
            );
        }
        found.insert(format!("{SOURCE}={rustc_version}"));
        Ok(found)
    }
}

/// Whether a package belongs to the compiler.
fn is_part(package: &str) -> bool {
    package == RUSTC || PARTS.iter().any(|part| package.starts_with(part))
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    process::capture(&mut query, QUICK).is_ok_and(|captured| captured.stdout == "installed")
}

/// A field of a control record, in one line.
fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The names in a record's `Depends`, without versions; of alternatives, the first.
fn dependencies(record: &str) -> impl Iterator<Item = String> + '_ {
    field(record, "Depends")
        .unwrap_or_default()
        .split(',')
        .filter_map(|entry| entry.split_whitespace().next())
        .map(str::to_owned)
}

/// Keeps the compiler, the host's standard library (for procedural macros) and the sources of `core`.
fn prune(root: &Path) -> Result<()> {
    for part in ["etc", "usr/share", "usr/libexec"] {
        remove(&root.join(part))?;
    }
    for entry in fs::read_dir(root.join("usr/bin"))?.flatten() {
        if entry.file_name() != "rustc" {
            remove(&entry.path())?;
        }
    }
    for release in fs::read_dir(root.join("usr/src"))?.flatten() {
        for entry in fs::read_dir(release.path())?.flatten() {
            if entry.file_name() != "library" {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "Package: rustc-web\nVersion: 1.96.0+dfsg1-1~deb12u2\n\
        Depends: libc6 (>= 2.34), libstd-rust-web-dev (= 1.96.0+dfsg1-1~deb12u2), gcc | clang, libc-dev\n\
        Recommends: cargo-web\n";

    #[test]
    fn control_records_are_read() {
        assert_eq!(field(RECORD, "Version"), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(field(RECORD, "Pre-Depends"), None);
        assert_eq!(
            dependencies(RECORD).collect::<Vec<_>>(),
            ["libc6", "libstd-rust-web-dev", "gcc", "libc-dev"]
        );
    }

    #[test]
    fn a_record_without_dependencies_has_none() {
        assert_eq!(
            dependencies("Package: rust-web-src\nVersion: 1\n").count(),
            0
        );
    }
}
