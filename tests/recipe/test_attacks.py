"""Recipes that mean harm are refused in sentences, with little work and little memory."""

import os
import random
import sys
import tracemalloc
from contextlib import contextmanager
from importlib import resources

import pytest

from micronet.errors import MicronetError, RecipeError
from micronet.recipe import plain_yaml
from micronet.recipe.file import parse, read, shipped
from micronet.recipe.resolution import resolve_file

MOST_CALLS = 2_000_000
MOST_BYTES = 20_000_000

GOOD = "model: nin\ndata: digits\nseed: 1\nsteps:\n  - train: {epochs: 3}\n"


def chained(count, width):
    """A list of names, each of which stands for a list of the one before: an alias bomb."""
    levels = ["a0: &a0 [x, x]"]
    for level in range(1, count):
        names = ", ".join([f"*a{level - 1}"] * width)
        levels.append(f"a{level}: &a{level} [{names}]")
    return "\n".join(levels) + "\n"


def merged(count, width):
    levels = ["a0: &a0 {x: 1}"]
    for level in range(1, count):
        names = ", ".join([f"*a{level - 1}"] * width)
        levels.append(f"a{level}: &a{level} {{<<: [{names}], y{level}: 1}}")
    return "\n".join(levels) + "\n"


POISON = {
    "alias bomb": (chained(9, 9), "r.yaml:5: its aliases stand for more than 10,000 values."),
    "alias bomb of merges": (merged(9, 9), "its aliases stand for more than 10,000 values."),
    "a long chain of aliases": (chained(900, 1), "it nests too deeply."),
    "an alias of itself": ("model: &m [*m]\n", "r.yaml:1: an alias stands within what it names."),
    "deep": ("x: " + "[" * 60 + "]" * 60, "r.yaml:1: it nests too deeply."),
    "endlessly deep": ("[" * 100_000, "r.yaml:1: it nests too deeply."),
    "too long": ("#" * 1_000_001, "r.yaml: a recipe has at most 1,000,000 characters."),
    "a bool that is none": ("model: !!bool maybe\n", "r.yaml:1: 'maybe' is no bool."),
    "an integer that is none": ("\nmodel: !!int ''\n", "r.yaml:2: '' is no int."),
    "a float that is none": ("model: !!float x\n", "r.yaml:1: 'x' is no float."),
    "bytes": ("model: !!binary aGk=\n", "r.yaml:1: there is no !!binary in recipes, only"),
    "a set": ("model: !!set {a, b}\n", "r.yaml:1: there is no !!set in recipes, only mappings,"),
    "pairs": ("model: !!pairs [a: 1]\n", "r.yaml:1: there is no !!pairs in recipes"),
    "an ordered mapping": ("model: !!omap [a: 1]\n", "r.yaml:1: there is no !!omap in recipes"),
    "a day": ("model: 2024-01-01\n", "r.yaml:1: there is no !!timestamp in recipes"),
    "a day that is not": ("weights: 2024-02-30\n", "r.yaml:1: there is no !!timestamp"),
    "a value": ("model: =\n", "r.yaml:1: there is no !!value in recipes"),
    "code of Python": (
        "model: !!python/object/apply:os.system ['true']\n",
        "r.yaml:1: there is no !!python/object/apply:os.system in recipes",
    ),
    "a tag of one's own": ("model: !mine x\n", "r.yaml:1: there is no !mine in recipes"),
    "a long integer": (f"seed: {'9' * 5000}\n", "a number has at most 100 characters."),
    "a long hexadecimal": (f"seed: 0x{'f' * 9999}\n", "a number has at most 100 characters."),
    "a long time": (f"seed: 1{':59' * 99_999}\n", "a number has at most 100 characters."),
    "an octal": ("\nseed: 010\n", "r.yaml:2: readers of YAML disagree about 010; write 8 or 10,"),
    "no octal": ("seed: 08\n", "about 08; write 8, or quote it as a text."),
    "an octal of YAML 1.2": ("seed: -0o10\n", "about -0o10; write -8, or quote it as a text."),
    "a binary": ("seed: 0b11\n", "about 0b11; write 3, or quote it as a text."),
    "a time of day": ("seed: 1:30\n", "about 1:30; write 90, or quote it as a text."),
    "an underscore": ("seed: 1_000\n", "about 1_000; write 1000, or quote it as a text."),
    "a yes": (
        "steps: [deploy: {simplify: Yes}]\n",
        "about Yes; write true, or quote it as a text.",
    ),
    "an off as a key": ("off: 1\n", "about off; write false, or quote it as a text."),
    "an octal by its tag": ("seed: !!int '010'\n", "about 010; write 8 or 10, or quote it"),
    "an int that is a list": ("seed: !!int [1]\n", "r.yaml:1: expected a scalar node, but found"),
    "a NUL in a name": ('model: "nin\\0"\n', "the character U+0000 can't stand in a recipe."),
    "a terminal's code": ('"\\e[31m": nin\n', "the character U+001B can't stand in a recipe."),
    "half a character": ('model: "\\ud800"\n', "the character U+D800 can't stand in a recipe."),
    "a raw NUL": ("model: nin\n\0", "r.yaml:2: the character U+0000 can't stand in a recipe."),
    "a key that is no number": (".nan: 1\n", "r.yaml:1: a key must be a text."),
    "a key that is a list": ("? [a]\n: 1\n", "r.yaml:1: a key must be a text."),
}


