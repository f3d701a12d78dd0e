"""What the system refuses is told in one sentence, with the path and what is wrong with it.

These are real files; tests run as root too, whom no permission stops.
"""

import errno
import os
import subprocess
import sys

import pytest

from micronet.errors import DataError, WriteError, in_words, refusal
from micronet.recipe.file import read
from micronet.storage.files import read_text, replacing_directory, write_text

RECIPE = "model: nin\ndata: digits\nsteps: [train]\n"
LONG = 250 * "n"


@pytest.fixture
def odd(tmp_path):
    """A folder with a file, a folder, a pipe, a link to itself and one to nothing."""
    (tmp_path / "file.yaml").write_text(RECIPE)
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "nowhere.yaml").symlink_to("nothing.yaml")
    (tmp_path / "null.yaml").symlink_to("/dev/zero")
    return tmp_path


READ = [
    ("folder.yaml", "folder.yaml can't be read: it is no file but a folder."),
    ("pipe.yaml", "pipe.yaml can't be read: it is no file but a pipe."),
    ("null.yaml", "null.yaml can't be read: it is no file but a device."),
    ("loop.yaml", "loop.yaml can't be read: Too many levels of symbolic links."),
    ("nowhere.yaml", "nowhere.yaml can't be read: it is a link that leads nowhere."),
    ("absent.yaml", "absent.yaml can't be read: No such file or directory."),
    ("file.yaml/r.yaml", "file.yaml/r.yaml can't be read: Not a directory."),
    (f"{LONG}{LONG}.yaml", f"{LONG}.yaml can't be read: File name too long."),
    ("nul\0.yaml", r"'nul\x00.yaml' can't be read: embedded null byte."),
]


@pytest.mark.parametrize(("name", "sentence"), READ, ids=range(len(READ)))
def test_what_can_not_be_read_is_told(odd, monkeypatch, name, sentence):
    monkeypatch.chdir(odd)
    with pytest.raises(DataError) as caught:
        read_text(name)
    assert str(caught.value).endswith(sentence)


@pytest.mark.parametrize("name", ["pipe.yaml", "folder.yaml", "loop.yaml"])
def test_a_recipe_that_is_no_file_is_refused_and_not_waited_for(odd, micronet_cli, name):
    done = micronet_cli("validate", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"micronet: {dict(READ)[name]}\n"


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_recipes_of_any_editor_are_read(tmp_path, mark, ends):
    (tmp_path / "r.yaml").write_bytes(mark + RECIPE.replace("\n", ends).encode())
    recipe, _ = read(str(tmp_path / "r.yaml"))
    assert recipe.model.name == "nin"


def test_commands_that_need_no_folder_run_in_one_that_was_removed(tmp_path):
    code = "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "micronet", "validate", "quickstart"]
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model:")


WRITTEN = [
    ("folder.yaml", "Is a directory"),
    ("file.yaml/a/b", "Not a directory"),
    ("loop.yaml/a", "File exists; a part of the path is no folder"),
    (LONG, "File name too long"),
]


@pytest.mark.parametrize(("name", "reason"), WRITTEN, ids=range(len(WRITTEN)))
def test_what_can_not_be_written_is_told(odd, name, reason):
    before = sorted(odd.iterdir())
    with pytest.raises(WriteError) as caught:
        write_text(odd / name, "text")
    assert str(caught.value) == f"Can't write {odd / name}: {reason}."
    assert isinstance(caught.value, OSError)
    assert sorted(odd.iterdir()) == before


def test_what_goes_wrong_while_a_folder_is_filled_is_not_said_of_the_folder(odd):
    with pytest.raises(FileNotFoundError), replacing_directory(odd / "new") as temporary:
        (temporary / "copy").write_bytes((odd / "absent").read_bytes())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EIO, "Input/output error", "r.pth"), "Can't use r.pth: Input/output error."),
        (OSError(errno.EACCES, "Permission denied", "out"), "Can't use out: Permission denied."),
        (OSError(errno.EROFS, "Read-only", "out"), "Can't write out: Read-only."),
        (OSError(errno.ENOSPC, "No space left"), "Can't write: No space left."),
        (
            OSError(errno.EMFILE, "Too many open files", "a"),
            "Can't use a: Too many open files; raise the limit of this process with ulimit -n.",
        ),
        (OSError(errno.EPERM, "Not permitted"), "Not permitted."),
        (OSError("by a library, without a number"), "None"),
    ],
)
def test_an_error_of_the_system_says_of_itself_only_what_it_knows(error, sentence):
    assert str(in_words(error)) == sentence


def test_writing_is_not_said_of_reading():
    error = PermissionError(errno.EACCES, "Permission denied", "other")
    assert str(refusal(error, "a.pth", use="read")) == "a.pth can't be read: Permission denied."
    assert str(refusal(error, "a.pth", use="write")) == "Can't write a.pth: Permission denied."
