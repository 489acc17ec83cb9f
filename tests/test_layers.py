"""The design, enforced on the source: imports only point down, predicting sees no label."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
# The folders of the library; imports only go from later to earlier ones.
ORDER = (
    "utils",
    "config",
    "data",
    "demo",
    "experiment",
    "dataloading",
    "models",
    "inference",
    "submission",
    "evaluation",
    "training",
    "ensembling",
    "analysis",
    "report",
    "kaggle",
)
WITHOUT_TORCH = {"utils", "config", "data", "demo", "experiment"}
# Entry scripts that need no torch call these, which then must not load it either.
ALSO_WITHOUT_TORCH = {"evaluation.leaderboard", "kaggle.push", "submission.formats"}
# The rule of the name 'label': these folders, and what predicts inside the kernel.
PREDICTING = {"models", "inference"}
ALSO_PREDICTING = {"submission.writing", "kaggle.budget", "kaggle.kernel", "ensembling.stored"}
ALSO_PREDICTING |= {"kaggle.kernel_script", "kaggle.mounts"}
ONLY_IN = {
    "albumentations": {"dataloading.augmentation"},
    "ttach": {"inference.tta"},
    "segmentation_models_pytorch": {
        *("models.network", "models.plain_transformer", "models.separable", "training.losses"),
    },
    "matplotlib": {"analysis.forest_plot", "evaluation.learning_curves"},
}
TORCH_FAMILY = {"torch", "torchvision", "timm", "safetensors", *ONLY_IN}
TORCH_FAMILY -= {"matplotlib"}  # Behind one module too, but without torch.

MODULES = {
    ".".join(path.relative_to(SRC / "nyuseg").with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SRC / "nyuseg").rglob("*.py"))
    if path != SRC / "nyuseg/__init__.py"
}
SCRIPTS = sorted(SRC.glob("*.py"))


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions; `from a import b`: a and a.b."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno}: write the import as nyuseg.x"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Modules of nyuseg that a file imports, without the prefix."""
    names = {name.removeprefix("nyuseg.") for name in imported(path) if name.startswith("nyuseg.")}
    return names & set(MODULES)


def packages(path: Path) -> set[str]:
    """Top-level names of everything that a file imports."""
    return {name.partition(".")[0] for name in imported(path)}


@cache
def reach(name: str) -> frozenset[str]:
    """The module and all modules of nyuseg that it imports, directly or not."""
    found, todo = set(), [name]
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += own_imports(MODULES[module])
    return frozenset(found)


def string_constants(path: Path) -> list[str]:
    """All strings of a file but its docstrings."""
    skipped = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped.add(id(first.value))
    return [
        node.value
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skipped
    ]


def identifiers(node: ast.AST) -> set[str]:
    """All names, attributes, arguments and imported names below a node."""
    found = set()
    for part in ast.walk(node):
        for field in ("id", "attr", "arg", "name", "asname"):
            value = getattr(part, field, None)
            if isinstance(value, str):
                found.add(value)
    return found


def folder(name: str) -> str:
    return name.partition(".")[0]


def test_every_folder_has_its_place() -> None:
    assert len(MODULES) > 60
    assert {folder(name) for name in MODULES} == set(ORDER)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    rank = ORDER.index(folder(name))
    above = sorted(n for n in own_imports(MODULES[name]) if ORDER.index(folder(n)) > rank)
    assert not above, f"{name} imports {above}, of a later folder"


def test_no_import_cycles() -> None:
    graph = {name: own_imports(path) - {name} for name, path in MODULES.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", MODULES)
def test_no_module_knows_the_entry_scripts(name: str) -> None:
    assert not packages(MODULES[name]) & {script.stem for script in SCRIPTS}


PURE = [n for n in MODULES if folder(n) in WITHOUT_TORCH or n in ALSO_WITHOUT_TORCH]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_never_reach_torch(name: str) -> None:
    guilty = {m: packages(MODULES[m]) & TORCH_FAMILY for m in reach(name)}
    assert not {m: found for m, found in guilty.items() if found}, f"reached from {name}"


def test_no_dependency_of_a_pure_module_loads_torch() -> None:
    code = "import sys\n" + "".join(f"import nyuseg.{name}\n" for name in PURE)
    code += f"print(sorted({TORCH_FAMILY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", "a module without torch loads it through a dependency"


def test_scikit_learn_is_loaded_only_where_folds_are_drawn() -> None:
    code = "import sys, nyuseg.training.pipeline, nyuseg.inference.loading, nyuseg.kaggle.kernel\n"
    code += "print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_the_package_itself_imports_nothing() -> None:
    assert not list(imported(SRC / "nyuseg/__init__.py"))


@pytest.mark.parametrize("package", ONLY_IN)
def test_library_is_kept_behind_one_module(package: str) -> None:
    users = {name for name, path in MODULES.items() if package in packages(path)}
    assert users == ONLY_IN[package]
    assert not [script.name for script in SCRIPTS if package in packages(script)]


@pytest.mark.parametrize(
    "name", [n for n in MODULES if folder(n) in PREDICTING or n in ALSO_PREDICTING]
)
def test_what_predicts_cannot_name_a_label(name: str) -> None:
    path = MODULES[name]
    assert not [text for text in string_constants(path) if "label" in text.lower()]
    assert not {n for n in identifiers(parse(path)) if "label" in n.lower()}


def test_prediction_set_cannot_name_a_label() -> None:
    classes = [
        node
        for node in parse(MODULES["dataloading.dataset"]).body
        if isinstance(node, ast.ClassDef)
    ]
    found = next(node for node in classes if node.name == "PredictionSet")
    assert not {n for n in identifiers(found) if "label" in n.lower()}
    reads = [node for node in ast.walk(found) if isinstance(node, ast.Call)]
    kinds = [ast.unparse(node.args[1]) for node in reads if ast.unparse(node.func) == "self._read"]
    assert kinds == ["('image', 'depth')[:1 + self.depth]"]  # And its source opens no other file.


def test_ensemble_alone_makes_probabilities() -> None:
    # There is one path from logits to probabilities; a second one would drift from it.
    users = [n for n, path in MODULES.items() if identifiers(parse(path)) & {"softmax", "Softmax"}]
    assert users == ["inference.ensemble"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_entry_scripts_are_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 80
    assert packages(path) & TORCH_FAMILY == set()
    assert ast.get_docstring(parse(path))


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short_and_documented(name: str) -> None:
    path = MODULES[name]
    assert len(path.read_text().splitlines()) < 300
    assert ast.get_docstring(parse(path)), f"{path}: no docstring"
    for node in parse(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"
