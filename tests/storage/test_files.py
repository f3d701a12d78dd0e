"""Files are replaced whole or not at all."""

import os
import sys
import threading

import pytest

from micronet.storage.files import (
    remove_leftovers,
    replacing,
    replacing_directory,
    write_bytes,
    write_text,
)


class UnluckyError(Exception):
    """What goes wrong while a file is written."""


def write_half(path, writer, error):
    """Fails with `error` after the half of a file or a folder."""
    with writer(path) as temporary:
        (temporary / "a.txt" if temporary.is_dir() else temporary).write_text("half")
        raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_new_file_gets_its_content_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()
    assert names(tmp_path) == ["a.txt"]


def test_a_file_in_folders_that_do_not_exist_makes_them(tmp_path):
    write_bytes(tmp_path / "b" / "c" / "a.bin", b"\0\1")
    assert (tmp_path / "b" / "c" / "a.bin").read_bytes() == b"\0\1"


def test_an_existing_file_is_replaced(tmp_path):
    write_text(tmp_path / "a.txt", "a long first version")
    write_text(tmp_path / "a.txt", "second")
    assert (tmp_path / "a.txt").read_text() == "second"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_is_old_until_the_block_ends(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert temporary.parent == tmp_path
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [UnluckyError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(error):
        write_half(tmp_path / "a.txt", replacing, error)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_block_that_fails_makes_no_new_file(tmp_path):
    with pytest.raises(UnluckyError):
        write_half(tmp_path / "a.txt", replacing, UnluckyError)
    assert names(tmp_path) == []


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with (tmp_path / "a.txt").open() as reader:
        write_text(tmp_path / "a.txt", "new")
        assert reader.read() == "old"


def test_a_files_permissions_follow_the_umask(tmp_path, umask):
    write_text(tmp_path / "a.txt", "content")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.umask(umask) == umask


def test_a_folders_permissions_follow_the_umask(tmp_path, umask):
    with replacing_directory(tmp_path / "d") as temporary:
        (temporary / "a.txt").write_text("content")
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "d" / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path):
    for name in ("first.txt", "second.txt"):
        with replacing_directory(tmp_path / "d") as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / name).write_text(name)
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d" / "deep") == ["second.txt"]


@pytest.mark.parametrize("error", [UnluckyError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    with replacing_directory(tmp_path / "d") as temporary:
        (temporary / "a.txt").write_text("old")
    with pytest.raises(error):
        write_half(tmp_path / "d", replacing_directory, error)
    assert names(tmp_path) == ["d"]
    assert (tmp_path / "d" / "a.txt").read_text() == "old"


def test_an_empty_folder_is_a_folder_too(tmp_path):
    with replacing_directory(tmp_path / "deep" / "d"):
        pass
    assert names(tmp_path / "deep") == ["d"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    kept = ("a.txt", ".hidden", ".c.x5.tmp", ".a.txt.tmp.txt", "deep/.a.txt.x6.tmp")
    for name in kept:
        write_text(tmp_path / name, "kept")
    for left in (".a.txt.x1.tmp", ".b.x2.tmp", ".d.x3.tmp/deeper/e"):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_text("left")
    remove_leftovers(tmp_path, ["a.txt", "b", "d", "not there"])
    assert names(tmp_path) == sorted({*kept[:4], "deep"})
    assert names(tmp_path / "deep") == [".a.txt.x6.tmp"]


def test_a_leftover_that_is_a_link_is_removed_and_not_followed(tmp_path):
    write_text(tmp_path / "others" / "notes.txt", "kept")
    (tmp_path / ".d.x1.tmp").symlink_to(tmp_path / "others")
    remove_leftovers(tmp_path, ["d"])
    assert names(tmp_path) == ["others"]
    assert names(tmp_path / "others") == ["notes.txt"]


def test_a_link_in_the_place_of_a_folder_is_replaced_and_what_it_leads_to_stays(tmp_path):
    write_text(tmp_path / "others" / "notes.txt", "kept")
    (tmp_path / "d").symlink_to(tmp_path / "others")
    with replacing_directory(tmp_path / "d") as folder:
        (folder / "a").touch()
    assert names(tmp_path) == ["d", "others"]
    assert names(tmp_path / "d") == ["a"]
    assert names(tmp_path / "others") == ["notes.txt"]


def test_a_folder_is_always_there_while_another_takes_its_place(tmp_path):
    with replacing_directory(tmp_path / "d") as first:
        (first / "a").touch()
    missing, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            if not (tmp_path / "d").exists():
                missing.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        with replacing_directory(tmp_path / "d") as again:
            (again / "b").touch()
    stop.set()
    watcher.join()
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d") == ["b"]
    assert not missing or sys.platform != "linux"


def test_what_a_killed_writer_leaves_is_a_leftover(tmp_path):
    writer = replacing(tmp_path / "a.txt")
    writer.__enter__().write_text("half")
    folder_writer = replacing_directory(tmp_path / "d")
    folder_writer.__enter__()
    assert len(names(tmp_path)) == 2
    remove_leftovers(tmp_path, ["a.txt", "d"])
    assert names(tmp_path) == []
