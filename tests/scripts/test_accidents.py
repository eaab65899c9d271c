"""What a training run survives, and the line that it ends with where it does not.

tests/stress/kill_and_resume.py kills longer runs at random moments.
"""

import errno
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

import display_viz_english
import summarize_runs
import test_with_viz
import train_with_distortions
from evaluation.results import read_log
from tests.helpers import preloaded_context
from tests.stress import kill_and_resume
from training import checkpointing, loop
from utils import files
from utils.checkpoint import load_checkpoint
from utils.cli import run_script
from utils.errors import UserError
from utils.runs import command_to_train

pytestmark = pytest.mark.slow

# A step an epoch.
FLAGS = (
    "--references photos --image_size 8 --train_samples 4 --val_samples 2 "
    "--distortions_per_image 3 --n_clusters 2 --epochs 3 --batch_size 16 --refit_interval 1 "
    "--save_interval 0 --device cpu"
).split()
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def runs(module_folder):
    """Return a folder with the run 'alone', and 'halfway', which was killed in its third epoch."""
    assert kill_and_resume.run(module_folder, "alone", FLAGS) == 0
    step = {"moment": "in a training step", "kill_at": 3}
    assert kill_and_resume.run(module_folder, "halfway", FLAGS, **step) == KILLED
    return module_folder / "experiments"


@pytest.fixture
def halfway(runs, tmp_path, monkeypatch):
    """Return a copy of the killed run."""
    return copy_run(runs / "halfway", tmp_path, monkeypatch)


@pytest.fixture
def finished(runs, tmp_path, monkeypatch):
    """Return a copy of the run that was left alone."""
    return copy_run(runs / "alone", tmp_path, monkeypatch)


def copy_run(run, tmp_path, monkeypatch):
    """Copy a run to a folder to work in, where training sets nothing in torch that outlasts it."""

    def link_or_copy(source, target):
        (os.link if source.endswith(".pt") else shutil.copy)(source, target)

    monkeypatch.chdir(tmp_path)
    copy = Path("experiments") / run.name
    shutil.copytree(run, copy, copy_function=link_or_copy)
    monkeypatch.setattr(train_with_distortions, "seed_everything", torch.manual_seed)
    return copy


def train(folder, *flags):
    """Run the script's main in this process, with its lines for accidents."""
    argv = ["--experiment_name", folder.name, *flags]
    run_script(
        train_with_distortions.main,
        lambda: train_with_distortions.parse_args(argv),
        train_with_distortions.how_to_go_on,
    )


def last_line(folder, *flags):
    """Return the one line that a training run ends with; without flags it is resumed."""
    with pytest.raises(SystemExit) as end:
        train(folder, *(flags or ["--resume"]))
    assert "\n" not in end.value.code
    return end.value.code


def damage(path, change):
    """Change a file's bytes. The original has another name in the folder it was copied from."""
    content = bytearray(path.read_bytes())
    path.unlink()
    path.write_bytes(change(content))


