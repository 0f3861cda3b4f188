"""Killed anywhere and called again, a run ends as one never killed, to the bit: what `docs/reliability.md` promises."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest
from killable import Death, Job, to_json

from acclimate import recipe
from acclimate.data import streets
from acclimate.lock import locked
from acclimate.prediction import load

DEATHS = [
    Death("half", "recipe.yaml"),
    Death("cut", "recipe.yaml"),
    Death("cut", "environment.json"),
    Death("killed", "source", 1),
    Death("half", "stages/source/checkpoint.pt", 1),
    Death("cut", "stages/source/checkpoint.pt", 1),
    Death("renamed", "stages/source/checkpoint-previous.pt", 1),
    Death("cut", "stages/source/checkpoint.pt", 2),
    Death("failed", "source", 3),
    Death("synced", "stages/source/model.safetensors"),
    Death("cut", "stages/source/model.safetensors"),
    Death("cut", "stages/source/done.json"),
    Death("record", "source", 5),
    Death("cut", "stages/source/scores.json"),
    Death("cut", "colour-source.npz"),
    Death("half", "colour-target.npz"),
    Death("terminated", "warmup", 1),
    Death("synced", "stages/warmup/checkpoint.pt"),
    Death("renamed", "stages/warmup/done.json"),
    Death("killed", "initialise/label", 2),
    Death("cut", "stages/initialise/soft/000001.npz"),
    Death("cut", "stages/initialise/soft/manifest.json"),
    Death("cut", "stages/initialise/distribution.json"),
    Death("half", "stages/initialise/prototypes.safetensors"),
    Death("synced", "stages/initialise/done.json"),
    Death("record", "selflabel", 2),
    Death("terminated", "selflabel", 3),
    Death("half", "stages/selflabel/checkpoint.pt", 2),
    Death("killed", "selflabel", 5),
    Death("cut", "stages/selflabel/candidates/0000004.safetensors"),
    Death("cut", "stages/selflabel/selection.json"),
    Death("terminated", "distill-1/label", 2),
    Death("cut", "stages/distill-1/soft/manifest.json"),
    Death("cut", "stages/distill-1/distribution.json"),
    Death("killed", "distill-1", 3),
    Death("renamed", "stages/distill-1/model.safetensors"),
    Death("renamed", "stages/average/model.safetensors"),
    Death("terminated", "ceiling", 3),
    Death("renamed", "stages/ceiling/scores.json"),
    Death("cut", "model.safetensors"),
    Death("cut", "selection.json"),
    Death("half", "results.json"),
    Death("cut", "comparison.png"),
]
"""In the order of a run. Checkpoints are saved at steps 2 and 4."""

LIVES = 6
"""Runs that share the deaths in the quick test: each dies of every sixth."""

WITH_WORKERS = [
    (Death("killed", "warmup", 2), "2", "0"),
    (Death("interrupted", "selflabel", 2), "1", "2"),
    (Death("terminated", "distill-1", 1), "2", "1"),
]
"""How a run dies, and the data workers before and after."""

DAMAGES = {
    "stages/source/model.safetensors": "source",
    "stages/initialise/prototypes.safetensors": "initialise",
    "stages/initialise/soft/000001.npz": "initialise",
    "stages/distill-1/soft/000002.npz": "distill-1",
}
"""Files of finished stages, and the stage to do anew when one is damaged."""


_CODES = {"terminated": 143, "interrupted": 130, "failed": 1}


class Runner:
    """Runs the command line on tiny data, in as many processes at a time as there are processors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        streets.write(folder / "streets", source=4, target=3, val=1, seed=3, size=(48, 80))
        (folder / "recipe.yaml").write_text(recipe.to_yaml(tiny(folder / "streets")))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("killable.py"))]
        self.count = os.cpu_count() or 1
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(self.count)
        ]
        self.free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for process in self.processes:
            self.free.put(process)

    def __call__(self, name: str, death: Death | None = None, *words: str) -> tuple[int, str]:
        """Exit code and output of one call; ``name`` is the run folder's."""
        run, log = self.folder / name, self.folder / f"{name}.log"
        log.write_text("")
        command = ["adapt", str(self.folder / "recipe.yaml"), "--out", str(run), *words]
        process = self.free.get()
        try:
            assert process.stdin and process.stdout
            process.stdin.write(to_json(Job(command, str(run), str(log), death)) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline()), log.read_text()
        finally:
            self.free.put(process)

    def live(self, name: str, *deaths: Death, workers: Sequence[str] = ()) -> dict[str, object]:
        """Call until the run is finished, dying of each of the deaths in turn; returns its story.

        Args:
            workers: numbers of data workers of the calls; default 0.
        """
        for number, death in enumerate((*deaths, None)):
            code, text = self(name, death, f"data.workers={workers[number] if workers else 0}")
            assert code == (_CODES.get(death.how, -9) if death else 0), f"{death}: {text}"
            if death is None or death.how != "failed":
                assert "Traceback" not in text
            if death and death.how in ("terminated", "interrupted"):
                assert "the same command goes on" in text
        return story(self.folder / name)


def tiny(data: Path) -> recipe.Recipe:
    sections = {"source": 5, "warmup": 3, "selflabel": 5, "distill": 3, "ceiling": 3}
    return recipe.load("demo", [
        *(f"data.{role}.path={data / role}" for role in ("source", "target", "val", "ceiling")),
        "data.classes=streets", "data.width=80", "data.crop=[32, 48]", "log_every=2", "save_every=2",
        "network.backbone=test_resnet.r160_in1k", "network.weights=none", "network.channels=16", "selflabel.bank=256",
        "distill.rounds=1", *(f"{name}.iterations={count}" for name, count in sections.items()),
        *(f"{name}.batch=2" for name in sections),
    ])  # fmt: skip


