"""The benchmarks that train: reading curves, keeping stages, comparing runs; and both from end to end."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_world import write_corpus

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

bench_time_to_loss = importlib.import_module("bench_time_to_loss")
reproduce_tables = importlib.import_module("reproduce_tables")
small_runs = importlib.import_module("small_runs")


def points(*pairs):
    return [{"step": n, "seconds": seconds, "loss": loss} for n, (seconds, loss) in enumerate(pairs, 1)]


def test_the_time_to_a_loss_lies_on_the_line_between_two_points():
    curve = points((10.0, 9.0), (20.0, 8.0), (30.0, 8.5), (40.0, 7.0))
    assert small_runs.time_to(curve, 8.25) == pytest.approx(17.5)
    assert small_runs.time_to(curve, 8.0) == 20.0
    assert small_runs.time_to(curve, 7.5) == pytest.approx(30 + 10 * 1 / 1.5)
    assert small_runs.time_to(curve, 9.5) == 10.0  # there at the first look
    assert small_runs.time_to(curve, 6.9) is None


def test_a_curve_takes_the_seconds_of_training_at_its_steps(tmp_path):
    records = [
        {"kind": "train", "step": 2, "seconds": 1.5},
        {"kind": "evaluation", "step": 2, "loss": 6.0, "accuracy": 0.1},
        {"kind": "event", "step": 3, "message": "something"},
        {"kind": "train", "step": 4, "seconds": 3.5},
        {"kind": "evaluation", "step": 4, "loss": 5.0, "accuracy": 0.2},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert small_runs.curve_of(path) == [
        {"step": 2, "seconds": 1.5, "loss": 6.0, "accuracy": 0.1},
        {"step": 4, "seconds": 3.5, "loss": 5.0, "accuracy": 0.2},
    ]


def test_a_stage_is_made_once_and_again_when_something_else_decides_it(tmp_path):
    made = []

    def make(folder):
        assert list(folder.iterdir()) == []
        made.append(folder)
        (folder / "left").touch()
        return {"number": len(made)}

    stage = tmp_path / "stage"
    assert small_runs.kept(stage, {"lr": 1}, make) == {"number": 1}
    assert small_runs.kept(stage, {"lr": 1}, make) == {"number": 1}
    assert small_runs.kept(stage, {"lr": 2}, make) == {"number": 2}
    (stage / "stage.json").unlink()  # as after a kill
    assert small_runs.kept(stage, {"lr": 2}, make) == {"number": 3}


def test_a_stage_that_fails_shows_the_end_of_what_it_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"failed:\n.*no such thing"):
        small_runs.run_python(["-c", "raise SystemExit('no such thing')"], tmp_path / "log.txt")


def test_times_are_compared_at_marks_of_the_peer_and_within_the_spread():
    peer = points((10.0, 9.0), (20.0, 8.0), (30.0, 7.0), (40.0, 6.0))
    ours = points((5.0, 9.0), (10.0, 8.0), (15.0, 7.0), (20.0, 6.1))
    rows = bench_time_to_loss._compare(peer, ours, spread=0.2)
    assert [row["ratio"] for row in rows[:3]] == [0.5, 0.5, 0.5]
    assert (rows[3]["loss"], rows[3]["ours"], rows[3]["ratio"]) == (6.0, None, None)
    assert rows[4]["loss"] == pytest.approx(6.2)
    assert rows[4]["ratio"] == pytest.approx((15 + 5 * 0.8 / 0.9) / 38)


def test_the_spread_between_seeds_is_known_from_two_on():
    assert bench_time_to_loss._spread({"hf": [5.0], "ours": [5.1]}) == 0.0
    assert bench_time_to_loss._spread({"hf": [5.0, 5.2], "ours": [5.1, 5.1]}) == pytest.approx(0.1)


def run(loss, lr=1e-3):
    return {"loss": loss, "accuracy": 0.2, "tokens": 1e6, "values": {"optimizer": {"lr": lr}}}


def test_the_best_variant_is_chosen_among_those_with_most_seeds():
    low, high, short = [run(5.0), run(5.2)], [run(5.3), run(5.1)], [run(4.0)]
    assert reproduce_tables._best([high, low, short]) is low
    assert reproduce_tables._best([[], []]) == []


def test_a_row_has_differences_seed_by_seed():
    setting = reproduce_tables.Setting("word", "not in the paper")
    reference = [run(5.0), run(5.4)]
    row = reproduce_tables._row(setting, [run(5.1), run(5.2)], reference)
    assert row[2] == "5.150"
    assert row[4] == "-0.050 (-0.200 to +0.100)"
    assert reproduce_tables._row(setting, [], reference)[2] == "not run"
    assert reproduce_tables._row(setting, reference, reference)[4] == ""


def smoke(script, tmp_path, *options):
    corpus, name = write_corpus(tmp_path / "corpus.jsonl", 1500), f"trial-{os.getpid()}"
    command = [sys.executable, BENCHMARKS / script, "--smoke", "--corpus", corpus, "--name", name, *options]
    made = [BENCHMARKS / "results" / f"{name}{suffix}" for suffix in (".json", ".md")]
    try:
        done = subprocess.run(
            [*command, "--work", tmp_path / "work"], capture_output=True, text=True, timeout=500, check=True
        )
        kept = made[0].read_text()
        # A result is published; but for the command line it says nothing of this machine's folders.
        assert str(tmp_path) not in kept.replace(json.loads(kept)["command"], "")
        return json.loads(kept), done.stdout
    finally:
        for path in made:
            path.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_time_to_loss_from_end_to_end(tmp_path):
    pytest.importorskip("transformers")
    result, text = smoke("bench_time_to_loss.py", tmp_path, "--tokenizer", "train", "--seeds", "1")
    hf, ours = result["hf"]["curve"], result["ours"]["curve"]
    assert [point["step"] for point in hf] == [point["step"] for point in ours]
    assert len(hf) >= 4
    # The same text with the same learning rates, so the same loss but for the noise of few steps.
    assert hf[-1]["loss"] == pytest.approx(ours[-1]["loss"], abs=0.25)
    assert hf[-1]["loss"] < hf[0]["loss"] - 0.5
    assert "HF Trainer with its fastest flags" in text


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_reproduce_tables_from_end_to_end(tmp_path):
    options = ("--only", "formats", "--tokens", "8000")
    result, text = smoke("reproduce_tables.py", tmp_path, *options)
    rows = [runs for group in result["groups"].values() for runs in group.values()]
    assert [len(variants) for variants in rows] == [1] * 5
    assert all(variants[0] for variants in rows)
    tokens = [variants[0][0]["tokens"] for variants in rows]
    assert min(tokens) > 0.85 * max(tokens)  # all have about as many
    assert "sentence-pair" in text
