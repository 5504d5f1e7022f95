//! State that all handlers share, groups, and middleware: ready-made, and of one's own.
//!
//! ```text
//! cargo run --example shared_state -- 127.0.0.1:8000 public
//! curl -i localhost:8000/
//! curl -X POST localhost:8000/visits
//! curl localhost:8000/api/visits
//! curl -i localhost:8000/api/visits -H 'Origin: https://example.org'
//! curl -i -X OPTIONS localhost:8000/api/visits -H 'Origin: https://example.org' -H 'Access-Control-Request-Method: GET'
//! curl -i localhost:8000/admin/stats
//! curl localhost:8000/admin/stats -H 'Authorization: Bearer secret'
//! curl localhost:8000/admin/whoami -u ann:pa55
//! for i in $(seq 30); do curl -s -o /dev/null -w '%{http_code}\n' localhost:8000/api/visits; done
//! curl localhost:8000/files/index.html
//! ```
//!
//! The second argument is a folder whose files are served. Each request is a line of JSON on the standard output.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use theframework::middleware::{
    AccessLog, BasicAuth, BasicUser, BearerAuth, Cors, RateLimit, RequestIds, SecurityHeaders,
    StaticFiles, Timing,
};
use theframework::{App, Group, Next, Request, Response, Result};

/// What all loops count together.
#[derive(Default)]
struct Counters {
    visits: AtomicU64,
    requests: AtomicU64,
}

/// Middleware of one's own is a function.
fn count(request: &mut Request, response: &mut Response, next: Next) {
    let requests = &request.state::<Counters>().requests;
    requests.fetch_add(1, Ordering::Relaxed);
    next.run(request, response);
}

fn index(request: &mut Request, response: &mut Response) {
    let visits = request.state::<Counters>().visits.load(Ordering::Relaxed);
    response.html(format!("<p>Visited {visits} times.</p>\n"));
}

fn visit(request: &mut Request, response: &mut Response) {
    let visits = &request.state::<Counters>().visits;
    let number = visits.fetch_add(1, Ordering::Relaxed) + 1;
    response.text(format!("you are number {number}\n"));
}

fn visits(request: &mut Request, response: &mut Response) -> Result {
    let visits = request.state::<Counters>().visits.load(Ordering::Relaxed);
    response.json(&serde_json::json!({"visits": visits}))
}

fn stats(request: &mut Request, response: &mut Response) -> Result {
    let requests = request.state::<Counters>().requests.load(Ordering::Relaxed);
    let of_this_loop = response.worker().stats().accepted;
    response.json(&serde_json::json!({"requests": requests, "accepted here": of_this_loop}))
}

fn whoami(request: &mut Request, response: &mut Response) {
    let name = request.extensions().get::<BasicUser>();
    response.text(name.map_or("nobody", |user| &user.0));
}

fn api(group: Group) -> Group {
    group
        .middleware(RateLimit::new(20, Duration::from_secs(10)).build())
        .get("/visits", visits)
}

fn admin(group: Group) -> Group {
    let by_token = BearerAuth::tokens(["secret"]).realm("admin");
    let by_password = BasicAuth::users([("ann", "pa55")]);
    group
        .group("/stats", |group| {
            group.middleware(by_token.build()).get("", stats)
        })
        .group("/whoami", |group| {
            group.middleware(by_password.build()).get("", whoami)
        })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next();
    let mut app = App::new()
        .state(Counters::default())
        .middleware(RequestIds::new().build())
        .middleware(AccessLog::json(|line| println!("{line}")).build())
        .middleware(Timing::new().build())
        .middleware(SecurityHeaders::new().build())
        .middleware(Cors::origins(["https://example.org"]).build())
        .middleware(count)
        .get("/", index)
        .post("/visits", visit)
        .group("/api", api)
        .group("/admin", admin)
        .workers(2);
    if let Some(folder) = arguments.next() {
        let files = StaticFiles::new(folder)?.cache_control("no-cache");
        app = app
            .get("/files/", files.clone().build())
            .get("/files/{*rest}", files.build());
    }
    let server = app.bind(address.as_deref().unwrap_or("127.0.0.1:8000"))?;
    println!("listening on {}", server.addresses()[0]);
    server.run()?;
    Ok(())
}
