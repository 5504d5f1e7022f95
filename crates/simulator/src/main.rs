//! The simulator: the server engine that ships, on a simulated network, with faults, from seeds.
//!
//! ```text
//! simulate --seeds 10000          seeds 0 to 9,999, on all cores
//! simulate --requests 1000000     as many seeds as that takes
//! simulate --seed 42              one seed; if it fails, with a trace of its last 400 events
//! ```
//!
//! | file | what it has |
//! | --- | --- |
//! | `plan` | what a seed stands for: limits, faults, clients, and what must come back |
//! | `client` | simulated clients, which check every answer |
//! | `server` | what the Python hub does with the engine, without Python |
//! | `run` | one seed, from its plan to the last check |
//! | `memory` | the allocator: counts, overwrites what is freed, refuses |
//!
//! Connection logic is nowhere here: it is the engine's own. The network and the driver are in
//! `theframework_io::sim`, the rules that hold between two turns in the engine's `audit`.

mod client;
mod memory;
mod plan;
mod run;
mod server;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use theframework_io::sim::{Faults, Net};

#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;

/// Lines of a trace that are printed.
const LINES_MAX: u64 = 400;

#[derive(Default)]
struct Options {
    first: u64,
    seeds: Option<u64>,
    requests: Option<u64>,
    seed: Option<u64>,
    threads: usize,
    lines: u64,
    is_quiet: bool,
}

#[derive(Default)]
struct Progress {
    next: AtomicU64,
    seeds: AtomicU64,
    requests: AtomicU64,
    answered: AtomicU64,
    faults: AtomicU64,
    turns: AtomicU64,
    simulated_ms: AtomicU64,
    is_over: AtomicBool,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("simulate: {problem}");
            eprintln!(
                "usage: simulate [--seeds N | --requests N | --seed N] [--first N] [--threads N] \
                 [--lines N] [--quiet]"
            );
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|info| {
        PANIC.with_borrow_mut(|text| *text = info.to_string());
    }));
    let failed = match options.seed {
        Some(seed) => match attempt(seed, Some(options.lines)) {
            Ok(report) => {
                println!("seed {seed}: {report:?}");
                None
            }
            Err(text) => Some((seed, text)),
        },
        None => run_many(&options),
    };
    match failed {
        None => ExitCode::SUCCESS,
        Some((seed, text)) => {
            println!("seed {seed} FAILED: {text}");
            if options.seed.is_none() {
                println!("to see what happened: simulate --seed {seed}");
            }
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        lines: LINES_MAX,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ..Options::default()
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--quiet" {
            options.is_quiet = true;
            continue;
        }
        let value = arguments
            .next()
            .and_then(|text| text.replace('_', "").parse::<u64>().ok())
            .ok_or(format!("{name} needs a number"))?;
        match name.as_str() {
            "--seeds" => options.seeds = Some(value),
            "--requests" => options.requests = Some(value),
            "--seed" => options.seed = Some(value),
            "--lines" => options.lines = value,
            "--first" => options.first = value,
            "--threads" => options.threads = value.clamp(1, 256) as usize,
            _ => return Err(format!("there is no option {name}")),
        }
    }
    if options.seeds.is_none() && options.requests.is_none() {
        options.seeds = Some(1000);
    }
    Ok(options)
}

/// Runs one seed; the text of its violation or panic.
fn attempt(seed: u64, trace_lines: Option<u64>) -> Result<run::Report, String> {
    let net = Rc::new(RefCell::new(Net::new(seed, Faults::default())));
    if trace_lines.is_some() {
        net.borrow_mut().start_trace();
    }
    let result = catch_unwind(AssertUnwindSafe(|| run::run(seed, &net)));
    memory::refuse(0, 0);
    if let (Some(lines), true) = (trace_lines, result.is_err()) {
        let trace = match net.try_borrow_mut() {
            Ok(mut net) => net.take_trace(),
            // The panic came from within: the trace is there all the same.
            Err(_) => Vec::new(),
        };
        let hidden = trace.len().saturating_sub(lines as usize);
        if hidden > 0 {
            println!("({hidden} earlier lines are left out)");
        }
        for line in &trace[hidden..] {
            println!("{line}");
        }
    }
    if result.is_err() {
        // What it left behind half done is not worth taking apart.
        std::mem::forget(net);
    }
    result.map_err(|_| PANIC.with_borrow(String::clone))
}

fn run_many(options: &Options) -> Option<(u64, String)> {
    let progress = Progress::default();
    let failures = std::sync::Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| work(options, &progress, &failures));
        }
        let mut printed = Instant::now();
        while !progress.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
            let is_over = progress.is_over.load(Ordering::Relaxed);
            if !options.is_quiet && (is_over || printed.elapsed() > Duration::from_secs(2)) {
                printed = Instant::now();
                print(&progress, began);
            }
        }
    });
    if !options.is_quiet {
        print(&progress, began);
    }
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort();
    failures.into_iter().next()
}

fn work(options: &Options, progress: &Progress, failures: &std::sync::Mutex<Vec<(u64, String)>>) {
    // What a thread sets up once is not part of a run's memory.
    let _ = attempt(0, None);
    loop {
        let index = progress.next.fetch_add(1, Ordering::Relaxed);
        let enough_seeds = options.seeds.is_some_and(|seeds| index >= seeds);
        let enough_requests = options
            .requests
            .is_some_and(|count| progress.answered.load(Ordering::Relaxed) >= count);
        if enough_seeds || enough_requests || progress.is_over.load(Ordering::Relaxed) {
            progress.is_over.store(true, Ordering::Relaxed);
            return;
        }
        let seed = options.first + index;
        match attempt(seed, None) {
            Ok(report) => {
                let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
                add(&progress.seeds, 1);
                add(&progress.requests, report.requests);
                add(&progress.answered, report.answered);
                add(&progress.faults, report.faults);
                add(&progress.turns, report.turns);
                add(&progress.simulated_ms, report.simulated_us / 1000);
            }
            Err(text) => {
                if let Ok(mut failures) = failures.lock() {
                    failures.push((seed, text));
                }
                progress.is_over.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

fn print(progress: &Progress, began: Instant) {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:>7.1} s  {} seeds, {} requests ({:.0}/s), {} answers checked, {} faults, {} turns, \
         {} simulated minutes",
        seconds,
        of(&progress.seeds),
        of(&progress.requests),
        of(&progress.requests) as f64 / seconds,
        of(&progress.answered),
        of(&progress.faults),
        of(&progress.turns),
        of(&progress.simulated_ms) / 60_000,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seeds_pass() {
        for seed in 0..300 {
            if let Err(text) = attempt(seed, None) {
                panic!("seed {seed}: {text}\nmake simulate SEED={seed} shows what happened");
            }
        }
    }

    #[test]
    fn a_seed_is_the_same_run_each_time() {
        for seed in 0..20 {
            let runs = [attempt(seed, None), attempt(seed, None)];
            let [first, second] = runs.map(|run| format!("{run:?}"));
            assert_eq!(first, second, "seed {seed}");
        }
    }
}
