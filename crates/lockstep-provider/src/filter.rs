use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lockstep_core::search::{MAX_PROGRAM, NameExpression, WORK_PER_NANO};

use crate::{
    Context, ErrorKind, FindQuery, Location, MatchTime, Operation, ProviderError, RemoteMeta, Scope,
    match_time::{nanos, on_thread, too_slow},
};

/// Maximum length of a name that is matched, in bytes.
const MAX_NAME: usize = 4096;
/// Maximum time that one search matches names. The names and the expression can be a tenant's.
const MAX_TIME: Duration = Duration::from_millis(500);
/// Maximum work on an async thread: about half a millisecond in the worst case.
const SHORT_WORK: usize = 1 << 21;
/// Maximum work before the next search has its turn: about 16 milliseconds in the worst case.
const TURN_WORK: usize = 1 << 26;
/// Maximum length and size of an expression that is compiled on an async thread, in bytes.
const SHORT_PATTERN: usize = 128;
const SMALL_PROGRAM: usize = 16 << 10;

/// A prepared [`FindQuery`]. It defines scope, path, name and tags in the same way for every
/// provider.
///
/// - `scope`: the caller is granted the key.
/// - `path`: the key lies below it. `shop` finds `shop/database` but not `shopping/cart`.
/// - `name`: the pattern matches anywhere in the whole key; anchor it with `^` and `$`.
/// - `tags`: the value has every tag, with the same value.
#[derive(Debug, Clone)]
pub struct KeyFilter {
    scope: Scope,
    begin: String,
    name: Option<Arc<NameMatcher>>,
    tags: BTreeMap<String, String>,
}

impl KeyFilter {
    /// Prepares a query.
    ///
    /// # Errors
    /// `ConfigInvalid` when `name` is no regular expression, or one that compiles to more than 1 MiB.
    pub async fn new(cx: &Context, query: &FindQuery) -> Result<Self, ProviderError> {
        let name = match &query.name {
            None => None,
            Some(pattern) => Some(Arc::new(NameMatcher::new(cx, pattern).await?)),
        };
        let path = query.path.as_ref();
        Ok(Self {
            scope: query.scope.clone(),
            begin: path.map(|path| format!("{path}/")).unwrap_or_default(),
            name,
            tags: query.tags.clone(),
        })
    }

    /// Returns whether a key is granted and matches the path and the name.
    ///
    /// # Errors
    /// The errors of [`KeyFilter::matches_name`].
    pub fn matches_key(&self, key: &str) -> Result<bool, ProviderError> {
        Ok(self.matches_location(key) && self.matches_name(key)?)
    }

    /// Returns whether a key is granted and lies below the path.
    pub fn matches_location(&self, key: &str) -> bool {
        key.starts_with(&self.begin) && self.scope.covers_text(key)
    }

    /// Returns whether the caller is granted a location, independent of the query.
    pub fn covers(&self, location: &Location) -> bool {
        self.scope.covers(location)
    }

    /// Returns whether a key with this prefix may match.
    pub fn reaches(&self, begin: &str) -> bool {
        self.scope.reaches(begin)
    }

    /// Returns whether a key matches the name pattern.
    ///
    /// # Errors
    /// `Malformed` when the key is longer than 4096 bytes, `ConfigInvalid` when the pattern takes
    /// too long for all keys of the search together.
    pub fn matches_name(&self, key: &str) -> Result<bool, ProviderError> {
        self.name.as_ref().map_or(Ok(true), |name| name.is_match(key))
    }

    /// Returns the items whose names match. Long work runs on a thread of its own.
    ///
    /// # Errors
    /// See [`KeyFilter::matches_name`].
    pub async fn named<T>(
        &self,
        mut items: Vec<T>,
        name: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, ProviderError> {
        let Some(matcher) = &self.name else {
            return Ok(items);
        };
        let names: Vec<String> = items.iter().map(|item| name(item).to_owned()).collect();
        drop(name);
        let mut matches = NameMatcher::matches(matcher, names).await?.into_iter();
        items.retain(|_| matches.next().unwrap_or_default());
        Ok(items)
    }

    /// Returns the folders that contain all matching keys: see [`Scope::folders`].
    pub fn folders(&self) -> Vec<String> {
        self.scope.folders(&self.begin)
    }

    /// Returns the prefixes of all matching keys: see [`Scope::beginnings`].
    pub fn beginnings(&self) -> Vec<String> {
        self.scope.beginnings(&self.begin)
    }

    /// Returns the items whose keys match.
    ///
    /// # Errors
    /// The errors of [`KeyFilter::matches_key`].
    pub fn keep<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, ProviderError> {
        let mut kept = Vec::new();
        for item in items {
            if self.matches_key(key(&item))? {
                kept.push(item);
            }
        }
        Ok(kept)
    }

    /// Returns whether a value has the requested tags.
    pub fn matches_tags(&self, tags: &BTreeMap<String, String>) -> bool {
        self.tags
            .iter()
            .all(|(name, value)| tags.get(name) == Some(value))
    }
}

/// The expression of one search, and the time that it took.
#[derive(Debug)]
struct NameMatcher {
    expression: NameExpression,
    nanos: AtomicU64,
    time: MatchTime,
}

impl NameMatcher {
    async fn new(cx: &Context, pattern: &str) -> Result<Self, ProviderError> {
        let small = (pattern.len() <= SHORT_PATTERN).then(|| NameExpression::new(pattern, SMALL_PROGRAM));
        let expression = if let Some(Ok(expression)) = small {
            Ok(expression)
        } else {
            let (time, pattern) = (cx.match_time.clone(), pattern.to_owned());
            on_thread(move || {
                let begun = Instant::now();
                let expression = NameExpression::new(&pattern, MAX_PROGRAM);
                time.add(begun.elapsed());
                expression
            })
            .await?
        };
        let expression = expression.map_err(|_| {
            let message =
                format!("find.name.regexp \"{pattern}\" is not a regular expression that can be used");
            ProviderError::new(ErrorKind::ConfigInvalid, Operation::Find, message).with_hint(
                "Use RE2 syntax (no look-around, no back-references). The compiled expression must be at most 1 MiB.",
            )
        })?;
        Ok(Self {
            expression,
            nanos: AtomicU64::default(),
            time: cx.match_time.clone(),
        })
    }

