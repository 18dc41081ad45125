"""The content-addressed cache: names, whole writes, damaged entries."""

import json

import pytest

from milannotations.utils.cache import Cache, content_key


def test_a_key_is_of_the_content_alone():
    assert content_key({"a": 1, "b": [2]}, "x") == content_key({"b": [2], "a": 1}, "x")
    keys = [content_key(*parts) for parts in (["a", "b"], ["ab"], [["a", "b"]], ["b", "a"], [])]
    assert len(set(keys)) == len(keys)


def test_entries_differ_by_kind_and_key(tmp_path):
    cache = Cache(tmp_path)
    paths = {cache.entry(kind, part).path for kind in ("a", "b") for part in (1, 2)}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path}
    assert cache.entry("a", 1) == cache.entry("a", 1)
    assert cache.entry("a", 1, suffix=".json").path.suffix == ".json"


def test_entries_of_a_kind_are_listed(tmp_path):
    cache = Cache(tmp_path)
    entries = [cache.entry(kind, 1, suffix=".json") for kind in ("a", "b")]
    assert cache.paths("a", ".json") == []
    for entry in entries:
        entry.write_json([])
    assert cache.paths("a", ".json") == [entries[0].path]
    assert Cache(None).paths("a") == []


def test_an_entry_is_made_once(tmp_path):
    made = []
    for _ in range(2):
        entry = Cache(tmp_path / "later").entry("a", 1, suffix=".json")
        assert entry.get_json(lambda: made.append(1) or {"x": (1.5, None)}) == {"x": [1.5, None]}
    assert made == [1]


@pytest.mark.parametrize("damage", ["", "{", "\xff"])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    entry = Cache(tmp_path).entry("a", suffix=".json")
    entry.write_json([1])
    entry.path.write_text(damage, encoding="latin-1")
    assert entry.read_json() is None
    assert entry.get_json(lambda: [2]) == [2]
    assert json.loads(entry.path.read_text()) == [2]


def test_a_failed_write_leaves_nothing(tmp_path):
    def save(path):
        path.write_text("half")
        raise KeyboardInterrupt

    entry = Cache(tmp_path).entry("a")
    with pytest.raises(KeyboardInterrupt):
        entry.write(save)
    assert not list(tmp_path.iterdir())
    assert entry.read(lambda path: path.read_text()) is None


def test_a_folder_is_an_entry(tmp_path):
    entry = Cache(tmp_path).entry("folder")
    entry.write(lambda folder: (folder.mkdir(), (folder / "a").write_text("1")))
    assert entry.read(lambda folder: sorted(path.name for path in folder.iterdir())) == ["a"]


def test_what_cannot_be_read_is_no_damage(tmp_path):
    entry = Cache(tmp_path).entry("a")
    entry.path.mkdir()
    with pytest.raises(IsADirectoryError):
        entry.read_json()


def test_nothing_is_kept_without_a_folder():
    entry = Cache(None).entry("a", suffix=".json")
    assert entry.path is None
    assert [entry.get_json(lambda n=n: n) for n in (1, 2)] == [1, 2]


def test_the_users_folder_is_expanded():
    assert "~" not in str(Cache("~/.cache/x").folder)
