"""What the adaptation benchmark makes of finished runs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is not installed

from benchmarks.adaptation.__main__ import STORY, on_record, put_on_record, unfolded
from benchmarks.adaptation.settings import SETTINGS
from benchmarks.adaptation.table import Story, gap_closed, goals, longest, lost, markdown, mean_of, spread
from benchmarks.adaptation.variants import OURS, VARIANTS

PIXELS = {"road": 980, "pole": 10, "sign": 10}


def story(variant: str, seed: int, adapted: float, rare: float = 0.1) -> Story:
    """Source-only 0.2, ceiling 0.6; all classes alike but the rare ones of the adapted model."""

    def row(name: str, mean: float, rare: float, chosen: bool = False) -> dict:
        iou = {"road": mean, "pole": rare, "sign": rare}
        return {
            "name": name,
            "title": name,
            "minutes": 1.0,
            "mean_iou": mean,
            "iou": iou,
            "pixels": PIXELS,
            "chosen": chosen,
        }

    stages = [row("source", 0.2, 0.1), row("warmup", 0.3, 0.1), row("selflabel", adapted, rare, chosen=True),
              row("distill-1", 0.25, 0.0), row("ceiling", 0.6, 0.5)]  # fmt: skip
    return Story("demo", variant, seed, peak_mb=2048, stages=stages)


def test_the_chosen_stage_counts_and_the_tail_is_apart() -> None:
    one = story(OURS, 0, adapted=0.5, rare=0.3)
    assert gap_closed(one, one) == pytest.approx(75)
    assert mean_of(one.adapted, tail=True) == pytest.approx(30)
    assert mean_of(one.adapted, tail=False) == pytest.approx(50)


def test_a_variant_goes_the_way_of_ours_however_short_its_setting_is() -> None:
    ours, other = story(OURS, 0, adapted=0.5), replace(story("official", 0, adapted=0.4), setting="demo-stage-1")
    other.of("source")["mean_iou"] = 0.3
    other.stages.pop()  # no ceiling of its own
    assert gap_closed(other, other) is None and gap_closed(other, None) is None
    assert gap_closed(other, longest([other, ours], "demo-stage-1")[0]) == pytest.approx(50)
    text = markdown([ours, replace(ours, setting="demo-stage-1"), other])
    assert "| official | 1 | 40.0 | -10.0 | 10.0 | 40.0 | 50.0 |" in text


def test_a_setting_whose_ours_is_to_be_measured_again_shows_the_others() -> None:
    text = markdown([story("official", 0, adapted=0.4)])
    assert "| official | 1 | 40.0 |" in text and "| ours |" not in text


def test_rows_tell_the_commits_that_they_were_measured_at() -> None:
    seeds = [replace(story(OURS, seed, 0.5), environment={"git": git}) for seed, git in enumerate("aab")]
    assert "| 2.0 | a, b |" in markdown(seeds)
    assert "| 2.0 | unknown |" in markdown([story(OURS, 0, 0.5)])


def test_goals_are_means_over_the_seeds_that_both_variants_have() -> None:
    stories = [story(OURS, 0, 0.5, rare=0.4), story(OURS, 1, 0.4), story("official", 0, 0.45)]
    rows = goals(stories)
    found = {row["name"]: row["measured"] for row in rows}
    deviations = {row["name"]: row.get("sd") for row in rows}
    assert found["ours over official, points of mIoU (demo, 1 seed)"] == pytest.approx(5)
    assert deviations["ours over official, points of mIoU (demo, 1 seed)"] is None
    assert deviations["share of the gap closed, % (demo, 2 seeds)"] == pytest.approx(12.5 * 2**0.5, abs=0.01)
    assert found["share of the gap closed, % (demo, 2 seeds)"] == pytest.approx(62.5)
    tail = found["tail's gain over warm-up less the others', points (demo, 2 seeds)"]
    assert tail == pytest.approx(0)  # +30 -20, 0 -10
    way = found[
        "share of the way from warm-up to ceiling that the tail has gone, less the others', points (demo, 2 seeds)"
    ]
    aim = ((30 / 40 - 20 / 30) + (0 / 40 - 10 / 30)) / 2
    assert way == pytest.approx(100 * aim, abs=0.01)
    assert not any("naive" in name for name in found)


def test_the_choice_is_held_against_the_best_checkpoint_of_all_stages() -> None:
    one = story(OURS, 0, adapted=0.5)
    assert lost(one) is None  # candidates were not kept
    one.of("warmup")["candidates"] = {"10": 0.2, "20": 0.3}
    one.of("selflabel")["candidates"] = {"10": 0.52, "20": 0.5}
    assert lost(one) is None  # nor were those of the last stage
    one.of("distill-1")["candidates"] = {"20": 0.25}
    one.of("ceiling")["candidates"] = {"20": 0.6}
    assert lost(one) == pytest.approx(2)
    one.stages.append({"name": "average", "mean_iou": 0.53})  # which has no checkpoints but itself
    assert lost(one) == pytest.approx(3)


def test_tables_name_every_variant_that_was_run() -> None:
    text = markdown([story(OURS, 0, 0.5), story("no rectification", 0, 0.4)])
    assert "| no rectification | 1 | 40.0 | -10.0 |" in text
    assert "| selflabel | 50.0 |" in text
    assert "| IoU, % | source | warmup | selflabel | distill-1 | ceiling |" in text
    assert "| pole | 10.0 | 10.0 | 10.0 | 0.0 | 50.0 |" in text
    assert "| IoU, % | road | pole | sign | mIoU |" in text
    assert "| ours | 50.0 | 10.0 | 10.0 | 50.0 |\n| no rectification | 40.0 | 10.0 | 10.0 | 40.0 |" in text
    assert spread([1.0, 3.0]) == "2.0 ± 1.4"


def test_a_class_that_no_image_shows_has_an_empty_cell() -> None:
    one = story(OURS, 0, 0.5)
    for row in one.stages:
        row["iou"]["sign"] = None
    assert "| sign |  |  |  |  |  |" in markdown([one])


def test_spreads_are_over_the_seeds() -> None:
    assert "| road | 20.0 ± 0.0 | 30.0 ± 0.0 | 45.0 ± 7.1 |" in markdown([story(OURS, 0, 0.5), story(OURS, 1, 0.4)])


def test_ours_comes_first_since_the_others_take_over_from_it() -> None:
    demo = SETTINGS["demo"]
    assert unfolded(["parts", "no CutMix"], demo)[0] == OURS
    assert len(unfolded(["parts", "defects", "baselines", "passes"], demo)) == len(VARIANTS)


def test_runs_to_stage_1_leave_out_what_changes_distillation_alone_unless_it_is_named() -> None:
    to_stage_1, b2 = SETTINGS["demo-stage-1"], "B2 distillation without logarithm"
    assert set(unfolded(["defects"], SETTINGS["demo"])) - set(unfolded(["defects"], to_stage_1)) == {b2}
    assert b2 in unfolded([b2], to_stage_1)


def test_a_record_outlives_its_run_and_is_replaced_by_a_run_done_again(tmp_path: Path) -> None:
    out, records = tmp_path / "out", tmp_path / "records"
    place = out / "demo" / "ours" / "seed-3"
    for adapted in (0.4, 0.5):
        place.mkdir(parents=True)
        (place / STORY).write_text(json.dumps(asdict(story(OURS, 3, adapted))))
        put_on_record(out, records)
        shutil.rmtree(place)
        assert list(on_record(records)) == [story(OURS, 3, adapted)]
    put_on_record(out, records)  # of nothing
    assert len(list(on_record(records))) == 1


def test_settings_without_records_keep_what_the_tables_say() -> None:
    before = [replace(story(OURS, 0, 0.5), setting=setting) for setting in ("camvid", "demo")]
    now = [story(OURS, 0, 0.3)]
    text = markdown(now, before=markdown(before))
    assert text == markdown([*now, before[0]])
    assert text.count("| selflabel | 50.0 |") == 1 and text.count("| selflabel | 30.0 |") == 1
    rows = goals(now, before=goals(before))
    assert {row["name"]: row["measured"] for row in rows} == {
        row["name"]: row["measured"] for row in goals([*now, before[0]])
    }