@pytest.mark.parametrize(("text", "message"), POISON.values(), ids=POISON)
def test_poison_is_refused_with_little_work(text, message, tmp_path):
    tracemalloc.start()
    try:
        with bounded_work(), pytest.raises(RecipeError) as caught:
            parse(text, "r.yaml", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES + 20 * len(text)
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)
    assert str(caught.value).startswith("r.yaml:")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value", ["010", "08", "0o10", "1:30", "1_000", "yes", "-.5", "1e5", "off"]
)
def test_texts_that_look_like_numbers_are_written_so_that_they_stay_texts(value, tmp_path):
    content = {"weights": value, value: 1}
    assert parse(plain_yaml.dump(content), "r.yaml", tmp_path).content == content


def test_numbers_that_every_reader_knows_are_read(tmp_path):
    text = "[0, -0, 10, 0x1F, 1e-4, -.5, 1.5, .inf, true, False, null, y]"
    expected = [0, 0, 10, 31, 1e-4, -0.5, 1.5, float("inf"), True, False, None, "y"]
    assert parse(text, "r.yaml", tmp_path).content == expected


def test_a_change_is_refused_like_a_file():
    with pytest.raises(RecipeError, match=r"^--set seed=!!bool x:1: 'x' is no bool\.$"):
        read("quickstart", ["seed=!!bool x"])


def test_aliases_and_merges_of_honest_size_are_read(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: nin\ndata: digits\nsteps:\n  - train: &t {epochs: 3, lr: 0.1}\n"
        "  - train: *t\n  - train: {<<: *t, epochs: 1}\n"
    )
    recipe, _ = read(str(tmp_path / "r.yaml"))
    assert [(step.epochs, step.lr) for step in recipe.steps] == [(3, 0.1), (3, 0.1), (1, 0.1)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("seed: 4294967296", "seed must be at most 4294967295, got 4294967296."),
        ("seed: 1e30", "seed must be an integer, got 1e+30."),
        ("steps: [train: {lr: 1e400}]", "train: lr must be above 0, got inf."),
        ("steps: [train: {lr: 1e-320}]", "train: lr must be at least 1e-30, got 1e-320."),
        ("steps: [train: {sparsity: 1e30}]", "train: sparsity must be at most 1e+12, got 1e+30."),
        ("steps: [train: {workers: 1e30}]", "train: workers must be an integer, got 1e+30."),
        ("steps: [train: {workers: 99999}]", "train: workers must be at most 1024, got 99999."),
        ("steps: [train: {epochs: 10000000}]", "epochs must be at most 1000000, got 10000000."),
        ("steps: [train: {batch_size: 100000000}]", "batch_size must be at most 1000000, got 1"),
        ("steps: [train: {weight_decay: .inf}]", "weight_decay must be at least 0, got inf."),
        ("steps: [deploy: {latency_batch: 100000000}]", "latency_batch must be at most 65536,"),
        ("steps: [deploy: {threads: 100000}]", "threads must be at most 1024, got 100000."),
        ("model: {name: nin, num_classes: 10000000000}", "num_classes must be at most 1000000,"),
        (
            "steps: [quantize: {quantizer: iao, a_observer: {name: x, a: [.nan]}}]",
            "quantizer 'iao': a_observer must be a finite number, got nan.",
        ),
        (f"weights: {'w' * 5000}", "File name too long."),
        ("weights: ~nosuchuser/x", "~nosuchuser/x'."),
        ("data: {name: image_folder, root: ~nosuchuser/x}", "root '~nosuchuser/x' can't be read:"),
        (f"data: {{name: image_folder, root: {'w' * 5000}}}", "File name too long"),
    ],
)
def test_what_no_run_can_do_is_refused_at_its_line(value, message, tmp_path):
    key = value.partition(":")[0]
    lines = [value if line.startswith(key) else line for line in GOOD.splitlines()[:4]]
    lines += [] if key == "steps" else [GOOD.splitlines()[4]]
    lines += [] if value in lines else [value]
    (tmp_path / "r.yaml").write_text("\n".join(lines))
    with pytest.raises(RecipeError) as caught:
        resolve_file(str(tmp_path / "r.yaml"))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/r.yaml:{lines.index(value) + 1}: ")
    assert "\n" not in str(caught.value)


