"""The parts of Kubernetes objects that we write, as strict models: anything unknown is refused.

The names are those of the published interfaces; only what a run needs is here. Writing goes through
these models, and what was written is read back through them.

Source: Kubernetes v1.31 (core/v1, batch/v1), JobSet (jobset.x-k8s.io/v1alpha2) and the Kubeflow training
operator (kubeflow.org/v1).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

__all__ = ["ConfigMap", "JobSet", "PyTorchJob", "plain"]

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]
Absolute = Annotated[str, StringConstraints(pattern=r"^/[^:]*$")]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """Base of all: camel case outside, nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Metadata(Part):
    """Name and labels of an object."""

    name: Label
    labels: dict[str, str] | None = None


class TemplateMetadata(Part):
    """Labels of what a template makes; it gets its name from its owner."""

    labels: dict[str, str] | None = None


class ConfigMap(Part):
    """Files for pods."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    metadata: Metadata
    data: dict[str, str]


class Variable(Part):
    """A variable of a container."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: str


class Port(Part):
    """A port that a container listens on."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=15)]
    container_port: Annotated[int, Field(ge=1, le=65535)]


class Mount(Part):
    """Where a volume appears in a container."""

    name: Label
    mount_path: Absolute
    read_only: bool | None = None


class Resources(Part):
    """What a container asks for, and may use at most."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None


class Container(Part):
    """One container of a pod."""

    name: Label
    image: Annotated[str, StringConstraints(pattern=r"^[^\s]+$")]
    command: list[str]
    args: list[str] | None = None
    working_dir: Absolute | None = None
    env: list[Variable] | None = None
    ports: list[Port] | None = None
    resources: Resources | None = None
    volume_mounts: list[Mount] | None = None


class ClaimSource(Part):
    """A claim of storage that exists."""

    claim_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class MapSource(Part):
    """Files of a ConfigMap."""

    name: Label


class EmptySource(Part):
    """A folder that lives as long as its pod."""

    medium: Literal["", "Memory"] | None = None
    size_limit: Quantity | None = None


class Volume(Part):
    """A volume of a pod; of exactly one kind."""

    name: Label
    persistent_volume_claim: ClaimSource | None = None
    config_map: MapSource | None = None
    empty_dir: EmptySource | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = (self.persistent_volume_claim, self.config_map, self.empty_dir)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError(f"volume {self.name} needs exactly one source")
        return self


class PodSpec(Part):
    """What a pod runs."""

    containers: Annotated[list[Container], Field(min_length=1)]
    restart_policy: Literal["Always", "OnFailure", "Never"] | None = None
    subdomain: Label | None = None
    termination_grace_period_seconds: Limit | None = None
    volumes: list[Volume] | None = None

    @model_validator(mode="after")
    def _mounts_have_volumes(self) -> Self:
        known = {volume.name for volume in self.volumes or []}
        for container in self.containers:
            for mount in container.volume_mounts or []:
                if mount.name not in known:
                    raise ValueError(f"container {container.name} mounts {mount.name}, which is no volume")
        return self


class PodTemplate(Part):
    """What pods are made after."""

    metadata: TemplateMetadata | None = None
    spec: PodSpec


class OnExitCodes(Part):
    """A rule for exit codes of a container."""

    container_name: Label | None = None
    operator: Literal["In", "NotIn"]
    values: Annotated[list[Annotated[int, Field(ge=1, le=255)]], Field(min_length=1, max_length=255)]


class OnPodCondition(Part):
    """A rule for a condition of a pod."""

    type: Literal["DisruptionTarget", "PodScheduled", "Ready", "Initialized", "ContainersReady"]
    status: Literal["True", "False", "Unknown"] = "True"


