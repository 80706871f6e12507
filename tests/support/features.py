"""Features of every type, in a line each."""

from dlen_cam2.schema import Feature


def ints(name="f", **changes):
    return Feature(name, **({"dtype": "int", "side": "user", "cause": "content", "size": 3, "width": 2} | changes))


def floats(name="f", **changes):
    return Feature(name, "float", **({"side": "user", "cause": "statistical"} | changes))


def strings(name="f", **changes):
    return Feature(name, "string", "user", "content", **({"width": 2, "vocabulary": ("a", "b")} | changes))


def learned(name="f", dtype="string", **changes):
    return Feature(name, dtype, "user", "content", **({"width": 2, "min_count": 2} | changes))
