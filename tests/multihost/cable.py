#!/usr/bin/env python3
"""A bad network cable between two network namespaces, for kernels without netem.

cable.py NAMESPACE1 INTERFACE1 NAMESPACE2 INTERFACE2 [delay MSms [JITTERms]] [loss P%] [reorder P%] [duplicate P%] [rate Nmbit]

Makes the two interfaces (taps; the caller gives them addresses and brings them up), prints "ready" and carries frames between
them until it is killed. The words are those of `tc qdisc add ... netem` and hold in each direction:
  delay D [J]   every frame takes D ms, give or take up to J; frames may pass each other
  loss P        a share of the frames is lost
  reorder P     a share of the frames is not delayed (only with delay), so it passes others
  duplicate P   a share of the frames comes twice
  rate R        at most so many bits a second; frames wait, and are lost where 1,000 wait already
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000
CLONE_NEWNET = 0x40000000
MOST_WAITING = 1000
LIBC = ctypes.CDLL(None, use_errno=True)


def share(word):
    return float(word.rstrip("%")) / 100


def parse(words):
    how = {"delay": 0.0, "jitter": 0.0, "loss": 0.0, "reorder": 0.0, "duplicate": 0.0, "rate": None}
    i = 0
    while i < len(words):
        name, value = words[i], words[i + 1]
        i += 2
        if name == "delay":
            how["delay"] = float(value.removesuffix("ms")) / 1000
            if i < len(words) and words[i].endswith("ms"):
                how["jitter"] = float(words[i].removesuffix("ms")) / 1000
                i += 1
        elif name == "rate":
            how["rate"] = float(value.removesuffix("mbit")) * 1e6 / 8
        elif name in how:
            how[name] = share(value)
        else:
            sys.exit("cable.py: unknown word %r" % name)
    return how


def enter(namespace):
    with open("/var/run/netns/" + namespace) as space:
        if LIBC.setns(space.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns " + namespace)


def make_tap(namespace, interface):
    enter(namespace)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", interface.encode(), IFF_TAP | IFF_NO_PI))
    return fd


class Direction:
    """Frames on their way from one end to the other: a heap of (when they arrive, number, frame)."""

    def __init__(self, how, to):
        self.how, self.to = how, to
        self.flying, self.number, self.free_at = [], 0, 0.0

    def take(self, frame, now):
        how = self.how
        if random.random() < how["loss"] or len(self.flying) >= MOST_WAITING:
            return
        arrives = now
        if random.random() >= how["reorder"]:
            arrives += how["delay"] + random.uniform(-how["jitter"], how["jitter"])
        if how["rate"] is not None:
            self.free_at = max(self.free_at, now) + len(frame) / how["rate"]
            arrives += self.free_at - now
        for _ in range(2 if random.random() < how["duplicate"] else 1):
            self.number += 1
            heapq.heappush(self.flying, (arrives, self.number, frame))

    def give(self, now):
        """Hands over what has arrived; seconds until the next frame, or None."""
        while self.flying and self.flying[0][0] <= now:
            try:
                os.write(self.to, heapq.heappop(self.flying)[2])
            except OSError:
                pass  # the interface is down: the frame is lost, as on any cable
        return self.flying[0][0] - now if self.flying else None


def main():
    first, second = make_tap(*sys.argv[1:3]), make_tap(*sys.argv[3:5])
    how = parse(sys.argv[5:])
    directions = {first: Direction(how, second), second: Direction(how, first)}
    print("ready", flush=True)
    poller = select.poll()
    for fd in directions:
        poller.register(fd, select.POLLIN)
    while True:
        waits = [wait for wait in (d.give(time.monotonic()) for d in directions.values()) if wait is not None]
        for fd, _ in poller.poll(min(waits) * 1000 if waits else None):
            try:
                while True:
                    directions[fd].take(os.read(fd, 65536), time.monotonic())
            except (BlockingIOError, OSError):
                pass


if __name__ == "__main__":
    main()
