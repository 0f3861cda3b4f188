"""The whole command under torchrun: same result as one process, and a process that dies takes the others along."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.networks.weights import load_model

TINY = [
    "data.classes=streets", "data.width=64", "data.crop=[32, 48]", "data.workers=0", "device=cpu",
    "network.backbone=test_resnet.r160_in1k", "network.weights=none", "network.channels=16", "network.dropout=0",
    "optimizer.name=sgd", "optimizer.lr=1e-3", "optimizer.ramp=0", "log_every=2", "save_every=10",
    "source.iterations=4", "warmup.iterations=4", "distill.iterations=4",
    "distill.rounds=1", "distill.student=previous", "distill.balance=0.5", "selection.average=true",
    "source.lr=0", "distill.lr=0", "selflabel.bank=100", "selflabel.pixels=16",
    *(f"{stage}.batch=2" for stage in ("source", "warmup", "selflabel", "distill")),
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streets of three flat classes."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for role, count in (("source", 4), ("target", 5), ("val", 3)):
        for i in range(count):
            label = np.repeat(np.sort(rng.integers(0, 3, 48)), 64).reshape(48, 64).astype(np.uint8)
            image = (label[..., None] * 90 + rng.integers(0, 60, (48, 64, 3))).astype(np.uint8)
            for kind, array in (("images", image), ("labels", label)):
                path = root / role / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


def command(processes: int, data: Path, out: Path, *overrides: str) -> list[str]:
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    folders = [word for role in ("source", "target", "val") for word in (f"--{role}", str(data / role))]
    return [
        sys.executable,
        *start,
        "-m",
        "acclimate",
        "adapt",
        "laptop",
        *TINY,
        *overrides,
        *folders,
        "--out",
        str(out),
    ]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, timeout=200, env=environment, check=False)


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(data: Path, tmp_path: Path) -> None:
    # Large steps of a network this small enlarge the last bit of float32 tenfold each, until labels fall otherwise.
    # One process with another instruction set (ONEDNN_MAX_CPU_ISA) parts from itself just as two processes do.
    rates = ("warmup.lr=1e-4", "selflabel.lr=1e-4", "distill.lr=3e-5")
    choices = ("selflabel.iterations=6", *rates)
    done = call(*command(2, data, tmp_path / "two", *choices))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stage 2 …") == 1, "one process talks"
    one = call(*command(1, data, tmp_path / "one", *choices))
    assert one.returncode == 0, one.stderr
    for stage in ("source", "warmup"):
        models = (tmp_path / run / "stages" / stage / "model.safetensors" for run in ("one", "two"))
        ours, theirs = (load_model(model)[0].state_dict() for model in models)
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-4, msg=lambda m, k=key: f"{k}: {m}")
    losses = [
        [record["loss"] for line in (tmp_path / run / "metrics.jsonl").open() if "loss" in (record := json.loads(line))]
        for run in ("one", "two")
    ]
    assert len(losses[0]) == 9 and losses[0] == pytest.approx(losses[1], rel=0.01)
    assert losses[0][:5] == pytest.approx(losses[1][:5], rel=1e-4)
    rows = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("one", "two")]
    assert [row["images"] for row in rows[0]] == [row["images"] for row in rows[1]] == [3, 3, 3, 3, 3]
    assert not list((tmp_path / "two").rglob("*.tmp"))


@pytest.mark.slow
def test_a_process_that_dies_takes_the_other_along_and_the_run_goes_on_with_one(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = command(2, data, out, "selflabel.iterations=400", "distill.rounds=0")
    torchrun = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    checkpoints = out / "stages" / "selflabel"
    try:
        wait_until(lambda: any(checkpoints.glob("checkpoint*.pt")) or torchrun.poll() is not None, 120)
        assert torchrun.poll() is None, torchrun.stderr and torchrun.stderr.read()
        children = call("pgrep", "-P", str(torchrun.pid)).stdout.split()
        os.kill(int(children[-1]), signal.SIGKILL)
        started = time.monotonic()
        assert torchrun.wait(30) != 0
        assert time.monotonic() - started < 30
        wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30)
        assert torchrun.stderr is not None
        assert "has ended" in (told := torchrun.stderr.read()), told
    finally:
        torchrun.kill()
    again = call(*command(1, data, out, "selflabel.iterations=400", "distill.rounds=0"))
    assert again.returncode == 0, again.stderr
    assert "going on at it" in again.stdout


@pytest.mark.slow
def test_both_stop_after_the_same_step_when_asked_to(data: Path, tmp_path: Path) -> None:
    """As SLURM asks: all processes, of which the launcher hands the signal on to those that have it already."""
    out, log = tmp_path / "run", tmp_path / "log"
    choices = ("selflabel.iterations=3000", "distill.rounds=0", "log_every=2000", "save_every=2000")
    with log.open("w") as file:
        torchrun = subprocess.Popen(
            command(2, data, out, *choices), stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        wait_until(lambda: "stage 1 …" in log.read_text() or torchrun.poll() is not None, 120)
        time.sleep(2)
        workers = [int(process) for process in call("pgrep", "-P", str(torchrun.pid)).stdout.split()]
        assert len(workers) == 2
        for process in (*workers, torchrun.pid):
            os.kill(process, signal.SIGTERM)
        wait_until(lambda: torchrun.poll() is not None, 200, log)
    finally:
        torchrun.kill()
    assert torchrun.returncode != 0
    told = log.read_text()
    saved = re.search(r"asked to stop, saved at iteration (\d+)", told)
    assert saved, told
    assert "acclimate: terminated; the same command goes on" in told
    assert told.count("Traceback") == told.count("SignalException: Process"), told  # torchrun's own alone
    again = subprocess.Popen(command(1, data, out, *choices), stdout=subprocess.PIPE, text=True)
    try:
        assert again.stdout is not None
        assert any(f"going on at it {saved[1]} of 3000" in line for line in again.stdout)
    finally:
        again.kill()
        again.wait()


def wait_until(happened: Callable[[], bool], seconds: float, log: Path | None = None) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited in vain\n{log.read_text() if log else ''}"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_wrong_file_is_told_once(data: Path, tmp_path: Path) -> None:
    """Found by the first process, for all."""
    words = [word.replace(str(data / "target"), str(data / "nowhere")) for word in command(2, data, tmp_path / "run")]
    done = call(*words)
    assert done.returncode != 0
    assert done.stderr.count("nowhere: no such folder") == 1
