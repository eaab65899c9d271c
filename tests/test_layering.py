"""Who may import whom, and what the modules are called, read from the source by `ast`."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A file may import what has a lower number, and the package that it is in.
SCRIPTS = 5
LAYERS = {
    "ablations": 6,
    "benchmarks": 6,
    "docs": 6,
    "tests": 6,
    "training": 4,
    "evaluation": 3,
    "distorted_dataset": 2,
    "distortions": 1,
    "references": 1,
    "models": 1,
    "utils": 0,
}
FREE = "ablations", "benchmarks", "docs", "tests"  # may import everything
MAX_SCRIPTS = 10  # Python files at the top level
HEAVY = "matplotlib", "scipy.stats", "skimage", "sklearn", "torchvision"  # --help does without
SEVERAL_ALLOWED = ("figures",)  # of the distortions, and of a tested run

# Starts a script as `python script.py` does, which puts the script's folder first.
PATH_EMULATION = "tests/helpers.py"


class Import(NamedTuple):
    line: int
    module: str  # dotted; of `from x import y` it is x.y, as y may be a module
    at_top: bool  # runs when the file is imported


def python_files(root: Path) -> list[Path]:
    """List the project's files: at the top level, in its packages and in docs."""
    packages = [folder for folder in root.iterdir() if is_package(folder)]
    nested = [file for folder in packages for file in folder.rglob("*.py")]
    return sorted([*root.glob("*.py"), *nested])


def is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file() or (folder.name == "docs" and folder.is_dir())


def owner(file: Path, root: Path) -> str:
    """Name the package of a file, or the module, if it lies at the top level."""
    return file.relative_to(root).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    return LAYERS.get(name, SCRIPTS)


def read_imports(file: Path, root: Path) -> list[Import]:
    """Read every import of a file, those inside functions and conditions too."""
    package = file.relative_to(root).parent.parts
    return list(walk_imports(ast.parse(file.read_text()), package, at_top=True))