    fn is_match(&self, name: &str) -> Result<bool, ProviderError> {
        if name.len() > MAX_NAME {
            let message = format!("the store holds a key of more than {MAX_NAME} bytes");
            return Err(ProviderError::new(ErrorKind::Malformed, Operation::Find, message));
        }
        let too_long = || too_slow("the expression takes too long for the keys of the store");
        if self.nanos.load(Ordering::Relaxed) > nanos(MAX_TIME) {
            return Err(too_long());
        }
        let begun = Instant::now();
        let matches = self.expression.is_match(name);
        // a thread that had to pause counts as much as the worst case
        let worst = self.expression.work(name) / WORK_PER_NANO;
        let took = begun.elapsed().min(Duration::from_nanos(worst as u64));
        self.nanos.fetch_add(nanos(took), Ordering::Relaxed);
        self.time.add(took);
        matches.map_err(|_| too_slow("a key of the store is too long for an expression of this size"))
    }

    async fn matches(this: &Arc<Self>, names: Vec<String>) -> Result<Vec<bool>, ProviderError> {
        let work = names.iter().map(|name| this.expression.work(name));
        if work.fold(0, usize::saturating_add) <= SHORT_WORK {
            return this.turn(&names);
        }
        let names: Arc<[String]> = names.into();
        let mut matches = Vec::with_capacity(names.len());
        while let Some(rest) = names.get(matches.len()..).filter(|rest| !rest.is_empty()) {
            let (this, names, from) = (Arc::clone(this), Arc::clone(&names), names.len() - rest.len());
            matches.extend(on_thread(move || this.turn(&names[from..])).await??);
        }
        Ok(matches)
    }

