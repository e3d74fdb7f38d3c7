//! VictoriaMetrics from Debian's package `victoria-metrics`: only to see that its InfluxDB
//! endpoints take Tidegate's lines; it hides bad ones and stores milliseconds.

use super::{Process, answers, client, free_port, query};

pub struct Victoria {
    _process: Process,
    _dir: tempfile::TempDir,
    port: u16,
}

impl Victoria {
    pub async fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let process = Process::start(
            "victoria-metrics",
            "victoria-metrics",
            &[
                &format!("-storageDataPath={}", dir.path().display()),
                &format!("-httpListenAddr=127.0.0.1:{port}"),
                "-retentionPeriod=100y",
                "-search.latencyOffset=0s",
            ],
        );
        let victoria = Self { _process: process, _dir: dir, port };
        answers(&format!("{}/health", victoria.url())).await;
        victoria
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Samples stored of the series that `selector` names.
    pub async fn count(&self, selector: &str) -> usize {
        self.samples(selector).await.len()
    }

    /// Time in milliseconds and value of each sample of the series that `selector` names.
    pub async fn samples(&self, selector: &str) -> Vec<(i64, f64)> {
        client().get(format!("{}/internal/force_flush", self.url())).send().await.unwrap();
        let query = query(&[("match[]", selector)]);
        let answer = client().get(format!("{}/api/v1/export?{query}", self.url())).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let series = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let samples = |series: serde_json::Value| {
            let (times, values) = (series["timestamps"].clone(), series["values"].clone());
            let times =
                times.as_array().unwrap().iter().map(|time| time.as_i64().unwrap()).collect::<Vec<_>>();
            let values = values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
            times.into_iter().zip(values.collect::<Vec<_>>())
        };
        series.flat_map(samples).collect()
    }
}
