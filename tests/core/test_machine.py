"""The machine as its files tell it: real ones here, made-up ones for other machines."""

import os
import subprocess
import sys
import types
import warnings

import pytest

from maskwright.core import machine
from maskwright.core.machine import (
    available_cores,
    available_memory_bytes,
    cpu_flags,
    current_memory_bytes,
    describe_machine,
    free_disk_bytes,
    library_versions,
    native_bf16,
    peak_memory_bytes,
)

X86 = (
    "processor\t: 0\nmodel name\t: Some   Processor @ 3GHz\n"
    "flags\t\t: fpu avx avx2 avx512f avx512_vnni {}\n\n"
    "processor\t: 1\nflags\t\t: fpu\n"
)
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd i8mm bf16 sve\nCPU implementer\t: 0x41\n"
MACOS = (
    "machdep.cpu.brand_string: Apple M3\nhw.optional.neon: 1\nhw.optional.arm.FEAT_BF16: 1\n"
    "hw.optional.arm.FEAT_I8MM: 0\n"
)
MACOS_X86 = "machdep.cpu.features: FPU AVX1.0\nmachdep.cpu.leaf7_features: AVX2 AVX512F\n"


@pytest.fixture
def root(tmp_path):
    """A file system made of the given files."""

    def build(**files: str):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return build


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def test_flags_of_a_server_with_amx(root):
    flags = cpu_flags(root(proc__cpuinfo=X86.format("amx_bf16 amx_int8 avx512_bf16")))
    assert {name for name, there in flags.items() if there} == {
        "avx2", "avx512f", "avx512_vnni", "amx_bf16", "amx_int8", "avx512_bf16",
    }  # fmt: skip


def test_flags_of_an_arm_machine(root):
    folder = root(proc__cpuinfo=ARM)
    assert {name for name, there in cpu_flags(folder).items() if there} == {
        "neon", "neon_bf16", "neon_i8mm", "sve",
    }  # fmt: skip
    assert native_bf16(folder)


@pytest.mark.parametrize(
    ("extra", "native"), [("", False), ("avx512_bf16", True), ("amx_bf16", True), ("amx_int8", False)]
)
def test_native_bf16(root, extra, native):
    assert native_bf16(root(proc__cpuinfo=X86.format(extra))) is native


@pytest.mark.parametrize(
    ("listing", "expected"),
    [(MACOS, {"neon", "neon_bf16"}), (MACOS_X86, {"avx2", "avx512f"}), ("", set())],
    ids=["arm", "x86", "no sysctl"],
)
def test_flags_on_macos_without_proc(root, monkeypatch, listing, expected):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_run", lambda *command: listing)
    assert {name for name, there in cpu_flags(root()).items() if there} == expected


def test_a_system_that_tells_nothing_has_no_flags(root, monkeypatch):
    monkeypatch.setattr(sys, "platform", "freebsd")
    assert not any(cpu_flags(root()).values())
    assert native_bf16(root()) is False


def test_names_of_processors(root, monkeypatch):
    assert machine._cpu_name(root(proc__cpuinfo=X86)) == "Some Processor @ 3GHz"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert machine._cpu_name(root(proc__cpuinfo=ARM)) == "aarch64"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_run", lambda *command: "Apple M3\n")
    assert machine._cpu_name(root(proc__cpuinfo="")) == "Apple M3"


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("9900000 100000", 8), ("x", 8), ("", 8)],
)  # fmt: skip
def test_cores_under_a_limit_of_the_second_version(root, eight_cores, limit, cores):
    folder = root(proc__self__cgroup="0::/a/b\n", **{"sys__fs__cgroup__a__b__cpu.max": limit + "\n"})
    assert available_cores(folder) == cores


def test_the_tightest_limit_on_the_way_up_counts(root, eight_cores):
    folder = root(
        proc__self__cgroup="0::/a/b\n",
        **{
            "sys__fs__cgroup__a__b__cpu.max": "600000 100000",
            "sys__fs__cgroup__a__cpu.max": "200000 100000",
            "sys__fs__cgroup__cpu.max": "max 100000",
        },
    )
    assert available_cores(folder) == 2


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("400000", 4)])
def test_cores_under_a_limit_of_the_first_version(root, eight_cores, quota, cores):
    folder = root(
        proc__self__cgroup="5:memory:/x\n4:cpu,cpuacct:/box\n1:name=systemd:/\n",
        **{
            "sys__fs__cgroup__cpu__box__cpu.cfs_quota_us": quota,
            "sys__fs__cgroup__cpu__box__cpu.cfs_period_us": "100000",
        },
    )
    assert available_cores(folder) == cores


def test_a_group_seen_from_inside_its_container(root, eight_cores):
    folder = root(
        proc__self__cgroup="0::/../../outside\nmalformed\n", **{"sys__fs__cgroup__cpu.max": "100000 100000"}
    )
    assert available_cores(folder) == 1


