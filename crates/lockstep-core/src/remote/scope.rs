use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use globset::GlobMatcher;

use super::Location;

/// Maximum number of searches for one query. Above it, one search covers the longest common prefix.
const MOST_BEGINNINGS: usize = 32;

/// A glob of locations. `*` and `?` match within a segment, `**` also matches across segments.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    /// The prefix that all covered locations share: the text before the first wildcard.
    literal: String,
    matcher: GlobMatcher,
}

impl Pattern {
    /// Parses a glob. Returns `None` if it is malformed.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let matcher = globset::GlobBuilder::new(&within_segments(text)?)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .ok()?
            .compile_matcher();
        Some(Self {
            text: text.to_owned(),
            literal: Self::literal(text).to_owned(),
            matcher,
        })
    }

    /// Returns the prefix of a glob that every location it covers begins with.
    pub fn literal(glob: &str) -> &str {
        let end = glob.find(['*', '?', '[', '{', '\\']);
        end.and_then(|end| glob.get(..end)).unwrap_or(glob)
    }

    /// Returns the glob as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the glob matches a location and spells out its anchor.
    pub fn covers(&self, location: &Location) -> bool {
        self.literal.starts_with(location.anchor()) && self.matches(location)
    }

    /// Whether the glob matches a text. `?` and classes match single bytes, so they match no text
    /// with characters of several bytes.
    fn matches(&self, text: &str) -> bool {
        let by_bytes = self.text.contains(['?', '[']);
        !text.split('/').any(|segment| matches!(segment, "." | ".."))
            && (text.is_ascii() || !by_bytes)
            && self.matcher.is_match(text)
    }

    /// Returns the prefix of covered locations that start with `begin`, or an empty text if it is
    /// `begin` itself. `None` if no such location is covered.
    fn beginning(&self, begin: &str) -> Option<&str> {
        if self.literal.starts_with(begin) {
            return Some(&self.literal);
        }
        // a pattern without wildcards covers only its own text
        let is_exact = self.literal.len() == self.text.len();
        (!is_exact && begin.starts_with(&self.literal)).then_some("")
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Returns the glob with classes that do not match a slash, because the matcher lets a class cross
/// segments. Returns `None` if a class contains a slash or is malformed.
fn within_segments(glob: &str) -> Option<String> {
    let mut kept = String::with_capacity(glob.len());
    let mut rest = glob.chars();
    while let Some(c) = rest.next() {
        kept.push(c);
        if c == '\\' {
            kept.extend(rest.next());
        }
        if c != '[' {
            continue;
        }
        let (class, after) = rest.as_str().split_once(']')?;
        let members = class.strip_prefix(['!', '^']);
        let listed: Vec<char> = members.unwrap_or(class).chars().collect();
        let crosses = listed
            .windows(3)
            .any(|range| range[1] == '-' && range[0] <= '/' && '/' <= range[2]);
        // a bracket right after the opening one is a member of the class, which no key needs
        if listed.is_empty() || listed.contains(&'/') || (members.is_none() && crosses) {
            return None;
        }
        match members {
            Some(members) => kept.extend(["!", members, "/"]),
            None => kept.push_str(class),
        }
        kept.push(']');
        rest = after.chars();
    }
    Some(kept)
}

/// The locations that a caller may access. A provider neither searches nor names any other
/// location.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope(Option<Arc<[Pattern]>>);

impl Scope {
    /// Creates a scope of every location in the store.
    pub fn everything() -> Self {
        Self(None)
    }

    /// Creates a scope of the locations that the patterns cover.
    pub fn patterns(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self(Some(patterns.into_iter().collect()))
    }

    /// Whether the scope contains a location.
    pub fn covers(&self, location: &Location) -> bool {
        match &self.0 {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| pattern.covers(location)),
        }
    }

    /// Whether the scope contains a location with this text that is below what the store names.
    pub fn covers_text(&self, text: &str) -> bool {
        match &self.0 {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| pattern.matches(text)),
        }
    }

    /// Whether the scope can contain a location that starts with `begin`.
    pub fn reaches(&self, begin: &str) -> bool {
        match &self.0 {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| pattern.beginning(begin).is_some()),
        }
    }

    /// Returns the prefixes to search for every location in the scope that starts with `begin`. No
    /// prefix starts with another one. Empty if there is no such location.
    pub fn beginnings(&self, begin: &str) -> Vec<String> {
        let Some(patterns) = &self.0 else {
            return vec![begin.to_owned()];
        };
        let mut all: Vec<String> = patterns
            .iter()
            .filter_map(|pattern| pattern.beginning(begin))
            .map(|longer| if longer.is_empty() { begin } else { longer }.to_owned())
            .collect();
        all.sort_unstable();
        all.dedup_by(|later, earlier| later.starts_with(earlier.as_str()));
        if all.len() > MOST_BEGINNINGS
            && let (Some(first), Some(last)) = (all.first(), all.last())
        {
            // the list is sorted, so all entries share what the first and the last share
            return vec![common(first, last).to_owned()];
        }
        all
    }

    /// Returns the folders that contain every location in the scope within the folder `begin`.
    /// `begin` is empty or ends with a slash. No folder contains another one. An empty folder is
    /// the top of the store.
    pub fn folders(&self, begin: &str) -> Vec<String> {
        folders(self.beginnings(begin))
    }
}

