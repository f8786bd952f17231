"""`--profile` is short for a setting, and gives way to it."""

import pytest

from maskwright.cli.pretrain import with_profile


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["profile.steps=3"]),
        (["mine.yaml", "steps=9"], ["mine.yaml", "steps=9", "profile.steps=3"]),
        (["profile.steps=8", "profile.first=2"], ["profile.steps=8", "profile.first=2"]),
    ],
)
def test_profiling_is_turned_on_once(given, expected):
    assert with_profile(given) == expected


def test_the_command_takes_it(command):
    assert "--profile" in command("pretrain", "--help").out
