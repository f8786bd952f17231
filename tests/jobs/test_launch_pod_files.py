"""What travels to pods with the recipe, and which paths are warned of because no claim has them."""

import json
import logging
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from maskwright.core.config import load_yaml, parse_config
from maskwright.core.errors import ConfigError
from maskwright.jobs.launching import KubernetesPlace, LaunchPlan, manifest_text, pack_recipe
from maskwright.jobs.launching.kubernetes import validate_manifest
from maskwright.jobs.launching.pod_files import READ, WRITTEN
from maskwright.training.pretrain_config import PretrainConfig

SETTINGS = {"zero_optimization": {"stage": 2}, "comment": "语料: |\ttab"}
CLAIMS = ["/claim", "/models/"]


def recipe(path=None, **values):
    parallel = {} if path is None else {"parallel": {"engine": "deepspeed", "deepspeed_config": str(path)}}
    return parse_config(PretrainConfig, {"data": "s3://bucket/data", **parallel, **values}, "test")


def warnings_of(caplog, config, output="runs/r", claims=CLAIMS):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "maskwright"):
        pack_recipe(config, Path(output), claims)
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    """The command line keeps records from the root logger, where caplog listens."""
    monkeypatch.setattr(logging.getLogger("maskwright"), "propagate", True)


@pytest.mark.parametrize("kind", ["jobset", "pytorchjob"])
def test_a_deepspeed_config_travels(command, tmp_path, kind):
    given = json.dumps(SETTINGS, indent=4, ensure_ascii=False)
    (tmp_path / "my ds.json").write_text(given, "utf-8")
    result = command(
        *("launch", "pretrain", "laptop", "data=s3://b/d", "device=auto", "precision=bf16"),
        *("parallel={engine: deepspeed, deepspeed_config: my ds.json}", "--on", "kubernetes"),
        *("--kind", kind, "--image", "i:1", "--claim", "work=/claim", "--script", "m.yaml"),
    )
    assert (result.code, result.err) == (0, "")
    text = (tmp_path / "m.yaml").read_text("utf-8")
    validate_manifest(text)
    files, job = yaml.safe_load_all(text)
    assert files["data"]["ds_config.json"] == given
    inside = parse_config(
        PretrainConfig, load_yaml(files["data"]["recipe.yaml"].encode(), "r")["pretrain"], "r"
    )
    [mount] = [mount for mount in nested(job, "volumeMounts") if mount["name"] == "recipe"]
    [volume] = [volume for volume in nested(job, "volumes") if volume["name"] == "recipe"]
    assert volume["configMap"]["name"] == files["metadata"]["name"]
    assert inside.parallel.deepspeed_config == f"{mount['mountPath']}/ds_config.json"
    assert (inside.parallel.engine, inside.precision) == ("deepspeed", "bf16")


def nested(value, key):
    """The first list under a key, at any depth."""
    if isinstance(value, dict) and key in value:
        return value[key]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for child in children if (found := nested(child, key))), None)


@pytest.mark.parametrize(
    "text",
    [
        '  {"a": 1}',
        '{"a": 1}',
        '{\r\n\t"a": 1\r\n}\r\n\r\n',
        '{\n "a": "\x85\u2028\u2029"\n}',
        '{\n "a": "x"  \n}  \n',
        '{\n "a": "\x7f\ufeff😀"\n}\n',
    ],
)
def test_it_arrives_as_it_was(tmp_path, text):
    path = tmp_path / "ds.json"
    path.write_bytes(text.encode())
    _, further = pack_recipe(recipe(path), Path("r"), CLAIMS)
    place = KubernetesPlace("i:1", claims={"/claim": "work"})
    written = manifest_text(LaunchPlan((), Path("r"), "r"), place, "pretrain: {}\n", further)
    arrived = next(yaml.safe_load_all(written))["data"]["ds_config.json"]
    assert arrived.splitlines() == path.read_text("utf-8").splitlines()
    assert json.loads(arrived) == json.loads(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            r"^parallel\.deepspeed_config is .*ds\.json, which cannot be read here \(No such file or "
            r"directory\).*; correct the path, or name it by its absolute path on a claim "
            r"\(/claim, /models/\)$",
        ),
        (b"{stage: 2}", r"ds\.json \(parallel\.deepspeed_config\) is no JSON: Expecting .*; correct it$"),
        (b"\xff{}", r"ds\.json \(parallel\.deepspeed_config\) is no JSON: .*; correct it$"),
        (b"[1]", r"ds\.json \(parallel\.deepspeed_config\) holds a list, expected an object"),
    ],
)
def test_refused(tmp_path, content, message):
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        pack_recipe(recipe(path), Path("r"), CLAIMS)


