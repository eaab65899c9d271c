"""What a training run comes through, and the line it leaves where it does not. Kills at random moments of longer runs:
-m tests.stress.kill_and_resume."""

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
from tests.helpers import preloaded_context as preloaded
from tests.stress import kill_and_resume
from training import checkpointing, loop
from utils import files
from utils.checkpoint import load_checkpoint
from utils.cli import run_script

pytestmark = pytest.mark.slow

FLAGS = """--references photos --image_size 8 --train_samples 4 --val_samples 2 --distortions_per_image 3 --n_clusters 2
           --epochs 3 --batch_size 16 --refit_interval 1 --save_interval 0 --device cpu""".split()  # a step an epoch


@pytest.fixture(scope="module")
def runs(module_folder):
    """A folder with the run 'alone', and 'halfway', which was killed in its third epoch."""
    assert kill_and_resume.run(module_folder, "alone", FLAGS) == 0
    assert (
        kill_and_resume.run(module_folder, "halfway", FLAGS, moment="in a training step", kill_at=3)
        == -signal.SIGKILL
    )
    return module_folder / "experiments"


@pytest.fixture
def halfway(runs, tmp_path, monkeypatch):
    return copied(runs / "halfway", tmp_path, monkeypatch)


@pytest.fixture
def finished(runs, tmp_path, monkeypatch):
    return copied(runs / "alone", tmp_path, monkeypatch)


def copied(run, tmp_path, monkeypatch):
    """A copy of the run in a folder to work in, where training sets nothing in torch that outlasts the test."""
    monkeypatch.chdir(tmp_path)
    copy = Path("experiments") / run.name
    shutil.copytree(
        run, copy, copy_function=lambda a, b: (os.link if a.endswith(".pt") else shutil.copy)(a, b)
    )
    monkeypatch.setattr(train_with_distortions, "seed_everything", torch.manual_seed)
    return copy


def train(folder, *flags):
    """The script's main in this process, with its words for accidents."""
    argv = ["--experiment_name", folder.name, *flags]
    run_script(
        train_with_distortions.main,
        lambda: train_with_distortions.parse_args(argv),
        train_with_distortions.how_to_go_on,
    )


def resume(folder):
    train(folder, "--resume")


def stopped(folder, *flags):
    """The one line that a training run ends with."""
    with pytest.raises(SystemExit) as end:
        train(folder, *(flags or ["--resume"]))
    assert "\n" not in end.value.code
    return end.value.code


def damage(path, change):
    content = bytearray(path.read_bytes())
    path.unlink()  # the original has another name in the folder it was copied from
    path.write_bytes(change(content))