def flip_a_bit(content):
    content[len(content) // 2] ^= 1
    return content


def cut_in_half(content):
    return content[: len(content) // 2]


def raising(problem):
    """Return a function that raises the problem."""

    def call(*args, **kwargs):
        raise problem

    return call


def ends_like_alone(run, runs):
    """Tell whether a run's log and checkpoints are those of the run that was left alone."""
    return not any(kill_and_resume.compare(run, runs / "alone").values())


def contents_of(folder):
    """Return {path: bytes} of the files in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "moment, kill_at",
    (
        ("in a fit of the mixture", 2),
        ("half a line in the log", 1),
        ("half a checkpoint", 2),
        ("after a rename", 2),
    ),
)
def test_a_run_killed_twice_ends_like_one_left_alone(runs, halfway, moment, kill_at):
    folder = halfway.parent.parent.resolve()
    kill = {"moment": moment, "kill_at": kill_at}

    assert kill_and_resume.run(folder, "halfway", ["--resume"], **kill) == KILLED
    assert kill_and_resume.run(folder, "halfway", ["--resume"]) == 0

    assert ends_like_alone(halfway, runs)
    assert not list(halfway.glob("*.tmp"))


def test_epochs_after_the_last_checkpoint_are_trained_again(runs, tmp_path):
    seldom = [*FLAGS, "--save_interval=999"]
    kill = {"moment": "in a training step", "kill_at": 3}
    run = tmp_path / "experiments" / "seldom"

    assert kill_and_resume.run(tmp_path, "seldom", seldom, **kill) == KILLED
    assert len(read_log(run)) == 2
    assert load_checkpoint(run / "last.pt")["epoch"] == 0
    assert kill_and_resume.run(tmp_path, "seldom", ["--resume"]) == 0

    assert ends_like_alone(run, runs)


@pytest.mark.parametrize("change", (flip_a_bit, cut_in_half))
def test_a_damaged_checkpoint_falls_back_to_the_one_before(runs, halfway, capsys, change):
    damage(halfway / "last.pt", change)

    train(halfway, "--resume")

    assert "last.pt is damaged; going on from last.prev.pt, epoch 1" in capsys.readouterr().out
    assert ends_like_alone(halfway, runs)


def test_a_kill_between_the_renames_of_last_is_survived(halfway, capsys):
    config = json.loads((halfway / "config.json").read_text())
    (halfway / "last.pt").unlink()

    state = checkpointing.load_last(halfway, config)

    assert state["epoch"] == 0
    assert "last.pt does not exist; going on from last.prev.pt" in capsys.readouterr().out
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 0


def test_where_both_checkpoints_are_damaged_nothing_changes(halfway):
    for name in ("last.pt", "last.prev.pt"):
        damage(halfway / name, cut_in_half)
    before = contents_of(halfway)

    line = last_line(halfway)

    assert line.endswith("last.prev.pt is damaged; --overwrite starts the run anew")
    assert contents_of(halfway) == before


@pytest.mark.parametrize("change", (lambda log: log[:-20], lambda log: b"?" + log, lambda log: b""))
def test_a_damaged_log_is_put_back(runs, finished, capsys, change):
    damage(finished / "log.jsonl", change)

    train(finished, "--resume")

    assert (finished / "log.jsonl").read_bytes() == (runs / "alone" / "log.jsonl").read_bytes()
    assert "log.jsonl was not as last.pt has it: put back, 3 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ("log.jsonl", "best.pt", "last.pt"))
def test_a_full_disk_costs_one_epoch(halfway, monkeypatch, name):
    """And it leaves no half file."""
    fsync = files.fsync

    def full(file):
        if Path(file.name).name.removesuffix(".tmp") == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(files, "fsync", full)
    monkeypatch.setattr(train_with_distortions, "is_best", lambda lines: True)
    line = last_line(halfway)

    assert line == (
        f"error: experiments/halfway/{name}: No space left on device; once this is fixed: "
        f"{command_to_train('halfway', '--resume')}"
    )
    assert not list(halfway.glob("*.tmp"))
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_a_device_that_is_full_names_the_file():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        files.append_line("/dev/full", {})


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("experiments").write_text("a file in the folder's place")

    line = last_line(Path("experiments/new"), *FLAGS)

    assert line.startswith("error: experiments is a file, where the folder of all runs belongs")


def test_a_folder_that_can_only_be_read_is_named(halfway, monkeypatch):
    problem = OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(files, "open", raising(problem), raising=False)

    line = last_line(halfway)

    assert "experiments/halfway/log.jsonl: Read-only file system; once this is fixed" in line


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_config_of_another_version_is_refused(halfway):
    config = json.loads((halfway / "config.json").read_text())
    del config["lr"]
    (halfway / "config.json").write_text(json.dumps({**config, "warm_up": 5}))

    line = last_line(halfway)

    assert "config.json is of another version of this code, by lr, warm_up; go on with" in line


def test_a_config_that_is_not_the_checkpoints_is_refused(halfway):
    change_config(halfway, lr=5.0)

    assert "has lr 5.0 in config.json but 0.001 in last.pt" in last_line(halfway)


@pytest.mark.parametrize(
    "name, value",
    (("backbone", "vgg"), ("seed", None), ("image_size", "16"), ("lr", "fast"), ("redistort", 3)),
)
def test_a_config_that_was_changed_by_hand_is_one_line(halfway, name, value):
    change_config(halfway, **{name: value})

    line = last_line(halfway)

    assert f"config.json has {name} {value!r}, which --{name} does not take" in line


@pytest.mark.parametrize("content", (b'{"lr": 0.0', b"\xff\xfe{", b"[1, 2]"))
def test_a_damaged_config_is_one_line(halfway, content):
    (halfway / "config.json").write_bytes(content)

    line = last_line(halfway)

    assert line.startswith("error: experiments/halfway/config.json is damaged (")
    assert "--overwrite starts" in line


def move(folder):
    folder.rename(folder.with_name("moved"))


@pytest.mark.parametrize("remove", (shutil.rmtree, move))
@pytest.mark.parametrize("has_successor", (False, True))
def test_a_folder_lost_in_mid_run_stays_lost(halfway, monkeypatch, has_successor, remove):
    """Another run in its place is not touched."""
    own_validate = train_with_distortions.validate

    def lose_folder_and_validate(*args):
        remove(halfway)
        if has_successor:
            checkpointing.create_run(halfway, {"lr": 1})
            (halfway / "lock").touch()
        return own_validate(*args)

    monkeypatch.setattr(train_with_distortions, "validate", lose_folder_and_validate)
    line = last_line(halfway)

    assert "experiments/halfway was deleted or moved while its run was under way" in line
    left = {path.name for path in halfway.glob("*")}
    assert left == ({"config.json", "lock"} if has_successor else set())


@pytest.mark.parametrize("flags", (["--resume"], [*FLAGS, "--overwrite"]))
def test_a_second_run_of_the_same_name_is_refused(halfway, flags):
    before = contents_of(halfway)

    with checkpointing._lock_folder(halfway):
        line = last_line(halfway, *flags)

    assert "is being trained by another process; wait for its end" in line
    assert contents_of(halfway) == before


def test_of_two_runs_started_together_one_refuses(tmp_path):
    context = preloaded_context()
    arguments = (tmp_path, "twin", FLAGS)
    pair = [context.Process(target=kill_and_resume.train, args=arguments) for _ in range(2)]

    for run in pair:
        run.start()
    for run in pair:
        run.join()

    assert sorted(run.exitcode for run in pair) == [0, 1]
    log = read_log(tmp_path / "experiments" / "twin")
    assert [line["epoch"] for line in log] == [0, 1, 2]


def test_the_lock_of_a_dead_process_does_not_block(tmp_path):
    child = preloaded_context().Process(target=lock_and_die, args=(tmp_path,))
    child.start()
    child.join()

    assert child.exitcode == KILLED
    assert (tmp_path / "lock").exists()
    with checkpointing._lock_folder(tmp_path) as lock:
        assert lock is not None


def lock_and_die(folder):
    with checkpointing._lock_folder(folder):
        kill_and_resume.die()


@pytest.fixture
def foreground():
    """Handle Ctrl-C as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_an_interrupted_fit_ends_at_once(halfway, foreground, monkeypatch, capsys, number):
    """The last line says how to go on."""
    interrupted_at = []

    def interrupt(*args, **kwargs):
        interrupted_at.append(time.perf_counter())
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("sklearn.mixture.GaussianMixture._m_step", interrupt)
    with pytest.raises(SystemExit) as end:
        train(halfway, "--resume")

    assert end.value.code == 130
    assert time.perf_counter() - interrupted_at[0] < 2
    command = command_to_train("halfway", "--resume")
    assert capsys.readouterr().err.splitlines()[-1] == f"interrupted; to go on: {command}"


def test_interrupted_in_its_first_epoch_a_run_is_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_with_distortions, "seed_everything", torch.manual_seed)
    monkeypatch.setattr(train_with_distortions, "train_one_epoch", raising(KeyboardInterrupt()))

    with pytest.raises(SystemExit):
        train(Path("experiments/new"), *FLAGS)

    error = capsys.readouterr().err
    assert error.endswith(f"{command_to_train('new', '--resume')}\n")


def test_a_run_that_has_not_begun_is_started_again(halfway, monkeypatch, capsys):
    """--overwrite has not replaced the run yet, so --resume would go on with the old one."""
    interrupted = raising(KeyboardInterrupt())
    monkeypatch.setattr(train_with_distortions, "load_training_references", interrupted)

    with pytest.raises(SystemExit):
        train(halfway, *FLAGS, "--overwrite")

    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "interrupted; to go on: give the same command again"
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_a_loss_that_is_not_finite_stops_the_epoch_soon(halfway, monkeypatch):
    own_losses = loop.compute_losses
    steps = []

    def infinite_losses(state, images, *rest):
        steps.append(len(images))
        losses = own_losses(state, images, *rest)
        return {name: loss * math.inf for name, loss in losses.items()}

    def many_batches(dataset, order, batch_size, device):
        for _ in range(9):
            yield from dataset.batches(order, batch_size, device)

    # The scheduler would count the steps.
    monkeypatch.setattr("torch.optim.lr_scheduler.OneCycleLR.step", lambda scheduler: None)
    monkeypatch.setattr(loop, "compute_losses", infinite_losses)
    monkeypatch.setattr(loop, "training_batches", many_batches)
    monkeypatch.setattr(loop, "FINITE_CHECK_INTERVAL", 2)
    line = last_line(halfway)

    assert line.startswith("error: epoch 3: the loss is not finite")
    assert "start again with an --lr below 0.001" in line
    assert len(steps) == 2
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def spoil_weights(optimizer):
    optimizer.param_groups[1]["params"][0].data.fill_(math.nan)


def spoil_statistics(batches, model):
    model.backbone.bn1.running_mean.fill_(math.nan)


@pytest.mark.parametrize(
    "target, spoil",
    (("training.muon.Muon.step", spoil_weights), ("training.loop.update_bn", spoil_statistics)),
)
def test_what_is_not_finite_is_never_saved(halfway, monkeypatch, target, spoil):
    """The loss of the epoch's only step is finite; weights or statistics are not."""
    monkeypatch.setattr(target, spoil)

    line = last_line(halfway)

    assert "error: epoch 3: the loss is not finite, or the weights are not" in line
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_a_mixture_that_cannot_be_fitted_names_its_epoch(halfway, monkeypatch):
    problem = ValueError("ill-defined covariance")
    monkeypatch.setattr("sklearn.mixture.GaussianMixture.fit", raising(problem))

    line = last_line(halfway)

    expected = "error: epoch 3: the mixture cannot be fitted: ill-defined covariance; start again"
    assert line.startswith(expected)
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_too_little_gpu_memory_names_its_epoch(halfway, monkeypatch):
    problem = torch.OutOfMemoryError("CUDA out of memory. Tried …\nGPU 0")
    monkeypatch.setattr(loop, "compute_losses", raising(problem))

    line = last_line(halfway)

    expected = "error: epoch 3: not enough GPU memory; start again with a --batch_size below 16"
    assert line.startswith(expected)
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


@pytest.mark.parametrize(
    "content, message", (("{", "is damaged"), ("{}", "has no 'run', so another version wrote it"))
)
@pytest.mark.parametrize(
    "script, flag", ((display_viz_english, ["--experiment"]), (summarize_runs, []))
)
def test_damaged_metrics_are_one_line(tmp_path, script, flag, content, message):
    path = tmp_path / "visualizations" / "metrics.json"
    path.parent.mkdir()
    path.write_text(content)
    expected = rf"metrics.json {message}.*; test the run again: python \S*test_with_viz.py"

    with pytest.raises(ValueError, match=expected):
        script.main(script.parse_args([*flag, str(tmp_path)]))


def draw_small():
    return Figure()


def fail_to_draw():
    raise ZeroDivisionError("no image of this type")


def test_the_run(folder, monkeypatch, figures):
    """Test a run with these figures, {name: what draws it}."""
    flags = f"--experiment {folder} --test_samples 4 --skip_tsne --device cpu".split()
    monkeypatch.setattr("evaluation.figures.list_figures", lambda *args: figures)
    run_script(test_with_viz.main, lambda: test_with_viz.parse_args(flags))


test_the_run.__test__ = False


def test_a_test_that_fails_before_its_end_keeps_the_results_before(finished, monkeypatch):
    test_the_run(finished, monkeypatch, {"small": draw_small})
    before = contents_of(finished)
    assert finished / "visualizations/small.png" in before

    monkeypatch.setattr(test_with_viz, "measure", raising(UserError("no measure")))
    with pytest.raises(SystemExit, match="no measure"):
        test_the_run(finished, monkeypatch, {"small": draw_small})

    assert contents_of(finished) == before


def test_a_figure_that_fails_costs_no_number_and_no_other_figure(finished, monkeypatch, capsys):
    test_the_run(finished, monkeypatch, {"old": draw_small})
    figures = {"first": draw_small, "broken": fail_to_draw, "last": draw_small}

    with pytest.raises(SystemExit) as end:
        test_the_run(finished, monkeypatch, figures)

    message = "1 of 3 figures failed: broken (ZeroDivisionError: no image of this type)"
    assert message in end.value.code
    assert "its traceback is in " in end.value.code
    folder = finished / "visualizations"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["figures"] == ["first.png", "last.png"]
    assert sorted(path.name for path in folder.glob("*.png")) == ["first.png", "last.png"]
    assert (folder / "predictions.csv").exists()
    assert "SRCC" in capsys.readouterr().out


def test_a_full_disk_costs_its_figure_alone(finished, monkeypatch):
    figure = Figure()
    problem = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(figure, "savefig", raising(problem))

    with pytest.raises(SystemExit, match="full .OSError: .* No space left on device: '.*full.png"):
        test_the_run(finished, monkeypatch, {"full": lambda: figure, "other": draw_small})

    assert (finished / "visualizations" / "other.png").exists()


def test_figures_that_an_interruption_left_are_listed(finished, monkeypatch):
    figures = {"first": draw_small, "slow": raising(KeyboardInterrupt()), "last": draw_small}

    with pytest.raises(SystemExit) as end:
        test_the_run(finished, monkeypatch, figures)

    assert end.value.code == 130
    metrics = json.loads((finished / "visualizations" / "metrics.json").read_text())
    assert metrics["figures"] == ["first.png"]
