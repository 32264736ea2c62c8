//! A Redis URL, taken apart.
//!
//! By hand, because a list of hosts (`redis-sentinel://h1:26379,h2:26379/primary`) is no URL to a general
//! parser. What is wrong is told in fixed words that repeat nothing of the URL: a password may stand
//! anywhere in one that is wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use percent_encoding::percent_decode_str;

use crate::store::address::{Address, Endpoint, Login, Target};

/// The scheme, if it is one of ours: all of a URL that may be shown.
pub(crate) fn scheme(url: &str) -> Option<&'static str> {
    let (name, _) = url.trim_start().split_once("://")?;
    let known = SCHEMES
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(name));
    known.map(|(known, ..)| *known)
}

/// Where `url` leads.
///
/// # Errors
///
/// What is wrong, in words that show nothing of the URL.
pub(crate) fn read(url: &str) -> Result<Target, &'static str> {
    let url = url.trim();
    let Some((name, rest)) = url.split_once("://") else {
        // What the Azure portal hands out, in the form that another client reads.
        return Err(if url.to_ascii_lowercase().contains(",password=") {
            "is a connection string for StackExchange.Redis: write rediss://:<key>@<host>:6380"
        } else {
            WRONG_SCHEME
        });
    };
    let known = SCHEMES
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(name));
    let (_, form, tls) = *known.ok_or(WRONG_SCHEME)?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(authority_end);
    read_parts(form, tls, authority, behind).map_err(|words| {
        // `redis://:a/b@host`: the slash ended what was meant to be the password.
        if behind.contains('@') && !authority.is_empty() && !authority.contains('@') {
            "has a / ? or # in its user name or password: write %2F, %3F or %23"
        } else {
            words
        }
    })
}

/// How the hosts of a scheme are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Single,
    Socket,
    Sentinel,
    Cluster,
}

const SCHEMES: &[(&str, Form, bool)] = &[
    ("redis", Form::Single, false),
    ("rediss", Form::Single, true),
    ("valkey", Form::Single, false),
    ("valkeys", Form::Single, true),
    ("unix", Form::Socket, false),
    ("redis+unix", Form::Socket, false),
    ("valkey+unix", Form::Socket, false),
    ("redis-sentinel", Form::Sentinel, false),
    ("rediss-sentinel", Form::Sentinel, true),
    ("valkey-sentinel", Form::Sentinel, false),
    ("valkeys-sentinel", Form::Sentinel, true),
    ("redis-cluster", Form::Cluster, false),
    ("rediss-cluster", Form::Cluster, true),
    ("valkey-cluster", Form::Cluster, false),
    ("valkeys-cluster", Form::Cluster, true),
];

const WRONG_SCHEME: &str = "must begin with redis://, rediss://, unix://, redis-sentinel://, \
     rediss-sentinel://, redis-cluster:// or rediss-cluster:// (or valkey for redis)";

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

fn read_parts(
    form: Form,
    tls: bool,
    authority: &str,
    behind: &str,
) -> Result<Target, &'static str> {
    let (behind, fragment) = cut(behind, '#');
    if fragment.is_some() {
        return Err(
            "has a # part: certificates are always checked, and nothing else is said there",
        );
    }
    let (path, query) = cut(behind, '?');
    let mut query = Query::read(query.unwrap_or_default())?;
    if let Some(protocol) = query.take("protocol")
        && !matches!(protocol.as_str(), "3" | "resp3")
    {
        return Err("asks for another protocol than RESP3");
    }
    // The last @, so that one in the password does no harm.
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    let mut login = user.map(read_login).transpose()?.unwrap_or_default();
    let address = match form {
        Form::Socket => {
            for (name, field) in [("user", &mut login.username), ("pass", &mut login.password)] {
                if let Some(value) = query.take(name) {
                    *field = Some(value);
                }
            }
            login.database = read_database(query.take("db").as_deref().unwrap_or_default())?;
            Address::Single(read_socket(hosts, path)?)
        }
        Form::Single => {
            login.database = read_database(path.trim_matches('/'))?;
            if hosts.contains(',') {
                return Err("names several hosts, which only redis-sentinel:// and \
                     redis-cluster:// can");
            }
            Address::Single(read_endpoint(hosts, PORT, tls)?)
        }
        Form::Sentinel => {
            let (primary, database) = read_primary(path)?;
            login.database = database;
            let its_login = Login {
                username: query.take("sentinel_username"),
                password: query.take("sentinel_password"),
                database: 0,
            };
            if its_login.username.is_some() && its_login.password.is_none() {
                return Err("has a sentinel_username without a sentinel_password");
            }
            Address::Sentinel {
                sentinels: read_endpoints(hosts, SENTINEL_PORT, tls)?,
                primary,
                login: its_login,
            }
        }
        Form::Cluster => {
            if !matches!(path.trim_matches('/'), "" | "0") {
                return Err("names a database, and a cluster has only number 0");
            }
            let seeds = read_endpoints(hosts, PORT, tls)?;
            Address::Cluster { seeds }
        }
    };
    query.finish(form)?;
    Ok(Target { address, login })
}

