//! The symbolic links of a volume that Kubernetes projects: `KEY -> ..data/KEY` and `..data ->
//! ..2026_11_24_03_00_00.123`.

/// Maximum number of links that one name may lead through. A key in a volume leads through two.
pub(super) const MOST_LINKS: usize = 8;

/// Returns the segments of a link's target if the link is one that a volume uses, otherwise `None`.
///
/// The first segment begins with `..`, and no segment is `.` or `..`. The target therefore lies in
/// the folder that holds the link, in an entry that no key can name. Any other link could reach a
/// neighbour's folder, whose keys the reader is not granted.
pub(super) fn segments(target: &str) -> Option<Vec<String>> {
    let segments: Vec<&str> = target.split('/').collect();
    let is_volume = segments.first().is_some_and(|first| first.starts_with(".."))
        && !segments.iter().any(|segment| matches!(*segment, "" | "." | ".."));
    is_volume.then(|| segments.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn only_volume_links_have_segments() {
        for target in ["..data/key", "..data", "..2026_11_24.1", "..data/tls/key"] {
            assert_eq!(segments(target).unwrap().join("/"), target);
        }
        for target in [
            "",
            ".",
            "..",
            "../a",
            "../..data",
            "/..data",
            "a",
            "a/..data",
            "./..data",
            "..data/../..",
            "..data/../a",
            "..data//a",
            "..data/",
            "..data/./a",
            "pipe:[1]",
        ] {
            assert!(segments(target).is_none(), "{target}");
        }
    }
}
