"""Tests of the site: built from records only, deterministic, and without running texts."""

import io
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import boards
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leaderboard import site as board
from leaderboard.cli import main
from leaderboard.evaluation import predictions
from leaderboard.ranking import tracks
from leaderboard.ranking.tracks import Track
from leaderboard.site import builder, load_records, thumbnails, unit_browser
from leaderboard.site.safe_text import safe_link, script_json, slug, visible_text
from leaderboard.site.unit_browser import MethodDescriptions
from milannotations import InputError
from milannotations.schema import Unit


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    boards.whole(folder)
    return folder


@pytest.fixture(scope="module")
def site(place):
    return place / "site"


def pages(site):
    return sorted(site.rglob("*.html"))


def read(site, pattern):
    (path,) = site.glob(pattern)
    return path.read_text(encoding="utf-8")


def table_rows(page):
    """Return (kind, rank, name, retrieval, lift) of each row of a track's table."""
    rows = re.findall(r'<tr role="row" class="(\w+)".*?</tr>', page, flags=re.DOTALL)
    found = re.findall(
        r'<tr role="row" class="\w+".*?data-label="Rank"[^>]*>([^<]*)<.*?<bdi>(.*?)</bdi>.*?'
        r'class="number">([^<]*)<.*?class="number">([^<]*)<',
        page,
        flags=re.DOTALL,
    )
    return [(kind, *row) for kind, row in zip(rows, found, strict=True)]


