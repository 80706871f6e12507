"""python -m benchmarks.latency REQUEST: how long a batch takes to score, p50 and p99, by the network alone.

REQUEST is that of a contender (`benchmarks/yardstick.py`); prints JSON. `benchmarks.curves` calls it. What a server
adds is in `benchmarks.serve`.
"""

import json
import sys
import time

import numpy as np
import tensorflow as tf

from benchmarks.contenders import ours
from benchmarks.yardstick import Request, batches
from dlen_cam2.models import ReadOut, build

WARM = 50


def measure(request: Request) -> dict[str, float]:
    """Milliseconds of a batch."""
    config, schema = ours.model_config(request), ours.schema(request.sizes)
    network, read_out = build(config, schema), ReadOut(config, schema)
    score = tf.function(lambda features: read_out.predictions(network(features, training=False)), autograph=False)
    sent = [ours.features(batch)[0] for batch in batches(request.sizes)]
    milliseconds: list[float] = []
    begun = time.perf_counter()
    while len(milliseconds) < 2 * WARM or time.perf_counter() - begun < request.seconds:
        start = time.perf_counter()
        score(sent[len(milliseconds) % len(sent)]).numpy()
        milliseconds.append(1e3 * (time.perf_counter() - start))
    p50, p99 = np.percentile(milliseconds[WARM:], [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


if __name__ == "__main__":
    print(json.dumps(measure(Request(**json.loads(sys.argv[1])))))
