"""`pip install .`: the library and a copied script work without the clone, from any folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nyuseg.utils.files import PROJECT

# What the installed library knows of itself, its tables and the code's commit.
FACTS = """
import nyuseg, torch
from nyuseg.data.folds import NYUV2_FOLDS, read_folds
from nyuseg.models.device import environment
print(nyuseg.__file__, len(read_folds(NYUV2_FOLDS)))
print(environment(torch.device("cpu"), "fp32")["commit"])
"""


def python(*words: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    environment = os.environ | variables
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def pip(*words: object, cwd: Path) -> None:
    done = python("-m", "pip", "--quiet", "--disable-pip-version-check", *words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library, installed from a wheel that is built without network."""
    work = tmp_path_factory.mktemp("install")
    # Of a copy: a build leaves files behind.
    left_out = shutil.ignore_patterns("*.egg-info", "__pycache__", "build")
    shutil.copytree(PROJECT / "src", work / "copy/src", ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, work / "copy")
    offline = ("--no-deps", "--no-index")
    pip("wheel", *offline, "--no-build-isolation", "--wheel-dir=wheels", "./copy", cwd=work)
    (wheel,) = (work / "wheels").iterdir()
    pip("install", *offline, "--target=library", wheel, cwd=work)
    shutil.rmtree(work / "copy")
    return work / "library"


def run_copy(script: str, *words: object, cwd: Path, library: Path):
    """Run a copy of an entry script, which lies in a folder of its own, with the library."""
    folder = library.parent / "scripts"
    folder.mkdir(exist_ok=True)
    shutil.copy(PROJECT / "src" / script, folder)
    # An editable install may be in this environment too; PYTHONPATH comes before it.
    return python(folder / script, *words, cwd=cwd, PYTHONPATH=str(library))


def test_every_module_and_table_is_installed(library: Path) -> None:
    def content(root: Path) -> dict[Path, bytes]:
        files = [path for kind in ("*.py", "*.csv") for path in root.rglob(kind)]
        return {path.relative_to(root): path.read_bytes() for path in files}

    assert content(library / "nyuseg") == content(PROJECT / "src/nyuseg")


def test_it_reads_its_own_tables_and_claims_no_commit(library: Path) -> None:
    # In the clone, whose commit need not be that of the installed code.
    done = python("-c", FACTS, cwd=PROJECT, PYTHONPATH=str(library))
    place = library / "nyuseg/__init__.py"
    assert done.stdout.splitlines() == [f"{place} 795", "None"], done.stderr


@pytest.mark.parametrize("script", ["prepare_data.py", "train_folds.py", "package_kernel.py"])
def test_a_copied_script_helps(script: str, library: Path, tmp_path: Path) -> None:
    done = run_copy(script, "--help", cwd=tmp_path, library=library)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script} ")


def test_a_copied_script_looks_where_it_runs(library: Path, tmp_path: Path, tiny_folder) -> None:
    tiny_folder(tmp_path / "input", [(7, 9)] * 3, scenes=list("abc"))
    done = run_copy("prepare_data.py", "check", cwd=tmp_path, library=library)
    config = tmp_path / "configs/exp060.yaml"
    assert done.returncode == 1
    assert done.stderr == f"error: {config}: no such configuration file\n"
    shutil.copytree(PROJECT / "configs", config.parent)
    done = run_copy("prepare_data.py", "check", cwd=tmp_path, library=library)
    assert done.returncode == 0, done.stderr
    assert f"no fault in {tmp_path / 'input'}: " in done.stdout
