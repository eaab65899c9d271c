"""Commands that can be pasted, and output that every stream takes."""

import ast
import io
import shlex
import shutil
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.test_layering import python_files
from utils import terminal
from utils.runs import command_to_test, command_to_train
from utils.terminal import accept_any_encoding, flag, quote, readable, script_command

# What an argument of a program may hold: every character but the null, and bytes that are no UTF-8.
CHARACTERS = st.one_of(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    st.sampled_from("\udc80\udce9\udcff"),
    st.sampled_from(" \t\n'\"$`\\!*?#&|;<>()[]{}~-=%^\x1b0123456789abcdef"),
)
WORDS = st.lists(st.text(CHARACTERS), min_size=1, max_size=4)
ENCODINGS = ("utf-8", "cp1252", "latin-1", "cp850", "cp932", "cp1251", "ascii")


@given(words=WORDS.filter(lambda words: all(word.isprintable() for word in words)))
def test_what_can_be_shown_is_quoted_for_every_shell(words):
    assert shlex.split(quote(*words)) == words


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@settings(deadline=None, max_examples=60)
@given(words=WORDS)
@example(
    words=["-x", "$HOME", "it's", "two\nlines", "\udce9f", "\x1b[31m", "\u200f", "a\\", "!!", ""]
)
def test_bash_reads_the_words_back(words):
    command = f"printf '%s\\0' {quote(*words)}"

    output = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout

    assert output.decode("utf-8", "surrogateescape").split("\0")[:-1] == words


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_reads_back_what_an_old_terminal_shows(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    words = ["图像 1", "ƒé", "it's – 2", "→"]

    quoted = quote(*words)

    assert "é" in quoted
    quoted.encode("cp1252")
    output = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {quoted}"], capture_output=True, check=True
    ).stdout
    assert output.decode().split("\0")[:-1] == words


@given(words=WORDS)
def test_a_command_is_one_line(words):
    assert len(quote(*words).splitlines()) == 1


@pytest.mark.parametrize(
    "word, expected",
    (
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("a&b", '"a&b"'),
        ("(1)", '"(1)"'),
        ("a&b\\", '"a&b\\\\"'),
        ("C:\\My Drive\\pics", '"C:\\My Drive\\pics"'),
        ("C:\\pics", "C:\\pics"),
        ('a"b', 'a\\"b'),
        ("", '""'),
    ),
)
def test_words_are_quoted_for_windows(word, expected):
    assert terminal._quote_for_windows(word) == expected


def test_a_value_with_a_dash_is_no_flag():
    assert flag("--experiment_name", "base") == ["--experiment_name", "base"]
    assert flag("--experiment_name", "-x") == ["--experiment_name=-x"]


def test_no_text_is_read_or_written_in_the_locales_encoding():
    """A JSON file that one machine wrote, another can read."""
    found = []
    for file in python_files(terminal._PROJECT):
        if file.relative_to(terminal._PROJECT).parts[0] == "tests":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and is_text_without_encoding(node):
                found.append(f"{file.name}:{node.lineno} {ast.unparse(node)}")

    assert found == []


def is_text_without_encoding(call):
    """Tell whether a call reads or writes text, and does not say in which encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    modes = [ast.unparse(argument).strip("'") for argument in call.args[1:]]
    is_binary = any("b" in mode and len(mode) < 4 for mode in modes)
    is_lock = "'lock'" in ast.unparse(call)  # nothing is written into it
    is_opened = ast.unparse(call.func) == "open" and not is_binary and not is_lock
    has_encoding = any(keyword.arg == "encoding" for keyword in call.keywords)
    return not has_encoding and (is_opened or name in ("read_text", "write_text"))


@pytest.mark.parametrize(
    "name, expected", (("é 图", "é 图"), ("caf\udce9", r"caf\xe9"), ("\udcc3\udca9", "é"))
)
def test_a_name_is_made_readable(name, expected):
    assert readable(name) == expected


def test_a_script_is_named_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(terminal._PROJECT)
    assert script_command("test_with_viz.py", "a b") == "python test_with_viz.py 'a b'"

    monkeypatch.chdir(tmp_path)
    path = terminal._PROJECT / "test_with_viz.py"
    assert shlex.split(script_command("test_with_viz.py")) == ["python", str(path)]


@pytest.mark.parametrize("name", ("base", "two words", "-x", "$HOME", "it's", "图像"))
def test_hints_can_be_parsed_again(name):
    from test_with_viz import parse_args as parse_test
    from train_with_distortions import parse_args as parse_training

    training = shlex.split(command_to_train(name))
    testing = shlex.split(command_to_test(f"experiments/{name}"))

    assert parse_training(training[2:]).experiment_name == name
    assert parse_test(testing[2:]).experiment == f"experiments/{name}"


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(st.one_of(CHARACTERS, st.sampled_from([*terminal.PLAIN_CHARACTERS, "\udc80"]))))
def test_any_text_is_printed_in_any_encoding(encoding, text):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        accept_any_encoding()

        print(text, flush=True)

    kept = "".join(c for c in text if c not in terminal.PLAIN_CHARACTERS and c.isascii())
    printed = stream.buffer.getvalue().decode(encoding)
    assert not kept or len(printed) >= len(kept)


def test_what_an_encoding_lacks_is_replaced_readably(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    accept_any_encoding()

    print("a → b … 0–1 ± 2 × 3 “x” é 图 \udcff", flush=True)

    expected = b'a -> b ... 0-1 +- 2 x 3 "x" \\xe9 \\u56fe \\udcff\n'
    assert stream.buffer.getvalue() == expected


def test_a_stream_that_is_missing_swallows_what_is_printed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    accept_any_encoding()

    assert print("x") is None
    assert sys.stderr.write("x") == 1
    sys.stdout.close()
    sys.stderr.close()
