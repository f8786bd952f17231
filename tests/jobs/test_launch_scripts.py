"""What is written for Slurm and Kubernetes: valid, quoted, and doing what it should where that can be run."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from maskwright.core.errors import ConfigError, OutputExistsError
from maskwright.jobs.launching import (
    KubernetesPlace,
    LaunchPlan,
    Machines,
    SlurmPlace,
    dns_name,
    manifest_text,
    slurm_text,
    write_script,
)
from maskwright.jobs.launching.kubernetes import validate_manifest
from maskwright.jobs.launching.slurm import check_directives

HARD = ("mine.yaml", 'data=语料/my data\'s $(x) `y` "z"', "tracking.name=a\\b")
PLAN = LaunchPlan(HARD, Path("runs/我的 run"), "我的 run", Machines(3, 8, 8), 2, timeout_seconds=60)
RECIPE = "pretrain:\n  data: 语料\n  steps: 10\n"


def directives(text):
    """The options of a batch script, read as sbatch reads them."""
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    words = [shlex.split(line) for line in lines]
    assert all(len(word) == 1 for word in words)
    pairs = [word[0].removeprefix("--").partition("=") for word in words]
    return {name: value or None for name, _, value in pairs}


class TestSlurm:
    """The batch script."""

    def test_directives(self):
        place = SlurmPlace("1-00:00:00", "gpu", "my account", 32, 120, {"qos": "high", "exclusive": ""})
        text = slurm_text(PLAN, place)
        found = directives(text)
        check_directives(found)
        assert found["job-name"] == "我的 run"
        assert found["account"] == "my account"
        assert (found["nodes"], found["ntasks-per-node"], found["gpus-per-node"]) == ("3", "1", "8")
        assert (found["time"], found["partition"], found["cpus-per-task"]) == ("1-00:00:00", "gpu", "32")
        assert found["signal"] == "B:USR1@120"
        assert found["open-mode"] == "append"
        assert found["chdir"] == str(Path.cwd())
        assert {"requeue": None, "exclusive": None, "qos": "high"}.items() <= found.items()
        assert "--wait=180 " in text

    @pytest.mark.parametrize("place", [SlurmPlace(), SlurmPlace(python="/usr/my python/bin/python")])
    def test_bash_reads_it(self, place):
        text = slurm_text(PLAN, place)
        result = subprocess.run(["bash", "-n"], input=text, encoding="utf-8", capture_output=True)
        assert (result.returncode, result.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"partion": "gpu"}, '"partion" is no option of sbatch; did you mean "partition"?'),
            ({"time": "tomorrow"}, "--time of sbatch is 'tomorrow', expected minutes, HH:MM:SS"),
            ({"mem": "lots"}, "--mem of sbatch is 'lots', expected a number with K, M, G or T"),
            ({"partition": ""}, "--partition of sbatch is '', expected a value"),
            ({"exclusive": "yes"}, "--exclusive of sbatch takes no value, but 'yes' was given"),
        ],
    )
    def test_unknown(self, values, message):
        with pytest.raises(ConfigError) as refused:
            check_directives(values)
        assert message in str(refused.value)

    def test_ours_stay_ours(self):
        with pytest.raises(ConfigError, match="--sbatch signal: the script sets this itself"):
            slurm_text(PLAN, SlurmPlace(directives={"signal": "TERM@10"}))

    def test_no_line_breaks(self):
        with pytest.raises(ConfigError, match=r"--partition is 'a\\nb'; sbatch cannot read line breaks"):
            slurm_text(PLAN, SlurmPlace(partition="a\nb"))


STUBS = {
    "scontrol": 'if [ "$1" = show ]; then echo node-7; echo node-8; else echo "$@" >> requeued; fi',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; SLURM_NODEID=0 exec "$@"',
    # The launcher: its arguments one a line, then it waits for a signal, or ends as it is told.
    "python": 'printf "%s\\n" "$@" > arguments; if [ -e code ]; then exit "$(cat code)"; fi\n'
    "trap 'echo USR1 > got; exit 3' USR1; trap 'echo TERM > got; exit 3' TERM\n"
    "echo > ready; while :; do sleep 0.05; done",
}


@pytest.fixture
def job(tmp_path):
    """Start the script with stand-ins for Slurm's programs and for python."""
    for name, body in STUBS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    script = tmp_path / "job.sbatch"
    write_script(script, slurm_text(PLAN, SlurmPlace(python=str(tmp_path / "bin" / "python"))))

    def start():
        variables = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node-[7-8]"}
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(script)],
            cwd=tmp_path,
            env={**os.environ, **variables, "PATH": path},
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    return start


