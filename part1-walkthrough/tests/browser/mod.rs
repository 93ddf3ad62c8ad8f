//! A headless browser on a page that a test wrote, or that a server serves.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headless_chrome::browser::default_executable;
use headless_chrome::browser::tab::Tab;
use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Emulation, Network};
use headless_chrome::{Browser, LaunchOptions};
use serde::de::DeserializeOwned;
use shared::testing::skip::skipped;
use tempfile::TempDir;

/// An open page. The browser ends with it.
pub(crate) struct Page {
    tab: Arc<Tab>,
    complaints: Arc<Mutex<Vec<String>>>,
    browser: Browser,
    _place: Option<TempDir>,
}

/// Opens the file that `write` writes.
///
/// `None` where there is no browser: then the test is [`skipped`].
pub(crate) fn page(write: impl FnOnce(&Path)) -> Option<Page> {
    let browser = launch()?;
    let place = TempDir::new().unwrap();
    let file = place.path().join("page.html");
    write(&file);
    let url = format!("file://{}", file.display());
    Some(open(browser, &url, Some(place)))
}

/// Opens what a server serves at an address. To ask anybody else is a complaint.
#[allow(dead_code)] // part 6's page has a server
pub(crate) fn browse(url: &str) -> Option<Page> {
    Some(open(launch()?, url, None))
}

fn launch() -> Option<Browser> {
    let Ok(program) = default_executable() else {
        skipped("no Chrome or Chromium is there: install one, or name it in CHROME");
        return None;
    };
    let options = LaunchOptions::default_builder()
        .path(Some(program))
        // The page is our own, and the sandbox needs rights that a container does not give.
        .sandbox(false)
        .window_size(Some((1280, 900)))
        .idle_browser_timeout(Duration::from_secs(120))
        // A container's shared memory is too small for it.
        .args(vec![OsStr::new("--disable-dev-shm-usage")])
        .build()
        .unwrap();
    Some(Browser::new(options).unwrap())
}

fn open(browser: Browser, url: &str, place: Option<TempDir>) -> Page {
    let tab = browser.new_tab().unwrap();
    tab.set_default_timeout(Duration::from_secs(60));
    let complaints = listen(&tab, url.to_owned());
    let page = Page {
        tab,
        complaints,
        browser,
        _place: place,
    };
    page.tab.navigate_to(url).unwrap();
    page.wait_until_ready();
    page
}

/// What the page must not do: complain on the console, throw, ask for anything but itself.
fn listen(tab: &Tab, own: String) -> Arc<Mutex<Vec<String>>> {
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&complaints);
    tab.enable_runtime().unwrap();
    tab.enable_log().unwrap();
    tab.call_method(Network::Enable {
        max_total_buffer_size: None,
        max_resource_buffer_size: None,
        max_post_data_size: None,
        report_direct_socket_traffic: None,
        enable_durable_messages: None,
    })
    .unwrap();
    tab.add_event_listener(Arc::new(move |event: &Event| {
        let complaint = match event {
            Event::RuntimeConsoleAPICalled(event) => format!("console: {:?}", event.params.args),
            Event::RuntimeExceptionThrown(event) => {
                format!("thrown: {:?}", event.params.exception_details)
            }
            Event::LogEntryAdded(event) => format!("log: {:?}", event.params.entry.text),
            Event::NetworkRequestWillBeSent(event) => {
                let url = &event.params.request.url;
                if url.starts_with("data:") || url.starts_with(&own) {
                    return;
                }
                format!("request: {url}")
            }
            _ => return,
        };
        heard.lock().unwrap().push(complaint);
    }))
    .unwrap();
    complaints
}

impl Page {
    fn wait_until_ready(&self) {
        let ready = self.tab.wait_for_element("html[data-ready]");
        ready.unwrap_or_else(|error| {
            let complaints = self.complaints();
            panic!("the page's script did not end: {error}, {complaints:?}");
        });
    }

    /// Another window of the same browser.
    #[allow(dead_code)] // part 6's page has a server
    pub(crate) fn another(&self, url: &str) -> Self {
        open(self.browser.clone(), url, None)
    }

