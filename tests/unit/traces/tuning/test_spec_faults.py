"""Tunings in YAML: all faults at once, and files without bound end in one line."""

from __future__ import annotations

import time

import pytest

from traces import InputError
from traces.tuning.spec import tuning_from_yaml

BOMB = "name: x\na0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))


def test_all_faults_come_at_once() -> None:
    text = "name: mine\nsede: 1\ntrain:\n  epochs: -1\n  lr: fast\n"
    with pytest.raises(InputError) as caught:
        tuning_from_yaml(text, "t.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert {line.partition(": ")[0] for line in lines} == {"t.yaml:2", "t.yaml:4", "t.yaml:5"}
    assert any("field 'sede': unknown key; did you mean 'seed'?" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "more than 10,000 values, aliases counted"),
        ("name: &a [*a]", "alias 'a' contains itself"),
        ("name: " + "[" * 3000 + "]" * 3000, "nested more than 40 levels deep"),
        ("name: a\x07", "not YAML that can be read"),
        ("seed: 9" + "9" * 5000, "not YAML that can be read"),
        ("name: " + "a" * 1_000_001, "at most 1,000,000 are read"),
    ],
)
def test_files_without_bound_end_in_one_line(text: str, says: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=says) as caught:
        tuning_from_yaml(text, "t.yaml")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 5


def test_anchors_of_honest_files_work() -> None:
    tuning = tuning_from_yaml("name: mine\ntitle: &t one line\ntrain: {epochs: &e 2.0, lr: 0.001}\n", "t.yaml")
    assert (tuning.title, tuning.train.epochs) == ("one line", 2.0)
    assert tuning_from_yaml("name: &n mine\ntitle: *n\n", "t.yaml").title == "mine"