/// `name`, `name:password` or `:password`. A template whose variables were empty (`:@`) says nothing.
fn read_login(user: &str) -> Result<Login, &'static str> {
    let (username, password) = cut(user, ':');
    let username = Some(decode(username)?).filter(|name| !name.is_empty());
    let password = password.map(decode).transpose()?;
    let password = password.filter(|password| !password.is_empty() || username.is_some());
    Ok(Login {
        username,
        password,
        database: 0,
    })
}

fn read_database(digits: &str) -> Result<u32, &'static str> {
    const WRONG: &str = "must name its database by a number, as in redis://host/0";
    match digits {
        "" => Ok(0),
        _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| WRONG),
        _ => Err(WRONG),
    }
}

/// `/primary` or `/primary/db`.
fn read_primary(path: &str) -> Result<(String, u32), &'static str> {
    let path = path.trim_matches('/');
    // Raw, it is what a slash in the password has left over; a primary's name hardly ever has one.
    if path.contains('@') {
        return Err("must have an @ in the primary's name as %40");
    }
    let (primary, database) = cut(path, '/');
    if primary.is_empty() {
        return Err(
            "must name the primary that the Sentinels watch: redis-sentinel://h1,h2/primary",
        );
    }
    Ok((
        decode(primary)?,
        read_database(database.unwrap_or_default())?,
    ))
}

fn read_socket(hosts: &str, path: &str) -> Result<Endpoint, &'static str> {
    if !cfg!(unix) {
        return Err("names a Unix socket, and there are none on this system");
    }
    if !matches!(hosts, "" | "localhost") {
        return Err(
            "must have the socket's absolute path behind unix://, as in unix:///run/redis.sock",
        );
    }
    let path = decode(path)?;
    if path.trim_matches('/').is_empty() || path.contains('\0') {
        return Err("must name a socket, as in unix:///run/redis.sock");
    }
    Ok(Endpoint::Unix(path.into()))
}

fn read_endpoints(hosts: &str, port: u16, tls: bool) -> Result<Vec<Endpoint>, &'static str> {
    let hosts = hosts.split(',');
    hosts.map(|host| read_endpoint(host, port, tls)).collect()
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn read_endpoint(text: &str, default: u16, tls: bool) -> Result<Endpoint, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, behind) = rest.split_once(']').ok_or("has a [ without its ]")?;
            let address: Ipv6Addr = inside
                .parse()
                .map_err(|_| "must have an IPv6 address between [ and ]")?;
            let port = match behind.strip_prefix(':') {
                Some(port) => Some(port),
                None if behind.is_empty() => None,
                None => return Err("must have nothing but a port behind ]"),
            };
            (IpAddr::V6(address).to_string(), port)
        }
        None => {
            let (host, port) = cut(text, ':');
            (host.to_owned(), port)
        }
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err("must have an IPv6 address in brackets, as in redis://[::1]:6379");
    }
    check_host(&host)?;
    let port = match port {
        None => default,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| WRONG_PORT)?
        }
        Some(_) => return Err(WRONG_PORT),
    };
    if port == 0 {
        return Err(WRONG_PORT);
    }
    Ok(Endpoint::Tcp { host, port, tls })
}

