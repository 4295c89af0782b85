"""What a model costs: parameters, bytes, floating-point operations, seconds; each with its unit in the
name.
"""

import platform
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""Attention's own products on a CPU, which torch counts on a GPU only."""


def parameters_kept(model: nn.Module) -> int:
    """Count the parameters that are not exactly zero; shared ones count once."""
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def forward_flops(model: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Count the floating-point operations of one forward (2 for a multiply-add), as a dense model runs it.

    A zeroed weight still costs its operation; only physically removed units lower this number.
    """
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        model(**inputs)
    return int(counter.get_total_flops())


def latency_ms(model: nn.Module, inputs: Mapping[str, Tensor], *, runs: int = 10) -> float:
    """Return the median milliseconds of one forward in evaluation mode, after two warm-up runs."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    moments = []
    with torch.inference_mode():
        for _ in range(runs + 2):
            started = time.perf_counter()
            model(**inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            moments.append(time.perf_counter() - started)
    return 1000 * statistics.median(moments[2:])


def disk_bytes(folder: Path) -> int:
    """Return the bytes of all files under a folder (of the file itself for a file)."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peak_memory_bytes() -> int:
    """Return the largest resident size this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory_bytes(device: str = "cpu") -> int | None:
    """Return how much memory can still be taken on a device; None where the system does not say.

    On a CPU that is what Linux calls available, or less where the process's control group has a limit (files
    in its cache count as free there).
    """
    if torch.device(device).type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(facts["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    try:
        group = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().split("::/")[1].strip()
        group = group if (group / "memory.max").is_file() else Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" is no number: no limit
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0)))
    except (OSError, IndexError, ValueError):
        return free


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Describe the machine that a measurement was made on."""
    facts = {"system": platform.system(), "processor": _processor(), "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
