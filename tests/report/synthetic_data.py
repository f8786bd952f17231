"""The files of a made-up data folder: a realistic one, and one whose every text is hostile."""

import json
from pathlib import Path

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\" onload=\"alert(2)"
CHINESE = "本网站使用的信息由用户提供,版权所有。未经许可不得转载。请登录后查看全部内容。"
COUNTS = [
    40,
    210,
    2_200,
    12_000,
    61_000,
    180_400,
    302_000,
    260_500,
    118_000,
    41_000,
    9_800,
    1_900,
    320,
    41,
    3,
]
KEPT = {"web-en": 612_304, "wiki-en": 241_120, "wiki-zh": 132_890, "books": 3_100}

FIT = {
    "en": {
        "bytes_per_token": 4.41,
        "unknown_share": 0.0,
        "single_byte_share": 0.002,
        "tokens": 972_813_000,
    },
    "zh": {
        "bytes_per_token": 3.3,
        "unknown_share": 0.0,
        "single_byte_share": 0.018,
        "tokens": 122_118_000,
    },
    "de": {
        "bytes_per_token": 2.91,
        "unknown_share": 0.0004,
        "single_byte_share": 0.31,
        "tokens": 17_527_000,
    },
    "fr": {
        "bytes_per_token": 3.1,
        "unknown_share": 0.02,
        "single_byte_share": 0.041,
        "tokens": 5_881_000,
    },
}


def similarity_curve(bands=20, rows=8):
    """How likely MinHash with bands and rows compares two documents of a similarity."""
    return [[step / 50, 1 - (1 - (step / 50) ** rows) ** bands] for step in range(51)]


def make_sources():
    return {
        "web-en": {
            "documents": 612_304,
            "bytes": 2_310_440_120,
            "documents_read": 1_004_211,
            "bytes_read": 3_902_113_004,
            "tokens": 531_200_400,
            "repeats": 1.0,
            "drops": {
                "exact_duplicate": 121_004,
                "near_duplicate": 98_113,
                "too_short": 61_230,
                "duplicate_lines": 44_018,
                "few_stop_words": 31_900,
                "other_language": 35_101,
                "contaminated": 212,
                "malformed_json": 329,
            },
        },
        "wiki-en": {
            "documents": 241_120,
            "bytes": 812_004_110,
            "documents_read": 250_400,
            "bytes_read": 820_114_902,
            "tokens": 180_300_120,
            "repeats": 2.0,
            "drops": {"too_short": 8_890, "exact_duplicate": 300, "near_duplicate": 90},
        },
        "wiki-zh": {
            "documents": 132_890,
            "bytes": 402_118_400,
            "documents_read": 140_002,
            "bytes_read": 410_220_130,
            "tokens": 121_004_300,
            "repeats": 2.5,
            "drops": {"too_short": 6_902, "exact_duplicate": 160, "invalid_utf8": 50},
        },
        "books": {
            "documents": 3_100,
            "bytes": 1_240_000_000,
            "documents_read": 3_104,
            "bytes_read": 1_241_300_120,
            "tokens": 290_000_100,
            "repeats": 0.8,
            "drops": {"exact_duplicate": 4},
        },
    }


def make_duplicates():
    text = "We use cookies to give you the best experience. By going on you agree to our terms. Accept all. "
    return {
        "exact": {"documents": 121_468},
        "lines": {"lines": 402_118},
        "near": {
            "documents": 98_203,
            "clusters": 24_110,
            "largest": [
                {
                    "size": 18_204,
                    "kept": "web-en:part-0003.jsonl.zst#18",
                    "text": text * 3,
                    "dropped": [f"web-en:part-0003.jsonl.zst#{line}" for line in (19, 44, 71, 90, 113)],
                },
                {"size": 4_021, "kept": "wiki-zh:zhwiki-001.jsonl.zst#7", "text": CHINESE, "dropped": []},
                {
                    "size": 912,
                    "kept": "web-en:part-0011.jsonl.zst#4410",
                    "text": "404 Not Found. The page you asked for is not here. Go to the home page.",
                    "dropped": ["web-en:part-0011.jsonl.zst#4417"],
                },
            ],
            "cluster_sizes": {
                "2": 18_100,
                "3-4": 4_020,
                "5-8": 1_310,
                "9-16": 480,
                "17-32": 142,
                "33-64": 41,
                "65-128": 12,
                "129+": 5,
            },
            "threshold": 0.8,
            "curve": similarity_curve(),
        },
    }


def make_inputs():
    web = [
        {
            "source": "web-en",
            "label": f"crawl/2025-week-{number % 52:02}/part-{number:04}-of-0240-english.jsonl.zst",
            "bytes": 4_100_000 + 1_003 * number,
            "format": "jsonl",
        }
        for number in range(199)
    ]
    return [*web, {"source": "books", "label": "books.parquet", "bytes": 2**30, "format": "parquet"}]


