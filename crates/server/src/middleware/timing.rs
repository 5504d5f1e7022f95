//! How long the server took, for the client to see.

use std::time::Instant;

use http::HeaderValue;
use http::header::HeaderName;

use crate::{Next, Request, Response, Result};

const NAME: HeaderName = HeaderName::from_static("server-timing");

/// Sets `Server-Timing`: the milliseconds from here to the response, which may come later. It tells strangers
/// how long things take: not for what must keep that secret. See [`middleware`](crate::middleware).
#[derive(Clone, Debug)]
pub struct Timing {
    metric: &'static str,
}

impl Timing {
    /// As the metric `app`.
    #[must_use]
    pub fn new() -> Self {
        Timing { metric: "app" }
    }

    /// As another metric: a token.
    #[must_use]
    pub fn metric(mut self, metric: &'static str) -> Self {
        self.metric = metric;
        self
    }

    /// The middleware. It reads the clock twice, and allocates; a few times more for an answer that comes later.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        move |request, response, next| {
            let (began, metric) = (Instant::now(), self.metric);
            let said = move || format!("{metric};dur={:.3}", began.elapsed().as_secs_f64() * 1e3);
            next.run(request, response);
            if response.is_deferred() {
                response.on_reply(move |reply| {
                    if let Ok(value) = HeaderValue::try_from(said()) {
                        reply.headers_mut().append(NAME, value);
                    }
                });
            } else {
                response.append_header(NAME, said())?;
            }
            Ok(())
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Timing::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::text_of;
    use super::*;
    use crate::{App, Reply};

    #[test]
    fn the_time_is_that_of_the_answer_even_if_it_comes_later() {
        const PAUSE: Duration = Duration::from_millis(20);
        let app = App::new()
            .middleware(Timing::new().metric("all").build())
            .get("/now", |_: &mut Request, _: &mut Response| {
                std::thread::sleep(PAUSE);
            })
            .get("/later", |_: &mut Request, response: &mut Response| {
                response.offload(|| {
                    std::thread::sleep(PAUSE);
                    Ok(Reply::text("later"))
                });
            });
        for path in ["/now", "/later"] {
            let answer = app
                .test(http::Request::get(path).body("").unwrap())
                .unwrap();
            let said = text_of(&answer, "server-timing");
            let took_ms: f64 = said.strip_prefix("all;dur=").unwrap().parse().unwrap();
            assert!((20.0..20_000.0).contains(&took_ms), "{path}: {said}");
        }
    }
}