class TestSlurmRuns:
    """The script with stand-ins for Slurm."""

    @pytest.mark.parametrize("code", [0, 1, 2, 3])
    def test_hands_on_the_exit_code(self, job, tmp_path, code):
        (tmp_path / "code").write_text(str(code))
        process = job()
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (code, "")
        assert not (tmp_path / "requeued").exists()
        given = (tmp_path / "arguments").read_text("utf-8").splitlines()
        expected = ["-m", "maskwright", *PLAN.launch_arguments()]
        assert given == [*expected, "--address", "node-7:23456", "--node-rank", "0"]
        assert given[4:7] == list(HARD)

    @pytest.mark.parametrize("name", ["USR1", "TERM"])
    def test_signals(self, job, tmp_path, name):
        """Slurm's warning brings the job back; somebody who cancels it does not see it again."""
        process = job()
        end = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(getattr(signal, f"SIG{name}"))
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 3
        assert (tmp_path / "got").read_text() == f"{name}\n"
        requeued = tmp_path / "requeued"
        if name == "USR1":
            assert requeued.read_text() == "requeue 123456\n"
            assert out == "saved before the time limit; queued again\n"
        else:
            assert not requeued.exists()


def place(kind="jobset", **values):
    given = {"claims": {"/work": "my-claim"}, "cpus": 16, "memory": "64Gi", **values}
    return KubernetesPlace("registry.example/maskwright:1", kind, **given)