def make_audit():
    """An account as `maskwright prepare` writes it."""
    sources = make_sources()
    drops = {}
    for source in sources.values():
        for reason, count in source["drops"].items():
            drops[reason] = drops.get(reason, 0) + count
    tokens = sum(source["tokens"] for source in sources.values())
    kept_bytes = sum(source["bytes"] for source in sources.values())
    return {
        "documents_read": sum(source["documents_read"] for source in sources.values()),
        "documents_kept": sum(source["documents"] for source in sources.values()),
        "bytes_read": sum(source["bytes_read"] for source in sources.values()),
        "bytes_kept": kept_bytes,
        "drops": drops,
        "drop_samples": {
            "too_short": ["web-en:part-0000.jsonl.zst#4: 18 characters: Read more", "目录", "<b>Menu</b>"],
            "exact_duplicate": ["web-en:part-0002.jsonl.zst#9: web-en:part-0000.jsonl.zst#1: " + CHINESE],
            "malformed_json": ['web-en/part-0007.jsonl.zst:311: Expecting value: {"text": "cut of'],
            "other_language": ["web-en:part-0001.jsonl.zst#2: de 0.98: Der Rat der Stadt hat am Montag"],
        },
        "repairs": {"invalid_utf8": 1_204},
        "bad_lines": {"web-en:part-0007.jsonl.zst": 310, "web-en:part-0012.jsonl.zst": 19},
        "sources": sources,
        "languages": {
            "en": {"documents": 842_004, "bytes": 4_290_104_400},
            "zh": {"documents": 133_100, "bytes": 402_990_000},
            "de": {"documents": 9_120, "bytes": 51_004_120},
            "fr": {"documents": 4_100, "bytes": 18_230_110},
            "und": {"documents": 1_090, "bytes": 2_234_000},
        },
        "duplicates": make_duplicates(),
        "contamination": {
            "documents": 212,
            "evaluation": ["squad-v1.1", "sst2"],
            "counts": {"squad-v1.1": {"used": 10_570, "ignored": 0}, "sst2": {"used": 611, "ignored": 261}},
            "ngram": 13,
            "action": "drop",
        },
        "tokens_by_language": FIT,
        "length_histogram": {"edges": [2**power for power in range(5, 21)], "counts": COUNTS},
        "longest_document_characters": 1_812_345,
        "num_tokens": tokens,
        "bytes_per_token": kept_bytes / tokens,
        "inputs": make_inputs(),
        "num_inputs": 244,
        "splits": {"validation": {"documents": 9_894, "tokens": 11_225_049}},
        "warnings": [
            "malformed_json: left out 329 records that could not be read (bad lines in all: "
            "web-en:part-0007.jsonl.zst has 310, web-en:part-0012.jsonl.zst has 19); look whether the files "
            "were cut off, and at text_field",
            "language fr: 2.0 % of its tokens are unknown, so that text is lost; train the tokenizer on text "
            "like it, or take a byte-level one",
            CHINESE,
        ],
    }


def make_timings():
    """Times of the stages as `maskwright prepare` writes them."""
    text, documents = 6_373_748_156, 1_397_717
    stages = [
        ("count", 244, 244, 6.2, 0, 0),
        ("contamination", 1, 1, 0.8, 0, 0),
        ("clean", 244, 244, 92.4, documents, text),
        ("exact", 64, 64, 4.1, documents, text),
        ("bands", 32, 32, 41.3, documents, text),
        ("clusters", 1, 1, 20.0, documents, text),
        ("sample", 40, 12, 2.02, documents, text),
        ("tokenizer", 1, 1, 39.0, documents, text),
        ("encode", 40, 40, 58.8, documents, text),
        ("finish", 1, 1, 1.4, documents, text),
    ]
    keys = ("name", "tasks", "executed", "seconds", "documents", "bytes")
    machine = {
        "cpu": "Example CPU @ 2.4 GHz",
        "cores": 8,
        "memory_bytes": 32 * 2**30,
        "flags": {"avx2": True},
    }
    return {
        "machine": machine,
        "workers": 8,
        "runner": "local",
        "stages": [dict(zip(keys, stage, strict=True)) for stage in stages],
    }


def make_manifest():
    return {
        "format_version": 1,
        "dtype": "uint16",
        "tokenizer": {"vocab_size": 50_265, "fingerprint": "0f1e2d3c4b5a69788796a5b4c3d2e1f0"},
        "splits": {
            "train": {"num_tokens": 1_111_279_871, "num_documents": 979_520, "shards": [{}] * 12},
            "validation": {"num_tokens": 11_225_049, "num_documents": 9_894, "shards": [{}]},
        },
        "fingerprint": "8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
    }


CONFIG = """format_version: 1
corpus:
  sources:
  - path: corpora/enwiki-train.jsonl.zst
    name: wiki-en
validation_share: 0.01
"""


def write_data_folder(folder, audit=None, timings=None, manifest=None, config=CONFIG):
    """Write a data folder; a part that is not given is a realistic one."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "audit": make_audit() if audit is None else audit,
        "timings": make_timings() if timings is None else timings,
        "manifest": make_manifest() if manifest is None else manifest,
    }
    for name, value in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return folder


def hostile(value):
    """The same JSON with every text, and every name that can be anything, replaced by markup."""
    free = {"drops", "drop_samples", "repairs", "bad_lines", "languages", "tokens_by_language", "sources"}
    free |= {"cluster_sizes", "splits"}

    def change(child, rename):
        if isinstance(child, dict):
            return {
                (f"{EVIL} {key}" if rename else key): change(inner, key in free)
                for key, inner in child.items()
            }
        if isinstance(child, list):
            return [change(inner, False) for inner in child]
        return f"{EVIL} {child}" if isinstance(child, str) else child

    return change(value, False)


def scrambled(value, replacement):
    """The same JSON with every leaf replaced."""
    if isinstance(value, dict):
        return {key: scrambled(child, replacement) for key, child in value.items()}
    if isinstance(value, list):
        return [scrambled(child, replacement) for child in value]
    return replacement


def page_of(folder: Path) -> str:
    """The page of a folder, as text."""
    from maskwright.report import build_data_report

    return build_data_report(folder).read_text(encoding="utf-8")
