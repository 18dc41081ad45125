"""Hostile submissions: a named check refuses each of them with a message, and no harm is done."""

import os
import time
from pathlib import Path

import pytest
import submitted
import yaml
from submitted import FIELDS, FILE, edit, found, replace_file

from leaderboard import submission
from leaderboard.ranking import tracks
from leaderboard.submission import checks, form
from milannotations import InputError

MINI = tracks.get("mini")
HEADER = "network,layer,unit,description\n"
FORM = yaml.safe_dump(
    {
        **FIELDS,
        "predictions": [{"track": "mini@1", "file": "mini-mini.csv", "sha256": "0" * 64}],
    }
)


@pytest.fixture(scope="module")
def known():
    with submitted.opened_once() as opened:
        yield opened


@pytest.fixture
def made(tmp_path, known):
    return submitted.write(tmp_path, submitted.answers(known, MINI))


def failed(made):
    """Return the messages of the failing checks by name; time and length are bounded."""
    begun = time.perf_counter()
    findings = found(made)
    assert time.perf_counter() - begun < 20
    for each in findings.values():
        assert each.message.isprintable(), each
        assert len(each.message) < 1_000, each
    return {name: each.message for name, each in findings.items() if each.status == "fail"}


def bomb(levels=12):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!!python/object/apply:os.system ['touch owned']", "a tag in line 1"),
        ("name: !!python/name:os.system", "a tag in line 1"),
        ("name: !!binary aGVsbG8=", "a tag in line 1"),
        (bomb(), "an anchor or alias in line 1"),
        (FORM + "title: &x again\n", "an anchor or alias"),
        (FORM + "<<: {name: other}\n", "no such field"),
        (FORM + "name: other\n", "the key 'name' is repeated"),
        (FORM + "? [a, b]\n: c\n", "a key that is not plain text"),
        ("[" * 30_000, "nested too deeply"),
        ("{" * 30_000, "nested too deeply"),
        ("- " * 30_000, "nested too deeply"),
        ("", "holds no fields"),
        ("just words", "holds no fields"),
        ("a: b: c", "is not valid YAML"),
        ("--- {}\n--- {}", "is not valid YAML"),
        ("name: \x00", "is not valid YAML"),
        (FORM + f"paper: {'x' * 3_000}\n", "paper"),
        (FORM + f"paper: {'x' * 70_000}\n", "a form has 65,536 bytes at most"),
        (FORM + "scores: {rouge-l: 1.0}\n", "a form claims no scores"),
        (FORM + "autors: [me]\n", "Did you mean 'authors'"),
    ],
)
def test_forms_that_are_no_forms(made, text, says):
    (made / "submission.yaml").write_text(text, encoding="utf-8")
    wrong = failed(made)
    assert set(wrong) == {"schema"}
    assert says in wrong["schema"]
    assert not Path("owned").exists()


def test_a_form_that_is_not_utf_8(made):
    (made / "submission.yaml").write_bytes(FORM.encode("utf-16"))
    assert "is not UTF-8" in failed(made)["schema"]


def test_values_are_the_text_that_stands_there():
    """Values are text: 1.0 is a version, no is a name, 2024-01-01 is no date."""
    text = FORM.replace("version: '1.0'", "version: 1.0").replace("A. Tester", "no")
    read = form.parse((text + "hardware: 2024-01-01\n").replace("hardware: none\n", "").encode())
    assert (read.version, read.authors, read.hardware) == ("1.0", ["no"], "2024-01-01")