class TestKubernetes:
    """The manifests."""

    @pytest.mark.parametrize(("kind", "written"), [("jobset", "JobSet"), ("pytorchjob", "PyTorchJob")])
    def test_whole(self, kind, written):
        text = manifest_text(PLAN, place(kind), RECIPE)
        assert validate_manifest(text) == ["ConfigMap", written]
        recipe, job = yaml.safe_load_all(text)
        assert recipe["data"] == {"recipe.yaml": RECIPE}
        assert "recipe.yaml: |\n" in text
        assert recipe["metadata"]["name"] == job["metadata"]["name"] == "run"

    def test_job_set(self):
        _, job = yaml.safe_load_all(manifest_text(PLAN, place(), RECIPE))
        [group] = job["spec"]["replicatedJobs"]
        spec = group["template"]["spec"]
        assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
        rules = {
            str(rule.get("onExitCodes", {}).get("values", rule.get("onPodConditions"))): rule["action"]
            for rule in spec["podFailurePolicy"]["rules"]
        }
        assert rules == {
            "[{'type': 'DisruptionTarget', 'status': 'True'}]": "Ignore",
            "[3]": "Ignore",
            "[2]": "FailJob",
        }
        pod = spec["template"]["spec"]
        [container] = pod["containers"]
        assert container["command"][:6] == [
            "python",
            "-m",
            "maskwright",
            "launch",
            "pretrain",
            "/etc/maskwright/recipe.yaml",
        ]
        assert container["command"][-1] == "run-node-0-0.run:29400"
        assert container["args"] == ["--node-rank", "$(JOB_COMPLETION_INDEX)"]
        assert container["resources"]["limits"] == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "8"}
        assert container["workingDir"] == "/work"
        assert pod["terminationGracePeriodSeconds"] == 300

    def test_kubernetes_fills_nothing_in(self):
        plan = LaunchPlan(("x",), Path("runs/$(HOME)"), "r")
        _, job = yaml.safe_load_all(manifest_text(plan, place(), RECIPE))
        command = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0][
            "command"
        ]
        assert "--output=runs/$$(HOME)" in command

    def test_one_machine_has_no_worker(self):
        _, job = yaml.safe_load_all(
            manifest_text(LaunchPlan((), Path("r"), "r"), place("pytorchjob"), RECIPE)
        )
        assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Master"]

    @pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 129), (2, 2), (3, 131), (137, 137)])
    def test_codes_of_a_pytorch_job(self, code, expected):
        """All but success and refusal become codes that bring the pod back; arguments pass as they are."""
        _, job = yaml.safe_load_all(manifest_text(PLAN, place("pytorchjob"), RECIPE))
        [container] = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
        check = "import sys; assert sys.argv[1:] == ['a b', '$x', '--node-rank', '2']; "
        check += f"sys.exit({code})"
        command = [*container["command"], sys.executable, "-c", check, "a b", "$x"]
        assert subprocess.run(command, env={**os.environ, "RANK": "2"}).returncode == expected

    def test_a_pytorch_job_hands_signals_on(self, tmp_path):
        _, job = yaml.safe_load_all(manifest_text(PLAN, place("pytorchjob"), RECIPE))
        [container] = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        waits = (
            f"trap 'exit 3' TERM; echo > {shlex.quote(str(tmp_path / 'ready'))}; while :; do sleep 0.05; done"
        )
        process = subprocess.Popen(
            [*container["command"], "bash", "-c", waits], env={**os.environ, "RANK": "0"}
        )
        end = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 131

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"memory": "lots"}, r"Kubernetes would refuse the job: requests.memory: .*'lots'"),
            ({"claims": {"work": "c"}}, r"Kubernetes would refuse the job: mount_path: .*'work'"),
            ({"claims": {"/work": "My Claim"}}, r"Kubernetes would refuse the job: claim_name: .*'My Claim'"),
        ],
    )
    def test_refused_values(self, values, message):
        with pytest.raises(ConfigError, match=message):
            manifest_text(PLAN, place(**values), RECIPE)

    def changed(self, kind, change):
        documents = list(yaml.safe_load_all(manifest_text(PLAN, place(kind), RECIPE)))
        change(documents[1]["spec"])
        return yaml.safe_dump_all(documents)

    @pytest.mark.parametrize(
        ("kind", "change", "message"),
        [
            ("jobset", lambda spec: spec.update(replicas=2), r"^JobSet: spec.replicas: Extra inputs"),
            ("jobset", lambda spec: spec.update(replicated_jobs=[]), r"^JobSet: spec.replicated_jobs: Extra"),
            (
                "jobset",
                lambda spec: pod(spec).update(restartPolicy="OnFailure"),
                "podFailurePolicy needs restartPolicy Never",
            ),
            (
                "jobset",
                lambda spec: pod(spec)["volumes"].pop(),
                "container trainer mounts claim-0, which is no volume",
            ),
            (
                "jobset",
                lambda spec: pod(spec)["volumes"][0].pop("configMap"),
                "volume recipe needs exactly one source",
            ),
            (
                "jobset",
                lambda spec: job_of(spec)["podFailurePolicy"]["rules"][0].pop("onPodConditions"),
                "a rule needs either onExitCodes or onPodConditions",
            ),
            (
                "pytorchjob",
                lambda spec: master(spec)["spec"]["containers"][0].update(name="trainer"),
                "the operator looks for a container named pytorch",
            ),
            (
                "pytorchjob",
                lambda spec: master(spec)["spec"].update(restartPolicy="Never"),
                "restartPolicy belongs to the role, not to the pod",
            ),
        ],
    )
    def test_strict(self, kind, change, message):
        with pytest.raises(ConfigError, match=message):
            validate_manifest(self.changed(kind, change))

    def test_unknown_kind(self):
        with pytest.raises(ConfigError, match="kind 'Pod' is not known, expected one of ConfigMap, JobSet"):
            validate_manifest("kind: Pod\n")


def job_of(spec):
    return spec["replicatedJobs"][0]["template"]["spec"]


def pod(spec):
    return job_of(spec)["template"]["spec"]


def master(spec):
    return spec["pytorchReplicaSpecs"]["Master"]["template"]


def test_names():
    assert dns_name("RoBERTa_base 2") == "roberta-base-2"
    assert dns_name("我的 run") == "run"
    assert dns_name("我的") == "run"
    assert dns_name("24h-gpu") == "run-24h-gpu"
    assert len(dns_name("x" * 100)) == 40


def test_other_files_stay(tmp_path):
    path = tmp_path / "job.sbatch"
    write_script(path, slurm_text(PLAN))
    write_script(path, slurm_text(PLAN, SlurmPlace(time="1")))
    assert "--time=1\n" in path.read_text("utf-8")
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="exists and was not written by maskwright launch"):
        write_script(path, slurm_text(PLAN))


def test_an_option_that_is_given_twice_with_other_values():
    with pytest.raises(ConfigError, match="--time is 2:00:00, but --sbatch says time=1:00:00; leave one out"):
        slurm_text(PLAN, SlurmPlace(time="2:00:00", directives={"time": "1:00:00"}))
