//! Full load for a time: devices in turn, over any number of connections, each with a window.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tidegate_simulator::{Device, packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Plan, Pubacks, Script};

/// Packets that go into one write: acknowledgements are read between them.
const PACKETS_A_WRITE: usize = 256;

/// Connections under load, on one thread.
pub struct Steady {
    runtime: tokio::runtime::Runtime,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    script: Arc<Script>,
    /// The next packet of the script.
    next: usize,
    window: usize,
}

/// The messages of some time, all acknowledged.
pub struct Sent {
    pub messages: u64,
    pub took: Duration,
}

impl Steady {
    /// Connects, and makes every packet.
    pub fn prepare(plan: &Plan, address: &str, metrics: usize) -> Result<Self> {
        ensure!(plan.devices >= plan.connections, "each connection needs a device");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _guard = runtime.enter();
        let connection = |n: usize| -> Result<Connection> {
            let stream = Device::connect(address, &format!("bench-{n}"))?.stream;
            stream.set_nonblocking(true)?;
            let script = Arc::new(Script::cycle(plan, n, metrics));
            Ok(Connection { stream: TcpStream::from_std(stream)?, script, next: 0, window: plan.window })
        };
        let connections = (0..plan.connections).map(connection).collect::<Result<_>>()?;
        Ok(Self { runtime, connections })
    }

    /// Sends one message of each device at least, for `limit` at most.
    pub fn warm_up(&mut self, limit: Duration) -> Result<Sent> {
        self.run(limit, false)
    }

    /// Sends for `time`, and waits for the acknowledgements.
    pub fn run_for(&mut self, time: Duration) -> Result<Sent> {
        self.run(time, true)
    }

    fn run(&mut self, time: Duration, again: bool) -> Result<Sent> {
        let connections = std::mem::take(&mut self.connections);
        let began = Instant::now();
        let (messages, connections) = self.runtime.block_on(async move {
            let mut tasks = tokio::task::JoinSet::new();
            for mut connection in connections {
                tasks.spawn(async move {
                    let sent = connection.send_until(began + time, again).await?;
                    anyhow::Ok((sent, connection))
                });
            }
            let (mut messages, mut back) = (0, Vec::with_capacity(tasks.len()));
            while let Some(ended) = tasks.join_next().await {
                let (sent, connection) = ended??;
                messages += sent;
                back.push(connection);
            }
            anyhow::Ok((messages, back))
        })?;
        self.connections = connections;
        Ok(Sent { messages, took: began.elapsed() })
    }

    /// Ends every connection as MQTT wants it.
    pub fn disconnect(self) -> Result<()> {
        for connection in self.connections {
            let mut stream = connection.stream.into_std()?;
            stream.set_nonblocking(false)?;
            stream.write_all(&packet::DISCONNECT)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Sends until then or, unless `again`, to the end of the script; gives the number of messages.
    async fn send_until(&mut self, end: Instant, again: bool) -> Result<u64> {
        let (mut sent, mut acknowledged) = (0, 0);
        let most = if again { u64::MAX } else { self.script.ends.len() as u64 };
        let mut pubacks = Pubacks::new(16 << 10);
        loop {
            let in_flight = (sent - acknowledged) as usize;
            if in_flight < self.window && sent < most && Instant::now() < end {
                sent += self.write(self.window - in_flight, most - sent).await?;
                continue;
            }
            if in_flight == 0 {
                return Ok(sent);
            }
            let read = self.stream.read(pubacks.room()).await?;
            acknowledged += pubacks.count(read, in_flight)? as u64;
        }
    }

    /// Writes some of the next packets of the script; gives their number.
    async fn write(&mut self, room: usize, left: u64) -> Result<u64> {
        let ends = &self.script.ends;
        let packets = room.min(PACKETS_A_WRITE).min(ends.len() - self.next).min(left as usize);
        let from = if self.next == 0 { 0 } else { ends[self.next - 1] };
        let to = ends[self.next + packets - 1];
        self.stream.write_all(&self.script.bytes[from..to]).await?;
        self.next = (self.next + packets) % ends.len();
        Ok(packets as u64)
    }
}
