"""Start a run on many processes: here by torchrun's library, or by a script for Slurm or Kubernetes.

Exit codes say the same everywhere: 0 done; 2 the user's error, never tried again; 3 stopped after
saving, the same command goes on; 1 anything else. A cost: the launcher is one more process a machine,
which imports torch and looks at its workers ten times a second.
"""

from __future__ import annotations

from .endings import Ending, Verdict, judge
from .kubernetes import KubernetesPlace, manifest_text
from .plan import LaunchPlan, Machines, dns_name, write_script
from .pod_files import pack_recipe
from .slurm import SlurmPlace, slurm_text

__all__ = [
    "Ending",
    "KubernetesPlace",
    "LaunchPlan",
    "Machines",
    "SlurmPlace",
    "Verdict",
    "dns_name",
    "judge",
    "manifest_text",
    "pack_recipe",
    "slurm_text",
    "write_script",
]
