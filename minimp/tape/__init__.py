"""The tape: what an op records, and how gradients travel back over it.

Each recorded op leaves one :class:`Node`. :func:`backward` walks the nodes in the opposite order of
their creation, on raw arrays, with autocast off, in the formats of the forward.
"""

from minimp.tape.leaves import backward
from minimp.tape.records import Array, Edge, Event, Node, Parts, Value, WideNode
from minimp.tape.walk import edge_gradients, gradients, require_saved, tell_backward

__all__ = [
    "Array", "Edge", "Event", "Node", "Parts", "Value", "WideNode", "backward", "edge_gradients", "gradients",
    "require_saved", "tell_backward",
]  # fmt: skip
