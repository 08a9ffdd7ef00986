//! Files that are read whole, and files that are replaced atomically: written next to their destination, then renamed to it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Reads a file.
///
/// # Errors
/// What the operating system says; also where it is no file: a device such as `/dev/zero` has no end.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file; name one",
        ));
    }
    fs::read(path)
}

/// Writes a file, or replaces one, in one step: a reader sees the old content or the new, and a failure leaves the old. Where a link has the
/// name, the file that it leads to is written; a file that is replaced keeps its permissions.
///
/// # Errors
/// What the operating system says; also as [`require_writable`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = require_writable(path)?;
    let mut builder = tempfile::Builder::new();
    // As other programs make files: the umask decides who may read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // Removed when dropped, so that a failure leaves nothing behind.
    let mut file = builder.tempfile_in(folder(&path))?;
    file.write_all(bytes)?;
    if let Ok(old) = fs::metadata(&path) {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Where [`write`] puts a file of this name, links followed. For use before work whose result goes there.
///
/// # Errors
/// Where something that is no file has the name, such as a folder or a device (a rename would put the file in its place), there is no
/// folder for it, or links lead in a circle.
pub fn require_writable(path: &Path) -> io::Result<PathBuf> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it exists and is not a regular file; name another",
        ));
    }
    let path = follow(path)?;
    if !folder(&path).is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "there is no folder {}; create it first",
                folder(&path).display()
            ),
        ));
    }
    Ok(path)
}

/// The end of a chain of links, also where nothing is there yet.
fn follow(path: &Path) -> io::Result<PathBuf> {
    // As many as Linux follows.
    const MOST: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        match fs::read_link(&path) {
            Ok(target) => path = folder(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "its links lead to no file; name another",
    ))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_alone_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"first").unwrap();
        assert_eq!(read(&path).unwrap(), b"first");
        let error = |path: &Path| read(path).unwrap_err().kind();
        assert_eq!(error(folder.path()), io::ErrorKind::InvalidInput);
        assert_eq!(error(&folder.path().join("none")), io::ErrorKind::NotFound);
        #[cfg(unix)]
        assert_eq!(error(Path::new("/dev/zero")), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_file_is_replaced_and_a_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"first").unwrap();
        write(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        let error = write(folder.path(), b"3").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = write(&folder.path().join("none/file"), b"4").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(
            error.to_string().contains("none; create it first"),
            "{error}"
        );
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_stays_and_others_may_read_what_is() {
        use std::os::unix::{fs::FileTypeExt, fs::PermissionsExt, net::UnixListener};
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(write(&socket, b"1").is_err());
        assert!(fs::metadata(&socket).unwrap().file_type().is_socket());

        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write(&ours, b"1").unwrap();
        fs::write(&plain, b"1").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(ours), mode(plain));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_so_do_permissions() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        fs::create_dir(at("models")).unwrap();
        fs::write(at("models/file"), b"old").unwrap();
        // Neither that of a temporary file nor that of a new one.
        fs::set_permissions(at("models/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("models/file", at("link")).unwrap();
        symlink(at("link"), at("second")).unwrap();
        write(&at("second"), b"new").unwrap();
        assert_eq!(fs::read(at("models/file")).unwrap(), b"new");
        assert_eq!(mode("models/file"), 0o640);
        assert!(at("link").is_symlink() && at("second").is_symlink());

        // As a shell's redirection makes the file that a link leads to.
        symlink("models/next", at("ahead")).unwrap();
        write(&at("ahead"), b"made").unwrap();
        assert_eq!(fs::read(at("models/next")).unwrap(), b"made");

        symlink("circle", at("circle")).unwrap();
        let error = write(&at("circle"), b"1").unwrap_err();
        assert!(error.to_string().contains("links"), "{error}");
        symlink("/dev/null", at("null")).unwrap();
        let error = write(&at("null"), b"1").unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert!(at("null").is_symlink());
    }
}
