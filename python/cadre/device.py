"""Where the kernels run."""

import os

from . import _engine


class Device(_engine.Device):
    """Kernels of an instruction set (CADRE_ISA, or the fastest that the CPU has) and threads to run them."""

    def __init__(self, isa=None, threads=1):
        super().__init__(isa or os.environ.get("CADRE_ISA") or "auto", threads)


def choose_device(force_cpu=False):
    """(device, reason): which device is taken, and a sentence that says why."""
    device = Device()
    name = f"CPU ({_engine.cpu_name()}, {device.isa} kernels)"
    if force_cpu:
        return name, "because --force-cpu says so"
    count, where = _engine.find_gpus()
    if count == 0:
        return name, f"because this machine shows no GPU ({where})"
    return name, f"although this machine has {count} GPU(s) ({where}): Cadre has no GPU kernels yet"
