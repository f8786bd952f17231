"""A run has its folder for itself until it ends, however it ends."""

import pytest

import maskwright
import tiny_world
from maskwright.core.errors import OutputExistsError
from maskwright.core.lock import lock_folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_second_run_in_a_folder_is_refused(data_folder, tmp_path):
    values, folder = {**tiny_world.PRETRAIN, "data": str(data_folder), "steps": 8}, tmp_path / "run"
    maskwright.pretrain(values, output=folder)
    longer = {**values, "steps": 12}
    with lock_folder(folder):  # as a run does that still goes on
        before = contents(folder)
        for options in ({"resume": True, "force": True}, {"overwrite": True}):
            with pytest.raises(OutputExistsError, match="another maskwright job is writing here"):
                maskwright.pretrain(longer, output=folder, **options)
        assert contents(folder) == before
    assert maskwright.pretrain(longer, output=folder, resume=True, force=True)["steps"] == 12
    with lock_folder(folder):  # nobody holds it any more
        pass


def test_a_refused_run_leaves_no_folder(data_folder, tmp_path):
    values = {**tiny_world.PRETRAIN, "data": str(data_folder), "sequence_length": 1_000}
    with pytest.raises(maskwright.UserError):
        maskwright.pretrain(values, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