class FailureRule(Part):
    """What a pod's failure means; for codes or for conditions."""

    action: Literal["FailJob", "FailIndex", "Ignore", "Count"]
    on_exit_codes: OnExitCodes | None = None
    on_pod_conditions: list[OnPodCondition] | None = None

    @model_validator(mode="after")
    def _one_requirement(self) -> Self:
        if (self.on_exit_codes is None) == (self.on_pod_conditions is None):
            raise ValueError("a rule needs either onExitCodes or onPodConditions")
        return self


class PodFailurePolicy(Part):
    """What failures of pods mean for their job, by the first rule that fits."""

    rules: Annotated[list[FailureRule], Field(max_length=20)]


class JobSpec(Part):
    """A job of batch/v1."""

    completions: Count
    parallelism: Count
    completion_mode: Literal["Indexed", "NonIndexed"]
    backoff_limit: Limit
    pod_failure_policy: PodFailurePolicy | None = None
    template: PodTemplate

    @model_validator(mode="after")
    def _policy_needs_never(self) -> Self:
        if self.pod_failure_policy is not None and self.template.spec.restart_policy != "Never":
            raise ValueError("podFailurePolicy needs restartPolicy Never")
        return self


class JobTemplate(Part):
    """What a job is made after."""

    spec: JobSpec


class ReplicatedJob(Part):
    """Jobs of one kind in a set."""

    name: Label
    replicas: Count = 1
    template: JobTemplate


class Network(Part):
    """Names of the pods of a set, by a headless service."""

    enable_dns_hostnames: bool = Field(alias="enableDNSHostnames")
    subdomain: Label | None = None
    publish_not_ready_addresses: bool | None = None


class SetFailureRule(Part):
    """What a job's failure means for its set."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    action: Literal["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    on_job_failure_reasons: list[
        Literal["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded"]
        | Literal["PodFailurePolicy"]
    ]


class SetFailurePolicy(Part):
    """How often a set starts again, and when it does not."""

    max_restarts: Limit
    rules: list[SetFailureRule] | None = None


class JobSetSpec(Part):
    """The jobs of a set."""

    network: Network | None = None
    failure_policy: SetFailurePolicy | None = None
    replicated_jobs: Annotated[list[ReplicatedJob], Field(min_length=1)]


class JobSet(Part):
    """A set of jobs that see each other."""

    api_version: Literal["jobset.x-k8s.io/v1alpha2"] = "jobset.x-k8s.io/v1alpha2"
    kind: Literal["JobSet"] = "JobSet"
    metadata: Metadata
    spec: JobSetSpec


class ReplicaSpec(Part):
    """Pods of one role in a PyTorchJob."""

    replicas: Count
    restart_policy: Literal["Always", "OnFailure", "Never", "ExitCode"]
    template: PodTemplate

    @model_validator(mode="after")
    def _container_is_known(self) -> Self:
        if "pytorch" not in [container.name for container in self.template.spec.containers]:
            raise ValueError("the operator looks for a container named pytorch")
        if self.template.spec.restart_policy is not None:
            raise ValueError("restartPolicy belongs to the role, not to the pod")
        return self


class RunPolicy(Part):
    """What happens to pods at the end, and how often they are tried."""

    clean_pod_policy: Literal["All", "Running", "None"] | None = None
    backoff_limit: Limit | None = None


class ReplicaSpecs(BaseModel):
    """The roles of a PyTorchJob; their names begin with capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    Master: ReplicaSpec
    Worker: ReplicaSpec | None = None


class PyTorchJobSpec(Part):
    """The roles, and what holds for all."""

    run_policy: RunPolicy
    nproc_per_node: str | None = None
    pytorch_replica_specs: ReplicaSpecs


class PyTorchJob(Part):
    """A job of the Kubeflow training operator."""

    api_version: Literal["kubeflow.org/v1"] = "kubeflow.org/v1"
    kind: Literal["PyTorchJob"] = "PyTorchJob"
    metadata: Metadata
    spec: PyTorchJobSpec


def plain(part: Part) -> dict[str, Any]:
    """An object as nested mappings, with the names of the interface and without what is unset."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)
