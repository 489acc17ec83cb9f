"""What the pages say can be typed, opened and found: commands, links, files, settings."""

import argparse
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from printed import read_table

import nyuseg
from nyuseg.config.key_names import known_names, sections
from nyuseg.config.loading import load_config
from nyuseg.demo.data import write_demo
from nyuseg.utils.files import PROJECT, read_json

README = PROJECT / "README.md"
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted([*(PROJECT / "docs").glob("*.md"), *PROJECT.glob("*/README.md")])
PACKAGE = PROJECT / "src/nyuseg"
SCRIPTS = sorted((PROJECT / "src").glob("*.py"))
WORDS = 900  # Of the README, so that it is read to its end.
FILES = ("csv", "json", "log", "npy", "py", "zip")  # What follows a section's name in a file's.
NUMBERS = {"VERSION": "3"}  # A word that stands for what must be a number.


def page_name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


pages = pytest.mark.parametrize("page", PAGES, ids=page_name)


def blocks(text: str) -> list[str]:
    """The insides of the fenced blocks."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """Code within the sentences, each on one line."""
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]


def commands(text: str) -> Iterator[list[str]]:
    """Words of each 'python src/x.py ...' or 'python benchmarks/x.py ...', from the script on."""
    lines = [line for block in blocks(text) for line in block.splitlines()]
    for line in [*lines, *spans(text)]:
        if found := re.search(r"\bpython ((src|benchmarks)/\w+\.py.*)", line):
            words = shlex.split(re.sub(r" {3,}.*", "", found[1]), comments=True)
            yield [word for word in words if word != "&"]


# What can be typed

SAID = {
    f"{page_name(page)}: {' '.join(words)}": words
    for page in PAGES
    for words in commands(page.read_text())
}
# And the examples of each --help.
SAID |= {
    f"{page_name(script)}: {line.strip()}": next(commands(f"```\n{line.strip()}\n```\n"))
    for script in SCRIPTS
    for line in script.read_text().splitlines()
    if line.startswith("  python src/")
}


class Parsed(Exception):
    """Ends a script once its options are read."""


def parsed(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> argparse.Namespace:
    """The options that a script makes of its words."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(parser: argparse.ArgumentParser, *given) -> None:
        raise Parsed(parse(parser, *given))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    with pytest.raises(Parsed) as caught:
        import_module(Path(words[0]).stem).main([NUMBERS.get(word, word) for word in words[1:]])
    return caught.value.args[0]


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's configurations and the one that docs/training.md tells to write."""
    folder = tmp_path_factory.mktemp("configs")
    for path in (PROJECT / "configs").glob("*.yaml"):
        (folder / path.name).write_bytes(path.read_bytes())
    mine = next(b for b in blocks((PROJECT / "docs/training.md").read_text()) if "extends" in b)
    (folder / f"{yaml.safe_load(mine)['name']}.yaml").write_text(mine)
    return folder


@pytest.mark.parametrize("said", [said for said, words in SAID.items() if words[0][:4] == "src/"])
def test_a_command_is_understood(said: str, configs: Path, monkeypatch) -> None:
    options = parsed(monkeypatch, SAID[said])
    given = getattr(options, "config", None) or "exp060.yaml"
    names = [Path(name).name for name in (given if isinstance(given, list) else [given])]
    found = [path for name in names for path in configs.glob(name)]
    assert len(found) >= len(names)
    for path in found:
        load_config(path, getattr(options, "overrides", []))


def test_benchmarks_have_the_options_that_are_named() -> None:
    named = [words for words in SAID.values() if words[0].startswith("benchmarks/")]
    assert named
    for script, *words in named:
        source = (PROJECT / script).read_text()
        assert not [word for word in words if word[:2] == "--" and f'"{word}"' not in source]


@pages
def test_make_has_the_targets_that_are_named(page: Path) -> None:
    text = page.read_text()
    named = {
        target
        for code in [*blocks(text), *spans(text)]
        for target in re.findall(r"\bmake ([a-z-]+)", code)
    }
    known = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert named <= set(known)


def test_what_a_kernel_needs_is_installed_before_it_is_packaged() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    text = README.read_text()
    install, package = (re.search(p, text) for p in (r"-e '\.\[(\w+)\]'", r"package_kernel\.py"))
    assert install.start() < package.start()
    needed = {word.partition(">")[0] for word in extras["optional-dependencies"][install[1]]}
    assert {"nbformat", "kaggle", "six"} <= needed


@pages
def test_settings_that_are_named_exist(page: Path) -> None:
    name = re.compile(rf"(?:^|--set '?)({'|'.join(sections())})\.(\w+)")
    found = {pair for code in spans(page.read_text()) for pair in name.findall(code)}
    keys = {".".join(one) for one in found if one[1] not in FILES}
    old = {"predict.batch_size", "predict.views"} if page.name == "CHANGELOG.md" else set()
    assert keys - old <= known_names()


