"""Collect the messages that the program gives its users, from the source."""

import ast
from typing import NamedTuple

from tests.helpers import ROOT

PACKAGES = ("utils", "references", "distortions", "models", "training", "evaluation")
EXCEPTIONS = ("UserError", "Damaged", "Failed", "FileNotFoundError", "ArgumentTypeError")
ELLIPSIS = "…"  # stands for what is only known when the message is given


class Message(NamedTuple):
    """A message as it stands in the source, with ELLIPSIS for each value in it."""

    place: str
    text: str


def collect() -> list[Message]:
    """Return every message of an exception that reaches users, in the order of the files."""
    messages = []
    files = [
        *ROOT.glob("*.py"),
        *(path for name in PACKAGES for path in (ROOT / name).glob("*.py")),
    ]
    for path in sorted(files):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and _is_told(call) and call.args:
                text = _text_of(call.args[0], tree)
                if text.strip(ELLIPSIS + " ;."):
                    messages.append(Message(f"{path.relative_to(ROOT)}:{call.lineno}", text))
    return messages


def _is_told(call):
    function = call.func
    name = getattr(function, "id", getattr(function, "attr", ""))
    owner = getattr(getattr(function, "value", None), "id", "")
    return name in EXCEPTIONS or name == "error" or (owner == "parser" and name == "error")


def _text_of(node, tree):
    """Return the text of a string's node, with ELLIPSIS for what is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(value, tree) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text_of(node.left, tree) + _text_of(node.right, tree)
    if isinstance(node, ast.FormattedValue):
        return _text_of(node.value, tree) if isinstance(node.value, ast.Name) else ELLIPSIS
    if isinstance(node, ast.Name):
        return _constant(node.id, tree)
    return ELLIPSIS


def _constant(name, tree):
    """Return the text that a name stands for, or ELLIPSIS."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == name:
            return _text_of(statement.value, tree)
    return ELLIPSIS
