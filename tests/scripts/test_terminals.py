"""No script dies of a character, of a stream that is closed, or of a terminal's size."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import ROOT, preloaded_context, write_images
from utils.files import read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="needs the shell, a pty and signals"),
]

ENCODINGS = ("utf-8", "cp1252", "latin-1", "cp850", "cp932", "cp1251", "ascii")
SCRIPTS = (
    "train_with_distortions",
    "test_with_viz",
    "display_viz_english",
    "summarize_runs",
    "distorted_dataset",
    "ablations.run",
    "ablations.unknown",
    "ablations.ceiling",
    "ablations.old_approach",
    "benchmarks.distortion_speed",
    "benchmarks.throughput",
    "benchmarks.training_loop",
)
# Two scripts that start in a fraction of a second, with what they print and their exit status.
ODD_NAME = "图 → … ± \udce9"
LIGHT = ((["display_viz_english.py", "--help"], 0), (["summarize_runs.py", ODD_NAME], 1))
FORBIDDEN = ("Traceback", "Exception ignored", "UnicodeEncodeError", "UnicodeDecodeError")
RUN = "图像 é"
COPY = f"{RUN} 2"
FLAGS = (
    "--image_size 8 --train_samples 6 --val_samples 2 --distortions_per_image 2 --n_clusters 2 "
    "--epochs 1 --batch_size 9 --device cpu"
).split()
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def start(words, shell="", python_flags=(), **options):
    """Start a script of the project in a process of its own; shell redirects its streams."""
    environment = {**os.environ, **options.pop("environment", {})}
    name, *flags = words
    command = [sys.executable, *python_flags, str(ROOT / name), *flags]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.Popen(command, env=environment, **options)


def run(words, shell="", **options):
    """Run a script to its end: (exit status, stdout and stderr)."""
    process = start(
        words, shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=False, **options
    )
    output, _ = process.communicate()
    return process.returncode, output.decode("utf-8", "replace")


def run_in_terminal(words, **options):
    """Run a script in a terminal: (exit status, what the terminal got)."""
    master, terminal = os.openpty()
    process = start(words, stdin=terminal, stdout=terminal, stderr=terminal, **options)
    os.close(terminal)
    parts = []
    try:
        while part := os.read(master, 65536):
            parts.append(part)
    except OSError:  # the last process that had it open has ended
        pass
    os.close(master)
    return process.wait(), b"".join(parts).decode("utf-8", "replace")


def run_without_reader(words, bytes_read, **options):
    """Run a script whose reader closes stdout after so many bytes: (exit status, stderr)."""
    reading, writing = os.pipe()
    if not bytes_read:
        os.close(reading)
    process = start(words, stdout=writing, stderr=subprocess.PIPE, **options)
    os.close(writing)
    if bytes_read:
        os.read(reading, bytes_read)
        os.close(reading)
    error = process.communicate()[1]
    return process.returncode, error.decode("utf-8", "replace")


def assert_quiet(output):
    """Check that nothing was printed that Python prints of its own accord."""
    assert [words for words in FORBIDDEN if words in output] == [], output


@pytest.mark.parametrize("words, expected", LIGHT, ids=("help", "error"))
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_output_takes_every_encoding(tmp_path, encoding, words, expected):
    options = {"environment": {"PYTHONIOENCODING": encoding}, "cwd": tmp_path}

    ended = {
        "pipe": run(words, **options),
        "terminal": run_in_terminal(words, **options),
        "stdout closed": run(words, ">&-", **options),
        "stderr closed": run(words, "2>&-", **options),
        "both closed": run(words, ">&- 2>&-", **options),
        "stdin closed": run(words, "<&-", **options),
        "reader gone": run_without_reader(words, 0, **options),
        "reader goes": run_without_reader(words, 1, **options),
    }

    assert {place: status for place, (status, _) in ended.items()} == dict.fromkeys(ended, expected)
    for _, output in ended.values():
        assert_quiet(output)


def test_a_stderr_that_nobody_reads_is_an_error_still(tmp_path):
    words, _ = LIGHT[1]
    reading, writing = os.pipe()
    os.close(reading)

    process = start(words, stdout=subprocess.PIPE, stderr=writing, cwd=tmp_path)
    os.close(writing)
    output, _ = process.communicate()

    assert process.returncode != 0
    assert output == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_behind_stdout_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        process = start(LIGHT[0][0], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path)
        error = process.communicate()[1].decode()

    assert_quiet(error)


def run_encoded(target, flags, folder, log, encodings):
    """Run a script in this process once for each encoding; the log gets all that it printed."""
    os.chdir(folder)
    target = str(ROOT / f"{target}.py") if "." not in target else target
    sys.argv = [target, *flags]
    for encoding in encodings:
        with open(log, "a", encoding=encoding) as stream:
            sys.stdout = sys.stderr = stream
            try:
                if target.endswith(".py"):
                    runpy.run_path(target, run_name="__main__")
                else:
                    runpy.run_module(target, run_name="__main__", alter_sys=True)
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
                if isinstance(end.code, str):
                    print(end.code)
            print(f"\nstatus {status}")


def run_in_encodings(target, flags, folder, encodings=ENCODINGS):
    """Return the exit status in each encoding, and all that was printed."""
    log = folder / "log.txt"
    child = preloaded_context().Process(
        target=run_encoded, args=(target, flags, folder, log, encodings)
    )
    child.start()
    child.join()
    text = log.read_bytes().decode("ascii", "replace")
    log.unlink()
    assert child.exitcode == 0, text
    statuses = [line.split()[1] for line in text.splitlines() if line.startswith("status ")]
    return statuses, text


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("flags, status", ((["--help"], "0"), (["--图→…"], "2")))
def test_every_script_speaks_every_encoding(tmp_path, script, flags, status):
    statuses, output = run_in_encodings(script, flags, tmp_path)

    assert statuses == [status] * len(ENCODINGS)
    assert_quiet(output)


@pytest.fixture(scope="module")
def odd_names(module_folder):
    """Return a folder with a folder of images, of which every name is awkward."""
    try:
        folder = module_folder / "图像 😀\nb\udce9"
        write_images(folder, 24, size=(12, 12))
        for i, name in enumerate(
            (b"caf\xe9", "é".encode(), "猫 😀".encode(), b"a\nb", b"-x", b"$HOME")
        ):
            (folder / f"{i:03d}.png").rename(folder / f"{name}.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    return module_folder


def assert_is_utf8(folder):
    """Check that all that a run left, but its checkpoints and figures, is UTF-8."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".csv"):
            path.read_bytes().decode("utf-8")


