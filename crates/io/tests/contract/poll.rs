//! Every case on epoll.

use theframework_io::{PollConfig, PollDriver};

use crate::system::{OnSystem, System};
use crate::world::Body;
use crate::{accept, descriptors, files, polls, receive, send, whole};

type Driver = PollDriver<Body>;
type World = System<Driver>;

impl OnSystem for Driver {
    fn start(receive_buffers: u16) -> Self {
        PollDriver::new(&PollConfig { receive_buffers }).unwrap()
    }
}

#[test]
fn bytes_arrive_in_leases_until_the_end_of_the_stream() {
    receive::bytes_arrive_in_leases_until_the_end_of_the_stream::<World>();
}

#[test]
fn data_before_the_end_of_the_stream_comes_first() {
    receive::data_before_the_end_of_the_stream_comes_first::<World>();
}

#[test]
fn data_and_the_end_behind_an_armed_receive() {
    receive::data_and_the_end_behind_an_armed_receive::<World>();
}

#[test]
fn a_receive_goes_on_through_any_amount() {
    receive::a_receive_goes_on_through_any_amount::<World>();
}

#[test]
fn a_receive_without_buffers_waits_for_one_and_loses_nothing() {
    receive::a_receive_without_buffers_waits_for_one_and_loses_nothing::<World>();
}

#[test]
fn starved_receives_all_go_on() {
    receive::starved_receives_all_go_on::<World>();
}

#[test]
fn a_starved_receive_does_not_spin() {
    receive::a_starved_receive_does_not_spin::<World>();
}

#[test]
fn a_starved_receive_can_be_cancelled() {
    receive::a_starved_receive_can_be_cancelled::<World>();
}

#[test]
fn a_starved_receive_that_was_cancelled_leaves_its_buffer_to_others() {
    receive::a_starved_receive_that_was_cancelled_leaves_its_buffer_to_others::<World>();
}

#[test]
fn a_cancelled_receive_ends_without_data() {
    receive::a_cancelled_receive_ends_without_data::<World>();
}

#[test]
fn a_cancelled_receive_may_still_bring_data() {
    receive::a_cancelled_receive_may_still_bring_data::<World>();
}

#[test]
fn many_completions_come_before_a_cancel_lands() {
    receive::many_completions_come_before_a_cancel_lands::<World>();
}

#[test]
fn a_reset_ends_a_receive_with_its_error() {
    receive::a_reset_ends_a_receive_with_its_error::<World>();
}

#[test]
fn a_reset_is_told_once() {
    receive::a_reset_is_told_once::<World>();
}

#[test]
fn a_flooding_peer_does_not_hold_up_a_quiet_one() {
    receive::a_flooding_peer_does_not_hold_up_a_quiet_one::<World>();
}

#[test]
fn a_single_receive_brings_its_buffer_home() {
    receive::a_single_receive_brings_its_buffer_home::<World>();
}

#[test]
fn a_cancelled_single_receive_brings_its_buffer_home() {
    receive::a_cancelled_single_receive_brings_its_buffer_home::<World>();
}

#[test]
fn a_single_receive_that_has_succeeded_is_not_cancelled() {
    receive::a_single_receive_that_has_succeeded_is_not_cancelled::<World>();
}

#[test]
fn a_single_receive_takes_what_fits_and_no_more() {
    receive::a_single_receive_takes_what_fits_and_no_more::<World>();
}

#[test]
fn a_body_is_received_into_its_final_place() {
    receive::a_body_is_received_into_its_final_place::<World>();
}

#[test]
fn receives_of_both_kinds_take_turns() {
    receive::receives_of_both_kinds_take_turns::<World>();
}

#[test]
fn a_reset_brings_the_space_of_a_single_receive_home() {
    receive::a_reset_brings_the_space_of_a_single_receive_home::<World>();
}

#[test]
fn a_small_write_ends_without_waiting_and_in_full() {
    send::a_small_write_ends_without_waiting_and_in_full::<World>();
}

#[test]
fn an_empty_write_ends() {
    send::an_empty_write_ends::<World>();
}

#[test]
fn the_end_of_a_small_write_does_not_end_a_wait() {
    send::the_end_of_a_small_write_does_not_end_a_wait::<World>();
}

#[test]
fn a_write_to_a_full_socket_goes_on_when_the_peer_reads() {
    send::a_write_to_a_full_socket_goes_on_when_the_peer_reads::<World>();
}

#[test]
fn a_large_write_tells_its_progress() {
    send::a_large_write_tells_its_progress::<World>();
}

