"""Tests of submissions: writing, named checks, scores; and a real submission."""

import csv
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import submitted
from submitted import FIELDS, edit, found

from leaderboard import submission
from leaderboard.cli import main
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics.text_models import is_available
from leaderboard.ranking import tracks
from leaderboard.record_format import score_record
from leaderboard.submission import leakage, track_units
from milannotations import InputError, Unit

MINI = tracks.get("mini")
REAL = "leave-one-out/resnet152-imagenet"


@pytest.fixture(scope="module")
def known():
    """Open the edition once, so that every check takes milliseconds."""
    with submitted.opened_once() as opened:
        yield opened


@pytest.fixture
def made(tmp_path, known):
    return submitted.write(tmp_path, submitted.answers(known, MINI))


def test_a_plain_submission_passes_every_check(made):
    findings = submission.check_submission(made)
    assert [each.name for each in findings] == list(submission.CHECKS)
    assert {each.status for each in findings} == {"pass"}, findings


def test_the_folder_is_computed_from_the_content(made, tmp_path):
    assert made == tmp_path / "submissions" / "made-up" / "1.0"
    form = submission.load_form(made)
    assert form.path.as_posix() == "made-up/1.0"
    assert [each.file for each in form.predictions] == ["mini-mini.csv"]
    edit(made, lambda fields: fields.update(version="1.1"))
    assert found(made)["path"].status == "fail"


def test_the_form_comes_back_as_it_was_written(made):
    form = submission.load_form(made)
    assert submission.form.parse(submission.form.dumps(form).encode()) == form
    assert form.predictions[0].edition_digest == MINI.edition_digest
    assert form.predictions[0].units_digest == MINI.units_digest


def test_the_contact_stays_in_the_form_and_the_rest_goes_into_the_record(made):
    form = submission.load_form(made)
    about = form.about(form.predictions[0])
    assert about.command == FIELDS["command"]
    assert FIELDS["contact"] not in about.model_dump_json()


def test_units_without_a_row_count_as_failed(tmp_path, known):
    said = submitted.answers(known, MINI)
    some = dict(list(said.items())[:100])
    finding = found(submitted.write(tmp_path, some))["coverage"]
    assert finding.status == "pass"
    assert "100 of 393 units described, 293 count as failed" in finding.message


def test_units_of_other_splits_are_not_looked_at(tmp_path, known):
    said = submitted.answers(known, MINI)
    train = [unit for unit, side in zip(known.units, known.splits, strict=True) if side == "train"]
    finding = found(submitted.write(tmp_path, {**said, **dict.fromkeys(train[:7], "stars")}))
    assert finding["coverage"].status == "pass"
    assert "7 of other splits" in finding["coverage"].message


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (lambda i: "red stars", "describes 100% of units as 'red stars'"),
        (lambda i: f"stars {i % 10}", "ten descriptions make up 100%"),
        (
            lambda i: f"I'm sorry, I cannot say {i}",
            "393 descriptions begin like an error or a refusal",
        ),
    ],
)
def test_suspicious_constants_are_a_warning(tmp_path, known, texts, says):
    said = {unit: texts(i) for i, unit in enumerate(submitted.answers(known, MINI))}
    finding = found(submitted.write(tmp_path, said))["constants"]
    assert finding.status == "warn"
    assert says in finding.message


