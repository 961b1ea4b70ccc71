"""Pages in Debian's chromium, served beside a listener for whatever they try to load and every broken policy."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
TAGS = "return [...new Set([...document.querySelectorAll('*')].map(one => one.tagName.toLowerCase()))].sort()"
HANDLERS = (
    "return [...document.querySelectorAll('*')].flatMap(one => [...one.attributes])"
    ".filter(one => one.name.startsWith('on') || /^\\s*javascript:/i.test(one.value)).map(one => one.name)"
)


def missing() -> str:
    """Why no browser can be driven here; empty where one can."""
    for path in (CHROMIUM, DRIVER):
        if not path.exists():
            return f"{path} is not there: apt install chromium chromium-driver"
    return ""


class Seen(ThreadingHTTPServer):
    """Serves one page at /page without a policy of its own but with a report of one; notes all other requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.page, self.asked = "", []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/page"


class Handler(BaseHTTPRequestHandler):
    server: Seen

    def do_GET(self) -> None:
        if self.path.startswith("/page"):
            # What the page itself forbids is taken away: nothing but its escaping is tried.
            content = self.server.page.replace(f'content="{POLICY}"', 'content=""').encode("utf-8", "surrogatepass")
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy-Report-Only", f"{POLICY}; report-uri /report")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        if self.path != "/favicon.ico":
            self.server.asked.append(f"GET {self.path}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        report = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        if "/favicon.ico" not in report:  # which the browser asks for by itself
            self.server.asked.append(f"{self.path} {report}")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


class Browser:
    """What a page does in a browser."""

    def __init__(self, driver: Any, server: Seen) -> None:
        self.driver, self.server = driver, server

    def look(self, page: str) -> dict[str, Any]:
        """Its tags, its handlers, what it asked for or broke, an alert, and where it led."""
        from selenium.common.exceptions import UnexpectedAlertPresentException

        self.server.page, self.server.asked = page, []
        alert = ""
        self.driver.get(self.server.address)
        try:
            tags, handlers = self.driver.execute_script(TAGS), self.driver.execute_script(HANDLERS)
        except UnexpectedAlertPresentException as error:
            alert, tags, handlers = str(error), [], []
        # A second visit: a report is sent beside the page, and what was asked for before has come by then.
        self.driver.execute_async_script("setTimeout(arguments[arguments.length - 1], 30)")
        where = self.driver.current_url
        return {
            "tags": set(tags),
            "handlers": handlers,
            "asked": list(self.server.asked),
            "alert": alert,
            "led": "" if where == self.server.address else where,
        }


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh chromium with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for one in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(one)
    server = Seen()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield Browser(driver, server)
    finally:
        driver.quit()
        server.shutdown()
        server.server_close()
        shutil.rmtree(profile, ignore_errors=True)