#[test]
fn a_cancelled_write_comes_home() {
    send::a_cancelled_write_comes_home::<World>();
}

#[test]
fn a_write_to_a_socket_that_takes_nothing_waits() {
    send::a_write_to_a_socket_that_takes_nothing_waits::<World>();
}

#[test]
fn a_small_write_that_is_cancelled_ends_in_its_turn() {
    send::a_small_write_that_is_cancelled_ends_in_its_turn::<World>();
}

#[test]
fn a_large_write_that_is_cancelled_before_its_turn_ends_in_it() {
    send::a_large_write_that_is_cancelled_before_its_turn_ends_in_it::<World>();
}

#[test]
fn a_write_after_a_reset_comes_home_with_the_error() {
    send::a_write_after_a_reset_comes_home_with_the_error::<World>();
}

#[test]
fn a_blocked_write_ends_when_the_peer_resets() {
    send::a_blocked_write_ends_when_the_peer_resets::<World>();
}

#[test]
fn we_may_send_after_the_peer_has_finished() {
    send::we_may_send_after_the_peer_has_finished::<World>();
}

#[test]
fn a_blocked_write_and_a_receive_do_not_disturb_each_other() {
    send::a_blocked_write_and_a_receive_do_not_disturb_each_other::<World>();
}

#[test]
fn more_sends_than_queue_entries_all_end() {
    send::more_sends_than_queue_entries_all_end::<World>();
}

#[test]
fn a_poll_is_ready_once() {
    polls::a_poll_is_ready_once::<World>();
}

#[test]
fn a_poll_sees_what_was_there_before() {
    polls::a_poll_sees_what_was_there_before::<World>();
}

#[test]
fn a_poll_for_writing_waits_while_the_socket_is_full() {
    polls::a_poll_for_writing_waits_while_the_socket_is_full::<World>();
}

#[test]
fn a_poll_does_not_disturb_a_blocked_write() {
    polls::a_poll_does_not_disturb_a_blocked_write::<World>();
}

#[test]
fn a_poll_for_a_hang_up_is_not_ended_by_data() {
    polls::a_poll_for_a_hang_up_is_not_ended_by_data::<World>();
}

#[test]
fn a_reset_ends_every_poll() {
    polls::a_reset_ends_every_poll::<World>();
}

#[test]
fn a_cancelled_poll_ends() {
    polls::a_cancelled_poll_ends::<World>();
}

#[test]
fn operations_on_one_descriptor_end_each_for_itself() {
    polls::operations_on_one_descriptor_end_each_for_itself::<World>();
}

#[test]
fn completions_beyond_the_queue_are_not_lost() {
    polls::completions_beyond_the_queue_are_not_lost::<World>();
}

#[test]
fn accepts_many_and_stops_when_cancelled() {
    accept::accepts_many_and_stops_when_cancelled::<World>();
}

#[test]
fn accepts_all_who_wait() {
    accept::accepts_all_who_wait::<World>();
}

#[test]
fn an_accepted_connection_serves() {
    accept::an_accepted_connection_serves::<World>();
}

#[test]
fn a_polled_listener_is_taken_from_one_by_one() {
    accept::a_polled_listener_is_taken_from_one_by_one::<World>();
}

#[test]
fn the_clock_is_monotonic() {
    whole::the_clock_is_monotonic::<World>();
}

#[test]
fn a_turn_waits_as_long_as_it_may_and_no_longer() {
    whole::a_turn_waits_as_long_as_it_may_and_no_longer::<World>();
}

#[test]
fn what_is_there_ends_a_wait_at_once() {
    whole::what_is_there_ends_a_wait_at_once::<World>();
}

#[test]
fn what_can_be_had_without_waiting_is_known() {
    whole::what_can_be_had_without_waiting_is_known::<World>();
}

#[test]
fn asking_does_not_disturb_a_submission() {
    whole::asking_does_not_disturb_a_submission::<World>();
}

#[test]
fn what_was_found_early_comes_with_what_comes_late() {
    whole::what_was_found_early_comes_with_what_comes_late::<World>();
}

#[test]
fn stale_ids_are_harmless() {
    whole::stale_ids_are_harmless::<World>();
}

#[test]
fn an_ended_operation_is_not_cancelled() {
    whole::an_ended_operation_is_not_cancelled::<World>();
}

#[test]
fn a_closed_connection_ends_for_the_peer() {
    whole::a_closed_connection_ends_for_the_peer::<World>();
}

