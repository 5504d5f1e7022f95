//! What takes long does not hold up the loop: it runs on threads of the pool, on a thread of its own, or is
//! left to a timer.
//!
//! ```text
//! cargo run --example blocking -- 127.0.0.1:8000
//! curl localhost:8000/primes/100000
//! curl -i localhost:8000/primes/none
//! curl localhost:8000/late/500
//! curl -d 'any text' localhost:8000/jobs
//! curl -i -X POST localhost:8000/letters
//! curl localhost:8000/letters
//! curl -i localhost:8000/broken
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use theframework::{App, Error, Reply, Request, Responder, Response, StartError, StatusCode};

const PRIMES_MAX: u32 = 10_000_000;

/// Letters that were posted.
#[derive(Default)]
struct Letters(AtomicU64);

fn count_primes(below: u32) -> usize {
    let mut is_composite = vec![false; below as usize];
    let mut count = 0;
    for number in 2..below as usize {
        if !is_composite[number] {
            count += 1;
            for multiple in (number * number..below as usize).step_by(number) {
                is_composite[multiple] = true;
            }
        }
    }
    count
}

/// On a thread of the pool: what it returns is the answer.
fn primes(request: &mut Request, response: &mut Response) -> theframework::Result {
    let below: u32 = request.param_as("below")?; // 404 when it is no number
    if below > PRIMES_MAX {
        return Err(Error::new(StatusCode::BAD_REQUEST, "that would take long"));
    }
    response.offload(move || Ok(Reply::text(format!("{}\n", count_primes(below)))));
    Ok(())
}

/// By a timer of this loop.
fn late(request: &mut Request, response: &mut Response) -> theframework::Result {
    let wait_ms: u64 = request.param_as("ms")?;
    let (wait, responder) = (Duration::from_millis(wait_ms.min(10_000)), response.defer());
    response.worker().after(wait, |_| {
        responder.send(Reply::text("late\n"));
    });
    Ok(())
}

/// Something to be done, and whom to tell.
struct Job {
    text: String,
    responder: Responder,
}

/// By a thread that is ours: it works off one job after the other.
fn jobs(request: &mut Request, response: &mut Response) -> theframework::Result {
    let text = request.text()?.to_owned();
    let responder = response.defer();
    // If the thread has ended, the job is dropped, and with it its responder, which answers 503.
    let _ = request
        .state::<mpsc::Sender<Job>>()
        .send(Job { text, responder });
    Ok(())
}

fn work_off(jobs: &mpsc::Receiver<Job>) {
    for Job { text, responder } in jobs {
        let reversed: String = text.chars().rev().collect();
        responder.send(Reply::text(reversed));
    }
}

/// Answered at once; the work is done afterwards, and its end is a call on this loop. A server that is stopped
/// waits for it.
fn post_letter(request: &mut Request, response: &mut Response) {
    let letters = Arc::clone(request.state::<Arc<Letters>>());
    response.worker().offload(
        || std::thread::sleep(Duration::from_millis(100)),
        move |_, ()| {
            letters.0.fetch_add(1, Ordering::Relaxed);
        },
    );
    response.set_status(StatusCode::ACCEPTED);
}

fn posted_letters(request: &mut Request, response: &mut Response) {
    let count = request.state::<Arc<Letters>>().0.load(Ordering::Relaxed);
    response.text(format!("{count}\n"));
}

fn broken(_: &mut Request, response: &mut Response) {
    response.offload(|| panic!("this is answered with 500"));
}

fn main() -> Result<(), StartError> {
    let address = std::env::args().nth(1);
    let (jobs_in, jobs_out) = mpsc::channel();
    let worker = std::thread::spawn(move || work_off(&jobs_out));
    let server = App::new()
        .state(jobs_in)
        .state(Arc::new(Letters::default()))
        .get("/primes/{below}", primes)
        .get("/late/{ms}", late)
        .post("/jobs", jobs)
        .post("/letters", post_letter)
        .get("/letters", posted_letters)
        .get("/broken", broken)
        .bind(address.as_deref().unwrap_or("127.0.0.1:8000"))?;
    println!("listening on {}", server.addresses()[0]);
    server.run()?;
    // The state is gone with the server, so the thread's jobs have ended.
    drop(worker.join());
    Ok(())
}
