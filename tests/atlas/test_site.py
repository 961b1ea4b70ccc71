"""The site: in a real browser, and by its files."""

import json
import re
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_layer import CONSTANT, DEAD, ORIGINAL, TWIN, UNITS, clouds

from vislens_interp.atlas import Atlas, open_atlas
from vislens_interp.atlas.compare import write_comparisons
from vislens_interp.atlas.pictures import sheet, thumbnails
from vislens_interp.atlas.serve import site_server
from vislens_interp.atlas.site import describe, dose_chart, environment, sheet_columns
from vislens_interp.atlas.store import AtlasStore

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@contextmanager
def served(folder):
    """The address of a site, while it is served."""
    server, address = site_server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def address(store):
    with served(store.folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Debian's chromium without a window."""
    if not Path(CHROMIUM).is_file() or not Path(DRIVER).is_file():
        pytest.skip(f"{CHROMIUM} or {DRIVER} is not installed: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    driver.set_window_size(1280, 900)
    driver.implicitly_wait(20)
    yield driver
    driver.quit()


def opened(browser, address, page=""):
    """A page whose units are read."""
    browser.get("about:blank")
    browser.get(address + page)
    if "unit/" not in page:
        wait(browser, lambda: f" of {UNITS} units" in text(browser, "#count"))


def wait(browser, ready, seconds=30):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, 0.05).until(lambda _: ready())


def find(browser, selector):
    return browser.find_element("css selector", selector)


def text(browser, selector):
    return find(browser, selector).text


def cards(browser):
    """Units of the cards that are shown, in order."""
    script = "return [...document.querySelectorAll('#cards a')].map((a) => a.getAttribute('href'))"
    return [int(re.fullmatch(r"unit/(\d+)\.html", link)[1]) for link in browser.execute_script(script)]


def choose(browser, selector, value):
    """Take an option of a list, as the keyboard does."""
    from selenium.webdriver.common.keys import Keys

    box = find(browser, selector)
    values = [option.get_attribute("value") for option in box.find_elements("css selector", "option")]
    move = values.index(value) - values.index(box.get_attribute("value"))
    box.send_keys((Keys.ARROW_DOWN if move > 0 else Keys.ARROW_UP) * abs(move))
    wait(browser, lambda: box.get_attribute("value") == value)


def press(browser, key):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(key).perform()


def fault_lines(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.browser
def test_search_filters_and_order(browser, address, store):
    opened(browser, address)
    rows = {row["unit"]: row for row in store.table().to_pylist()}
    ranked = sorted(rows, key=lambda unit: (-round(rows[unit]["correlation"] or -9, 4), unit))
    assert cards(browser) == ranked
    search = find(browser, "#search")
    press(browser, "/")
    assert browser.switch_to.active_element == search
    search.send_keys("cloud KIND2")
    assert sorted(cards(browser)) == [unit for unit in rows if "kind2" in rows[unit]["words"]]
    assert float(find(browser, "body").get_attribute("data-search-ms")) < 100
    search.clear()
    search.send_keys("7")
    assert cards(browser) == [7]
    from selenium.webdriver.common.keys import Keys

    search.send_keys(Keys.ESCAPE)
    assert len(cards(browser)) == UNITS
    choose(browser, "#evidence", "silent")
    assert sorted(cards(browser)) == [DEAD, CONSTANT]
    choose(browser, "#evidence", "twin")
    assert cards(browser) == [TWIN]
    choose(browser, "#evidence", "all")
    choose(browser, "#order", "sparsity")
    sparse = [rows[unit]["sparsity"] for unit in cards(browser) if rows[unit]["sparsity"] is not None]
    assert sparse == sorted(sparse, reverse=True)
    browser.execute_script(
        "const s = document.getElementById('sparsity'); s.value = 50; s.dispatchEvent(new Event('input'))"
    )
    middle = (max(sparse) + min(sparse)) / 2
    assert len(cards(browser)) == sum(value >= middle - 1e-4 for value in sparse)
    assert "sparsity=50" in browser.current_url
    assert fault_lines(browser) == []


@pytest.mark.browser
def test_a_class_is_chosen_among_the_words(browser, address, store):
    opened(browser, address)
    words = {row["unit"]: row["words"] for row in store.table(["unit", "words"]).to_pylist()}
    options = [option.text for option in find(browser, "#class").find_elements("css selector", "option")]
    counts = {word: sum(word in held for held in words.values()) for held in words.values() for word in held}
    assert options == ["any", *(f"{word} ({counts[word]})" for word in sorted(counts))]
    choose(browser, "#class", "kind1")
    assert sorted(cards(browser)) == [unit for unit, held in words.items() if "kind1" in held]
    opened(browser, address, "#class=kind2&order=unit")
    assert cards(browser) == [unit for unit, held in words.items() if "kind2" in held]
    assert "class=kind2" in browser.current_url
    assert fault_lines(browser) == []


@pytest.fixture(scope="module")
def compared(store, network, backend, images, tmp_path_factory):
    """Two atlases beside one another: of the layer, and of what comes before its ReLU."""
    place = tmp_path_factory.mktemp("compared")
    shutil.copytree(store.folder, place / "layer one")
    linear = Atlas(network, "convolution", images, backend=backend).fit(inputs=0)
    linear.save(place / "linear", units=range(UNITS - 1))
    (place / "secret.txt").write_text("nobody's business")
    pages, pairs = write_comparisons(open_atlas(place / "layer one"), open_atlas(place / "linear"))
    return place, pages, pairs


@pytest.mark.browser
def test_two_layers_are_compared(browser, compared):
    place, _, pairs = compared
    shown = {row["unit"]: row["other"] for row in pairs}
    with served(place / "layer one") as address:
        assert address.endswith("/layer%20one/")
        opened(browser, address)
        assert text(browser, "#comparisons").startswith("Beside SmallLayer, layer convolution: ")
        find(browser, "#comparisons a").click()
        wait(browser, lambda: text(browser, "#count") == f"{len(pairs)} of {len(pairs)} units")
        rows = browser.find_elements("css selector", "#pairs > li")
        links = [[a.get_attribute("href") for a in row.find_elements("css selector", "a")] for row in rows]
        units = [[int(re.search(r"unit/(\d+)\.html", link)[1]) for link in row] for row in links]
        assert [row[0] for row in units] == [row["unit"] for row in pairs]
        assert all(row == [row[0], shown[row[0]]] for row in units if len(row) == 2)
        assert links[0][0].startswith(f"{address}unit/")
        assert "which has no page" in "".join(row.text for row in rows) or UNITS - 1 not in shown.values()
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        choose(browser, "#order", "unit")
        assert "order=unit" in browser.current_url
        find(browser, "#search").send_keys(str(ORIGINAL))
        wait(browser, lambda: len(browser.find_elements("css selector", "#pairs > li")) < len(pairs))
        find(browser, "#pairs li a:last-child").click()
        wait(browser, lambda: "/linear/unit/" in browser.current_url)
        press(browser, "i")
        wait(browser, lambda: browser.current_url.endswith("/linear/index.html"))
        find(browser, "#comparisons a").click()  # and back to the first
        wait(browser, lambda: " of " in text(browser, "#count"))
        find(browser, "#other").click()
        wait(browser, lambda: browser.current_url.endswith("/layer%20one/index.html"))
        assert fault_lines(browser) == []
        browser.get("about:blank")
    browser.get_log("browser")  # pictures that were still on their way when the server ended


def test_a_server_of_compared_atlases_serves_nothing_else(compared):
    place, _, _ = compared
    with served(place / "layer one") as address:
        root = address.removesuffix("layer%20one/")
        for page in ("linear/index.html", "layer%20one/index.html"):
            with urllib.request.urlopen(root + page) as answer:
                assert b"SmallLayer" in answer.read()
        for page in ("secret.txt", "", "linear/../secret.txt", "linear/%2e%2e/secret.txt"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(root + page)


def test_comparisons_link_what_is_there_and_outlive_a_later_run(compared, fitted):
    place, pages, pairs = compared
    assert pairs == open_atlas(place / "layer one").most_alike(open_atlas(place / "linear"))
    for page in [*pages, place / "layer one" / "index.html", place / "linear" / "index.html"]:
        for link in re.findall(r'(?:href|src)="([^"#]+)"', page.read_text(encoding="utf-8")):
            if not link.startswith("data:"):
                assert (page.parent / urllib.parse.unquote(link)).exists(), (page.name, link)
    index = place / "layer one" / "index.html"
    before = index.read_bytes()
    fitted.save(place / "layer one", shard=5)
    assert index.read_bytes() == before
    assert b"compare/linear-" in before


def test_comparisons_whose_names_have_signs_of_addresses_are_linked():
    words = dict.fromkeys(("title", "summary", "units", "reference", "backend", "fingerprint", "version"), "x")
    about = {**words, "dead": [], "duplicates": [], "driving": 0}
    text = environment().get_template("index.html").render(about=about, table="t", others={"a #1, 5%": "A"}, root="")
    (link,) = re.findall(r'href="(compare/[^"]+)"', text)
    assert urllib.parse.unquote(urllib.parse.urlsplit(link).path) == "compare/a #1, 5%.html"


def test_a_damaged_comparison_is_left_out(compared, tmp_path):
    place, pages, _ = compared
    folder = tmp_path / "copy"
    shutil.copytree(place / "layer one", folder)
    store = open_atlas(folder)
    assert list(store.comparisons()) == [pages[0].stem]
    path = folder / "compare" / f"{pages[0].stem}.json"
    whole = json.loads(path.read_text())
    for damage in ("{", json.dumps(whole | {"other": 3}), json.dumps(whole | {"other": "\0"}), "[]"):
        path.write_text(damage)
        assert store.comparisons() == {}
        with served(folder) as address:
            assert address.count("/") == 3
    path.write_text(json.dumps(whole))
    (folder / "compare" / f"{pages[0].stem}.html").unlink()
    assert store.comparisons() == {}


def test_atlases_that_cannot_be_compared_say_why(store, compared, fitted, network, backend, tmp_path):
    place, _, _ = compared
    with pytest.raises(ValueError, match=r"is the atlas itself; expected another one"):
        write_comparisons(store, store)
    bare = fitted.save(tmp_path / "bare", units=[DEAD], site=False)
    with pytest.raises(FileNotFoundError, match=r"an atlas without a site"):
        write_comparisons(open_atlas(place / "linear"), bare)
    others = Atlas(network, "layer", clouds(210, seed=8), backend=backend).fit(inputs=0).save(tmp_path / "others")
    with pytest.raises(ValueError, match=r"was made from other reference images than"):
        write_comparisons(open_atlas(place / "linear"), others)


@pytest.mark.browser
def test_an_address_keeps_the_search(browser, address):
    opened(browser, address, "#search=kind1&order=unit")
    found = cards(browser)
    assert found == sorted(found)
    assert 0 < len(found) < UNITS
    assert find(browser, "#search").get_attribute("value") == "kind1"


@pytest.mark.browser
def test_from_a_unit_to_its_neighbour_and_back(browser, address):
    opened(browser, address, "#search=11")
    find(browser, "#cards a").click()
    wait(browser, lambda: browser.current_url.endswith(f"unit/{TWIN}.html"))
    assert text(browser, "h1") == f"Unit {TWIN}"
    assert f"A duplicate of unit {ORIGINAL}" in text(browser, ".verdict")
    boxes = browser.find_elements("css selector", ".edits .cell")
    assert len(boxes) == 6
    loaded = "return getComputedStyle(document.querySelector('.strip .cell')).backgroundImage"
    assert f"sheets/{TWIN}.webp" in browser.execute_script(loaded)
    find(browser, ".cards a").click()
    wait(browser, lambda: browser.current_url.endswith(f"unit/{ORIGINAL}.html"))
    from selenium.webdriver.common.keys import Keys

    press(browser, Keys.ARROW_RIGHT)
    wait(browser, lambda: browser.current_url.endswith(f"unit/{ORIGINAL + 1}.html"))
    press(browser, Keys.ARROW_LEFT)
    wait(browser, lambda: browser.current_url.endswith(f"unit/{ORIGINAL}.html"))
    press(browser, "i")
    wait(browser, lambda: browser.current_url.endswith("/index.html"))
    assert fault_lines(browser) == []


@pytest.mark.browser
def test_the_map_shows_and_opens_units(browser, address):
    opened(browser, address)
    press(browser, "m")
    assert find(browser, "#map").is_displayed()
    assert not find(browser, "#cards").is_displayed()
    painted = """
      const c = document.getElementById("map"); const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n"""
    wait(browser, lambda: browser.execute_script(painted) > 200)
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.getElementById('map').focus()")
    press(browser, Keys.ARROW_RIGHT)
    shown = re.search(r"[●○] (\d+): r", text(browser, "#map-label"))
    press(browser, Keys.ENTER)
    wait(browser, lambda: browser.current_url.endswith(f"unit/{shown[1]}.html"))
    assert fault_lines(browser) == []


@pytest.mark.browser
def test_nothing_overflows_on_a_phone_and_the_dark_is_dark(browser, address):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        for page in ("", f"unit/{ORIGINAL}.html"):
            opened(browser, address, page)
            width = browser.execute_script("return document.documentElement.scrollWidth")
            assert width <= 390, page
            colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert colour == "rgb(21, 23, 26)"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.browser
def test_a_unit_s_page_needs_no_server_and_the_index_says_that_it_does(browser, store):
    browser.get(f"file://{store.folder}/unit/{ORIGINAL}.html")
    assert text(browser, "h1") == f"Unit {ORIGINAL}"
    browser.get(f"file://{store.folder}/index.html")
    assert "vislens atlas serve" in text(browser, "#offline")
    browser.get_log("browser")  # it says that modules are not read from files


def test_every_link_of_every_page_is_there(store):
    pages = [store.folder / "index.html", *sorted((store.folder / "unit").glob("*.html"))]
    assert len(pages) == UNITS + 1
    for page in pages:
        for link in re.findall(r"""(?:href|src)="([^"#]+)"|url\('([^']+)'\)""", page.read_text(encoding="utf-8")):
            name = "".join(link)
            if not name.startswith("data:"):
                assert (page.parent / name).exists(), (page.name, name)


def test_nothing_comes_from_elsewhere(store):
    for path in [*store.folder.rglob("*.html"), *store.folder.rglob("*.js"), *store.folder.rglob("*.css")]:
        assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path


def test_text_is_escaped():
    page = environment().from_string("{{ word }}").render(word="<script>alert(1)</script>")
    assert page == "&lt;script&gt;alert(1)&lt;/script&gt;"


def test_a_chart_has_its_points_where_they_belong():
    chart = dose_chart({"doses": [-1.0, 0.0, 1.0], "dose_response": [-2.0, 0.0, 4.0]})
    assert chart["line"] == "25.0,94.0 150.0,70.0 275.0,22.0"
    assert dose_chart({"doses": None, "dose_response": None}) is None


def test_pages_say_what_is_so(store):
    """What a layer is pooled over, and what the counts are counts of."""
    index, unit = ((store.folder / name).read_text() for name in ("index.html", "unit/0.html"))
    assert "over all units of the layer that vary" in index  # two of the twelve do not
    assert re.search(rf"Dead, constant or not finite: <a [^>]*>{DEAD}</a> <a [^>]*>{CONSTANT}</a>", index)
    assert ", mean over the map</p>" in unit
    rows = store.table().to_pylist()
    for target, said in (
        ({"layout": "NC", "shape": [12]}, ""),
        ({"pool": "cls", "layout": "NTC", "shape": [5, 8]}, "cls"),
    ):
        fit = {**store.manifest["fit"], "target": {**store.manifest["fit"]["target"], **target}}
        assert describe(AtlasStore(store.folder, {**store.manifest, "fit": fit}), rows)["pool"] == said


def test_sheets_are_cut_by_their_own_width(store, tmp_path):
    """Where the pictures of all units failed, no row says how many inputs made the sheets wider than the top images."""
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "3.webp").write_bytes(sheet([thumbnails(clouds(4))], 6))
    failed = {"sheet": "sheets/3.webp", "inputs": None, "increase": None}
    assert sheet_columns(tmp_path, [{"sheet": None}, failed]) == 6
    assert sheet_columns(store.folder, store.table().to_pylist()) == 4
    assert sheet_columns(tmp_path, [{"sheet": None}]) == 1


def test_pages_and_cards_show_prototypes(network, backend, images, store, tmp_path):
    made = Atlas(network, "layer", images, backend=backend).fit(inputs=6).save(tmp_path / "six", units=[0])
    (row,) = made.table().to_pylist()
    page = (made.folder / "unit" / "0.html").read_text()
    assert '<th scope="colgroup" colspan="3">drive the unit</th><th scope="colgroup" colspan="3">do not</th>' in page
    responses = [*row["input_responses"], *row["top_responses"]]
    assert re.findall(r"<p>([+−][\d.]+) SD</p>", page) == [f"{one:+.2f}".replace("-", "−") for one in responses]
    ((*_, line, shown),) = json.loads((made.folder / "site" / "units-000000.json").read_text())
    assert (line, shown) == (1, row["inputs"][:3])
    shared = Atlas(network, "layer", images, backend=backend).fit(inputs=clouds(3, seed=9))
    page = shared.save(tmp_path / "shared", units=[0]).folder / "unit" / "0.html"
    assert "colgroup" not in page.read_text()
    ((*_, line, shown), *_) = json.loads(
        (store.folder / "site" / "units-000000.json").read_text()
    )  # one that drives it
    assert (line, shown) == (0, store.table().to_pylist()[0]["top_images"][:3])


def test_the_index_s_files_hold_every_unit(store):
    about = json.loads((store.folder / "site" / "index.json").read_text())
    entries = [entry for name in about["parts"] for entry in json.loads((store.folder / "site" / name).read_text())]
    assert [entry[0] for entry in entries] == list(range(UNITS))
    assert about["columns"] == 4


def test_the_server_is_for_this_machine_and_says_what_is_missing(store, fitted, tmp_path):
    with served(store.folder) as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address + "site/index.js") as answer:
            assert answer.headers["Content-Type"].startswith("text/javascript")
        port = int(address.split(":")[2].strip("/"))
        with pytest.raises(OSError, match=rf"port={port} cannot be used"):
            site_server(store.folder, port)
    bare: AtlasStore = fitted.save(tmp_path / "bare", units=[DEAD], site=False)
    with pytest.raises(FileNotFoundError, match=r"an atlas without a site; write it: vislens atlas"):
        site_server(bare.folder)
