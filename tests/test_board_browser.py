"""Tests of the site in a browser: from server and disk, by mouse, keyboard and screen reader."""

import functools
import http.server
import shutil
import threading
import time

import boards
import pytest

from leaderboard import site as board
from leaderboard.site.report import report

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DRAWN = "document.querySelector('.exemplars .thumb')?.style.backgroundImage"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra 'dev')")
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    boards.whole(folder)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served():
    """Return a function that serves a folder and gives its address."""
    servers = []

    def serve(folder):
        handler = functools.partial(Quiet, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="module")
def address(place, served):
    return served(place / "site")


@pytest.fixture
def opened(chromium):
    """Return a function that opens a page; afterwards, nothing was logged, fetched or run."""
    contexts, heard, asked = [], [], []

    def open_page(url, viewport=DESK, scheme="light", before=lambda page: None):
        context = chromium.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: asked.append((url, request.url)))
        before(page)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.hacked") is None
        context.close()
    assert not heard
    for url, other in asked:
        origin = url.split("/", 3)[:3]
        assert other.startswith("data:") or other.split("/", 3)[:3] == origin, other


def until(page, condition, seconds=20):
    """Wait until an expression holds. Playwright's own way is eval, which pages forbid."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(25)


def counted(page, says):
    until(page, f"document.getElementById('count').textContent.includes({says!r})")


def names_of(page):
    return page.locator("#standings tbody tr:not([hidden]) th bdi").all_inner_texts()


def units_file(site):
    return next(site.glob("units/*.html")).name


@pytest.fixture
def browse(opened, address, place):
    def go(where="", **how):
        page = opened(f"{address}/units/{units_file(place / 'site')}{where}", **how)
        page.wait_for_selector("#list .unit")
        return page

    return go


def test_a_table_sorts_by_mouse_and_by_keyboard(opened, address, place):
    page = opened(f"{address}/tracks/{next((place / 'site' / 'tracks').iterdir()).name}")
    first = names_of(page)
    head = page.locator("#standings thead th")
    head.nth(2).locator("button").click()
    assert head.nth(2).get_attribute("aria-sort") == "descending"
    values = [float(v) for v in page.locator("#standings td:nth-of-type(2)").evaluate_all(
        "cells => cells.map(cell => cell.dataset.value)")]  # fmt: skip
    assert values == sorted(values, reverse=True)
    head.nth(2).locator("button").press("Enter")
    assert head.nth(2).get_attribute("aria-sort") == "ascending"
    assert head.nth(0).get_attribute("aria-sort") is None
    assert names_of(page) != first
    head.nth(0).locator("button").press("Space")
    assert names_of(page) == first


def test_a_table_is_filtered_by_name_and_kind_and_says_how_many_are_left(opened, address, place):
    page = opened(f"{address}/tracks/{next((place / 'site' / 'tracks').iterdir()).name}")
    total = len(names_of(page))
    page.get_by_label("Method", exact=True).fill("GOO")
    assert names_of(page) == ["good"]
    assert page.locator("[data-count]").inner_text() == f"1 of {total} rows"
    page.get_by_label("Method", exact=True).fill("")
    page.get_by_label("floors").uncheck()
    assert page.locator("#standings tbody tr.floor:visible").count() == 0
    assert 0 < len(names_of(page)) < total


def test_units_are_searched_filtered_and_ordered(browse):
    api = pytest.importorskip("playwright.sync_api")
    page = browse()
    assert page.locator("#count").inner_text() == "60 units"
    page.locator(".choose summary").click()
    for box in page.locator("#chosen input").all():
        box.check()  # answers that are not shown are searched too
    page.locator(".choose summary").click()
    page.get_by_role("searchbox", name="Search").fill("layer1/ red")
    counted(page, " of 60")
    found = page.locator("#list .unit").all_text_contents()  # those off the screen too
    assert found
    assert all("red" in text.lower() and "layer1/" in text for text in found)
    assert page.locator("#list mark").count() >= len(found)
    page.get_by_role("searchbox", name="Search").fill("no such words anywhere")
    counted(page, "0 of 60 units")
    page.get_by_role("searchbox", name="Search").fill("")
    page.locator("#layer").select_option("1")
    counted(page, "30 of 60 units")
    first = page.locator("#list .open").first
    api.expect(first).to_contain_text(boards.LAYER)  # once it is drawn
    page.locator("#order").select_option("disagree")
    page.wait_for_selector("#list .unit")
    shown = page.locator("#list .unit p.dim").all_text_contents()
    numbers = [float(text.split()[1]) for text in shown if "\u2013" not in text.split("·")[0]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) > 3


def test_a_unit_opens_by_keyboard_shows_its_images_and_gives_the_focus_back(browse):
    page = browse()
    first = page.locator("#list .open").first
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.locator("#unit-title").inner_text() == first.inner_text()
    assert page.locator("#unit .exemplars .thumb").count() == 15
    until(page, DRAWN)
    drawn = page.evaluate(
        """async () => {
             const address = document.querySelector(".exemplars .thumb").style.backgroundImage;
             const picture = new Image();
             picture.src = address.slice(5, -2);
             await picture.decode();
             return [picture.naturalWidth, picture.naturalHeight];
           }"""
    )
    assert drawn == [15 * 64, 10 * 64]
    assert page.locator("#unit .answers tbody tr").count() == 5
    assert "Simulated annotators" in page.locator("#unit-body").inner_text()
    page.keyboard.press("ArrowRight")
    second = page.locator("#list .open").nth(1).inner_text()
    until(page, f"document.getElementById('unit-title').textContent === {second!r}")
    assert page.locator("#unit-title").inner_text() == second
    assert f"unit={second.replace('/', '%2F')}" in page.url
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    assert page.evaluate("document.activeElement.className") == "open"
    assert "unit=" not in page.url


def test_an_address_shows_what_was_shown_to_whoever_sent_it(browse):
    page = browse("#order=disagree&unit=mini-sharp%2Flayer1%2F0")
    key = page.locator("#list .open").first.inner_text()
    page = browse(
        f"#order=agree&unit={key.replace('/', '%2F').replace('<', '%3C').replace('>', '%3E')}"
    )
    page.wait_for_selector("dialog[open]")
    assert page.locator("#unit-title").inner_text() == key
    assert page.locator("#order").input_value() == "agree"


def test_hostile_answers_are_text_in_the_list_and_in_a_unit(browse):
    page = browse()
    page.locator(".choose summary").click()
    page.locator("#chosen input").last.check()
    page.wait_for_selector("#list .unit")
    page.locator(".choose summary").click()
    page.get_by_role("searchbox", name="Search").fill("<script>")
    counted(page, " of 60")
    page.locator("#list .open").first.click()
    page.wait_for_selector("dialog[open]")
    said = page.locator("#unit-body").inner_text()
    assert "<script>window.hacked = true</script>" in said
    assert page.locator("#unit-body script, #unit-body img, #list img").count() == 0


def test_pages_of_hostile_records_show_and_run_nothing(opened, address, place):
    page = opened(f"{address}/")
    for path in sorted((place / "site").rglob("*.html")):
        page.goto(f"{address}/{path.relative_to(place / 'site')}")
        assert page.evaluate("window.hacked") is None
        assert page.title()
        assert page.locator("h1").count() == 1
        if path.parent.name == "methods" and "7 * 191" in page.content():
            text = page.locator("main").inner_text()
            assert "{{ 7 * 191 }}" in text
            assert '=HYPERLINK("http://elsewhere.invalid")' in text
            assert "⟨U+202E⟩" in text
            assert page.locator("a[href^=javascript]").count() == 0


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_no_serious_violation_and_no_horizontal_scroll(opened, address, place, viewport, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    site = place / "site"
    shown = [site / "index.html", *(next(site.glob(f"{d}/*.html"))
             for d in ("tracks", "methods", "units", "applications"))]  # fmt: skip
    page = opened(f"{address}/", viewport=viewport, scheme=scheme)
    for path in shown:
        page.goto(f"{address}/{path.relative_to(site)}")
        if path.parent.name == "units":
            page.wait_for_selector("#list .unit")
            page.locator("#list .open").first.click()
            page.wait_for_selector("dialog[open] .answers")
            check(axe, page, path)
            page.locator("#close").click()
        check(axe, page, path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= viewport["width"], path


def check(axe, page, path):
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert not [
        (path.name, each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def test_the_colours_are_the_readers_choice_and_stay_chosen(opened, address):
    page = opened(f"{address}/index.html", scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_a_folder_on_a_disk_works_as_a_server_does(opened, place):
    site = place / "site"
    page = opened(f"file://{site}/units/{units_file(site)}")
    page.wait_for_selector("#list .unit")
    page.locator("#list .open").first.click()
    until(page, DRAWN)
    page.locator("#close").click()
    page.get_by_role("searchbox", name="Search").fill("layer1/")
    counted(page, " of 60")


def test_a_report_is_one_file_with_images_scores_and_layers(opened, place, tmp_path):
    for kind in ("good", "hostile"):
        shutil.copy(place / "records" / kind / "predictions.csv", tmp_path / f"{kind}.csv")
    files = [f"{tmp_path}/good.csv", f"<b>odd={tmp_path}/hostile.csv"]
    report(place / "small", files, tmp_path / "report.html", settings=boards.FEW,
           cache=place / "cache")  # fmt: skip
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(tmp_path / "report.html", tmp_path / "alone" / "report.html")
    page = opened(f"file://{alone}")
    page.wait_for_selector("#list .unit")
    assert "<b>odd" in names_of(page)
    assert "good" in names_of(page)
    assert page.locator("#layers tbody tr").count() == 4
    page.locator("#list .open").first.click()
    until(page, f"{DRAWN}?.startsWith('url(\"data:image/jpeg')")
    assert page.locator("#unit .answers tbody tr").count() == 2


@pytest.mark.slow
def test_a_thousand_units_open_in_two_seconds_and_three_megabytes(
    opened, served, tmp_path, chromium
):
    import baselines
    from leaderboard.evaluation import predictions, references, scoring
    from leaderboard.evaluation.score_config import ScoreConfig

    units = baselines.open_units("mini", split=None)
    assert len(units) > 1000
    known = references.load("mini")
    for name in ("constant", "most-common", "random-description"):
        said = predictions.from_texts(
            known.units,
            [row.text or "" for row in baselines.run(
                baselines.get(name), units,
                baselines.Context(seed=0, training=baselines.open_training("mini")))],
        )  # fmt: skip
        score = scoring.score(said, known, boards.METRICS, method=f"{name}@1.0",
                              settings=ScoreConfig(draws=20))  # fmt: skip
        score.save(tmp_path / "records" / name)
    board.build(tmp_path / "site", [tmp_path / "records"], cache=tmp_path / "cache")
    address = served(tmp_path / "site")
    for path in ("index.html", f"units/{units_file(tmp_path / 'site')}"):
        sizes = []

        def weigh(page, sizes=sizes):
            page.on("response", lambda response: sizes.append(len(response.body())))

        begun = time.perf_counter()
        page = opened(f"{address}/{path}", before=weigh)  # nothing is cached yet
        page.wait_for_load_state("networkidle")
        took = time.perf_counter() - begun
        shown = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        total = sum(sizes)
        print(
            f"{path}: {total / 1e6:.2f} MB, first paint {shown / 1e3:.2f} s, at rest {took:.2f} s"
        )
        assert total < 3e6
        assert shown < 2000
