"""Names that somebody may have meant."""

from . import _engine


def nearest(name, known):
    """ "; did you mean 'top_p'?", or nothing if no known name is like it."""
    name = str(name)
    near = [(_engine.edit_distance(name, other), other) for other in known]
    near += [(1, other) for other in known if len(name) >= 4 and (other.startswith(name) or name.startswith(other + "_"))]
    best = min(near, default=(99, ""))
    return f"; did you mean '{best[1]}'?" if best[0] <= max(2, len(name) // 4) else ""
