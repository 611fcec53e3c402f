"""A layer of experts: the router's choice, the experts that a rank holds, and the exchange between ranks.

Everything is float32. A row's result does not depend on the rows beside it, nor on how rows are spread over ranks, up to
the order in which its experts' results are added (docs/exchange.md says which exchange adds in which order).
"""

import numpy as np

from . import _engine
from .distributed import default_device
from .errors import InvalidArgumentError


def _floats(array):
    return np.ascontiguousarray(array, dtype=np.float32)


class Linear:
    """y = x W^T. ``weight``: [outputs, inputs]."""

    def __init__(self, weight, device=None):
        self._linear = _engine.Linear(_floats(weight))
        self._outputs = np.shape(weight)[0]
        self._device = device or default_device()

    def __call__(self, rows):
        """rows [n, inputs] -> [n, outputs]."""
        rows = _floats(rows)
        out = np.empty((len(rows), self._outputs), np.float32)
        self._linear.run(self._device, rows, out)
        return out


def top_k(logits, k, device=None):
    """The k largest logits of each row, best first (ties: the lowest expert), and a softmax over those.

    logits [n, experts] -> experts [n, k] int32, weights [n, k] float32.
    """
    logits = _floats(logits)
    experts = np.empty((len(logits), k), np.int32)
    weights = np.empty((len(logits), k), np.float32)
    _engine.top_k(device or default_device(), logits, experts, weights)
    return experts, weights


class ExpertBank:
    """Experts down(silu(gate x) * up x), packed for the kernels. ``nbytes`` is what they take."""

    def __init__(self, num_experts, hidden_size, intermediate_size, device=None):
        self._bank = _engine.ExpertBank(num_experts, hidden_size, intermediate_size)
        self._device = device or default_device()

    num_experts = property(lambda self: self._bank.num_experts)
    hidden_size = property(lambda self: self._bank.hidden_size)
    intermediate_size = property(lambda self: self._bank.intermediate_size)
    nbytes = property(lambda self: self._bank.nbytes)

    def set(self, index, gate, up, down):
        """gate and up [intermediate, hidden], down [hidden, intermediate]; copied."""
        self._bank.set(index, _floats(gate), _floats(up), _floats(down))

    def run(self, rows, offsets, weights=None):
        """rows [n, hidden], those of expert e being [offsets[e], offsets[e + 1]); each result times its weight."""
        rows = _floats(rows)
        weights = np.ones(len(rows), np.float32) if weights is None else _floats(weights)
        out = np.empty_like(rows)
        self._bank.run(self._device, rows, np.ascontiguousarray(offsets, np.int32), weights, out)
        return out


class Received:
    """Rows that came for this rank's experts: ``rows`` [n, hidden], ``offsets`` [held + 1] (rows of held expert s are
    [offsets[s], offsets[s + 1])), ``weights`` [n] that expert rows must be multiplied with before combine()."""

    def __init__(self, rows, offsets, weights):
        self.rows, self.offsets, self.weights = rows, offsets, weights


class Exchange:
    """Dispatch and combine between the ranks of a group, by one of the --all2all-backend algorithms.

    ``group``: a ProcessGroup, or None for one process alone. ``max_tokens``: the most rows of any rank in a call. Made
    and used by all members together, rows or no rows; one thread at a time. As for the group, a failed wait ends it.

    Attributes: ``held`` (the experts of this rank, in the order of its bank), ``homes`` (the rank of every expert),
    ``bytes`` (a dict of what this rank drew from others so far: dispatch, combine, and what the algorithm's formula
    says), ``description``.
    """

    def __init__(
        self,
        group,
        num_experts,
        top_k,
        hidden_size,
        max_tokens,
        backend="allgather_reducescatter",
        placement="linear",
        device=None,
    ):
        self.top_k, self.hidden_size = top_k, hidden_size
        self._exchange = _engine.Exchange(
            None if group is None else group._world,
            [0] if group is None else group.ranks,
            device or default_device(group),
            backend=backend,
            num_experts=num_experts,
            top_k=top_k,
            hidden_size=hidden_size,
            max_tokens=max_tokens,
            placement=placement,
            timeout=60.0 if group is None else group.timeout,
        )
        self.held = self._exchange.held
        self.homes = self._exchange.homes
        self._num_tokens = None

    bytes = property(lambda self: self._exchange.bytes)
    description = property(lambda self: self._exchange.description)

    def dispatch(self, rows, experts, weights):
        """rows [t, hidden], experts [t, k] (-1: none), weights [t, k] -> Received."""
        self.send(rows, experts, weights)
        n = self._exchange.num_received
        received = Received(
            np.empty((n, self.hidden_size), np.float32),
            np.empty(len(self.held) + 1, np.int32),
            np.empty(n, np.float32),
        )
        self._exchange.received(received.rows, received.offsets, received.weights)
        return received

    def send(self, rows, experts, weights):
        """As dispatch, but leaves what comes where it lies, for run(); returns the number of rows."""
        rows = _floats(rows)
        if rows.ndim != 2 or rows.shape[1] != self.hidden_size:
            raise InvalidArgumentError(f"rows have shape {rows.shape}, not [tokens, {self.hidden_size}]")
        count = self._exchange.dispatch(rows, np.ascontiguousarray(experts, np.int32), _floats(weights))
        self._num_tokens = len(rows)
        return count

    def run(self, bank):
        """Runs this rank's experts over what came, in place; then combine() without rows."""
        self._exchange.run(bank._bank)

    def combine(self, expert_rows=None):
        """The sums of this rank's tokens, [t, hidden]. ``expert_rows``: results for what dispatch() brought, already
        multiplied with their weights; None after run()."""
        if self._num_tokens is None:
            raise InvalidArgumentError("combine without a dispatch")
        out = np.empty((self._num_tokens, self.hidden_size), np.float32)
        self._exchange.combine(None if expert_rows is None else _floats(expert_rows), out)
        return out
