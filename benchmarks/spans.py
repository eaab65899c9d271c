"""A training run in an empty folder, with the time that it spends in some of its functions."""

import pkgutil
import shlex
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, chdir
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import torch

import train_with_distortions as script
from references.sources import absolute
from tests.helpers import LATE_IMPORTS


def flags_of(args):
    """train_with_distortions.py's flags from a benchmark's --references, --device and --flags, in whatever folder."""
    return ["--experiment_name=timed", f"--references={absolute(args.references)}", f"--device={args.device}",
            f"--data_root={Path('data').resolve()}", *shlex.split(args.flags)]  # fmt: skip


def run(flags, patches):
    """A run of the script in an empty folder, with these functions in the places of others."""
    for name in LATE_IMPORTS:
        import_module(name)  # now, not in the time of the function that needs it first
    with ExitStack() as stack:
        stack.enter_context(chdir(stack.enter_context(tempfile.TemporaryDirectory())))
        for target, function in patches.items():
            stack.enter_context(patch(target, function))
        script.main(script.parse_args(flags))


class Spans:
    """Seconds spent in functions, each without what is spent in another of them: {name: [seconds of each call]}."""

    def __init__(self, device):
        self.calls, self.inside, self.device = defaultdict(list), [], device

    def totals(self):
        return {name: sum(seconds) for name, seconds in self.calls.items()}

    def timed(self, name, target):
        function = pkgutil.resolve_name(target)

        def run_timed(*args, **kwargs):
            started = time.perf_counter()
            self.inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                spent = time.perf_counter() - started
                self.calls[name].append(spent - self.inside.pop())
                if self.inside:
                    self.inside[-1] += spent

        return run_timed
