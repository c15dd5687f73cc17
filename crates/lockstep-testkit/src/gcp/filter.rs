//! Filters of lists, as on the page "Filter lists of secrets and secret versions": `field:part`,
//! `field=value`, `AND`, `OR` (which binds more tightly), `NOT` and `-`. Values are compared
//! ignoring case. Comparisons of times and parentheses are not supported and are rejected.

use serde_json::Value;

use super::{Asked, Refusal};

/// The kind of the listed resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    Version,
}

/// A conjunction of groups, each of which needs one matching term.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<Vec<Term>>);

#[derive(Debug)]
struct Term {
    is_negated: bool,
    /// The path, such as `labels`, `team`.
    field: Vec<String>,
    is_exact: bool,
    value: String,
}

impl Filter {
    pub(super) fn parse(kind: Kind, asked: &Asked) -> Result<Self, Refusal> {
        let text = asked.query.get("filter").map(String::as_str).unwrap_or_default();
        let mut all: Vec<Vec<Term>> = Vec::new();
        let (mut is_negated, mut is_alternative, mut is_open) = (false, false, false);
        for word in words(text)? {
            match word.as_str() {
                "AND" if !is_open && !all.is_empty() => is_open = true,
                "OR" if !is_open && !all.is_empty() => (is_open, is_alternative) = (true, true),
                "NOT" => (is_open, is_negated) = (true, true),
                "AND" | "OR" => return Err(invalid()),
                word => {
                    let mut term = Term::parse(kind, word)?;
                    term.is_negated ^= is_negated;
                    match all.last_mut().filter(|_| is_alternative) {
                        Some(alternatives) => alternatives.push(term),
                        None => all.push(vec![term]),
                    }
                    (is_negated, is_alternative, is_open) = (false, false, false);
                }
            }
        }
        if is_open { Err(invalid()) } else { Ok(Self(all)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry in the format of responses matches.
    pub(super) fn holds(&self, entry: &Value) -> bool {
        self.0
            .iter()
            .all(|terms| terms.iter().any(|term| term.holds(entry)))
    }
}

fn invalid() -> Refusal {
    Refusal::invalid("filter CANARY is no filter")
}

/// Splits a filter into words. Quoted text stays together and loses its quotes.
fn words(text: &str) -> Result<Vec<String>, Refusal> {
    let mut words = Vec::new();
    let (mut word, mut is_quoted) = (String::new(), false);
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
            }
            '(' | ')' | '<' | '>' if !is_quoted => return Err(invalid()),
            other => word.push(other),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    if is_quoted { Err(invalid()) } else { Ok(words) }
}

impl Term {
    fn parse(kind: Kind, word: &str) -> Result<Self, Refusal> {
        let (is_negated, word) = word.strip_prefix('-').map_or((false, word), |word| (true, word));
        let at = word.find([':', '=']).ok_or_else(invalid)?;
        let (field, value) = word.split_at(at);
        let (sign, value) = value.split_at(1);
        let field: Vec<String> = field.splitn(2, '.').map(str::to_owned).collect();
        let names: Vec<&str> = field.iter().map(String::as_str).collect();
        let is_known = matches!(
            (kind, names.as_slice()),
            (_, ["name"]) | (Kind::Version, ["state"]) | (Kind::Secret, ["labels" | "annotations", ..])
        );
        // `!=` is not supported.
        if !is_known || value.is_empty() || word.contains('!') {
            return Err(invalid());
        }
        Ok(Self {
            is_negated,
            field,
            is_exact: sign == "=",
            value: value.to_lowercase(),
        })
    }

    fn holds(&self, entry: &Value) -> bool {
        let found = self.field.iter().try_fold(entry, |value, field| value.get(field));
        let holds = match found {
            None => false,
            // `labels:team`: whether this key exists.
            Some(Value::Object(map)) => map.keys().any(|key| self.value == "*" || *key == self.value),
            Some(value) => {
                let text = value.as_str().unwrap_or_default().to_lowercase();
                if self.is_exact {
                    text == self.value
                } else {
                    self.value == "*" || text.contains(&self.value)
                }
            }
        };
        holds != self.is_negated
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::json;

    use super::*;

    fn asked(filter: &str) -> Asked {
        let mut asked = Asked::new(Method::GET, &"/v1".parse().unwrap(), b"");
        asked.query.insert("filter".to_owned(), filter.to_owned());
        asked
    }

    #[test]
    fn filters_match_as_documented() {
        let secret = json!({
            "name": "projects/1/secrets/shop-Database", "labels": { "team": "shop-one", "tier": "gold" },
        });
        for (filter, expected) in [
            ("", true),
            ("name:database", true),
            ("name:cache", false),
            ("labels.team=shop-one", true),
            ("labels.team=shop", false),
            ("labels.team:SHOP", true),
            ("labels.team:shop AND labels.tier=gold", true),
            ("labels.team:shop labels.tier=silver", false),
            ("labels.tier=silver OR labels.tier=gold AND name:shop", true),
            ("name:cache AND labels.tier=silver OR labels.tier=gold", false),
            ("NOT name:cache", true),
            ("-name:database", false),
            ("labels:team", true),
            ("labels:colour", false),
            ("labels.colour:*", false),
            ("labels.team=\"shop-one\"", true),
        ] {
            let parsed = Filter::parse(Kind::Secret, &asked(filter)).unwrap();
            assert_eq!(parsed.holds(&secret), expected, "{filter}");
        }
    }

    #[test]
    fn invalid_filter_is_rejected() {
        for filter in [
            "shop",
            "name:",
            "colour:red",
            "state:ENABLED",
            "name:a AND",
            "OR name:a",
            "(name:a)",
            "name:\"a",
            "name:a AND OR name:b",
            "NOT",
            "create_time>2024",
            "labels.team!=shop",
        ] {
            assert!(Filter::parse(Kind::Secret, &asked(filter)).is_err(), "{filter}");
        }
        assert!(Filter::parse(Kind::Version, &asked("state:ENABLED")).is_ok());
    }
}
