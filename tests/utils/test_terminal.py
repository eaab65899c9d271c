"""Commands that can be pasted, and output that every stream takes."""

import io
import shlex
import shutil
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from utils import terminal
from utils.runs import command_to_test, command_to_train
from utils.terminal import accept_any_encoding, flag, quote, script_command

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