#[test]
fn the_end_of_our_sending_leaves_the_other_direction_open() {
    whole::the_end_of_our_sending_leaves_the_other_direction_open::<World>();
}

#[test]
fn a_number_that_is_used_again_means_the_new_connection() {
    whole::a_number_that_is_used_again_means_the_new_connection::<World>();
}

#[test]
fn dropping_the_driver_with_operations_pending_is_clean() {
    whole::dropping_the_driver_with_operations_pending_is_clean::<World>();
}

#[test]
fn unix_sockets_are_served_alike() {
    descriptors::unix_sockets_are_served_alike::<Driver>();
}

#[test]
fn what_is_not_a_socket_fails_with_its_error() {
    descriptors::what_is_not_a_socket_fails_with_its_error::<Driver>();
}

#[test]
fn regular_files_are_always_ready() {
    descriptors::regular_files_are_always_ready::<Driver>();
}

#[test]
fn a_pipe_is_polled_again_and_again() {
    descriptors::a_pipe_is_polled_again_and_again::<Driver>();
}

#[test]
fn a_number_that_was_closed_elsewhere_means_the_new_connection() {
    descriptors::a_number_that_was_closed_elsewhere_means_the_new_connection::<Driver>();
}

#[test]
fn a_forked_child_closes_what_was_to_be_closed() {
    descriptors::a_forked_child_closes_what_was_to_be_closed::<Driver>();
}

#[test]
fn a_forked_child_of_an_idle_driver_takes_nothing() {
    descriptors::a_forked_child_of_an_idle_driver_takes_nothing::<Driver>();
}

#[test]
fn a_forked_child_takes_nothing_and_brings_nothing() {
    descriptors::a_forked_child_takes_nothing_and_brings_nothing::<Driver>();
}

#[test]
fn a_shared_listener_is_polled_by_all() {
    descriptors::a_shared_listener_is_polled_by_all::<Driver>();
}

#[test]
fn a_signal_ends_a_wait() {
    descriptors::a_signal_ends_a_wait::<Driver>();
}

#[test]
fn what_nobody_can_take_does_not_lengthen_a_wait() {
    descriptors::what_nobody_can_take_does_not_lengthen_a_wait::<Driver>();
}

#[test]
fn accepting_without_descriptors_fails_and_recovers() {
    let name = "poll::accepting_without_descriptors_fails_and_recovers";
    descriptors::accepting_without_descriptors_fails_and_recovers::<Driver>(name);
}

#[test]
fn a_file_is_read_behind_what_the_write_has_and_sent() {
    files::a_file_is_read_behind_what_the_write_has_and_sent::<World>();
}

#[test]
fn a_read_takes_what_fits_and_no_more() {
    files::a_read_takes_what_fits_and_no_more::<World>();
}

#[test]
fn a_read_at_the_end_brings_nothing() {
    files::a_read_at_the_end_brings_nothing::<World>();
}

#[test]
fn a_file_is_read_in_pieces() {
    files::a_file_is_read_in_pieces::<World>();
}

#[test]
fn a_file_that_has_changed_is_read_as_it_is() {
    files::a_file_that_has_changed_is_read_as_it_is::<World>();
}

#[test]
fn many_reads_end_each_for_itself() {
    files::many_reads_end_each_for_itself::<World>();
}

#[test]
fn a_read_ends_a_wait() {
    files::a_read_ends_a_wait::<World>();
}

#[test]
fn a_cancelled_read_brings_its_write_home() {
    files::a_cancelled_read_brings_its_write_home::<World>();
}

#[test]
fn a_read_does_not_hold_up_a_connection() {
    files::a_read_does_not_hold_up_a_connection::<World>();
}

#[test]
fn dropping_the_driver_with_reads_pending_is_clean() {
    files::dropping_the_driver_with_reads_pending_is_clean::<World>();
}

#[test]
fn what_cannot_be_read_fails_with_its_error() {
    files::what_cannot_be_read_fails_with_its_error::<Driver>();
}

#[test]
fn a_file_that_is_not_in_memory_is_read() {
    files::a_file_that_is_not_in_memory_is_read::<Driver>();
}

#[test]
fn a_file_that_only_a_thread_can_read_is_read() {
    files::a_file_that_only_a_thread_can_read_is_read::<Driver>();
}

#[test]
fn a_forked_child_leaves_reads_to_the_parent() {
    files::a_forked_child_leaves_reads_to_the_parent::<Driver>();
}