def pipe(path):
    os.mkfifo(path)


def endless(path):
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no room on the disk


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (pipe, "it is no file but a pipe"),
        (lambda path: path.mkdir(), "it is no file but a folder"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "it is not UTF-8 text"),
    ],
)
def test_what_is_no_file_is_no_recipe(make, reason, tmp_path):
    make(tmp_path / "r.yaml")
    with pytest.raises(RecipeError) as caught:
        read(str(tmp_path / "r.yaml"))
    assert str(caught.value) == f"{tmp_path}/r.yaml can't be read: {reason}."


def test_of_an_endless_file_only_the_start_is_read(tmp_path):
    endless(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="a recipe has at most 1,000,000 characters"):
        read(str(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    "name", ["r\0.yaml", "r" * 5000 + ".yaml", "~nosuchuser/r.yaml", "\x1b[31m"]
)
def test_a_name_of_any_shape_is_refused_in_a_short_sentence(name):
    with pytest.raises(RecipeError) as caught:
        read(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


PIECES = [
    "", ":", "-", "[", "]", "{", "}", "&a", "*a", "<<: *a", "!!bool maybe", "!!set {a}", "|", ">",
    "'", '"', "#", "\t", "\0", "\x1b", "\ud800", "\\0", "\u202e", "%YAML 9.9", "---", "...", "~",
    "null", "true", ".nan", ".inf", "-1", "0", "1e400", "1e-320", "1e30", "9" * 5000, "1:2:3",
    "0x" + "f" * 40, "4294967296", "2024-02-30", "=", "~nosuchuser/x", "x" * 5000, "a.b:c",
    "nin", "micronet:nin", ":", "train", "prune", "quantize", "freeze", "iao", "options: {}",
    "name: nin", "seed: 3", "weights: /dev/zero", "weights: .", "requires: ['a==']",
    "requires: [absent>=1]", "steps: 3", "[" * 40, "{a: " * 40, "? [a]",
]  # fmt: skip


def mutant(seed):
    """One of the shipped recipes, or of the poisonous ones, after a few random changes."""
    draw = random.Random(seed)
    folder = resources.files("micronet.recipe") / "shipped"
    names = sorted(shipped())
    texts = [(folder / f"{name}.yaml").read_text("utf-8") for name in names]
    poisonous = [text for text, _ in POISON.values() if len(text) < 2000]
    text = draw.choice([*texts * 5, *poisonous])
    for _ in range(draw.randint(1, 6)):
        start = draw.randint(0, len(text))
        end = min(len(text), start + draw.choice([0, 0, 1, 1, 5, 20, 80]))
        piece = draw.choice([*PIECES, text[start:end] * 2, "\n  - ", "\n", ", "])
        words = [word for word in text.split() if word.isalnum()]
        if draw.random() < 0.5 and words:
            text = text.replace(draw.choice(words), piece, draw.choice([1, 1, -1]))
        else:
            text = text[:start] + piece + text[end:]
    return text


def outcome(text, file):
    """The refusal, empty if there is none; anything else that happens is a failure."""
    file.write_text(text, "utf-8", errors="surrogatepass")
    try:
        with bounded_work():
            resolve_file(str(file), here=False)
    except MicronetError as error:
        return str(error)
    return ""


@contextmanager
def bounded_work():
    """Ends what calls too many functions; a counter is the same on every machine."""
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls > MOST_CALLS:
            raise AssertionError("this takes too much work")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)


def attack(count, tmp_path):
    """How many of so many mutants are taken, and how many are refused at a line, briefly."""
    file = tmp_path / "r.yaml"
    told = [outcome(mutant(seed), file) for seed in range(count)]
    refusals = [text for text in told if text]
    assert [text for text in refusals if not text.startswith(str(file))] == []
    assert max(map(len, refusals)) < 100_000
    return count - len(refusals), len(refusals)


def test_a_mutated_recipe_is_taken_or_refused_in_words(tmp_path):
    assert min(attack(300, tmp_path)) > 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_mutated_recipes_are_taken_or_refused_in_words(tmp_path):
    taken, refused = attack(10_000, tmp_path)
    print(f"{taken} taken, {refused} refused")
    assert min(taken, refused) > 300