def test_nothing_is_written_when_refused(command, tmp_path):
    result = command(
        *("launch", "pretrain", "laptop", "parallel={engine: deepspeed, deepspeed_config: no.json}"),
        *("--on", "kubernetes", "--image", "i:1", "--claim", "work=/claim", "--script", "m.yaml"),
    )
    assert result.code == 2
    assert "parallel.deepspeed_config is no.json, which cannot be read here" in result.err
    assert not list(tmp_path.iterdir())


def test_a_deepspeed_config_that_only_the_claim_has_stays_there():
    config = recipe("/claim/no/such/place/ds.json")
    assert pack_recipe(config, Path("r"), CLAIMS) == (config, {})
    with pytest.raises(ConfigError, match="cannot be read here"):  # a relative one is meant to be here
        pack_recipe(recipe("no/such/place/ds.json"), Path("r"), CLAIMS)


def test_more_than_a_config_map_holds():
    plan, place = LaunchPlan((), Path("r"), "r"), KubernetesPlace("i:1", claims={"/claim": "work"})
    most, head = 1 << 20, "pretrain: {}\n"
    text = "语" * ((most - len(head)) // 3)
    text += "x" * (most - len(head) - len(text.encode()))
    files = next(yaml.safe_load_all(manifest_text(plan, place, head, {"ds_config.json": text})))["data"]
    assert sum(len(content.encode()) for content in files.values()) == most
    with pytest.raises(
        ConfigError,
        match=r"recipe\.yaml \(13 bytes\) and ds_config\.json \(1,048,564 bytes\) are too large for the "
        r"manifest, as a ConfigMap holds 1,048,576; shorten ds_config\.json, or put it on a claim",
    ):
        manifest_text(plan, place, head, {"ds_config.json": text + "x"})


class TestPaths:
    """Which paths are warned of."""

    @pytest.mark.parametrize(
        "path",
        [
            "s3://bucket/x",
            "hf://datasets/x",
            "simplecache::s3://b/x",
            "x/y",
            ".",
            "x/../y",
            "/claim",
            "/claim/x",
            "/claim//x/",
            "/models/x",
            "/models",
            "file:///claim/x",
            "语料/x",
        ],
    )
    def test_none(self, caplog, path):
        config = recipe(
            data=path,
            init_from=path,
            evaluation={"minimal_pairs": path},
            checkpoint={"upload": path},
            cache={"folder": path},
        )
        assert warnings_of(caplog, config) == []

    @pytest.mark.parametrize(
        ("path", "shown"),
        [
            ("/data/x", "/data/x"),
            ("/", "/"),
            ("/claims/x", "/claims/x"),
            ("/claim/../data", "/claim/../data (in the pods /data)"),
            ("../data", "../data (in the pods /data)"),
            ("file:///data", "file:///data (in the pods /data)"),
            ("//claim2/x", "//claim2/x (in the pods /claim2/x)"),
        ],
    )
    def test_one(self, caplog, path, shown):
        [message] = warnings_of(caplog, recipe(init_from=path))
        assert message == (
            f"init_from is {shown}, which is on no claim (/claim, /models/): pods have it only if their "
            "image does; put it on a claim, and name its path there"
        )

    def test_each_is_named(self, caplog):
        config = recipe(
            data="/a/data",
            init_from="/a/model",
            evaluation={"minimal_pairs": "/a/pairs"},
            checkpoint={"upload": "/a/copies"},
            cache={"folder": "/a/cache"},
        )
        messages = warnings_of(caplog, config, output="/a/run")
        assert [message.partition(",")[0] for message in messages] == [
            "data is /a/data",
            "init_from is /a/model",
            "evaluation.minimal_pairs is /a/pairs",
            "checkpoint.upload is /a/copies",
            "cache.folder is /a/cache",
            "--output is /a/run",
        ]
        lost = "what is written there goes with its pod"
        assert [lost in message for message in messages] == [False] * 3 + [True] * 3

    def test_a_claim_of_everything(self, caplog):
        assert warnings_of(caplog, recipe(data="/data"), claims=["/"]) == []

    def test_the_command_says_it(self, command, tmp_path):
        result = command(
            *("launch", "pretrain", "laptop", "data=/data/mine", "--on", "kubernetes"),
            *("--image", "i:1", "--claim", "work=/claim", "--script", "m.yaml"),
        )
        assert result.code == 0
        [line] = result.err.splitlines()
        assert "data is /data/mine, which is on no claim (/claim)" in line
        assert (tmp_path / "m.yaml").exists()

    def test_no_path_is_forgotten(self):
        """Whoever adds a setting with a path decides here whether pods have it."""
        names = {"tracking.project", "tracking.name"}
        assert set(texts(PretrainConfig)) == {*READ, *WRITTEN, "parallel.deepspeed_config", *names}


def texts(config, prefix=""):
    """Dotted names of the settings that take any text."""
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from texts(field.annotation, f"{prefix}{name}.")
        elif field.annotation in (str, str | None):
            yield prefix + name
