//! So many requests of each client, and no more: a token bucket for each.
//!
//! A bucket holds up to `burst` tokens, and gets one back every `period / burst`; a request takes one, or is
//! answered with 429 and told when to come again. Buckets are kept by a keyed hash of what names the client, in
//! two tables: one that is filled and one that was full before. When the first is full, the second is
//! forgotten, with whoever has not come since. So memory is bounded, and nothing is ever searched; a client that
//! was forgotten begins with a full bucket.
//!
//! All loops share the tables, behind a lock that is held for one look-up. Other processes know nothing of
//! them.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::{Next, Request, Response, Result};

/// Clients that are known at the same time, unless something else is set.
const CLIENTS_MAX: usize = 65_536;

type KeyOf = dyn Fn(&Request<'_>, &RandomState) -> Option<u64> + Send + Sync;

/// A limit for each client: by its address, or by whatever names it. See [`middleware`](crate::middleware).
#[derive(Clone)]
pub struct RateLimit {
    burst: u32,
    period: Duration,
    clients_max: usize,
    key_of: Arc<KeyOf>,
}

impl RateLimit {
    /// `burst` requests (at least one) at once, and as many in each `period` on average, of each address; of IPv6,
    /// each network of 64 bits. Who has no address (a Unix socket where no proxy names one) is not limited.
    #[must_use]
    pub fn new(burst: u32, period: Duration) -> Self {
        RateLimit {
            burst: burst.max(1),
            period,
            clients_max: CLIENTS_MAX,
            key_of: Arc::new(|_, _| None),
        }
        .by(|request| Some(network_of(request.client()?.address)))
    }

    /// By something else than the address: a user, a token. `None` is not limited.
    #[must_use]
    pub fn by<K: Hash>(
        mut self,
        key: impl Fn(&Request<'_>) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.key_of = Arc::new(move |request, state| Some(state.hash_one(key(request)?)));
        self
    }

    /// How many clients are known at the same time, at least two: less than 100 bytes each.
    #[must_use]
    pub fn clients(mut self, max: usize) -> Self {
        self.clients_max = max.max(2);
        self
    }

    /// The middleware. It reads the clock, and makes the system call of [`Request::client`].
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        let (hashes, key_of) = (RandomState::new(), self.key_of);
        let buckets = Buckets::new(self.burst, self.period, self.clients_max);
        let buckets = Mutex::new(buckets);
        move |request, response, next| {
            let Some(key) = key_of(request, &hashes) else {
                next.run(request, response);
                return Ok(());
            };
            let taken = {
                let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
                buckets.take(key, Instant::now())
            };
            match taken {
                Ok(()) => {
                    next.run(request, response);
                    Ok(())
                }
                Err(wait) => {
                    // Rounded up, so that who waits so long is let in.
                    let seconds = (wait.as_nanos().div_ceil(1_000_000_000)).max(1);
                    response.set_header("Retry-After", seconds.to_string())?;
                    response.set_status(StatusCode::TOO_MANY_REQUESTS);
                    response.text("429 Too Many Requests\n");
                    Ok(())
                }
            }
        }
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit")
            .field("burst", &self.burst)
            .field("period", &self.period)
            .field("clients_max", &self.clients_max)
            .finish_non_exhaustive()
    }
}

/// What one client is taken for: whoever has an IPv6 network has all its addresses.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[derive(Copy, Clone, Debug)]
struct Bucket {
    tokens: f64,
    /// When it had them.
    at: Instant,
}

struct Buckets {
    burst: f64,
    tokens_per_second: f64,
    /// Of each table.
    len_max: usize,
    recent: HashMap<u64, Bucket>,
    older: HashMap<u64, Bucket>,
}

impl Buckets {
    fn new(burst: u32, period: Duration, clients_max: usize) -> Self {
        let burst = f64::from(burst);
        Buckets {
            burst,
            // A period of nothing is no limit.
            tokens_per_second: burst / period.as_secs_f64().max(1e-9),
            len_max: (clients_max / 2).max(1),
            recent: HashMap::new(),
            older: HashMap::new(),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long it is until there is one.
    fn take(&mut self, key: u64, now: Instant) -> Result<(), Duration> {
        let (burst, rate) = (self.burst, self.tokens_per_second);
        let bucket = self.bucket(key, now);
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(burst);
        bucket.at = bucket.at.max(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - bucket.tokens) / rate;
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }

    fn bucket(&mut self, key: u64, now: Instant) -> &mut Bucket {
        if !self.recent.contains_key(&key) && self.recent.len() >= self.len_max {
            std::mem::swap(&mut self.recent, &mut self.older);
            let forgotten = &mut self.recent;
            // It was the older one; this client may be in the other now, and is moved back below.
            forgotten.clear();
        }
        let (burst, older) = (self.burst, &mut self.older);
        self.recent.entry(key).or_insert_with(|| {
            older.remove(&key).unwrap_or(Bucket {
                tokens: burst,
                at: now,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::text_of;
    use super::*;
    use crate::{App, TestClient};

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_period_allows() {
        let mut buckets = Buckets::new(3, Duration::from_secs(6), 100);
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(buckets.take(1, at(0)), Ok(()));
        }
        let wait = buckets.take(1, at(500)).unwrap_err();
        assert!((1.49..1.51).contains(&wait.as_secs_f64()), "{wait:?}");
        // Another client is not concerned.
        assert_eq!(buckets.take(2, at(500)), Ok(()));
        assert!(buckets.take(1, at(1990)).is_err());
        assert_eq!(buckets.take(1, at(2001)), Ok(()));
        assert!(buckets.take(1, at(2002)).is_err());
        // A long rest gives no more than a burst; a clock that goes back gives nothing.
        for _ in 0..3 {
            assert_eq!(buckets.take(1, at(1_000_000)), Ok(()));
        }
        assert!(buckets.take(1, at(1_000_000)).is_err());
        assert!(buckets.take(1, at(5000)).is_err());
    }

    #[test]
    fn no_more_clients_are_kept_than_allowed_and_busy_ones_stay() {
        let mut buckets = Buckets::new(2, Duration::from_secs(3600), 64);
        let now = Instant::now();
        assert_eq!(buckets.take(u64::MAX, now), Ok(()));
        assert_eq!(buckets.take(u64::MAX, now), Ok(()));
        for key in 0..10_000 {
            assert_eq!(buckets.take(key, now), Ok(()));
            assert!(buckets.recent.len() + buckets.older.len() <= 64);
            assert!(buckets.take(u64::MAX, now).is_err(), "forgotten at {key}");
        }
        // Who has not come for long is forgotten.
        assert_eq!(buckets.take(0, now), Ok(()));
        assert_eq!(buckets.take(0, now), Ok(()));
    }

    #[test]
    fn who_comes_too_often_is_told_when_to_come_again() {
        let limit = RateLimit::new(2, Duration::from_secs(60))
            .by(|request| request.header("x-user").map(str::to_owned));
        let app = App::new().middleware(limit.build()).get(
            "/",
            |_: &mut Request, response: &mut Response| {
                response.text("in");
            },
        );
        let mut client = TestClient::new(&app).unwrap();
        let mut ask = |user: &str| {
            let request = http::Request::get("/").header("X-User", user);
            client.send(request.body("").unwrap()).unwrap()
        };
        assert_eq!(ask("ann").status(), 200);
        assert_eq!(ask("ann").status(), 200);
        let refused = ask("ann");
        assert_eq!(refused.status(), 429);
        assert_eq!(text_of(&refused, "retry-after"), "30");
        assert_eq!(ask("ben").status(), 200);
        for _ in 0..5 {
            let anyone = http::Request::get("/").body("").unwrap();
            assert_eq!(client.send(anyone).unwrap().status(), 200);
        }
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
