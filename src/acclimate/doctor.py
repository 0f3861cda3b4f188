"""What a machine offers, and which of the built-in recipes suits it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from acclimate import __version__
from acclimate import recipe as recipes
from acclimate.cli.recipes import header
from acclimate.environment import version

GB = 1e9
_FREE = 2e9
"""Bytes that a run of recipe laptop may fill: models and soft pseudo labels of some hundred images."""
_NEARLY = 0.9  # a GPU of 16 GB may say that it has 15.6
_MEMORY = 4e9  # what recipe laptop takes, with room for the rest of the machine


def examine(out: Path) -> dict[str, Any]:
    """All that is known of the machine, as plain values; memory and disk in bytes, None for what it does not tell.

    Args:
        out: a run folder that exists or will.
    """
    machine: dict[str, Any] = {
        "acclimate": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "cores": cores(),
        "memory": _memory(),
        "devices": devices(),
        "out": str(out.absolute()),
        "free_disk": shutil.disk_usage(_existing(out)).free,
        "extras": extras(),
    }
    machine["recipes"] = suitable(machine["devices"])
    return machine | advice(machine)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[dict[str, Any]]:
    """GPUs with name and memory in bytes; the CPU last."""
    found: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        found.append({"device": f"cuda:{number}", "name": facts.name, "memory": facts.total_memory})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": platform.processor() or "Apple GPU", "memory": None})
    return [*found, {"device": "cpu", "name": platform.processor() or platform.machine(), "memory": None}]


def extras() -> dict[str, list[str]]:
    """Optional extras of the package, each with what it still lacks; those of developers are left out.

    None of a package that is not installed but found on the path, as in a checkout: only an installation lists them.
    """
    try:
        requirements = metadata.requires("acclimate") or []
    except metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for line in requirements:
        wanted = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line)
        if wanted and wanted[2] not in ("dev", "docs"):
            missing.setdefault(wanted[2], [])
            if version(wanted[1]) is None:
                missing[wanted[2]].append(wanted[1])
    return missing


def suitable(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each built-in recipe whether it ``suits``, ``why``, and the ``gpu`` in GB that its header speaks of."""
    best = max((one["memory"] or 0 for one in found), default=0)
    here = (
        f"the largest here has {best / GB:.0f}"
        if best
        else "here is none" + " that tells its memory" * (len(found) > 1)
    )
    answer = {}
    for name in recipes.names():
        hardware = header(recipes.read(name)[0]).get("hardware", "any machine")
        wanted, smaller = (re.search(words, hardware) for words in (r"GPU of (\d+) GB", r"or of (\d+) GB"))
        gpu, least = int(wanted[1]) if wanted else 0, int(smaller[1]) if smaller else None
        why = f"made for a GPU of {gpu} GB, {here}" if gpu else f"made for {hardware}"
        suits = best >= _NEARLY * gpu * GB
        if not suits and least and best >= _NEARLY * least * GB:
            suits, why = True, f"{why}; add network.checkpointing=true"
        answer[name] = {"suits": suits, "why": why, "gpu": gpu}
    return answer


def advice(machine: dict[str, Any]) -> dict[str, Any]:
    """``recipe`` for own folders, ``why``, and ``warnings``."""
    fitting = {name: said["gpu"] for name, said in machine["recipes"].items() if said["suits"] and _for_anyone(name)}
    name = max(fitting, key=lambda name: fitting[name])
    if fitting[name]:
        why = "it is the largest that fits on the GPU here; nobody has measured it yet, as recipe laptop has been"
    elif len(machine["devices"]) > 1:
        why = "it asks for no GPU, and is faster on the one here"
    else:
        why = f"it asks for no GPU; with {machine['cores']} core{'s' * (machine['cores'] > 1)} count on an hour or so"
    warnings = []
    if machine["free_disk"] < _FREE:
        warnings.append(
            f"{machine['out']}: {machine['free_disk'] / GB:.1f} GB are free there; a run takes up to {_FREE / GB:.0f}. "
            "Make room, or give --out on another disk"
        )
    if machine["memory"] is not None and machine["memory"] < _MEMORY:
        warnings.append(
            f"memory: {machine['memory'] / GB:.1f} GB; recipe laptop wants about {_MEMORY / GB:.0f}. Close other "
            "programs, or lower its batch sizes (source.batch and so on)"
        )
    return {"recipe": name, "why": why, "warnings": warnings}


def _for_anyone(name: str) -> bool:
    """Whether a recipe is for any folders, not for a data set with a layout of its own, nor the demo."""
    return name != "demo" and recipes.load(name).data.source.layout == "folder"


def describe(machine: dict[str, Any]) -> str:
    """The findings as lines for people."""
    memory = "unknown" if machine["memory"] is None else f"{machine['memory'] / GB:.1f} GB"
    lines = [
        f"acclimate  {machine['acclimate']}",
        f"Python     {machine['python']} on {machine['system']}",
        f"torch      {machine['torch']}",
        f"cores      {machine['cores']}",
        f"memory     {memory}",
        *(f"device     {_device(one)}" for one in machine["devices"]),
        f"free disk  {machine['free_disk'] / GB:.1f} GB in {machine['out']}",
    ]
    for name, missing in machine["extras"].items():
        state = f"lacks {', '.join(missing)}: pip install 'acclimate[{name}]'" if missing else "installed"
        lines.append(f"extra      {name}: {state}")
    lines += [f"{'suits' if said['suits'] else 'too big':<10} {name}: {said['why']}"
              for name, said in machine["recipes"].items()]  # fmt: skip
    lines += [f"warning    {warning}" for warning in machine["warnings"]]
    return "\n".join([*lines, "", f"For your own folders: recipe {machine['recipe']}, since {machine['why']}."])


def _device(one: dict[str, Any]) -> str:
    return f"{one['device']}: {one['name']}" + (f", {one['memory'] / GB:.1f} GB" if one["memory"] else "")


def _memory() -> int | None:
    """Memory of the machine, or of the container if that has less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def _existing(path: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
