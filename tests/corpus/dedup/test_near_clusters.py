from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus.dedup import clusters as module
from maskwright.corpus.dedup.clusters import Cluster, Components, choose_copies, connect
from maskwright.corpus.dedup.tables import save_array


def components_by_search(pairs):
    """The smallest member of the component of every node, by walking from node to node."""
    neighbours = {}
    for a, b in pairs:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    smallest = {}
    for start in sorted(neighbours):
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node not in smallest:
                smallest[node] = start
                waiting.extend(neighbours[node])
    return smallest


def connect_pairs(folder, pairs, num_files=1):
    paths = []
    for number in range(num_files):
        paths.append(folder / f"edges-{number}.npy")
        save_array(paths[-1], np.array(pairs[number::num_files], np.int64).reshape(-1, 2))
    return connect(paths)


PAIRS = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=40)


@given(PAIRS, st.integers(1, 4))
def test_components_are_those_of_a_search(tmp_path_factory, pairs, num_files):
    found = connect_pairs(tmp_path_factory.mktemp("edges"), pairs, num_files)
    smallest = {
        place: found.places[root] for place, root in zip(found.places.tolist(), found.roots, strict=True)
    }
    assert smallest == components_by_search(pairs)
    assert found.places.tolist() == sorted(smallest)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chains_in_any_order_and_in_small_chunks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(module, "_CHUNK_EDGES", size)
    chain = [(number, number + 1) for number in range(300)]
    shuffled = [chain[place] for place in np.random.default_rng(2).permutation(300)]
    for pairs in (chain, chain[::-1], shuffled):
        found = connect_pairs(tmp_path, pairs)
        assert (found.roots == 0).all()
        assert len(found.places) == 301


def write_lengths(folder, lengths):
    paths = []
    for number, part in enumerate(lengths):
        paths.append((number, folder / f"lengths-{number}.npy"))
        save_array(paths[-1][1], np.array(part, np.int64))
    return paths


def place(part, row):
    return part << 32 | row


def test_the_longest_stays_and_among_equals_the_first(tmp_path):
    lengths = write_lengths(tmp_path, [[10, 10, 10], [30, 10, 30]])
    pairs = [(place(0, 0), place(1, 0)), (place(0, 0), place(1, 2)), (place(0, 2), place(1, 1))]
    components = connect_pairs(tmp_path, pairs)
    drops, found = choose_copies(components, lengths, "longest")
    assert drops.tolist() == [(0, 0, 1, 0, 3), (1, 1, 0, 2, 2), (1, 2, 1, 0, 3)]
    assert found == (
        3,
        2,
        {"2": 1, "3-4": 1},
        (Cluster(3, (1, 0), ((0, 0), (1, 2))), Cluster(2, (0, 2), ((1, 1),))),
    )
    drops, found = choose_copies(components, lengths, "first")
    assert drops.tolist() == [(1, 0, 0, 0, 3), (1, 1, 0, 2, 2), (1, 2, 0, 0, 3)]
    assert found.largest[0].kept == (0, 0)


def test_nothing_to_join(tmp_path):
    components = connect_pairs(tmp_path, [])
    drops, found = choose_copies(components, [], "longest")
    assert len(drops) == 0
    assert found == (0, 0, {}, ())


@given(st.lists(st.integers(2, 40), max_size=30))
def test_statistics_of_clusters(sizes):
    starts = np.cumsum([0, *sizes])
    roots = np.repeat(starts[:-1], sizes)
    drops, found = choose_copies(Components(np.arange(len(roots)), roots), [], "first")
    assert found.documents == len(drops) == sum(sizes) - len(sizes)
    assert found.clusters == len(sizes) == sum(found.cluster_sizes.values())
    for name, count in found.cluster_sizes.items():
        low, _, high = name.partition("-")
        assert count == sum(int(low) <= size <= int(high or low) for size in sizes)
        assert int(high or low).bit_count() == 1
    assert [cluster.size for cluster in found.largest] == sorted(sizes, reverse=True)[:20]
    for cluster in found.largest:
        first = cluster.kept[1]
        assert cluster.dropped == tuple((0, first + shift) for shift in range(1, cluster.size))[:5]
