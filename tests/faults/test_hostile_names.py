"""Names in every field, and pages in a real browser; hundreds behind ``slow``."""

import sys

import browser
import hostile
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of files are any bytes on Linux")


def test_names_of_every_kind():
    names = list(hostile.names_of(5, seed=1))
    assert {kind for kind, _ in names} == set(hostile.KINDS)
    for one in hostile.try_group([name for _, name in names], None):
        assert "failure" not in one


@pytest.fixture(scope="module")
def chromium():
    with browser.browser() as found:
        yield found


@pytest.mark.browser
@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_the_browser_sees_what_a_page_does(chromium):
    head = f'<!doctype html><meta http-equiv=Content-Security-Policy content="{browser.POLICY}"><title>x</title>'
    seen = chromium.look(f"{head}<p onclick=x>a<img src=/hit><script>document.title = fetch('/more')</script>")
    assert {"img", "script"} <= seen["tags"]
    assert seen["handlers"] == ["onclick"]
    assert any(one.startswith("GET /hit") for one in seen["asked"])
    assert any("csp-report" in one and "script" in one for one in seen["asked"])
    assert chromium.look(f"{head}<meta http-equiv=refresh content='0;url=/hit'>")["led"].endswith("/hit")
    quiet = chromium.look(f"{head}<p>&lt;script&gt;")
    assert (quiet["asked"], quiet["handlers"], quiet["alert"], quiet["led"]) == ([], [], "", "")


@pytest.mark.browser
@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
@pytest.mark.parametrize("payload", hostile.PAYLOADS[:2])
def test_pages_of_hostile_names_do_nothing(chromium, payload):
    hostile.check_pages(hostile.pages_of([f"\"'></title></style></svg>{payload}"]), chromium)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_many_names(chromium):
    names = [name for _, name in hostile.names_of(300, seed=2)]
    for start in range(0, len(names), hostile.TOGETHER):
        group = names[start : start + hostile.TOGETHER]
        assert not any("failure" in one for one in hostile.try_group(group, chromium)), group
