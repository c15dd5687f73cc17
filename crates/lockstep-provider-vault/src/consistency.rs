//! Makes a cluster answer with at least the state that the client has seen.
//!
//! Standby servers of OpenBao and Vault Enterprise answer reads from their own storage, which may
//! be older than that of the active server. Behind a load balancer, the next request could thus
//! return an older version of a value, or report that a value or a lease does not exist. Responses
//! contain the index of the state that they were made from (`X-Vault-Index`). A standby that gets
//! the index with a request does not answer from an older state: it forwards the request to the
//! active server or rejects it.

use std::{
    cmp::Ordering,
    fmt,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");

/// Maximum length of an index. OpenBao's have about 90 bytes, and those of Vault Enterprise about
/// 180.
const LONGEST: usize = 512;

/// The newest index that a client has seen.
///
/// Requests run at the same time, so the last response is not always the newest. Indices of one
/// cluster are compared by their numbers, as in HashiCorp's own client. Other indices have no
/// order. Of these, an index replaces the one that its request carried, because a server does not
/// answer from an older state. If the client has learned another index since, that one stays.
#[derive(Default)]
pub(crate) struct Consistency(Mutex<State>);

#[derive(Default)]
struct State {
    newest: Option<Index>,
    /// Whether the index covers a write, which only the active server performs.
    covers_write: bool,
}

impl fmt::Debug for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Consistency")
    }
}

impl Consistency {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the index to a request.
    pub(crate) fn require(&self, headers: &mut HeaderMap) {
        let Some(index) = self.state().newest.clone() else {
            return;
        };
        // Vault rejects this header with status 400, unless its configuration has
        // `allow_forwarding_via_header`. The community edition always does. Without the header, a
        // standby of Vault Enterprise that lags returns 412.
        if matches!(index.order, Order::OpenBao { .. }) {
            headers.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
        }
        headers.insert(INDEX, index.header);
    }

    /// Notes the index of a response. `sent` is the index of its request, and `wrote` is set if the
    /// request has changed the storage of the server.
    pub(crate) fn note(&self, sent: Option<&HeaderValue>, response: &HeaderMap, wrote: bool) {
        let Some(index) = Index::of(response) else {
            return;
        };
        let mut state = self.state();
        let order = state
            .newest
            .as_ref()
            .map(|newest| index.order.partial_cmp(&newest.order));
        let replaces = match order {
            None => true,
            Some(Some(order)) => order == Ordering::Greater,
            Some(None) => state.newest.as_ref().map(|newest| &newest.header) == sent,
        };
        let is_covered = replaces || matches!(order, Some(Some(_)));
        if replaces {
            let is_same_cluster = |newest: &Index| newest.order.cluster() == index.order.cluster();
            state.covers_write &= state.newest.as_ref().is_some_and(is_same_cluster);
            state.newest = Some(index);
        }
        state.covers_write |= wrote && is_covered;
    }

    /// Forgets an index that the server does not understand. Otherwise it would reject every
    /// request, for example after another product was installed at its address.
    pub(crate) fn forget(&self, sent: &HeaderValue) {
        let mut state = self.state();
        if state.newest.as_ref().is_some_and(|newest| newest.header == sent) {
            *state = State::default();
        }
    }

    /// Returns whether the next answer has at least the state of this client's last login or other
    /// write. Servers without an index have no standby servers that answer.
    pub(crate) fn is_proven(&self) -> bool {
        let state = self.state();
        state.newest.is_none() || state.covers_write
    }
}

/// Returns the index that a request carries.
pub(crate) fn index(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(INDEX).cloned()
}

/// An index as the server sent it, and its order.
#[derive(Clone)]
struct Index {
    header: HeaderValue,
    order: Order,
}

impl Index {
    /// Returns the index of a response. An index in an unknown form is ignored, because servers
    /// reject requests with such an index.
    fn of(response: &HeaderMap) -> Option<Self> {
        let mut headers = response.get_all(INDEX).iter();
        let header = headers.next()?;
        let text = header.to_str().ok()?;
        let is_word = text.bytes().all(|byte| byte.is_ascii_graphic());
        if headers.next().is_some() || text.len() > LONGEST || !is_word {
            return None;
        }
        let order = Order::of(&STANDARD.decode(text).ok()?)?;
        let mut header = header.clone();
        // not secret, but of no use in a log
        header.set_sensitive(true);
        Some(Self { header, order })
    }
}

/// The decoded form of an index.
#[derive(Clone, PartialEq, Eq)]
enum Order {
    /// `{"cluster":"…","value":"29"}`. The value is a number in raft storage; other storage may
    /// use another form.
    OpenBao { cluster: String, value: String },
    /// `v1:CLUSTER:LOCAL:REPLICATED:HMAC`. Both numbers grow.
    Vault {
        cluster: String,
        local: u64,
        replicated: u64,
    },
}

impl Order {
    fn of(decoded: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct OpenBao {
            cluster: String,
            value: String,
        }
        if decoded.starts_with(b"{") {
            let OpenBao { cluster, value } = serde_json::from_slice(decoded).ok()?;
            return Some(Self::OpenBao { cluster, value });
        }
        let mut parts = str::from_utf8(decoded).ok()?.splitn(5, ':');
        if parts.next()? != "v1" {
            return None;
        }
        Some(Self::Vault {
            cluster: parts.next()?.to_owned(),
            local: parts.next()?.parse().ok()?,
            replicated: parts.next()?.parse().ok()?,
        })
    }

