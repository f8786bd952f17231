"""A manifest for Kubernetes: one pod a machine, with the resolved recipe inside.

A pod that is preempted, or leaves with 3 after saving, comes back and goes on, and is not counted. A pod
that refuses its input (2) ends the run. Everything else comes back and counts, up to a limit. JobSet knows
these rules. A PyTorchJob only brings back what ends with 128 or more, so there all codes but 0 and 2 are
raised by 128, and what is counted is up to its operator.

Source: see `manifest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from ...core.errors import ConfigError, Interrupted, UserError
from .manifest import (
    ClaimSource,
    ConfigMap,
    Container,
    EmptySource,
    FailureRule,
    JobSet,
    JobSetSpec,
    JobSpec,
    JobTemplate,
    MapSource,
    Metadata,
    Mount,
    Network,
    OnExitCodes,
    OnPodCondition,
    PodFailurePolicy,
    PodSpec,
    PodTemplate,
    Port,
    PyTorchJob,
    PyTorchJobSpec,
    ReplicaSpec,
    ReplicaSpecs,
    ReplicatedJob,
    Resources,
    RunPolicy,
    SetFailurePolicy,
    SetFailureRule,
    Volume,
    plain,
)
from .plan import MARK, LaunchPlan, dns_name
from .pod_files import POD_FOLDER

__all__ = ["Kind", "KubernetesPlace", "manifest_text", "validate_manifest"]

Kind = Literal["jobset", "pytorchjob"]
_RECIPE_NAME = "recipe.yaml"
_MOST_BYTES = 1 << 20  # of all files in a ConfigMap
_ODD_BREAKS = frozenset("\x85\u2028\u2029")  # which YAML would read as line breaks
_PORTS: Mapping[Kind, int] = {"jobset": 29400, "pytorchjob": 23456}
_CONTAINERS: Mapping[Kind, str] = {"jobset": "trainer", "pytorchjob": "pytorch"}
# Codes from 128 bring a pod of a PyTorchJob back; the rank comes from the operator. The shell is the first
# process of its container, so it has to hand on the request to stop.
_WRAPPER = f"""\
launcher=""
asked=""
trap 'asked=yes; if [ -n "$launcher" ]; then kill -TERM "$launcher"; fi' TERM INT
"$@" --node-rank "$RANK" &
launcher=$!
if [ -n "$asked" ]; then kill -TERM "$launcher"; fi
wait "$launcher"
code=$?
while [ "$code" -gt 128 ] && kill -0 "$launcher" 2>/dev/null; do
  wait "$launcher"
  code=$?
done
if [ "$code" -ne 0 ] && [ "$code" -ne {UserError.exit_code} ] && [ "$code" -lt 128 ]; then
  code=$((code + 128))