# What can be opened and found


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pages
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_code_that_is_named_exists(page: Path) -> None:
    for code in spans(page.read_text()):
        path = re.sub("^T/", "tests/", code)
        if re.fullmatch(r"[\w/]+/\w+\.py|[\w/]*data/[\w/]+\.csv", path):
            assert (PROJECT / path).exists() or (PACKAGE / path).exists(), code


def test_every_fault_has_the_tests_that_are_named() -> None:
    named = re.findall(r"`T/([\w/]+\.py)`([\w, ]*)", (PROJECT / "docs/faults.md").read_text())
    assert len(named) > 60
    for file, words in named:
        tests = re.findall(r"def (test_\w+)", (PROJECT / "tests" / file).read_text())
        for part in words.replace(",", " ").split():
            assert [test for test in tests if part in test], f"{file}: {part}"


def test_the_readme_is_short_and_its_map_has_every_folder() -> None:
    text = README.read_text()
    assert len(text.split()) <= WORDS
    listed = re.findall(r"^  (\w+) {2,}\S", text.partition("src/nyuseg/")[2], re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def test_the_changelog_begins_with_this_version() -> None:
    heads = re.findall(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == nyuseg.__version__


# What happens then. The README's commands are run in small: these words stand for others,
SMALL = {"0..4": "0..1", "YOUR_NAME": "alice", "SLUG": "rooms"}
# these options are added unless they are given, so that all lies in a folder of the test,
ADDED = {
    "prepare_data": {"--input": "input"},
    "train_folds": {"--input": "input", "--oof": "oof"},
    "infer": {"--oof": "oof", "--submissions": "submissions"},
    "report": {"--oof": "oof"},
    "package_kernel": {"--oof": "oof", "--output": "kaggle_kernel", "--precision": "fp32"},
    "check_kernel": {"--input": "input", "--kernel": "kaggle_kernel"},
}
# these settings make a network of seconds,
TINY = ("model.encoder=tu-test_resnet", "model.encoder_weights=null", "data.size=[48,64]")
TINY += ("train.epochs=1", "train.batch_size=4", "folds.count=2")
# and these are left out: tiny rooms stand for either data set, and tests/kaggle has the upload.
LEFT_OUT = ("prepare_data.py demo", "prepare_data.py nyuv2", "--push", "--submit")


def run_small(words: list[str]) -> None:
    if any(part in " ".join(words) for part in LEFT_OUT):
        return
    script = Path(words[0]).stem
    argv = [SMALL.get(word, word) for word in words[1:]]
    for option, value in ADDED.get(script, {}).items():
        argv += [option, value] * (option not in argv)
    if script == "train_folds":
        argv += [f"--set={change}" for change in TINY]
    import_module(script).main(argv)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty copy of the project's folders, with tiny rooms; the test runs in it."""
    for seed, root in enumerate((tmp_path / "input", tmp_path / "input/demo")):
        write_demo(root, scenes=5, frames=2, test_scenes=2, size=(48, 64), seed=seed)
    (tmp_path / "kaggle_kernel").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made_by(target: str) -> Iterator[list[str]]:
    """The commands of a target of the Makefile, its loops written out; two folds."""
    make = ["make", "-C", str(PROJECT), "-n", target, "FOLDS=0 1"]
    text = subprocess.run(make, capture_output=True, text=True, check=True).stdout
    for line in text.replace("\\\n", " ").splitlines():
        command = re.search(r"src/\w+\.py [^|;]*", line)
        loop = re.match(r"for (\w+) in ([^;]*);", line)
        for value in loop[2].split() if loop else [""] if command else []:
            yield shlex.split(command[0].replace(f"${loop[1]}", value) if loop else command[0])


@pytest.mark.slow
def test_make_demo_ends_with_hidden_scores(work: Path, capsys) -> None:
    assert "make demo" in README.read_text()
    for words in made_by("demo"):
        run_small(words)
    table = read_table(capsys.readouterr().out, "submission")
    assert {"demo_fold0", "demo_fold1", "demo", "demo_tta"} < set(table)
    assert all(0 < float(row["mIoU"]) < 1 for row in table.values())


@pytest.mark.slow
def test_the_readme_leads_from_the_data_to_a_checked_kernel(work: Path, capsys) -> None:
    for words in commands(README.read_text()):
        run_small(words)
    assert read_json(work / "oof/exp060/cv.json")["images"] == 10
    made = {path.name for path in (work / "submissions/exp060_tta").iterdir()}
    assert {"submission.csv", "submission.npy", "submission.zip"} < made
    assert (work / "kaggle_kernel/kernel/kernel-metadata.json").is_file()
    assert "the kernel gives the masks of infer.py" in capsys.readouterr().out
