"""The peer of `bench_prepare.py`: tokenise and group texts with `datasets.map`, as `run_mlm` does.

Called by the benchmark in a process of its own. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import chain

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Do it once and say how long it took."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--files", nargs="+", required=True)
    arguments.add_argument("--tokenizer", required=True)
    arguments.add_argument("--cache", required=True)
    arguments.add_argument("--processes", type=int, required=True)
    arguments.add_argument("--length", type=int, default=512)
    options = arguments.parse_args()

    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    length = options.length

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return tokenizer(batch["text"], return_special_tokens_mask=True)

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {name: list(chain(*batch[name])) for name in batch}
        total = len(joined["input_ids"]) // length * length
        return {
            name: [values[place : place + length] for place in range(0, total, length)]
            for name, values in joined.items()
        }

    started = time.perf_counter()
    raw = datasets.load_dataset("json", data_files=options.files, split="train", cache_dir=options.cache)
    ids = raw.map(tokenize, batched=True, num_proc=options.processes, remove_columns=raw.column_names)
    grouped = ids.map(group, batched=True, num_proc=options.processes)
    seconds = time.perf_counter() - started
    disk = sum(
        os.path.getsize(os.path.join(place, name))  # noqa: PTH118, PTH202
        for place, _, names in os.walk(options.cache)
        for name in names
    )
    tokens = length * len(grouped)
    print(json.dumps({"seconds": seconds, "tokens": tokens, "cache_bytes": disk}))


if __name__ == "__main__":
    main()