fi
exit "$code"
"""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, so that people can read them."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _ODD_BREAKS.intersection(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class KubernetesPlace:
    """What pods get.

    Attributes:
        image: container image with maskwright in it.
        kind: which operator the cluster has.
        claims: claims of storage that all pods share, by the folder where they appear. Relative paths of
            the run begin in the first.
        cpus: of a pod; None asks for none.
        memory: of a pod, such as `64Gi`; None asks for none.
        shared_memory: of a pod, for processes on GPUs that share it.
        grace_seconds: between the request to stop and the end; saving must fit in.
    """

    image: str
    kind: Kind = "jobset"
    claims: Mapping[str, str] = field(default_factory=dict)
    cpus: int | None = None
    memory: str | None = None
    shared_memory: str = "16Gi"
    grace_seconds: int = 300


def manifest_text(
    plan: LaunchPlan, place: KubernetesPlace, recipe: str, further: Mapping[str, str] = {}
) -> str:
    """The manifest: the recipe and small files as a ConfigMap, and the job.

    Args:
        plan: what to run on how many machines.
        place: what pods get.
        recipe: the resolved recipe as YAML.
        further: files beside it in the pods, content by name.

    Raises:
        ConfigError: a value that Kubernetes would refuse.
    """
    name = dns_name(plan.name)
    try:
        documents = [_recipe_map(name, {_RECIPE_NAME: recipe, **further}), _job(plan, place, name)]
    except ValidationError as error:
        raise ConfigError(f"Kubernetes would refuse the job: {_first_fault(error)}") from error
    objects = [plain(document) for document in documents]
    text = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    text = f"{MARK}. Submit it with kubectl apply -f.\n{text}"
    validate_manifest(text)
    return text


def validate_manifest(text: str) -> list[str]:
    """Make sure that a manifest is what the interfaces know.

    Args:
        text: YAML with one or more documents.

    Returns:
        The kinds of its documents.

    Raises:
        ConfigError: a key or a value is not known.
    """
    models: dict[str, type[BaseModel]] = {"ConfigMap": ConfigMap, "JobSet": JobSet, "PyTorchJob": PyTorchJob}
    kinds: list[str] = []
    for document in yaml.safe_load_all(text):
        kind = document.get("kind") if isinstance(document, dict) else None
        if not isinstance(kind, str) or kind not in models:
            raise ConfigError(f"kind {kind!r} is not known, expected one of {', '.join(models)}")
        try:
            models[kind].model_validate(document, by_name=False, by_alias=True)
        except ValidationError as error:
            raise ConfigError(f"{kind}: {_first_fault(error)}") from error
        kinds.append(kind)
    return kinds


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place or 'it'}: {fault['msg']} (given: {fault['input']!r:.80})"


def _recipe_map(name: str, files: Mapping[str, str]) -> ConfigMap:
    sizes = {file: len(text.encode()) for file, text in files.items()}
    if sum(sizes.values()) > _MOST_BYTES:
        named = " and ".join(f"{file} ({size:,} bytes)" for file, size in sizes.items())
        raise ConfigError(
            f"{named} are too large for the manifest, as a ConfigMap holds {_MOST_BYTES:,}; shorten "
            f"{max(sizes, key=sizes.__getitem__)}, or put it on a claim and name its path there"
        )
    return ConfigMap(metadata=_metadata(name), data=dict(files))


def _metadata(name: str) -> Metadata:
    return Metadata(
        name=name, labels={"app.kubernetes.io/name": "maskwright", "app.kubernetes.io/instance": name}
    )


def _job(plan: LaunchPlan, place: KubernetesPlace, name: str) -> JobSet | PyTorchJob:
    return (_job_set if place.kind == "jobset" else _pytorch_job)(plan, place, name)


def _command(plan: LaunchPlan, place: KubernetesPlace, address: str) -> list[str]:
    """The launcher of a pod; Kubernetes would fill in what looks like one of its variables."""
    words = plan.launch_arguments((f"{POD_FOLDER}/{_RECIPE_NAME}",))
    return [
        *("python", "-m", "maskwright"),
        *(word.replace("$(", "$$(") for word in words),
        *("--address", f"{address}:{_PORTS[place.kind]}"),
    ]


def _pod(
    plan: LaunchPlan, place: KubernetesPlace, name: str, command: list[str], args: list[str], **spec: Any
) -> PodTemplate:
    gpus = {"nvidia.com/gpu": str(plan.machines.gpus)} if plan.machines.gpus else {}
    amounts = {"cpu": str(place.cpus) if place.cpus else None, "memory": place.memory}
    limits = {key: value for key, value in amounts.items() if value} | gpus
    volumes, mounts = _storage(place, name)
    port = Port(
        name="pytorchjob-port" if place.kind == "pytorchjob" else "rendezvous",
        container_port=_PORTS[place.kind],
    )
    container = Container(
        name=_CONTAINERS[place.kind],
        image=place.image,
        command=command,
        args=args,
        working_dir=next(iter(place.claims), None),
        ports=[port],
        resources=Resources(requests=limits, limits=limits) if limits else None,
        volume_mounts=mounts,
    )
    pod = PodSpec(
        containers=[container],
        volumes=volumes,
        termination_grace_period_seconds=place.grace_seconds,
        **spec,
    )
    return PodTemplate(metadata={"labels": _metadata(name).labels}, spec=pod)


def _storage(place: KubernetesPlace, name: str) -> tuple[list[Volume], list[Mount]]:
    volumes = [
        Volume(name="recipe", config_map=MapSource(name=name)),
        Volume(name="shared-memory", empty_dir=EmptySource(medium="Memory", size_limit=place.shared_memory)),
    ]
    mounts = [
        Mount(name="recipe", mount_path=POD_FOLDER, read_only=True),
        Mount(name="shared-memory", mount_path="/dev/shm"),
    ]
    for number, (folder, claim) in enumerate(place.claims.items()):
        source = ClaimSource(claim_name=claim)
        volumes.append(Volume(name=f"claim-{number}", persistent_volume_claim=source))
        mounts.append(Mount(name=f"claim-{number}", mount_path=folder))
    return volumes, mounts


def _job_set(plan: LaunchPlan, place: KubernetesPlace, name: str) -> JobSet:
    nodes, container = plan.machines.nodes, _CONTAINERS["jobset"]
    command = _command(plan, place, f"{name}-node-0-0.{name}")
    template = _pod(
        plan, place, name, command, ["--node-rank", "$(JOB_COMPLETION_INDEX)"], restart_policy="Never"
    )

    def on_code(action: Literal["Ignore", "FailJob"], code: int) -> FailureRule:
        codes = OnExitCodes(container_name=container, operator="In", values=[code])
        return FailureRule(action=action, on_exit_codes=codes)

    rules = [
        FailureRule(action="Ignore", on_pod_conditions=[OnPodCondition(type="DisruptionTarget")]),
        on_code("Ignore", Interrupted.exit_code),
        on_code("FailJob", UserError.exit_code),
    ]
    job = JobSpec(
        completions=nodes,
        parallelism=nodes,
        completion_mode="Indexed",
        backoff_limit=nodes * max(1, plan.restarts),  # a crash of one pod takes the others with it
        pod_failure_policy=PodFailurePolicy(rules=rules),
        template=template,
    )
    final = SetFailureRule(
        name="refusedInput", action="FailJobSet", on_job_failure_reasons=["PodFailurePolicy"]
    )
    return JobSet(
        metadata=_metadata(name),
        spec=JobSetSpec(
            network=Network(enable_dns_hostnames=True, subdomain=name, publish_not_ready_addresses=True),
            failure_policy=SetFailurePolicy(max_restarts=plan.restarts, rules=[final]),
            replicated_jobs=[ReplicatedJob(name="node", replicas=1, template=JobTemplate(spec=job))],
        ),
    )


def _pytorch_job(plan: LaunchPlan, place: KubernetesPlace, name: str) -> PyTorchJob:
    nodes = plan.machines.nodes
    command = ["/bin/sh", "-c", _WRAPPER, "launch"]
    args = _command(plan, place, f"{name}-master-0")
    template = _pod(plan, place, name, command, args)

    def role(replicas: int) -> ReplicaSpec:
        return ReplicaSpec(replicas=replicas, restart_policy="ExitCode", template=template)

    return PyTorchJob(
        metadata=_metadata(name),
        spec=PyTorchJobSpec(
            run_policy=RunPolicy(clean_pod_policy="None", backoff_limit=nodes * max(1, plan.restarts)),
            nproc_per_node=str(plan.machines.processes),
            pytorch_replica_specs=ReplicaSpecs(Master=role(1), Worker=role(nodes - 1) if nodes > 1 else None),
        ),
    )