def test_copied_references_are_a_warning_and_never_a_rejection(tmp_path, known, capsys):
    """A tenth of the descriptions are copied references of five words or more."""
    said = submitted.answers(known, MINI)
    long = {
        unit: text
        for unit in said
        for text in known.texts[known.index[unit]]
        if len(text.split()) >= leakage.MIN_WORDS
    }
    copied = dict(random.Random(0).sample(sorted(long.items()), len(said) // 10))
    made = submitted.write(tmp_path, {**said, **copied})
    finding = found(made)["leakage"]
    assert finding.status == "warn"
    assert f"{len(copied)} of 393 descriptions" in finding.message
    with pytest.raises(SystemExit) as left:
        main.main(["submit", "check", str(made)])
    assert not left.value.code
    assert "WARN" in capsys.readouterr().out


def test_dealt_to_other_units_of_the_layer_the_same_answers_are_no_leak(known):
    """Only what exceeds the shuffled descriptions counts."""
    answers = [texts[0] if texts else None for texts in known.texts]
    scope = np.ones(len(answers), dtype=bool)
    own = leakage.measure_leakage(answers, known, scope)
    assert own.warns
    moved = list(answers)
    for members in known.layers.values():
        for i, j in zip(members, [*members[1:], members[0]], strict=True):
            moved[i] = answers[j]
    dealt = leakage.measure_leakage(moved, known, scope)
    assert dealt.n_shuffled == pytest.approx(dealt.n_same, abs=12)
    assert not dealt.warns


def test_leakage_by_hand():
    """Two units, three humans; only long texts count."""
    long, other = "one two three four five", "six seven eight nine ten"
    known = references.References(
        (Unit("n", "l", 0), Unit("n", "l", 1)),
        ((long, "short", "short"), ("short", "short", other)),
        ("test", "test"),
        (None, None),
        "e",
        "c",
    )
    scope = np.ones(2, dtype=bool)
    found = leakage.measure_leakage([long, long], known, scope)
    # of unit 0 it is a reference; given to unit 1, it would be one for the other
    assert (found.n_same, found.n_shuffled) == (1, 1.0)
    # left out in turn, it is unit 0's in two of three turns and dealt to it in as many
    assert found.rate == pytest.approx(0)
    found = leakage.measure_leakage([long, other], known, scope)
    assert (found.n_same, found.n_shuffled) == (2, 0.0)
    assert found.rate == pytest.approx(2 / 3)
    assert (found.human, found.error) == (0, 0.5)  # an error of one unit at least
    assert leakage.measure_leakage([None, None], known, scope).n_units == 0


@pytest.mark.parametrize(
    ("trained_on", "saw", "status"),
    [
        ([], False, "pass"),
        (["alexnet-imagenet"], False, "pass"),
        (["resnet152-imagenet"], False, "fail"),
        (["base"], False, "fail"),
        (["resnet152/imagenet"], True, "warn"),
        (["biggan-imagenet"], False, "warn"),
        (["ImageNet classification"], False, "pass"),
    ],
)
def test_what_was_learned_from_is_what_the_condition_allows(tmp_path, trained_on, saw, status):
    track = tracks.get("across-network/alexnet-to-resnet152")
    said = dict.fromkeys(list(track_units.split_units(track, None)[0])[:20], "stars")
    file = tmp_path / "said.csv"
    predictions.from_texts(list(said), said.values()).write(file)
    fields = {**FIELDS, "trained_on": trained_on, "saw_test_units": saw}
    made = submission.create_submission(fields, [file], track=track.key, root=tmp_path)
    findings = found(made)
    assert findings["training"].status == status
    # checks that need references are skipped, and say so, if these are not available
    assert findings["leakage"].status == findings["digests"].status == "skip"
    assert "--data release=FOLDER" in findings["leakage"].message


@pytest.mark.slow
@pytest.mark.skipif(not is_available(sentences=True), reason="needs the text model of 'offline'")
def test_every_metric_of_the_track_is_computed(made, tmp_path):
    """A minute: the text model encodes what the simulated annotators said."""
    submission.rescore_submission(made, out=tmp_path / "records", settings=ScoreConfig(draws=20))
    record = score_record.load(tmp_path / "records" / "mini-v1" / "made-up-1.0")
    assert set(MINI.metrics) == set(record.scores)
    assert tracks.mismatch(record, MINI) is None


def test_every_score_is_computed_again_and_goes_into_a_record(made, tmp_path, monkeypatch):
    short = replace(MINI, metrics=("concept-f1", "rouge-l"))
    monkeypatch.setattr(submission.rescore, "get", lambda key: short)
    out = tmp_path / "records"
    few = ScoreConfig(draws=20)
    (score,) = submission.rescore_submission(made, out=out, settings=few)
    folder = out / "mini-v1" / "made-up-1.0"
    record = score_record.load(folder)
    assert record.track == "mini@1"
    assert record.method == "made-up"
    assert record.about.authors == ["A. Tester"]
    assert set(record.scores) == {"concept-f1", "rouge-l"}
    assert record.scores == score.record.scores
    submission.rescore_submission(made, out=out, settings=few)  # its own record is replaced
    edit(made, lambda fields: fields["predictions"][0].update(sha256="0" * 64))
    with pytest.raises(InputError, match="is not scored, check 'digests' fails"):
        submission.rescore_submission(made, out=out, settings=few)


def test_several_seeds_are_files_of_one_submission(tmp_path, known):
    said = submitted.answers(known, MINI)
    files = []
    for seed in (0, 1):
        files.append(tmp_path / f"seed{seed}.csv")
        predictions.from_texts(list(said), said.values()).write(files[-1])
    made = submission.create_submission(FIELDS, files, seeds=[0, 1], root=tmp_path / "submissions")
    names = sorted(path.name for path in (made / "predictions").iterdir())
    assert names == ["mini-mini-seed0.csv", "mini-mini-seed1.csv"]
    assert {each.status for each in found(made).values()} == {"pass"}
    with pytest.raises(InputError, match="one file, or several with a --seed each"):
        submission.create_submission(FIELDS, files, root=tmp_path / "others")
    with pytest.raises(InputError, match="is listed twice with seed 0"):
        submission.create_submission(FIELDS, files, seeds=[0, 0], root=tmp_path / "others")


def test_a_submission_is_not_written_over_another(made, tmp_path, known):
    with pytest.raises(InputError, match="exists already"):
        submitted.write(tmp_path, submitted.answers(known, MINI))


def test_new_says_what_is_missing_and_takes_what_describing_knows(tmp_path, known, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as left:
            main.main(["submit", "new", "made-up", "--predictions", str(file), *words])
        return left.value.code, capsys.readouterr()

    from baselines.framework.provenance import Account

    file = tmp_path / "said.csv"
    said = submitted.answers(known, MINI)
    predictions.from_texts(list(said), said.values()).write(file)
    code, shown = run()
    assert code == 1
    assert "--version, --title, --authors, --contact" in shown.err
    spec = {"kind": "method", "version": "2.0", "title": "Says things", "license": "MIT"}
    Account(method=spec, seconds=3.2, n_units=393).write(file)
    code, shown = run()
    assert code == 1
    assert "needs --authors, --contact, --command, --saw-test-units, --hardware." in shown.err
    options = {"authors": "A, B", "contact": "me", "command": "x", "hardware": "none"}
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    root = tmp_path / "submissions"
    code, shown = run(*words, "--not-saw-test-units", "--root", str(root))
    assert not code, shown.err
    form = submission.load_form(root / "made-up" / "2.0")
    assert form.authors == ["A", "B"]
    assert form.cost == "3.2 s for 393 units"


def test_check_prints_json_and_fails_with_one(made, capsys):
    edit(made, lambda fields: fields["predictions"][0].update(sha256="0" * 64))
    with pytest.raises(SystemExit) as left:
        main.main(["submit", "check", str(made), "--json"])
    assert left.value.code == 1
    shown = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in shown if each["status"] == "fail"] == ["digests"]


@pytest.fixture(scope="module")
def real_milan(real, tmp_path_factory):
    """Return a function that submits MILAN's real descriptions, changed or not."""
    folder = tmp_path_factory.mktemp("real")
    annotations = real / "annotations" / "milannotations_resnet152_imagenet.csv"
    published = real / "descriptions" / "milan" / "resnet152_imagenet__milan-places365.csv"

    def submit(version, change=lambda rows: rows):
        with open(published, newline="", encoding="utf-8") as stream:
            rows = change(list(csv.DictReader(stream)))
        file = folder / f"{version}.csv"
        with open(file, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["layer", "unit", "description"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        fields = {**FIELDS, "name": "milan", "version": version}
        fields |= {"trained_on": ["alexnet-places365", "resnet152-places365", "biggan-places365"]}
        made = submission.create_submission(
            fields, [file], track=REAL, data=annotations, root=folder
        )
        return found(made, data={"release": str(annotations)})

    submit.known = references.from_csv(annotations, "resnet152-imagenet")
    return submit


def test_the_real_milan_file_passes_without_a_leak_warning(real_milan):
    findings = real_milan("2022")
    print(findings["leakage"].message)
    assert {name for name, each in findings.items() if each.status != "pass"} == set(), findings
    assert "0 of 3,904 descriptions" in findings["leakage"].message
    assert "3,904 of 3,904 units described" in findings["coverage"].message


def test_with_a_tenth_of_its_rows_from_humans_there_is_a_warning(real_milan):
    known = real_milan.known

    def change(rows):
        long = {}
        for i, row in enumerate(rows):
            texts = known.texts[known.index[Unit(known.config, row["layer"], int(row["unit"]))]]
            found = [text for text in texts if len(text.split()) >= leakage.MIN_WORDS]
            if found:
                long[i] = found[0]
        for i in random.Random(0).sample(sorted(long), len(rows) // 10):
            rows[i]["description"] = long[i]
        return rows

    findings = real_milan("copied", change)
    print(findings["leakage"].message)
    assert findings["leakage"].status == "warn"
    assert "fail" not in {each.status for each in findings.values()}
    assert "390 of 3,904 descriptions" in findings["leakage"].message
