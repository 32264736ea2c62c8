//! Finds a host's addresses, with one question per host under way.
//!
//! The system's resolver (`getaddrinfo`) blocks a thread and cannot be called off. While name servers hang,
//! a supervisor that tries again every 100 ms and gives up after a while would leave a blocked thread behind
//! each time. Here whoever asks joins the question that is under way already, and may give up without
//! stopping it. An answer is handed to those who wait for it and then forgotten: after a failover the name
//! may mean another host.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::io::AsyncDNSResolver;
use redis::{ErrorKind, RedisError, RedisFuture};
use tokio::sync::watch;

use crate::task::Spawner;

/// Asks the system. Cheap to clone; all clones share their questions.
#[derive(Clone)]
pub(crate) struct Resolver {
    under_way: UnderWay,
    spawner: Spawner,
    lookup: Lookup,
}

/// By host, where its answer will come.
type UnderWay = Arc<Mutex<HashMap<String, watch::Receiver<Option<Answer>>>>>;

/// The addresses, with port 0, or the system's words.
type Answer = Result<Arc<[SocketAddr]>, Arc<str>>;

type Lookup = Arc<dyn Fn(String) -> Asked + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// What errors about names begin with.
const UNRESOLVED: &str = "the host's name has no address";

/// Whether connecting failed for want of an address.
pub(crate) fn is_unresolved(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Io && error.to_string().starts_with(UNRESOLVED)
}

impl Resolver {
    /// Asks the system; questions are tasks of `spawner`'s owner.
    pub(crate) fn new(spawner: Spawner) -> Self {
        Self::with(spawner, |host| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
        })
    }

    fn with(spawner: Spawner, lookup: impl Fn(String) -> Asked + Send + Sync + 'static) -> Self {
        Self {
            under_way: Arc::default(),
            spawner,
            lookup: Arc::new(lookup),
        }
    }

    /// The host's addresses. Safe to drop at any await: the question goes on for others.
    async fn addresses(&self, host: &str) -> Answer {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok([SocketAddr::new(address, 0)].into());
        }
        let mut answer = self.ask(host);
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            // Its task has ended without an answer.
            _ => Err("the stack was shut down".into()),
        }
    }

    /// Joins the question about this host, or asks it.
    fn ask(&self, host: &str) -> watch::Receiver<Option<Answer>> {
        let mut under_way = lock(&self.under_way);
        if let Some(answer) = under_way.get(host) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        under_way.insert(host.to_owned(), answer.clone());
        drop(under_way);
        let question = Question {
            under_way: Arc::clone(&self.under_way),
            host: host.to_owned(),
        };
        let asked = (self.lookup)(host.to_owned());
        self.spawner.spawn(async move {
            let found = asked.await;
            // Whoever comes after this asks anew.
            drop(question);
            let found = match found {
                Ok(addresses) if addresses.is_empty() => Err("the answer is empty".into()),
                Ok(addresses) => Ok(addresses.into()),
                Err(error) => Err(error.to_string().into()),
            };
            tell.send_replace(Some(found));
        });
        answer
    }
}

/// Is in the map while its task lives, however that ends.
struct Question {
    under_way: UnderWay,
    host: String,
}

impl Drop for Question {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.host);
    }
}