def story(run: Path) -> dict[str, object]:
    """All files of a run and the state at each stage's end, without what may differ: minutes, workers, versions."""
    files: dict[str, object] = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        if path.name in (".lock", "environment.json", "report.html"):
            continue
        name = str(path.relative_to(run))
        content: object = path.read_bytes()
        if path.name in ("done.json", "results.json"):
            content = re.sub(r'"minutes": [\d.e-]+', "", path.read_text())
        if path.name in ("results.md", "recipe.yaml"):
            content = [line for line in path.read_text().splitlines() if not re.match(r"\| minutes|  workers:", line)]
        files[name] = content
    states = {f"state of {path.name}": path.read_text() for path in run.with_name(f"{run.name}-states").iterdir()}
    return files | states


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("reliability"))
    yield runner
    for process in runner.processes:
        process.communicate()  # the end of its input ends it


@pytest.fixture(scope="module")
def unbroken(runner: Runner) -> dict[str, object]:
    return runner.live("unbroken")


@pytest.fixture(scope="module")
def ends(runner: Runner, unbroken: object, request: pytest.FixtureRequest) -> Iterator[dict[Death, Future]]:
    """The stories of the deaths that tests are about, lived side by side."""
    tests = [item for item in request.session.items if "ends" in getattr(item, "fixturenames", ())]
    deaths = [item.callspec.params["death"] for item in tests]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(runner.count) as pool:
        yield {death: pool.submit(runner.live, str(death).replace("/", "-"), death) for death in deaths}


@pytest.fixture(scope="module")
def lives(runner: Runner, unbroken: object) -> Iterator[list[Future]]:
    with ThreadPoolExecutor(runner.count) as pool:
        yield [pool.submit(runner.live, f"life-{n}", *DEATHS[n::LIVES]) for n in range(LIVES)]


def assert_same(found: dict[str, object], unbroken: dict[str, object]) -> None:
    assert sorted(found) == sorted(unbroken)
    assert [name for name in found if found[name] != unbroken[name]] == []


def test_the_comparison_sees_all_there_is(runner: Runner, unbroken: dict[str, object]) -> None:
    other = runner("other", None, "data.workers=0", "seed=1")
    assert other[0] == 0
    differing = {name for name, content in story(runner.folder / "other").items() if content != unbroken[name]}
    same = {name for name in unbroken if re.search("colour|manifest", name)}
    assert differing == set(unbroken) - same
    bank = [line for line in str(unbroken["state of selflabel"]).splitlines() if "bank" in line]
    assert len(bank) >= 3 and "metrics.jsonl" in differing and "comparison.png" in differing


@pytest.mark.parametrize("number", range(LIVES))
def test_a_run_that_dies_again_and_again_comes_to_the_same_end(
    unbroken: dict[str, object], lives: list[Future], number: int
) -> None:
    assert_same(lives[number].result(), unbroken)


def test_a_second_run_is_kept_out_and_readers_are_not(runner: Runner, unbroken: object) -> None:
    run = runner.folder / "unbroken"
    with locked(run):
        code, text = runner("unbroken")
        assert code == 2 and f"{run}: process {os.getpid()} on" in text and "is at work" in text
        assert load(run, device="cpu")


@pytest.mark.reliability
@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_a_run_that_died_goes_on_to_the_same_end(
    unbroken: dict[str, object], ends: dict[Death, Future], death: Death
) -> None:
    assert_same(ends[death].result(), unbroken)


@pytest.mark.reliability
@pytest.mark.parametrize(("death", "before", "after"), WITH_WORKERS, ids=str)
def test_the_number_of_data_workers_may_change(
    runner: Runner, unbroken: dict[str, object], death: Death, before: str, after: str
) -> None:
    assert_same(runner.live(f"workers-{death.how}", death, workers=[before, after]), unbroken)


@pytest.mark.reliability
@pytest.mark.parametrize("damaged", DAMAGES)
def test_damage_to_a_finished_stage_is_found_and_mended(
    runner: Runner, unbroken: dict[str, object], damaged: str
) -> None:
    name = f"damaged-{damaged.replace('/', '-')}"
    run = runner.folder / name
    for suffix in ("", "-states"):
        shutil.copytree(runner.folder / f"unbroken{suffix}", runner.folder / f"{name}{suffix}")
    os.truncate(run / damaged, (run / damaged).stat().st_size // 2)
    code, text = runner(name)
    assert code == 2 and f"{run / damaged}: missing or damaged" in text and "Traceback" not in text
    shutil.rmtree(run / "stages" / DAMAGES[damaged])  # as the message says
    found, expected = runner.live(name), dict(unbroken)
    lines = [content.pop("metrics.jsonl").splitlines() for content in (found, expected)]  # type: ignore[attr-defined]
    assert sorted(lines[0]) == sorted(lines[1])
    assert_same(found, expected)


@pytest.mark.reliability
def test_a_disk_that_fills_stops_the_run_and_harms_nothing(
    runner: Runner, unbroken: dict[str, object], tmp_path: Path
) -> None:
    disk = runner.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        code, text = runner("disk/run")
        assert code == 2 and "No space left on device" in text and "free some space" in text, text
        assert "Traceback" not in text and str(disk) in text.splitlines()[-1]
        assert not list(disk.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert_same(runner.live("disk/run"), unbroken)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