def test_cores_without_affinity(root, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(root()) == 1


def test_memory_under_limits(root):
    files = {
        "proc__meminfo": "MemFree: 5 kB\nMemTotal:  1000 kB\n",
        "proc__self__cgroup": "0::/a\n7:memory:/m\n",
    }
    assert available_memory_bytes(root(**files)) == 1000 * 1024
    limit = "sys__fs__cgroup__a__memory.max"
    assert available_memory_bytes(root(**files, **{limit: "max\n"})) == 1000 * 1024
    assert available_memory_bytes(root(**{limit: "500000\n"})) == 500_000
    old = "sys__fs__cgroup__memory__m__memory.limit_in_bytes"
    assert available_memory_bytes(root(**{old: "9223372036854771712\n"})) == 500_000
    assert available_memory_bytes(root(**{old: "400000\n"})) == 400_000


def test_memory_without_proc(root, monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert available_memory_bytes(root()) == 40_960
    monkeypatch.setattr(os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert available_memory_bytes(root()) is None


def in_a_fresh_process(code: str) -> list[int]:
    """Numbers printed by a small program; memory here depends on what other tests have done."""
    code = "from maskwright.core.machine import current_memory_bytes, peak_memory_bytes\n" + code
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(word) for word in result.stdout.split()]


def test_peak_and_current_memory_follow_an_allocation():
    before, during, peak_during, after, peak_after = in_a_fresh_process(
        "before = current_memory_bytes()\n"
        "block = b'x' * (64 << 20)\n"
        "during, peak_during = current_memory_bytes(), peak_memory_bytes()\n"
        "del block\n"
        "print(before, during, peak_during, current_memory_bytes(), peak_memory_bytes())\n"
    )
    assert during - before > 56 << 20
    assert during - after > 56 << 20
    assert min(peak_during, peak_after) > before + (56 << 20)


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_unit_of_the_peak_without_proc(root, monkeypatch, system, unit):
    usage = types.SimpleNamespace(ru_maxrss=7000)
    monkeypatch.setattr("resource.getrusage", lambda who: usage)
    monkeypatch.setattr(sys, "platform", system)
    assert peak_memory_bytes(root()) == 7000 * unit


def test_the_peak_is_unknown_where_nothing_tells(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_bytes(root()) == 0


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the parent's peak is handed on by Linux only"
)
def test_the_peak_of_a_small_child_is_not_that_of_its_parent():
    block = b"x" * (300 << 20)
    (child,) = in_a_fresh_process("print(peak_memory_bytes())")
    assert 0 < child < len(block)


def test_current_memory_without_proc(root, monkeypatch):
    monkeypatch.setattr(machine, "_run", lambda *command: "  123\n")
    assert current_memory_bytes(root()) == 123 * 1024
    monkeypatch.setattr(machine, "_run", lambda *command: "")
    assert current_memory_bytes(root()) == peak_memory_bytes(root())


def test_programs_that_are_missing_or_fail_say_nothing():
    assert machine._run("a-program-that-nobody-has") == ""
    assert machine._run(sys.executable, "-c", "print('x')") == "x\n"


def test_library_versions_import_nothing():
    assert library_versions(["numpy", "a-library-that-nobody-has"])["a-library-that-nobody-has"] is None
    code = (
        "import sys; from maskwright.core.machine import describe_machine, library_versions\n"
        "assert library_versions(['torch', 'pytest'])['pytest']; describe_machine(with_gpus=False)\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_free_disk_of_a_path_that_is_not_there_yet(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "a" / "b", tmp_path / "file" / "c", str(tmp_path), "relative/path"):
        assert free_disk_bytes(path) > 0
    monkeypatch.setattr("shutil.disk_usage", lambda path: (_ for _ in ()).throw(PermissionError(path)))
    assert free_disk_bytes(tmp_path) is None
    monkeypatch.setattr("shutil.disk_usage", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    assert free_disk_bytes(tmp_path) is None


def fake_torch(count: int, mps: bool, error: Exception | None = None) -> types.SimpleNamespace:
    def device_count() -> int:
        warnings.warn("the driver is old")
        if error:
            raise error
        return count

    cuda = types.SimpleNamespace(
        device_count=device_count,
        get_device_properties=lambda index: types.SimpleNamespace(name=f"gpu {index}", total_memory=10),
    )
    available = types.SimpleNamespace(is_available=lambda: mps)
    return types.SimpleNamespace(cuda=cuda, backends=types.SimpleNamespace(mps=available))


@pytest.mark.parametrize(
    ("torch", "names"),
    [
        (fake_torch(2, mps=False), ["gpu 0", "gpu 1"]),
        (fake_torch(0, mps=True), ["Apple GPU (MPS)"]),
        (fake_torch(0, mps=False), []),
        (fake_torch(1, mps=False, error=RuntimeError("no driver")), []),
    ],
)
def test_gpus(monkeypatch, torch, names):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.import_module", lambda name: torch)
    assert [gpu["name"] for gpu in machine._gpus()] == names


def test_no_gpus_without_torch(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert machine._gpus() == []


def test_the_description_of_this_machine():
    facts = describe_machine(with_gpus=False)
    assert set(facts) == {
        "cpu", "cores", "memory_bytes", "flags", "native_bf16", "gpus", "python", "platform",
    }  # fmt: skip
    assert facts["cpu"]
    assert 1 <= facts["cores"] <= (os.cpu_count() or 1)
    assert facts["memory_bytes"] is None or facts["memory_bytes"] > 1 << 28
    assert facts["gpus"] == []
    assert facts["native_bf16"] is native_bf16()
