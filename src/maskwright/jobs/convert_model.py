"""Models from Hugging Face and fairseq to ours, and ours to Hugging Face, each compared before it is kept.

A folder is written under a temporary name, loaded again by `transformers` and compared with the model
in memory; only one whose outputs agree appears under its own name. Cost: the model twice in memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ..core.config import parse_config
from ..core.errors import CheckpointError, ConfigError
from ..core.files import publish_folder, read_json, storage_errors
from ..core.log import get_logger
from ..model.config import EncoderConfig
from ..model.fairseq import load_fairseq
from ..model.heads import MaskedLM, SequenceClassifier
from ..model.hf import Parity, check_parity, export_model, load_model
from ..tokens.tokenizer import Tokenizer
from ..training.checkpoint_config import CheckpointConfig
from ..training.checkpoints import Checkpoints

__all__ = ["ModelForm", "export_model_folder", "find_model_form", "import_model"]

log = get_logger(__name__)
ModelForm = Literal["hf", "fairseq", "checkpoint"]
Model = MaskedLM | SequenceClassifier


def find_model_form(path: Path) -> tuple[ModelForm, Path]:
    """What model lies at a path, told by its content.

    Args:
        path: a Hugging Face folder, a run, a checkpoint of a run, a fairseq checkpoint, or the folder
            of a `model.pt`.

    Returns:
        Its form, and the folder or file itself.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        return "fairseq", path
    for folder in (path, path / "export"):
        if (folder / "config.json").is_file():
            return "hf", folder
    if (path / "model.pt").is_file():
        return "fairseq", path / "model.pt"
    if (path / "manifest.json").is_file() and path.name.startswith("step-"):
        return "checkpoint", path
    steps = Checkpoints(path / "checkpoints", CheckpointConfig(), about={}).steps()
    if steps:
        return "checkpoint", path / "checkpoints" / f"step-{steps[-1]:08d}"
    raise CheckpointError(
        f"{path}: holds no model; give a Hugging Face folder, a run, a checkpoint, or a model.pt of fairseq"
    )


def import_model(source: Path, output: Path, tokenizer: Path | None = None) -> dict[str, Any]:
    """Bring a model of others into a folder that Maskwright and `transformers` load.

    Args:
        source: a Hugging Face folder (safetensors or pytorch_model.bin, in one file or in shards), a
            fairseq `model.pt`, or its folder.
        output: the folder to make; must be empty or missing.
        tokenizer: where its tokenizer is; by default beside the weights.

    Returns:
        What was found: form, kind, parameters, and how the outputs compare with `transformers`.

    Raises:
        CheckpointError: the model cannot be read, is not supported, or its outputs differ.
        TokenizerError: the tokenizer is missing or does not fit.
        StorageError: the storage refused.
    """
    form, place = find_model_form(source)
    if form == "checkpoint":
        raise CheckpointError(f"{source}: is a checkpoint of Maskwright; export it with --to hf")
    vocabulary = Tokenizer.load(tokenizer or (place if place.is_dir() else place.parent))
    labels = None
    checks: dict[str, Parity] = {}
    model: Model
    if form == "fairseq":
        unigram = vocabulary.definition["model"]["type"] == "Unigram"
        model = load_fairseq(place, "xlm-roberta" if unigram else "roberta")
    else:
        model, labels = load_model(place)
        checks["source"] = check_parity(model, place, vocabulary.special_ids)
    checks["written"] = _write(model, labels, vocabulary, place, output)
    return _results(model, form, output, checks)


