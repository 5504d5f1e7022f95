//! One seed, from its plan to the last check.

use std::cell::RefCell;
use std::rc::Rc;

use theframework_io::sim::{Agenda, Net, SimDriver, SimSocket};

use crate::client::{Clients, Shared};
use crate::memory;
use crate::plan::Plan;
use crate::server::Server;

/// Turns that a run may take; one that needs more goes in circles.
const TURNS_MAX: u64 = 3_000_000;
/// Turns in which no time passes to speak of and nothing happens.
const IDLE_TURNS_MAX: u32 = 2000;
/// Time after the last client's end within which every connection must have ended.
const REST_US: u64 = 60_000_000;

/// Nothing in a run is as large as this: clients take answers of up to 700,000 bytes.
const LARGEST_MAX: usize = 1 << 21;
/// A client is accepted within this time.
const ACCEPT_US: u64 = 50_000;

/// What a run amounted to.
#[derive(Copy, Clone, Debug, Default)]
pub struct Report {
    pub requests: u64,
    pub answered: u64,
    pub faults: u64,
    pub turns: u64,
    pub simulated_us: u64,
}

/// Runs a seed.
///
/// # Panics
/// On a violation; the text says which.
pub fn run(seed: u64, net: &Rc<RefCell<Net>>) -> Report {
    let before = memory::live_bytes();
    memory::take_largest();
    let report = simulate(seed, net);
    memory::refuse(0, 0);
    let left = memory::live_bytes() - before;
    // What the network keeps belongs to the caller.
    if left > 0 && !net.borrow().is_traced() {
        net.borrow_mut()
            .violation(&format!("{left} bytes were never freed"));
    }
    let largest = memory::take_largest();
    if largest > LARGEST_MAX && !net.borrow().is_traced() {
        net.borrow_mut()
            .violation(&format!("a block of {largest} bytes was asked for"));
    }
    report
}

fn simulate(seed: u64, net: &Rc<RefCell<Net>>) -> Report {
    let plan = Plan::from_seed(seed);
    let refused_before = memory::refused();
    net.borrow_mut().start(seed, plan.faults.clone());
    let listeners: Vec<_> = (0..plan.listeners)
        .map(|_| net.borrow_mut().listen())
        .collect();
    let shared = Rc::new(RefCell::new(Shared::default()));
    let clients = Clients::new(&plan, seed, listeners.clone(), &shared);
    let agenda: Rc<RefCell<dyn Agenda>> = Rc::new(RefCell::new(clients));
    let mut driver = SimDriver::new(net, agenda, plan.receive_buffers)
        .unwrap_or_else(|error| unreachable!("memory is not refused yet: {error}"));
    let loses_memory = plan.refused_per_mille > 0 || plan.faults.no_slot > 0;
    driver.forbids_held_leases = !loses_memory;
    let mut server = Server::new(driver, &plan, seed, net, &shared);
    server.loses_memory = loses_memory;
    for fd in listeners {
        let socket = SimSocket::new(net, fd);
        server.engine.listen(socket, plan.mode);
    }
    memory::refuse(plan.refused_per_mille, seed);
    drive(&plan, &mut server, net, &shared);
    memory::refuse(0, 0);
    let refusals = memory::refused() - refused_before;
    settle(&plan, &server, net, &shared.borrow(), refusals);
    let stats = server.engine.stats();
    let net_counts = net.borrow().counts;
    let answered = shared.borrow().answered;
    drop(server);
    net.borrow_mut().clear();
    Report {
        requests: stats.requests + stats.refused,
        answered,
        faults: net_counts.faults + refusals,
        turns: stats.turns,
        simulated_us: net.borrow().now_us(),
    }
}

/// Turns until everybody is gone, and the server drained.
fn drive(plan: &Plan, server: &mut Server, net: &RefCell<Net>, shared: &RefCell<Shared>) {
    let mut done_us = None;
    let mut idle_turns = 0;
    let mut is_ending = false;
    for _ in 0..TURNS_MAX {
        let (before_us, before) = {
            let net = net.borrow();
            (net.now_us(), net.counts.events)
        };
        server.step(net);
        let (now_us, events) = {
            let net = net.borrow();
            (net.now_us(), net.counts.events)
        };
        // Handlers take no time here, so a worker that turns without an event turns in circles.
        idle_turns = if events == before && now_us < before_us + 100 {
            idle_turns + 1
        } else {
            0
        };
        if idle_turns > IDLE_TURNS_MAX {
            net.borrow_mut()
                .violation("the worker turns and nothing happens: a busy loop");
        }
        if plan.drain_us.is_some_and(|at_us| at_us <= now_us) && !is_ending {
            is_ending = true;
            shared.borrow_mut().is_ending = true;
            net.borrow_mut().note(|| "the drain begins".into());
            if plan.aborts {
                server.engine.abort();
            } else {
                server.engine.drain();
            }
        }
        if shared.borrow().left > 0 {
            continue;
        }
        let is_empty = server.engine.connection_count() == 0
            && server.engine.exchange_count() == 0
            && server.waiting() == 0;
        let since_us = *done_us.get_or_insert(now_us);
        if is_empty && !is_ending {
            server.check_at_rest(&mut net.borrow_mut(), plan.listeners);
            is_ending = true;
            server.engine.drain();
        }
        if is_empty && server.engine.is_drained() {
            return;
        }
        if now_us > since_us + REST_US && net.borrow().counts.clock_jumps == 0 {
            let text = format!(
                "all clients are gone for a minute, and the server holds {:?}, {} handlers wait",
                server.engine.held(),
                server.waiting()
            );
            net.borrow_mut().violation(&text);
        }
    }
    net.borrow_mut().violation("the run does not end");
}

/// After the drain: nothing is left, and everything that went wrong has its reason.
fn settle(plan: &Plan, server: &Server, net: &RefCell<Net>, shared: &Shared, refusals: u64) {
    let net = &mut *net.borrow_mut();
    server.check_at_rest(net, 0);
    server.check_stats(net, shared);
    let memory_faults = net.counts.memory_faults + refusals;
    let stats = server.engine.stats();
    if shared.unexplained > memory_faults + stats.overload {
        net.violation(&format!(
            "{} connections ended without a reason; memory was refused {memory_faults} times, \
             {} connections for want of a slot",
            shared.unexplained, stats.overload
        ));
    }
    if shared.overloaded > stats.overload + memory_faults {
        net.violation(&format!(
            "{} clients were told 503; memory was refused {memory_faults} times, {} connections",
            shared.overloaded, stats.overload
        ));
    }
    // Nothing keeps a worker with room from accepting, but for the rest after each refused descriptor.
    let has_room = plan.config.max_connections >= plan.clients.len();
    let waited_us = net.counts.longest_wait_us;
    if has_room && memory_faults == 0 && net.counts.clock_jumps == 0 && waited_us > ACCEPT_US {
        net.violation(&format!(
            "a client waited {} ms to be accepted",
            waited_us / 1000
        ));
    }
    if has_room && stats.overload > 0 {
        net.violation("clients were refused although there was room");
    }
}
