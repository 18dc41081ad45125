"""Tests of tracks: which records are comparable, and that a version never changes."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from leaderboard.cli import main
from leaderboard.evaluation import references
from leaderboard.ranking import tracks
from leaderboard.submission import track_units
from milannotations import InputError, splits


def test_every_condition_of_the_paper_is_a_track():
    conditions = {c.name: c for c in splits.conditions() if "@" not in c.name}
    found = {track.condition: track for track in tracks.all_tracks() if track.condition}
    assert set(found) == set(conditions)
    for name, track in found.items():
        assert track.n_units == conditions[name].n_test
        assert track.units_digest == conditions[name].digest
        assert not track.synthetic


def test_keys_slugs_and_names_of_files_are_of_one_track_each():
    every = tracks.all_tracks()
    for name in ("key", "slug"):
        assert len({getattr(track, name) for track in every}) == len(every)
    files = [track.stem for track in every if track.task == "agreement"]
    assert len(set(files)) == len(files)


def test_applications_have_a_track_each():
    from leaderboard.applications import TASKS

    assert {track.task for track in tracks.all_tracks()} == {"agreement", *TASKS}


def test_mini_is_the_edition_that_ships():
    """A mini edition with other units needs a new version."""
    track, known = tracks.get("mini"), references.load("mini")
    assert known.digest == track.edition_digest
    inside, others = track_units.split_units(track, known)
    assert len(inside) == track.n_units
    assert len(inside | others) == 1224
    assert track_units.units_digest(inside) == track.units_digest


def test_a_version_does_not_change():
    """A change needs a new version; these lines stay."""
    shown = "\n".join(
        f"{t.key} {t.edition} {t.config} {t.split} {t.condition} {t.task} {t.metrics} "
        f"{t.ranked_by} {t.ties_by} {t.units_digest} {t.edition_digest}"
        for t in tracks.all_tracks()
        if t.version == 1
    )
    assert hashlib.sha256(shown.encode()).hexdigest()[:16] == "2edad875fdcd3df1"


def test_get_takes_names_and_keys_and_says_what_is_near():
    assert tracks.get("mini") is tracks.get("mini@1")
    with pytest.raises(InputError, match="Did you mean 'mini'"):
        tracks.get("minni")
    with pytest.raises(InputError, match="No track 'mini@2'"):
        tracks.get("mini@2")


def test_units_of_a_published_track_are_known_without_its_edition():
    track = tracks.get("within-network/resnet152-imagenet")
    inside, others = track_units.split_units(track, None)
    assert (len(inside), len(inside | others)) == (390, 3904)
    train, test = track_units.condition_networks(tracks.get("across-network/alexnet-to-resnet152"))
    assert train == ["alexnet-imagenet", "alexnet-places365"]
    assert test == ["resnet152-imagenet", "resnet152-places365"]
    assert track_units.split_units(replace(track, condition=""), None) == (None, None)


def test_another_edition_is_refused(tmp_path):
    import sample

    with pytest.raises(InputError, match="is not the edition of mini@1"):
        track_units.open_references(
            replace(tracks.get("mini"), config="sample"), sample.ANNOTATIONS
        )


def test_list_tracks_prints_and_is_instant(capsys):
    with pytest.raises(SystemExit):
        main.main(["list", "tracks", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert [each["key"] for each in shown] == [track.key for track in tracks.all_tracks()]
    program = (
        "import sys; from leaderboard.cli import main\n"
        "try: main.main(['list', 'tracks'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'datasets', 'scipy', 'sklearn', 'matplotlib'} "
        "& set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stdout + done.stderr
    assert "mini@1" in done.stdout