def export_model_folder(source: Path, output: Path, tokenizer: Path | None = None) -> dict[str, Any]:
    """Write a model as a Hugging Face folder.

    Args:
        source: a run, one of its checkpoints, or a folder with a model.
        output: the folder to make; must be empty or missing.
        tokenizer: where its tokenizer is; by default where the run has it.

    Returns:
        As `import_model`.

    Raises:
        CheckpointError: the model cannot be read, or its outputs differ from those of `transformers`.
        TokenizerError: the tokenizer is missing or does not fit.
        StorageError: the storage refused.
    """
    form, place = find_model_form(source)
    if form == "fairseq":
        raise CheckpointError(f"{source}: is a checkpoint of fairseq; bring it in with maskwright import")
    labels = None
    model: Model
    if form == "checkpoint":
        model, manifest = _load_checkpoint(place)
        vocabulary = Tokenizer.load(tokenizer or _data_folder(manifest, place) / "tokenizer")
    else:
        model, labels = load_model(place)
        vocabulary = Tokenizer.load(tokenizer or place)
    checks = {"written": _write(model, labels, vocabulary, place, output)}
    return _results(model, form, output, checks)


def _write(model: Model, labels: list[str] | None, tokenizer: Tokenizer, place: Path, output: Path) -> Parity:
    """Write a folder beside the output, compare it, and give it its name."""
    config = model.config
    tokenizer.require_size(config.vocab_size, str(place))
    if tokenizer.pad_id != config.pad_token_id:
        raise CheckpointError(
            f"{place}: pads with id {config.pad_token_id}, but its tokenizer with {tokenizer.pad_id}; "
            "give the tokenizer of this model"
        )
    config = config.replace(bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id)

    def fill(folder: Path) -> Parity:
        export_model(folder, model, config, labels)
        tokenizer.save(folder, config.max_length)
        return check_parity(model, folder, tokenizer.special_ids)

    return _publish(output, fill)


def _publish(output: Path, fill: Callable[[Path], Parity]) -> Parity:
    temporary = output.absolute().with_name(f".partial-{output.name}")
    try:
        with storage_errors(output):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            result = fill(temporary)
            if output.is_dir():
                output.rmdir()
        publish_folder(temporary, output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return result


def _load_checkpoint(path: Path) -> tuple[MaskedLM, dict[str, Any]]:
    """The masked language model in a checkpoint of a pretraining run, and the checkpoint's manifest."""
    steps = path.name.removeprefix("step-")
    if not steps.isdigit():
        raise CheckpointError(
            f"{path}: is not named as a checkpoint is, step-00001000; give it its name again"
        )
    loaded = Checkpoints(path.parent, CheckpointConfig(), about={}).load(int(steps))
    manifest = dict(read_json(path / "manifest.json"))
    shape = manifest.get("shape")
    if not isinstance(shape, dict):
        raise CheckpointError(
            f"{path}: does not say the shape of its model; it is of an older Maskwright or of another task, "
            "export the finished run instead"
        )
    try:
        config = parse_config(EncoderConfig, shape, str(path / "manifest.json"))
    except ConfigError as error:
        raise CheckpointError(f"{error}; use the Maskwright that wrote it") from error
    model = MaskedLM(config)
    weights = loaded.tensors.get("model", {})
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: shape and weights do not belong together ({reason})") from error
    return model.eval(), manifest


def _data_folder(manifest: dict[str, Any], path: Path) -> Path:
    """The data that a run learnt from, where its tokenizer lies."""
    import yaml

    try:
        return Path(yaml.safe_load(manifest["config"])["data"])
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise CheckpointError(
            f"{path}: does not name the data it learnt from; give its tokenizer with --tokenizer"
        ) from error


def _results(model: Model, form: ModelForm, output: Path, checks: dict[str, Parity]) -> dict[str, Any]:
    for name, check in checks.items():
        log.info("outputs of the %s folder: %s", name, check)
    differences = [check.max_difference for check in checks.values() if check.max_difference is not None]
    heads = "classifier" if isinstance(model, SequenceClassifier) else "masked language model"
    if isinstance(model, MaskedLM) and model.config.has_pooler:
        heads += ", pooler" + (", next sentence" if model.config.next_sentence else "")
    return {
        "output": str(output),
        "from": form,
        "model_type": model.config.model_type,
        "heads": heads,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "difference": {name: str(check) for name, check in checks.items()},
        "largest_difference": max(differences, default=None),
    }