const WRONG_PORT: &str = "must have a port of 1 to 65535, or none";

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("must name a host, as in redis://host:6379");
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return if address.to_canonical().is_unspecified() {
            Err(
                "names 0.0.0.0 or [::], where one can listen but not connect: write 127.0.0.1 or [::1]",
            )
        } else {
            Ok(())
        };
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.len() > 253 || !host.bytes().all(plain) {
        return Err("must name its host by letters, digits, - and . (other alphabets as xn--..)");
    }
    // The system's resolver takes `0` and `1.2.3` for addresses, which nobody means.
    let mut labels = host.trim_end_matches('.').rsplit('.');
    let numeric = labels.next().is_none_or(|last| {
        last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x")
    });
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err("must have a name or a whole address for its host");
    }
    Ok(())
}

/// What is said behind the `?`.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str) -> Result<Self, &'static str> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let read = pairs.map(|pair| {
            let (name, value) = cut(pair, '=');
            Ok((decode(name)?, decode(value.unwrap_or_default())?))
        });
        read.collect::<Result<_, _>>().map(Self)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// Everything has been taken.
    fn finish(self, form: Form) -> Result<(), &'static str> {
        match form {
            _ if self.0.is_empty() => Ok(()),
            Form::Socket => {
                Err("may say db, user and pass behind the ?, each once, and nothing else")
            }
            Form::Sentinel => Err(
                "may say sentinel_username and sentinel_password behind the ?, each once, and nothing else",
            ),
            Form::Single | Form::Cluster => {
                Err("may say nothing behind the ?: timeouts and the like are settings of their own")
            }
        }
    }
}

/// What stands before the first `at`, and what behind it.
fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    }
}

