//! Every case on the simulated driver, from many seeds, with chance in each place where the contract
//! leaves room.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use theframework_io::sim::{ClientId, Faults, Net, NoAgenda, SimDriver, SimSocket};
use theframework_io::{Driver, Errno, Outcome, Wait};

use crate::bench::{Bench, write};
use crate::world::{Arrived, Body, Peer, World};

/// Seeds for each mix of faults.
const SEEDS: u64 = 20;

/// What every driver may do at any time, in 1/1000 of the occasions.
fn mixes() -> [Faults; 5] {
    let none = Faults::default();
    [
        none.clone(),
        Faults {
            short_reads: 500,
            short_writes: 500,
            ..none.clone()
        },
        Faults {
            late_events: 300,
            late_cancels: 500,
            late_write_ends: 500,
            ..none.clone()
        },
        Faults {
            late_events: 900,
            late_cancels: 900,
            late_write_ends: 900,
            ..none.clone()
        },
        Faults {
            short_reads: 300,
            short_writes: 300,
            late_events: 300,
            late_cancels: 300,
            late_write_ends: 300,
            ..none
        },
    ]
}

thread_local! {
    /// Which run of a case this is: its seed and its mix of faults.
    static RUN: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// Says which run it was that failed.
struct Named;

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, mix) = RUN.get();
            eprintln!("seed {seed}, {:?}", mixes()[mix]);
        }
    }
}

fn run(case: fn()) {
    for mix in 0..mixes().len() {
        for seed in 0..SEEDS {
            RUN.set((seed, mix));
            let _named = Named;
            case();
        }
    }
}

struct Simulated {
    net: Rc<RefCell<Net>>,
}

struct Client {
    net: Rc<RefCell<Net>>,
    id: ClientId,
    is_over: bool,
}

impl World for Simulated {
    type Driver = SimDriver<Body>;
    type Peer = Client;

    const IS_PROMPT: bool = false;

    fn new() -> Self {
        let (seed, mix) = RUN.get();
        let net = Net::new(seed, mixes()[mix].clone());
        Simulated {
            net: Rc::new(RefCell::new(net)),
        }
    }

    fn driver(&mut self, receive_buffers: u16) -> SimDriver<Body> {
        SimDriver::new(&self.net, Rc::new(RefCell::new(NoAgenda)), receive_buffers)
            .expect("there is memory for a few buffers")
    }

    fn pair(&mut self) -> (SimSocket, Client) {
        let listener = self.listener();
        let client = self.connect(&listener);
        let fd = self.net.borrow_mut().accept(listener.as_raw_fd());
        (
            SimSocket::new(&self.net, fd.expect("somebody waits")),
            client,
        )
    }

    fn listener(&mut self) -> SimSocket {
        let fd = self.net.borrow_mut().listen();
        SimSocket::new(&self.net, fd)
    }

    fn connect(&mut self, listener: &SimSocket) -> Client {
        let id = self
            .net
            .borrow_mut()
            .connect(listener.as_raw_fd(), 500_000, 1_000_000);
        Client {
            net: Rc::clone(&self.net),
            id: id.expect("it listens"),
            is_over: false,
        }
    }

    fn file(&mut self, bytes: &[u8]) -> SimSocket {
        let fd = self.net.borrow_mut().open(bytes.to_vec());
        SimSocket::new(&self.net, fd)
    }

    fn change(&mut self, file: &SimSocket, bytes: &[u8]) {
        *self.net.borrow_mut().file(file.as_raw_fd()) = bytes.to_vec();
    }

    fn settle(&mut self) {
        // No event is later than this.
        self.net.borrow_mut().pass(2000);
    }
}

impl Peer for Client {
    fn write(&mut self, bytes: &[u8]) {
        let count = self.net.borrow_mut().client_send(self.id, bytes);
        assert_eq!(count, bytes.len(), "a case writes no more than fits");
    }

    fn read_available(&mut self) -> Arrived {
        let mut bytes = Vec::new();
        let read = self
            .net
            .borrow_mut()
            .client_read(self.id, usize::MAX, &mut bytes);
        Arrived {
            bytes,
            is_end: read.is_end,
        }
    }

    fn shutdown_write(&mut self) {
        self.net.borrow_mut().client_finish(self.id);
    }

    fn reset(mut self) {
        self.net.borrow_mut().client_reset(self.id);
        self.is_over = true;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_over && !std::thread::panicking() {
            self.net.borrow_mut().client_close(self.id);
        }
    }
}

macro_rules! cases {
    ($($module:ident: $($case:ident,)*;)*) => {
        $($(
            #[test]
            fn $case() {
                run(crate::$module::$case::<Simulated>);
            }
        )*)*
    };
}