@pytest.fixture(scope="module")
def odd_run(odd_names):
    """Return the folder in which a run with awkward names was trained and tested in a C locale."""
    references = next(path for path in odd_names.iterdir() if path.name.startswith("图像"))
    options = {"environment": C_LOCALE, "cwd": odd_names}
    training = ["train_with_distortions.py", "--experiment_name", RUN, *FLAGS]

    trained = run_in_terminal([*training, "--references", references], **options)
    tested = run_in_terminal(
        ["test_with_viz.py", "--experiment", RUN, "--test_samples", "4", "--skip_tsne"], **options
    )

    for status, output in (trained, tested):
        assert status == 0, output
        assert_quiet(output)
        assert "█" not in output  # of a bar, which this locale lacks
    return odd_names


def test_what_a_run_writes_is_utf8_in_every_locale(odd_run):
    folder = odd_run / "experiments" / RUN

    assert (folder / "visualizations" / "predictions.csv").is_file()
    assert_is_utf8(folder)
    assert read_json(folder / "config.json", "")["references_name"].startswith("folder ")


@pytest.mark.parametrize(
    "script, flags",
    (
        ("display_viz_english", []),
        ("display_viz_english", ["--experiment", RUN]),
        ("summarize_runs", [RUN, f"experiments/{COPY}", "--output", "图/é.json"]),
    ),
)
def test_awkward_names_are_printed_in_every_encoding(odd_run, script, flags):
    copy = odd_run / "experiments" / COPY
    if not copy.exists():
        shutil.copytree(odd_run / "experiments" / RUN, copy)

    statuses, output = run_in_encodings(script, flags, odd_run)

    assert statuses == ["0"] * len(ENCODINGS)
    assert_quiet(output)
    assert_is_utf8(odd_run)


