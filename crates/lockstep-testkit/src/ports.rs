//! Free loopback ports for servers.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Result, bail};
use parking_lot::Mutex;

/// Below the range of ports for outgoing connections on Linux (32768 and up), so that a restarted
/// server finds its port free.
const RANGE: std::ops::Range<u64> = 20_000..32_000;
const ATTEMPTS: usize = 500;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns a loopback port that is not in use and that this process has not returned before.
///
/// # Errors
/// When no free port is found.
pub fn free() -> Result<u16> {
    let mut given = GIVEN.lock();
    for _ in 0..ATTEMPTS {
        // Random, so that concurrent test processes do not try the same ports in the same order.
        let random = RandomState::new().hash_one(given.len());
        let port = u16::try_from(RANGE.start + random % (RANGE.end - RANGE.start))?;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free loopback port between {} and {}", RANGE.start, RANGE.end)
}

/// Returns this port if it is free, and another free one otherwise, for addresses that people type.
///
/// # Errors
/// When no free port is found.
pub fn preferably(port: u16) -> Result<u16> {
    let mut given = GIVEN.lock();
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
    fn no_port_is_returned_twice() {
        let ports: BTreeSet<_> = (0..50).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn port_in_use_is_not_preferred() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(preferably(port).unwrap(), port);
        let wanted = free().unwrap();
        assert_ne!(preferably(wanted).unwrap(), wanted, "given away already");
    }
}
