"""Files that are whole or absent, and tables that say what is wrong with them."""

import hashlib

import pytest

from milannotations import InputError
from milannotations.utils.files import (
    TextTable,
    check_is_file,
    parse_whole_number,
    replacing,
    sha256,
)


def make(folder, **files):
    """Make a folder with these text files."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def contents(folder):
    """Return name to text of every file in a folder, at any depth."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fail_while_replacing(target, write):
    with replacing(target) as temporary:
        write(temporary)
        raise RuntimeError("stopped in the middle")


def half_a_file(path):
    path.write_text("half")


def half_a_folder(path):
    make(path, kept="half")


def test_a_file_is_written_and_replaced(tmp_path):
    for text in ("first", "second"):
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text(text)
        assert contents(tmp_path) == {"a.txt": text}


def test_the_target_is_untouched_until_the_end(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"


def test_missing_parents_are_made(tmp_path):
    with replacing(tmp_path / "x" / "y" / "a.txt") as temporary:
        temporary.write_text("deep")
    assert contents(tmp_path) == {"x/y/a.txt": "deep"}


def test_a_relative_name_is_written_where_we_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replacing("a.txt") as temporary:
        temporary.write_text("here")
    assert contents(tmp_path) == {"a.txt": "here"}


def test_a_folder_is_replaced_whole(tmp_path):
    make(tmp_path / "out", gone="old", kept="old")
    with replacing(tmp_path / "out") as temporary:
        make(temporary, kept="new")
    assert contents(tmp_path) == {"out/kept": "new"}


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"):
        fail_while_replacing(tmp_path / "a.txt", half_a_file)
    assert contents(tmp_path) == {"a.txt": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_makes_no_new_file(tmp_path):
    with pytest.raises(RuntimeError):
        fail_while_replacing(tmp_path / "a.txt", half_a_file)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_folder(tmp_path):
    make(tmp_path / "out", kept="old")
    with pytest.raises(RuntimeError):
        fail_while_replacing(tmp_path / "out", half_a_folder)
    assert contents(tmp_path) == {"out/kept": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_comes_back_when_nothing_was_made_in_its_place(tmp_path):
    make(tmp_path / "out", kept="old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out"):
        pass
    assert contents(tmp_path) == {"out/kept": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    # a folder given by mistake as the file to write may hold a year of work
    make(tmp_path / "work", precious="kept")
    with pytest.raises((InputError, OSError)), replacing(tmp_path / "work") as temporary:
        temporary.write_text("a table")
    assert contents(tmp_path) == {"work/precious": "kept"}


def test_sha256_is_that_of_the_bytes_one_file_after_the_other(write_file):
    first, second = write_file("a", b"\x00" * (1 << 20) + b"tail"), write_file("b", b"more")
    expected = hashlib.sha256(first.read_bytes() + b"more").hexdigest()
    assert sha256(first, second) == expected
    assert sha256(second, first) != expected


def test_check_is_file_returns_the_path_of_a_file_only(tmp_path, write_file):
    assert check_is_file(str(write_file("a", "x"))) == tmp_path / "a"
    with pytest.raises(InputError, match=r"is a directory\. Expected a file"):
        check_is_file(tmp_path)
    with pytest.raises(InputError, match=r"No such file: .*absent"):
        check_is_file(tmp_path / "absent")


def test_table_gives_rows_with_their_lines(write_file):
    table = TextTable(write_file("a.csv", "a,b\n1,2\n\n3,4\n"))
    assert table.columns == ["a", "b"]
    assert list(table) == [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4"})]


def test_table_can_be_read_twice(write_file):
    table = TextTable(write_file("a.csv", "a\n1\n"))
    assert list(table) == list(table) == [(2, {"a": "1"})]


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\r\n1,x\r\n",
        b"a,b\n1,x",
        b"\xef\xbb\xbfa,b\n1,x\n",
        b" a , b \n1,x\n",
        b"\n \na,b\n1,x",
    ],
    ids=["CRLF", "no end of line", "byte order mark", "spaces in header", "blank lines first"],
)
def test_table_reads_what_programs_write(write_file, content):
    assert [row for _, row in TextTable(write_file("a.csv", content))] == [{"a": "1", "b": "x"}]


@pytest.mark.parametrize("text", ["a, b", 'say "red"', "two\nlines", "two\r\nlines", "né ☃"])
def test_table_keeps_a_quoted_cell_as_it_is(write_file, text):
    quoted = text.replace('"', '""')
    path = write_file("a.csv", f'a,b\n1,"{quoted}"\n')
    assert [row["b"] for _, row in TextTable(path)] == [text]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ["is empty", "Expected a header line"]),
        (b"\n \n", ["is empty"]),
        (b"a,a\n1,2\n", ["column 'a' twice"]),
        (b"a,b\n1,2\n1,2,3\n", ["line 3", "3 cells under 2 columns (a, b)", "needs quotes"]),
        (b"a,b\n1\n", ["line 2", "1 cells under 2 columns"]),
        (b'a,b\n1,"open\n2,x\n', ["not a CSV row", "is a quote left open?"]),
        (b'"a,b\n1,2\n', ["not a CSV row", "is a quote left open?"]),
        (b'a,b\n1,"x"y\n', ["line 2", "not a CSV row"]),
        (b"a,b\n1,caf\xe9\n", ["is not UTF-8", r"b'\xe9'", "Save it as UTF-8"]),
        ("a,b\n1,2\n".encode("utf-16"), ["is not UTF-8"]),
        (b"a,b\n1," + b"x" * 131_073, ["line 2", "131,072 characters"]),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_table_says_what_is_wrong_and_where(write_file, content, said):
    path = write_file("broken.csv", content)
    with pytest.raises(InputError) as error:
        list(TextTable(path))
    for part in [str(path), *said]:
        assert part in str(error.value)


@pytest.mark.parametrize(("text", "index"), [("0", 0), (" 12 ", 12), ("007", 7)])
def test_whole_number_is_a_whole_number(text, index):
    assert parse_whole_number(text, "here") == index


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "x", "1 2", "²", "٣", "9" * 10])
def test_whole_number_refuses_anything_else(text):
    with pytest.raises(InputError, match=r"here: unit .* is not a whole number from 0"):
        parse_whole_number(text, "here")