TEXTS = ("title", "paper", "licence", "command", "hardware", "cost", "contact")
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`"


@pytest.mark.parametrize("field", TEXTS)
def test_html_is_text_like_any_other_and_is_kept_as_it_is(made, field):
    """Pages escape it (see the tests of the site); here it is neither run nor changed."""
    edit(made, lambda fields: fields.update({field: SCRIPT}))
    assert failed(made) == {}
    assert getattr(submission.load_form(made), field) == SCRIPT


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:text/html,x", "//x.example", "https://x.example/ <b>", "ftp://x"],
)
def test_addresses_are_of_the_web(made, address):
    edit(made, lambda fields: fields.update(code=address))
    assert "code: expected an address" in failed(made)["schema"]


@pytest.mark.parametrize("field", [*TEXTS, "authors", "trained_on", "external_models"])
@pytest.mark.parametrize(
    "character", ["\u202e", "\u200b", "\u2066", "\ufeff", "\u2028", "\x07", "\n", "\ue000"]
)
def test_hidden_characters_in_the_form(made, field, character):
    text = f"red{character}der"
    value = text if field in TEXTS else [text]
    edit(made, lambda fields: fields.update({field: value}))
    assert f"U+{ord(character):04X}" in failed(made)["schema"]


def test_letters_from_right_to_left_are_letters(tmp_path, known):
    said = submitted.answers(known, MINI)
    said[next(iter(said))] = "עיגולים אדומים"
    made = submitted.write(tmp_path, said, title="דוגמה", authors=["محمد"])
    assert failed(made) == {}


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "../x",
        "/etc",
        "a/b",
        "a\\b",
        "C:",
        "con",
        "a b",
        "A",
        "é",
        "a..b",
        "-a",
        "",
        "a\n",
    ],
)
def test_names_that_lead_elsewhere(made, name):
    edit(made, lambda fields: fields.update(name=name))
    assert "name: " in failed(made)["schema"]
    with pytest.raises(InputError, match="name: "):
        submission.create_submission({**FIELDS, "name": name}, [made / FILE], root=made.parent)


@pytest.mark.parametrize("version", ["..", "1/2", "../1", "1..0", "", ".1", "1.", "1 0"])
def test_versions_that_lead_elsewhere(made, version):
    edit(made, lambda fields: fields.update(version=version))
    assert "version: " in failed(made)["schema"]


@pytest.mark.parametrize(
    "file",
    ["../../../secret.csv", "/etc/passwd", "mini-mini.csv/", "./mini-mini.csv", "other.csv", ""],
)
def test_files_that_lie_elsewhere(made, file):
    (made.parent.parent / "secret.csv").write_text("a secret")
    edit(made, lambda fields: fields["predictions"][0].update(file=file))
    wrong = failed(made)
    assert set(wrong) == {"path"}
    assert "must be named mini-mini.csv" in wrong["path"]
    assert "a secret" not in wrong["path"]


@pytest.mark.parametrize("what", ["predictions/mini-mini.csv", "submission.yaml", "predictions"])
def test_links_are_not_followed(made, tmp_path, what):
    elsewhere = tmp_path / "elsewhere"
    (made / what).rename(elsewhere)
    (made / what).symlink_to(elsewhere)
    assert "is a link" in failed(made)["files"]


@pytest.mark.parametrize(
    "name", ["run.py", "predictions/run.sh", "predictions/.hidden", "more/x.csv", "x\u202e.csv"]
)
def test_other_files_do_not_belong(made, name):
    (made / name).parent.mkdir(exist_ok=True)
    (made / name).write_text("x")
    assert "does not belong" in failed(made)["files"]


def test_files_that_the_form_does_not_name(made):
    (made / "predictions" / "release-gen.csv").write_text(HEADER)
    assert "the form does not name release-gen.csv" in failed(made)["path"]


def test_pipes_and_folders_are_no_files(made):
    os.mkfifo(made / "predictions" / "pipe.csv")
    assert "is not a regular file" in failed(made)["files"]


def test_many_files(made):
    for i in range(300):
        (made / "predictions" / f"{i}.csv").touch()
    assert "more than 64 files" in failed(made)["files"]


def test_a_file_of_a_gigabyte_is_not_read(made):
    with open(made / FILE, "r+b") as stream:
        stream.truncate(1 << 30)
    begun = time.perf_counter()
    assert "1,073,741,824 bytes" in failed(made)["files"]
    assert time.perf_counter() - begun < 1


def test_a_million_rows(made):
    replace_file(made, HEADER + "mini-sharp,layer1,0,red\n" * 1_000_000)
    wrong = failed(made)
    assert set(wrong) == {"encoding"}
    assert "1,000,001 lines" in wrong["encoding"]


def test_one_endless_cell(made):
    replace_file(made, HEADER + 'mini-sharp,layer1,0,"' + "x" * 1_000_000)
    assert "a quote" in failed(made)["encoding"]


def test_many_columns(made):
    replace_file(made, ",".join(f"c{i}" for i in range(50_000)) + "\n")
    assert "has the columns" in failed(made)["encoding"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (HEADER.encode(), "a header and no rows"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"\x1f\x8b\x08\x00", "is compressed"),
        (b"PAR1" + b"\0" * 60 + b"PAR1", "columns"),
        ((HEADER + "mini-sharp,layer1,0,red\ud83d\n").encode("utf-8", "surrogatepass"), "UTF-8"),
        (b"unit,description\n0,red\n", "has the columns unit, description"),
        (b"network,layer,unit,description,claimed\nmini-sharp,layer1,0,red,1\n", "claimed"),
        ((HEADER + "mini-sharp,layer1,0\n").encode(), "3 cells under 4"),
        ((HEADER + "mini-sharp,layer1,0x10,red\n").encode(), "is not a whole number"),
        ((HEADER + "mini-sharp,layer1,-1,red\n").encode(), "is not a whole number"),
        ((HEADER + f"mini-sharp,layer1,{'9' * 40},red\n").encode(), "is not a whole number"),
        ((HEADER + "../../etc,layer1,0,red\n").encode(), "is no valid name of a network"),
    ],
)
def test_files_that_are_no_predictions(made, content, says):
    replace_file(made, content)
    wrong = failed(made)
    assert len(wrong) == 1
    assert says in next(iter(wrong.values()))


@pytest.mark.parametrize(
    "rows",
    [
        "mini-sharp,layer1,0,red\nmini-sharp,layer1,0,blue\n",
        "mini-sharp,layer1,0,red\n mini-sharp ,layer1,00,blue\n",
        "mini/sharp,layer1,1,red\nmini-sharp,layer1,1,blue\n",
    ],
)
def test_units_twice(made, rows):
    replace_file(made, HEADER + rows)
    wrong = failed(made)
    assert set(wrong) == {"duplicates"}
    assert "more than once" in wrong["duplicates"]


@pytest.mark.parametrize("formula", ["=HYPERLINK(0)", "+1", "-1", "@SUM(A1)", " =1", "\t=1"])
def test_formulas_in_cells(tmp_path, known, formula):
    said = submitted.answers(known, MINI)
    said[next(iter(said))] = formula
    wrong = failed(submitted.write(tmp_path, said))
    assert set(wrong) == {"characters"}


@pytest.mark.parametrize("character", ["\u202e", "\u200b", "\u2066", "\x1b", "\x00", "\r"])
def test_hidden_characters_in_answers(tmp_path, known, character):
    said = submitted.answers(known, MINI)
    said[next(iter(said))] = f"red{character}der"
    wrong = failed(submitted.write(tmp_path, said))
    assert set(wrong) == {"characters"}
    assert f"U+{ord(character):04X}" in wrong["characters"]


def test_predictions_for_another_edition(made):
    replace_file(made, HEADER + "resnet152-imagenet,layer1,0,red\n")
    wrong = failed(made)
    assert set(wrong) == {"coverage"}
    assert "not in mini / mini" in wrong["coverage"]
    replace_file(made, HEADER + "mini-sharp,layer1,999,red\n")
    assert "mini-sharp/layer1/999" in failed(made)["coverage"]


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("sha256", "is not the file that the form was written for"),
        ("units_digest", "was made for other units"),
        ("edition_digest", "was made for another edition"),
    ],
)
def test_digests_that_do_not_match(made, field, says):
    edit(made, lambda fields: fields["predictions"][0].update({field: "0" * 64}))
    wrong = failed(made)
    assert set(wrong) == {"digests"}
    assert says in wrong["digests"]


def test_tracks_that_are_none(made):
    edit(made, lambda fields: fields["predictions"][0].update(track="maxi@1"))
    assert "No track 'maxi@1'" in failed(made)["schema"]
    edit(made, lambda fields: fields["predictions"][0].update(track="mini-edit@1"))
    assert "takes no predictions" in failed(made)["schema"]


def test_nothing_hostile_is_scored(made):
    replace_file(made, HEADER + "mini-sharp,layer1,0,=1+1\n")
    with pytest.raises(InputError, match="is not scored, check 'characters' fails"):
        submission.rescore_submission(made)


def test_every_limit_leaves_room_for_honest_files():
    largest = max(track.n_units or 0 for track in tracks.all_tracks())
    assert largest * 20 <= checks.MAX_ROWS
    assert checks.MAX_BYTES / checks.MAX_ROWS > 250  # bytes a row
