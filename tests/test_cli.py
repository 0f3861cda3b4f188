"""The command line: what it understands, what it prints, and how it ends."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import acclimate
from acclimate import cli, recipe
from acclimate.cli.recipes import header
from acclimate.errors import UserError

HEAVY = {"torch", "torchvision", "timm", "numpy", "PIL", "rich", "yaml"}


@pytest.fixture
def call(capsys):
    """Run the command line in this process: exit code, output, errors."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as end:  # argparse ends by itself
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the pipeline and the demo; keeps what they were asked for."""
    calls = []

    def stand_in(*args):
        calls.append(args)

    for name in ("pipeline.adapt", "demo.demo"):
        monkeypatch.setattr(f"acclimate.{name}", stand_in)
    return calls


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["adapt", "--help"], ["predict"], ["nonsense"]])
def test_parsing_imports_nothing_heavy(words):
    program = (
        "import sys\nfrom acclimate import cli\n"
        f"try: cli.main({words})\nexcept SystemExit: pass\n"
        f"sys.exit('imported: ' + ' '.join({HEAVY} & set(sys.modules)) if {HEAVY} & set(sys.modules) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_package_is_imported_without_torch():
    program = "import sys, acclimate; dir(acclimate); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_package_offers_its_names():
    assert set(acclimate.__all__) <= set(dir(acclimate))
    assert acclimate.Recipe is recipe.Recipe
    assert acclimate.UserError is UserError
    assert callable(acclimate.load)
    assert callable(acclimate.predict)
    assert callable(acclimate.evaluate)
    with pytest.raises(AttributeError, match="adapts"):
        _ = acclimate.adapts


def test_help_and_version(call):
    code, out, _ = call("--help")
    assert code == 0
    assert all(command in out for command in cli.COMMANDS)
    assert call() == (0, out, "")
    assert call("--version") == (0, f"acclimate {acclimate.__version__}\n", "")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert out.startswith(f"usage: acclimate {command}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["adpt"], "invalid choice: 'adpt'"),
        (["adapt"], "--out"),
        (["adapt", "--out", "run", "--sorce", "x"], "--sorce"),
        (["adapt", "--out", "run", "--val-layout", "kitti"], "kitti"),
        (["adapt", "--out", "run", "--target-labels", "x"], "--target-labels"),
        (["predict", "run", "--out", "masks"], "IMAGES"),
        (["predict", "run", "x", "--out", "masks", "--scales", "1;2"], "numbers such as 0.75,1,1.25, found '1;2'"),
        (["predict", "run", "x", "--out", "masks", "--scales", "0"], "scales: expected numbers above 0"),
        (["evaluate", "run", "--data", "x", "--window", "512"], "HEIGHT x WIDTH such as 512x1024, found '512'"),
        (["evaluate", "run", "--data", "x", "--window", "8x512"], "window: expected at least 32x32"),
        (["evaluate", "run", "--data", "x", "--width", "16"], "width: expected at least 32"),
        (["adapt", "lapotp", "--out", "run"], "did you mean laptop?"),
        (["adapt", "laptop", "demo", "--out", "run"], "one recipe at a time, found laptop, demo"),
        (["check", "selflable.bank=0", "seed=x"], "2 problems"),
        (["evaluate", "absent.safetensors", "--data", "x"], "absent.safetensors: no such model"),
        (["recipes", "absent.yaml"], "absent.yaml: no such recipe file"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_message(call, words, message):
    code, out, err = call(*words)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_flags_are_short_for_overrides(call, asked, tmp_path):
    code, _, err = call(
        "adapt", "--source", "my renders: v=2", "--target", tmp_path, "laptop", "--labels", "map.yaml", "--seed", 7,
        "--val", "v", "--val-layout", "cityscapes", "--val-split", "test", "--val-ids", "train", "data.width=320",
        "--ceiling", "c", "--ceiling-labels", "gt/{name}.png", "--out", tmp_path / "run", "data.crop=[64, 96]",
    )  # fmt: skip
    assert (code, err) == (0, "")
    ((asked_recipe, out, reuse),) = asked
    assert (out, reuse) == (tmp_path / "run", None)
    base = recipe.load("laptop")
    folder = recipe.Folder
    assert recipe.difference(base, asked_recipe).keys() == {
        "seed", "data.width", "data.crop", "data.classes", "data.source.path", "data.source.ids", "data.target.path",
        "data.ceiling.path", "data.ceiling.labels",
    }, "what is only measured on does not make another recipe"  # fmt: skip
    assert asked_recipe.seed == 7
    assert asked_recipe.data.classes == "map.yaml"
    assert asked_recipe.data.crop == (64, 96)
    assert asked_recipe.data.source == folder(path="my renders: v=2", ids="map.yaml")
    assert asked_recipe.data.target == folder(path=str(tmp_path))
    assert asked_recipe.data.val == folder("v", "cityscapes", "test", "", "train")
    assert asked_recipe.data.ceiling == folder(path="c", labels="gt/{name}.png")


def test_written_choices_win_over_flags(call, asked):
    call("adapt", "--seed", 1, "seed=2", "--out", "run", "--reuse", "other")
    assert asked[0][0].seed == 2
    assert str(asked[0][2]) == "other"


def test_the_python_function_asks_for_the_same(asked, tmp_path):
    acclimate.adapt(tmp_path, "photos", labels="map.yaml", out="run", seed=3, selflabel={"bank": 0})
    cli.main(["adapt", "--source", str(tmp_path), "--target", "photos", "--labels", "map.yaml", "--out", "run",
              "seed=3", "selflabel.bank=0"])  # fmt: skip
    assert asked[0] == asked[1]


def test_demo_passes_choices_on(call, asked, tmp_path):
    assert call("demo", "--out", tmp_path, "seed=1", "distill.rounds=0")[0] == 0
    assert asked == [(tmp_path, ["seed=1", "distill.rounds=0"], None)]


@pytest.mark.parametrize("error", [UserError("x.png: broken; copy it again"), KeyboardInterrupt()])
def test_commands_end_without_a_traceback(call, asked, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("acclimate.pipeline.adapt", fail)
    code, out, err = call("adapt", "--out", "run")
    expected = (2, "broken; copy it again") if isinstance(error, UserError) else (130, "goes on from the last")
    assert (code, out) == (expected[0], "")
    assert err.strip().startswith("acclimate: ")
    assert expected[1] in err


def test_recipes_are_listed_and_shown(call):
    _, listing, _ = call("recipes")
    assert [line for line in listing.splitlines() if line in recipe.names()] == recipe.names()
    for name in recipe.names():
        code, out, _ = call("recipes", name)
        assert (code, out) == (0, recipe.read(name)[0])


@pytest.mark.parametrize("width", [40, 100])
def test_the_list_has_what_the_headers_say_and_fits_the_terminal(call, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, listing, _ = call("recipes")
    text, laptop = " ".join(listing.split()), header(recipe.read("laptop")[0])
    assert "laptop Your own folders, or a small benchmark, on a laptop without a GPU." in text
    assert f"hardware: 2 CPU cores time: {laptop['time']} mIoU: {laptop['mIoU']}" in text
    assert "command: acclimate demo --out runs/demo" in text
    entries = [line for line in listing.splitlines() if line.startswith(" ")]
    assert max(map(len, entries)) <= width


def test_recipes_as_json(call):
    listed = json.loads(call("recipes", "--json")[1])
    assert list(listed) == recipe.names()
    assert listed["demo"]["command"] == "acclimate demo --out runs/demo"
    _, out, err = call("recipes", "laptop", "--json")
    shown = json.loads(out)
    assert shown["recipe"]["selflabel"]["iterations"] == 1000 and shown["hardware"] == "2 CPU cores"
    assert err == recipe.read("laptop")[0]
    assert "\\" not in listed["gta5-cityscapes-official"]["command"]


def test_headers_end_where_remarks_begin():
    text = "# A recipe,\n# in two lines.\n#   time:  1 h\n#          on a laptop\n#   mIoU:  50\n# A remark.\ndata: 1\n"
    assert header(text) == {"summary": "A recipe, in two lines.", "time": "1 h on a laptop", "mIoU": "50"}
    assert header("data: {}\n") == {"summary": ""}


@pytest.fixture
def labelled(tmp_path, blocks):
    """Folders with two images and their labels."""
    for number in range(2):
        for name, array in zip(("images", "labels"), blocks(64, 96, number), strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_evaluate_prints_a_table_or_json(call, trained, labelled):
    words = ("evaluate", trained, "--data", labelled / "images", "--labels", labelled / "labels", "--device", "cpu")
    code, table, err = call(*words)
    assert (code, err) == (0, "")
    assert all(word in table for word in ("red", "green", "blue", "mean", "2 images"))
    _, text, _ = call(*words, "--json")
    scores = json.loads(text)
    assert scores["images"] == 2
    assert set(scores["iou"]) == {"red", "green", "blue"}
    assert f"{100 * scores['mean_iou']:.1f}" in table


def test_reports_of_modules_are_shown_on_stderr_and_only_then(call, monkeypatch):
    def recipes(args):
        logging.getLogger("acclimate.networks.backbones").info("%s: %s", "r101.pth", "4 tensors matched")

    monkeypatch.setitem(cli.COMMANDS, "recipes", cli.Command("recipes", "list", lambda parser: None, recipes))
    assert call("recipes") == (0, "", "r101.pth: 4 tensors matched\n")
    recipes(None)
    assert call("--version")[2] == ""


def test_evaluate_and_predict_look_as_they_are_told(call, monkeypatch):
    asked = []

    def load(*args):
        asked.append(args)
        raise UserError("enough")

    monkeypatch.setattr("acclimate.prediction.load", load)
    looks = ("--width", 512, "--scales", "0.75,1,1.25", "--flip", "--window", "128x256", "--device", "cpu")
    for words in (("evaluate", "run", "--data", "x"), ("predict", "run", "x", "--out", "masks")):
        assert call(*words)[0] == call(*words, *looks)[0] == 2
    told = acclimate.Inference((0.75, 1.0, 1.25), True, (128, 256))
    assert asked == [("run", "auto", None, acclimate.Inference()), ("run", "cpu", 512, told)] * 2


def test_evaluate_refuses_labels_outside_the_model(call, trained, labelled):
    Image.fromarray(np.full((64, 96), 9, np.uint8)).save(labelled / "labels" / "1.png")
    code, _, err = call("evaluate", trained, "--data", labelled / "images", "--labels", labelled / "labels")
    assert code == 2
    assert "1.png" in err
    assert "9" in err


def test_predict_writes_masks_once(call, trained, labelled):
    words = ("predict", trained, labelled / "images", "--out", labelled / "masks", "--device", "cpu")
    code, out, _ = call(*words, "--overlay")
    assert code == 0
    assert out.startswith("2 masks")
    assert len(list((labelled / "masks").iterdir())) == 4
    code, _, err = call(*words)
    assert code == 0
    assert "2 of 2 masks are there already" in err and "--overwrite" in err
    assert call(*words, "--overwrite")[0] == 0


def test_check_describes_the_data(call, labelled):
    (labelled / "map.yaml").write_text("0: red\n1: green\n2: blue\n")
    words = ("--source", labelled / "images", "--source-labels", labelled / "labels", "--target", labelled / "images",
             "--labels", labelled / "map.yaml", "source.batch=2", "warmup.batch=2", "selflabel.batch=2",
             "distill.batch=2", "data.width=96")  # fmt: skip
    code, out, err = call("check", *words)
    assert code == 0
    assert all(word in out for word in ("source", "target", "96 x 64", "red", "blue", "No problems found"))
    assert "warning: data.source and data.target: 2 of 2 images are the same" in err and "warning" not in out
    code, out, told = call("check", *words, "--json")
    facts = json.loads(out)
    assert code == 0 and "No problems found" in told and err in told
    assert facts["classes"] == ["red", "green", "blue"] and len(facts["warnings"]) == err.count("warning: ")
    assert facts["sets"]["source"]["images"] == 2 and facts["sets"]["source"]["largest_hw"] == [64, 96]
    assert sum(facts["sets"]["source"]["frequency"].values()) == pytest.approx(1)
    assert facts["sets"]["target"]["frequency"] is None and facts["unreadable"] == []
    assert call("check", *words, "--quiet") == (0, "", err)
    (labelled / "labels" / "1.png").unlink()
    code, out, err = call("check", *words)
    assert code == 2 and "No problems" not in out
    assert "1.png" in err
    code, out, err = call("check", *words, "--json", "--quiet")
    assert code == 2 and err == f"acclimate: {json.loads(out)['error']}\n"


def test_adapt_tells_scripts_what_came_out(call, monkeypatch, tmp_path):
    class Finished:
        folder, best, results = tmp_path, tmp_path / "model.safetensors", [{"name": "source", "mean_iou": 0.5}]

    def adapt(*_):
        sys.stdout.write("source …\n")
        return Finished()

    monkeypatch.setattr("acclimate.pipeline.adapt", adapt)
    told = {"run": str(tmp_path), "model": str(tmp_path / "model.safetensors"), "stages": Finished.results}
    code, out, err = call("adapt", "--out", tmp_path, "--json")
    assert (code, json.loads(out), err) == (0, told, "source …\n")
    code, out, err = call("adapt", "--out", tmp_path, "--json", "--quiet")
    assert (code, json.loads(out), err) == (0, told, "")
    assert call("adapt", "--out", tmp_path, "--quiet") == (0, "", "")
    monkeypatch.setenv("RANK", "1")
    assert call("adapt", "--out", tmp_path, "--json") == (0, "", ""), "the first of many processes answers"


def test_predict_tells_scripts_which_masks(call, trained, labelled):
    words = ("predict", trained, labelled / "images", "--out", labelled / "masks", "--device", "cpu", "--json")
    code, out, err = call(*words)
    assert code == 0 and "2 masks in" in err
    assert json.loads(out)["masks"] == [str(labelled / "masks" / f"{number}.png") for number in range(2)]


def test_quiet_keeps_warnings_of_modules_and_drops_their_reports(call, monkeypatch):
    def run(args):
        log = logging.getLogger("acclimate.data")
        log.info("4 tensors matched")
        log.warning("a disk is slow")

    monkeypatch.setitem(cli.COMMANDS, "recipes", cli.Command("recipes", "list", lambda parser: None, run))
    assert call("recipes", "--quiet") == (0, "", "a disk is slow\n")


def test_the_module_runs_as_a_program():
    ended = subprocess.run(
        [sys.executable, "-m", "acclimate", "adapt", "absent.yaml", "--out", "run"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "acclimate: absent.yaml: no such recipe file\n"


def test_a_reader_that_has_had_enough_ends_nothing_with_a_traceback() -> None:
    line = f"{sys.executable} -m acclimate recipes laptop | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; for i in 1 2 3; do {line}; done"], capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    assert done.stdout == "###" and "Traceback" not in done.stderr
