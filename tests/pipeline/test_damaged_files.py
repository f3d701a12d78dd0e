"""Each file of a run, replaced by whatever a disk, a network or a person leaves in its place.

What comes of it is a sentence and exit code 2, or the results of the whole run: never others.
"""

import io
import json
import os
import pickle
import random
import re
import shutil
import zipfile

import pytest

PAGE = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
NUMBER = re.compile(rb"(?<=[ :])\d+(\.\d+)?")


class Command:
    """Pickled, it makes a file when it is read by who runs what he reads."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def flipped(content, chance):
    changed = bytearray(content)
    if changed:
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Command()))
    return buffer.getvalue()


def doubled_key(content):
    return re.sub(rb'"(\w+)": (\d+|null|true)', rb'"\1": \2, "\1": 0', content, count=1)


CONTENTS = {
    "empty": lambda content, _: b"",
    "cut off": lambda content, _: content[: len(content) // 2],
    "without its last byte": lambda content, _: content[:-1],
    "one bit flipped": flipped,
    "another bit flipped": flipped,
    "zeros": lambda content, _: bytes(len(content)),
    "zeros from the middle on": lambda content, _: content[: len(content) // 2].ljust(
        len(content), b"\0"
    ),
    "random bytes": lambda content, chance: chance.randbytes(len(content)),
    "twice": lambda content, _: content * 2,
    "more behind it": lambda content, _: content + b"more",
    "JSON of another shape": lambda *_: b'{"row": 3, "layers": [], "name": {}}',
    "a JSON list": lambda *_: b"[[]]",
    "null": lambda *_: b"null",
    "JSON nested deep": lambda *_: b'{"row":' * 10**5,
    "lists nested deep": lambda *_: b"[" * 10**5,
    "NaN": lambda content, _: NUMBER.sub(b"NaN", content, count=1),
    "Infinity": lambda content, _: NUMBER.sub(b"-Infinity", content, count=1),
    "a huge integer": lambda content, _: NUMBER.sub(b"9" * 5000, content, count=1),
    "another number": lambda content, _: NUMBER.sub(b"7", content),
    "a doubled key": lambda content, _: doubled_key(content),
    "UTF-16": lambda content, _: content.decode("latin-1").encode("utf-16"),
    "latin-1": lambda content, _: content + "\n# é".encode("latin-1"),
    "a byte order mark": lambda content, _: b"\xef\xbb\xbf" + content,
    "CRLF": lambda content, _: content.replace(b"\n", b"\r\n"),
    "a pickle": lambda *_: pickle.dumps(Command()),
    "an archive": lambda *_: archive(),
    "a page of the web": lambda *_: PAGE,
    "a pointer of Git LFS": lambda *_: POINTER,
}


def another_file(path, run, chance):
    others = [each for each in sorted(run.rglob("*")) if each.is_file() and each != path]
    content = chance.choice(others).read_bytes()
    path.write_bytes(content)


def directory(path, *_):
    path.unlink()
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def pipe(path, *_):
    path.unlink()
    os.mkfifo(path)


def link_out(path, run, _):
    path.unlink()
    path.symlink_to(run.parent / "outside")


def dangling_link(path, *_):
    path.unlink()
    path.symlink_to("nowhere")


def circle(path, *_):
    path.unlink()
    path.symlink_to(path.name)


def nothing(path, *_):
    path.unlink()


def forbidden(path, *_):
    path.chmod(0)


def huge(path, *_):
    with path.open("ab") as file:
        file.truncate(2**30)


PLACES = {
    "another file of the run": another_file,
    "a directory": directory,
    "a pipe": pipe,
    "a link out of the run": link_out,
    "a dangling link": dangling_link,
    "a circle of links": circle,
    "nothing": nothing,
    "no permissions": forbidden,
    "a huge file": huge,
}
DAMAGE = [*CONTENTS, *PLACES]
assert len(DAMAGE) > 20


def damage(path, run, kind, chance):
    """Does it, unless the file stays as it was."""
    if kind in PLACES:
        PLACES[kind](path, run, chance)
        return True
    content = path.read_bytes()
    changed = CONTENTS[kind](content, chance)
    path.write_bytes(changed)
    return changed != content


ARTIFACT = "out/deploy/07-onnxruntime"
EVAL = ("eval", ARTIFACT, "--data", "tiny:data", "--json")
PACK = ("pack", "out", "-o", "packed.safetensors", "--json")
SENSITIVITY = ("sensitivity", "out", "--fractions", "0.5", "--json")
BENCH = ("bench", ARTIFACT, "--json")
WHOLE = {
    ".lock": [],
    "results.json": [],
    "results.md": [],
    "recipe.yaml": [EVAL],
    "environment.json": [SENSITIVITY],
    "sensitivity-normal.png": [SENSITIVITY],
    "steps/01-train.json": [EVAL],
    "steps/01-train.safetensors": [EVAL],
    "steps/02-prune.json": [SENSITIVITY],
    "steps/06-fuse.json": [EVAL, PACK],
    "steps/06-fuse.safetensors": [EVAL],
    "steps/06-fuse.packed.safetensors": [PACK],
    "steps/07-deploy.json": [],
    "deploy/07-onnxruntime/artifact.json": [EVAL],
    "deploy/07-onnxruntime/model.onnx": [EVAL],
    "deploy/07-onnxruntime/float/artifact.json": [BENCH],
    "deploy/07-onnxruntime/float/model.onnx": [BENCH],
}
"""The files of a finished run, and who reads them beside `micronet run`."""
PAIRS = [("whole", file, kind) for file in WHOLE for kind in DAMAGE]
PAIRS += [("half", "steps/01-train.epoch.pt", kind) for kind in DAMAGE]


@pytest.fixture(scope="module")
def states(whole_deployed_run, make_project, tmp_path_factory):
    """A run that ended, and one that was killed in its first training, with what readers say."""
    half = make_project(tmp_path_factory.mktemp("half"))
    half.write_longer_recipe("deploy")
    assert half.run(MISHAP="killed", MISHAP_AT="after 01-train.epoch.pt 2").returncode == -9
    whole = make_project(tmp_path_factory.mktemp("told"))
    whole.write_longer_recipe("deploy")
    shutil.copytree(whole_deployed_run.out, whole.out)
    told = {command: whole.micronet(*command) for command in (EVAL, PACK, SENSITIVITY, BENCH)}
    assert all(each.returncode == 0 for each in told.values())
    return {"whole": whole, "half": half, "told": told}


def check(states, project, state, file, kind, seed):
    """Damages a file of a copy of a run, and uses it in every way."""
    chance = random.Random(f"{seed} {file} {kind}")
    shutil.copytree(states[state].out, project.out)
    project.write_longer_recipe("deploy")
    (project.folder / "outside").write_text("kept")
    path = project.out / file
    if not damage(path, project.out, kind, chance):
        return
    where = f"{state} {file}: {kind}"
    for command in WHOLE[file] if state == "whole" else ():
        done = project.micronet(*command)
        expect_words_or(done, states["told"][command].stdout, where)
    done = project.run()
    if done.returncode == 0:
        whole = states["whole"]
        assert project.weights() == whole.weights(), where
        assert project.rows() == whole.rows(), where
        lasting = [name for name in whole.files() if "sensitivity" not in name]
        assert set(lasting) <= set(project.files()), where
    else:
        expect_words_or(done, None, where)
    assert (project.folder / "outside").read_text() == "kept", where
    assert not (project.folder / "ran").exists(), where
    if kind == "a directory":
        assert (path / "thesis.txt").exists(), where
        project.run("--fresh")
        assert (path / "thesis.txt").exists(), where


def expect_words_or(done, printed, where):
    """The end in one sentence, or what the whole run gives."""
    assert "Traceback" not in done.stderr, f"{where}: {done.stderr}"
    if done.returncode == 0:
        assert same(done.stdout) == same(printed), f"{where}: {done.args} {done.stdout}"
        compared = json.loads(done.stdout).get("torch_accuracy", 1) is not None
        assert compared or "Compared with no torch model:" in done.stderr, where
        return
    assert done.returncode == 2, f"{where}: {done.args} {done.returncode} {done.stderr}"
    assert done.stdout == "", where
    assert done.stderr.strip().splitlines()[-1].startswith("micronet: "), f"{where} {done.stderr}"


def same(printed):
    """What a command prints, without times; where a model can't be compared with, without that."""
    told = json.loads(printed)
    if "latency" in told:
        return told["inputs"], told["outputs"]
    return {key: told[key] for key in ("images", "accuracy")} if "images" in told else told


SAMPLE = random.Random(7).sample(PAIRS, 8)


@pytest.mark.parametrize(("state", "file", "kind"), SAMPLE, ids=map(" ".join, SAMPLE))
def test_a_damaged_file_is_told_or_does_no_harm(states, project, state, file, kind):
    check(states, project, state, file, kind, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", DAMAGE)
def test_every_file_damaged_in_every_way_is_told_or_does_no_harm(
    states, make_project, tmp_path, kind
):
    for number, (state, file, each) in enumerate(PAIRS):
        if each == kind:
            project = make_project(tmp_path / str(number))
            check(states, project, state, file, kind, seed=1)
            shutil.rmtree(project.folder)
