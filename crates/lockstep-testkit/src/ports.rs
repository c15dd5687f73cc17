//! Free loopback ports for servers.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, bail};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up): a server that is restarted
/// finds its port free again.
const RANGE: std::ops::Range<u64> = 20_000..32_000;
const ATTEMPTS: usize = 500;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback port that nobody listens on and that this process has not given away before.
///
/// # Errors
/// When no free port is found.
pub fn free() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        // Random, so that test processes that run side by side do not try the same ports in the same order.
        let random = RandomState::new().hash_one(given.len());
        let port = u16::try_from(RANGE.start + random % (RANGE.end - RANGE.start))?;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free loopback port between {} and {}", RANGE.start, RANGE.end)
}

/// That port when nobody listens on it, another free one otherwise: for what people type by hand.
///
/// # Errors
/// When no free port is found.
pub fn preferably(port: u16) -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
        given.insert(port);
        return Ok(port);
    }
    drop(given);
    free()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<_> = (0..50).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn a_port_that_is_taken_is_not_preferred() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(preferably(port).unwrap(), port);
        let wanted = free().unwrap();
        assert_ne!(preferably(wanted).unwrap(), wanted, "given away already");
    }
}
