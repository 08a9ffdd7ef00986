//! Files that are read whole, and files that are replaced atomically: written next to their destination, then renamed to it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Reads a file.
///
/// # Errors
/// What the operating system says; also where it is no file: a device such as `/dev/zero` has no end.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file; name one",
        ));
    }
    fs::read(path)
}

/// Writes a file, or replaces one, in one step: a reader sees the old content or the new, and a failure leaves the old.
///
/// # Errors
/// What the operating system says; also where something that is no file has the name, such as a folder or a device: a rename
/// would put the file in its place.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it exists and is not a regular file; name another",
        ));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no folder {}; create it first", folder.display()),
        ));
    }
    let mut builder = tempfile::Builder::new();
    // As other programs make files: the umask decides who may read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // Removed when dropped, so that a failure leaves nothing behind.
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
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
}
