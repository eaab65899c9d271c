"""Print to any terminal, pipe or file, whatever its encoding, and quote what users paste."""

import codecs
import os
import shlex
import subprocess
import sys
from pathlib import Path

# What is printed for a character that the output's encoding does not have. Others are escaped.
PLAIN_CHARACTERS = {
    "→": "->",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "“": '"',
    "”": '"',
    "’": "'",
}
WINDOWS_OPERATORS = set("&|<>^(),;=")
_PROJECT = Path(__file__).resolve().parent.parent


def accept_any_encoding() -> None:
    """Print a replacement for each character that stdout or stderr cannot encode.

    Where one of them is closed, what is printed on it goes nowhere.
    """
    _open_closed_streams()
    codecs.register_error("plain", _to_plain)
    for stream in (sys.stdout, sys.stderr):
        # A notebook's streams, and closed ones, cannot be reconfigured and need not be.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="plain")


def _open_closed_streams():
    """Open stdin, stdout and stderr where they are closed, as by `>&-`.

    The next file to be opened, such as a checkpoint, would have their number otherwise, and
    libraries would write their messages into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  it stays open
            setattr(sys, name, nowhere)


def _to_plain(problem):
    """Return the replacement for what could not be encoded, as codecs expect it."""
    words = []
    for character in problem.object[problem.start : problem.end]:
        escaped = character.encode("ascii", "backslashreplace").decode("ascii")
        words.append(PLAIN_CHARACTERS.get(character, escaped))
    return "".join(words), problem.end


def quote(*words: str | Path) -> str:
    """Join words to a command that can be pasted into the user's shell."""
    if os.name == "nt":
        return " ".join(_quote_for_windows(str(word)) for word in words)
    return " ".join(_quote_word(str(word)) for word in words)


def _quote_for_windows(word):
    """Quote a word for cmd.exe, which splits a command also at characters that programs do not."""
    if WINDOWS_OPERATORS.intersection(word) and not {" ", "\t", '"'}.intersection(word):
        backslashes = len(word) - len(word.rstrip("\\"))
        return '"' + word + backslashes * "\\" + '"'  # doubled before a quotation mark
    return subprocess.list2cmdline([word])


def _quote_word(word):
    """Quote a word for a POSIX shell; one that no terminal can show is written with escapes."""
    if word.isprintable() and _is_encodable(word):
        return shlex.quote(word)
    shown = []
    for character in word:
        if character in "\\'":
            shown.append("\\" + character)
        elif character.isprintable() and _is_encodable(character):
            shown.append(character)
        else:
            shown.extend(f"\\x{byte:02x}" for byte in os.fsencode(character))
    return f"$'{''.join(shown)}'"


def readable(name: str) -> str:
    """Return a file's name as text that every library takes.

    Where the locale is not UTF-8, and where a name is not, Python has surrogates for its bytes.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def flag(name: str, value: str | Path) -> list[str]:
    """Return the words of a flag and its value, which may begin with a dash."""
    return [f"{name}={value}"] if str(value).startswith("-") else [name, str(value)]


def _is_encodable(text):
    """Tell whether stdout and stderr print a text as it is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            text.encode(getattr(stream, "encoding", None) or "utf-8")
        except (UnicodeEncodeError, LookupError):
            return False
    return True


def script_command(script: str, *flags: str | Path) -> str:
    """Return the command that runs one of the project's scripts from the present folder."""
    path = Path(script) if Path(script).is_file() else _PROJECT / script
    return quote("python", path, *flags)
