//! Opens files below a folder, and never outside it.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod portable;
mod volume;

#[cfg(target_os = "linux")]
pub(super) use linux::Beneath;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Beneath;