fn decode(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| "has percent signs that spell no UTF-8 text")?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Endpoint {
        Endpoint::Tcp {
            host: host.to_owned(),
            port,
            tls,
        }
    }

    fn login(username: &str, password: &str, database: u32) -> Login {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Login {
            username: some(username),
            password: some(password),
            database,
        }
    }

    #[test]
    fn one_server_is_found_by_every_scheme() {
        for (url, endpoint, its_login) in [
            ("redis://h", tcp("h", 6379, false), login("", "", 0)),
            ("REDIS://h/", tcp("h", 6379, false), login("", "", 0)),
            (" redis://h/0\n", tcp("h", 6379, false), login("", "", 0)),
            ("valkey://h:1/15", tcp("h", 1, false), login("", "", 15)),
            (
                "rediss://:p@h:6380",
                tcp("h", 6380, true),
                login("", "p", 0),
            ),
            (
                "valkeys://u:p@h/2",
                tcp("h", 6379, true),
                login("u", "p", 2),
            ),
            (
                "redis://h?protocol=resp3",
                tcp("h", 6379, false),
                login("", "", 0),
            ),
            ("redis://[::1]", tcp("::1", 6379, false), login("", "", 0)),
            (
                "redis://u:p@[FE80::2]:7/1",
                tcp("fe80::2", 7, false),
                login("u", "p", 1),
            ),
            (
                "redis://10.0.0.1:7",
                tcp("10.0.0.1", 7, false),
                login("", "", 0),
            ),
            (
                "redis://a_b-c.d.:7",
                tcp("a_b-c.d.", 7, false),
                login("", "", 0),
            ),
            ("redis://:@h", tcp("h", 6379, false), login("", "", 0)),
            // An Azure key, of the characters that base64 has.
            (
                "rediss://:a+b%2Fc=@h",
                tcp("h", 6379, true),
                login("", "a+b/c=", 0),
            ),
            (
                "redis://u%40t:p%3Aq@h",
                tcp("h", 6379, false),
                login("u@t", "p:q", 0),
            ),
            (
                "redis://u:p@q:r,s@h",
                tcp("h", 6379, false),
                login("u", "p@q:r,s", 0),
            ),
            (
                "redis://u:50%@h",
                tcp("h", 6379, false),
                login("u", "50%", 0),
            ),
        ] {
            let target = Target {
                address: Address::Single(endpoint),
                login: its_login,
            };
            assert_eq!(read(url), Ok(target), "{url}");
        }
        let nameless = read("redis://u:@h").unwrap().login;
        assert_eq!(nameless.password.as_deref(), Some(""), "said, and empty");
    }

    #[test]
    fn a_socket_is_found_by_its_path() {
        for (url, path, its_login) in [
            (
                "unix:///run/redis.sock",
                "/run/redis.sock",
                login("", "", 0),
            ),
            ("redis+unix:///r@1.sock", "/r@1.sock", login("", "", 0)),
            ("valkey+unix://localhost/a%20b", "/a b", login("", "", 0)),
            (
                "unix:///r?db=3&user=u&pass=p+q%26",
                "/r",
                login("u", "p+q&", 3),
            ),
            ("unix://u:p@/r?db=3", "/r", login("u", "p", 3)),
        ] {
            let address = Address::Single(Endpoint::Unix(path.into()));
            let target = Target {
                address,
                login: its_login,
            };
            assert_eq!(read(url), Ok(target), "{url}");
        }
    }

    #[test]
    fn sentinels_have_a_login_of_their_own() {
        let url = "rediss-sentinel://u:p@s1,s2:7,[::1]/my%20primary/3\
                   ?sentinel_username=su&sentinel_password=sp%2F";
        let sentinels = vec![
            tcp("s1", 26379, true),
            tcp("s2", 7, true),
            tcp("::1", 26379, true),
        ];
        let address = Address::Sentinel {
            sentinels,
            primary: "my primary".to_owned(),
            login: login("su", "sp/", 0),
        };
        let target = Target {
            address,
            login: login("u", "p", 3),
        };
        assert!(target.uses_tls());
        assert_eq!(read(url), Ok(target));
        let plain = read("valkey-sentinel://s1/primary").unwrap();
        assert!(!plain.uses_tls());
    }

    #[test]
    fn a_cluster_begins_with_any_of_its_nodes() {
        let seeds = vec![tcp("n1", 6379, false), tcp("n2", 7, false)];
        let target = Target {
            address: Address::Cluster { seeds },
            login: login("", "p", 0),
        };
        assert_eq!(read("redis-cluster://:p@n1,n2:7"), Ok(target.clone()));
        assert_eq!(read("valkey-cluster://:p@n1,n2:7/0"), Ok(target));
        assert!(read("rediss-cluster://n1:10000").unwrap().uses_tls());
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (url, words) in [
            ("", "must begin with redis://"),
            ("h:6379", "must begin with"),
            ("http://h", "must begin with"),
            ("redis-cluste://h", "must begin with"),
            ("h:6380,password=p,ssl=True", "StackExchange.Redis"),
            ("redis://", "must name a host"),
            ("redis://:p@", "must name a host"),
            ("redis://:6379", "must name a host"),
            ("redis://0.0.0.0", "one can listen but not connect"),
            ("redis://[::]:6379", "one can listen but not connect"),
            ("redis://[::ffff:0.0.0.0]", "one can listen but not connect"),
            ("redis://0", "a whole address"),
            ("redis://1.2.3:6379", "a whole address"),
            ("redis://h ost", "letters, digits"),
            ("redis://bücher.example", "letters, digits"),
            ("redis://h:0", "a port of 1 to 65535"),
            ("redis://h:65536", "a port of 1 to 65535"),
            ("redis://h:", "a port of 1 to 65535"),
            ("redis://h:+1", "a port of 1 to 65535"),
            ("redis://::1:6379", "in brackets"),
            ("redis://[::1", "without its ]"),
            ("redis://[::1]6379", "nothing but a port"),
            ("redis://[h]", "an IPv6 address between"),
            ("redis://h1,h2", "several hosts"),
            ("redis://h/x", "by a number"),
            ("redis://h/-1", "by a number"),
            ("redis://h/4294967296", "by a number"),
            ("redis://h#insecure", "always checked"),
            ("redis://h?db=1", "nothing behind the ?"),
            ("redis://h?protocol=resp2", "RESP3"),
            ("redis://:%ff@h", "no UTF-8"),
            ("redis://:p/w@h", "%2F"),
            ("redis://u:12/3@h:6379", "%2F"),
            ("redis://u:12#3@h", "%2F"),
            ("redis://u:12?3@h", "%2F"),
            ("unix://", "must name a socket"),
            ("unix:///", "must name a socket"),
            ("unix:///a%00b", "must name a socket"),
            ("unix://run/redis.sock", "absolute path"),
            ("unix:///r?dbb=1", "db, user and pass"),
            ("unix:///r?db=1&db=2", "each once"),
            ("redis-sentinel://s1", "must name the primary"),
            ("redis-sentinel://s1//", "must name the primary"),
            ("redis-sentinel://s1,,s2/p", "must name a host"),
            ("redis-sentinel://s1/p/x", "by a number"),
            ("redis-sentinel://u:12/p@s1", "%2F"),
            (
                "redis-sentinel://s1/p?sentinel_username=u",
                "without a sentinel_password",
            ),
            ("redis-sentinel://s1/p?db=1", "sentinel_username and"),
            ("redis-cluster://n1/1", "only number 0"),
            ("redis-cluster://", "must name a host"),
        ] {
            let error = read(url).unwrap_err();
            assert!(error.contains(words), "{url}: {error}");
        }
    }

    const SECRET: &str = "s3cr3t";

    /// A password around a part that occurs nowhere else, sometimes written as it must be, sometimes not.
    fn password() -> impl Strategy<Value = String> {
        let odd = "[ -~]{0,6}|12/|12\\?|12#|//|@|,|:|\\[|é|%2f|%";
        (odd, odd, any::<bool>()).prop_map(|(before, behind, encoded)| {
            let encode = |text: &str| {
                let encoded =
                    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
                encoded.to_string()
            };
            let whole = format!("{before}{SECRET}{behind}");
            if encoded { encode(&whole) } else { whole }
        })
    }

    fn url() -> impl Strategy<Value = String> {
        let schemes: Vec<&str> = SCHEMES.iter().map(|(name, ..)| *name).collect();
        let scheme = prop_oneof![proptest::sample::select(schemes), Just("http")];
        let behind = "(/[a-z0-9]{0,3}){0,2}(\\?db=1)?";
        let hosts = "h?(:[0-9]{0,5})?(,h2)?";
        (scheme, "u?", password(), hosts, behind, 0..4).prop_map(
            |(scheme, user, password, hosts, behind, place)| match place {
                0 | 1 => format!("{scheme}://{user}:{password}@{hosts}{behind}"),
                2 => format!("{scheme}://{hosts}{behind}?sentinel_password={password}"),
                _ => format!("{scheme}://{hosts}/x?pass={password}"),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", scheme in 0..SCHEMES.len()) {
            let _ = read(&text);
            let _ = read(&format!("{}://{text}", SCHEMES[scheme].0));
        }

        #[test]
        fn a_password_is_never_shown(url in url()) {
            let shown = match read(&url) {
                Err(words) => words.to_owned(),
                Ok(target) => {
                    let mut shown = format!("{target:?}");
                    match target.address {
                        Address::Single(endpoint) => shown += &endpoint.to_string(),
                        Address::Sentinel { sentinels, .. } => {
                            sentinels.iter().for_each(|it| shown += &it.to_string());
                        }
                        Address::Cluster { seeds } => {
                            seeds.iter().for_each(|it| shown += &it.to_string());
                        }
                    }
                    shown
                }
            };
            prop_assert!(!shown.contains(SECRET), "{shown}");
            let scheme = format!("{:?}", scheme(&url));
            prop_assert!(!scheme.contains(SECRET));
        }
    }
}
