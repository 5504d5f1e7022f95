//! The settings table of Python as the engine's configuration: seconds become milliseconds.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use theframework::{Config, HeaderMap};
use theframework_http::TrustedPeers;
use theframework_io::{DriverConfig, DriverKind, Features, UringConfig, Wish};

use crate::DriverError;

/// Reads what the engine needs; other keys belong to others.
pub(crate) fn config(settings: &Bound<'_, PyDict>) -> PyResult<Config> {
    let mut config = Config::default();
    size(settings, "max_target_size", &mut config.max_target_size)?;
    size(settings, "max_header_size", &mut config.max_header_size)?;
    size(settings, "max_body_size", &mut config.max_body_size)?;
    size(settings, "max_connections", &mut config.max_connections)?;
    size(settings, "read_ahead", &mut config.read_ahead)?;
    if let Some(limit) = settings.get_item("max_stream_size")? {
        config.max_stream_size = limit.extract()?;
    }
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
    if let Some(name) = settings.get_item("header_map")? {
        config.header_map = header_map(&name.extract::<String>()?)?;
    }
    if let Some(list) = settings.get_item("forwarded_allow_ips")? {
        config.forwarded_allow_ips = trusted_peers(&list.extract::<String>()?)?;
    }
    Ok(config)
}

fn header_map(name: &str) -> PyResult<HeaderMap> {
    match name {
        "drop" => Ok(HeaderMap::Drop),
        "refuse" => Ok(HeaderMap::Refuse),
        "dangerous" => Ok(HeaderMap::Dangerous),
        other => Err(PyValueError::new_err(format!(
            "header_map is drop, refuse or dangerous, not {other}"
        ))),
    }
}

/// A list of addresses and networks as the settings have it.
pub(crate) fn trusted_peers(list: &str) -> PyResult<TrustedPeers> {
    TrustedPeers::parse(list).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The driver that was chosen before the workers were forked; without a choice, the best one.
pub(crate) fn driver(settings: &Bound<'_, PyDict>) -> PyResult<DriverConfig> {
    let text = |name| -> PyResult<String> {
        let value = settings.get_item(name)?;
        value.map_or(Ok(String::new()), |value| value.extract())
    };
    let receive_buffers = match settings.get_item("receive_buffers")? {
        Some(value) => value.extract()?,
        None => UringConfig::default().receive_buffers,
    };
    let wish = wish(
        &text("driver")?,
        receive_buffers,
        &text("io_uring_without")?,
        1,
    )?;
    if wish.kind == Some(DriverKind::IoUring) {
        // It was tried already.
        return Ok(DriverConfig::IoUring(UringConfig {
            receive_buffers,
            features: wish.features,
            ..UringConfig::default()
        }));
    }
    let chosen = theframework_io::choose(&wish);
    chosen
        .map(|(config, _)| config)
        .map_err(|error| DriverError::new_err(error.to_string()))
}

/// The settings of a driver as `theframework_io::choose` wants them.
pub(crate) fn wish(
    driver: &str,
    receive_buffers: u16,
    without: &str,
    workers: usize,
) -> PyResult<Wish> {
    let kind = match driver {
        "io_uring" => Some(DriverKind::IoUring),
        "poll" => Some(DriverKind::Poll),
        "auto" | "" => None,
        other => {
            return Err(PyValueError::new_err(format!(
                "no driver is called {other}"
            )));
        }
    };
    if !receive_buffers.is_power_of_two() || receive_buffers > 1 << 15 {
        return Err(PyValueError::new_err(format!(
            "receive_buffers is a power of two up to 32768, not {receive_buffers}"
        )));
    }
    let names = without.split(',').map(str::trim);
    let features = Features::all_without(names.filter(|name| !name.is_empty()))
        .map_err(|name| PyValueError::new_err(format!("io_uring has no feature {name}")))?;
    Ok(Wish {
        kind,
        receive_buffers,
        features,
        workers,
    })
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
