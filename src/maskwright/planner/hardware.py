"""Stated rates of some machines, and how long a collective takes on them.

Rates are those of data sheets, one way, for dense products; what a program reaches of them is a share
that is given as such. No number here was measured by this project unless its source says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["HARDWARE", "Hardware"]


@dataclass(frozen=True)
class Hardware:
    """A node and the network between nodes.

    Args:
        flops: peak of 16-bit matrix products of a device, operations a second.
        flops_share: share of it that a training step reaches without communication.
        memory_bytes: of a device.
        memory_bandwidth: of a device, bytes a second.
        devices_per_node: devices that are joined by the fast link.
        link_bandwidth: of a device to the others of its node, bytes a second, one way.
        network_bandwidth: of a device to other nodes, bytes a second, one way.
        link_share: share of a link's rate that large collectives reach.
        link_latency: seconds of a hop within a node.
        network_latency: seconds of a hop between nodes.
        call_latency: seconds of a collective of no length.
        kind: `cuda` or `cpu`; decides what is kept in memory.
    """

    flops: float
    flops_share: float
    memory_bytes: float
    memory_bandwidth: float
    devices_per_node: int
    link_bandwidth: float
    network_bandwidth: float
    link_share: float = 0.8
    link_latency: float = 3.4e-6
    network_latency: float = 14e-6
    call_latency: float = 8.4e-6
    kind: str = "cuda"

    def collective_seconds(
        self, collective: str, sent_bytes: float, size: int, stride: int, messages: float
    ) -> float:
        """Seconds of collectives in a ring, or as a tree where that has less latency.

        A group that spans nodes sends through as many network adapters as it has ranks in a node.

        Args:
            collective: `all-reduce`, `all-gather` or `reduce-scatter`.
            sent_bytes: what a rank sends in all.
            size: ranks of the group.
            stride: distance between neighbours of the group, in ranks.
            messages: number of collectives.

        Source: the model of latency in NCCL (src/graph/tuning.cc), "simple" protocol.
        """
        if size == 1:
            return 0.0
        local = max(1, min(size, self.devices_per_node // stride))
        nodes = -(-size // local)
        bandwidth = self.link_bandwidth
        if nodes > 1:
            across = self.network_bandwidth * local
            bandwidth = min(bandwidth, across) if local > 1 else across
        twice = 2 if collective == "all-reduce" else 1
        far, near = nodes - 1, size - nodes
        latency = twice * (far * self.network_latency + near * self.link_latency)
        if collective == "all-reduce":
            depth = math.ceil(math.log2(nodes))
            tree = 2 * ((local - 1) * self.link_latency + depth * self.network_latency)
            latency = min(latency, tree)
        return sent_bytes / (bandwidth * self.link_share) + messages * (self.call_latency + latency)


def _two_cores() -> Hardware:
    """Two processes on the cores of one small machine, by gloo over the loopback.

    Source: the matrix rate of two cores in `benchmarks/results/pretrain_cpu_base_8x512_50265.md`, half
    of it for each, and the share that a step reached there. Bandwidths and latency are assumptions.
    """
    return Hardware(
        flops=0.42e12,
        flops_share=0.6,
        memory_bytes=12e9,
        memory_bandwidth=10e9,
        devices_per_node=2,
        link_bandwidth=1e9,
        network_bandwidth=0.1e9,
        link_latency=50e-6,
        network_latency=200e-6,
        call_latency=100e-6,
        kind="cpu",
    )


def _accelerator(flops: float, memory: float, bandwidth: float, link: float, network: float) -> Hardware:
    """Eight accelerators in a node, with a network adapter each.

    The share of the matrix rate is an assumption, between what published runs of encoders and decoders of
    1 to 10 billion parameters report; put your own there. Latencies are NCCL's for a ring.
    """
    return Hardware(flops, 0.45, memory, bandwidth, 8, link, network)


HARDWARE: dict[str, Hardware] = {
    # NVIDIA H200 data sheet: 989 TFLOP/s dense bf16, 141 GB at 4.8 TB/s, NVLink 900 GB/s both ways;
    # DGX H200 data sheet: eight 400 Gb/s adapters.
    "h200": _accelerator(989e12, 141e9, 4.8e12, 450e9, 50e9),
    # NVIDIA H100 SXM data sheet: 989 TFLOP/s, 80 GB at 3.35 TB/s, NVLink 900 GB/s; DGX H100: as above.
    "h100": _accelerator(989e12, 80e9, 3.35e12, 450e9, 50e9),
    # NVIDIA A100 80GB SXM data sheet: 312 TFLOP/s, 80 GB at 2.039 TB/s, NVLink 600 GB/s;
    # DGX A100 data sheet: eight 200 Gb/s adapters.
    "a100": _accelerator(312e12, 80e9, 2.039e12, 300e9, 25e9),
    "cpu": _two_cores(),
}
