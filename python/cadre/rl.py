"""The trainer's side of a weight update over a socket, or UCX.

    sender = cadre.rl.WeightSender(port=29500, num_receivers=8)       # all ranks of all servers
    requests.post(server + "/init_broadcaster", json={"host": "10.0.0.1", "port": sender.port})
    ...
    sender.offer(state_dict)                                           # numpy arrays or torch tensors, by name
    requests.post(server + "/update_weights", json={"weight_dir": None})

Each rank of each server connects and reads the parts of the tensors that it holds, straight from the arrays: nothing is
copied here, so they must not change until `wait` says that all have taken them. The protocol stands in
src/checkpoint/remote_source.h. This file needs nothing but Python and, for what it is given, numpy; with
transport="ucx" the package around it with its extension, and UCX (docs/rl.md says when that is worth it).
"""

import atexit
import json
import os
import socket
import struct
import threading

__all__ = ["WeightSender"]

_BEGIN, _READ, _END = 1, 2, 3
_MAGIC = b"CDRWGT01"
_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint8": "U8", "bool": "BOOL",
}
_MAX_READ = 1 << 30
_READ_MEMORY = struct.unpack("<I", b"UCX\xff")[0]


def _bytes_of(name, tensor, dtype):
    """(safetensors type, shape, the bytes in C order); copies only what is not contiguous."""
    import numpy as np

    if hasattr(tensor, "detach"):  # torch, without importing it
        tensor = tensor.detach().cpu().contiguous()
        kind = str(tensor.dtype).removeprefix("torch.")
        shape = list(tensor.shape)
        array = tensor.view(-1).view(__import__("torch").uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)
    else:
        array = np.ascontiguousarray(tensor)
        kind, shape = dtype or str(array.dtype), list(np.shape(tensor))
        if dtype == "bfloat16" and array.dtype != np.uint16:
            raise TypeError("%s: bfloat16 is given as its bits, in an array of uint16; found %s" % (name, array.dtype))
        array = array.reshape(-1).view(np.uint8)
    if kind not in _TYPES:
        raise TypeError("%s has type %s; wanted one of %s" % (name, kind, ", ".join(_TYPES)))
    return _TYPES[kind], shape, memoryview(array)


class _File:
    """Tensors laid out as a safetensors file that is never written."""

    def __init__(self, tensors, dtypes):
        head, self.parts, offset = {}, [], 0
        for name, tensor in tensors.items():
            kind, shape, data = _bytes_of(name, tensor, dtypes.get(name))
            head[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + len(data)]}
            self.parts.append((offset, data))
            offset += len(data)
        self.mapped, self.offer = {}, None  # over UCX
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        self.head = struct.pack("<Q", len(text)) + text
        self.size = len(self.head) + offset
        self.starts = [start for start, _ in self.parts]

    def pieces(self, offset, count):
        """The bytes [offset, offset + count) of the file, as views."""
        import bisect

        if offset < len(self.head):
            piece = memoryview(self.head)[offset : offset + count]
            yield piece
            offset, count = offset + len(piece), count - len(piece)
        offset -= len(self.head)
        index = max(bisect.bisect_right(self.starts, offset) - 1, 0)
        while count > 0:
            start, data = self.parts[index]
            piece = data[offset - start : offset - start + count]
            if len(piece):
                yield piece
            offset, count, index = offset + len(piece), count - len(piece), index + 1


def _place(data):
    """(address, bytes) of a view."""
    import numpy as np

    return np.frombuffer(data, np.uint8).__array_interface__["data"][0], len(data)


class _Memory:
    """The arrays of offers as memory that receivers read over UCX."""

    def __init__(self, addresses):
        try:
            from cadre import _engine
        except ImportError as error:
            wanted = "transport='ucx' needs the package cadre with its extension (%s); transport='tcp' does not"
            raise ImportError(wanted % error) from error
        self._owner = _engine.MemoryOwner(addresses)
        self._probe = os.urandom(32)
        self._mapped_probe = self._owner.map(self._probe)
        atexit.register(self._owner.close)  # its thread must not outlive UCX

    def map(self, parts, previous):
        """{(address, bytes): mapped} of all parts; what an offer before has mapped stays mapped."""
        mapped = {}
        for _, data in parts:
            if len(data) and _place(data) not in mapped:
                mapped[_place(data)] = previous.get(_place(data)) or self._owner.map(data)
        return mapped

    def describe(self, parts, mapped):
        """The offer of remote_offer.h: where the bytes of a file lie, in the order of its parts."""
        numbers = {place: number for number, place in enumerate(mapped, start=1)}
        pieces = [struct.pack("<I2Q", numbers[_place(data)], 0, len(data)) for _, data in parts if len(data)]
        port = self._owner.port.encode()
        text = [struct.pack("<3I", len(mapped) + 1, len(port), len(pieces)), port]
        for region in (self._mapped_probe, *mapped.values()):
            text += struct.pack("<2QI", region.address, region.num_bytes, len(region.key)), region.key
        return b"".join((*text, *pieces, self._probe))

    def close(self):
        atexit.unregister(self._owner.close)
        self._owner.close()


