"""python -m benchmarks.ceilings: what this machine can do at most, through TensorFlow and on its threads.

Prints JSON: matrix products in float32 and bfloat16 (floating-point operations a second, the best of the products that
the yardstick's networks are made of and a large square one), and memory bandwidth (bytes a second of `a + b` on arrays
far larger than the caches). Each is the median of what was timed over some seconds.
"""

import json
import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from benchmarks.yardstick import SIZES

_SECONDS = 1.0


def _median(call: Callable[[], tf.Tensor]) -> float:
    """Seconds of a call."""
    for _ in range(3):
        call().numpy()
    seconds: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < _SECONDS:
        start = time.perf_counter()
        call().numpy()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def products(dtype: tf.DType) -> float:
    """Floating-point operations a second."""
    size = SIZES["yardstick"]
    inputs = size.sparse * size.width + size.dense
    shapes = [(size.batch, inputs, size.experts * size.expert_units[0]), (2048, 2048, 2048)]
    best = 0.0
    for m, k, n in shapes:
        a, b = (tf.cast(tf.random.normal(shape), dtype) for shape in ((m, k), (k, n)))

        @tf.function
        def product(a: tf.Tensor = a, b: tf.Tensor = b) -> tf.Tensor:
            # One number of the product is handed over, so that the whole is not copied out.
            return tf.matmul(a, b)[0, 0]

        best = max(best, 2 * m * k * n / _median(product))
    return best


def bandwidth() -> float:
    """Bytes a second, two read and one written for each byte of the sum."""
    a, b = tf.random.normal((2**26,)), tf.random.normal((2**26,))

    @tf.function
    def add() -> tf.Tensor:
        return (a + b)[0]

    return 3 * 4 * 2**26 / _median(add)


def main() -> None:
    print(json.dumps({
        "float32": products(tf.float32), "bfloat16": products(tf.bfloat16), "bandwidth": bandwidth(),
    }))


if __name__ == "__main__":
    main()