class Tags(HTMLParser):
    """Tags, attributes and links that a browser's parser would see."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]


def test_every_page_is_there_and_every_link_leads_somewhere(site):
    assert {path.relative_to(site).parts[0] for path in pages(site)} == {
        "index.html", "tracks", "methods", "units", "applications",
    }  # fmt: skip
    for path in pages(site):
        page = path.read_text(encoding="utf-8")
        ids = set(re.findall(r'id="([^"]+)"', page))
        for _, name, value in Tags(page).attributes:
            if name not in ("href", "src") or value.startswith(("https://", "#")):
                continue
            target, _, part = value.partition("#")
            aim = (path.parent / target).resolve()
            assert aim.is_file(), f"{path}: {value}"
            if part:
                assert f'id="{part}"' in aim.read_text(encoding="utf-8"), f"{path}: {value}"
        assert "main" in ids


def test_floors_and_human_are_shown_with_the_score_and_a_constant_has_no_lift(site):
    rows = table_rows(read(site, "tracks/*.html"))
    assert [row[2] for row in rows if row[0] == "method"][:3] == ["good", "half", "none"]
    ranks = [row[1] for row in rows if row[0] == "method"]
    assert ranks[0].startswith("1")
    assert {row[0] for row in rows} == {"method", "floor", "human"}
    constants = [row for row in rows if row[0] == "floor"]
    assert constants
    assert all(row[1] == "\u2013" and row[4] == "0" for row in constants)
    assert [row[2] for row in rows if row[0] == "human"] == ["simulated annotator"]


def test_synthetic_results_have_a_section_of_their_own(site):
    index = read(site, "index.html")
    real, synthetic = index.split('id="real"')[1].split('id="synthetic"')
    assert "tracks/" not in real
    assert "no record of a real network" in real
    assert "tracks/" in synthetic
    assert "no human wrote any of the descriptions" in synthetic
    for pattern in ("tracks/*.html", "units/*.html", "applications/*.html"):
        assert "Synthetic." in read(site, pattern)


def test_third_party_text_is_no_markup(site):
    ours = {"index.html": 1, "tracks": 2, "methods": 1, "units": 3, "applications": 2}
    for path in pages(site):
        parsed = Tags(path.read_text(encoding="utf-8"))
        assert parsed.tags.count("script") == ours[path.relative_to(site).parts[0]], path
        assert not {tag for tag in parsed.tags if tag in ("iframe", "object", "embed", "style")}
        for tag, name, value in parsed.attributes:
            assert not name.startswith("on"), (path, tag, name)
            assert not re.match(r"\s*(javascript|data|vbscript):", value, re.IGNORECASE), value
            if name in ("src", "href"):
                assert value.startswith(("https://", "#", "../", "assets/")) or ":" not in value
    assert not [path for path in pages(site) if "<b>" in path.read_text(encoding="utf-8")]


def test_no_invisible_character_reaches_a_page(site):
    hidden = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
    for path in [*pages(site), *site.rglob("*.js")]:
        assert not hidden.search(path.read_text(encoding="utf-8")), path
    assert "⟨U+202E⟩derorrim" in read(site, "tracks/*.html")
    assert "⟨U+200B⟩" in read(site, "units/*/part-0.js")


def test_data_in_scripts_cannot_close_them(site):
    for path in site.glob("units/*/*.js"):
        assert "<" not in path.read_text(encoding="utf-8"), path
    part = read(site, "units/*/part-0.js")
    data = json.loads(re.fullmatch(r"milanPart\(0,(.*)\);\n", part, re.DOTALL)[1])
    assert visible_text(boards.HOSTILE[0]) in data["texts"]


def test_a_method_has_a_page_with_what_it_is_how_to_run_it_and_slices(site):
    page = read(site, "methods/good-1.0.html")
    assert "what good does" in page
    assert "milan describe small --method good" in page
    assert "mini-sharp/layer1" in page
    assert "mini-sharp/x&lt;b&gt;y" in page
    assert page.count('class="bar"') >= 4
    assert "accuracy gained" not in page.split("Applications of its descriptions")[0]
    assert "Applications of its descriptions" in page


def test_downloads_hold_every_record_and_every_estimate(site, place):
    whole = json.loads(read(site, "downloads/board.json"))
    written = [json.loads(p.read_text()) for p in (place / "records").rglob("record.json")]
    assert {r["id"] for r in (*whole["records"], *whole["applications"])} == {
        r["id"] for r in written
    }
    table = pd.read_parquet(site / "downloads" / "board.parquet")
    assert set(table.system) == {
        "method", "constant", "most-common-of-layer", "shuffled", "one-person"
    }  # fmt: skip
    good = next(r for r in written if r["method"] == "good" and r["kind"] == "agreement")
    own = table[(table.method == "good") & (table.system == "method") & (table.slice == "")]
    for name in boards.METRICS:
        assert own.set_index("metric")["mean"][name] == good["scores"][name]["mean"]


def test_two_builds_are_the_same_to_the_byte(site, place):
    board.build(
        place / "again", [place / "records"], editions=[place / "small"], cache=place / "fresh"
    )
    one, other = (
        {p.relative_to(at): p.read_bytes() for p in at.rglob("*") if p.is_file()}
        for at in (site, place / "again")
    )
    assert one == other
    assert len(one) > 20


def test_thumbnails_are_drawn_once_and_hold_the_images(place, site, monkeypatch):
    made = thumbnails.make_sheets(place / "small", "small", cache=place / "cache")
    assert made.count == 6
    assert set(made.image_counts.values()) == {15}
    monkeypatch.setattr(thumbnails, "_write_sheets", None)  # what is in the cache is not made again
    assert thumbnails.make_sheets(place / "small", "small", cache=place / "cache") == made
    copied = list(site.glob("sprites/*/*.jpg"))
    assert len(copied) == 6
    with Image.open(made.path(0)) as sheet:
        assert sheet.size == (15 * made.side, 10 * made.side)
        assert np.asarray(sheet.convert("RGB")).std() > 10


def test_other_images_give_other_sheets(place, tmp_path):
    boards.small_edition(tmp_path / "small")
    same = thumbnails.make_sheets(tmp_path / "small", "small", cache=place / "cache")
    assert (
        same.digest
        == thumbnails.make_sheets(place / "small", "small", cache=place / "cache").digest
    )
    path = next((tmp_path / "small" / "small").glob("*.parquet"))
    table = pd.read_parquet(path)
    import pyarrow.parquet as parquet

    rows = parquet.read_table(path)
    parquet.write_table(rows.slice(0, len(table) - 1), path)
    assert thumbnails.make_sheets(tmp_path / "small", "small", cache=tmp_path).digest != same.digest


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "JPEG"])
def test_images_that_are_small_already_are_decoded_before_threads_share_them(kind):
    """Pillow decodes on first use, and two threads at once fail."""
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, kind)
    image, size = thumbnails._ShrunkImages().get(stream.getvalue(), 64)
    assert size == image.size == (32, 32)
    with ThreadPoolExecutor(4) as pool:
        pixels = list(pool.map(image.getpixel, [(0, 0)] * 50))
    assert len(set(pixels)) == 1
    assert pixels[0][0] > 250


def test_without_its_edition_a_page_shows_descriptions_only(place, tmp_path):
    board.build(tmp_path / "site", [place / "records" / "good"], cache=place / "cache")
    assert "is not available" in read(tmp_path / "site", "units/*.html")
    index = read(tmp_path / "site", "units/*/index.js")
    assert '"sheet":null' in index
    assert not (tmp_path / "site" / "sprites").exists()
    part = read(tmp_path / "site", "units/*/part-0.js")
    assert '"annotations":[[],' in part


def test_old_versions_of_a_track_are_frozen(place, tmp_path, monkeypatch):
    first = Track(
        name="made-up", version=1, title="Made up", edition="small", config="small", split="test",
        condition="", task="agreement", metrics=boards.METRICS, ranked_by="retrieval-tfidf-auc",
        ties_by="rouge-l", synthetic=True, n_units=60, units_digest="",
    )  # fmt: skip
    monkeypatch.setattr(tracks, "all_tracks", lambda: (first, replace(first, version=2)))
    found = tmp_path / "records"
    for version, kind in ((1, "poor"), (2, "good")):
        boards.records(place / "small", found / str(version), kinds=(kind,))
        path = found / str(version) / kind / "record.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "track": f"made-up@{version}"}))
    board.build(tmp_path / "site", [found], editions=[place / "small"], cache=place / "cache")
    index = read(tmp_path / "site", "index.html")
    newest, frozen = index.split("Earlier versions")
    assert "made-up-v2.html" in newest
    assert "made-up-v1.html" not in newest
    assert "made-up-v1.html" in frozen
    old, new = (read(tmp_path / "site", f"tracks/made-up-v{v}.html") for v in (1, 2))
    assert "Frozen." in old
    assert 'href="made-up-v2.html"' in old
    assert "Frozen." not in new
    assert [row[2] for row in table_rows(old) if row[0] == "method"] == ["poor"]
    assert [row[2] for row in table_rows(new) if row[0] == "method"] == ["good"]


def test_disagreement_is_the_mean_over_pairs():
    at = [Unit("n", "conv1", i) for i in range(3)]
    texts = {
        "a": ["red dots", "red dots", "red dots"],
        "b": ["red dots", "green stripes", ""],
        "c": ["red dots", "red dots", ""],
    }
    said = [
        MethodDescriptions(name, "method", None, predictions.from_texts(at, each))
        for name, each in texts.items()
    ]
    made = unit_browser.MethodAgreement(said, at).disagreement()
    assert made[0] == pytest.approx(0)
    assert made[1] == pytest.approx(2 / 3)  # of three pairs one agrees
    assert np.isnan(made[2])  # one answer: there is nothing to disagree with
    floor = MethodDescriptions("f", "floor", None, predictions.from_texts(at, ["blue"] * 3))
    assert unit_browser.MethodAgreement([*said, floor], at).disagreement()[0] == pytest.approx(0)


@pytest.mark.parametrize("text", [*boards.HOSTILE, "\x00\x1b[31m", "\u3164\u2800", "a\nb"])
def test_shown_texts_have_nothing_hidden_and_scripts_read_them_back(text):
    made = visible_text(text)
    assert not re.search("[\x00-\x1f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\u3164]", made)
    assert json.loads(script_json({"a": made}))["a"] == made
    assert not set("<>&") & set(script_json({"a": text}))


def test_names_of_files_are_plain_and_differ():
    names = ["a", "A", "a/b", "a-b", "../a", "con", "x" * 300, "", "é", "\u202e", "a b", "a.b"]
    made = [slug(name) for name in names]
    assert len(set(made)) == len(made)
    for each in made:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", each)
        assert ".." not in each
        assert len(each) < 80


def test_only_addresses_of_the_web_are_links():
    for good in ("https://arxiv.org/abs/2201.11114", "http://example.org/a?b=c"):
        assert safe_link(good) == good
    for bad in ("javascript:alert(1)", "data:text/html,x", "//x.y", "https://", "http://a@b.c/",
                "https://a b", "ftp://a.b", "https://пример.рф", "\u202ehttps://a.b"):  # fmt: skip
        assert safe_link(bad) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nothing", "No record under"),
        ("changed", "its sha256 differs"),
        ("twice", "hold the same record"),
        ("elsewhere", "which is not in the folder"),
        ("unknown", "No track 'no-such"),
    ],
)
def test_records_that_cannot_be_trusted_are_refused(place, tmp_path, given, says):
    found = tmp_path / "records"
    found.mkdir()
    for name in {"nothing": [], "twice": ["a", "b"]}.get(given, ["a"]):
        target = found / name
        target.mkdir()
        for path in (place / "records" / "good").iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    record = found / "a" / "record.json"
    if given == "changed":
        with open(found / "a" / "predictions.csv", "a") as stream:
            stream.write("mini-sharp,layer1,1,better words,2,,ok\r\n")
    elif given == "elsewhere":
        made = json.loads(record.read_text())
        made["files"]["../../secret"] = "0" * 64
        record.write_text(json.dumps(made))
    elif given == "unknown":
        record.write_text(json.dumps({**json.loads(record.read_text()), "track": "no-such@1"}))
    with pytest.raises(InputError, match=re.escape(says)):
        board.build(tmp_path / "site", [found], cache=tmp_path)
    assert not (tmp_path / "site").exists()


def test_a_folder_that_is_no_site_is_not_replaced(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="holds something other than a site"):
        board.build(tmp_path / "mine", [place / "records"], cache=tmp_path)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    with pytest.raises(InputError, match="which is replaced"):
        builder._check_out(place / "site", [place / "site" / "records"])


def test_records_of_no_track_say_so_and_of_ours_what_they_are(place):
    runs, found = load_records.load_records([place / "records"])
    (table,) = load_records.group_by_track(runs)
    assert table.track.version == 0
    assert len(table.runs) == 5
    assert len(found) == 2
    assert "Not a track" in read(place / "site", "tracks/*.html")


def test_the_command_builds_and_prints_the_page(place, capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        main.main(["board", "build", "--records", str(place / "records"), "--editions",
                  str(place / "small"), "--cache", str(place / "cache"),
                  "--out", str(tmp_path / "site")])  # fmt: skip
    assert left.value.code in (0, None)
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "site" / "index.html"
    assert (tmp_path / "site" / "index.html").is_file()


def test_an_application_has_its_number_its_control_and_its_figure(site):
    page = read(site, "applications/*.html")
    assert page.index(">good<") < page.index(">half<")
    assert "+.200" in page
    assert "accuracy gained" in page
    assert page.count("<img ") == 2
    assert len(list(site.glob("figures/*.png"))) == 2
    assert "It says what was found." in page


@pytest.fixture(scope="module")
def grounded(tmp_path_factory):
    """A site of two records that ship, with grounded scores of one of them and of another."""
    from baselines.shared.probe_statistics import ProbeStatistics
    from leaderboard.grounding import score
    from leaderboard.grounding.activations import HeldOutActivations
    from milannotations.probes.mini import ConceptItems, MiniProbe
    from milannotations.synthetic.networks import network
    from milannotations.synthetic.unit_plan import NETWORKS

    few = ConceptItems(MiniProbe(40))
    held = HeldOutActivations({
        name: ProbeStatistics(name, network(name), few, few.probe, list(layers))
        for name, layers in NETWORKS.items()
    })  # fmt: skip
    folder = tmp_path_factory.mktemp("grounded")
    shipped = builder.RECORDS / "mini-v1"
    for name in ("nearest", "constant"):
        shutil.copytree(shipped / f"{name}-1.0-seed0", folder / "records" / name)
    for name in ("nearest", "milan-beam"):
        score(
            shipped / f"{name}-1.0-seed0" / "predictions.csv", held, "grammar", ["f1", "pearson"],
            references="mini", split="test", method=f"{name}@1.0", settings=boards.FEW,
        ).save(folder / "records" / "activations" / name)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:  # no need to draw 18,000 thumbnails
        patch.setattr(thumbnails, "make_sheets", lambda *_, **__: None)
        board.build(folder / "site", [folder / "records"], cache=folder / "cache")
    return folder / "site"


def test_scores_in_activations_have_a_table_and_columns_beside_agreement(grounded):
    own, agreement = (
        read(grounded, "tracks/*grounding*.html"),
        read(grounded, "tracks/mini-v1.html"),
    )
    assert "judged by grammar" in own
    assert "Not a track" not in own
    rows = table_rows(own)
    assert {row[2] for row in rows if row[0] == "method"} == {"nearest", "milan-beam"}
    assert all(row[4] == "0" for row in rows if row[0] == "floor")
    ((_, _, _, score, lift),) = [row for row in rows if row[2] == "nearest"]
    assert float(score) > 0.3
    assert float(lift) > 0.3
    cells = dict(re.findall(r'<bdi>([\w-]+)</bdi>(?:(?!</tr>).)*?data-label="pearson \(grammar\)" '
                            r'data-value="([^"]*)"', agreement, flags=re.DOTALL))  # fmt: skip
    assert f"{float(cells['nearest']):.3f}".lstrip("0") == score
    assert 'href="mini-mini-test-' in agreement
    heads = re.findall(r'data-first="descending"[^>]*>([^<]*)</button>', agreement)
    assert heads[-2:] == ["pearson (grammar)", "f1 (grammar)"]
    method = read(grounded, "methods/milan-beam-1.0.html")
    assert all(f'scope="col">{head}</th>' in method for head in ("pearson", "pearson lift"))


def test_units_have_one_answer_a_method_however_often_it_was_scored(grounded):
    (index,) = grounded.glob("units/*/index.js")
    said = json.loads(index.read_text("utf-8").removeprefix("milanIndex(").removesuffix(");\n"))
    assert [name for name, *_ in said["methods"]] == [
        "nearest@1.0", "constant@1.0", "milan-beam@1.0",
    ]  # fmt: skip
    assert said["measure"] == "Retrieval AUC"
    # what was scored in activations alone has words there, and no value under that name
    part = (index.parent / "part-0.js").read_text("utf-8")
    part = json.loads(part.removeprefix("milanPart(0,").removesuffix(");\n"))
    nearest, constant, beam = part["value"]
    assert any(value is not None for value in nearest)
    assert any(value is not None for value in constant)
    assert all(value is None for value in beam)
    assert all(numbers is not None for numbers in part["descriptions"][2])
