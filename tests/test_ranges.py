"""Every number that a config may not have is refused in one sentence, whatever it is."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgjax import config_files, ranges
from fgjax.config import check, flatten, override
from fgjax.errors import UserError
from fgjax.ranges import Range

CONFIGS = ("aircraft:lapm,demo", "aircraft:ghns,demo", "aircraft:hdcl,demo", "aircraft:ccfr,demo",
           "aircraft:probe,demo", "cub:hdcl,recognition", "folder:lapm,small")  # fmt: skip
NUMBERS = (0, 1, 2, -1, 3, 7, 1 << 40, -(1 << 40), 99_999_999, 10**400)
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, math.inf, -math.inf, math.nan)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("data.image_size", 99_999_999, "at least 16 and at most 8192"),
        ("seed", -5, "at least 0 and at most 4294967295"),
        ("method.margin.optimizer.momentum", -3.0, "at least 0 and below 1"),
        ("method.margin.optimizer.warmup_epochs", -1.0, "0 or more"),
        ("method.margin.optimizer.clip", -1.0, "0 or more"),
        ("method.margin.optimizer.decay_epochs", 0, "1 or more"),
        ("method.grouping.warmup.optimizer.learning_rate", math.nan, "above 0 and at most 1000"),
        ("data.prefetch", -4, "at least 1 and at most 1000"),
        ("data.workers", 100_000, "at least -1 and at most 256"),
        ("method.alpha", math.nan, "at least 0 and at most 1000"),
        ("method.grouping.part_size", 1.5, "above 0 and at most 1"),
        ("method.scope", "nowhere", "one of global, class, reference, running"),
        ("dtype", "float16", "one of float32, bfloat16"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(field, value, says):
    config = override(config_files.load("aircraft:lapm,demo"), {field: value})
    with pytest.raises(UserError) as found:
        check(config, 1)
    assert str(found.value) == f"config.{field} is {value!r}, but must be {says}."


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_is_accepted_or_refused_in_a_sentence_that_names_it(name):
    base = config_files.load(name)
    check(base, 1)
    refused = 0
    for field, value in flatten(base).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        for other in FLOATS if isinstance(value, float) else NUMBERS:
            try:
                check(override(config_files.load(name), {field: other}), 1)
            except UserError as error:
                refused += 1
                # A relation may name its other side.
                last = field.rsplit(".", 1)[-1]
                assert last.split("_")[0] in str(error), (field, other, error)
                assert str(error).endswith(".") and "\n" not in str(error)
            else:
                assert math.isfinite(other)
    assert refused > 50


def _parts(config):
    """A config and all dataclasses in it."""
    yield config
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, field.name)):
            yield from _parts(value)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_number_is_without_a_range(name):
    for part in _parts(config_files.load(name)):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            number = isinstance(value, (int, float, tuple)) and not isinstance(value, bool)
            assert "range" in field.metadata or not number, f"{type(part)}.{field.name}"


@pytest.mark.parametrize("value", [(), (0.2, 0.0), (1.5,), (math.nan,)])
def test_each_number_of_several_has_the_range(value):
    config = override(config_files.load("aircraft:ccfr,demo"), {"method.scales": value})
    with pytest.raises(UserError) as found:
        check(config, 1)
    wanted = "one or more, each above 0 and at most 1"
    assert str(found.value) == f"config.method.scales is {value!r}, but must be {wanted}."


@given(st.floats(allow_nan=True, allow_infinity=True), st.booleans(), st.booleans())
def test_ends_belong_to_a_range_unless_they_are_open(value, open_low, open_high):
    found = Range(-1.0, 2.0, open_low, open_high)
    inside = -1 < value < 2 or (value == -1 and not open_low) or (value == 2 and not open_high)
    assert (value in found) == inside


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Range(), "a number of reasonable size"), (Range(0), "0 or more"),
        (Range(0, open_low=True), "positive"),
        (Range(3, open_low=True), "above 3"), (Range(1, 2), "at least 1 and at most 2"),
        (Range(0, 1, open_high=True), "at least 0 and below 1"),
        (Range(0, 1, True, True), "above 0 and below 1"),
    ],
)  # fmt: skip
def test_a_range_in_words(given, said):
    assert str(given) == said


def test_fields_inside_of_fields_are_found():
    @dataclasses.dataclass
    class Inner:
        share: float = ranges.within(0.5, 0, 1)

    @dataclasses.dataclass
    class Outer:
        inner: Inner = dataclasses.field(default_factory=Inner)
        free: float = 1.0
        name: str = ""

    assert list(ranges.outside(Outer())) == []
    wrong = Outer(Inner(2.0), math.inf)
    assert list(ranges.outside(wrong)) == [
        ("inner.share", 2.0, "at least 0 and at most 1"),
        ("free", math.inf, "a number of reasonable size"),
    ]  # fmt: skip
