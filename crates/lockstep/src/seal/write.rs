//! Puts a new text in the place of a file: whole, or not at all.

use std::{fs, io::Write as _, path::Path};

/// The mark at the beginning of some UTF-8 files, which is no part of the text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Writes `new` where `old` stands. What comes between is beside the file, and never holds what was there.
///
/// # Errors
/// A sentence that names the file; it is as it was then.
pub(super) fn replace(path: &Path, old: &str, new: &str) -> Result<(), String> {
    let failed = |error| format!("{} cannot be written: {error}", path.display());
    // a link stays a link
    let path = &fs::canonicalize(path).map_err(failed)?;
    let bytes = fs::read(path).map_err(failed)?;
    let (mark, text) = match bytes.strip_prefix(BYTE_ORDER_MARK) {
        Some(text) => (BYTE_ORDER_MARK, text),
        None => (&[][..], bytes.as_slice()),
    };
    if text != old.as_bytes() {
        return Err(format!(
            "{} was changed by somebody else meanwhile: nothing is written to it. Run the command again",
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
