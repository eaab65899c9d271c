"""What the timing benchmarks share: candidates timed side by side, and the machine that they ran on."""

import platform
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

from ablations.tables import markdown
from utils.files import write_json


def medians(candidates, rounds, device="cpu"):
    """{name: median seconds} of {name: function without arguments}. A round times each of them once, so that whatever
    else the machine does meets all alike; a first round is not counted."""
    seconds = {name: [] for name in candidates}
    for _ in tqdm(range(rounds + 1), desc="rounds", unit="round", leave=False):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def machine(device="cpu"):
    """What a timing depends on, for the JSON and the line above a table."""
    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None
    return {"processor": processor(), "threads": torch.get_num_threads(), "gpu": gpu,
            "python": platform.python_version(), "torch": str(torch.__version__)}  # fmt: skip


def processor():
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def tell(output, name, device, *tables, **numbers):
    """Print tables, each (titles, rows of text cells), and write them with the numbers to <output>/<name>.json."""
    about = machine(device)
    print("  ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    for titles, rows in tables:
        print("\n".join(["", *markdown(titles, rows)]))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / f"{name}.json",
        {"machine": about, "tables": [[titles, *rows] for titles, rows in tables], **numbers},
    )
    print(f"\n{folder / f'{name}.json'}")
