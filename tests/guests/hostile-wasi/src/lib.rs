//! Imports WASI 0.2 and does with it what the payload's key `do` says: `ok` makes a line, most others are an attack.

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct HostileWasi;

impl Decoder for HostileWasi {
    fn configure(_: &Route) -> Result<Self, String> {
        act("hello");
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut reader = Reader::new(message.payload);
        let (mut action, mut seq) = (String::new(), 0);
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("do") {
                action = reader.string()?.decode().into_owned();
            } else if key.is("seq") {
                seq = reader.number()?.as_i64().unwrap_or(0);
            }
        }
        if action == "ok" {
            return lines.line("ok").integer("seq", seq).end();
        }
        lines.line("wasi").string("did", &act(&action)).end()
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn act(action: &str) -> String {
    action.to_owned()
}

#[cfg(target_arch = "wasm32")]
fn act(action: &str) -> String {
    use wasip2::cli::{environment, exit, stderr, stdin, stdout};
    use wasip2::clocks::{monotonic_clock, wall_clock};
    use wasip2::filesystem::preopens;
    use wasip2::io::poll;
    use wasip2::random::{insecure_seed, random};
    use wasip2::sockets::network::IpAddressFamily;
    use wasip2::sockets::{instance_network, tcp_create_socket};

    match action {
        // What a runtime does at its start.
        "hello" => stderr::get_stderr().write(b"configured\n").unwrap(),
        "world" => {
            let now = wall_clock::now();
            return format!(
                "{}.{:09} {} {} {:x} {:x?} {:x?}",
                now.seconds,
                now.nanoseconds,
                monotonic_clock::now(),
                monotonic_clock::now(),
                random::get_random_u64(),
                random::get_random_bytes(11),
                insecure_seed::insecure_seed(),
            );
        }
        "empty" => {
            return format!(
                "{:?} {:?} {:?} {} {:?}",
                environment::get_environment(),
                environment::get_arguments(),
                environment::initial_cwd(),
                preopens::get_directories().len(),
                stdin::get_stdin().read(10).is_err(),
            );
        }
        "write" => {
            stdout::get_stdout().blocking_write_and_flush(b"read\nwritten").unwrap();
            stderr::get_stderr().blocking_write_and_flush(b"careful\x1b[2J\n").unwrap();
        }
        "write-and-trap" => {
            stderr::get_stderr().blocking_write_and_flush(b"trace\nValueError: no temp\n").unwrap();
            panic!("on purpose");
        }
        "sleep" => {
            let before = monotonic_clock::now();
            monotonic_clock::subscribe_duration(3_000_000_000).block();
            return format!("{}", monotonic_clock::now() - before);
        }
        "write-without-end" => {
            let out = stdout::get_stdout();
            loop {
                out.blocking_write_and_flush(&[b'x'; 4096]).unwrap();
            }
        }
        "write-much" => {
            let out = stdout::get_stdout();
            (0..50).for_each(|_| out.blocking_write_and_flush(&[b'x'; 4096]).unwrap());
        }
        "write-large" => stdout::get_stdout().write(&[b'x'; 4097]).unwrap(),
        "write-10-mb" => stdout::get_stdout().write(&vec![b'x'; 10_000_000]).unwrap(),
        "write-zeroes" => stdout::get_stdout().write_zeroes(1_000).unwrap(),
        "random-4-gib" => return random::get_random_bytes(4 << 30).len().to_string(),
        "random-without-end" => loop {
            random::get_random_bytes(65_536);
        },
        "wait-for-ever" => {
            let never = monotonic_clock::subscribe_duration(u64::MAX);
            never.block();
            poll::poll(&[&never]);
        }
        "poll-nothing" => return poll::poll(&[]).len().to_string(),
        "poll-many" => {
            let never = monotonic_clock::subscribe_duration(1);
            let all = vec![&never; 100_000];
            return poll::poll(&all).len().to_string();
        }
        "clock-without-end" => loop {
            monotonic_clock::now();
        },
        "subscribe-without-end" => loop {
            drop(monotonic_clock::subscribe_duration(0));
        },
        "leak" => loop {
            std::mem::forget(monotonic_clock::subscribe_duration(0));
        },
        "leak-streams" => loop {
            std::mem::forget(stdout::get_stdout());
        },
        "leak-networks" => loop {
            std::mem::forget(instance_network::instance_network());
        },
        "socket" => return tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4).is_ok().to_string(),
        "exit" => exit::exit(Ok(())),
        "exit-badly" => exit::exit(Err(())),
        other => panic!("no such action: {other}"),
    }
    action.to_owned()
}

tidegate_guest::export!(HostileWasi);