class WeightSender:
    """Listens for the ranks of servers and offers them weights.

    num_receivers: how many ranks there are in all (each server's GET /get_world_size).
    host: the address to listen on; port 0 takes a free one, `port` says which.
    transport: "tcp": ranks ask for bytes over the socket; "ucx": they read them out of the arrays over UCX.
    """

    def __init__(self, num_receivers, host="0.0.0.0", port=0, transport="tcp"):
        if transport not in ("tcp", "ucx"):
            raise ValueError("transport is %r; wanted 'tcp' or 'ucx'" % (transport,))
        self._world = num_receivers + 1
        self._listener = socket.create_server((host, port), backlog=256)
        address, self.port = self._listener.getsockname()[:2]
        try:
            self._memory = _Memory([] if address == "0.0.0.0" else [address]) if transport == "ucx" else None
        except BaseException:
            self._listener.close()
            raise
        self._changed = threading.Condition()
        self._file, self._version = None, 0
        self._taken = {}  # receiver -> (version, in use)
        self._reading = {}  # receiver -> the file that it reads now
        self._connections = {}  # receiver -> sockets
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def offer(self, tensors, dtypes=None):
        """Offers tensors (name -> numpy array or torch tensor) as the next version; returns its number.

        dtypes: name -> "bfloat16" where an array of uint16 holds bfloat16 bits. Ranks fetch them when a server is told
        to /update_weights.
        """
        file = _File(tensors, dtypes or {})
        with self._changed:
            previous = self._file
            if self._closed:
                raise RuntimeError("the sender is closed")
        if self._memory is not None:
            file.mapped = self._memory.map(file.parts, previous.mapped if previous else {})
            file.offer = self._memory.describe(file.parts, file.mapped)
        with self._changed:
            self._file, self._version = file, self._version + 1
            self._changed.notify_all()
            return self._version

    def receivers(self):
        """The numbers of the ranks that are connected, from 1."""
        with self._changed:
            return sorted(self._connections)

    def wait(self, version=None, timeout=None):
        """Waits until all receivers have taken or refused a version (the last one); True if all use it."""
        with self._changed:
            version = version or self._version

            def told():
                return len(self._taken) == self._world - 1 and all(v >= version for v, _ in self._taken.values())

            if not self._changed.wait_for(told, timeout):
                missing = [r for r in range(1, self._world) if self._taken.get(r, (0, False))[0] < version]
                raise TimeoutError("receivers %s have not taken version %d" % (missing, version))
            return all(used for _, used in self._taken.values())

    def close(self):
        with self._changed:
            self._closed = True
            sockets = [s for group in self._connections.values() for s in group]
            self._file = None
            self._changed.notify_all()
        self._listener.close()
        for connection in sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if self._memory is not None:  # after the sockets: who still reads must know that it is over
            self._memory.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        receiver = None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            receiver = self._welcome(connection)
            if receiver is not None:
                connection.sendall(struct.pack("<I", 0 if self._memory is None else _READ_MEMORY))
            while receiver is not None and self._answer(connection, receiver):
                pass
        except (OSError, EOFError):
            pass
        finally:
            connection.close()
            with self._changed:
                group = self._connections.get(receiver, [])
                if connection in group:
                    group.remove(connection)
                if receiver is not None and not group:
                    self._connections.pop(receiver, None)
                    self._reading.pop(receiver, None)

    def _welcome(self, connection):
        connection.settimeout(10)
        hello = _receive(connection, 24)
        receiver, world, _stream, _count = struct.unpack("<4I", hello[8:])
        reason = ""
        if hello[:8] != _MAGIC:
            reason = "it speaks another protocol"
        elif world != self._world:
            reason = "it counts %d ranks and the sender, here are %d" % (world - 1, self._world - 1)
        elif not 1 <= receiver < world:
            reason = "receiver %d is not between 1 and %d" % (receiver, world - 1)
        connection.settimeout(None)
        if reason:
            connection.sendall(struct.pack("<I", len(reason)) + reason.encode())
            return None
        with self._changed:
            self._connections.setdefault(receiver, []).append(connection)
            self._changed.notify_all()
        return receiver

    def _answer(self, connection, receiver):
        what, a, b = struct.unpack("<3Q", _receive(connection, 24))
        if what == _BEGIN:
            with self._changed:
                # What was refused may be asked for again.
                taken, used = self._taken.get(receiver, (0, True))
                least = taken + 1 if used else taken
                self._changed.wait_for(lambda: self._closed or self._version >= least, a / 1000)
                if self._closed or self._version < least:
                    connection.sendall(struct.pack("<3Q", 0, 0, 0))
                    return True
                file, version = self._file, self._version
                self._reading[receiver] = file
            connection.sendall(struct.pack("<3Q", version, file.size, len(file.head)) + file.head)
            if file.offer is not None:
                connection.sendall(struct.pack("<Q", len(file.offer)) + file.offer)
            return True
        if what == _READ:
            file = self._reading.get(receiver)
            if file is None or b > _MAX_READ or a + b > file.size:
                return False
            for piece in file.pieces(a, b):
                connection.sendall(piece)
            return True
        if what != _END:
            return False
        with self._changed:
            self._reading.pop(receiver, None)
            self._taken[receiver] = (a, b == 1)
            self._changed.notify_all()
        return True


def _receive(connection, count):
    parts = bytearray()
    while len(parts) < count:
        piece = connection.recv(count - len(parts))
        if not piece:
            raise EOFError
        parts += piece
    return bytes(parts)