    /// Matches at least the first of the names, and as many as one turn allows.
    fn turn(&self, names: &[String]) -> Result<Vec<bool>, ProviderError> {
        let mut work = 0_usize;
        let allowed = names.iter().take_while(|name| {
            let is_first = work == 0;
            work = work.saturating_add(self.expression.work(name));
            is_first || work <= TURN_WORK
        });
        allowed.map(|name| self.is_match(name)).collect()
    }
}

/// A key that a search found and that matches, as a location.
///
/// # Errors
/// `Unsupported` when no reference can name the key.
pub fn found(key: &str) -> Result<RemoteMeta, ProviderError> {
    let location = Location::new(key);
    location.map(|key| RemoteMeta { key }).map_err(|error| {
        let shown: String = key.chars().take(200).flat_map(char::escape_debug).collect();
        let message = format!("the search found \"{shown}\", which no key can name: it {error}");
        ProviderError::new(ErrorKind::Unsupported, Operation::Find, message)
            .with_hint("Rename it, or narrow find.path or find.name")
    })
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;
    use crate::{Pattern, testing::at};

    const HOSTILE: &str = "^(?:[ab/]?){3900}[^ab/]{2}|q1";

    async fn filter(path: Option<&str>, name: Option<&str>) -> KeyFilter {
        let query = FindQuery {
            path: path.map(at),
            name: name.map(Into::into),
            ..FindQuery::default()
        };
        KeyFilter::new(&Context::default(), &query).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_not_granted_does_not_match() {
        let query = FindQuery {
            scope: Scope::patterns([Pattern::new("shop/*").unwrap()]),
            ..FindQuery::default()
        };
        let filter = KeyFilter::new(&Context::default(), &query).await.unwrap();
        assert!(filter.matches_key("shop/database").unwrap());
        assert!(
            !filter.matches_key("shop/eu/database").unwrap() && !filter.matches_key("blog/database").unwrap()
        );
        assert_eq!(filter.folders(), ["shop"]);
    }

    #[test]
    fn found_name_that_is_not_a_valid_key_is_an_error() {
        let error = found("shop/my db").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.message.contains("\"shop/my db\""), "{error}");
    }

    #[tokio::test]
    async fn a_path_finds_what_lies_below_it_and_no_neighbour() {
        let filter = filter(Some("shop"), None).await;
        assert!(filter.matches_key("shop/database").unwrap());
        assert!(filter.matches_key("shop/eu/database").unwrap());
        assert!(!filter.matches_key("shopping/cart").unwrap());
        assert!(!filter.matches_key("shop").unwrap());
    }

    #[tokio::test]
    async fn without_a_path_every_key_matches() {
        assert!(filter(None, None).await.matches_key("anything").unwrap());
    }

    #[tokio::test]
    async fn a_name_is_looked_for_anywhere_in_the_key() {
        let filter = filter(Some("shop"), Some("data|^smtp$")).await;
        assert!(filter.matches_key("shop/database").unwrap());
        assert!(
            !filter.matches_key("shop/smtp").unwrap(),
            "^ is the beginning of the key"
        );
    }

    #[tokio::test]
    async fn every_tag_must_be_carried() {
        let tags = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let query = FindQuery {
            tags: tags(&[("team", "shop")]),
            ..FindQuery::default()
        };
        let filter = KeyFilter::new(&Context::default(), &query).await.unwrap();
        assert!(filter.matches_tags(&tags(&[("team", "shop"), ("env", "prod")])));
        assert!(!filter.matches_tags(&tags(&[("team", "blog")])));
        assert!(!filter.matches_tags(&tags(&[])));
    }

    #[tokio::test]
    async fn name_that_is_too_long_for_the_expression_fails() {
        let error = filter(None, Some(HOSTILE))
            .await
            .matches_key(&"ab".repeat(960))
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid);
        assert!(
            error
                .message
                .starts_with("find.name.regexp: a key of the store is too long"),
            "{error}"
        );
        let error = filter(None, Some("x"))
            .await
            .matches_key(&"x".repeat(5000))
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
    }

    #[tokio::test]
    async fn slow_expression_ends_its_search_and_no_other() {
        let slow = filter(None, Some("(a.*){10}[^a]")).await;
        let error = slow
            .keep(std::iter::repeat_n("a".repeat(1000), 10_000_000), |key| key)
            .unwrap_err();
        assert!(error.message.contains("takes too long"), "{error}");
        assert!(slow.matches_key("a").is_err(), "the search is over");
        assert!(filter(None, Some("a")).await.matches_key("a").unwrap());
    }

    #[tokio::test]
    async fn long_work_does_not_run_on_the_async_thread() {
        let filter = filter(None, Some("^prod/(db|api)-[a-z0-9-]+$")).await;
        let names = |count: usize| -> Vec<String> { (0..count).map(|n| format!("prod/db-{n}")).collect() };
        let mut short = Box::pin(filter.named(names(20), |name| name));
        assert!(poll!(&mut short).is_ready());
        let mut long = Box::pin(filter.named(names(10_000), |name| name));
        assert!(poll!(&mut long).is_pending());
        assert_eq!(long.await.unwrap(), names(10_000));
        let mut large = Box::pin(self::filter(None, Some(HOSTILE)));
        assert!(poll!(&mut large).is_pending(), "compiles elsewhere, too");
        large.await;
    }

    #[tokio::test]
    async fn names_match_in_turns_and_keep_their_order() {
        let filter = filter(None, Some("^a")).await;
        let name = |n: usize| format!("{}{n}/{}", ["a", "b"][n % 2], "x".repeat(2000));
        let names: Vec<String> = (0..500).map(name).collect();
        let matcher = filter.name.as_ref().unwrap();
        assert!(
            matcher.turn(&names).unwrap().len() < names.len(),
            "more than one turn"
        );
        let expected: Vec<String> = (0..500).step_by(2).map(name).collect();
        assert_eq!(filter.named(names, |name| name).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn pause_of_the_thread_counts_no_more_than_the_worst_case() {
        let filter = filter(None, Some("^a")).await;
        for _ in 0..1000 {
            filter.matches_key("a").unwrap();
        }
        let matcher = filter.name.as_ref().unwrap();
        let worst = (1000 * matcher.expression.work("a") / WORK_PER_NANO) as u64;
        assert!(matcher.nanos.load(Ordering::Relaxed) <= worst);
    }

    #[tokio::test]
    async fn a_pattern_that_explodes_is_refused_with_the_field_that_holds_it() {
        for pattern in ["(", "(?=x)", "((((a{1,100}){1,100}){1,100}){1,100})"] {
            let query = FindQuery {
                name: Some(pattern.into()),
                ..FindQuery::default()
            };
            let error = KeyFilter::new(&Context::default(), &query).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{pattern}");
            assert!(error.to_string().contains("find.name.regexp"), "{error}");
        }
    }
}
