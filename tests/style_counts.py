"""Count what the code's style sets limits to: python -m tests.style_counts"""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.test_layering import ROOT, owner, python_files

WIDTH = 100
MAX_UNPACKING = 0.08  # share of the assignments
MAX_COMPREHENSIONS = 4  # per 100 lines

# "product" is the scripts and packages, and what writes the tables of docs.
GROUPS = "product", "ablations", "benchmarks", "tests"
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Counts:
    """What was counted in a group of files; the lists hold file:line."""

    lines: int = 0
    assignments: int = 0
    unpacking: int = 0
    comprehensions: int = 0
    long_lines: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)  # not formatted, matrices excepted
    unannotated: list[str] = field(default_factory=list)  # public functions and methods

    @property
    def unpacking_share(self) -> float:
        return self.unpacking / max(self.assignments, 1)

    @property
    def comprehensions_per_100_lines(self) -> float:
        return 100 * self.comprehensions / max(self.lines, 1)

    def add(self, text: str, name: str) -> None:
        """Count one file."""
        tree = ast.parse(text)
        nodes = list(ast.walk(tree))
        assignments = [node for node in nodes if isinstance(node, ast.Assign | ast.AnnAssign)]

        self.lines += text.count("\n")
        self.assignments += len(assignments)
        self.unpacking += sum(map(unpacks, assignments))
        self.comprehensions += sum(isinstance(node, COMPREHENSIONS) for node in nodes)
        self.long_lines += [f"{name}:{line}" for line in long_lines(text)]
        self.skips += [f"{name}:{line}" for line in skips(text, nodes)]
        self.unannotated += [f"{name}:{line}" for line in unannotated(tree)]


def count_groups(*groups: str, root: Path = ROOT) -> Counts:
    """Count the files of one or more of GROUPS together."""
    counts = Counts()
    for file in python_files(root):
        if group_of(file, root) in groups:
            counts.add(file.read_text(), str(file.relative_to(root)))
    return counts


def group_of(file: Path, root: Path) -> str:
    name = owner(file, root)
    return name if name in GROUPS else "product"


def unpacks(assignment: ast.Assign | ast.AnnAssign) -> bool:
    """Tell whether a statement assigns to several names at once, as `a, b = …` does."""
    targets = assignment.targets if isinstance(assignment, ast.Assign) else [assignment.target]
    return any(isinstance(target, ast.Tuple | ast.List) for target in targets)


def long_lines(text: str) -> list[int]:
    """List the lines over WIDTH characters that hold no URL."""
    lines = enumerate(text.splitlines(), start=1)
    return [i for i, line in lines if len(line) > WIDTH and "://" not in line]


def skips(text: str, nodes: list[ast.AST]) -> list[int]:
    """List the lines that ruff's format leaves alone and that end no matrix."""
    matrix_ends = {node.end_lineno for node in nodes if is_matrix(node)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    marked = [
        token for token in comments if "fmt: skip" in token.string or "fmt: off" in token.string
    ]
    return [token.start[0] for token in marked if token.start[0] not in matrix_ends]


def is_matrix(node: ast.AST) -> bool:
    """Tell whether a node is rows of equal length, or a table of 16 or more numbers."""
    if not isinstance(node, ast.Tuple | ast.List):
        return False
    row_lengths = [len(row.elts) for row in node.elts if isinstance(row, ast.Tuple | ast.List)]
    if len(row_lengths) == len(node.elts) >= 2:
        return len(set(row_lengths)) == 1
    return len(node.elts) >= 16 and not any(map(is_text, node.elts))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)


def unannotated(tree: ast.Module) -> list[int]:
    """List the lines of public functions and methods that lack an annotation."""
    return [function.lineno for function in public_functions(tree) if not is_annotated(function)]


def public_functions(scope: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yield the functions of a module and the methods of its public classes."""
    for node in scope.body:
        private = getattr(node, "name", "").startswith("_")
        if isinstance(node, ast.ClassDef) and not private:
            yield from public_functions(node)
        elif isinstance(node, FUNCTIONS) and (not private or node.name.endswith("__")):
            yield node


def is_annotated(function: ast.FunctionDef) -> bool:
    given = function.args
    args = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    bare = [arg.arg for arg in args if arg and arg.annotation is None]
    exempt = {"self", "cls", "ctx"}
    has_result = function.returns is not None or function.name == "__init__"
    return has_result and set(bare) <= exempt


def main() -> None:
    counts = {group: count_groups(group) for group in GROUPS}
    rows = {
        "lines": lambda c: str(c.lines),
        f"lines over {WIDTH} characters": lambda c: str(len(c.long_lines)),
        "assignments": lambda c: str(c.assignments),
        "that unpack a tuple": lambda c: f"{c.unpacking_share:.1%}",
        "comprehensions per 100 lines": lambda c: f"{c.comprehensions_per_100_lines:.1f}",
        "fmt: skip but on matrices": lambda c: str(len(c.skips)),
        "unannotated public functions": lambda c: str(len(c.unannotated)),
    }
    print(f"{'':32}" + "".join(f"{group:>12}" for group in GROUPS))
    for title, show in rows.items():
        print(f"{title:32}" + "".join(f"{show(counts[group]):>12}" for group in GROUPS))

    total = count_groups(*GROUPS[:3]).lines
    print(f"\nproduct, ablations and benchmarks: {total} lines")
    for group in GROUPS:
        for place in counts[group].skips:
            print(f"fmt: skip    {place}")
        for place in counts[group].unannotated if group != "tests" else ():
            print(f"unannotated  {place}")


if __name__ == "__main__":
    main()