def flip(content):
    content[len(content) // 2] ^= 1
    return content


def cut(content):
    return content[: len(content) // 2]


def raising(problem, at=1, of=lambda *args, **kwargs: None):
    """A function that raises at one of its calls and else does what another does."""
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise problem
        return of(*args, **kwargs)

    return call


def same(run, runs):
    return not any(kill_and_resume.compare(run, runs / "alone").values())


@pytest.mark.parametrize("moment, at", (
    ("in a fit of the mixture", 2),
    ("half a line in the log", 1),
    ("half a checkpoint", 2),
    ("after a rename", 2),
))  # fmt: skip
def test_a_resumed_run_killed_and_resumed_again_ends_like_one_left_alone(runs, halfway, moment, at):
    folder = halfway.parent.parent.resolve()
    assert (
        kill_and_resume.run(folder, "halfway", ["--resume"], moment=moment, kill_at=at)
        == -signal.SIGKILL
    )
    assert kill_and_resume.run(folder, "halfway", ["--resume"]) == 0
    assert same(halfway, runs)
    assert not list(halfway.glob("*.tmp"))


def test_epochs_after_the_last_checkpoint_are_trained_again(runs, tmp_path):
    seldom = [*FLAGS, "--save_interval=999"]
    assert (
        kill_and_resume.run(tmp_path, "seldom", seldom, moment="in a training step", kill_at=3)
        == -signal.SIGKILL
    )
    run = tmp_path / "experiments" / "seldom"
    assert len(checkpointing.read_log(run)) == 2 and load_checkpoint(run / "last.pt")["epoch"] == 0
    assert kill_and_resume.run(tmp_path, "seldom", ["--resume"]) == 0
    assert same(run, runs)


@pytest.mark.parametrize("change", (flip, cut))
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(runs, halfway, capsys, change):
    damage(halfway / "last.pt", change)
    resume(halfway)
    assert "last.pt is damaged; going on from last.prev.pt, epoch 1" in capsys.readouterr().out
    assert same(halfway, runs)


def test_a_kill_between_the_two_renames_of_last_is_survived(halfway, capsys):
    (halfway / "last.pt").unlink()
    state = checkpointing.load_last(halfway)
    assert (
        state["epoch"] == 0
        and "last.pt does not exist; going on from last.prev.pt" in capsys.readouterr().out
    )
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 0


def test_where_both_are_damaged_nothing_is_touched(halfway):
    for name in ("last.pt", "last.prev.pt"):
        damage(halfway / name, cut)
    before = {path: path.read_bytes() for path in halfway.iterdir()}
    assert stopped(halfway).endswith("last.prev.pt is damaged; --overwrite starts the run anew")
    assert before == {path: path.read_bytes() for path in halfway.iterdir()}


@pytest.mark.parametrize("change", (lambda log: log[:-20], lambda log: b"?" + log, lambda log: b""))
def test_a_damaged_log_is_put_back(runs, finished, capsys, change):
    damage(finished / "log.jsonl", change)
    resume(finished)
    assert (finished / "log.jsonl").read_bytes() == (runs / "alone" / "log.jsonl").read_bytes()
    assert "log.jsonl was not as last.pt has it: put back, 3 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("written", ("log.jsonl", "best.pt", "last.pt"))
def test_a_full_disk_costs_one_epoch_and_leaves_no_half_file(halfway, monkeypatch, written):
    sync = files.fsync

    def full(file):
        if Path(file.name).name.removesuffix(".tmp") == written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(files, "fsync", full)
    monkeypatch.setattr(train_with_distortions, "is_best", lambda log: True)
    assert stopped(halfway) == (f"error: experiments/halfway/{written}: No space left on device; when that is mended: "
                    "python train_with_distortions.py --experiment_name halfway --resume")  # fmt: skip
    assert not list(halfway.glob("*.tmp")) and load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_a_device_that_is_full_names_the_file():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        files.append_line("/dev/full", {})


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("experiments").write_text("a file in the folder's place")
    assert stopped(Path("experiments/new"), *FLAGS).startswith(
        "error: experiments/new: Not a directory; when that is"
    )


def test_a_folder_that_can_only_be_read_is_named(halfway, monkeypatch):
    problem = OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(files, "open", raising(problem), raising=False)
    assert "experiments/halfway/log.jsonl: Read-only file system; when that is mended" in stopped(
        halfway
    )


def test_a_config_of_another_version_is_told_by_its_flags(halfway):
    config = json.loads((halfway / "config.json").read_text())
    del config["lr"]
    (halfway / "config.json").write_text(json.dumps({**config, "warm_up": 5}))
    assert "config.json is of another version of this code, by lr, warm_up; go on with" in stopped(
        halfway
    )


def test_a_config_that_is_not_the_checkpoints_is_refused(halfway):
    config = json.loads((halfway / "config.json").read_text())
    (halfway / "config.json").write_text(json.dumps({**config, "lr": 5.0}))
    assert "has lr 5.0 in config.json but 0.001 in last.pt" in stopped(halfway)


@pytest.mark.parametrize("content", (b'{"lr": 0.0', b"\xff\xfe{", b"[1, 2]"))
def test_a_damaged_config_is_one_line(halfway, content):
    (halfway / "config.json").write_bytes(content)
    line = stopped(halfway)
    assert (
        line.startswith("error: experiments/halfway/config.json is damaged (")
        and "--overwrite starts" in line
    )


@pytest.mark.parametrize(
    "remove", (shutil.rmtree, lambda folder: folder.rename(folder.with_name("moved")))
)
@pytest.mark.parametrize("another", (False, True))
def test_a_folder_lost_in_mid_run_stays_lost_and_another_in_its_place_untouched(
    halfway, monkeypatch, another, remove
):
    own_evaluate = train_with_distortions.validate

    def evaluate(*args):
        remove(halfway)
        if another:
            checkpointing.start(halfway, {"lr": 1})
            (halfway / "lock").touch()
        return own_evaluate(*args)

    monkeypatch.setattr(train_with_distortions, "validate", evaluate)
    assert "experiments/halfway was deleted or moved while its run was under way" in stopped(
        halfway
    )
    assert {path.name for path in halfway.glob("*")} == (
        {"config.json", "lock"} if another else set()
    )


def test_a_second_run_of_the_same_name_is_refused(halfway):
    before = {path: path.read_bytes() for path in halfway.iterdir()}
    with checkpointing.locked(halfway):
        for flags in (["--resume"], [*FLAGS, "--overwrite"]):
            assert "is being trained by another process; wait for its end" in stopped(
                halfway, *flags
            )
    assert before == {path: path.read_bytes() for path in halfway.iterdir()}


def test_of_two_runs_started_at_the_same_time_one_refuses(tmp_path):
    context = preloaded()
    pair = [
        context.Process(target=kill_and_resume.train, args=(tmp_path, "twin", FLAGS))
        for _ in range(2)
    ]
    for run in pair:
        run.start()
    for run in pair:
        run.join()
    assert sorted(run.exitcode for run in pair) == [0, 1]
    assert [
        line["epoch"] for line in checkpointing.read_log(tmp_path / "experiments" / "twin")
    ] == [0, 1, 2]


def test_the_lock_of_a_dead_process_does_not_block(tmp_path):
    child = preloaded().Process(target=lock_and_die, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and (tmp_path / "lock").exists()
    with checkpointing.locked(tmp_path):
        pass


def lock_and_die(folder):
    with checkpointing.locked(folder):
        kill_and_resume.die()


@pytest.fixture
def foreground():
    """Ctrl-C as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_an_interrupted_fit_ends_at_once_and_says_how_to_go_on(
    halfway, foreground, monkeypatch, capsys, number
):
    interrupted = []

    def interrupt(*args, **kwargs):
        interrupted.append(time.perf_counter())
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("sklearn.mixture.GaussianMixture._m_step", interrupt)
    with pytest.raises(SystemExit) as end:
        resume(halfway)
    assert end.value.code == 130 and time.perf_counter() - interrupted[0] < 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert (
        last
        == "interrupted; to go on: python train_with_distortions.py --experiment_name halfway --resume"
    )


def test_interrupted_in_its_first_epoch_a_run_goes_on_by_resume(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_with_distortions, "seed_everything", torch.manual_seed)
    monkeypatch.setattr(train_with_distortions, "train_one_epoch", raising(KeyboardInterrupt()))
    with pytest.raises(SystemExit):
        train(Path("experiments/new"), *FLAGS)
    assert capsys.readouterr().err.endswith(
        "python train_with_distortions.py --experiment_name new --resume\n"
    )


def test_interrupted_before_it_begins_a_run_is_started_again(halfway, monkeypatch, capsys):
    """--overwrite has not replaced the run yet, so --resume would go on with the old one."""
    monkeypatch.setattr(
        train_with_distortions, "load_training_references", raising(KeyboardInterrupt())
    )
    with pytest.raises(SystemExit):
        train(halfway, *FLAGS, "--overwrite")
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "interrupted; to go on: give the same command again"
    )
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_a_loss_that_is_not_finite_stops_the_epoch_soon(halfway, monkeypatch):
    own_losses, steps = loop.compute_losses, []

    def losses_of(state, images, *rest):
        steps.append(len(images))
        return {name: loss * math.inf for name, loss in own_losses(state, images, *rest).items()}

    def many_batches(dataset, order, batch_size, device):
        for _ in range(9):
            yield from dataset.batches(order, batch_size, device)

    monkeypatch.setattr(
        "torch.optim.lr_scheduler.OneCycleLR.step", lambda schedule: None
    )  # it would count the steps
    monkeypatch.setattr(loop, "compute_losses", losses_of)
    monkeypatch.setattr(loop, "training_batches", many_batches)
    monkeypatch.setattr(loop, "FINITE_CHECK_INTERVAL", 2)
    line = stopped(halfway)
    assert (
        line.startswith("error: epoch 3: the loss is not finite")
        and "start again with an --lr below 0.001" in line
    )
    assert len(steps) == 2 and load_checkpoint(halfway / "last.pt")["epoch"] == 1


@pytest.mark.parametrize("broken", ("training.muon.Muon.step", "training.loop.update_bn"))
def test_weights_and_statistics_that_are_not_finite_are_never_saved(halfway, monkeypatch, broken):
    """The loss of the epoch's only step is finite."""

    def spoil(*args):
        if broken == "training.loop.Muon.step":
            args[0].param_groups[1]["params"][0].data.fill_(math.nan)
        else:
            args[1].backbone.bn1.running_mean.fill_(math.nan)

    monkeypatch.setattr(broken, spoil)
    assert "error: epoch 3: the loss is not finite, or the weights are not" in stopped(halfway)
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_a_mixture_that_cannot_be_fitted_is_told_with_its_epoch(halfway, monkeypatch):
    monkeypatch.setattr(
        "sklearn.mixture.GaussianMixture.fit", raising(ValueError("ill-defined covariance"))
    )
    line = stopped(halfway)
    assert line.startswith(
        "error: epoch 3: the mixture cannot be fitted: ill-defined covariance; start again with"
    )
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


def test_too_little_gpu_memory_is_told_with_its_epoch(halfway, monkeypatch):
    monkeypatch.setattr(
        loop, "compute_losses", raising(torch.OutOfMemoryError("CUDA out of memory. Tried …\nGPU 0"))
    )
    line = stopped(halfway)
    assert line.startswith(
        "error: epoch 3: not enough GPU memory; start again with a --batch_size below 16"
    )
    assert load_checkpoint(halfway / "last.pt")["epoch"] == 1


@pytest.mark.parametrize(
    "content, message", (("{", "is damaged"), ("{}", "has no 'run', so another version wrote it"))
)
def test_damaged_metrics_are_one_line(tmp_path, content, message):
    path = tmp_path / "visualizations" / "metrics.json"
    path.parent.mkdir()
    path.write_text(content)
    for script, flags in (
        (display_viz_english, ["--experiment", str(tmp_path)]),
        (summarize_runs, [str(tmp_path)]),
    ):
        with pytest.raises(
            ValueError,
            match=rf"metrics.json {message}.*; test the run again: python test_with_viz.py",
        ):
            script.main(script.parse_args(flags))


def test_a_test_that_fails_leaves_the_results_of_the_one_before(finished, monkeypatch):
    """Here in writing a figure, on a full disk."""
    flags = f"--experiment {finished} --test_samples 4 --skip_tsne --device cpu".split()
    figures = [("small", Figure())]
    monkeypatch.setattr("evaluation.figures.draw_figures", lambda *args: figures)
    run_script(test_with_viz.main, lambda: test_with_viz.parse_args(flags))
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert finished / "visualizations/small.png" in before
    figures.append(("full", Figure()))
    monkeypatch.setattr(
        figures[1][1], "savefig", raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    )
    with pytest.raises(
        SystemExit, match=r"full.png: No space left on device; when that is mended: give the same"
    ):
        run_script(test_with_viz.main, lambda: test_with_viz.parse_args(flags))
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