    /// Loads the page again.
    #[allow(dead_code)] // part 6's page has a server
    pub(crate) fn reload(&self) {
        self.act("document.documentElement.removeAttribute('data-ready')");
        self.tab.reload(false, None).unwrap();
        self.wait_until_ready();
    }

    /// Waits until an expression is true.
    #[allow(dead_code)] // part 6's page has a server
    pub(crate) fn wait_for(&self, expression: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.json::<bool>(&format!("Boolean({expression})")) {
            assert!(
                Instant::now() < end,
                "{expression} does not come, {:?}",
                self.complaints()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types a text where the focus is.
    #[allow(dead_code)] // part 6's page has a server
    pub(crate) fn type_text(&self, text: &str) {
        self.tab.type_str(text).unwrap();
    }

    /// The value that a promise brings.
    #[allow(dead_code)] // part 6's page has a server
    pub(crate) fn promised<T: DeserializeOwned>(&self, promise: &str) -> T {
        let result = self.tab.evaluate(promise, true).unwrap();
        let value = result.value.unwrap_or(serde_json::Value::Null);
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{promise}: {error}"))
    }

    /// Console messages, exceptions and requests so far.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// The value of an expression.
    pub(crate) fn json<T: DeserializeOwned>(&self, expression: &str) -> T {
        let text = self.string(&format!("JSON.stringify({expression})"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{expression}: {error} in {text}"))
    }

    pub(crate) fn number(&self, expression: &str) -> f64 {
        self.json(expression)
    }

    pub(crate) fn string(&self, expression: &str) -> String {
        let result = self.tab.evaluate(expression, false).unwrap();
        let value = result
            .value
            .unwrap_or_else(|| panic!("{expression}: {:?}", result.description));
        value
            .as_str()
            .unwrap_or_else(|| panic!("{expression} is {value}"))
            .to_owned()
    }

    pub(crate) fn act(&self, statement: &str) {
        self.string(&format!("{statement}; ''"));
    }

    pub(crate) fn text(&self, selector: &str) -> String {
        self.string(&format!("document.querySelector({selector:?}).textContent"))
    }

    /// As a mouse does.
    pub(crate) fn click(&self, selector: &str) {
        self.tab.find_element(selector).unwrap().click().unwrap();
    }

    pub(crate) fn focus(&self, selector: &str) {
        self.act(&format!("document.querySelector({selector:?}).focus()"));
    }

    /// Something of the element that has the focus.
    pub(crate) fn focused(&self, what: &str) -> String {
        self.string(&format!("document.activeElement.{what}"))
    }

    /// A key on the keyboard.
    pub(crate) fn press(&self, key: &str) {
        self.tab.press_key(key).unwrap();
    }

    /// Puts a slider somewhere.
    pub(crate) fn slide(&self, id: &str, value: f64) {
        self.act(&format!(
            "{{ const slider = document.getElementById({id:?}); slider.value = {value:.6}; \
             slider.dispatchEvent(new Event('input')); }}"
        ));
    }

    /// Chooses from a list.
    pub(crate) fn choose(&self, id: &str, value: usize) {
        self.act(&format!(
            "{{ const list = document.getElementById({id:?}); list.value = {value}; \
             list.dispatchEvent(new Event('change')); }}"
        ));
    }

    /// What the system's settings say: `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let feature = Emulation::MediaFeature {
            name: "prefers-color-scheme".to_owned(),
            value: scheme.to_owned(),
        };
        let media = Emulation::SetEmulatedMedia {
            media: None,
            features: Some(vec![feature]),
        };
        self.tab.call_method(media).unwrap();
        self.settle();
    }

    /// A phone of this width, in CSS pixels.
    pub(crate) fn phone(&self, width: u32) {
        let metrics = Emulation::SetDeviceMetricsOverride {
            width,
            height: 740,
            device_scale_factor: 2.0,
            mobile: true,
            scale: None,
            screen_width: None,
            screen_height: None,
            position_x: None,
            position_y: None,
            dont_set_visible_size: None,
            screen_orientation: None,
            viewport: None,
            display_feature: None,
            device_posture: None,
        };
        self.tab.call_method(metrics).unwrap();
        self.settle();
    }

    /// Two frames: the first draws what has changed, the charts that watch their size follow it.
    fn settle(&self) {
        let frames =
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";
        self.tab.evaluate(frames, true).unwrap();
    }
}
