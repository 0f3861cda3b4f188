import numpy as np
import pytest

from acclimate.data.seeding import Schedule, generator


def test_equal_arguments_give_equal_numbers():
    assert generator(3, "source", 1, 2).integers(1 << 60) == generator(3, "source", 1, 2).integers(1 << 60)


def test_every_argument_matters():
    calls = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1), (1, "a", 0)]
    assert len({int(generator(*call).integers(1 << 60)) for call in calls}) == len(calls)


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generator(0, "a").random()
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_schedule_shows_every_item_once_per_epoch_in_changing_order():
    schedule = Schedule(17, seed=1, stream="target")
    keys = [schedule(position) for position in range(3 * 17)]
    orders = [[index for epoch, index in keys if epoch == e] for e in range(3)]
    assert [sorted(order) for order in orders] == [list(range(17))] * 3
    assert orders[0] != orders[1] != orders[2]


def test_schedule_has_no_state():
    ahead, fresh = Schedule(5, 0, "s"), Schedule(5, 0, "s")
    walked = [ahead(position) for position in range(12)]
    assert [fresh(position) for position in reversed(range(12))] == walked[::-1]


def test_an_empty_schedule_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Schedule(0, 0, "s")
