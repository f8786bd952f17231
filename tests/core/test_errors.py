"""The tree of errors: exit codes, and messages that survive a trip between processes."""

import pickle

import pytest

from maskwright.core import errors

USER_ERRORS = [
    errors.ConfigError,
    errors.DataError,
    errors.ShardError,
    errors.TokenizerError,
    errors.CheckpointError,
    errors.OutputExistsError,
    errors.StorageError,
    errors.MissingDependencyError,
]


@pytest.mark.parametrize("cls", USER_ERRORS)
def test_user_errors_exit_with_two_and_are_value_errors(cls):
    assert issubclass(cls, errors.UserError)
    assert issubclass(cls, ValueError)
    assert cls.exit_code == 2


def test_other_exit_codes():
    assert errors.MaskwrightError.exit_code == 1
    assert errors.Interrupted.exit_code == 3
    assert not issubclass(errors.Interrupted, errors.UserError)


def test_all_names_every_class_of_the_module():
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(errors.__all__) == classes


def test_a_missing_dependency_names_library_purpose_and_install_line():
    error = errors.MissingDependencyError("torch", "train", "train a model")
    assert str(error) == (
        "torch is not installed, and it is needed to train a model; "
        "install it with: pip install 'maskwright[train]'"
    )


@pytest.mark.parametrize(
    "error",
    [errors.DataError("a.txt:3: wrong"), errors.MissingDependencyError("ray", "ray", "use a cluster")],
    ids=["plain", "with arguments"],
)
def test_errors_can_be_sent_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
