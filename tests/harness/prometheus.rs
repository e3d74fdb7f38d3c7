//! Prometheus and promtool from Debian's package `prometheus`, with the example of a configuration that is shipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Process, answers, client, free_port, query};

/// The interval of scrapes and of the evaluation of rules in tests. A scrape may take as long.
const INTERVAL: &str = "1s";

/// The folder of what is shipped for Prometheus.
pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/prometheus")
}

/// Runs promtool in a folder: true if it is content, and all that it prints.
pub fn promtool(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("promtool (Debian package prometheus) does not start: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// One series of an answer: its labels, and its value.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Value,
    pub value: f64,
}

impl Series {
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels[*name].as_str().unwrap_or_default() == *value)
    }
}

/// A server that scrapes gateways.
pub struct Prometheus {
    process: Option<Process>,
    dir: tempfile::TempDir,
    port: u16,
    rules: String,
    token: String,
}

impl Prometheus {
    /// Starts it with the shipped configuration, whose targets, intervals and rules are replaced.
    pub async fn start(targets: &[&str], rules: &str, token: &str) -> Self {
        let mut prometheus = Self {
            process: None,
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            rules: rules.into(),
            token: token.into(),
        };
        prometheus.restart(targets).await;
        prometheus
    }

    /// Starts it again with other targets, on what it has stored.
    pub async fn restart(&mut self, targets: &[&str]) {
        self.process = None;
        let folder = self.dir.path();
        let example = std::fs::read_to_string(shipped().join("prometheus.yml")).unwrap();
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = example.replace("15s", INTERVAL).replace("\"127.0.0.1:9464\"", &targets.join(", "));
        assert!(config.contains(INTERVAL) && !config.contains("9464"), "{config}");
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        std::fs::write(folder.join("alerts.yml"), &self.rules).unwrap();
        std::fs::write(folder.join("tidegate.token"), &self.token).unwrap();
        let (good, said) = promtool(folder, &["check", "config", "prometheus.yml"]);
        assert!(good, "{said}");
        let file = |name: &str| folder.join(name).display().to_string();
        let arguments = [
            format!("--config.file={}", file("prometheus.yml")),
            format!("--storage.tsdb.path={}", file("data")),
            format!("--web.listen-address=127.0.0.1:{}", self.port),
            "--query.lookback-delta=5s".to_owned(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.process = Some(Process::start("prometheus", "prometheus", &arguments));
        answers(&format!("http://127.0.0.1:{}/-/ready", self.port)).await;
    }

    async fn ask(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let answer = match client().get(url).send().await {
            Ok(answer) => answer.bytes().await.unwrap_or_default(),
            Err(_) => Default::default(),
        };
        serde_json::from_slice(&answer).unwrap_or_default()
    }

    /// The series of an expression at this moment.
    ///
    /// # Panics
    /// The expression is wrong.
    pub async fn query(&self, expr: &str) -> Vec<Series> {
        let answer = self.ask(&format!("query?{}", query(&[("query", expr)]))).await;
        assert_ne!(answer["status"], "error", "{expr}: {answer:#}");
        let series = |one: &Value| Series {
            labels: one["metric"].clone(),
            value: one["value"][1].as_str().and_then(|value| value.parse().ok()).unwrap_or(f64::NAN),
        };
        answer["data"]["result"].as_array().into_iter().flatten().map(series).collect()
    }

    /// The alerts that are pending or fire.
    pub async fn alerts(&self) -> Vec<Value> {
        self.ask("alerts").await["data"]["alerts"].as_array().cloned().unwrap_or_default()
    }

    /// Each group of rules with the time of its last evaluation.
    pub async fn evaluations(&self) -> Vec<String> {
        let rules = self.ask("rules").await;
        let groups = rules["data"]["groups"].as_array().into_iter().flatten();
        groups.map(|group| group["lastEvaluation"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The values of a label among the series of a selector.
    pub async fn label_values(&self, selector: &str, label: &str) -> Vec<String> {
        let answer = self.ask(&format!("label/{label}/values?{}", query(&[("match[]", selector)]))).await;
        let values = answer["data"].as_array().into_iter().flatten();
        values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }
}
