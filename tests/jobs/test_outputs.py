"""Output folders: claimed with their settings, gone on with by the same, refused to others."""

import pytest
import yaml

from maskwright.core.config import Config
from maskwright.core.errors import ConfigError, OutputExistsError
from maskwright.jobs.outputs import claim_output


class Inner(Config):
    every_steps: int = 5
    kind: str = "a"


class Settings(Config):
    seed: int = 0
    evaluation: Inner = Inner()
    log_every_steps: int = 10
    name: str | None = None


def claim(folder, config=None, *, resume=False, overwrite=False):
    claim_output(config or Settings(), folder, resume=resume, overwrite=overwrite)


@pytest.fixture
def begun(tmp_path):
    folder = tmp_path / "run"
    claim(folder)
    (folder / "work.txt").write_text("done")
    return folder


def test_an_empty_folder_gets_the_settings(tmp_path):
    claim(tmp_path / "a" / "b", Settings(seed=3))
    assert yaml.safe_load((tmp_path / "a" / "b" / "config.yaml").read_text())["seed"] == 3


def test_occupied(begun):
    with pytest.raises(
        OutputExistsError, match="is not empty; add --resume to go on, --overwrite to start again"
    ):
        claim(begun)


def test_settings_may_change_while_nothing_was_done(tmp_path):
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        claim(tmp_path / "run", Settings(seed=len(flags)), **flags)


def test_going_on_with_the_same(begun):
    claim(begun, resume=True)
    changed = Settings(evaluation=Inner(every_steps=1), log_every_steps=1)
    claim(begun, changed, resume=True)
    assert (begun / "work.txt").exists()
    assert "log_every_steps: 1\n" in (begun / "config.yaml").read_text()


def test_going_on_with_others_names_every_difference(begun):
    changed = Settings(seed=1, name="x", evaluation=Inner(kind="b"), log_every_steps=1)
    before = (begun / "config.yaml").read_bytes()
    said = (
        r"run: was begun with other settings \(evaluation\.kind was 'a', now 'b'; name was None, now 'x'; "
        r"seed was 0, now 1\); resume with the same settings, or add --overwrite to start again"
    )
    with pytest.raises(ConfigError, match=said):
        claim(begun, changed, resume=True)
    assert (begun / "config.yaml").read_bytes() == before


def test_settings_that_cannot_be_read(begun):
    (begun / "config.yaml").write_text("seed: [")
    with pytest.raises(ConfigError, match=r"config\.yaml: is not valid YAML"):
        claim(begun, resume=True)


def test_starting_again(begun):
    claim(begun, Settings(seed=9), overwrite=True)
    assert [path.name for path in begun.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}])
def test_work_of_others(tmp_path, flags):
    (tmp_path / "photo.jpg").write_text("dear")
    with pytest.raises(OutputExistsError, match=r"has no config\.yaml, so .*choose another output"):
        claim(tmp_path, **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_both(begun):
    with pytest.raises(ConfigError, match="both resume and overwrite were asked for; choose one"):
        claim(begun, resume=True, overwrite=True)
