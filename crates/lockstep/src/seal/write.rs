//! Replaces the content of a file atomically.

use std::{fs, io::Write as _, path::Path};

/// Byte order mark at the start of some UTF-8 files. It is not part of the text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Replaces `old` with `new`. The temporary file next to it never contains the old text.
///
/// # Errors
/// Names the file, which was not changed in that case.
pub(super) fn replace(path: &Path, old: &str, new: &str) -> Result<(), String> {
    let failed = |error| format!("{} cannot be written: {error}", path.display());
    // write through a link instead of replacing it
    let path = &fs::canonicalize(path).map_err(failed)?;
    let bytes = fs::read(path).map_err(failed)?;
    let (mark, text) = match bytes.strip_prefix(BYTE_ORDER_MARK) {
        Some(text) => (BYTE_ORDER_MARK, text),
        None => (&[][..], bytes.as_slice()),
    };
    if text != old.as_bytes() {
        return Err(format!(
            "{} was changed by another program in the meantime and was not written. Run the command again",
            path.display()
        ));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let permissions = fs::metadata(path).map_err(failed)?.permissions();
    let mut file = tempfile::Builder::new()
        .prefix(".lockstep-seal-")
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(mark)
        .and_then(|()| file.write_all(new.as_bytes()))
        .and_then(|()| file.as_file().set_permissions(permissions))
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path)
        .map(|_| ())
        .map_err(|error| failed(error.error))
}