cases! {
    receive:
        bytes_arrive_in_leases_until_the_end_of_the_stream,
        data_before_the_end_of_the_stream_comes_first,
        data_and_the_end_behind_an_armed_receive,
        a_receive_goes_on_through_any_amount,
        a_receive_without_buffers_waits_for_one_and_loses_nothing,
        starved_receives_all_go_on,
        a_starved_receive_does_not_spin,
        a_starved_receive_can_be_cancelled,
        a_starved_receive_that_was_cancelled_leaves_its_buffer_to_others,
        a_cancelled_receive_ends_without_data,
        a_cancelled_receive_may_still_bring_data,
        many_completions_come_before_a_cancel_lands,
        a_reset_ends_a_receive_with_its_error,
        a_reset_is_told_once,
        a_flooding_peer_does_not_hold_up_a_quiet_one,
        a_single_receive_brings_its_buffer_home,
        a_cancelled_single_receive_brings_its_buffer_home,
        a_single_receive_that_has_succeeded_is_not_cancelled,
        a_single_receive_takes_what_fits_and_no_more,
        a_body_is_received_into_its_final_place,
        receives_of_both_kinds_take_turns,
        a_reset_brings_the_space_of_a_single_receive_home,
    ;
    send:
        a_small_write_ends_without_waiting_and_in_full,
        an_empty_write_ends,
        the_end_of_a_small_write_does_not_end_a_wait,
        a_write_to_a_full_socket_goes_on_when_the_peer_reads,
        a_large_write_tells_its_progress,
        a_cancelled_write_comes_home,
        a_write_to_a_socket_that_takes_nothing_waits,
        a_small_write_that_is_cancelled_ends_in_its_turn,
        a_large_write_that_is_cancelled_before_its_turn_ends_in_it,
        a_write_after_a_reset_comes_home_with_the_error,
        a_blocked_write_ends_when_the_peer_resets,
        we_may_send_after_the_peer_has_finished,
        a_blocked_write_and_a_receive_do_not_disturb_each_other,
        more_sends_than_queue_entries_all_end,
    ;
    polls:
        a_poll_is_ready_once,
        a_poll_sees_what_was_there_before,
        a_poll_for_writing_waits_while_the_socket_is_full,
        a_poll_does_not_disturb_a_blocked_write,
        a_poll_for_a_hang_up_is_not_ended_by_data,
        a_reset_ends_every_poll,
        a_cancelled_poll_ends,
        operations_on_one_descriptor_end_each_for_itself,
        completions_beyond_the_queue_are_not_lost,
    ;
    accept:
        accepts_many_and_stops_when_cancelled,
        accepts_all_who_wait,
        an_accepted_connection_serves,
        a_polled_listener_is_taken_from_one_by_one,
    ;
    files:
        a_file_is_read_behind_what_the_write_has_and_sent,
        a_read_takes_what_fits_and_no_more,
        a_read_at_the_end_brings_nothing,
        a_file_is_read_in_pieces,
        a_file_that_has_changed_is_read_as_it_is,
        many_reads_end_each_for_itself,
        a_read_ends_a_wait,
        a_cancelled_read_brings_its_write_home,
        a_read_does_not_hold_up_a_connection,
        dropping_the_driver_with_reads_pending_is_clean,
    ;
    whole:
        the_clock_is_monotonic,
        a_turn_waits_as_long_as_it_may_and_no_longer,
        what_is_there_ends_a_wait_at_once,
        what_can_be_had_without_waiting_is_known,
        asking_does_not_disturb_a_submission,
        what_was_found_early_comes_with_what_comes_late,
        stale_ids_are_harmless,
        an_ended_operation_is_not_cancelled,
        a_closed_connection_ends_for_the_peer,
        the_end_of_our_sending_leaves_the_other_direction_open,
        a_number_that_is_used_again_means_the_new_connection,
        dropping_the_driver_with_operations_pending_is_clean,
    ;
}

/// A poll may pass over what is there; a wait that ends may not, however short it was.
#[test]
fn only_a_poll_passes_over_what_is_there() {
    let mut missed = 0;
    for seed in 0..200 {
        RUN.set((seed, 0));
        let _named = Named;
        let mut bench = Bench::<Simulated>::new(1);
        let (ours, mut theirs) = bench.world.pair();
        bench.driver.receive(ours.as_raw_fd(), 1).unwrap();
        for wait in [Wait::Poll, Wait::For(Some(Duration::ZERO))] {
            theirs.write(b"x");
            bench.turn(wait);
            let is_seen = bench.driver.next_event().is_some();
            assert!(is_seen || wait == Wait::Poll);
            missed += u32::from(!is_seen);
        }
        drop(bench);
    }
    assert!((20..100).contains(&missed), "{missed} of 200");
}

/// What a disk may do at any time.
#[test]
fn a_read_that_fails_brings_its_write_home() {
    let faults = Faults {
        file_errors: 1000,
        ..Faults::default()
    };
    let net = Rc::new(RefCell::new(Net::new(1, faults)));
    let mut bench = Bench {
        driver: SimDriver::new(&net, Rc::new(RefCell::new(NoAgenda)), 1).unwrap(),
        world: Simulated { net },
    };
    let file = bench.world.file(b"unreadable");
    let write = write(b"head", None);
    let op = bench.driver.read_file(file.as_raw_fd(), 1, 0, 5, write);
    match bench.last(op.unwrap()) {
        Outcome::FileRead(write, Err(errno)) => {
            assert_eq!((errno, write.len()), (Errno(libc::EIO), 4));
        }
        other => panic!("{other:?}"),
    }
    bench.assert_clean();
}

/// The system has no fork, so no case asks this.
#[test]
fn an_abandoned_driver_sends_nothing() {
    run(|| {
        let mut bench = Bench::<Simulated>::new(1);
        let (ours, mut theirs) = bench.world.pair();
        let write = write(b"x", None);
        bench.driver.send(ours.as_raw_fd(), 1, write).unwrap();
        bench.driver.abandon_after_fork();
        let fresh = bench.world.driver(1);
        drop(std::mem::replace(&mut bench.driver, fresh));
        assert_eq!(theirs.read_available().bytes, b"");
    });
}