/// A panic while the lock was held cannot leave the map half-changed, so poison is ignored.
fn lock(under_way: &UnderWay) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Answer>>>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncDNSResolver for Resolver {
    #[expect(single_use_lifetimes, reason = "as the trait has it")]
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = self.addresses(host).await.map_err(|words| {
                RedisError::from((ErrorKind::Io, UNRESOLVED, words.as_ref().to_owned()))
            })?;
            let whole = (0..found.len()).map(move |place| {
                let mut address = found[place];
                address.set_port(port);
                address
            });
            Ok(Box::new(whole) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;
    use crate::task::Tasks;

    /// A system whose answers come when they are let through.
    struct System {
        tasks: Tasks,
        asked: Arc<AtomicUsize>,
        let_through: Arc<Semaphore>,
        resolver: Resolver,
    }

    fn system(answer: fn(&str) -> io::Result<Vec<SocketAddr>>) -> System {
        let tasks = Tasks::new().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let let_through = Arc::new(Semaphore::new(0));
        let (count, gate) = (Arc::clone(&asked), Arc::clone(&let_through));
        let resolver = Resolver::with(tasks.spawner(), move |host| {
            count.fetch_add(1, Ordering::Relaxed);
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                answer(&host)
            })
        });
        System {
            tasks,
            asked,
            let_through,
            resolver,
        }
    }

    impl System {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    async fn found(resolver: &Resolver, host: &str) -> Result<Vec<String>, RedisError> {
        let found = resolver.resolve(host, 6379).await?;
        Ok(found.map(|address| address.to_string()).collect())
    }

    fn two(_: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![
            "10.0.0.1:0".parse().unwrap(),
            "[fe80::1]:0".parse().unwrap(),
        ])
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_give_up_leave_one_question_behind() {
        let system = system(two);
        for _ in 0..50 {
            let gave_up = timeout(Duration::from_secs(1), found(&system.resolver, "h")).await;
            assert!(gave_up.is_err());
        }
        assert_eq!(system.asked(), 1);
        assert_eq!(system.tasks.spawner().running(), 1);
        system.let_through.add_permits(1);
        let answer = found(&system.resolver, "h").await.unwrap();
        assert_eq!(answer, ["10.0.0.1:6379", "[fe80::1]:6379"]);
        assert_eq!(
            system.asked(),
            1,
            "the one question answered the last caller"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_shared_by_those_who_wait_and_then_forgotten() {
        let system = system(two);
        let other = system.resolver.clone();
        let (first, second, elsewhere, ()) = tokio::join!(
            found(&system.resolver, "h"),
            found(&other, "h"),
            found(&other, "elsewhere"),
            async { system.let_through.add_permits(2) },
        );
        assert_eq!(first.unwrap(), second.unwrap());
        assert!(elsewhere.is_ok());
        assert_eq!(system.asked(), 2, "one for each host");
        assert!(lock(&system.resolver.under_way).is_empty());
        system.let_through.add_permits(1);
        found(&system.resolver, "h").await.unwrap();
        assert_eq!(system.asked(), 3, "asked anew");
    }

    #[tokio::test]
    async fn addresses_are_answered_at_once() {
        let system = system(two);
        for (host, address) in [("127.0.0.1", "127.0.0.1:6379"), ("::1", "[::1]:6379")] {
            assert_eq!(found(&system.resolver, host).await.unwrap(), [address]);
        }
        assert_eq!(system.asked(), 0);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_told_apart_from_other_trouble() {
        for answer in [
            (|_| Ok(Vec::new())) as fn(&str) -> _,
            |_| Err(io::Error::other("no such host")),
            |_| panic!("a resolver may fail in any way"),
        ] {
            let system = system(answer);
            system.let_through.add_permits(1);
            let error = found(&system.resolver, "h").await.unwrap_err();
            assert!(is_unresolved(&error), "{error}");
            assert!(lock(&system.resolver.under_way).is_empty());
        }
        let refused = RedisError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(!is_unresolved(&refused));
    }

    #[tokio::test]
    async fn shutting_down_answers_those_who_wait_and_those_who_come_later() {
        let system = system(two);
        let (error, _) = tokio::join!(
            found(&system.resolver, "h"),
            system.tasks.shutdown(Duration::ZERO),
        );
        assert!(is_unresolved(&error.unwrap_err()));
        let error = found(&system.resolver, "h").await.unwrap_err();
        assert!(error.to_string().contains("shut down"), "{error}");
        assert!(lock(&system.resolver.under_way).is_empty());
    }

    #[tokio::test]
    async fn the_system_knows_this_host() {
        let tasks = Tasks::new().unwrap();
        let resolver = Resolver::new(tasks.spawner());
        let addresses = found(&resolver, "localhost").await.unwrap();
        assert!(
            addresses
                .iter()
                .any(|address| address == "127.0.0.1:6379" || address == "[::1]:6379"),
            "{addresses:?}"
        );
    }
}