/// Returns the folders that contain every text that starts with one of the prefixes. No folder
/// contains another one. An empty folder is the top of the store.
pub fn folders(beginnings: impl IntoIterator<Item = String>) -> Vec<String> {
    // with its slash, a folder sorts right before its contents
    let folder = |text: String| {
        text.rsplit_once('/')
            .map_or(String::new(), |(folder, _)| format!("{folder}/"))
    };
    let mut all: Vec<String> = beginnings.into_iter().map(folder).collect();
    all.sort_unstable();
    all.dedup_by(|later, earlier| later.starts_with(earlier.as_str()));
    all.into_iter()
        .map(|folder| folder.strip_suffix('/').map(str::to_owned).unwrap_or(folder))
        .collect()
}

/// Returns the longest common prefix.
fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let shared = one.char_indices().zip(other.chars());
    let end = shared
        .take_while(|((_, a), b)| a == b)
        .last()
        .map_or(0, |((at, c), _)| at + c.len_utf8());
    one.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(globs: &[&str]) -> Scope {
        Scope::patterns(globs.iter().filter_map(|glob| Pattern::new(glob)))
    }

    fn covers(glob: &str, key: &str) -> bool {
        Pattern::new(glob).is_some_and(|pattern| pattern.covers(&Location::new(key).unwrap()))
    }

    #[test]
    fn only_two_stars_cross_a_segment() {
        for glob in ["shop/*", "shop/?", "shop/[!x]", "shop/[a-z]", "shop/{a,b}"] {
            assert!(covers(glob, "shop/a"), "{glob}");
            assert!(!covers(glob, "shop/a/b") && !covers(glob, "shop//"), "{glob}");
        }
        assert!(!covers("shop[!x]db", "shop/db") && !covers("a?b", "a/b") && !covers("a*b", "a/b"));
        assert!(covers("shop/**", "shop/a/b") && covers("**", "a/b") && covers("**/db", "a/b/db"));
    }

    #[test]
    fn character_class_with_a_slash_is_malformed() {
        for glob in ["", "a[/]b", "a[+-9]b", "a[]b", "a[!/]b", "a[", "a[]]"] {
            assert!(Pattern::new(glob).is_none(), "{glob}");
        }
        assert!(!covers("a[!-b]c", "a-c") && covers("a[!-b]c", "axc"));
        assert!(covers(r"a\[b", "a[b") && covers("a[b-d]", "ac") && covers("a[^b]", "ac"));
    }

    #[test]
    fn question_mark_matches_one_character() {
        assert!(covers("shop/??", "shop/ab"));
        assert!(!covers("shop/??", "shop/é"), "two bytes");
        assert!(covers("shop/*", "shop/é") && covers("größe/*", "größe/a"));
    }

    #[test]
    fn anchored_location_needs_a_glob_with_its_literal_prefix() {
        let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/db";
        let location = Location::anchored(arn, arn.len() - "shop/db".len()).unwrap();
        let covers = |glob: &str| Pattern::new(glob).unwrap().covers(&location);
        assert!(covers("arn:aws:ssm:eu-central-1:123456789012:parameter/shop/*") && covers(arn));
        for glob in [
            "**",
            "**/db",
            "arn:*/shop/db",
            "arn:aws:ssm:*:123456789012:parameter/shop/db",
        ] {
            assert!(!covers(glob), "{glob}");
        }
    }

    #[test]
    fn search_starts_at_the_granted_prefixes() {
        let all = |globs: &[&str], begin: &str| scope(globs).beginnings(begin);
        assert_eq!(all(&["shop/*", "blog/x-*"], ""), ["blog/x-", "shop/"]);
        assert_eq!(all(&["shop/*", "shop/eu/**"], ""), ["shop/"]);
        assert_eq!(all(&["shop/*"], "shop/eu/"), ["shop/eu/"]);
        assert_eq!(all(&["shop/eu/*"], "shop/"), ["shop/eu/"]);
        assert_eq!(all(&["shop/*"], "blog/"), Vec::<String>::new());
        assert_eq!(all(&["shop"], "shop/"), Vec::<String>::new());
        assert_eq!(all(&["**/db"], ""), [""]);
        assert_eq!(Scope::everything().beginnings("shop/"), ["shop/"]);
        assert_eq!(all(&[], ""), Vec::<String>::new());
    }

    #[test]
    fn folders_of_a_search_do_not_overlap() {
        let all = |globs: &[&str], begin: &str| scope(globs).folders(begin);
        assert_eq!(
            all(&["shop/db-*", "shop/eu/**", "shop-b/*", "blog/x"], ""),
            ["blog", "shop-b", "shop"]
        );
        assert_eq!(all(&["db-*", "shop/*"], ""), [""]);
        assert_eq!(all(&["shop/eu/*"], "shop/"), ["shop/eu"]);
        assert_eq!(all(&["**"], "shop/"), ["shop"]);
        assert_eq!(all(&["blog/*"], "shop/"), Vec::<String>::new());
    }

    #[test]
    fn many_prefixes_become_their_common_prefix() {
        let globs: Vec<String> = (0..40).map(|number| format!("shop/{number}/*")).collect();
        let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
        assert_eq!(scope(&globs).beginnings(""), ["shop/"]);
    }
}