@pytest.mark.parametrize(
    "script, flags",
    (
        ("train_with_distortions", ["--experiment_name", RUN, "--resume"]),
        ("test_with_viz", ["--experiment", RUN, "--test_samples", "4", "--skip_tsne"]),
    ),
)
def test_a_run_with_awkward_names_goes_on(odd_run, script, flags):
    """In another locale than the one that it was begun in."""
    statuses, output = run_in_encodings(script, flags, odd_run, encodings=["cp932"])

    assert statuses == ["0"]
    assert_quiet(output)


@pytest.mark.parametrize(
    "environment",
    (
        {"COLUMNS": "0"},
        {"COLUMNS": "1"},
        {"COLUMNS": "-5"},
        {"COLUMNS": "many"},
        {"COLUMNS": "1000000"},
        {"TERM": "dumb"},
        {"TERM": ""},
        {"NO_COLOR": "1"},
        {"LANG": "de_DE.ISO-8859-1", "LC_ALL": "xx_YY"},
        {"PYTHONUNBUFFERED": "1"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONDEVMODE": "1"},
        {"HOME": "/nonexistent"},
        {"TMPDIR": "/nonexistent"},
        {"PYTHONOPTIMIZE": "2"},
        C_LOCALE,
    ),
    ids=lambda environment: next(iter(environment.items())),
)
def test_every_environment_is_taken(tmp_path, environment):
    options = {"environment": environment, "cwd": tmp_path}

    for words, expected in LIGHT:
        for status, output in (run(words, **options), run_in_terminal(words, **options)):
            assert status == expected, output
            assert_quiet(output)


@pytest.mark.parametrize("python_flags", (["-O"], ["-OO"], ["-W", "error"], ["-u"], ["-E"], ["-s"]))
def test_every_way_to_start_python_is_taken(tmp_path, python_flags):
    for words, expected in LIGHT:
        status, output = run(words, python_flags=python_flags, cwd=tmp_path)

        assert status == expected
        assert_quiet(output)


def test_scripts_start_by_a_link_and_as_modules(tmp_path):
    link = tmp_path / "show.py"
    link.symlink_to(ROOT / "display_viz_english.py")

    by_link = subprocess.run([sys.executable, link, "--help"], cwd=tmp_path, capture_output=True)
    as_module = subprocess.run(
        [sys.executable, "-m", "display_viz_english", "--help"], cwd=ROOT, capture_output=True
    )

    assert by_link.returncode == as_module.returncode == 0
    assert by_link.stderr == as_module.stderr == b""


@pytest.mark.parametrize("name", ("utils", "types", "random", "queue", "evaluation"))
def test_files_in_the_present_folder_hide_no_module(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')")

    status, output = run(LIGHT[0][0], cwd=tmp_path)

    assert status == 0, output


@pytest.mark.parametrize("nohup", (False, True))
def test_a_terminal_that_closes_ends_a_run_but_for_nohup(tmp_path, nohup):
    """The line that says how to go on is in the log, and lines come there as they are printed."""
    if nohup and shutil.which("nohup") is None:
        pytest.skip("there is no nohup")
    flags = [*FLAGS, "--references", "photos", "--epochs", "3", "--save_interval", "0"]
    script = str(ROOT / "train_with_distortions.py")
    words = [sys.executable, script, "--experiment_name=-x y", *flags]
    log = tmp_path / "log.txt"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*(["nohup"] if nohup else []), *words],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            # The tests themselves may have been started by nohup, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
    while "epoch   1/3" not in log.read_text(errors="replace") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    status = process.wait()

    text = log.read_text(errors="replace")
    assert_quiet(text)
    if nohup:
        assert status == 0
        assert "test it: " in text
    else:
        assert status == 130, text
        last = text.splitlines()[-1]
        assert last.startswith("interrupted; to go on: python ")
        assert last.endswith("train_with_distortions.py '--experiment_name=-x y' --resume")