    const fn cluster(&self) -> &String {
        match self {
            Self::OpenBao { cluster, .. } | Self::Vault { cluster, .. } => cluster,
        }
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (
                Self::OpenBao { cluster, value },
                Self::OpenBao {
                    cluster: other_cluster,
                    value: other_value,
                },
            ) if cluster == other_cluster => {
                if value == other_value {
                    return Some(Ordering::Equal);
                }
                let number = |value: &String| value.parse::<u64>().ok();
                Some(number(value)?.cmp(&number(other_value)?))
            }
            (
                Self::Vault {
                    cluster,
                    local,
                    replicated,
                },
                Self::Vault {
                    cluster: other_cluster,
                    local: other_local,
                    replicated: other_replicated,
                },
            ) if cluster == other_cluster => {
                let (local, replicated) = (local.cmp(other_local), replicated.cmp(other_replicated));
                match (local, replicated) {
                    (order, Ordering::Equal) | (Ordering::Equal, order) => Some(order),
                    (local, replicated) => (local == replicated).then_some(local),
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bao(cluster: &str, value: &str) -> String {
        STANDARD.encode(format!(r#"{{"cluster":"{cluster}","value":"{value}"}}"#))
    }

    fn vault(local: u64, replicated: u64) -> String {
        STANDARD.encode(format!("v1:cid:{local}:{replicated}:00ff"))
    }

    fn response(index: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(INDEX, HeaderValue::from_str(index).unwrap());
        headers
    }

    fn required(consistency: &Consistency) -> HeaderMap {
        let mut headers = HeaderMap::new();
        consistency.require(&mut headers);
        headers
    }

    /// Returns the index after these responses, each to a request that carried `sent`.
    fn newest(responses: &[&str], sent: Option<&str>) -> String {
        let consistency = Consistency::default();
        let sent = sent.map(|sent| HeaderValue::from_str(sent).unwrap());
        for index in responses {
            consistency.note(sent.as_ref(), &response(index), false);
        }
        let headers = required(&consistency);
        headers[INDEX].to_str().unwrap().to_owned()
    }

    #[test]
    fn newest_index_of_a_cluster_is_kept_in_any_order() {
        let (old, new) = (bao("a", "9"), bao("a", "10"));
        assert_eq!(newest(&[&old, &new], None), new);
        assert_eq!(newest(&[&new, &old], None), new);
        let (old, new) = (vault(9, 7), vault(10, 7));
        assert_eq!(newest(&[&old, &new], None), new);
        assert_eq!(newest(&[&new, &old], None), new);
    }

    #[test]
    fn index_without_an_order_replaces_only_the_one_of_its_request() {
        for (first, second) in [
            (bao("a", "9"), bao("b", "1")),
            (bao("a", "0/16B"), bao("a", "0/16C")),
            (vault(9, 1), vault(1, 9)),
            (bao("a", "9"), vault(1, 1)),
        ] {
            assert_eq!(newest(&[&first, &second], Some(&first)), second);
            assert_eq!(newest(&[&first, &second], None), first);
        }
    }

    #[test]
    fn only_openbao_is_asked_to_forward() {
        let consistency = Consistency::default();
        assert!(required(&consistency).is_empty());
        consistency.note(None, &response(&vault(1, 1)), false);
        assert!(!required(&consistency).contains_key(INCONSISTENT));
        let consistency = Consistency::default();
        consistency.note(None, &response(&bao("a", "1")), false);
        assert_eq!(required(&consistency)[INCONSISTENT], "forward-active-node");
    }

    #[test]
    fn unusable_indices_are_ignored() {
        let consistency = Consistency::default();
        let long = bao(&"a".repeat(LONGEST), "1");
        let none = STANDARD.encode("none");
        for index in [
            "",
            "garbage",
            "MQ== MQ==",
            &long,
            &none,
            &STANDARD.encode("v2:cid:1:1:"),
        ] {
            consistency.note(None, &response(index), true);
        }
        let mut two = response(&bao("a", "1"));
        two.append(INDEX, HeaderValue::from_str(&bao("a", "2")).unwrap());
        consistency.note(None, &two, true);
        let mut binary = HeaderMap::new();
        binary.insert(INDEX, HeaderValue::from_bytes(b"\xff").unwrap());
        consistency.note(None, &binary, true);
        assert!(required(&consistency).is_empty());
    }

    #[test]
    fn reads_do_not_prove_the_state_of_the_active_server() {
        let consistency = Consistency::default();
        assert!(consistency.is_proven(), "there is no standby that answers");
        consistency.note(None, &response(&bao("a", "9")), false);
        assert!(!consistency.is_proven());
        consistency.note(None, &response(&bao("a", "8")), true);
        assert!(consistency.is_proven());
        let sent = index(&required(&consistency));
        consistency.note(sent.as_ref(), &response(&bao("b", "1")), false);
        assert!(!consistency.is_proven());
    }

    #[test]
    fn rejected_index_is_forgotten_unless_it_was_replaced() {
        let consistency = Consistency::default();
        consistency.note(None, &response(&bao("a", "1")), false);
        let sent = index(&required(&consistency)).unwrap();
        consistency.note(None, &response(&bao("a", "2")), false);
        consistency.forget(&sent);
        let sent = index(&required(&consistency)).unwrap();
        consistency.forget(&sent);
        assert!(required(&consistency).is_empty());
    }
}