def walk_imports(node: ast.AST, package: tuple[str, ...], at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(child.lineno, alias.name, at_top)
        elif isinstance(child, ast.ImportFrom):
            # Each leading dot after the first goes one package up.
            above = package[: len(package) - child.level + 1] if child.level else ()
            for alias in child.names:
                parts = [*above, *filter(None, [child.module]), alias.name]
                yield Import(child.lineno, ".".join(parts), at_top)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            never = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk_imports(child, package, at_top and not (later or never))


def upward_imports(root: Path) -> list[str]:
    """List the imports of what does not stand below the importing file."""
    files = python_files(root)
    own = {owner(file, root) for file in files}
    wrong = []
    for file in files:
        importer = owner(file, root)
        if importer in FREE:
            continue
        for imported in read_imports(file, root):
            name = imported.module.split(".")[0]
            if name in own and name != importer and layer(name) >= layer(importer):
                wrong.append(f"{file.relative_to(root)}:{imported.line} imports {imported.module}")
    return wrong


def unplaced_packages(root: Path) -> list[str]:
    """List the packages that have no layer."""
    packages = {folder.name for folder in root.iterdir() if is_package(folder)}
    return sorted(packages - set(LAYERS))


def path_changes(root: Path) -> list[str]:
    """List the lines outside PATH_EMULATION that mention sys.path in code."""
    found = []
    for file in python_files(root):
        name = str(file.relative_to(root))
        if name == PATH_EMULATION:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            of_sys = isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"
            from_sys = isinstance(node, ast.ImportFrom) and node.module == "sys"
            if of_sys or (from_sys and "path" in [alias.name for alias in node.names]):
                found.append(f"{name}:{node.lineno}")
    return found


def repeated_names(root: Path) -> list[str]:
    """List modules that bear the name of another.

    In the product every name occurs once, but for SEVERAL_ALLOWED. Ablations, benchmarks, docs and
    tests keep to names that no script and no package has.
    """
    files = [file for file in python_files(root) if file.name != "__init__.py"]
    product = [file for file in files if owner(file, root) not in FREE]
    taken = [folder.name for folder in root.iterdir() if is_package(folder)]
    repeated = []
    for file in product:
        if file.stem in taken and file.stem not in SEVERAL_ALLOWED:
            repeated.append(str(file.relative_to(root)))
        taken.append(file.stem)
    top_level = {owner(file, root) for file in python_files(root)}
    for file in files:
        if file not in product and file.stem in top_level:
            repeated.append(str(file.relative_to(root)))
    return repeated


def heavy_imports(root: Path) -> list[str]:
    """List packages whose import brings a slow library, through whatever modules of the project."""
    modules = {}
    for file in python_files(root):
        parts = file.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file

    found = []
    for package, file in modules.items():
        if file.name != "__init__.py" or package.split(".")[0] in FREE:
            continue
        for module, library in reached_libraries(package, modules, root):
            found.append(f"import {package}: {module} imports {library}")
    return found


def reached_libraries(
    start: str, modules: dict[str, Path], root: Path
) -> Iterator[tuple[str, str]]:
    """Follow the imports that run on `import start`, to each slow library."""
    seen = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for imported in read_imports(modules[module], root):
            if not imported.at_top:
                continue
            if f"{imported.module}.".startswith(tuple(f"{name}." for name in HEAVY)):
                yield module, imported.module
            # `import a.b.c` runs a, a.b and a.b.c.
            parts = imported.module.split(".")
            prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
            waiting += [prefix for prefix in prefixes if prefix in modules]


def test_imports_point_downward():
    assert upward_imports(ROOT) == []


def test_every_package_has_a_layer():
    assert unplaced_packages(ROOT) == []


def test_nothing_changes_the_search_path():
    assert path_changes(ROOT) == []


def test_no_module_name_occurs_twice():
    assert repeated_names(ROOT) == []


def test_no_package_is_called_data():
    """`data` is the default of --data_root, and ignored by git."""
    files = python_files(ROOT)

    assert not [file for file in files if "data" in file.relative_to(ROOT).with_suffix("").parts]


def test_top_level_stays_small():
    assert len(list(ROOT.glob("*.py"))) <= MAX_SCRIPTS


def test_packages_import_no_slow_library():
    assert heavy_imports(ROOT) == []


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Write a small project of every layer, and the files that a test adds."""
    packages = [name for name in LAYERS if name not in ("docs", "distorted_dataset")]
    empty = dict.fromkeys([f"{package}/__init__.py" for package in packages], "")
    modules = dict.fromkeys(["train.py", "distorted_dataset.py", "utils/files.py"], "")
    for name, text in {**empty, **modules, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "name, line",
    [
        ("utils/rng.py", "import models"),
        ("utils/rng.py", "from references import sources"),
        ("utils/rng.py", "def f():\n    import training.loop"),
        ("utils/rng.py", "if 1:\n    from train import main"),
        ("models/net.py", "from distortions.registry import LEVELS"),
        ("references/photos.py", "import distorted_dataset as d"),
        ("distorted_dataset.py", "from evaluation import metrics"),
        ("evaluation/metrics.py", "import ablations.run"),
        ("training/loop.py", "import os, train"),
        ("training/loop.py", "import tests.helpers"),
        ("other_script.py", "from train import parse_args"),
    ],
)
def test_an_upward_import_is_found(tmp_path, name, line):
    root = write_tree(tmp_path, {name: line})

    found = upward_imports(root)

    assert len(found) == 1
    assert found[0].startswith(f"{name}:{line.count(chr(10)) + 1} ")


@pytest.mark.parametrize(
    "name, line",
    [
        ("train.py", "import training.loop, evaluation, distorted_dataset, models, utils"),
        ("models/net.py", "from . import mixture\nfrom .mixture import Mixture\nimport utils"),
        ("models/net.py", "import models.mixture"),
        ("ablations/run.py", "import train, benchmarks, tests.helpers"),
        ("tests/test_it.py", "import train, ablations"),
    ],
)
def test_a_downward_import_passes(tmp_path, name, line):
    assert upward_imports(write_tree(tmp_path, {name: line})) == []


def test_a_package_without_a_layer_is_found(tmp_path):
    root = write_tree(tmp_path, {"extras/__init__.py": ""})

    assert unplaced_packages(root) == ["extras"]


@pytest.mark.parametrize(
    "line",
    ["import sys\nsys.path.insert(0, '..')", "#\nfrom sys import path", "#\nsys.path += ['']"],
)
def test_a_change_of_the_search_path_is_found(tmp_path, line):
    root = write_tree(tmp_path, {"benchmarks/speed.py": line})

    assert path_changes(root) == ["benchmarks/speed.py:2"]


@pytest.mark.parametrize(
    "name, found",
    [
        ("models/files.py", "utils/files.py"),
        ("models/utils.py", "models/utils.py"),
        ("training/train.py", "training/train.py"),
        ("ablations/training.py", "ablations/training.py"),
        ("benchmarks/train.py", "benchmarks/train.py"),
    ],
)
def test_a_repeated_name_is_found(tmp_path, name, found):
    assert repeated_names(write_tree(tmp_path, {name: ""})) == [found]


def test_figures_may_occur_twice(tmp_path):
    root = write_tree(tmp_path, {"distortions/figures.py": "", "evaluation/figures.py": ""})

    assert repeated_names(root) == []


@pytest.mark.parametrize(
    "line",
    ["import sklearn", "from scipy import stats", "try:\n    import matplotlib.pyplot\nfinally: 0"],
)
def test_a_slow_import_is_found_through_a_module(tmp_path, line):
    files = {"models/__init__.py": "from models.net import Net", "models/net.py": line}

    found = heavy_imports(write_tree(tmp_path, files))

    assert len(found) == 1
    assert found[0].startswith("import models: models.net imports ")


@pytest.mark.parametrize(
    "line", ["def f():\n    import sklearn", "if typing.TYPE_CHECKING:\n    import sklearn"]
)
def test_a_slow_import_that_waits_passes(tmp_path, line):
    root = write_tree(tmp_path, {"models/__init__.py": line})

    assert heavy_imports(root) == []
