//! The settings table of Python as the engine's configuration: seconds become milliseconds.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use theframework::Config;

/// Reads what the engine needs; other keys belong to others.
pub(crate) fn config(settings: &Bound<'_, PyDict>) -> PyResult<Config> {
    let mut config = Config::default();
    size(settings, "max_target_size", &mut config.max_target_size)?;
    size(settings, "max_header_size", &mut config.max_header_size)?;
    size(settings, "max_body_size", &mut config.max_body_size)?;
    size(settings, "max_connections", &mut config.max_connections)?;
    size(settings, "read_ahead", &mut config.read_ahead)?;
    time(settings, "accept_pause", &mut config.accept_pause_ms)?;
    time(settings, "read_timeout", &mut config.read_timeout_ms)?;
    time(settings, "write_timeout", &mut config.write_timeout_ms)?;
    time(
        settings,
        "keepalive_timeout",
        &mut config.keepalive_timeout_ms,
    )?;
    time(settings, "handler_timeout", &mut config.handler_timeout_ms)?;
    if let Some(rate) = settings.get_item("min_body_rate")? {
        config.min_body_rate = rate.extract()?;
    }
    if let Some(server) = settings.get_item("server_header")? {
        config.server = server.extract::<String>()?.into_bytes();
    }
    Ok(config)
}

fn size(settings: &Bound<'_, PyDict>, name: &str, target: &mut usize) -> PyResult<()> {
    if let Some(value) = settings.get_item(name)? {
        *target = value.extract()?;
    }
    Ok(())
}

fn time(settings: &Bound<'_, PyDict>, name: &str, target: &mut u64) -> PyResult<()> {
    if let Some(value) = settings.get_item(name)? {
        let seconds: f64 = value.extract()?;
        if !(0.0..=1e9).contains(&seconds) {
            return Err(PyValueError::new_err(format!(
                "{name} is a number of seconds, not {seconds}"
            )));
        }
        // A short time is not none: 0 alone switches a timeout off.
        *target = (seconds * 1000.0).ceil() as u64;
    }
    Ok(())
}
