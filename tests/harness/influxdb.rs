//! InfluxDB 1.x from Debian's package `influxdb`.

use super::{Process, answers, client, free_port, query};

pub struct Influxdb {
    process: Option<Process>,
    dir: tempfile::TempDir,
    port: u16,
}

impl Influxdb {
    pub async fn start() -> Self {
        let mut influxdb = Self { process: None, dir: tempfile::tempdir().unwrap(), port: free_port() };
        influxdb.restart().await;
        influxdb
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same port and folder; kills it first if it runs.
    pub async fn restart(&mut self) {
        self.kill();
        let dir = self.dir.path().display();
        let config = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{}\"\n\
             [meta]\ndir = \"{dir}/meta\"\n[data]\ndir = \"{dir}/data\"\nwal-dir = \"{dir}/wal\"\n\
             [http]\nbind-address = \"127.0.0.1:{}\"\nlog-enabled = false\n[monitor]\nstore-enabled = false\n",
            free_port(),
            self.port
        );
        let path = self.dir.path().join("influxdb.conf");
        std::fs::write(&path, config).unwrap();
        self.process = Some(Process::start("influxd", "influxdb", &["-config", path.to_str().unwrap()]));
        answers(&format!("{}/ping", self.url())).await;
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub async fn create(&self, database: &str) {
        self.ask("", &format!("CREATE DATABASE \"{database}\"")).await;
    }

    /// The answer to a statement, times in nanoseconds.
    pub async fn ask(&self, database: &str, statement: &str) -> serde_json::Value {
        let query = query(&[("db", database), ("epoch", "ns"), ("q", statement)]);
        let answer = client().post(format!("{}/query?{query}", self.url())).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// The number of stored values of one field.
    pub async fn count(&self, database: &str, measurement: &str, field: &str) -> u64 {
        let answer = self.ask(database, &format!("SELECT count(\"{field}\") FROM \"{measurement}\"")).await;
        answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0)
    }
}
