//! A real browser to see pages with: Chromium without a window, driven through `chromedriver` as
//! <https://www.w3.org/TR/webdriver2/> has it. What is here is what tests use.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use data_encoding::BASE64;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fleet::{PATIENCE, needs, text, wait};

/// Without a window, as root, in a container with a small /dev/shm. Through a pipe: it ends with its driver.
const ARGUMENTS: [&str; 6] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1000,900",
    "--remote-debugging-pipe",
];

/// A browser with one window; it ends with this.
pub(crate) struct Browser {
    driver: Child,
    /// Of the session.
    url: String,
}

impl Browser {
    /// A new browser that has never been anywhere. What it keeps and logs is in `directory`.
    pub(crate) fn start(directory: &Path) -> Self {
        needs("/usr/bin/chromium", "chromium");
        needs("/usr/bin/chromedriver", "chromium-driver");
        needs("/usr/bin/curl", "curl");
        needs("/usr/bin/setpriv", "util-linux");
        let log = directory.join("log-chromedriver");
        let file = File::create(&log).unwrap();
        let driver = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"]) // it cannot outlive a test that is killed
            .args(["chromedriver", "--port=0"])
            .env("HOME", directory)
            .env("TMPDIR", directory)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0) // so that all that it starts can be ended with it
            .spawn()
            .unwrap();
        let mut browser = Self { driver, url: String::new() };
        let port = wait("chromedriver to listen", || {
            let said = fs::read_to_string(&log).unwrap();
            let (_, port) = said.split_once("successfully on port ")?;
            port.split_once('.')?.0.parse::<u16>().ok()
        });
        let profile = format!("--user-data-dir={}", directory.join("chromium").display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let session = json!({"capabilities": {"alwaysMatch": {
            "timeouts": {"script": PATIENCE.as_millis(), "pageLoad": PATIENCE.as_millis()},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
        }}});
        let server = format!("http://127.0.0.1:{port}/session");
        let begun = ask(&server, Some(&session))
            .unwrap_or_else(|error| panic!("{error}\n{}", fs::read_to_string(&log).unwrap_or_default()));
        browser.url = format!("{server}/{}", begun["sessionId"].as_str().unwrap());
        browser
    }

    /// Goes to a page, and waits until it is loaded.
    pub(crate) fn open(&self, url: &str) {
        self.command("url", Some(&json!({"url": url})));
    }

    /// What a function with this body returns.
    pub(crate) fn eval(&self, script: &str) -> Value {
        self.command("execute/sync", Some(&json!({"script": script, "args": []})))
    }

    /// The same of an async function: the script may `await`.
    pub(crate) fn eval_async(&self, script: &str) -> Value {
        self.eval(&format!("return (async () => {{ {script}\n}})()"))
    }

    /// Makes the page as large as on a screen of this size.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.command("goog/cdp/execute", Some(&command));
    }

    /// Writes a picture of the window, as PNG.
    pub(crate) fn screenshot(&self, file: &Path) {
        let picture = self.command("screenshot", None);
        fs::write(file, BASE64.decode(picture.as_str().unwrap().as_bytes()).unwrap()).unwrap();
    }

    fn command(&self, command: &str, body: Option<&Value>) -> Value {
        let what = body.map(Value::to_string).unwrap_or_default();
        ask(&format!("{}/{command}", self.url), body)
            .unwrap_or_else(|error| panic!("{command} {what}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.driver.id() as i32), Signal::SIGKILL);
        let _ = self.driver.wait();
    }
}

/// The value of chromedriver's answer, or its error.
fn ask(url: &str, body: Option<&Value>) -> Result<Value, String> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--max-time", &(2 * PATIENCE.as_secs()).to_string(), url]);
    if let Some(body) = body {
        curl.args(["-H", "Content-Type: application/json", "--data-binary", &body.to_string()]);
    }
    let output = curl.output().map_err(|error| error.to_string())?;
    let mut answer: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))?;
    let value = answer["value"].take();
    match value["error"].as_str() {
        Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
        None => Ok(value),
    }
}
